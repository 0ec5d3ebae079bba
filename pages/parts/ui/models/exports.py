"""The exports of one model: how each stands, what it is for, how close it is, and the way to take it along."""

from collections.abc import Sequence

import streamlit as st

from pages.parts import quantities, words
from pages.parts.escape import md
from pages.parts.models import proof
from pages.parts.models.proof import Certificate
from pages.parts.models.shelf import Export
from pages.parts.texts import t
from pages.parts.ui.models import certificate, downloads
from spool.protocol.jobs import Job

LOOKS = {
    proof.READY: (":material/verified:", "green"),
    proof.SUSPECT: (":material/report:", "orange"),
    proof.UNPROVEN: (":material/help:", "gray"),
    proof.ORIGINAL: (":material/school:", "blue"),
    proof.FAILED: (":material/error:", "red"),
    "waits": (":material/schedule:", "gray"),
    "making": (":material/construction:", "blue"),
    "proving": (":material/fact_check:", "blue"),
    "missing": (":material/remove_circle:", "gray"),
}
"""A state has an icon and a word, never only a colour."""


def badge(state: str) -> str:
    """How an export stands, as Markdown."""
    icon, color = LOOKS[state]
    return f":{color}-badge[{icon} {t(f'models.proof.state.{state}')}]"


def show(job: Job, found: Sequence[Export]) -> None:
    """One card each, what is suspect last."""
    for export in found:
        with st.container(border=True, gap="xsmall"):
            with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
                with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
                    st.markdown(f"**{words.export(export.kind)}**", width="content")
                    st.markdown(badge(export.state), width="content")
                with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
                    _details(job, export)
                    downloads.offer(job, export)
            with st.container(horizontal=True, horizontal_alignment="distribute", gap="small"):
                st.caption(words.export_for(export.kind), width="content")
                if said := close(export.proof):
                    st.caption(said, width="content")
            if export.state == proof.SUSPECT:
                failed(export)


def _details(job: Job, export: Export) -> None:
    label = t("models.details.open")
    if st.button(label, type="tertiary", icon=":material/info:", key=f"details-{export.kind}-{job.id}"):
        certificate.show(export)


def close(found: Certificate | None) -> str:
    """How close it is to the adapter, in a line of Markdown; empty where nothing was measured."""
    if found is None or found.equal is None:
        return ""
    said = [t("models.proof.same", share=quantities.agreement(found.equal))]
    if found.rise is not None:
        said.append(t("models.proof.loss", rise=certificate.signed(found.rise)))
    if found.divergence is not None:
        said.append(t("models.proof.divergence", nats=quantities.small(found.divergence)))
    return ":material/compare_arrows: " + " · ".join(said)


def failed(export: Export) -> None:
    """Which checks it did not pass; where it is one, what was found."""
    checks = export.proof.failed if export.proof else []
    named = ", ".join(check.label for check in checks)
    says = f": {md(checks[0].says, 200)}" if len(checks) == 1 and checks[0].says else ""
    said = t("models.proof.not_passed", checks=md(named, 200))
    st.markdown(f":small[:orange[:material/report:] **{said}**{says}]")
