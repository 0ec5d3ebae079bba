"""A job that answers prompts: how many it has answered, how fast, the newest answers, and the way to the Playground."""

import threading

import streamlit as st

from pages.parts import quantities
from pages.parts.escape import md
from pages.parts.run import series
from pages.parts.run.curves import Look
from pages.parts.texts import t
from pages.parts.ui import frame
from spool.protocol.asks import Answer, Answers
from spool.protocol.home import Home
from spool.protocol.jobs import Job

SHOWN = 20
LONGEST_TEXT = 2000


@st.cache_resource(max_entries=16, show_spinner=False)
def _answers(root: str, job_id: str) -> tuple[Answers, threading.Lock]:
    """One reader a job for all sessions."""
    return Answers(Home.at(root), job_id), threading.Lock()


def show(home: Home, job: Job, look: Look) -> None:
    """Figures and answers; a session of the Playground shows its way there."""
    columns = look.columns
    strip = columns.remember(("strip", "step", "all"), lambda: series.strip_table(columns))
    answers, lock = _answers(str(home.root), job.id)
    with lock:
        answers.read()
        newest = [answer for asked in list(answers.by_ask.values())[-SHOWN:] for answer in asked.values()]
        count = len(answers.by_ask)
    figures: list[tuple[str, str, list[float]]] = [("answered", quantities.count(count), [])]
    for name, field, said in (
        ("speed", "tokens_per_s", quantities.count),
        ("gpu_memory", "gpu_mem_bytes", quantities.size),
        ("memory", "host_mem_bytes", quantities.size),
    ):
        if columns.latest(field) is not None and not (name == "memory" and columns.has("gpu_mem_bytes")):
            course = series.spark(strip[field].to_numpy()) if field in strip else []
            figures.append((name, said(columns.latest(field)), course))
    with st.grid(len(figures), min_column_width=140, gap="small"):
        for name, value, course in figures:
            st.metric(
                t(f"monitor.figure.{name}.label"), value, help=t(f"monitor.figure.{name}.help"), border=True,
                chart_data=course or None, chart_type="area",
            )  # fmt: skip
    frame.link(frame.PLAYGROUND, t("monitor.generate.playground"), icon=":material/forum:", batch=job.id)
    if not newest:
        st.caption(t("monitor.generate.none"))
    for answer in reversed(newest[-SHOWN:]):
        _answer(answer)


def _answer(answer: Answer) -> None:
    with st.container(border=True, gap="xsmall"):
        who = t("monitor.answers.base") if answer.who == "base" else f"…{answer.who[-6:]}"
        took = t("monitor.generate.took", tokens=quantities.count(answer.tokens)) if answer.tokens else ""
        st.caption(" · ".join(filter(None, [md(who), took])))
        if answer.prompt:
            st.markdown(f":gray[{md(answer.prompt, 400)}]")
        st.text(answer.text[:LONGEST_TEXT] or "…")
