"""Monitor: one job, live: how far it is, its curves, what they mean, its log, and in plain words what went wrong.

The address holds the job (`/monitor?job=ID`) and how its charts are drawn, so a link to it can be sent to somebody.
"""

import streamlit as st

from pages.parts import words
from pages.parts.run import curves
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from pages.parts.ui.run import details, evaluate, export, figures, generate, head
from spool.protocol.errors import FinetunerError
from spool.protocol.jobs import Job

HOME = frame.home()
REFRESH_S = 2
DETAILS_S = 4
OFFERED = 300
"""Jobs in the box, the newest; an older one is reached by its link."""


def pick(everything: list[Job], job_id: str | None) -> None:
    """A box to go to another job; what is chosen goes into the address."""
    newest = sorted(everything, key=lambda job: job.submitted_at or "", reverse=True)
    by_id = {job.id: job for job in newest[:OFFERED]}
    by_id |= {job.id: job for job in newest[OFFERED:] if job.id == job_id}

    def shown(each: str) -> str:
        job = by_id[each]
        return f"{jobs.short_name(job)}  ·  {words.state(job.state).label}  ·  …{each[-4:]}"

    def go() -> None:
        if st.session_state["monitor-pick"]:
            st.query_params["job"] = st.session_state["monitor-pick"]

    if st.session_state.get("monitor-pick") != job_id:
        st.session_state["monitor-pick"] = job_id if job_id in by_id else None
    st.selectbox(
        t("monitor.pick.label"),
        list(by_id),
        index=None,
        format_func=shown,
        key="monitor-pick",
        on_change=go,
        placeholder=t("monitor.pick.none"),
        label_visibility="collapsed",
        icon=":material/search:",
    )


def show(job_id: str, polled: bool) -> None:
    """What changes as it trains. While it is polled and has ended, the whole page runs once more and polling stops."""
    try:
        job = frame.job(job_id)
    except FinetunerError as error:
        frame.show_error(error.message, t("monitor.choose_above"))
        return
    look = curves.look(HOME.run(job_id).metrics)
    if job.ended and polled and not look.reading:
        st.rerun()
    head.head(HOME, job, look)
    head.outcome(HOME, job)
    if job.state == "rejected":
        return
    if not job.ended:
        head.progress(job)
    if job.kind == "generate":
        generate.show(HOME, job, look)
    elif job.kind == "export":
        export.show(HOME, job)
    elif job.kind == "evaluate":
        evaluate.show(HOME, job)
    elif look.columns.size:
        figures.show(HOME, job, look)


def written(job_id: str) -> None:
    """What was written: it is looked at less often, and only what is open is sent."""
    try:
        job = frame.job(job_id)
    except FinetunerError:
        return
    if job.state != "rejected":
        details.show(HOME, job)


with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
    st.title(t("frame.page.monitor"), anchor=False, width="content")
    picker = st.container(width=380)
everything = frame.jobs()
asked = st.query_params.get("job")
if asked is None and everything:
    running = [job for job in everything if job.state == "running"]
    asked = (running or everything)[-1].id
with picker:
    pick(everything, asked)
if asked is None:
    frame.nothing(t("monitor.empty.head"), t("monitor.empty.says"), frame.TRAIN, t("monitor.empty.link"))
else:
    goes_on = any(job.id == asked and not job.ended for job in everything)
    live = goes_on or curves.look(HOME.run(asked).metrics).reading
    st.fragment(show, run_every=REFRESH_S if live else None)(asked, live)
    st.fragment(written, run_every=DETAILS_S if goes_on else None)(asked)
