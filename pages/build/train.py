"""Train: an outcome, a model and data; the settings follow with their reasons, the job's spec stands beside them."""

import streamlit as st

from pages.parts.escape import md
from pages.parts.texts import t
from pages.parts.ui import frame
from pages.parts.ui.train import beside, fill, form, goal, sent, settings
from pages.parts.ui.train.form import ORIGIN, SENT, STATE


def head() -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        with st.container(gap="xxsmall", width="content"):
            st.title(t("frame.page.train"), anchor=False)
            st.caption(t("train.says"))
        fill.opener("from", t("train.from.button"), ":material/history:", "job")


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
    made, seen, chosen = form.settle()
    head()
    origin()
    goal.outcome()
    st.space("xsmall")
    left, right = st.columns([1.75, 1], gap="large")
    with left:
        with st.grid(2, min_column_width=260, gap=("medium", "small")) as grid:
            with grid.cell(), st.container(gap="xsmall"):
                goal.model()
            with grid.cell(), st.container(gap="xsmall"):
                goal.data(seen)
        goal.unsuited(form.preset(), seen)
        st.space("xsmall")
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.subheader(t("train.settings"), anchor=False, width="content")
            settings.reset_all()
        settings.essentials(chosen)
        st.space("xsmall")
        settings.rest(chosen)
    with right:
        beside.show(made, seen)


form.arrive()
if STATE[SENT]:
    frame.title(t("frame.page.train"), t("train.sent.title"))
    sent.show(STATE[SENT])
else:
    build()
form.leave()
