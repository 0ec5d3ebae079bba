"""Queue: every job with its state, in the order they run; orders to cancel, hold, move up and run again."""

from datetime import datetime

import pandas as pd
import streamlit as st

from pages.parts import quantities
from pages.parts.escape import md, one_line
from pages.parts.ui import frame, jobs
from pages.parts.words import STATES
from spool.protocol.jobs import Job

SHOWN_WAITING = 50
SHOWN_ENDED = 200
FILTERS = {"All": None, "Done": "done", "Failed": "failed", "Cancelled": "cancelled", "Not accepted": "rejected"}
OPEN, AGAIN = ":material/monitoring: Open", ":material/replay: Run again"


def row(job: Job, when: str) -> None:
    """A job that waits or runs, on one line."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False):
        with st.container(horizontal=True, vertical_alignment="center", gap="xxsmall"):
            jobs.head(job)
            st.caption(" · ".join(filter(None, [jobs.about(job), when])), width="content")
        jobs.menu(job, "queue")


def running_card(job: Job, now: datetime) -> None:
    with st.container(border=True, gap="xsmall"):
        row(job, f"started {quantities.ago(job.started_at, now)}")
        st.progress(jobs.fraction(job) or 0.0, text=jobs.progress_text(job))


def ended_table(ended: list[Job]) -> None:
    """Everything that has ended, newest first, as a table that stays light with many rows."""
    table = pd.DataFrame(
        {
            "state": [[STATES[job.state].label] for job in ended],
            "name": [jobs.short_name(job) for job in ended],
            "ended": pd.to_datetime(
                pd.Series([job.ended_at for job in ended], dtype="str"), format="ISO8601", utc=True
            ),
            "took": [quantities.between(job.started_at, job.ended_at) for job in ended],
            "loss": pd.Series([(job.result or {}).get("final_loss") for job in ended], dtype="float"),
            "who": [one_line(job.submitted_by or "", 40) for job in ended],
            "why": [jobs.why(job) for job in ended],
            "do": [[OPEN] if job.state == "rejected" else [OPEN, AGAIN] for job in ended],
        }
    )

    def chosen() -> None:
        click = st.session_state.get("ended-order")
        if click and click.row < len(ended):
            if click.label == AGAIN:
                jobs.give(jobs.RETRY, ended[click.row])
            else:
                st.session_state["queue-open"] = ended[click.row].id

    looks = [STATES[state] for state in ("done", "failed", "cancelled", "rejected")]
    config = st.column_config
    st.dataframe(
        table,
        hide_index=True,
        key="ended",
        row_height=40,
        placeholder=quantities.DASH,
        height="content" if len(ended) <= 12 else 560,
        alt="Jobs that have ended, newest first",
        column_config={
            "state": config.MultiselectColumn(
                "State", options=[look.label for look in looks], color=[look.color for look in looks], width=112
            ),
            "name": config.TextColumn("Job", width=190),
            "ended": config.DatetimeColumn("Ended", format="D MMM, HH:mm", timezone=str(frame.zone()), width=105),
            "took": config.TextColumn("Took", width=80),
            "loss": config.NumberColumn("Loss", format="%.3f", width=70, help="The last training loss"),
            "who": config.TextColumn("By", width=80),
            "why": config.TextColumn("Why", width=230),
            "do": config.ButtonColumn("", on_click=chosen, key="ended-order", type="tertiary", width=120),
        },
    )


def ended_section(ended: list[Job]) -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader("Finished", anchor=False, width="content")
        chosen = st.segmented_control(
            "Show",
            list(FILTERS),
            default="All",
            required=True,
            key="show",
            bind="query-params",
            label_visibility="collapsed",
        )
    state = FILTERS.get(str(chosen))
    kept = [job for job in ended if state in (None, job.state)]
    if not kept:
        st.caption("Nothing has finished yet." if state is None else f"No job is {str(chosen).lower()}.")
        return
    ended_table(kept[:SHOWN_ENDED])
    if len(kept) > SHOWN_ENDED:
        st.caption(f"The newest {SHOWN_ENDED} of {len(kept):,}. `finetuner jobs` lists all.")


@st.fragment(run_every="3s")
def queue() -> None:
    wanted = st.session_state.pop("queue-open", None)
    if wanted:
        st.switch_page(frame.MONITOR, query_params={"job": wanted})
    everything = frame.jobs()
    now = frame.now()
    runner = frame.runner_notice()
    if not everything:
        says = "Jobs that you start here, or drop into the spool, are listed in their order."
        frame.nothing("No job yet", says, frame.TRAIN, "Start the first one")
        return
    running = [job for job in everything if job.state == "running"]
    for job in running:
        running_card(job, now)
    order = {"queued": 0, "checking": 1, "held": 2}
    waiting = sorted((job for job in everything if job.state in order), key=lambda job: order[job.state])
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(f"Waiting · {len(waiting)}" if waiting else "Waiting", anchor=False, width="content")
        jobs.queue_menu(runner)
    if waiting:
        with st.container(border=True, gap="xxsmall"):
            for job in waiting[:SHOWN_WAITING]:
                since = f"since {quantities.ago(job.submitted_at, now)}".replace(" ago", "")
                if job.waits:
                    again = quantities.clock(job.waits["not_before"], frame.zone())
                    since = f"tried again at {again}: {md(one_line(job.waits['why'] or '', 120))}"
                elif job.state == "checking" and job.phase:
                    since = f"{jobs.progress_text(job)} …"
                row(job, since)
        if len(waiting) > SHOWN_WAITING:
            st.caption(f"And {len(waiting) - SHOWN_WAITING:,} more.")
    else:
        st.caption("Nothing waits." if running else "Nothing waits and nothing runs: the machine is yours.")
    ended_section(sorted((job for job in everything if job.ended), key=lambda job: job.ended_at or "", reverse=True))


frame.title("Queue", "One job trains at a time; the others wait in this order.")
queue()
