"""System, Drop box: where job files go, what stands in them, how they get there, what became of the last ones."""

import socket

import pandas as pd
import streamlit as st

from pages.parts import quantities
from pages.parts.escape import one_line
from pages.parts.models import shelf
from pages.parts.phrases import translated
from pages.parts.system import drop_box
from pages.parts.texts import t
from pages.parts.ui import frame
from pages.parts.words import STATES, state


def show() -> None:
    with st.container(gap="xxsmall"):
        st.subheader(t("system.drop.title"), anchor=False)
        st.markdown(t("system.drop.says"))
    st.space("xsmall")
    with st.grid(2, min_column_width=360, gap="large"):
        with st.container(gap="small"):
            _folder()
        with st.container(gap="small"):
            _spec()
    _ways()
    st.space("small")
    receipts()


def _folder() -> None:
    home = frame.home()
    found = drop_box.access(home)
    st.markdown(f"**{t('system.drop.folder')}**")
    st.code(str(home.incoming), language=None, wrap_lines=True)
    if not found.exists:
        st.caption(t("system.drop.missing"))
        return
    if found.owner:
        st.markdown(t("system.drop.who", owner=found.owner, group=found.group, mode=found.mode))
    else:
        st.markdown(t("system.drop.who_hidden", mode=found.mode))
    if found.writable:
        st.caption(f":green[:material/check_circle:] {t('system.drop.may')}")
    else:
        st.caption(f":orange[:material/warning:] {t('system.drop.may_not')}")
    if found.owner and found.group not in ("root", found.owner):
        st.markdown(f":gray[{t('system.drop.join', group=found.group)}]")


def _spec() -> None:
    """Without colours: those of the highlighting are too pale to read for some."""
    bases = shelf.bases(frame.home())
    model = bases[0].name if bases else None
    st.markdown(f"**{t('system.drop.spec')}**")
    smallest, fuller = st.tabs([t("system.drop.smallest"), t("system.drop.fuller")])
    smallest.code(drop_box.example(model, None), language=None)
    fuller.code(drop_box.richer(model, None), language=None)
    st.markdown(f":gray[{t('system.drop.all_fields')}]")


def _ways() -> None:
    home = frame.home()
    with st.container(gap="xsmall"):
        st.markdown(f"**{t('system.drop.safely')}**")
        st.markdown(f":gray[{t('system.drop.safely_says')}]")
        here, afar, command = st.tabs([t("system.drop.here"), t("system.drop.afar"), t("system.drop.command")])
        here.code(drop_box.by_hand(home), language=None)
        afar.code(drop_box.from_afar(home, one_line(socket.gethostname(), 80)), language=None)
        command.code(drop_box.by_command(home), language=None)


@st.fragment(run_every="5s")
def receipts() -> None:
    """What became of the last drops."""
    found = drop_box.receipts(frame.home())
    if not found:
        st.subheader(t("system.drop.receipts", number=drop_box.RECEIPTS), anchor=False)
        st.caption(t("system.drop.no_receipts"))
        return
    st.subheader(t("system.drop.receipts", number=len(found)), anchor=False)
    monitor = "/" + "/".join(filter(None, [str(st.get_option("server.baseUrlPath") or "").strip("/"), "monitor"]))
    table = pd.DataFrame(
        {
            "at": pd.to_datetime(pd.Series([each.at for each in found], dtype="str"), format="ISO8601", utc=True),
            "name": [one_line(each.name, 80) for each in found],
            "state": [[state(each.state).label] for each in found],
            "why": [one_line(f"{translated(each.why)} {translated(each.hint)}", 300) or None for each in found],
            "by": [one_line(each.by or "", 40) for each in found],
            "open": [f"{monitor}?job={each.job_id}" for each in found],
        }
    )
    config = st.column_config
    st.dataframe(
        table,
        hide_index=True,
        height="content",
        row_height=38,
        key="receipts",
        placeholder=quantities.DASH,
        alt=t("system.drop.alt"),
        column_config={
            "at": config.DatetimeColumn(
                t("system.drop.column_at"), format="D MMM, HH:mm", timezone=str(frame.zone()), width=115
            ),
            "name": config.TextColumn(t("system.drop.column_name"), width=220),
            "state": config.MultiselectColumn(
                t("system.drop.column_state"),
                options=[look.label for look in STATES.values()],
                color=[look.color for look in STATES.values()],
                width=140,
            ),
            "why": config.TextColumn(t("system.drop.column_why"), width=375),
            "by": config.TextColumn(t("system.drop.column_by"), width=90),
            "open": config.LinkColumn(t("system.drop.column_open"), display_text=t("system.drop.open"), width=95),
        },
    )
