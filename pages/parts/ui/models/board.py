"""The leaderboard as people see it: which rows were asked, a line for each model and each base, and the rules."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from pages.parts import quantities
from pages.parts.compare import overlay
from pages.parts.escape import md, one_line
from pages.parts.models import board, told
from pages.parts.models.board import Group, Line
from pages.parts.texts import t
from pages.parts.ui import choices, frame
from spool.data.keeping import keep
from spool.protocol.home import Home
from spool.protocol.jobs import Job

STATE = st.session_state
GREY = {"light": "#6b7280", "dark": "#9ca3af"}
SHOWN = 200
FURTHER = ("exact", "stopped", "loss")
"""Measures that stand beside what a board is ordered by."""
COLORS = {"better": "green", "same": "gray", "worse": "red", "nothing": "gray"}


def show(home: Home, everything: Sequence[Job]) -> None:
    """Nothing where no report was made yet."""
    found = board.groups(home, everything)
    if not found:
        return
    st.space("small")
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(t("models.board.head"), anchor=False, width="content")
        _under_way(everything)
    group = _chosen(found)
    if len(found) == 1:
        st.caption(t("models.board.says", rows=t("models.board.rows", count=group.rows), source=md(source(group), 80)))
    _table(group)
    with st.container(horizontal=True, vertical_alignment="top", horizontal_alignment="distribute"):
        with st.container(width="stretch"):
            st.caption("  \n".join(rules(group)))
        _take_along(group)


def _under_way(everything: Sequence[Job]) -> None:
    count = sum(job.kind == "evaluate" and not job.ended for job in everything)
    if count:
        frame.link(frame.QUEUE, t("models.board.under_way", count=count), icon=":material/hourglass_empty:")


def _chosen(found: Sequence[Group]) -> Group:
    known = {group.sha256[:12]: group for group in found}
    if len(known) == 1:
        return found[0]
    names = labels(found)
    options, usual = list(known), found[0].sha256[:12]
    choices.keep("board", options, usual)
    st.selectbox(
        t("models.board.group"), options, key=choices.key("board"), format_func=names.__getitem__,
        on_change=choices.went, args=("board", usual), width=520,
    )  # fmt: skip
    return known[choices.chosen("board", options, usual)]


def labels(found: Sequence[Group]) -> dict[str, str]:
    """What each board is called: dataset, rows and models, and its mark where two are called the same."""
    said = {group.sha256[:12]: _label(group) for group in found}
    told = list(said.values())
    return {name: f"{text} · {name[:4]}" if told.count(text) > 1 else text for name, text in said.items()}


def _label(group: Group) -> str:
    rows, models = t("models.board.rows", count=group.rows), t("models.board.models", count=group.models)
    return f"{source(group)} · {rows} · {models}"


def source(group: Group) -> str:
    """The dataset; of its version so much as tells it from others."""
    name, _, version = group.source.partition("@")
    short = f"{name}@{version[:6]}" if keep.VERSION.fullmatch(version) else group.source
    return one_line(short or quantities.DASH, 60)


def rules(group: Group) -> list[str]:
    """How it is ordered, and what its marks mean: only what this board has."""
    said = [t("models.board.rule.order", measure=t(f"report.measure.{group.headline}"))]
    said.append(t("models.board.rule.base"))
    if not any(side.interval for line in group.lines if (side := line.side(group.headline))):
        said.append(t("models.board.rule.no_interval"))
    if group.all_learned:
        said.append(t("models.board.rule.all_learned"))
    said += [t(f"models.board.rule.{mark}") for mark in (board.CLOSE, board.LEARNED, board.CUT) if mark in group.marks]
    return said


# ---- the table


def _table(group: Group) -> None:
    lines = group.lines[:SHOWN]

    def opened() -> None:
        click = STATE.get("board-open")
        if click and click.row < len(lines):
            STATE["board-go"] = lines[click.row].opens

    found = _frame(group, lines)
    grey = f"color: {GREY['dark' if st.context.theme.type == 'dark' else 'light']}"
    bases = [line.is_base for line in lines]
    st.dataframe(
        found.style.apply(lambda column: [grey if base else "" for base in bases]),
        hide_index=True,
        key="board",
        row_height=42,
        height="content" if len(lines) <= 14 else 640,
        placeholder=quantities.DASH,
        alt=t("models.board.head"),
        column_config=_columns(group, opened),
    )


def _frame(group: Group, lines: Sequence[Line]) -> pd.DataFrame:
    def numbers(name: str) -> pd.Series:
        return pd.Series([_number(line, name) for line in lines], dtype="float")

    ended = pd.Series([None if line.is_base else line.report.job.ended_at for line in lines], dtype="str")
    table: dict[str, Any] = {
        "place": pd.Series([line.place for line in lines], dtype="float"),
        "model": [name(line) for line in lines],
        "value": numbers(group.headline),
        "interval": [interval(line, group.headline) for line in lines],
        **{each: numbers(each) for each in FURTHER if each != group.headline},
        "kept": [kept(line) for line in lines],
        "verdict": [[] if line.is_base else [t(f"models.board.verdict.{line.report.verdict}")] for line in lines],
        "marks": [marks(line) for line in lines],
        "ended": pd.to_datetime(ended, format="ISO8601", utc=True, errors="coerce"),
        "do": [[] if line.is_base else [t("models.list.open")] for line in lines],
    }
    left_out = {each for each in ("interval", "kept", "marks") if not any(table[each])}
    return pd.DataFrame({each: column for each, column in table.items() if each not in left_out})


def _number(line: Line, measure: str) -> float | None:
    """Where it is a share in percent, which are rounded down: 100 % says all of them."""
    side = line.side(measure)
    if side is None:
        return None
    return math.floor(side.value * 1000 + 1e-9) / 10 if line.report.measures[measure].share else side.value


def name(line: Line) -> str:
    return t("models.board.base", name=one_line(line.model, 60)) if line.is_base else one_line(line.model, 80)


def interval(line: Line, measure: str) -> str:
    """`86 to 97 %`."""
    side = line.side(measure)
    if side is None or side.interval is None:
        return ""
    low, high = (f"{100 * each:.0f}" for each in side.interval)
    return t("models.board.interval", low=low, high=high)


def kept(line: Line) -> str:
    """`30 of 33` general questions that the base knows; of a base how many of all."""
    general = line.report.general
    if general is None:
        return ""
    kept, of = (general.base, general.of) if line.is_base else (general.kept, general.base)
    return t("models.board.kept_of", kept=kept, of=of) if of else ""


def marks(line: Line) -> str:
    counts = {"rows": line.report.rows, "chosen": line.report.chosen}
    return ", ".join(t(f"models.board.mark.{mark}", **counts) for mark in line.marks)


def _columns(group: Group, opened: Any) -> dict[str, Any]:
    config = st.column_config
    share = any(line.report.measures[group.headline].share for line in group.lines if line.side(group.headline))

    def called(measure: str) -> str:
        return t(f"models.board.short.{measure}")

    return {
        "place": config.NumberColumn(t("models.board.column.place"), format="%d", width=46),
        "model": config.TextColumn(t("models.list.name"), width=166),
        "value": config.NumberColumn(called(group.headline), format="%.1f %%" if share else "%.3f", width=86),
        "interval": config.TextColumn(
            t("models.board.column.interval"), width=82, help=t("models.board.column.interval_help")
        ),
        "exact": config.NumberColumn(
            called("exact"), format="%.1f %%", width=70, help=t("models.board.column.exact_help")
        ),
        "stopped": config.NumberColumn(
            called("stopped"), format="%.1f %%", width=70, help=t("models.board.column.stopped_help")
        ),
        "loss": config.NumberColumn(called("loss"), format="%.3f", width=58, help=t("models.board.column.loss_help")),
        "kept": config.TextColumn(t("models.board.column.kept"), width=76, help=t("models.board.column.kept_help")),
        "verdict": config.MultiselectColumn(
            t("models.board.column.verdict"),
            options=[t(f"models.board.verdict.{verdict}") for verdict in told.VERDICTS],
            color=[COLORS[verdict] for verdict in told.VERDICTS],
            width=82,
            help=t("models.board.column.verdict_help"),
        ),
        "marks": config.TextColumn(t("models.board.column.marks"), width=124),
        "ended": config.DatetimeColumn(
            t("models.board.column.ended"), format="D MMM", timezone=str(frame.zone()), width=66
        ),
        "do": config.ButtonColumn("", on_click=opened, key="board-open", type="tertiary", width=60),
    }


def go() -> None:
    """To the model whose button was clicked; of a foreign adapter to the job that has asked it."""
    wanted = STATE.pop("board-go", None)
    if wanted is None:
        return
    if wanted.kind != "train":
        st.switch_page(frame.MONITOR, query_params={"job": wanted.id})
    st.query_params["model"] = wanted.id
    st.rerun()


# ---- to take along


def _take_along(group: Group) -> None:
    st.download_button(
        t("compare.table_csv"),
        table_csv(group),
        file_name="leaderboard.csv",
        mime="text/csv",
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
    )


def table_csv(group: Group) -> bytes:
    """Every line with every number, shares from 0 to 1, for a spreadsheet."""
    measures = list(dict.fromkeys([group.headline, *FURTHER]))
    header = ["place", "model", "base", "job", *measures]
    header += [f"{group.headline}_low", f"{group.headline}_high", "general_kept", "general_known", "general_of"]
    header += ["verdict", "marks", "rows", "of_rows", "ended_at", "dataset", "asked_sha256"]
    rows = []
    for line in group.lines:
        report, general, first = line.report, line.report.general, line.side(group.headline)
        row: list[Any] = [line.place, line.model, report.base, None if line.opens is None else line.opens.id]
        row += [side.value if (side := line.side(each)) else None for each in measures]
        row += first.interval if first and first.interval else (None, None)
        row += [None if general is None or line.is_base else general.kept]
        row += [general.base, general.of] if general else [None, None]
        row += ["" if line.is_base else report.verdict, " ".join(line.marks), report.rows, report.chosen]
        rows.append([*row, None if line.is_base else report.job.ended_at, group.source, group.sha256])
    return overlay.table_csv(header, rows)
