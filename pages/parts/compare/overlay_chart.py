"""The chart of several runs, in Altair. Each has a colour and dashes of its own: nobody needs to tell colours apart.

Nothing in the chart but its data follows the runs while they train: a refresh keeps the view.
"""

import json
from collections.abc import Mapping

import altair as alt
import pandas as pd

from pages.parts.compare.overlay import MOST_RUNS
from pages.parts.run.charts import AXIS_FORMATS, SECONDS, ZOOM_ON
from pages.parts.texts import t

KEYS = [f"r{slot}" for slot in range(MOST_RUNS)]
DASHES = [[1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 2], [12, 4], [1, 3], [6, 2, 1, 2, 1, 2]]
STAR = (
    "M0,-1L0.235,-0.324L0.951,-0.309L0.38,0.124L0.588,0.809L0,0.4L-0.588,0.809L-0.38,0.124L-0.951,-0.309L-0.235,-0.324Z"
)
FORMATS = {"step": ",.0f", "epoch": ".2f", "tokens": ".3~s"}


def chart(
    rows: pd.DataFrame, names: Mapping[int, str], axis: str, shown: str, log: bool, height: int = 420
) -> alt.LayerChart:
    """Loss of several runs (raw faint, trend strong) and their eval loss, with the lowest of all marked.

    Args:
        rows: from `overlay.table`.
        names: by colour slot.
        shown: both, loss or eval.
    """
    x = _x(axis)
    y = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)
    color = alt.Color("run:N", scale=alt.Scale(domain=KEYS), legend=_legend(names))
    dash = alt.StrokeDash("run:N", scale=alt.Scale(domain=KEYS, range=DASHES), legend=_legend(names))

    def line(field: str, **look: float) -> alt.Chart:
        drawn = alt.Chart(name=f"line_{field}").mark_line(clip=True, **look).transform_filter(f"isValid(datum.{field})")
        value = alt.Y(f"{field}:Q", title=None, scale=y, axis=_quiet())
        return drawn.encode(x=x, y=value, color=color, strokeDash=dash)

    layers: list[alt.Chart] = []
    if shown != "eval":
        layers += [line("loss", strokeWidth=1, opacity=0.3), line("trend", strokeWidth=2.25)]
    if shown != "loss":
        layers += [line("eval_loss", strokeWidth=1.25, opacity=0.85), *_points(x, y, color)]
    layers.append(_ruler(x, axis, names, "eval_loss" if shown == "eval" else "at"))
    return alt.layer(*layers, data=rows).properties(height=height)


def _points(x: alt.X, y: alt.Scale, color: alt.Color) -> list[alt.Chart]:
    """A dot at each evaluation, and a star at the lowest of all."""

    def marks(field: str) -> alt.Chart:
        return alt.Chart(name=f"points_{field}").transform_filter(f"isValid(datum.{field})")

    at = alt.Y("eval_loss:Q", title=None, scale=y, axis=_quiet())
    dots = marks("eval_loss").mark_circle(size=34, opacity=1, clip=True)
    stars = marks("best").mark_point(filled=True, size=190, opacity=1, shape=STAR, clip=True)
    return [
        dots.encode(x=x, y=at, color=color),
        stars.encode(x=x, y=alt.Y("best:Q", title=None, scale=y, axis=_quiet()), color=color),
    ]


def _legend(names: Mapping[int, str]) -> alt.Legend:
    """Names are looked up by colour: as data in a table of their own they would make it another chart."""
    said = json.dumps({f"r{slot}": name for slot, name in names.items()})
    return alt.Legend(
        title=None,
        orient="top",
        direction="horizontal",
        columns=4,
        symbolType="stroke",
        symbolStrokeWidth=2.5,
        symbolSize=420,
        symbolOpacity=1,
        labelLimit=240,
        values=[f"r{slot}" for slot in names],
        labelExpr=f"({said})[datum.value]",
    )


def _x(axis: str) -> alt.X:
    look = alt.Axis(grid=False, tickCount=7, labelFlush=False, tickMinStep=1 if axis == "step" else 0)
    if axis == "time":
        look.labelExpr = SECONDS
    else:
        look.format = AXIS_FORMATS[axis]
    return alt.X("x:Q", title=None, scale=alt.Scale(nice=False), axis=look)


def _quiet() -> alt.Axis:
    return alt.Axis(tickCount=6, domain=False, ticks=False, labelPadding=8, gridOpacity=0.6)


def _ruler(x: alt.X, axis: str, names: Mapping[int, str], field: str) -> alt.Chart:
    """A thin line at the place nearest to the pointer, which reads off every run there."""
    hover = alt.selection_point(
        name="hover", fields=["x"], nearest=True, on="pointermove", clear="pointerout", empty=False
    )
    zoom = alt.selection_interval(name="zoom", encodings=["x"], bind="scales", zoom=ZOOM_ON)
    shown = alt.when(hover).then(alt.value(0.35)).otherwise(alt.value(0))
    title, form = (t(f"charts.axis.{axis}"), FORMATS[axis]) if axis != "time" else (t("charts.seconds"), ",.0f")
    tips = [alt.Tooltip("x:Q", title=title, format=form)]
    tips += [alt.Tooltip(f"r{slot}:Q", title=name, format=".4f") for slot, name in names.items()]
    return (
        alt.Chart(name="ruler")
        .transform_filter(f"isValid(datum.{field})")
        .transform_pivot("run", value=field, groupby=["x"])
        .mark_rule(strokeWidth=1)
        .encode(x=x, opacity=shown, tooltip=tips)
        .add_params(hover, zoom)
    )
