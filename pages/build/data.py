"""Data: files become datasets here: dropped, read, judged and kept, with every row that is lost named by its line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from pages.parts import preview, quantities
from pages.parts.escape import md, one_line
from pages.parts.ui import frame
from spool.data import check, keep, read
from spool.data.table import Table
from spool.protocol.errors import DataError

HOME = frame.home()
STATE = st.session_state
STATE.setdefault("upload-number", 0)


@st.cache_data(max_entries=16, show_spinner=False)
def judged(path: str, stamp: float) -> dict[str, Any]:
    """The data doctor's report; `stamp` is the file's time of change, so that an edited file is judged again."""
    return check.check(Path(path)).to_json()


@st.cache_data(max_entries=16, show_spinner=False)
def first_rows(path: str, stamp: float) -> Table:
    table = read.read(Path(path))
    return replace(table, records=table.records[: preview.ROWS], problems=[])


def take_upload() -> None:
    """Keeps a dropped file. The box is made anew afterwards, which frees the upload's memory."""
    uploaded = st.file_uploader(
        "Drop a CSV, JSON, JSONL or TXT file here",
        key=f"upload-{STATE['upload-number']}",
        help="One row an example. The columns are recognised by their names; nothing leaves this server.",
    )
    if uploaded is None:
        if STATE.get("upload-error"):
            frame.show_error(*STATE["upload-error"])
        return
    try:
        with st.spinner("Reading the file …"):
            stored = keep.add(HOME, keep.clean_name(uploaded.name), uploaded.name, uploaded.getvalue())
    except DataError as error:
        STATE["upload-error"] = (error.message, error.hint)
    except OSError as error:
        STATE["upload-error"] = (f"The file could not be stored: {error.strerror}.", "Check the disk of the data home.")
    else:
        STATE["upload-error"] = None
        st.query_params["dataset"] = stored.name
    STATE["upload-number"] += 1
    st.rerun()


def offered() -> dict[str, tuple[Path, str]]:
    """Datasets by their reference, the newest first, with the file and a caption; the example comes last."""
    found: dict[str, tuple[Path, str]] = {}
    now = frame.now()
    for stored in sorted(keep.list_datasets(HOME), key=lambda each: each.added_at, reverse=True):
        says = f"{stored.rows:,} rows · {quantities.ago(stored.added_at, now)}"
        found.setdefault(stored.name, (stored.path, says))
    example = Path(frame.EXAMPLE)
    if example.is_file():
        found[frame.EXAMPLE] = (example, "messages to JSON")
    return found


def show(reference: str, path: Path) -> None:
    """One dataset: what was recognised, what is wrong, and its first rows."""
    stamp = path.stat().st_mtime
    table = first_rows(str(path), stamp)
    try:
        report = judged(str(path), stamp)
    except DataError as error:
        report, trouble = None, error
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        with st.container(gap=None, width="content"):
            st.subheader(md(short(reference), 80), anchor=False)
            st.caption(md(preview.headline(report, table)))
        if st.button("Train on this", type="primary", icon=":material/model_training:"):
            st.switch_page(frame.TRAIN, query_params={"data": reference})
    if report is None:
        frame.show_error(trouble.message, trouble.hint)
    else:
        numbers(report)
        findings(report)
    st.markdown(f"**First rows** :gray[· {len(table.records):,} of {(report or {}).get('rows') or table.rows:,}]")
    st.dataframe(
        preview.rows(table.records, table.columns),
        height=380,
        column_config={"_index": st.column_config.NumberColumn("Line", width=60, format="%d")},
        alt=f"First rows of {one_line(reference)}",
    )


def numbers(report: dict[str, Any]) -> None:
    with st.grid(3, min_column_width=100, gap="small"):
        st.metric("Rows", quantities.count(report["rows"]), border=True)
        st.metric("Usable", quantities.count(report["usable_rows"]), border=True)
        st.metric("Repeated", quantities.count(report["duplicates"]), border=True, help="Rows that stand there twice.")
    st.caption(md(preview.columns(report["columns"], report["mapping"]), 400))


def findings(report: dict[str, Any]) -> None:
    """What is wrong with which row; one line of praise where nothing is."""
    found = report["problems"]
    lost = report["rows"] - report["usable_rows"]
    if not found:
        st.markdown(":green[:material/check_circle:] :gray[Every row can be used.]")
        return
    head = f"{len(found):,} findings" if len(found) > 1 else "1 finding"
    head += f", {lost:,} of the rows cannot be used" if lost else ", and every row can be used"
    with st.expander(head, icon=":material/rule:", expanded=bool(lost)):
        st.dataframe(
            preview.problems(found),
            hide_index=True,
            alt="Findings by line",
            column_config={
                "line": st.column_config.NumberColumn("Line", width=60, format="%d"),
                "what": st.column_config.TextColumn("What", width="large"),
                "done": st.column_config.TextColumn("The row is", width=100),
            },
        )
        if len(found) > preview.FINDINGS:
            st.caption(f"The first {preview.FINDINGS} of {len(found):,}.")


def short(reference: str) -> str:
    return f"{Path(reference).stem} (example)" if reference == frame.EXAMPLE else reference


def pick(datasets: dict[str, tuple[Path, str]]) -> str:
    """Which dataset to show; what is chosen goes into the address (`/data?dataset=NAME`)."""
    asked = st.query_params.get("dataset")
    STATE["data-pick"] = asked if asked in datasets else next(iter(datasets))

    def go() -> None:
        st.query_params["dataset"] = STATE["data-pick"]

    return st.radio(
        "Datasets",
        list(datasets),
        captions=[says for _, says in datasets.values()],
        format_func=lambda name: md(short(name), 60),
        key="data-pick",
        on_change=go,
    )


frame.title("Data", "What Gemma will learn from. Each file is read, judged and kept under its name.")
take_upload()
datasets = offered()
if not datasets:
    st.caption("No dataset yet. A CSV with a question and an answer column is a good start.")
else:
    left, right = st.columns([1, 2.6], gap="medium")
    with left:
        chosen = pick(datasets)
    with right, frame.plain_errors():
        show(chosen, datasets[chosen][0])
