"""Taking an export along: one button that zips on click, or where the file is too large for a browser, its place."""

import getpass
import socket
from functools import partial

import streamlit as st

from pages.parts import quantities
from pages.parts.escape import md
from pages.parts.models import bundle, shelf
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from spool.protocol import removed
from spool.protocol.home import Home
from spool.protocol.jobs import Job


def offer(job: Job, export: shelf.Export, primary: bool = False) -> None:
    """The button, or how to fetch it from the server. The browser shows that the zip is being made."""
    kind, size = kind_name(export.kind), quantities.size(export.size_bytes)
    if export.size_bytes > bundle.LARGEST_BYTES:
        st.caption(t("models.download.large", kind=kind, size=size))
        st.code(
            f"rsync -avP {getpass.getuser()}@{socket.gethostname()}:{export.folder}/ ./{export.kind}/", language=None
        )
        return
    name = bundle.file_name(jobs.short_name(job), job.id, export.kind)
    st.download_button(
        t("models.download.button", kind=kind, size=size),
        partial(bundle.packed, export.folder, name.removesuffix(".zip")),
        file_name=name,
        mime="application/zip",
        icon=":material/download:",
        type="primary" if primary else "secondary",
        on_click="ignore",
        key=f"download-{export.kind}-{job.id}",
    )


def kind_name(kind: str) -> str:
    """What an export is called: adapter, merged ..."""
    return t(f"models.kind.{kind}")


def gone(home: Home, job: Job) -> str:
    """Why there is nothing to take along: who had it removed and when, or that nobody asked for that. Markdown."""
    found = removed.read(home.run(job.id))
    if found is None:
        return t("models.removed.lost")
    who = t("models.removed.by", who=md(found.by, 60)) if found.by else ""
    when, size = quantities.clock(found.at, frame.zone()), quantities.size(found.size_bytes)
    return t("models.removed.says", when=when, who=who, size=size)
