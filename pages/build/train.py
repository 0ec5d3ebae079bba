"""Train: an outcome, a model and data; the settings follow with their reasons, the job's spec stands beside them."""

import streamlit as st

from pages.parts.escape import md
from pages.parts.texts import t
from pages.parts.ui import (
    frame,
    train_beside,
    train_fill,
    train_form,
    train_goal,
    train_sent,
    train_settings,
)
from pages.parts.ui.train_form import ORIGIN, SENT, STATE


def head() -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        with st.container(gap="xxsmall", width="content"):
            st.title(t("frame.page.train"), anchor=False)
            st.caption(t("train.says"))
        train_fill.opener("from", t("train.from.button"), ":material/history:", "job")


def origin() -> None:
    """Which job the form was filled in from."""
    if not STATE[ORIGIN]:
        return
    kind, job_id = STATE[ORIGIN]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption(f":material/replay: {md(t(f'train.origin.{kind}'), 200)}", width="content")
        frame.link(frame.MONITOR, t("train.origin.open"), job=job_id)


def build() -> None:
    """The form on the left, what comes of it on the right."""
    made, seen, chosen = train_form.settle()
    head()
    origin()
    train_goal.outcome()
    st.space("xsmall")
    left, right = st.columns([1.75, 1], gap="large")
    with left:
        with st.grid(2, min_column_width=260, gap=("medium", "small")) as grid:
            with grid.cell(), st.container(gap="xsmall"):
                train_goal.model()
            with grid.cell(), st.container(gap="xsmall"):
                train_goal.data(seen)
        train_goal.unsuited(train_form.preset(), seen)
        st.space("xsmall")
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.subheader(t("train.settings"), anchor=False, width="content")
            train_settings.reset_all()
        train_settings.essentials(chosen)
        st.space("xsmall")
        train_settings.rest(chosen)
    with right:
        train_beside.show(made, seen)


train_form.arrive()
if STATE[SENT]:
    frame.title(t("frame.page.train"), t("train.sent.title"))
    train_sent.show(STATE[SENT])
else:
    build()
train_form.leave()
