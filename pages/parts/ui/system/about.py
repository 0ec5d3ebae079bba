"""System, Settings and About: what is set, what is installed, who may come in."""

import os
import platform
import socket
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from pages.parts import quantities
from pages.parts.escape import md, one_line
from pages.parts.signin import Open
from pages.parts.system import in_force, looks
from pages.parts.texts import t
from pages.parts.ui import frame, signin
from pages.parts.ui.system.health import table, with_commands
from spool.forecast import machine
from spool.health import environment, heartbeat
from spool.protocol.errors import SettingsError

SHOWN = (*environment.TRAINING, *environment.OTHERS, "authlib", "huggingface_hub", "pyarrow")


def settings() -> None:
    home = frame.home()
    beat = heartbeat.read(home)
    found = in_force.read(home, beat.started_at if beat.alive else None)
    if found.problem:
        frame.show_error(found.problem, found.hint)
    elif found.newer:
        st.warning(t("system.settings.newer"), icon=":material/restart_alt:")
    changed = sum(setting.changed for setting in found.settings)
    st.subheader(
        t("system.settings.changed", count=changed) if changed else t("system.settings.unchanged"), anchor=False
    )
    with st.grid(2, min_column_width=360, gap="large"):
        with st.container(gap="small"):
            st.markdown(f"**{t('system.settings.file')}**")
            st.code(str(home.settings), language=None, wrap_lines=True)
            if not home.settings.exists():
                st.caption(t("system.settings.none_yet"))
            st.markdown(t("system.settings.how"))
        with st.container(gap="small"):
            st.markdown(f"**{t('system.settings.example')}**")
            st.code(in_force.example(), language=None)
    st.space("xsmall")
    _groups(found.settings)


def _groups(settings: list[in_force.Setting]) -> None:
    """Each setting with its value and what it means, under each other: the sentences are too long for a table."""
    with st.grid(2, min_column_width=360, gap="large"):
        for name in ("queue", "retention", "data_limits"):
            with st.container(gap="small"):
                st.markdown(f"**{t(f'system.settings.group.{name}')}**")
                st.markdown("\n\n".join(_line(each) for each in settings if in_force.group(each.name) == name))


def _line(setting: in_force.Setting) -> str:
    unset = t("system.settings.unset")
    value = f":gray[{unset}]" if setting.value is None else f"= `{_written(setting.value)}`"
    if setting.changed:
        usual = unset if setting.default is None else md(_written(setting.default), 80)
        value += f" :orange-badge[{t('system.settings.default', value=usual)}]"
    return f"`{setting.name}` {value}  \n:gray[{with_commands(setting.means)}]"


def _written(value: Any) -> str:
    return one_line(in_force.written(value), 200).replace("`", "")


def about() -> None:
    home, here = frame.home(), machine.look(frame.home())
    with st.grid(2, min_column_width=380, gap="large"):
        with st.container(gap="small"):
            st.subheader(t("system.about.machine"), anchor=False)
            table(
                [
                    (t("system.about.host"), f"`{one_line(socket.gethostname(), 80)}`"),
                    (t("system.about.system"), md(f"{platform.system()} {platform.release()}", 120)),
                    (t("system.about.cores"), quantities.count(os.cpu_count())),
                    (t("system.about.memory"), quantities.size(here.memory_bytes)),
                    (t("system.about.home"), f"`{home.root}`"),
                    (t("system.about.started_in"), f"`{Path.cwd()}`"),
                    (t("system.about.account"), f"`{looks.account()}`"),
                ]
            )
            st.space("xsmall")
            st.subheader(t("system.about.sign_in"), anchor=False)
            st.markdown(_sign_in())
            st.space("xsmall")
            st.subheader(t("system.about.language"), anchor=False)
            st.markdown(with_commands(t("system.about.language_says")))
        with st.container(gap="small"):
            st.subheader(t("system.about.versions"), anchor=False)
            _versions()


def _sign_in() -> str:
    """Who may come in, as this process was started: it reads its secrets once."""
    try:
        access = signin.settings()
    except SettingsError:
        return t("system.about.broken")
    if isinstance(access, Open):
        return t("system.about.elsewhere") if access.proxy else t("system.about.open")
    said = [t("system.about.on", at=f"`{access.origin}`"), t("system.about.listed", count=len(access.allow))]
    said += [t("system.about.hours", hours=f"{access.hours:g}")] if access.hours else []
    who = signin.user()
    return " ".join([*said, *([t("system.about.signed_in", name=md(who, 120))] if who else [])])


def _versions() -> None:
    pins = environment.pins(environment.torch_build() or "cpu")
    rows: list[tuple[str, str | None, str | None]] = [
        (t("system.about.app"), environment.installed("gemma-finetuner"), None)
    ]
    rows += [(t("system.about.python"), platform.python_version(), None)]
    rows += [(name, environment.installed(name), pins.get(name.replace("_", "-").lower())) for name in SHOWN]
    shown = pd.DataFrame(
        {
            "package": [name for name, _, _ in rows],
            "have": [have or t("system.about.missing") for _, have, _ in rows],
            "pin": [pin for _, _, pin in rows],
        }
    )
    config = st.column_config
    st.dataframe(
        shown,
        hide_index=True,
        height="content",
        key="versions",
        placeholder="",
        alt=t("system.about.packages_alt"),
        column_config={
            "package": config.TextColumn(t("system.about.column_package"), width=190),
            "have": config.TextColumn(t("system.about.column_have"), width=140),
            "pin": config.TextColumn(t("system.about.column_pin"), width=140),
        },
    )
