"""Models: the adapters that finished jobs have made, and the bases on this server."""

import pandas as pd
import streamlit as st

from pages.parts import quantities, shelf
from pages.parts.escape import md
from pages.parts.ui import frame, jobs, run
from spool.protocol.home import Home
from spool.protocol.jobs import Job, list_jobs

HOME = frame.home()
SHOWN = 50


def card(home: Home, job: Job) -> None:
    """One trained model: where it comes from, how good it is, and the way to take it along."""
    result = job.result or {}
    exports = shelf.exports(home, job)
    with st.container(border=True, height="stretch", gap="small"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(f"**{md(jobs.short_name(job), 60)}**", width="content")
            frame.link(frame.MONITOR, "Open", icon=":material/monitoring:", job=job.id)
        st.caption(f"{jobs.about(job)}  \n{quantities.clock(job.ended_at, frame.zone())}")
        with st.container(horizontal=True, gap="medium"):
            st.metric("Final loss", quantities.loss(result.get("final_loss")), width="content")
            if result.get("eval_loss") is not None:
                st.metric("Eval loss", quantities.loss(result["eval_loss"]), width="content")
            st.metric("Steps", quantities.count(result.get("steps")), width="content")
        st.space("stretch")
        for export in exports:
            run.download(job, export)
        if not exports:
            st.caption(":material/warning: Its files are no longer there.")


def bases(found: list[shelf.Base]) -> None:
    st.subheader("Base models", anchor=False)
    if not found:
        st.caption("No base lies on this server yet: `make setup` prepares gemma-3-270m.")
        return
    table = pd.DataFrame(
        {
            "Name": [base.name for base in found],
            "What": [base.kind for base in found],
            "Size": [quantities.size(base.size_bytes) for base in found],
        }
    )
    st.dataframe(table, hide_index=True, alt="Base models on this server", row_height=40)
    st.caption("Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms.")


frame.title("Models", "What your jobs have taught, ready to take along.")
done = sorted(list_jobs(HOME, "done"), key=lambda job: job.ended_at or "", reverse=True)
if not done:
    frame.nothing("No trained model yet", "The adapter of each finished job appears here.", frame.TRAIN, "Train one")
else:
    with st.grid(3, min_column_width=280):
        for job in done[:SHOWN]:
            card(HOME, job)
    if len(done) > SHOWN:
        st.caption(f"The newest {SHOWN} of {len(done):,}.")
st.space("small")
bases(shelf.bases(HOME))
