"""A dataset in charts: each with one sentence that says what to do."""

from collections.abc import Callable
from typing import Any

import altair as alt
import streamlit as st

from pages.parts.data import data_charts as charts
from pages.parts.escape import md
from pages.parts.texts import t
from pages.parts.ui.data.dataset import Chosen
from spool.data.judging.language import name as language_name


def show(chosen: Chosen, report: dict[str, Any]) -> None:
    """Lengths across the page, the others in two columns."""
    found = report["statistics"]
    note = charts.sample_note(found["sampled_rows"])
    if note:
        st.caption(f":material/functions: {md(note)}")
    if sum(found["lengths"]["counts"]):
        says = charts.lengths_say(found["lengths"], report["tokens"], report["rows"])
        _card(t("data.chart.lengths"), says, charts.lengths(found["lengths"]), "lengths", chosen)
    small = _small(report)
    if small:
        with st.grid(3 if len(small) == 3 else 2, min_column_width=220):
            for title, says, chart, name in small:
                _card(title, says, chart, name, chosen)
    repeated = found["top_duplicates"]
    if repeated:
        with st.container(border=True, gap="small"):
            _heading(t("data.chart.repeats"), charts.duplicates_say(repeated))
            _table(repeated)


def _small(report: dict[str, Any]) -> list[tuple[str, str, alt.LayerChart | alt.Chart, str]]:
    """The charts that say something about this data: (title, sentence, chart, name)."""
    found = report["statistics"]
    named: Callable[[str], str] = language_name
    drawn: list[tuple[str, str, alt.LayerChart | alt.Chart, str]] = []
    share = report["supervised_fraction"]
    if share is not None:
        drawn.append(
            (t("data.chart.learned_from"), charts.supervised_say(share), charts.supervised(share), "supervised")
        )
    if found["labels"]:
        drawn.append(
            (t("data.chart.labels"), charts.labels_say(found["labels"]), charts.labels(found["labels"]), "labels")
        )
    if [turns for turns, _ in found["turns"]] not in ([], [2]):  # one question and one answer is no news
        drawn.append((t("data.chart.turns"), charts.turns_say(found["turns"]), charts.turns(found["turns"]), "turns"))
    if found["languages"]:
        says = charts.languages_say(found["languages"], named)
        drawn.append((t("data.chart.languages"), says, charts.languages(found["languages"], named), "languages"))
    return drawn


def _card(title: str, says: str, chart: alt.LayerChart | alt.Chart, name: str, chosen: Chosen) -> None:
    with st.container(border=True, height="stretch", gap="small"):
        _heading(title, says)
        st.altair_chart(chart, key=f"chart-{name}-{chosen.key}", alt=says)


def _heading(title: str, says: str) -> None:
    with st.container(gap="xxsmall"):
        st.markdown(f"**{title}**")
        st.caption(md(says, 300))


def _table(repeated: list[dict[str, Any]]) -> None:
    most = max(each["times"] for each in repeated)
    st.dataframe(
        charts.duplicates(repeated),
        hide_index=True,
        alt=t("data.chart.repeats_alt"),
        column_config={
            "line": st.column_config.NumberColumn(t("data.chart.first_line"), width=80, format="%d"),
            "text": st.column_config.TextColumn(t("data.chart.text"), width="large"),
            "times": st.column_config.ProgressColumn(
                t("data.chart.times"), format="%d", min_value=0, max_value=most, width=120
            ),
        },
    )
