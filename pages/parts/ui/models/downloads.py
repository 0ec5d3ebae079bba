"""Taking an export along: one button that zips on click, or where the file is too large for a browser, its place."""

import getpass
import socket
from functools import partial

import streamlit as st

from pages.parts import quantities, words
from pages.parts.escape import md
from pages.parts.models import bundle, proof, shelf
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from spool.protocol import removed
from spool.protocol.home import Home
from spool.protocol.jobs import Job


def offer(job: Job, export: shelf.Export, primary: bool = False, named: bool = False) -> None:
    """The button, or how to fetch it from the server. The browser shows that the zip is being made.

    Args:
        named: the button says that it is the adapter, as nothing beside it does.
    """
    kind, size = words.export(export.kind), quantities.size(export.size_bytes)
    if export.size_bytes > bundle.LARGEST_BYTES:
        with st.popover(t("models.download.fetch", size=size), icon=":material/terminal:"):
            st.caption(t("models.download.large", kind=kind, size=size))
            target = f"{getpass.getuser()}@{socket.gethostname()}:{export.folder}/"
            st.code(f"rsync -avP {target} ./{export.folder.name}/", language=None)
        return
    name = bundle.file_name(jobs.short_name(job), job.id, export.kind)
    said = t("models.download.adapter" if named else "models.download.button", size=size)
    st.download_button(
        t("models.download.anyway", size=size) if export.state == proof.SUSPECT else said,
        partial(bundle.packed, export.folder, name.removesuffix(".zip")),
        file_name=name,
        mime="application/zip",
        icon=":material/download:",
        type="primary" if primary else "tertiary" if export.state == proof.SUSPECT else "secondary",
        on_click="ignore",
        key=f"download-{export.kind}-{job.id}",
    )


def which_one(job: Job) -> None:
    """Which of them one needs, by what one wants to do."""
    with st.expander(t("models.use.title"), icon=":material/help:"):
        st.markdown(t("models.use.here"))
        st.markdown(t("models.use.laptop", export=words.export("gguf:q4_k_m")))
        st.markdown(t("models.use.server", export=words.export("merged"), small=words.export("gptq")))
        st.markdown(t("models.use.adapter", base=md(job.model or quantities.DASH, 80)))
        st.markdown(t("models.use.proven"))


def gone(home: Home, job: Job) -> str:
    """Why there is nothing to take along: who had it removed and when, or that nobody asked for that. Markdown."""
    found = removed.read(home.run(job.id))
    if found is None:
        return t("models.removed.lost")
    who = t("models.removed.by", who=md(found.by, 60)) if found.by else ""
    when, size = quantities.clock(found.at, frame.zone()), quantities.size(found.size_bytes)
    return t("models.removed.says", when=when, who=who, size=size)
