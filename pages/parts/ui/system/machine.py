"""System, GPU and Disk: what the card is and did, and what lies on the disk."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.parts import quantities
from pages.parts.escape import md
from pages.parts.system import card_history, looks, machine_charts
from pages.parts.texts import has, t
from pages.parts.ui import frame
from spool.forecast import machine
from spool.health import heartbeat
from spool.protocol.home import Home

HOURS = (1, 6, 24, 168)
CARDS = {
    "gpu_util_pct": ("util", "%"),
    "gpu_mem_bytes": ("memory", "GB"),
    "gpu_temp_c": ("temperature", "°C"),
    "gpu_power_w": ("power", "W"),
}


def gpu() -> None:
    home = frame.home()
    here = machine.look(home)
    if here.gpu is None:
        with st.container(border=True, gap="small"):
            st.markdown(f":material/memory: **{t('system.gpu.none')}**")
            st.markdown(t("system.gpu.none_says"))
            st.markdown(f":gray[{t('system.gpu.none_cure')}]")
        if not card_history.table(home, frame.now().timestamp(), HOURS[-1]).empty:  # there was one, or another sees it
            _history(home, None)
        return
    told = [f"**{md(here.gpu, 80)}**"]
    if here.gpu_bytes:
        told.append(t("system.gpu.total", size=quantities.size(here.gpu_bytes)))
    told += _driver(home)
    st.markdown(" · ".join(told))
    _now(home, here.gpu_bytes)
    st.space("xsmall")
    _history(home, here.gpu_bytes)


def _driver(home: Home) -> list[str]:
    """What the doctor's finding on the card says beside its name; the page itself keeps its hands off the driver."""
    for finding in looks.ask(home).findings:
        words = str(finding.get("message", ""))
        if finding.get("area") == "gpu" and ", driver " in words:
            return [t("system.gpu.driver", version=md(words.partition(", driver ")[2].partition(",")[0], 30))]
    return []


@st.fragment(run_every="5s")
def _now(home: Home, total: int | None) -> None:
    """The newest row of the job that trains."""
    beat = heartbeat.read(home)
    row = card_history.newest(home, beat.current_job) if beat.alive and beat.current_job else {}
    if not row:
        st.caption(t("system.gpu.idle"))
        return
    with st.grid(4, min_column_width=150, gap="small"):
        for field, (name, _) in CARDS.items():
            st.metric(t(f"system.gpu.{name}"), _shown(field, row.get(field), total), border=True)


def _shown(field: str, value: Any, total: int | None) -> str:
    if not isinstance(value, int | float):
        return quantities.DASH
    if field == "gpu_mem_bytes":
        return quantities.size(value)
    return f"{quantities.count(value)} {CARDS[field][1]}"


def _history(home: Home, total: int | None) -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(t("system.gpu.history"), anchor=False, width="content")
        asked = st.segmented_control(
            t("system.gpu.range_label"),
            HOURS,
            default=24,
            required=True,
            format_func=_range,
            key="gpu-hours",
            persist_state="session",
            label_visibility="collapsed",
        )
    _curves(home, total, asked if asked in HOURS else 24)


@st.fragment(run_every="30s")
def _curves(home: Home, total: int | None, hours: int) -> None:
    now = frame.now()
    found = card_history.table(home, now.timestamp(), hours)
    if found.empty:
        st.caption(t("system.gpu.empty"))
        return
    found["gpu_mem_gb"] = found["gpu_mem_bytes"] / 1e9
    found["time"] = found["t"] * 1000
    found["ago_h"] = (found["t"] - now.timestamp()) / 3600
    with st.grid(2, min_column_width=320, gap="small"):
        for field, (name, unit) in CARDS.items():
            drawn = "gpu_mem_gb" if field == "gpu_mem_bytes" else field
            if found[drawn].isna().all():
                continue
            top = {"gpu_util_pct": 100.0, "gpu_mem_gb": total / 1e9 if total else None}.get(drawn)
            title = t(f"system.gpu.{name}")
            highest = _shown(field, float(found[field].max()), total)
            with st.container(border=True, gap="xxsmall"):
                st.markdown(f"{title} :gray[· {unit}]")
                st.altair_chart(
                    machine_charts.gpu(found[["ago_h", "time", "stretch", drawn]], drawn, top, hours),
                    key=f"gpu-{field}",
                    alt=t("system.gpu.alt", name=title, range=_range(hours), highest=highest),
                )
    st.caption(t("system.gpu.from_jobs"))


def _range(hours: int) -> str:
    return t("system.gpu.days") if hours == 168 else t("system.gpu.hours", count=hours)


@st.fragment(run_every="5s")
def disk() -> None:
    home = frame.home()
    seen = looks.ask(home)
    if seen.report is None:
        st.info(t("system.look.first"), icon=":material/hourglass_empty:")
        return
    found = seen.disk
    if not found:
        st.warning(t("system.disk.unknown"), icon=":material/warning:")
        return
    free, total = found["free_bytes"], max(1, found["total_bytes"])
    with st.container(gap="xxsmall"):
        said = t("system.disk.free", free=quantities.size(free), total=quantities.size(total))
        st.markdown(f"**{said}** :gray[· {t('system.disk.whole', path=md(home.root, 200))}]")
        st.progress(min(1.0, max(0.0, 1 - free / total)))
    st.space("xsmall")
    st.subheader(t("system.disk.used_by"), anchor=False)
    _uses({name: count for name, count in found["uses"].items() if count})
    if not found["complete"]:
        st.caption(f":orange[:material/warning:] {t('system.disk.least')}")
    soon = found.get("retention", {}).get("in_7_days_bytes")
    says = [t("system.disk.soon", size=quantities.size(soon))] if soon else []
    says += [t("system.disk.never"), t("system.disk.retention")]
    st.caption(" ".join(says))


def _uses(uses: dict[str, int]) -> None:
    whole = max(1, sum(uses.values()))
    named = {name: name if has(f"system.disk.use.{name}") else "other" for name in uses}
    table = pd.DataFrame(
        {
            "use": [t(f"system.disk.use.{named[name]}") for name in uses],
            "size": [quantities.size(count) for count in uses.values()],
            "share": [100 * count / whole for count in uses.values()],
            "what": [t(f"system.disk.what.{named[name]}") for name in uses],
        }
    )
    config = st.column_config
    st.dataframe(
        table,
        hide_index=True,
        height="content",
        row_height=38,
        key="disk-uses",
        alt=t("system.disk.alt"),
        column_config={
            "use": config.TextColumn(t("system.disk.column_use"), width=170),
            "size": config.TextColumn(t("system.disk.column_size"), width=90),
            "share": config.ProgressColumn(
                t("system.disk.column_share"), min_value=0, max_value=100, format="%.0f %%", width=160
            ),
            "what": config.TextColumn(t("system.disk.column_what"), width=620),
        },
    )
