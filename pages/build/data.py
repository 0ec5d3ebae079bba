"""Data: files become datasets here: dropped, judged row by row, corrected, and seen as the model sees them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from pages.parts.escape import md
from pages.parts.phrases import translated
from pages.parts.texts import t
from pages.parts.ui import choices, frame
from pages.parts.ui.data import change, head, history, pick, row, statistics, trouble
from pages.parts.ui.data.dataset import Chosen
from spool.data.keeping import keep
from spool.data.keeping.keep import Stored

HOME = frame.home()
STATE = st.session_state
FINDINGS, SEES, NUMBERS, ROWS, CHANGE, VERSIONS = "findings", "sees", "statistics", "rows", "change", "versions"


def chosen_of(name: str, newest: Stored | None) -> Chosen:
    """What is looked at: the version that is asked for, read as the widgets below say."""
    if newest is None:
        chosen = Chosen(HOME, name, Path(name), None)
    else:
        stored = pick.version(HOME, name, newest)
        reference = name if stored.version == newest.version else stored.reference
        chosen = Chosen(HOME, reference, stored.path, stored)
    model = head.model(HOME)
    chosen = replace(chosen, model_folder=HOME.models / model if model else None)
    return replace(chosen, reading=head.stated(chosen))


def show(chosen: Chosen) -> None:
    """One dataset: what it is, whether to train on it, and everything that is known of its rows."""
    versions = keep.versions(HOME, chosen.stored.name) if chosen.stored else []
    seen, no_tokens = chosen.look_as_far_as_possible()
    head.title(chosen, versions, readable=not seen.error)
    head.recognised(chosen, seen)
    if not seen.complete:
        head.progress(chosen, seen)
    head.verdict(chosen, seen)
    if no_tokens:
        st.markdown(f":orange[:material/warning: {t('data.uncounted', problem=md(translated(no_tokens), 300))}]")
    if seen.report:
        head.numbers(seen.report)
    head.differently(chosen)
    if seen.report:
        views(chosen, seen.report, versions)
    elif seen.error:
        trouble.rows(chosen, [], None)


def views(chosen: Chosen, report: dict[str, Any], versions: list[Stored]) -> None:
    """The tabs. Only the open one is drawn, as the others cost time."""
    names = [FINDINGS, SEES, NUMBERS, ROWS] + ([CHANGE, VERSIONS] if chosen.stored else [])
    labels = {name: t(f"data.tab.{name}") for name in names}
    choices.keep("view", labels, FINDINGS)
    by_label = {label: name for name, label in labels.items()}
    drawn = st.tabs(
        list(labels.values()), key=choices.key("view"),
        on_change=lambda: choices.went("view", FINDINGS, by_label),
    )  # fmt: skip
    tabs = dict(zip(names, drawn, strict=True))
    opened = next((name for name in names if tabs[name].open), FINDINGS)
    with tabs[opened], frame.plain_errors():
        if opened == FINDINGS:
            trouble.show(chosen, report)
        elif opened == SEES:
            row.show(chosen)
        elif opened == NUMBERS:
            statistics.show(chosen, report)
        elif opened == ROWS:
            trouble.rows(chosen, report["columns"], report["rows"])
        elif opened == CHANGE and chosen.fixed:
            st.caption(f":material/lock: {chosen.fixed}")
        elif opened == CHANGE:
            change.show(chosen, report)
        else:
            history.show(chosen, versions)


frame.title(t("data.title"), t("data.says"))
if says := STATE.pop("data-toast", None):
    st.toast(md(says), icon=":material/check_circle:")
pick.upload(HOME)
pick.hub()
datasets = pick.offered(HOME)
if not datasets:
    st.caption(t("data.empty"))
else:
    left, right = st.columns([1, 3.2], gap="medium")
    with left:
        picked = pick.pick(datasets)
    with right, frame.plain_errors():
        show(chosen_of(picked, datasets[picked]))
