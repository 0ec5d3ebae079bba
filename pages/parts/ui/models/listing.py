"""The list of Models: every adapter with its tags, to search, to sort, to compare; and the bases on this server."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from pages.parts import quantities
from pages.parts.compare.overlay import MOST_RUNS
from pages.parts.escape import one_line
from pages.parts.models import lineage, shelf
from pages.parts.models.shelf import Model
from pages.parts.texts import t, table
from pages.parts.ui import choices, frame, jobs
from pages.parts.ui.models import asking
from spool.protocol.jobs import Job

STATE = st.session_state
SHOWN = 500
SEARCH_FROM = 4
"""Fewer models are found with the eyes."""


def show(found: Sequence[Model]) -> None:
    """Search, tags, order, and one line a model."""
    kept = _narrowed(found)
    if not kept:
        st.caption(t("models.list.none"))
        return
    shown = kept[:SHOWN]

    def opened() -> None:
        click = STATE.get("models-open")
        if click and click.row < len(shown):
            STATE["models-go"] = shown[click.row].job.id

    picked = st.dataframe(
        _frame(shown),
        hide_index=True,
        key="models",
        row_height=42,
        height="content" if len(shown) <= 14 else 640,
        placeholder=quantities.DASH,
        on_select="rerun",
        selection_mode="multi-row",
        alt=t("models.list.alt"),
        column_config=_columns(opened, shelf.tags(found)),
    )
    _chosen([shown[row] for row in picked.selection.rows if row < len(shown)])
    if len(kept) > SHOWN:
        st.caption(t("models.list.more", shown=SHOWN, number=quantities.count(len(kept))))


def _narrowed(found: Sequence[Model]) -> list[Model]:
    if len(found) < SEARCH_FROM:
        return shelf.ordered(found, shelf.NEWEST)
    orders = table("models.order")
    choices.keep("sort", list(orders), shelf.NEWEST)
    known = shelf.tags(found)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        words = st.text_input(
            t("models.list.search"), key="q", bind="query-params", placeholder=t("models.list.search"),
            label_visibility="collapsed", icon=":material/search:", max_chars=200, width=340,
        )  # fmt: skip
        wanted = []
        if known:
            wanted = st.multiselect(
                t("models.list.tags"), known, key="tags", bind="query-params", placeholder=t("models.list.tags"),
                label_visibility="collapsed", width=260,
            )  # fmt: skip
        st.selectbox(
            t("models.list.sort"), list(orders), key=choices.key("sort"), format_func=orders.__getitem__,
            on_change=choices.went, args=("sort", shelf.NEWEST), label_visibility="collapsed", width=200,
        )  # fmt: skip
    return shelf.ordered(shelf.search(found, words or "", wanted), choices.chosen("sort", list(orders), shelf.NEWEST))


def _frame(shown: Sequence[Model]) -> pd.DataFrame:
    dates = pd.Series([each.job.ended_at for each in shown], dtype="str")
    return pd.DataFrame(
        {
            "name": [jobs.short_name(each.job) for each in shown],
            "tags": [list(each.note.tags) for each in shown],
            "eval_loss": pd.Series([each.eval_loss for each in shown], dtype="float"),
            "base": [one_line(each.job.model or "", 60) for each in shown],
            "dataset": [one_line(each.job.dataset or "", 60) for each in shown],
            "size": [t("models.list.removed") if each.removed else quantities.size(each.size_bytes) for each in shown],
            "ended": pd.to_datetime(dates, format="ISO8601", utc=True),
            "who": [one_line(each.job.submitted_by or "", 40) for each in shown],
            "do": [[t("models.list.open")]] * len(shown),
        }
    )


def _columns(opened: Any, tags: Sequence[str]) -> dict[str, Any]:
    config = st.column_config
    return {
        "name": config.TextColumn(t("models.list.name"), width=200),
        "tags": config.MultiselectColumn(t("models.list.tags"), options=list(tags), color="gray", width=110)
        if tags
        else None,
        "eval_loss": config.NumberColumn(t("models.figure.eval_loss"), format="%.4f", width=80),
        "base": config.TextColumn(t("models.list.base"), width=120),
        "dataset": config.TextColumn(t("models.list.dataset"), width=130),
        "size": config.TextColumn(t("models.list.size"), width=76),
        "ended": config.DatetimeColumn(
            t("models.list.ended"), format="D MMM, HH:mm", timezone=str(frame.zone()), width=104
        ),
        "who": config.TextColumn(t("models.list.who"), width=64),
        "do": config.ButtonColumn("", on_click=opened, key="models-open", type="tertiary", width=64),
    }


def _chosen(picked: Sequence[Model]) -> None:
    """What can be done with the lines that are ticked."""
    ids = [each.job.id for each in picked]
    usable = [each.job.id for each in picked if each.size_bytes]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if not ids:
            st.caption(t("models.list.hint"))
            return
        if len(ids) <= MOST_RUNS:
            icon = ":material/stacked_line_chart:"
            frame.link(frame.COMPARE, t("models.list.compare", count=len(ids)), icon=icon, jobs=",".join(ids))
        asking.button(frame.home(), [each.job for each in picked], "models-evaluate")
        if 0 < len(usable) <= 4:
            address = {"with": ",".join(usable)}
            frame.link(frame.PLAYGROUND, t("models.do.try"), icon=":material/forum:", **address)


def go() -> None:
    """To the model whose button was clicked."""
    wanted = STATE.pop("models-go", None)
    if wanted:
        st.query_params["model"] = wanted
        st.rerun()


def bases(found: Sequence[shelf.Base], everything: Sequence[Job]) -> None:
    """The base models on this server, and how many adapters need each."""
    st.subheader(t("models.bases.head"), anchor=False)
    if not found:
        st.caption(t("models.bases.none"))
        return
    config = st.column_config
    st.dataframe(
        pd.DataFrame(
            {
                "name": [base.name for base in found],
                "kind": [base.kind for base in found],
                "size": [quantities.size(base.size_bytes) for base in found],
                "terms": [", ".join(base.terms) for base in found],
                "users": [lineage.users(base.name, everything) for base in found],
            }
        ),
        hide_index=True,
        row_height=42,
        placeholder=quantities.DASH,
        alt=t("models.bases.head"),
        column_config={
            "name": config.TextColumn(t("models.list.name"), width=220),
            "kind": config.TextColumn(t("models.bases.kind"), width=300),
            "size": config.TextColumn(t("models.list.size"), width=90),
            "terms": config.TextColumn(t("models.bases.terms"), width=230),
            "users": config.NumberColumn(t("models.bases.users"), width=120),
        },
    )
    st.caption(t("models.bases.licence"))
