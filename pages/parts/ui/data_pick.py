"""Which dataset: the upload box, the list with the newest first, and the example."""

from pathlib import Path
from typing import Any

import streamlit as st

from pages.parts import quantities, reading
from pages.parts.escape import md
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
        "Drop files here: CSV, TSV, JSON, JSONL, TXT or Parquet, also gzipped or zipped",
        accept_multiple_files=True,
        key=f"upload-{STATE['upload-number']}",
        help="One row an example. Format and columns are recognised by what is in them; nothing leaves this server.",
    )
    for message, hint in STATE.get("upload-errors", []) if not files else []:
        frame.show_error(message, hint)
    if not files:
        return
    errors = []
    for file in files:
        with st.spinner(f"Reading {md(file.name, 80)} …"):
            error = _kept(home, file)
        errors += [error] if error else []
    STATE["upload-errors"] = errors
    STATE["upload-number"] += 1
    st.rerun()


def hub() -> None:
    """A dataset of the hub, for a job: the check of the job fetches it."""
    with st.popover("From the Hugging Face Hub", icon=":material/cloud_download:", type="tertiary"):
        typed = st.text_input("Dataset", placeholder="ORG/NAME", key="hub-dataset", width=420)
        reference = reading.hub_reference(typed)
        if typed.strip() and reference is None:
            st.caption(":red[:material/error:] That names no dataset. Write it as ORG/NAME or ORG/NAME:CONFIG:SPLIT.")
        else:
            says = "The job fetches it and checks each row before it trains: what it finds stands on Monitor then."
            st.caption(f"{says} For one part of it, write ORG/NAME:CONFIG:SPLIT.")
        if st.button("Train on it", type="primary", icon=":material/model_training:", disabled=reference is None):
            st.switch_page(frame.TRAIN, query_params={"data": str(reference)})


def _kept(home: Home, file: Any) -> tuple[str, str] | None:
    """Stores one upload and shows it next; gives what was wrong with it in words."""
    try:
        stored = keep.add(home, keep.clean_name(file.name), file.name, file)
    except FinetunerError as error:
        return error.message, error.hint
    except OSError as error:
        return f"{file.name} could not be stored: {error.strerror}.", "Check the disk of the data home."
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
            "Datasets",
            list(datasets),
            captions=[_caption(stored) for stored in datasets.values()],
            format_func=lambda name: md(f"{Path(name).stem} (example)" if name == frame.EXAMPLE else name, 60),
            key="data-pick",
            on_change=go,
        )


def _caption(stored: Stored | None) -> str:
    if stored is None:
        return "messages to JSON"
    return f"{stored.rows:,} rows · {quantities.ago(stored.added_at, frame.now())}"


def version(home: Home, name: str, newest: Stored) -> Stored:
    """The version that the address asks for (`?dataset=NAME@VERSION`), else the newest one."""
    asked, _, wanted = st.query_params.get("dataset", "").partition("@")
    if asked != name or not wanted:
        return newest
    return next((each for each in keep.versions(home, name) if each.version == wanted), newest)
