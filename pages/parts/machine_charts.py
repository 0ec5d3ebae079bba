"""Charts of the machine, in Altair: the GPU's utilisation, memory, temperature and power over the hours."""

import altair as alt
import pandas as pd

from pages.parts.texts import t

HEIGHT = 110
FORMATS = {"gpu_util_pct": ".0f", "gpu_mem_gb": ".1f", "gpu_temp_c": ".0f", "gpu_power_w": ".0f"}


def gpu(table: pd.DataFrame, field: str, top: float | None, since: float, until: float) -> alt.LayerChart:
    """One quantity over time, with gaps where nothing was measured.

    Args:
        table: columns time (the reader's own, without a zone), stretch and the field.
        top: the most it can be, where that is known: the axis ends there.
        since: the axis' ends, as milliseconds of that clock.
    """
    time = alt.X(
        "time:T",
        title=None,
        scale=alt.Scale(domain=[since, until]),
        axis=alt.Axis(tickCount=5, grid=False, labelOverlap=True, format="%H:%M" if until - since < 2e8 else "%d %b"),
    )
    value = alt.Y(
        f"{field}:Q",
        title=None,
        scale=alt.Scale(domain=[0, top]) if top else alt.Scale(zero=True, nice=True),
        axis=alt.Axis(tickCount=3, domain=False, ticks=False, labelPadding=6, minExtent=34, format="~s"),
    )
    tips = [
        alt.Tooltip("time:T", title=t("system.gpu.time"), format="%H:%M"),
        alt.Tooltip(f"{field}:Q", format=FORMATS[field], title=""),
    ]
    base = alt.Chart(table, name=f"gpu_{field}").transform_filter(f"isValid(datum.{field})")
    hover = alt.selection_point(
        name=f"hover_{field}", fields=["time"], nearest=True, on="pointermove", clear="pointerout", empty=False
    )
    area = base.mark_area(line={"strokeWidth": 1.5}, fillOpacity=0.12, interpolate="monotone", clip=True).encode(
        x=time, y=value, detail="stretch:N"
    )
    shown = alt.when(hover).then(alt.value(0.4)).otherwise(alt.value(0))
    ruler = alt.Chart(table, name=f"ruler_{field}").mark_rule(strokeWidth=1).encode(x=time, opacity=shown, tooltip=tips)
    return alt.layer(area, ruler.add_params(hover)).properties(height=HEIGHT)
