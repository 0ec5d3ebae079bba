"""Sample answers of a training: a prompt, what the base said to it, and what the model says at a chosen step."""

import streamlit as st

from pages.parts import quantities
from pages.parts.escape import one_line
from pages.parts.run import samples, tail
from pages.parts.texts import t
from pages.parts.ui import choices
from spool.protocol.home import Home
from spool.protocol.jobs import Job

NEWEST = "newest"


def show(home: Home, job: Job) -> None:
    """The newest answers, or those of an earlier evaluation."""
    prompts = samples.collect(tail.rows(home.run(job.id).samples))
    if not prompts:
        st.caption(t("monitor.answers.none_yet" if not job.ended else "monitor.answers.none"))
        return
    steps = samples.steps(prompts)
    step = _step(steps)
    for prompt in prompts:
        _prompt(prompt, step)


def _step(steps: list[int]) -> int | None:
    """The evaluation that is looked at: the newest, unless another one was chosen. None before the first."""
    if not steps:
        st.caption(t("monitor.answers.base_only"))
        return None
    if len(steps) == 1:
        st.caption(t("monitor.answers.at", step=quantities.count(steps[0])))
        return steps[0]
    options = [*(str(step) for step in steps[:-1]), NEWEST]

    def said(each: str) -> str:
        step = quantities.count(steps[-1] if each == NEWEST else int(each))
        return t("monitor.answers.newest" if each == NEWEST else "monitor.answers.at", step=step)

    choices.keep("at", options, NEWEST)
    st.select_slider(
        t("monitor.answers.which"), options, key=choices.key("at"), format_func=said, on_change=choices.went,
        args=("at", NEWEST),
    )  # fmt: skip
    chosen = choices.chosen("at", options, NEWEST)
    return steps[-1] if chosen == NEWEST else int(chosen)


def _prompt(prompt: samples.Prompt, step: int | None) -> None:
    """A card: the prompt, then base and tuned side by side, then what the data says."""
    found = prompt.at(step) if step is not None else None
    with st.container(border=True, gap="small"):
        st.caption(t("monitor.answers.prompt"))
        st.text(prompt.text)
        columns = 1 + (prompt.base is not None) + (prompt.reference is not None)
        with st.grid(columns, min_column_width=260, gap="medium"):
            if prompt.base is not None:
                _said(t("monitor.answers.base"), prompt.base)
            if found:
                at, answer = found
                label = t("monitor.answers.now", step=quantities.count(at))
                _said(f":blue[{label}]", answer.text, t("monitor.answers.cut") if answer.cut else "")
            else:
                _said(t("monitor.answers.tuned"), "")
            if prompt.reference is not None:
                _said(t("monitor.answers.reference"), prompt.reference)


def _said(label: str, text: str, note: str = "") -> None:
    with st.container(gap="xxsmall"):
        st.caption(f"**{label}**")
        if one_line(text):
            st.text(text)
        else:
            st.caption(t("monitor.answers.nothing"))
        if note:
            st.caption(note)
