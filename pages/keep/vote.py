"""Vote: the answers of two models to the same prompts, told apart by nobody until the end; `?job=ID`, `&as=NAME`."""

import streamlit as st

from pages.parts.escape import md
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from pages.parts.ui.vote import booth, result, start
from spool.protocol import ballot, votes

HOME = frame.home()


def page(job_id: str) -> None:
    found = ballot.read(HOME, job_id)
    if found is None:
        frame.show_error(t("vote.nothing_here"), t("vote.nothing_hint"))
        return
    job = frame.job(job_id)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        with st.container(horizontal=True, vertical_alignment="center", width="content", gap="small"):
            st.subheader(md(jobs.short_name(job), 80), anchor=False, width="content")
            if job.kind == "train":
                frame.link(frame.MODELS, t("vote.to_model"), icon=":material/deployed_code:", model=job_id)
            else:
                frame.link(frame.MONITOR, t("vote.to_run"), icon=":material/monitoring:", job=job_id)
        who = start.person()
    kept = votes.read(HOME, job_id)
    start.damaged(kept)
    if who in kept.closed:
        result.show(HOME, found, kept)
    else:
        booth.show(HOME, found, who, kept)


frame.title(t("frame.page.vote"), t("vote.says"))
with frame.plain_errors():
    asked = st.query_params.get("job")
    if asked:
        page(asked)
    else:
        start.show(HOME)
