"""A wrong answer put right: what was asked, what the model said, the right answer, and the dataset it goes to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import streamlit as st

from pages.parts.escape import lines, md, one_line
from pages.parts.play import chat, corrections
from pages.parts.play.corrections import Correction
from pages.parts.texts import t
from pages.parts.ui import frame
from pages.parts.ui.play import session
from pages.parts.ui.play.models import Adapter
from spool.data.keeping import keep
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home

STATE = st.session_state
LARGE_BYTES = 20_000_000
"""A larger dataset is not copied for a single row unless somebody chooses it."""


@dataclass(frozen=True)
class Asked:
    """What is to be put right; `dataset` is what the model learned from, as its job names it."""

    messages: tuple[dict[str, str], ...]
    who: str
    wrong: str
    reference: str | None
    dataset: str

    @property
    def alone(self) -> "Asked":
        """Without the questions before it."""
        return replace(self, messages=(*(m for m in self.messages[:1] if m["role"] == "system"), self.messages[-1]))

    @property
    def key(self) -> str:
        return f"{self.who}-{abs(hash((self.wrong, *(m['content'] for m in self.messages)))):x}"


def asked(
    messages: Sequence[Mapping[str, str]], who: str, wrong: str, reference: str | None, known: Mapping[str, Adapter]
) -> Asked:
    """Of a conversation that ends with the question."""
    learned = known[who].dataset if who in known else next((each.dataset for each in known.values()), "")
    return Asked(tuple(dict(m) for m in messages), who, wrong, reference, learned)


def dialog(home: Home, this: Asked) -> None:
    """Opens the dialog in the reader's language."""
    st.dialog(t("playground.correction.title"), width="medium", icon=":material/edit_note:")(draw)(home, this)


def draw(home: Home, this: Asked) -> None:
    """What stands in it."""
    with st.container(gap="xsmall"):
        st.caption(t("playground.correction.question"))
        st.text(lines(this.messages[-1]["content"]))
    with st.container(gap="xsmall"):
        st.caption(t("playground.correction.wrong"))
        st.text(lines(this.wrong))
    right = st.text_area(
        t("playground.correction.right"),
        this.reference if this.reference is not None else this.wrong,
        key=f"correct-{this.key}",
        height=140,
        max_chars=corrections.LONGEST,
    )
    earlier = len([m for m in this.messages[:-1] if m["role"] == "user"])
    if earlier and not st.toggle(
        t("playground.correction.earlier", count=earlier),
        corrections.takes(home, this.dataset, this.messages),
        help=t("playground.correction.earlier_help"),
        key=f"correct-earlier-{this.key}",
    ):
        this = this.alone
    name = _target(home, this)
    if st.button(t("playground.correction.save"), type="primary", icon=":material/save:", disabled=not name):
        _save(home, str(name), this, right)


def _target(home: Home, this: Asked) -> str | None:
    """Which dataset it goes to: one that has such rows, or a new one by a name that is typed."""
    offered = {stored.name: stored for stored in corrections.offered(home, this.messages)}
    usual = this.dataset.partition("@")[0]
    if usual not in offered or offered[usual].size_bytes > LARGE_BYTES:
        usual = f"{keep.clean_name(this.dataset or 'chat')[:68]}-corrected"
    options = [usual, *(name for name in offered if name != usual)]
    chosen = st.selectbox(
        t("playground.correction.dataset"),
        options,
        accept_new_options=True,
        format_func=lambda name: one_line(name, 80) if name in offered else t("playground.correction.new", name=name),
        help=t("playground.correction.dataset_help"),
        key=f"correct-to-{this.key}",
    )
    if chosen in offered:
        st.caption(f":material/history: {t('playground.correction.version', name=md(chosen, 80))}")
    return chosen


def _save(home: Home, name: str, this: Asked, right: str) -> None:
    made = Correction(this.messages, this.wrong, right, this.who, session.person())
    try:
        with st.spinner(t("playground.correction.saving")):
            saved = corrections.save(home, name.strip(), made)
    except FinetunerError as error:
        frame.show_error(error.message, error.hint)
    except OSError as error:
        frame.show_error(t("playground.correction.unwritten", why=error.strerror), t("playground.correction.disk"))
    else:
        if saved.how != "known":
            session.current().saved.append(saved.stored.reference)
        STATE["play-toast"] = t(f"playground.kept.{saved.how}", name=saved.stored.name)
        st.rerun()


def saved() -> None:
    """How many corrections this tab has saved, and what to do with them."""
    if says := STATE.pop("play-toast", None):
        st.toast(md(says), icon=":material/check_circle:")
    references = session.current().saved
    if not references:
        return
    newest = references[-1]
    name = newest.partition("@")[0]
    count = len([each for each in references if each.partition("@")[0] == name])
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        says = t("playground.correction.count", count=count, reference=md(newest, 100))
        st.markdown(f":green[:material/check_circle:] {says}", width="content")
        frame.link(frame.DATA, t("playground.correction.to_data"), icon=":material/dataset:", dataset=newest)
        frame.link(frame.TRAIN, t("playground.correction.to_train"), icon=":material/model_training:", data=name)


def of_row(
    prompt: str, who: str, wrong: str, reference: str | None, system: str, known: Mapping[str, Adapter]
) -> Asked:
    """Of a prompt of a batch."""
    return asked(chat.conversation([], who, prompt, system), who, wrong, reference, known)
