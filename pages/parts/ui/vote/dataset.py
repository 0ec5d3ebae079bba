"""The votes as rows to train on: how many there are, where they go, and the way on from there."""

import streamlit as st

from pages.parts.escape import md, one_line
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from pages.parts.vote import preferences
from pages.parts.vote.preferences import Saved
from spool.data.keeping import keep
from spool.protocol.ballot import Ballot
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.tally import Tally

STATE = st.session_state
SAVED = "vote-saved"


def save(home: Home, ballot: Ballot, counted: Tally) -> None:
    """Draws it all."""
    made = preferences.made(ballot, counted)
    st.subheader(t("vote.save.head"), anchor=False)
    with st.container(border=True, gap="small"):
        says = [t("vote.save.rows", count=len(made.rows))]
        says += [t("vote.save.ties", count=made.ties)] * bool(made.ties)
        says += [t("vote.save.cut", count=made.cut)] * bool(made.cut)
        st.markdown(" ".join(says))
        if ballot.held_out:
            st.caption(f":material/info: {t('vote.save.held_out')}")
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            name = _target(home, ballot)
            pressed = st.button(
                t("vote.save.do"), key="vote-save", type="primary", icon=":material/save:",
                disabled=not (name and made.rows),
            )  # fmt: skip
        if pressed and name:
            _save(home, name.strip(), made, f"{SAVED}-{ballot.job_id}")
        _saved(STATE.get(f"{SAVED}-{ballot.job_id}"))


def _target(home: Home, ballot: Ballot) -> str | None:
    """A dataset of preferences that is there, or the name of a new one."""
    there = preferences.offered(home)
    try:
        usual = f"{keep.clean_name(jobs.short_name(frame.job(ballot.job_id)))[:60]}-preferences"
    except FinetunerError:
        usual = "preferences"
    return st.selectbox(
        t("vote.save.to"),
        [usual, *(name for name in there if name != usual)],
        accept_new_options=True,
        format_func=lambda name: one_line(name, 80) if name in there else t("vote.save.new", name=name),
        key=f"vote-to-{ballot.job_id}",
        width=420,
    )


def _save(home: Home, name: str, made: preferences.Made, key: str) -> None:
    STATE.pop(key, None)
    try:
        with st.spinner(t("vote.save.saving")):
            STATE[key] = preferences.save(home, name, made.rows)
    except FinetunerError as error:
        frame.show_error(error.message, error.hint)
    except OSError as error:
        frame.show_error(t("vote.unwritten", why=error.strerror or error), t("vote.unwritten_hint"))
    else:
        st.rerun()


def _saved(saved: Saved | None) -> None:
    """What became of it, and what to do with it."""
    if saved is None:
        return
    reference = saved.stored.reference
    says = t("vote.saved.known", reference=md(reference, 100))
    if saved.added or saved.replaced:
        says = t("vote.saved.added", count=saved.added, reference=md(reference, 100))
    if saved.replaced:
        says += " " + t("vote.saved.replaced", count=saved.replaced)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f":green[:material/check_circle:] {says}", width="content")
        frame.link(frame.DATA, t("vote.save.to_data"), icon=":material/dataset:", dataset=reference)
        frame.link(frame.TRAIN, t("vote.save.to_train"), icon=":material/model_training:", data=saved.stored.name)
