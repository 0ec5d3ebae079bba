"""A training's numbers: key figures with their course, what the curves mean, the loss, and the small charts under it.

All choices are in the address. Nothing but the rows may change in a chart, or each refresh would draw it anew.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from pages.parts import quantities
from pages.parts.run import charts, marks, series, tail, verdict
from pages.parts.run.columns import Columns
from pages.parts.run.curves import Look
from pages.parts.texts import t
from pages.parts.ui import choices
from spool.protocol import durable
from spool.protocol.home import Home
from spool.protocol.jobs import Job, attempt_files

TONES = {
    "good": ":green[:material/trending_down:]",
    "neutral": ":gray[:material/trending_flat:]",
    "bad": ":orange[:material/warning:]",
}
RANGES = list(series.RANGES)
MOST_ATTEMPTS = 50


def show(home: Home, job: Job, look: Look) -> None:
    """Everything that comes from metrics.jsonl."""
    columns = look.columns
    figures(job, look)
    if columns.has("loss") or columns.nonfinite:
        _loss(home, job, look)
    _strip(job, columns)
    if look.broken:
        st.caption(t("monitor.broken", count=look.broken, number=quantities.count(look.broken)))


def attempt_documents(home: Home, job: Job) -> list[dict[str, Any]]:
    """attempts/*.json, the newest MOST_ATTEMPTS, oldest first; damaged ones are passed over."""
    found = []
    for path in attempt_files(home, job.id)[-MOST_ATTEMPTS:]:
        try:
            document = durable.read_json(path)
        except (ValueError, OSError):
            continue
        if isinstance(document, dict):
            found.append(document)
    return found


def figures(job: Job, look: Look) -> None:
    """The key figures, those that this machine can measure, each with its course over the run."""
    columns = look.columns
    strip = _strip_table(columns, "step", "all")
    total, step = columns.latest("total_steps"), columns.latest("step")
    shown: list[tuple[str, str, Sequence[float], str]] = []

    def add(name: str, value: float | None, said: Callable[[float], str], course: Sequence[float] = ()) -> None:
        if value is not None:
            shown.append((name, said(value), course, t(f"monitor.figure.{name}.help")))

    if job.ended and step is not None:
        of = f" / {quantities.count(total)}" if total and step != total else ""
        add("steps", step, lambda value: quantities.count(value) + of)
    table = _loss_table(columns, "step", series.USUAL_SMOOTHING, "all", ())
    add("loss", columns.latest("loss"), quantities.loss, series.spark(table["trend"].to_numpy()))
    add("eval_loss", columns.latest("eval_loss"), quantities.loss, series.spark(table["eval_loss"].to_numpy()))

    def measured(name: str, field: str, said: Callable[[float], str]) -> None:
        add(name, columns.latest(field), said, series.spark(strip[field].to_numpy()) if field in strip else ())

    measured("speed", "tokens_per_s", quantities.count)
    if job.state == "running":
        add("left", columns.latest("eta_s"), quantities.duration)
    if columns.has("gpu_mem_bytes"):
        measured("gpu_memory", "gpu_mem_bytes", quantities.size)
    else:
        measured("memory", "host_mem_bytes", quantities.size)
    if job.state == "running":
        measured("power", "gpu_power_w", lambda value: f"{quantities.count(value)} W")
    if not look.sample:  # it is a sum over all rows
        add("energy", columns.remember(("energy",), lambda: series.energy_wh(columns)), quantities.energy)
    with st.grid(len(shown) if len(shown) <= 7 else -(-len(shown) // 2), min_column_width=124, gap="small"):
        for name, value, course, says in shown:
            st.metric(
                t(f"monitor.figure.{name}.label"), value, help=says, border=True, height="stretch",
                chart_data=list(course) or None, chart_type="area",
            )  # fmt: skip


def _loss(home: Home, job: Job, look: Look) -> None:
    columns = look.columns
    with st.container(border=True, gap="small"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(f"**{t('charts.loss')}**", width="content")
            with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
                axis, shown = _axis(columns), _range()
                share, log, apart = view(columns.repeated)
        for found in _judged(job, columns, look.sample):
            st.markdown(f"{TONES[found.tone]} {verdict.words(found)}")
        if look.sample:
            says = "monitor.sample.reading" if look.reading else "monitor.sample.large"
            st.caption(f":material/hourglass_top: {t(says, share=quantities.percent(look.read))}")
        total = _total(job, columns)
        if apart:
            key = ("attempts", axis)
            table = columns.remember(key, lambda: series.attempts_table(columns, axis))
            drawn, alt = charts.attempts(axis, total, log), t("charts.alt.attempts")
        else:
            marked = _marks(home, job, columns)
            table = _loss_table(columns, axis, share, shown, marked)
            drawn = charts.loss(axis, total, log)
            # where the words of a chart change it is drawn anew, and a zoom is lost
            alt = _described(columns) if job.ended else t("charts.alt.loss_running")
        st.vega_lite_chart(table, drawn, key=f"chart-loss-{axis}-{apart}-{log}", alt=alt)
        st.caption(t("charts.zoom"))


def _judged(job: Job, columns: Columns, sample: bool) -> list[verdict.Finding]:
    """Nothing on a sample: its rules count rows; nor where the card above says what went wrong."""
    if sample or job.state == "failed":
        return []
    return columns.remember(("verdict", job.state), lambda: verdict.judge(columns, job.state))


def _described(columns: Columns) -> str:
    """The chart in words for who cannot see it."""
    rows = columns.rows("loss")
    if not rows.size:
        return t("charts.alt.loss_none")
    first, last = (quantities.loss(float(value)) for value in columns.at("loss", rows[[0, -1]]))
    return t("charts.alt.loss", first=first, last=last, step=quantities.count(columns.latest("step")))


def _strip(job: Job, columns: Columns) -> None:
    axis, shown = choices.chosen("x", series.axes(columns), "step"), choices.chosen("range", RANGES, "all")
    table = _strip_table(columns, axis, shown)
    if len(table) < 2 or len(table.columns) < 3:
        return
    with st.container(border=True, gap="small"):
        st.markdown(f"**{t('charts.strip.head')}**")
        drawn = charts.strip(list(table.columns[2:]), axis, _total(job, columns))
        with st.container(horizontal=True, wrap=False, gap=None):
            st.vega_lite_chart(table, drawn, width="stretch", key=f"chart-strip-{axis}", alt=t("charts.alt.strip"))
            st.space(charts.STRIP_MARGIN_PX)


# ---- choices: all in the address


SHARES = {f"{100 * share:g}": share for share in series.SMOOTHINGS}
USUAL_SHARE = f"{100 * series.USUAL_SMOOTHING:g}"


def _axis(columns: Columns) -> str:
    options = series.axes(columns)
    if len(options) < 2:
        return "step"
    choices.keep("x", options, "step")
    st.segmented_control(
        t("charts.axis.label"), options, required=True, key=choices.key("x"), on_change=choices.went,
        args=("x", "step"), format_func=lambda axis: t(f"charts.axis.{axis}"), label_visibility="collapsed",
    )  # fmt: skip
    return choices.chosen("x", options, "step")


def _range() -> str:
    choices.keep("range", RANGES, "all")
    st.segmented_control(
        t("charts.range.label"), RANGES, required=True, key=choices.key("range"), on_change=choices.went,
        args=("range", "all"), format_func=lambda each: t(f"charts.range.{each}"), label_visibility="collapsed",
    )  # fmt: skip
    return choices.chosen("range", RANGES, "all")


def view(repeated: bool = False) -> tuple[float, bool, bool]:
    """(smoothing, log scale, attempts apart), behind one button."""
    with st.popover(t("charts.view"), icon=":material/tune:", width="content"):
        choices.keep("smooth", list(SHARES), USUAL_SHARE)
        st.select_slider(
            t("charts.smoothing.label"), list(SHARES), key=choices.key("smooth"), help=t("charts.smoothing.help"),
            on_change=choices.went, args=("smooth", USUAL_SHARE), width=300,
            format_func=lambda name: quantities.share(SHARES[name]) if SHARES[name] else t("charts.smoothing.none"),
        )  # fmt: skip
        log = st.toggle(t("charts.log.label"), key="log", bind="query-params", help=t("charts.log.help"))
        apart = repeated and st.toggle(
            t("charts.apart.label"), key="attempts", bind="query-params", help=t("charts.apart.help")
        )
    return SHARES[choices.chosen("smooth", list(SHARES), USUAL_SHARE)], log, bool(apart)


# ---- what is computed once for everybody who looks


def _total(job: Job, columns: Columns) -> int | None:
    """Where the axis of steps ends: with the run; of one that has ended, with what it did."""
    total = columns.latest("step" if job.ended else "total_steps")
    return int(total) if total else None


def _marks(home: Home, job: Job, columns: Columns) -> list[marks.Mark]:
    code = (job.error or {}).get("code") if job.state == "failed" else None
    events = tail.rows(home.run(job.id).events)
    attempts = attempt_documents(home, job) if job.attempts > 1 else []
    return columns.remember(
        ("marks", len(events), len(attempts), code), lambda: marks.find(columns, events, attempts, code)
    )


def _loss_table(columns: Columns, axis: str, share: float, shown: str, marked: Sequence[marks.Mark]) -> pd.DataFrame:
    key = ("loss", axis, share, shown, tuple(marked))
    return columns.remember(key, lambda: series.loss_table(columns, axis, share, shown, marks.coded(marked)))


def _strip_table(columns: Columns, axis: str, shown: str) -> pd.DataFrame:
    return columns.remember(("strip", axis, shown), lambda: series.strip_table(columns, axis, shown))
