"""Playground: base and tuned models side by side on the same question, or on many; `?with=ID,ID&base=1`, `?batch=ID`.

No model runs in the web process: a chat is an interactive `generate` job that makes room for any training.
"""

import streamlit as st

from pages.parts.texts import t
from pages.parts.ui import frame
from pages.parts.ui.play import batch, chat, correct, models
from pages.parts.ui.play.batch import NEW
from pages.parts.ui.play.chat import Talk

HOME = frame.home()
CHAT, BATCH = "chat", "batch"


def view() -> None:
    """Chat or many prompts; the address says which."""

    def go() -> None:
        if st.session_state["play-view"] == BATCH:
            st.query_params["batch"] = NEW
        else:
            st.query_params.pop("batch", None)

    views = {CHAT: t("playground.view.chat"), BATCH: t("playground.view.batch")}
    st.session_state["play-view"] = BATCH if "batch" in st.query_params else CHAT
    st.segmented_control(
        t("playground.view.label"), list(views), format_func=views.__getitem__, key="play-view", on_change=go,
        required=True, label_visibility="collapsed",
    )  # fmt: skip


def page() -> None:
    known = models.adapters(HOME)
    asked = st.query_params.get("batch")
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        view()
        if asked is not None:
            batch.earlier(HOME, asked)
        else:
            beside = st.container(horizontal=True, width="content", gap="small")
    if asked not in (None, NEW):
        correct.saved()
        batch.show(HOME, known, str(asked))
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        choice = models.choose(HOME, known)
        if choice is not None:
            told = models.settings()
    if choice is None:
        says = t("playground.nobody.says")
        frame.nothing(t("playground.nobody.head"), says, frame.TRAIN, t("playground.nobody.go"))
    elif asked == NEW:
        frame.runner_notice()
        batch.ask(HOME, known, choice, told)
    else:
        talk = Talk(HOME, known, choice, told)
        with beside:
            chat.menu(talk)
        correct.saved()
        chat.show(talk)
        frame.at_foot(lambda: chat.line(talk))


frame.title(t("frame.page.playground"), t("playground.says"))
with frame.plain_errors():
    page()
