"""Beside the Train form: what the job will take, the button that starts it, what is wrong, and its spec as JSON."""

import time
from typing import Any

import streamlit as st

from pages.parts import alive, quantities, words
from pages.parts.escape import md
from pages.parts.phrases import translated
from pages.parts.texts import t
from pages.parts.train import draft, fields
from pages.parts.train.draft import Draft
from pages.parts.train.figures import Figures
from pages.parts.ui import frame
from pages.parts.ui.train import fill, form, inputs
from pages.parts.ui.train.form import BESIDE, ERROR, KEY, STATE
from spool.forecast.estimate import Estimate, estimate
from spool.protocol.errors import Problem

SHOWN_PROBLEMS = 8
ESTIMATE, FRESH_S = "train-estimate", 20.0


def show(made: Draft, seen: Figures) -> None:
    with st.container(border=True, gap="small"):
        found = _estimate(made, seen.rows)
        if found.steps is not None or found.seconds is not None:
            _takes(found)
        elif not made.problems:
            st.caption(t("train.takes.unknown"))
        st.button(
            t("train.start"),
            type="primary",
            icon=":material/play_arrow:",
            width="stretch",
            disabled=bool(made.problems),
            on_click=form.submit,
            key="start",
        )
        if STATE.get(ERROR):
            frame.show_error(t("train.not_written", why=STATE[ERROR]), t("train.check_disk"))
        _judged(made, seen, found)
    _spec(made)


def _estimate(made: Draft, rows: int | None) -> Estimate:
    """What a spec will take; asked anew when more is known of its rows, and after a while, as disks fill up."""
    key, now = (made.text, rows), time.monotonic()
    kept = STATE.get(ESTIMATE)
    if kept is None or kept[0] != key or now - kept[1] > FRESH_S:
        kept = STATE[ESTIMATE] = (key, now, estimate(frame.home(), made.spec))
    found: Estimate = kept[2]
    return found


def _takes(found: Estimate) -> None:
    """Time, steps, memory and disk, each only where it can be told."""
    with st.grid(2, min_column_width=110, gap="small"):
        st.metric(t("train.takes.time"), _about_time(found), help=_learned(found))
        st.metric(t("train.takes.steps"), quantities.count(found.steps))
        if found.gpu_bytes is not None:
            st.metric(t("train.takes.gpu"), quantities.size(found.gpu_bytes), help=t("train.takes.gpu_help"))
        else:
            st.metric(t("train.takes.memory"), quantities.size(found.memory_bytes), help=t("train.takes.memory_help"))
        st.metric(t("train.takes.disk"), quantities.size(found.disk_bytes), help=t("train.takes.disk_help"))
    said = []
    if found.low_s is not None and found.high_s is not None:
        low, high = quantities.duration(found.low_s), quantities.duration(found.high_s)
        said.append(t("train.takes.range", low=low, high=high) if low != high else "")
        said.append(_learned(found))
    st.caption("  \n".join(filter(None, said)) or t("train.takes.unknown"))


def _about_time(found: Estimate) -> str:
    if found.seconds is None:
        return quantities.DASH
    return f"≈ {quantities.duration(found.seconds)}"


def _learned(found: Estimate) -> str:
    if found.seconds is None:
        return ""
    if not found.learned_from:
        return t("train.takes.guess")
    return t("train.takes.learned", count=found.learned_from)


def _judged(made: Draft, seen: Figures, found: Estimate) -> None:
    """What must be cured, what may be wrong, or that all is well; in words."""
    for problem in made.problems[:SHOWN_PROBLEMS]:
        _say("red", ":material/error:", draft.in_words(problem))
    if len(made.problems) > SHOWN_PROBLEMS:
        st.caption(t("train.more_problems", count=len(made.problems) - SHOWN_PROBLEMS))
    _left_beside()
    if made.problems:
        return
    for doubt in made.doubts:
        _say("orange", ":material/warning:", draft.in_words(doubt))
    if seen.state in ("blocked", "unreadable"):
        _say("orange", ":material/block:", t("train.will_be_blocked"))
    for problem in found.problems:
        _unfit(problem, found)
    runner = alive.look(frame.home())
    if not runner.alive:
        _say("gray", ":material/power_off:", t("train.runner_off"))
    elif not (made.doubts or found.problems or seen.state in ("blocked", "unreadable")):
        fits = t("train.fits") if found.memory_bytes is not None or found.gpu_bytes is not None else t("train.ready")
        _say("green", ":material/check_circle:", fits)


def _unfit(problem: Problem, found: Estimate) -> None:
    _say("orange", ":material/memory:", f"{words.sentence(translated(problem.message))} {translated(problem.hint)}")
    if found.fits_with and problem.code.endswith("memory"):
        st.button(
            t("train.use_what_fits"),
            icon=":material/auto_fix_high:",
            on_click=_fit,
            args=(dict(found.fits_with),),
            key="fit",
            width="stretch",
        )


def _fit(changes: dict[str, Any]) -> None:
    """Sets what the estimate says would fit."""
    known = fields.all_fields()
    inputs.fill({pointer: known[pointer] for pointer in changes if pointer in known}, KEY, changes)


def _left_beside() -> None:
    """What an imported spec brought that no input can show: it stays in the spec until it is left out."""
    beside = STATE[BESIDE]
    if not beside:
        return

    def leave_out() -> None:
        STATE[BESIDE] = {}

    listed = ", ".join(pointer[1:].replace("/", ".") for pointer in beside)
    _say("gray", ":material/attach_file:", t("train.beside", count=len(beside), fields=listed))
    st.button(t("train.leave_out"), icon=":material/close:", type="tertiary", on_click=leave_out, key="leave-out")


def _say(color: str, icon: str, text: str) -> None:
    st.markdown(f":{color}[{icon}] {md(text, 600)}")


def _spec(made: Draft) -> None:
    """The spec, to copy, to take along and to bring."""
    with st.expander(t("train.spec"), icon=":material/data_object:", expanded=True):
        st.code(made.text, language=None, wrap_lines=True)  # the colours of code are too pale to be read by all
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.download_button(
                t("train.download"),
                made.text,
                file_name="job.json",
                mime="application/json",
                icon=":material/download:",
                type="tertiary",
                on_click="ignore",
                key="download-spec",
            )
            fill.opener("bring", t("train.import.button"), ":material/upload:", "spec")
        st.caption(t("train.spec_help"))
