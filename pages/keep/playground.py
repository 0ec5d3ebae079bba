"""Playground: base and tuned models side by side on the same question, or on many; `?with=ID,ID&base=1`, `?batch=ID`.

No model runs in the web process: a chat is an interactive `generate` job that makes room for any training.
"""

import streamlit as st

from pages.parts.texts import t
from pages.parts.ui import frame, play_batch, play_chat, play_correct, play_models
from pages.parts.ui.play_batch import NEW
from pages.parts.ui.play_chat import Talk

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
    known = play_models.adapters(HOME)
    batch = st.query_params.get("batch")
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        view()
        if batch is not None:
            play_batch.earlier(HOME, batch)
        else:
            beside = st.container(horizontal=True, width="content", gap="small")
    if batch not in (None, NEW):
        play_correct.saved()
        play_batch.show(HOME, known, str(batch))
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        choice = play_models.choose(HOME, known)
        if choice is not None:
            told = play_models.settings()
    if choice is None:
        says = t("playground.nobody.says")
        frame.nothing(t("playground.nobody.head"), says, frame.TRAIN, t("playground.nobody.go"))
    elif batch == NEW:
        frame.runner_notice()
        play_batch.ask(HOME, known, choice, told)
    else:
        talk = Talk(HOME, known, choice, told)
        with beside:
            play_chat.menu(talk)
        play_correct.saved()
        play_chat.show(talk)
        frame.at_foot(lambda: play_chat.line(talk))


frame.title(t("frame.page.playground"), t("playground.says"))
with frame.plain_errors():
    page()
