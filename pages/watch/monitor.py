"""Monitor: one job, live: how far it is, its curves, its log, and in plain words what went wrong.

The address holds the job (`/monitor?job=ID`), so a link to it can be sent to somebody.
"""

import streamlit as st

from pages.parts import words
from pages.parts.series import Follower
from pages.parts.ui import frame, jobs, run
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.jobs import Job, get_job, list_jobs

HOME = frame.home()
REFRESH_S = 2


def pick(everything: list[Job], job_id: str | None) -> None:
    """A box to go to another job; what is chosen goes into the address."""
    newest = sorted(everything, key=lambda job: job.submitted_at or "", reverse=True)
    by_id = {job.id: job for job in newest}

    def shown(each: str) -> str:
        job = by_id[each]
        return f"{jobs.short_name(job)}  ·  {words.state(job.state).label.lower()}  ·  …{each[-4:]}"

    def go() -> None:
        if st.session_state["monitor-pick"]:
            st.query_params["job"] = st.session_state["monitor-pick"]

    if st.session_state.get("monitor-pick") != job_id:
        st.session_state["monitor-pick"] = job_id if job_id in by_id else None
    st.selectbox(
        "Job",
        list(by_id),
        index=None,
        format_func=shown,
        key="monitor-pick",
        on_change=go,
        placeholder="Choose a job",
        label_visibility="collapsed",
        icon=":material/search:",
    )


def follow(home: Home, job_id: str) -> Follower:
    """This session's reader of the job's metrics."""
    kept = st.session_state.get("monitor-follower")
    if kept is None or kept[0] != job_id:
        kept = st.session_state["monitor-follower"] = (job_id, Follower(home.run(job_id).metrics))
    return kept[1]


def show(job_id: str, polled: bool) -> None:
    """Everything about one job. While it is polled and ends, the whole page runs once more and polling stops."""
    try:
        job = get_job(HOME, job_id)
    except FinetunerError as error:
        frame.show_error(error.message, "Choose one above.")
        return
    if job.ended and polled:
        st.rerun()
    follower = follow(HOME, job_id)
    rows = follower.look()
    run.head(job)
    run.outcome(HOME, job)
    if job.state == "rejected":
        return
    if not job.ended:
        run.progress(job)
    if rows:
        run.numbers(job, rows)
        run.charts(job, follower)
    run.details(HOME, job)


with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
    st.title("Monitor", anchor=False, width="content")
    picker = st.container(width=380)
everything = list_jobs(HOME)
asked = st.query_params.get("job")
if asked is None and everything:
    running = [job for job in everything if job.state == "running"]
    asked = (running or everything)[-1].id
with picker:
    pick(everything, asked)
if asked is None:
    frame.nothing("No job yet", "Here you will see a job's loss fall as it trains.", frame.TRAIN, "Start the first one")
else:
    live = any(job.id == asked and not job.ended for job in everything)
    st.fragment(show, run_every=REFRESH_S if live else None)(asked, live)
