"""The charts of a run, in Altair. Nothing in a chart but its data follows the run, so that a refresh keeps the view.

Colours come from the theme's palette by the order of SERIES. Every view and parameter has a fixed name: a counted
name would make each refresh a new chart. What is marked has a shape and a word of its own, never only a colour.
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from typing import Any

import altair as alt

from pages.parts import texts
from pages.parts.run.marks import KINDS
from pages.parts.texts import t

SERIES = ["training", "evaluation", "third", "fourth", "alert", "quiet"]
"""Names for the palette's colours, so that marks have one of their own in both themes."""

TOLD = ("loss", "trend", "eval_loss")
ALERTS = ("not_finite", "diverged", "stalled")
AXIS_FORMATS = {"step": "~s", "epoch": ".2~f", "tokens": ".3~s"}
SECONDS = (
    "datum.value >= 5400 ? format(datum.value / 3600, '.2~f') + ' h' : "
    "datum.value >= 90 ? format(datum.value / 60, '.2~f') + ' min' : format(datum.value, '.2~f') + ' s'"
)
ZOOM_ON = "wheel![event.ctrlKey || event.metaKey]"
"""A bare wheel scrolls the page; a pinch on a touch pad arrives as a wheel with Ctrl."""

CANVAS = {"embedOptions": {"renderer": "canvas"}}
"""As SVG each of thousands of points would be a node of the page."""

HEIGHT, STRIP_HEIGHT = 340, 46
AXIS_PX = 40
"""Room for the labels of every vertical axis, so that the loss and the small charts stand above each other."""

STRIP_MARGIN_PX = 50
"""Streamlit gives each plot of several the whole width; their labels come on top."""


def loss(axis: str = "step", total_steps: int | None = None, log: bool = False) -> dict[str, Any]:
    """Training loss (each step faint, its trend strong), eval loss, and what is marked: for `series.loss_table`.

    Args:
        axis: one of series.AXES.
        total_steps: along steps the axis shows the whole run from its start and stands still while the curve grows.
    """
    return deepcopy(_loss(axis, total_steps, log, texts.language()))


def attempts(axis: str = "step", total_steps: int | None = None, log: bool = False) -> dict[str, Any]:
    """The losses of each attempt as a line of its own: for `series.attempts_table`."""
    return deepcopy(_apart(axis, total_steps, log, texts.language()))


def strip(fields: Sequence[str], axis: str = "step", total_steps: int | None = None) -> dict[str, Any]:
    """Small charts under each other, one for each column of `series.strip_table`, with one ruler through all."""
    return deepcopy(_strip(tuple(fields), axis, total_steps, texts.language()))


@lru_cache(maxsize=64)
def _loss(axis: str, total_steps: int | None, log: bool, language: str) -> dict[str, Any]:
    x, y = _x(axis, total_steps), _y(log)
    said = t("charts.series.training"), t("charts.series.evaluation")
    labels = f"datum.value == 'training' ? '{_js(said[0])}' : '{_js(said[1])}'"
    legend = alt.Legend(
        title=None, orient="top", direction="horizontal", symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1,
        values=SERIES[:2], labelExpr=labels,
    )  # fmt: skip

    def line(field: str, series: str, **look: Any) -> alt.Chart:
        drawn = alt.Chart(name=f"line_{field}").mark_line(interpolate="monotone", clip=True, **look)
        shown = f"isValid(datum.{field})" + (f" && datum.{field} > 0" if log else "")
        return (
            drawn.transform_filter(shown)
            .transform_calculate(series=f"'{series}'")
            .encode(x=x, y=alt.Y(f"{field}:Q", title=None, scale=y, axis=_quiet(log)), color=_color(legend))
        )

    dots = line("eval_loss", "evaluation").mark_point(filled=True, size=42, opacity=1, clip=True)
    zoom = alt.selection_interval(name="zoom", bind="scales", encodings=["x"], zoom=ZOOM_ON)
    drawn = alt.layer(
        *_marks(x, legend),
        line("loss", "training", strokeWidth=1, opacity=0.35),
        line("trend", "training", strokeWidth=2.25),
        line("eval_loss", "evaluation", strokeWidth=1.75).add_params(zoom),
        dots.properties(name="dots"),
        _ruler(x, _loss_tips(axis)),
    )
    return _spec(drawn)


@lru_cache(maxsize=64)
def _apart(axis: str, total_steps: int | None, log: bool, language: str) -> dict[str, Any]:
    """After a resume the lines lie on each other."""
    x = _x(axis, total_steps)
    legend = alt.Legend(title=t("charts.attempt"), orient="top", direction="horizontal", symbolType="stroke")
    zoom = alt.selection_interval(name="zoom", bind="scales", encodings=["x"], zoom=ZOOM_ON)
    lines = (
        alt.Chart(name="attempts")
        .mark_line(interpolate="monotone", clip=True, strokeWidth=2, opacity=0.75)
        .encode(
            x=x,
            y=alt.Y("loss:Q", title=None, scale=_y(log), axis=_quiet(log)),
            color=alt.Color("attempt:N", legend=legend),
            strokeDash=alt.StrokeDash("attempt:N", legend=legend),
        )
        .add_params(zoom)
    )
    tips = [
        alt.Tooltip("attempt:N", title=t("charts.attempt")), _step_tip(),
        alt.Tooltip("loss:Q", title=t("charts.loss"), format=".4f"),
    ]  # fmt: skip
    return _spec(alt.layer(lines, _ruler(x, tips)))


def _spec(chart: alt.LayerChart) -> dict[str, Any]:
    """Made once: Altair takes a tenth of a second for it, and pages refresh."""
    made = chart.properties(height=HEIGHT).to_dict()
    for layer in made["layer"]:
        layer.pop("data", None)
    made["usermeta"] = CANVAS
    return {name: value for name, value in made.items() if name not in ("$schema", "config", "data", "datasets")}


STRIP_FORMATS = {
    "learning_rate": ".1e",
    "grad_norm": ".3~s",
    "tokens_per_s": ".3~s",
    "gpu_util_pct": ".0f",
    "gpu_mem_bytes": ".3~s",
    "gpu_temp_c": ".0f",
    "gpu_power_w": ".0f",
    "host_mem_bytes": ".3~s",
}


@lru_cache(maxsize=64)
def _strip(fields: tuple[str, ...], axis: str, total_steps: int | None, language: str) -> dict[str, Any]:
    """A bare Vega-Lite spec: Altair gives one parameter of several views wrong names, and writes all out twice."""
    tips = [
        {"field": "x", **_axis_told(axis)},
        *([{"field": "step", "title": t("charts.axis.step")}] if axis != "step" else []),
    ]
    tips += [{"field": name, "title": t(f"charts.strip.{name}"), "format": _tip_format(name)} for name in fields]
    tips = [{"type": "quantitative", **tip} for tip in tips]
    hover = {"type": "point", "fields": ["step"], "nearest": True, "on": "pointermove", "clear": "pointerout"}
    return {
        "params": [{"name": "strip_hover", "select": hover, "views": [f"ruler_{name}" for name in fields]}],
        "vconcat": [_panel(name, axis, total_steps, tips, name == fields[-1]) for name in fields],
        "spacing": 8,
        "usermeta": CANVAS,
    }


def _panel(name: str, axis: str, total_steps: int | None, tips: list[dict[str, Any]], last: bool) -> dict[str, Any]:
    quiet = {
        "tickCount": 2, "domain": False, "ticks": False, "labelPadding": 8, "gridOpacity": 0.5,
        "format": STRIP_FORMATS[name], "minExtent": AXIS_PX, "maxExtent": AXIS_PX,
    }  # fmt: skip
    shown = {"condition": {"param": "strip_hover", "empty": False, "value": 0.4}, "value": 0}
    area = {"type": "area", "line": {"strokeWidth": 1.5}, "fillOpacity": 0.1, "clip": True, "interpolate": "monotone"}
    return {
        "height": STRIP_HEIGHT,
        "title": {
            "text": t(f"charts.strip.{name}"),
            "anchor": "start",
            "fontSize": 12,
            "fontWeight": "normal",
            "offset": 3,
        },
        "encoding": {"x": _x(axis, total_steps, labels=last).to_dict()},
        "layer": [
            {
                "transform": [{"filter": f"isValid(datum.{name})"}],
                "mark": area,
                "encoding": {"y": {"field": name, "type": "quantitative", "title": None, "stack": None, "axis": quiet}},
            },
            {
                "name": f"ruler_{name}",
                "mark": {"type": "rule", "strokeWidth": 1},
                "encoding": {"opacity": shown, "tooltip": tips},
            },
        ],
    }


def _marks(x: alt.X, legend: alt.Legend) -> list[alt.Chart]:
    """Checkpoints as small triangles on the axis; attempts, alerts and the best as lines with a word at their top."""
    named = [t(f"charts.mark.{kind}") for kind in KINDS]
    words = "[" + ", ".join(f"'{_js(word)}'" for word in named) + "][datum.mark]"
    words += " + (datum.which > 0 ? ' ' + datum.which : '')"
    alerts = f"indexof([{', '.join(str(KINDS.index(kind)) for kind in ALERTS)}], datum.mark) >= 0"
    tips = [alt.Tooltip("word:N", title=t("charts.marked")), _step_tip()]

    def marked(name: str, which: str) -> alt.Chart:
        drawn = alt.Chart(name=name).transform_filter(f"datum.mark >= 0 && ({which})").transform_calculate(word=words)
        return drawn.transform_calculate(series=f"{alerts} ? 'alert' : datum.mark == 2 ? 'evaluation' : 'quiet'")

    rules = marked("mark_rules", "datum.mark > 0").mark_rule(strokeDash=[4, 4], strokeWidth=1.25, clip=True)
    words_at = {"align": "left", "baseline": "top", "dx": 5, "dy": 2, "fontSize": 11, "clip": True}
    names = marked("mark_words", "datum.mark > 0 && !datum.side").mark_text(**words_at)
    before = marked("mark_words_before", "datum.mark > 0 && datum.side").mark_text(
        **(words_at | {"align": "right", "dx": -5})
    )
    points = marked("mark_checkpoints", "datum.mark == 0").mark_point(
        shape="triangle-up", filled=True, size=44, opacity=0.9, yOffset=-5
    )
    return [
        rules.encode(x=x, color=_color(legend), tooltip=tips),
        names.encode(x=x, y=alt.value(0), text="word:N", color=_color(legend)),
        before.encode(x=x, y=alt.value(0), text="word:N", color=_color(legend)),
        points.encode(x=x, y=alt.value("height"), color=_color(legend), tooltip=tips),
    ]


def _color(legend: alt.Legend) -> alt.Color:
    return alt.Color("series:N", scale=alt.Scale(domain=SERIES), legend=legend)


def _x(axis: str, total_steps: int | None, labels: bool = True) -> alt.X:
    """From the start of the run; along steps as far as the run will go."""
    whole = axis == "step" and total_steps
    scale = alt.Scale(domain=[0, total_steps], nice=False) if whole else alt.Scale(zero=False, nice=False)
    told: dict[str, Any] = {"labelExpr": SECONDS} if axis == "time" else {"format": AXIS_FORMATS[axis]}
    if axis == "step":
        told["tickMinStep"] = 1
    drawn = alt.Axis(grid=False, tickCount=6, labelFlush=False, labels=labels, ticks=labels, **told)
    return alt.X("x:Q", title=None, scale=scale, axis=drawn)


def _y(log: bool) -> alt.Scale:
    return alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)


def _quiet(log: bool = False) -> alt.Axis:
    told: dict[str, Any] = {"format": ".2~g"} if log else {}
    told |= {"minExtent": AXIS_PX, "maxExtent": AXIS_PX}
    return alt.Axis(tickCount=5, domain=False, ticks=False, labelPadding=8, gridOpacity=0.6, **told)


def _ruler(x: alt.X, tips: list[alt.Tooltip]) -> alt.Chart:
    """A thin line at the place nearest to the pointer, which carries the tooltip."""
    drawn = alt.Chart(name="ruler").transform_filter("datum.tip")
    for field in TOLD:
        told = f"isValid(datum.{field}) ? format(datum.{field}, '.4f') : '–'"
        drawn = drawn.transform_calculate(**{f"said_{field}": told})
    hover = alt.selection_point(
        name="hover", fields=["x"], nearest=True, on="pointermove", clear="pointerout", empty=False
    )
    shown = alt.when(hover).then(alt.value(0.35)).otherwise(alt.value(0))
    return drawn.mark_rule(strokeWidth=1).encode(x=x, opacity=shown, tooltip=tips).add_params(hover)


def _loss_tips(axis: str) -> list[alt.Tooltip]:
    tips = [_step_tip(), *([_axis_tip(axis)] if axis != "step" else [])]
    return tips + [alt.Tooltip(f"said_{field}:N", title=t(f"charts.{field}")) for field in TOLD]


def _step_tip() -> alt.Tooltip:
    return alt.Tooltip("step:Q", title=t("charts.axis.step"), format=",d")


def _axis_tip(axis: str) -> alt.Tooltip:
    return alt.Tooltip("x:Q", **_axis_told(axis))


def _axis_told(axis: str) -> dict[str, str]:
    form = {"step": ",d", "time": ",.0f", "epoch": ".2f", "tokens": ",.0f"}[axis]
    return {"title": t("charts.seconds") if axis == "time" else t(f"charts.axis.{axis}"), "format": form}


def _tip_format(name: str) -> str:
    return ".3e" if name == "learning_rate" else ".4~s"


def _js(text: str) -> str:
    """A text inside of a quoted expression."""
    return text.replace("\\", "\\\\").replace("'", "\\'")
