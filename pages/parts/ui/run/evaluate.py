"""A job that evaluates: its report, and the way to the model."""

import streamlit as st

from pages.parts.texts import t
from pages.parts.ui import frame
from pages.parts.ui.models import report
from spool.protocol.home import Home
from spool.protocol.jobs import Job


def show(home: Home, job: Job) -> None:
    of = (job.result or {}).get("of")
    if isinstance(of, str) and of:
        with st.container(horizontal=True, horizontal_alignment="right"):
            frame.link(frame.MODELS, t("monitor.export.model"), icon=":material/deployed_code:", model=of)
    report.show(home, job)
