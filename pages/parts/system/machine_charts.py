"""Charts of the machine, in Altair: the GPU's utilisation, memory, temperature and power over the hours."""

import altair as alt
import pandas as pd

from pages.parts.texts import t

HEIGHT = 150
FORMATS = {"gpu_util_pct": ".0f", "gpu_mem_gb": ".1f", "gpu_temp_c": ".0f", "gpu_power_w": ".0f"}


def gpu(table: pd.DataFrame, field: str, top: float | None, hours: int) -> alt.LayerChart:
    """One quantity over the last hours, with gaps where nothing was measured.

    Nothing in it but the data follows the clock, so that a refresh keeps the chart.

    Args:
        table: columns ago_h (hours before now, negative), time (milliseconds of UTC, which the browser shows as its
            own clock does), stretch and the field.
        top: the most it can be, where that is known: the axis ends there.
    """
    across = alt.X(
        "ago_h:Q",
        title=None,
        scale=alt.Scale(domain=[-hours, 0], nice=False),
        axis=alt.Axis(values=_steps(hours), grid=False, labelExpr=_label(hours), labelFlush=True),
    )
    value = alt.Y(
        f"{field}:Q",
        title=None,
        stack=None,
        scale=alt.Scale(domain=[0, top]) if top else alt.Scale(zero=True, nice=True),
        axis=alt.Axis(tickCount=3, domain=False, ticks=False, labelPadding=6, minExtent=34, format="~s"),
    )
    tips = [
        alt.Tooltip("time:T", title=t("system.gpu.time"), format="%d %b, %H:%M"),
        alt.Tooltip(f"{field}:Q", format=FORMATS[field], title=t("system.gpu.value")),
    ]
    hover = alt.selection_point(
        name=f"hover_{field}", fields=["ago_h"], nearest=True, on="pointermove", clear="pointerout", empty=False
    )
    area = (
        alt.Chart(name=f"gpu_{field}")
        .transform_filter(f"isValid(datum.{field})")
        .mark_area(line={"strokeWidth": 1.5}, fillOpacity=0.12, interpolate="monotone", clip=True)
        .encode(x=across, y=value, detail="stretch:N")
    )
    seen = alt.when(hover).then(alt.value(0.4)).otherwise(alt.value(0))
    ruler = alt.Chart(name=f"ruler_{field}").mark_rule(strokeWidth=1).encode(x=across, opacity=seen, tooltip=tips)
    return alt.layer(area, ruler.add_params(hover), data=table).properties(height=HEIGHT)


def _steps(hours: int) -> list[float]:
    """Where the axis has its labels: at days, else at sixths."""
    parts = hours // 24 if hours > 24 else 6
    return [hours * number / parts - hours for number in range(parts + 1)]


def _label(hours: int) -> str:
    """A Vega expression for them: now, or how long before."""
    unit, each_h = ("min", 1 / 60) if hours == 1 else ("h", 1.0) if hours <= 24 else (t("system.gpu.day"), 24.0)
    return f"datum.value > -0.001 ? '{t('system.gpu.now')}' : format(datum.value / {each_h}, '.0f') + ' {unit}'"
