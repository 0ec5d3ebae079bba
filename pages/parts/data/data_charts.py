"""A dataset's statistics as Altair charts, each with one sentence that says what it means and what to do.

Input is the `statistics` of the doctor's report. Colours come from the theme's palette by the order of a domain, and
every view has a fixed name, so that a refresh keeps it. What people wrote is in a chart's data, never in its spec.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import altair as alt
import pandas as pd

from pages.parts import escape, quantities
from pages.parts.texts import t

UNKNOWN = "und"
"""ISO 639's code for an undetermined language."""

MOST_BARS = 12
WORDS = "#8A93A3"
"""A grey that reads well on both backgrounds: text inside a chart does not follow the theme."""

LEANS_FROM = 5
"""One label this many times as frequent as another tilts a classifier visibly."""


def margin(share: float, rows: int) -> float:
    """Half the width of the 95 % interval of a share in a random sample (normal approximation)."""
    return 1.96 * math.sqrt(share * (1 - share) / rows) if rows else 1.0


def sample_note(sampled_rows: int | None) -> str:
    """How sure figures are that come from a part of the rows; empty where all were counted."""
    if not sampled_rows:
        return ""
    points = 100 * margin(0.5, sampled_rows)
    return t("data.chart.sample", rows=quantities.count(sampled_rows), points=f"{points:.0f}")


def lengths(found: dict[str, Any], height: int = 220) -> alt.LayerChart:
    """How long the rows are, with the limit drawn in and what lies beyond it in another colour."""
    limit, suggested = found["limit"], found["suggested"]
    edges = found["edges"]
    bins = pd.DataFrame({"start": edges[:-1], "end": edges[1:], "rows": found["counts"]})
    bins["base"] = 0
    fits, cut = t("data.chart.fits"), t("data.chart.cut")
    unit = t(f"data.chart.unit.{found['unit']}")
    bins["length"] = [
        t("data.chart.span", start=quantities.count(start), end=quantities.count(end - 1), unit=unit)
        for start, end in pairwise(edges)
    ]
    bins["series"] = [cut if limit and start > limit else fits for start in edges[:-1]]
    x = alt.X("start:Q", title=unit, axis=alt.Axis(grid=False, tickCount=6, format=",d"))
    bars = (
        alt.Chart(bins, name="lengths")
        .mark_bar(binSpacing=1, cornerRadiusTopLeft=2, cornerRadiusTopRight=2)
        .encode(
            x=x,
            x2="end:Q",
            y=alt.Y("rows:Q", title=None, axis=_quiet()),
            y2="base:Q",
            color=_colors([fits, cut]),
            tooltip=[
                alt.Tooltip("length:N", title=t("data.chart.length")),
                alt.Tooltip("rows:Q", title=t("data.chart.rows"), format=",d"),
            ],
        )
    )
    longest = edges[-1] if edges else 0
    marks = [(limit, "limit", [1, 0]), (suggested if _worth_it(found) else None, "suggested", [4, 3])]
    drawn = [_mark(at, name, dash, row) for row, (at, name, dash) in enumerate(marks) if at and at <= 1.1 * longest]
    return alt.layer(bars, *drawn).properties(height=height)


def _worth_it(found: dict[str, Any]) -> bool:
    """Whether the suggested limit is another one than the limit, by more than a person would care about."""
    limit, suggested = found["limit"], found["suggested"]
    return bool(suggested) and (not limit or abs(suggested - limit) > 0.15 * limit)


def lengths_say(found: dict[str, Any], tokens: dict[str, int] | None, rows: int) -> str:
    """What the lengths ask for."""
    limit, suggested = found["limit"], found["suggested"]
    if not tokens:
        return t("data.advice.characters")
    over = tokens["over_limit"]
    if over and limit:
        share = quantities.percent(over / rows) if over / rows >= 0.01 else t("data.chart.under")
        more = (suggested or 0) > limit
        advice = t("data.advice.raise", tokens=quantities.count(suggested)) if more else t("data.advice.shorten")
        numbers: dict[str, Any] = {"over": quantities.count(over), "limit": quantities.count(limit)}
        return t("data.advice.longer", **numbers, share=share, advice=advice)
    said = t("data.advice.fits", half=quantities.count(tokens["p50"]), longest=quantities.count(tokens["max"]))
    if limit and suggested < limit and _worth_it(found):
        return t("data.advice.lower", said=said, tokens=quantities.count(suggested))
    return t("data.advice.nothing", said=said)


def turns(found: list[list[int]]) -> alt.LayerChart:
    """How many turns the conversations have."""
    rows = [(t("data.chart.turn", count=number, number=number), count) for number, count in found]
    return _bars(rows, "turns")


def turns_say(found: list[list[int]]) -> str:
    if len(found) == 1 and found[0][0] == 2:
        return t("data.advice.one_turn")
    longest = max(number for number, _ in found)
    usual = max(found, key=lambda each: each[1])[0]
    if longest <= 2:
        return t("data.advice.system_turn")
    return t("data.advice.turns", usual=usual, longest=longest)


def languages(found: list[list[Any]], name: Callable[[str], str]) -> alt.LayerChart:
    """Which languages the rows are in; `name` gives a code's English name."""
    return _bars([(name(code), rows) for code, rows in found], "languages")


def languages_say(found: list[list[Any]], name: Callable[[str], str]) -> str:
    known = [each for each in found if each[0] != UNKNOWN]
    total = sum(rows for _, rows in known)
    if 2 * total < sum(rows for _, rows in found):
        return t("data.advice.no_language")
    code, rows = max(known, key=lambda each: each[1])
    if rows == total:
        all_known = len(known) == len(found)
        return t("data.advice.one_language" if all_known else "data.advice.one_known", language=name(code))
    if rows >= 0.8 * total:
        if (total - rows) / total < 0.01:
            return t("data.advice.nearly", language=name(code))
        rest = quantities.percent((total - rows) / total)
        return t("data.advice.mostly", language=name(code), rest=rest)
    return t("data.advice.several")


def labels(found: list[list[Any]]) -> alt.LayerChart:
    """How often each label stands there."""
    return _bars([(escape.one_line(label, 40), rows) for label, rows in found], "labels")


def labels_say(found: list[list[Any]]) -> str:
    if len(found) == 1:
        return t("data.advice.one_label")
    most, least = found[0], found[-1]
    times = most[1] / max(1, least[1])
    if times >= LEANS_FROM:
        names: dict[str, Any] = {"most": escape.one_line(most[0], 30), "least": escape.one_line(least[0], 30)}
        return t("data.advice.lean", **names, times=quantities.count(times))
    return t("data.advice.balanced")


def duplicates(found: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows that repeat most, as a table: line, text, times."""
    texts = [escape.one_line(str(each["text"]).encode("utf-8", "replace").decode(), 120) for each in found]
    return pd.DataFrame(
        {
            "line": [each["line"] for each in found],
            "text": texts,
            "times": [each["times"] for each in found],
        }
    )


def duplicates_say(found: list[dict[str, Any]]) -> str:
    most = max(each["times"] for each in found)
    if most <= 2:
        return t("data.advice.twice")
    return t("data.advice.by_heart", times=quantities.count(most))


def supervised(share: float, height: int = 84) -> alt.Chart:
    """How much of the text is learned from and how much only read, as one bar."""
    learned, read = t("data.chart.learned"), t("data.chart.read")
    grey_at_the_end = [learned, "1", "2", "3", "4", read]  # the theme's sixth colour: what is only read stands back
    legend = alt.Legend(title=None, orient="top", direction="horizontal", symbolType="square", values=[learned, read])
    rows = pd.DataFrame({"series": [learned, read], "share": [share, 1 - share], "order": [0, 1]})
    return (
        alt.Chart(rows, name="supervised")
        .mark_bar(size=18, cornerRadius=3)
        .encode(
            x=alt.X("share:Q", stack="normalize", title=None, axis=None),
            color=alt.Color("series:N", scale=alt.Scale(domain=grey_at_the_end), legend=legend),
            order="order:Q",
            tooltip=[
                alt.Tooltip("series:N", title=t("data.chart.tokens")),
                alt.Tooltip("share:Q", title=t("data.chart.share"), format=".0%"),
            ],
        )
        .properties(height=height)
    )


def supervised_say(share: float) -> str:
    part = quantities.percent(share) if share >= 0.01 else t("data.chart.less")
    if share > 0.99:
        return t("data.advice.all_text")
    if share < 0.05:
        return t("data.advice.few", part=part)
    return t("data.advice.answers", part=part)


def _bars(rows: list[tuple[str, int]], name: str) -> alt.LayerChart:
    """Horizontal bars in the order given, each with its count; what is beyond MOST_BARS is one bar more."""
    shown, rest = rows[:MOST_BARS], rows[MOST_BARS:]
    if rest:
        shown = [*shown, (t("data.chart.more", number=len(rest)), sum(count for _, count in rest))]
    total = sum(count for _, count in rows) or 1
    table = pd.DataFrame(shown, columns=["name", "rows"])
    table["said"] = [f"{quantities.count(count)} ({_part(count, total)})" for _, count in shown]
    table["series"] = name
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=150, ticks=False, domain=False))
    base = alt.Chart(table, name=name).encode(y=y)
    most = max((count for _, count in shown), default=1)
    room = 1 + 0.075 * max(map(len, table["said"]))  # for the words behind the longest bar, also in a narrow card
    x = alt.X("rows:Q", title=None, axis=None, scale=alt.Scale(domain=[0, most * room]))
    tips = [
        alt.Tooltip("name:N", title=t("data.chart.what")),
        alt.Tooltip("rows:Q", title=t("data.chart.rows"), format=",d"),
    ]
    bars = base.mark_bar(size=16, cornerRadius=3).encode(x=x, color=_colors([name]), tooltip=tips)
    words = base.mark_text(align="left", dx=6, color=WORDS).encode(x=x, text="said:N").properties(name=f"{name}_words")
    return alt.layer(bars, words).properties(height=28 * max(1, len(shown)) + 10)


def _part(count: int, total: int) -> str:
    return t("data.chart.under") if 0 < count < 0.01 * total else f"{100 * count / total:.0f} %"


def _mark(at: int, name: str, dash: list[int], row: int) -> alt.LayerChart:
    """A vertical line with its word beside it, one row of words lower for each."""
    said = f"{t(f'data.chart.{name}')} {quantities.count(at)}"
    point = pd.DataFrame({"at": [at + 1], "says": [said]})  # a row as long as the limit still fits
    chart = alt.Chart(point, name=f"mark_{name}")
    rule = chart.mark_rule(strokeWidth=1.5, strokeDash=dash, opacity=0.8).encode(x="at:Q")
    color = alt.value(WORDS)
    text = chart.mark_text(align="right", dx=-5, baseline="top", color=WORDS).encode(
        x="at:Q", y=alt.value(2 + 15 * row), text="says:N"
    )
    return alt.layer(rule.encode(color=color), text.properties(name=f"word_{name}"))


def _colors(domain: list[str]) -> alt.Color:
    return alt.Color("series:N", scale=alt.Scale(domain=domain), legend=None)


def _quiet() -> alt.Axis:
    return alt.Axis(tickCount=4, domain=False, ticks=False, labelPadding=8, gridOpacity=0.6, format=",d")
