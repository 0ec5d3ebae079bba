"""A job that makes exports: how far each format is, whether it was proven, and the way to the model."""

import streamlit as st

from pages.parts import quantities, words
from pages.parts.escape import md
from pages.parts.models import making, proof
from pages.parts.models.making import Row
from pages.parts.texts import t
from pages.parts.ui import frame
from pages.parts.ui.models import exports
from spool.protocol.home import Home
from spool.protocol.jobs import Job

WORST = (proof.FAILED, proof.SUSPECT, making.MISSING, proof.UNPROVEN)


def show(home: Home, job: Job) -> None:
    """A line for each format."""
    found = making.rows(home, job)
    of = making.asked(home, job).of
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(says(found) if job.ended else "", width="content")
        if of:
            frame.link(frame.MODELS, t("monitor.export.model"), icon=":material/deployed_code:", model=of)
    for row in found:
        _row(row)
    pushed = (job.result or {}).get("pushed")
    if isinstance(pushed, dict):
        where = f"**{md(pushed.get('repo'), 200)}** :gray[{md(pushed.get('url') or '', 300)}]"
        st.markdown(f":material/cloud_upload: {t('monitor.export.pushed')} {where}")


def says(found: list[Row]) -> str:
    """`2 proven, 1 suspect`, as Markdown with the icon of the worst."""
    states = [row.state for row in found]
    worst = next((state for state in WORST if state in states), proof.READY)
    icon, color = exports.LOOKS[worst]
    return f":{color}[{icon}] **{words.counted(states)}**" if states else ""


def _row(row: Row) -> None:
    with st.container(border=True, gap="xxsmall"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
                st.markdown(f"**{words.export(row.kind)}**", width="content")
                st.markdown(exports.badge(row.state), width="content")
            if row.export:
                st.caption(quantities.size(row.export.size_bytes), width="content")
        if row.export:
            if said := exports.close(row.export.proof):
                st.caption(said)
            if row.state == proof.SUSPECT:
                exports.failed(row.export)
        elif row.why:
            st.markdown(f":small[{md(row.why, 300)}]")
