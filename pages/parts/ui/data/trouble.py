"""The findings of a dataset: counts by kind, a table, downloads, and correcting rows in place."""

import io
from collections.abc import Callable
from itertools import islice
from typing import Any, BinaryIO

import pandas as pd
import streamlit as st

from pages.parts import quantities
from pages.parts.data import editing, findings, preview
from pages.parts.escape import md, one_line
from pages.parts.texts import t
from pages.parts.ui.data import change
from pages.parts.ui.data.dataset import Chosen
from spool.data import inspect
from spool.data.judging import rejects
from spool.data.keeping.export import export_csv, export_jsonl
from spool.data.keeping.keep import Stored
from spool.data.reading.limits import Limits
from spool.data.reading.read import Dialect, iterate
from spool.data.reading.table import Problem, Record

STATE = st.session_state
KEPT = "keep_usable"
CHANGED_AT_ONCE = {"personal_data", "secret", "duplicate", "near_duplicate"}
SAID = 5
"""Of so many picked findings the words are shown in full, as a table cuts them."""
MOST_AT_ONCE = 11
"""More rows than this scroll in their table."""

LARGEST_BYTES = 100_000_000
"""Streamlit keeps a download in the web process's memory: larger datasets are fetched from the server's disk."""


def show(chosen: Chosen, report: dict[str, Any]) -> None:
    """What is wrong with which row, and what can be done about it."""
    counted = findings.counts(report)
    if not counted:
        st.markdown(f":green[:material/check_circle:] :gray[{t('data.finding.none')}]")
        return
    codes = st.pills(
        t("data.finding.kinds"),
        list(counted),
        selection_mode="multi",
        format_func=lambda code: f"{findings.label(code)} · {quantities.count(counted[code])}",
        key=f"codes/{chosen.key}",
        label_visibility="collapsed",
    )
    found = findings.chosen(report, codes)
    picked = _table(chosen, found, sum(counted[code] for code in codes or counted))
    _downloads(chosen, found, report)
    if chosen.fixed:
        st.caption(f":material/lock: {chosen.fixed}")
    elif picked:
        _correct(chosen, report, picked)
    else:
        st.caption(f":material/edit: {t('data.finding.choose')}")
        if CHANGED_AT_ONCE & counted.keys():
            st.caption(f":material/auto_fix_high: {t('data.finding.change')}")


def table_columns() -> dict[str, Any]:
    """How the columns of `findings.table` look."""
    widths = {"file": 120, "kind": 165, "what": 378, "done": 118}
    return {
        "line": st.column_config.NumberColumn(t("data.finding.line"), width=62, format="%d"),
        **{name: st.column_config.TextColumn(t(f"data.finding.{name}"), width=each) for name, each in widths.items()},
    }


def _table(chosen: Chosen, found: list[dict[str, Any]], total: int) -> list[dict[str, Any]]:
    """Draws the findings; gives those that are picked."""
    table = findings.table(found)
    event = st.dataframe(
        table,
        hide_index=True,
        height="content" if len(table) <= MOST_AT_ONCE else 422,
        placeholder=quantities.DASH,
        alt=t("data.finding.alt"),
        key=f"findings/{chosen.key}/{sorted({each['code'] for each in found})}",
        on_select="ignore" if chosen.fixed else "rerun",
        selection_mode="multi-row",
        column_config=table_columns(),
    )
    if len(table) < total:
        shown: dict[str, Any] = {"shown": quantities.count(len(table)), "total": quantities.count(total)}
        st.caption(t("data.finding.first", **shown))
    if chosen.fixed:
        return []
    return [found[position] for position in event["selection"]["rows"] if position < len(found)]


def _downloads(chosen: Chosen, found: list[dict[str, Any]], report: dict[str, Any]) -> None:
    name = chosen.stored.name if chosen.stored else chosen.path.stem
    how = {name: value for name, value in chosen.how().items() if name != "max_length"}
    unlearnable = findings.of_code(report, "no_trainable_tokens")
    with st.container(horizontal=True, gap="small"):
        if any(each["action"] == "dropped" for each in report["problems"]):
            st.download_button(
                t("data.finding.rejects"),
                lambda: b"".join(rejects.rejects(chosen.path, **how, limits=chosen.limits, unlearnable=unlearnable)),
                f"{name}-rejects.jsonl",
                "application/x-ndjson",
                icon=":material/download:",
                help=t("data.finding.rejects_help"),
                on_click="ignore",
            )
            if not chosen.fixed:
                _add_corrected(chosen)
        st.download_button(
            t("data.finding.csv"),
            lambda: findings.as_csv(found),
            f"{name}-findings.csv",
            "text/csv",
            icon=":material/table:",
            on_click="ignore",
        )
        if not chosen.fixed and any(each["action"] == "dropped" for each in report["problems"]):
            steps = [{"step": KEPT, "format": chosen.reading.format, "mapping": chosen.reading.mapping}]
            says = t("data.finding.leave_out")
            if st.button(says, icon=":material/filter_alt_off:", help=t("data.finding.leave_out_help")):
                change.derive(chosen, steps, t("data.finding.left_out"))


def _add_corrected(chosen: Chosen) -> None:
    with st.popover(t("data.finding.add"), icon=":material/playlist_add:"):
        st.caption(t("data.finding.add_says"))
        uploaded = st.file_uploader(
            t("data.finding.add_label"), type=["jsonl", "ndjson", "json"], key=f"corrected/{chosen.key}",
            label_visibility="collapsed",
        )  # fmt: skip
        if uploaded is not None and st.button(t("data.finding.add_do"), type="primary"):
            change.add_rows(chosen, uploaded.getvalue())


def _correct(chosen: Chosen, report: dict[str, Any], picked: list[dict[str, Any]]) -> None:
    """An editor over the picked rows, and the ways to keep what it says."""
    where = editing.places(picked)
    if not where:
        st.caption(t("data.finding.whole_file"))
        return
    lines = {place["line"] for place in where}
    records = inspect.records(chosen.path, lines, chosen.limits, chosen.reading.dialect)
    rows = [editing.record_of(place, records) for place in where]
    columns = list(report["columns"])
    table = editing.table(rows, columns)
    table.insert(0, editing.LINE, [place["line"] for place in where])
    key = f"editor/{chosen.key}/{hash(str(where))}"
    with st.container(gap="xxsmall"):
        st.markdown(f"**{t('data.finding.correct')}**")
        for each in picked[:SAID]:
            if each["line"]:
                says = md(findings.sentence(each["message"]), 500)
                st.caption(t("data.finding.at_line", line=quantities.count(each["line"]), words=says))
    _as_they_stand(chosen, where, records)
    st.data_editor(
        table,
        hide_index=True,
        disabled=[editing.LINE],
        key=key,
        alt=t("data.finding.editor_alt"),
        column_config={
            editing.LINE: st.column_config.NumberColumn(t("data.finding.line"), width=70, format="%d", pinned=True),
            **{column: st.column_config.TextColumn(one_line(column, 60), width="medium") for column in columns},
        },
    )
    changed = STATE.get(key, {}).get("edited_rows", {})
    with st.container(horizontal=True, gap="small"):
        if st.button(t("data.finding.save"), type="primary", icon=":material/save:", disabled=not changed):
            edits = editing.edits(changed, where, rows)
            change.derive(chosen, [{"step": "edit", "edits": edits}], t("data.finding.saved"))
        drop = t("data.finding.drop", count=len(where), number=quantities.count(len(where)))
        if st.button(drop, icon=":material/delete:"):
            change.derive(chosen, [{"step": "drop", "lines": where}], t("data.finding.dropped"))


def _as_they_stand(chosen: Chosen, where: list[dict[str, Any]], records: list[Record]) -> None:
    """The text of picked rows that could not be read, to copy from: the editor has only empty cells for them."""
    unread = {place["line"] for place in where} - {record.line for record in records}
    rows = iterate(chosen.path, chosen.reading.dialect, chosen.limits) if unread else iter(())
    found = (row for row in rows if isinstance(row, Problem))
    texts = [preview.cell(row.raw) for row in islice((row for row in found if row.line in unread), SAID) if row.raw]
    if texts:
        st.code("\n".join(texts), language=None, wrap_lines=True)


def first_rows(chosen: Chosen, columns: list[str]) -> pd.DataFrame:
    """The first rows as text, by line."""
    return preview.rows(inspect.head(chosen.path, preview.ROWS, chosen.limits, chosen.reading.dialect), columns)


def rows(chosen: Chosen, columns: list[str], total: int | None) -> None:
    """The first rows as they stand in the file, and all of them to take along."""
    table = first_rows(chosen, columns)
    st.dataframe(
        table,
        height="content" if len(table) <= MOST_AT_ONCE else 460,
        column_config={"_index": st.column_config.NumberColumn(t("data.finding.line"), width=60, format="%d")},
        alt=t("data.rows.alt", name=one_line(chosen.title)),
    )
    if total and len(table) < total:
        shown: dict[str, Any] = {"shown": quantities.count(len(table)), "total": quantities.count(total)}
        st.caption(t("data.rows.first", **shown))
    if chosen.stored and chosen.stored.size_bytes <= LARGEST_BYTES:
        with st.container(horizontal=True, gap="small"):
            _export(chosen, chosen.stored, "JSONL", export_jsonl)
            _export(chosen, chosen.stored, "CSV", export_csv)


def _export(
    chosen: Chosen, stored: Stored, kind: str, write: Callable[[Stored, BinaryIO, Limits, Dialect], int]
) -> None:
    def data() -> bytes:
        out = io.BytesIO()
        write(stored, out, chosen.limits, chosen.reading.dialect)
        return out.getvalue()

    name = f"{stored.name}-{stored.version}.{kind.lower()}"
    says = t("data.rows.csv_help") if kind == "CSV" else None
    st.download_button(
        t("data.rows.all", kind=kind), data, name, icon=":material/download:", help=says, on_click="ignore"
    )
