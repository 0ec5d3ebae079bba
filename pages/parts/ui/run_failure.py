"""Why a job failed: what happened, the line it was seen from, the one cure, and a retry with what has to change."""

import pandas as pd
import streamlit as st

from pages.parts import words
from pages.parts.escape import md, one_line
from pages.parts.ui import frame
from spool.health import cures
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.jobs import Job


def show(home: Home, job: Job) -> None:
    """The whole card."""
    error = job.error or {}
    made = cures.suggestion(home, job)
    with st.container(border=True, gap="small"):
        said = error.get("message") or "The job failed without a word."
        frame.show_error(said, error.get("hint") or "Its log may say more.")
        if error.get("evidence"):
            st.caption("Seen in this line:")
            st.code(one_line(error["evidence"], 320), language=None, wrap_lines=True)
        if made:
            _what_to_try(home, job, made)


def _what_to_try(home: Home, job: Job, made: cures.Suggestion) -> None:
    """The difference, and one click that submits it; a second click, window or person gets the same job."""
    after = cures.submitted(home, job.id)
    if made.changes:
        st.markdown("**What to try** :gray[Only this differs from the job above:]")
        _table(made)
    else:
        st.markdown(f"**What to try** :gray[{md(made.sentence, 300)}]")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if after:
            frame.link(frame.MONITOR, "It was tried again: open that job", icon=":material/replay:", job=after)
            return
        label = "Retry with this change" if made.changes else "Retry as it is"
        if st.button(label, type="primary", icon=":material/replay:", key=f"retry-{job.id}"):
            _submit(home, job, made)
        query = {"retry": job.id, "data": str(made.spec.get("dataset") or "")}
        frame.link(frame.TRAIN, "Change more first", icon=":material/tune:", **query)


def _table(made: cures.Suggestion) -> None:
    table = pd.DataFrame(
        {
            "setting": [words.label(change.pointer) for change in made.changes],
            "was": [_value(change.before) for change in made.changes],
            "new": [_value(change.after) for change in made.changes],
            "why": [change.why for change in made.changes],
        }
    )
    config = st.column_config
    st.dataframe(
        table,
        hide_index=True,
        height="content",
        alt="What the retry changes",
        column_config={
            "setting": config.TextColumn("Setting", width="medium"),
            "was": config.TextColumn("Was", width="small"),
            "new": config.TextColumn("Will be", width="small"),
            "why": config.TextColumn("Why", width="large"),
        },
    )


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _submit(home: Home, job: Job, made: cures.Suggestion) -> None:
    try:
        fresh = cures.submit(home, job.id, made)
    except (OSError, FinetunerError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        frame.show_error(
            f"The retry could not be written: {reason}.", "Check the disk and the rights of the data home."
        )
        return
    st.switch_page(frame.MONITOR, query_params={"job": fresh})
