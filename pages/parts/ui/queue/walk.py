"""The newcomer's walk through a first training, as it stands on Home until it is put away."""

import streamlit as st

from pages.parts import quantities
from pages.parts.escape import md
from pages.parts.queue import expected, walk
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from pages.parts.ui.queue import board
from spool.protocol import dropbox
from spool.protocol.errors import FinetunerError, NotFound
from spool.protocol.jobs import Job
from spool.protocol.ulid import is_ulid, mint

GUIDE, FRESH = "guide", "guide-fresh"
LOOKS = {
    "todo": ":gray[:material/radio_button_unchecked:]",
    "now": ":blue[:material/pending:]",
    "done": ":green[:material/check_circle:]",
    "wrong": ":red[:material/error:]",
}


def job() -> Job | None:
    """The job that is walked through: by the address, else as this session began it."""
    job_id = st.query_params.get(GUIDE) or st.session_state.get(GUIDE) or ""
    if not is_ulid(job_id):
        return None
    try:
        found = frame.job(job_id)
    except NotFound:
        return None
    st.session_state[GUIDE] = job_id
    st.query_params[GUIDE] = job_id
    return found


def _begin() -> None:
    job_id = st.session_state.setdefault(FRESH, mint())  # a second click is the same job
    try:
        dropbox.submit(frame.home(), walk.recipe(), job_id)
    except (FinetunerError, OSError, ValueError) as error:
        st.toast(md(t("home.walk.not_written", why=error), 300), icon=":material/error:")
        return
    frame.roster().stale()
    st.session_state[GUIDE] = job_id
    st.query_params[GUIDE] = job_id


def _put_away() -> None:
    for key in (GUIDE, FRESH):
        st.session_state.pop(key, None)
    st.query_params.pop(GUIDE, None)


def button(quiet: bool = False) -> None:
    """Trains the example and walks through it; says what is missing where it cannot."""
    here = walk.model_is_here(frame.home())
    st.button(
        t("home.walk.begin"),
        type="tertiary" if quiet else "primary",
        icon=":material/play_arrow:",
        on_click=_begin,
        key="walk-begin",
        disabled=not here,
    )
    if not here and not quiet:
        st.caption(t("home.walk.no_model"))


def card(shown: Job) -> None:
    with st.container(border=True, gap="small"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.subheader(t("home.walk.title"), anchor=False, width="content")
            st.button(
                t("home.walk.close"), type="tertiary", icon=":material/close:", on_click=_put_away, key="walk-close"
            )
        with st.grid(4, min_column_width=200):
            for number, step in enumerate(walk.steps(shown), start=1):
                with st.container(gap="xxsmall"):
                    st.markdown(f"{LOOKS[step.mood]} **{number} · {t(f'home.walk.step.{step.name}')}**")
                    st.caption(_says(step, shown))
        _more(shown)


def _says(step: walk.Step, shown: Job) -> str:
    run = frame.home().run(shown.id)
    if step.mood == "wrong":
        return t(f"home.walk.stopped.{shown.state}")
    if step.name == "checked" and step.mood == "done":
        found = walk.rows(run)
        return t("home.walk.rows", count=found) if found else t("home.walk.says.checked_done")
    if step.name == "training" and step.mood == "now" and shown.state != "running":
        span = board.spans().get(shown.id)
        at = expected.start(span, frame.now(), frame.zone())
        return t("home.walk.starts", at=at) if span and span.start else t("home.walk.says.training_waits")
    return t(f"home.walk.says.{step.name}_{'now' if step.mood == 'now' else 'done' if step.mood == 'done' else 'todo'}")


def _more(shown: Job) -> None:
    """The curve while it trains, the ways on when it is done, the cure where it failed."""
    if shown.state == "running":
        st.progress(jobs.fraction(shown) or 0.0, text=jobs.progress_text(shown))
    if shown.state in ("running", "done"):
        losses = walk.losses(frame.home().run(shown.id))
        if len(losses) > 1:
            left, right = st.columns([1, 2], gap="medium", vertical_alignment="center")
            left.metric(t("home.walk.loss"), quantities.loss(losses[-1]), chart_data=losses, chart_type="area")
            right.caption(t("home.walk.curve"))
    if shown.state == "done":
        with st.container(horizontal=True, gap="medium"):
            frame.link(frame.PLAYGROUND, t("home.walk.try"), icon=":material/forum:", **{"with": shown.id})
            frame.link(frame.MONITOR, t("home.walk.download"), icon=":material/download:", job=shown.id)
            frame.link(frame.DATA, t("home.walk.own_data"), icon=":material/upload:")
    if shown.state in ("failed", "rejected"):
        error = shown.error or {}
        frame.show_error(jobs.why(shown) or t("home.walk.stopped.failed"), str(error.get("hint") or ""))
        frame.link(frame.MONITOR, t("home.look"), icon=":material/monitoring:", job=shown.id)
