"""The tables of Compare: how the runs came out, the lowest eval loss first, and what differs between them."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import pandas as pd
import streamlit as st

from pages.parts import quantities, words
from pages.parts.compare import dossier, overlay, overlay_chart
from pages.parts.compare.dossier import Dossier
from pages.parts.run import series
from pages.parts.run.columns import Columns
from pages.parts.texts import has, t
from pages.parts.ui import frame
from pages.parts.ui.compare import chart

STATE = st.session_state


def outcomes(dossiers: Sequence[Dossier], curves: Mapping[str, Columns], named: Mapping[str, str]) -> None:
    """One line a run; the header sorts, and a column that no run fills is left out."""
    ranked = dossier.by_eval(dossiers)
    best = dossier.best(dossiers)
    found = pd.DataFrame(
        {
            "line": [sample(STATE.get(chart.SLOTS, {}).get(each.job.id, 0)) for each in ranked],
            "run": [named[each.job.id] for each in ranked],
            "state": [_state(each, best) for each in ranked],
            **_figures(ranked, curves),
            "do": [[t("compare.open")]] * len(ranked),
        }
    ).dropna(axis="columns", how="all")

    def chosen() -> None:
        click = STATE.get("compare-open")
        if click and click.row < len(ranked):
            STATE["compare-go"] = ranked[click.row].job.id

    st.dataframe(
        found,
        hide_index=True,
        key="outcomes",
        row_height=40,
        placeholder=quantities.DASH,
        alt=t("compare.alt_outcomes"),
        column_config=_columns(chosen),
    )


def _figures(ranked: Sequence[Dossier], curves: Mapping[str, Columns]) -> dict[str, pd.Series]:
    def numbers(values: Sequence[Any]) -> pd.Series:
        return pd.Series([dossier.finite(value) for value in values], dtype="float")

    trained = numbers([each.result.get("trained_s") for each in ranked])
    return {
        "eval_loss": numbers([each.eval_loss for each in ranked]),
        "final_loss": numbers([each.final_loss for each in ranked]),
        "best_step": numbers([each.result.get("best_step") for each in ranked]),
        "steps": numbers([each.result.get("steps") or each.job.progress.get("step") for each in ranked]),
        "minutes": trained / 60,
        "tokens_per_s": numbers([each.tokens_per_s for each in ranked]),
        "memory": numbers([each.result.get("peak_gpu_mem_bytes") for each in ranked]) / 1e9,
        "energy": numbers([series.energy_wh(curves[each.job.id]) for each in ranked]),
    }


def _state(each: Dossier, best: Dossier | None) -> list[str]:
    return [t("compare.best")] if each is best else [words.state(each.job.state).label]


def _columns(chosen: Any) -> dict[str, Any]:
    config = st.column_config
    looks = list(words.STATES.values())
    forms = {
        "eval_loss": "%.4f", "final_loss": "%.4f", "best_step": "%d", "steps": "%d", "minutes": "%.1f",
        "tokens_per_s": "%d", "memory": "%.1f", "energy": "%.1f",
    }  # fmt: skip
    widths = {"best_step": 88, "steps": 58, "minutes": 96, "tokens_per_s": 74, "memory": 76, "energy": 92}
    numbers = {
        name: config.NumberColumn(t(f"compare.column.{name}"), format=form, width=widths.get(name, 80))
        for name, form in forms.items()
    }
    return {
        "line": config.ImageColumn(t("compare.line"), width=64),
        "run": config.TextColumn(t("compare.column.run"), width=150),
        "state": config.MultiselectColumn(
            t("compare.column.state"),
            options=[t("compare.best"), *(look.label for look in looks)],
            color=["green", *("gray" if look.name == "done" else look.color for look in looks)],
            width=88,
        ),
        **numbers,
        "do": config.ButtonColumn("", on_click=chosen, key="compare-open", type="tertiary", width=60),
    }


def sample(slot: int) -> str:
    """A run's line as a small picture: its colour and its dashes."""
    scheme = "dark" if st.context.theme.type == "dark" else "light"
    colors = st.get_option(f"theme.{scheme}.chartCategoricalColors") or ["#888888"]
    dashes = " ".join(str(each * 1.6) for each in overlay_chart.DASHES[slot]) if slot else "none"
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 24" width="48" height="24">'
        f'<path d="M2 12H46" stroke="{colors[slot % len(colors)]}" stroke-width="4" stroke-dasharray="{dashes}"/></svg>'
    )
    return f"data:image/svg+xml,{quote(svg)}"


def differing(dossiers: Sequence[Dossier], named: Mapping[str, str]) -> None:
    """Settings, data and environment, a line for each that differs; all of them on demand."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(t("compare.differing"), anchor=False, width="content")
        everything = st.toggle(t("compare.everything"), key="all", bind="query-params")
    if len(dossiers) < 2 and not everything:
        st.caption(t("compare.one_run"))
        return
    ranked = dossier.by_eval(dossiers)
    rows = [
        (t(f"compare.part.{section}"), field(section, name), [chart.value(name, each) for each in values])
        for section in dossier.SECTIONS
        for name, values in dossier.differing(ranked, section, everything)
    ]
    if not rows:
        st.caption(t("compare.nothing_differs"))
        return
    columns = {f"r{at}": [values[at] for _, _, values in rows] for at in range(len(ranked))}
    config = st.column_config
    st.dataframe(
        pd.DataFrame({"part": [row[0] for row in rows], "field": [row[1] for row in rows], **columns}),
        hide_index=True,
        key="differing",
        height="content" if len(rows) <= 14 else 560,
        alt=t("compare.alt_differing"),
        column_config={
            "part": config.TextColumn(t("compare.section"), width=100),
            "field": config.TextColumn(t("compare.field"), width=170, pinned=True),
            **{f"r{at}": config.TextColumn(named[each.job.id], width=145) for at, each in enumerate(ranked)},
        },
    )


def field(section: str, name: str) -> str:
    """What a field is called: a setting as in the form, a package by its own name."""
    if section == "settings":
        return words.label(name)
    key = f"compare.{section}.{name}"
    return t(key) if has(key) else name


def take_along(dossiers: Sequence[Dossier], curves: Mapping[str, Columns], named: Mapping[str, str]) -> None:
    """Outcomes and every field of every run as one table for a spreadsheet."""
    ranked = dossier.by_eval(dossiers)
    header = [t("compare.field"), *(named[each.job.id] for each in ranked)]
    rows: list[list[Any]] = [["id", *(each.job.id for each in ranked)]]
    for name, values in _figures(ranked, curves).items():
        rows.append([t(f"compare.column.{name}"), *(None if pd.isna(value) else float(value) for value in values)])
    for section in dossier.SECTIONS:
        for name, given in dossier.differing(ranked, section, everything=True):
            rows.append([field(section, name), *given])
    st.download_button(
        t("compare.table_csv"),
        overlay.table_csv(header, rows),
        file_name="runs.csv",
        mime="text/csv",
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
    )


def go() -> None:
    """To the run whose button was clicked."""
    wanted = STATE.pop("compare-go", None)
    if wanted:
        st.switch_page(frame.MONITOR, query_params={"job": wanted})
