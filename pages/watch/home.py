"""Home: where a newcomer starts, and what is going on for everybody else."""

import streamlit as st

from pages.parts import quantities
from pages.parts.ui import frame, jobs
from spool.protocol.jobs import Job

RECENT = 5


def first_steps() -> None:
    steps = [
        (":material/dataset: **1 · Bring data**", "Upload a CSV, JSON, JSONL or text file. It is checked at once."),
        (":material/model_training: **2 · Train**", "Pick a Gemma and your data. Every setting has a sound default."),
        (":material/monitoring: **3 · Watch**", "See the loss fall, then take the adapter with you."),
    ]
    with st.grid(3, min_column_width=240):
        for head, says in steps:
            with st.container(border=True, height="stretch", gap="xsmall"):
                st.markdown(head)
                st.markdown(f":gray[{says}]")
    with st.container(horizontal=True):
        if st.button("Train on the example", type="primary", icon=":material/play_arrow:"):
            st.switch_page(frame.TRAIN, query_params={"data": frame.EXAMPLE})
        if st.button("Upload my data", icon=":material/upload:"):
            st.switch_page(frame.DATA)
    st.caption("The example teaches Gemma to turn customer messages in five languages into compact JSON.")


def line(job: Job, when: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", gap="small"):
        jobs.head(job)
        st.caption(when, width="content")


@st.fragment(run_every="3s")
def going_on() -> None:
    everything = frame.jobs()
    running = [job for job in everything if job.state == "running"]
    waiting = [job for job in everything if job.state in ("checking", "queued", "held")]
    ended = sorted((job for job in everything if job.ended), key=lambda job: job.ended_at or "", reverse=True)
    now = frame.now()
    with st.grid(3, min_column_width=100):
        st.metric("Running", len(running), border=True)
        st.metric("Waiting", len(waiting), border=True)
        st.metric("Finished", len([job for job in ended if job.state == "done"]), border=True)
    for job in running:
        with st.container(border=True, gap="small"):
            line(job, f"started {quantities.ago(job.started_at, now)}")
            st.progress(jobs.fraction(job) or 0.0, text=jobs.progress_text(job))
    if ended:
        st.subheader("Recently", anchor=False)
        with st.container(border=True, gap="xsmall"):
            for job in ended[:RECENT]:
                line(job, quantities.ago(job.ended_at, now))


everything = frame.jobs()
if everything:
    frame.title("Home", "What runs, what waits, and what has just finished.")
    frame.runner_notice()
    going_on()
else:
    frame.title("Teach Gemma your way", "Fine-tune Google Gemma on your own server, in three steps and without code.")
    frame.runner_notice()
    first_steps()
