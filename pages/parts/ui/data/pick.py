"""Which dataset: the upload box, the list with the newest first, and the example."""

from pathlib import Path
from typing import Any

import streamlit as st

from pages.parts import quantities
from pages.parts.data import reading
from pages.parts.escape import md
from pages.parts.texts import t
from pages.parts.ui import frame
from spool.data.keeping import keep
from spool.data.keeping.keep import Stored
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home

STATE = st.session_state
TALL = 7
"""More datasets than this scroll in a box of their own."""


def upload(home: Home) -> None:
    """Keeps dropped files, each under its name. The box is made anew afterwards, which frees the uploads' memory."""
    STATE.setdefault("upload-number", 0)
    files = st.file_uploader(
        t("data.upload.label"),
        accept_multiple_files=True,
        key=f"upload-{STATE['upload-number']}",
        help=t("data.upload.help"),
    )
    for message, hint in STATE.get("upload-errors", []) if not files else []:
        frame.show_error(message, hint)
    for says in STATE.get("upload-known", []) if not files else []:
        st.info(md(says, 400), icon=":material/content_copy:")
    if not files:
        return
    errors = []
    STATE["upload-known"] = []
    for number, file in enumerate(files, 1):
        says = t("data.upload.keeping", name=md(file.name, 80))
        if len(files) > 1:
            says = t("data.upload.keeping_of", name=md(file.name, 80), number=number, files=len(files))
        with st.spinner(says, show_time=True):
            error = _kept(home, file)
        errors += [error] if error else []
    STATE["upload-errors"] = errors
    STATE["upload-number"] += 1
    st.rerun()


def hub() -> None:
    """A dataset of the hub, for a job: the check of the job fetches it."""
    with st.popover(t("data.hub.title"), icon=":material/cloud_download:", type="tertiary"):
        typed = st.text_input(t("data.hub.label"), placeholder=t("data.hub.shape"), key="hub-dataset", width=420)
        reference = reading.hub_reference(typed)
        if typed.strip() and reference is None:
            st.caption(f":red[:material/error:] {t('data.hub.wrong')}")
        else:
            st.caption(t("data.hub.says"))
        if st.button(
            t("data.hub.train"),
            key="hub-train",
            type="primary",
            icon=":material/model_training:",
            disabled=reference is None,
        ):
            st.switch_page(frame.TRAIN, query_params={"data": str(reference)})


def _kept(home: Home, file: Any) -> tuple[str, str] | None:
    """Stores one upload and shows it next; gives what was wrong with it in words."""
    name = keep.clean_name(file.name)
    before = [each.version for each in keep.versions(home, name)]
    try:
        stored = keep.add(home, name, file.name, file)
    except FinetunerError as error:
        return error.message, error.hint
    except OSError as error:
        return t("data.upload.failed", name=file.name, problem=error.strerror), t("data.upload.disk")
    if stored.version in before:
        how = "same" if stored.version == before[0] else "newest_again"
        STATE["upload-known"].append(t(f"data.upload.{how}", name=file.name))
    st.query_params["dataset"] = stored.name
    return None


def offered(home: Home) -> dict[str, Stored | None]:
    """Datasets by name, the newest first, each with its newest version; the example, which is None, comes last."""
    found: dict[str, Stored | None] = {}
    for stored in sorted(keep.list_datasets(home), key=lambda each: each.added_at, reverse=True):
        found.setdefault(stored.name, stored)
    if Path(frame.EXAMPLE).is_file():
        found[frame.EXAMPLE] = None
    return found


def pick(datasets: dict[str, Stored | None]) -> str:
    """The list. What is chosen goes into the address (`/data?dataset=NAME`)."""
    asked = st.query_params.get("dataset", "").partition("@")[0]
    STATE["data-pick"] = asked if asked in datasets else next(iter(datasets))

    def go() -> None:
        st.query_params["dataset"] = STATE["data-pick"]

    with st.container(height=360 if len(datasets) > TALL else "content", border=False):
        return st.radio(
            t("data.pick.label"),
            list(datasets),
            captions=[_caption(stored) for stored in datasets.values()],
            format_func=lambda name: md(_named(name), 60),
            key="data-pick",
            on_change=go,
        )


def _named(name: str) -> str:
    return t("data.pick.example", name=Path(name).stem) if name == frame.EXAMPLE else name


def _caption(stored: Stored | None) -> str:
    if stored is None:
        return t("data.pick.example_says")
    ago = quantities.ago(stored.added_at, frame.now())
    return t("data.pick.rows", count=stored.rows, rows=quantities.count(stored.rows), ago=ago)


def version(home: Home, name: str, newest: Stored) -> Stored:
    """The version that the address asks for (`?dataset=NAME@VERSION`), else the newest one."""
    asked, _, wanted = st.query_params.get("dataset", "").partition("@")
    if asked != name or not wanted:
        return newest
    return next((each for each in keep.versions(home, name) if each.version == wanted), newest)
