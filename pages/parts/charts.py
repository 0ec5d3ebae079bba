"""The charts of a run, in Altair. Nothing in a chart but its data follows the run, so that a refresh keeps the view.

Colours come from the theme's palette by the order of SERIES. Every view and parameter has a fixed name: a counted
name would make each refresh a new chart.
"""

import altair as alt
import pandas as pd

SERIES = ["training", "evaluation"]


def loss(losses: pd.DataFrame, total_steps: int | None, height: int = 300) -> alt.LayerChart:
    """Training loss (each step faint, its trend strong) and eval loss over the steps."""
    legend = alt.Legend(
        title=None, orient="top", direction="horizontal", symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1
    )
    x = _steps(total_steps)

    def line(field: str, series: str, **look: float) -> alt.Chart:
        drawn = alt.Chart(name=f"line_{field}").mark_line(interpolate="monotone", clip=True, **look)
        drawn = drawn.transform_filter(f"isValid(datum.{field})").transform_calculate(series=f"'{series}'")
        color = alt.Color("series:N", scale=alt.Scale(domain=SERIES), legend=legend)
        return drawn.encode(
            x=x, y=alt.Y(f"{field}:Q", title=None, scale=alt.Scale(zero=False), axis=_quiet()), color=color
        )

    dots = line("eval_loss", "evaluation").mark_point(filled=True, size=46, opacity=1).properties(name="dots")
    tips = [_step_tip(), _value_tip("loss", "Loss"), _value_tip("trend", "Trend"), _value_tip("eval_loss", "Eval loss")]
    return alt.layer(
        line("loss", "training", strokeWidth=1, opacity=0.45),
        line("trend", "training", strokeWidth=2.25),
        line("eval_loss", "evaluation", strokeWidth=1.75),
        dots,
        _ruler(x, tips),
        data=losses,
    ).properties(height=height)


def attempts(losses: pd.DataFrame, total_steps: int | None, height: int = 300) -> alt.LayerChart:
    """The losses of each attempt as a line of its own: after a resume they lie on each other."""
    x = _steps(total_steps)
    legend = alt.Legend(title=None, orient="top", direction="horizontal", symbolType="stroke", symbolStrokeWidth=3)
    names = sorted(losses["attempt"].unique(), key=lambda name: int(name.rpartition(" ")[2]))
    lines = (
        alt.Chart(name="attempts")
        .mark_line(interpolate="monotone", clip=True, strokeWidth=2, opacity=0.75)
        .encode(
            x=x,
            y=alt.Y("loss:Q", title=None, scale=alt.Scale(zero=False), axis=_quiet()),
            color=alt.Color("attempt:N", scale=alt.Scale(domain=names), legend=legend),
        )
    )
    tips = [_step_tip(), alt.Tooltip("attempt:N", title="Attempt"), _value_tip("loss", "Loss")]
    return alt.layer(lines, _ruler(x, tips), data=losses).properties(height=height)


def learning_rate(rates: pd.DataFrame, total_steps: int | None, height: int = 300) -> alt.LayerChart:
    """The learning rate over the steps."""
    x = _steps(total_steps)
    axis = _quiet().copy()
    axis.format = ".1e"
    area = (
        alt.Chart(name="rate")
        .transform_calculate(series="'learning rate'")
        .mark_area(line={"strokeWidth": 2}, fillOpacity=0.1, clip=True)
        .encode(
            x=x,
            y=alt.Y("learning_rate:Q", title=None, axis=axis),
            color=alt.Color("series:N", scale=alt.Scale(domain=["learning rate"]), legend=None),
        )
    )
    tips = [_step_tip(), alt.Tooltip("learning_rate:Q", title="Learning rate", format=".3e")]
    return alt.layer(area, _ruler(x, tips), data=rates).properties(height=height)


def _steps(total_steps: int | None) -> alt.X:
    """The whole run from its start: the axis stands still while the curve grows."""
    scale = alt.Scale(domain=[0, total_steps], nice=False) if total_steps else alt.Scale(zero=True)
    axis = alt.Axis(grid=False, tickMinStep=1, tickCount=6, format=",d", labelFlush=False)
    return alt.X("step:Q", title=None, scale=scale, axis=axis)


def _quiet() -> alt.Axis:
    return alt.Axis(tickCount=5, domain=False, ticks=False, labelPadding=8, gridOpacity=0.6)


def _ruler(x: alt.X, tips: list[alt.Tooltip]) -> alt.Chart:
    """A thin line at the step nearest to the pointer, which carries the tooltip."""
    hover = alt.selection_point(
        name="hover", fields=["step"], nearest=True, on="pointermove", clear="pointerout", empty=False
    )
    shown = alt.when(hover).then(alt.value(0.35)).otherwise(alt.value(0))
    return alt.Chart(name="ruler").mark_rule(strokeWidth=1).encode(x=x, opacity=shown, tooltip=tips).add_params(hover)


def _step_tip() -> alt.Tooltip:
    return alt.Tooltip("step:Q", title="Step", format=",d")


def _value_tip(field: str, title: str) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", title=title, format=".4f")
