"""The chat: questions with the answers of all models side by side, and the line in which one asks."""

from typing import Any

import streamlit as st

from pages.parts import quantities
from pages.parts.escape import lines, one_line
from pages.parts.play import chat, prompts
from pages.parts.play.chat import Answer, Choice, Settings, Turn
from pages.parts.texts import t
from pages.parts.ui import frame
from pages.parts.ui.play import correct, models, session
from pages.parts.ui.play.models import Adapter
from spool.protocol.home import Home

STATE = st.session_state
INPUT = "play-input"
STREAM_S = 0.4
LOOK_S = 2


class Talk:
    """What the parts of the chat need: who answers, what each is called, and how."""

    def __init__(self, home: Home, known: dict[str, Adapter], choice: Choice, told: Settings) -> None:
        self.home = home
        self.known = known
        self.choice = choice
        self.told = told
        self.names = models.names(known, choice)

    @property
    def name(self) -> str:
        """What the session's job is called in the queue."""
        return t("playground.session_name", models=", ".join(n for w, n in self.names.items()))

    def called(self, who: str) -> str:
        return self.names.get(who) or (self.choice.model if who == chat.BASE else models.label(self.known, who))

    def heading(self, who: str) -> str:
        adapters = [each for each in self.names if each != chat.BASE]
        return models.heading(who, self.called(who), adapters.index(who) if who in adapters else 0)

    def ask(self, prompt: str, reference: str | None = None) -> None:
        session.ask(self.home, self.choice, self.name, prompt, self.told, reference)


def menu(talk: Talk) -> None:
    """Clear and download, where there is something."""
    held = session.current()
    if not held.turns:
        return
    every = {who: talk.called(who) for turn in held.turns for who in turn.answers}
    st.download_button(
        t("playground.download"),
        lambda: chat.jsonl(held.turns, every),
        file_name="chat.jsonl",
        mime="application/jsonl",
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
        help=t("playground.download_help"),
    )
    st.button(
        t("playground.clear"), icon=":material/delete_sweep:", type="tertiary", on_click=_clear, args=(talk.home,)
    )


def _clear(home: Home) -> None:
    held = session.current()
    if held.live:
        session.stop(home, held.turns[-1])
    held.turns, held.editing, held.problem = [], None, None


def show(talk: Talk) -> None:
    """All turns so far; the last one streams."""
    held = session.current()
    if held.live:
        session.follow(talk.home, held.turns[-1:])
    if not held.turns:
        _begin(talk)
    for number, turn in enumerate(held.turns):
        last = number == len(held.turns) - 1
        _question(number, turn, held.live)
        if last and held.live:
            _streaming(talk, turn)
        else:
            _answers(talk, number, turn, last)
    if held.problem:
        frame.show_error(held.problem.message, held.problem.hint)


def _begin(talk: Talk) -> None:
    """Before the first question: some of the model's own rows to start with."""
    found = _suggested(talk.home, talk.choice)
    with st.container(horizontal_alignment="center", gap="small"):
        st.space("large")
        st.markdown(f":gray[{t('playground.begin')}]", width="content", text_alignment="center")
        for number, each in enumerate(found):
            st.button(
                one_line(each.prompt, 110),
                key=f"play-suggestion-{number}",
                icon=":material/north_east:",
                on_click=talk.ask,
                args=(each.prompt, each.reference),
            )
        if found:
            key = "unseen" if all(each.unseen for each in found) else "from_data"
            st.caption(t(f"playground.suggested_{key}"), width="content")


def _suggested(home: Home, choice: Choice) -> list[prompts.Suggestion]:
    return _read(str(home.root), choice.jobs[0]) if choice.jobs else []


@st.cache_data(max_entries=64, ttl=600, show_spinner=False)
def _read(root: str, job_id: str) -> list[prompts.Suggestion]:
    return prompts.suggestions(frame.home(), job_id)


def _question(number: int, turn: Turn, live: bool) -> None:
    row = st.chat_message("user", avatar=":material/person:").container(
        horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"
    )
    row.text(lines(turn.prompt), width="content")
    if not live:
        row.button(
            t("playground.edit"), key=f"play-edit-{number}", icon=":material/edit:", type="tertiary",
            on_click=_edit, args=(number,), help=t("playground.edit_help"),
        )  # fmt: skip


def _edit(number: int) -> None:
    held = session.current()
    held.editing = number
    STATE[INPUT] = held.turns[number].prompt


@st.fragment(run_every=STREAM_S)
def _streaming(talk: Talk, turn: Turn) -> None:
    """The last turn while it is answered; when all is said the page is drawn once more, and nothing is polled."""
    session.follow(talk.home, [turn])
    if not turn.live:
        st.rerun()
    _columns(talk, -1, turn)
    if st.button(t("playground.stop"), icon=":material/stop_circle:", key="play-stop"):
        session.stop(talk.home, turn)
        st.toast(t("playground.stopping"))


def _answers(talk: Talk, number: int, turn: Turn, last: bool) -> None:
    _columns(talk, number, turn)
    if turn.reference is not None:
        with st.container(gap="xxsmall"):
            st.caption(t("playground.reference"))
            session.text(turn.reference)
    if last:
        st.button(
            t("playground.again"), key="play-again", icon=":material/refresh:", type="tertiary",
            on_click=_again, args=(talk, turn),
        )  # fmt: skip


def _again(talk: Talk, turn: Turn) -> None:
    held = session.current()
    held.turns = held.turns[:-1]
    talk.ask(turn.prompt, turn.reference)
    if held.problem:
        held.turns.append(turn)


def _columns(talk: Talk, number: int, turn: Turn) -> None:
    for who, column in zip(turn.answers, st.columns(len(turn.answers), gap="medium"), strict=True):
        with column, st.container(gap="xsmall"):
            _answer(talk, number, turn, who, turn.answers[who])


def _answer(talk: Talk, number: int, turn: Turn, who: str, answer: Answer) -> None:
    st.markdown(talk.heading(who))
    if answer.text:
        session.text(answer.text)
    elif not answer.done:
        st.skeleton(height=48)
    if answer.error:
        frame.show_error(str(answer.error.get("message") or ""), str(answer.error.get("hint") or ""))
    if not answer.done:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption(_facts(turn, answer), width="content")
        if number >= 0 and answer.usable and st.button(
            t("playground.correct"), key=f"play-correct-{number}-{who}", icon=":material/edit_note:",
            type="tertiary", help=t("playground.correct_help"),
        ):  # fmt: skip
            before = session.current().turns[:number] if turn.settings.memory else []
            asked = chat.conversation(before, who, turn.prompt, turn.settings.system)
            correct.dialog(talk.home, correct.asked(asked, who, answer.text, turn.reference, talk.known))


def _facts(turn: Turn, answer: Answer) -> str:
    """How long, how fast, and what ended it, where that is not the end of the answer."""
    said = []
    if answer.tokens is not None:
        said.append(t("playground.tokens", count=answer.tokens))
    if answer.seconds is not None:
        said.append(
            t(
                "playground.seconds",
                seconds=quantities.count(answer.seconds) if answer.seconds >= 10 else f"{answer.seconds:.1f}",
            )
        )
    if turn.agree:
        said.append(t("playground.agree"))
    if answer.ended_by == "length":
        said.append(f":orange[:material/content_cut: {t('playground.cut', count=turn.settings.max_new_tokens)}]")
    elif answer.ended_by in ("cancelled", "lost"):
        said.append(f":orange[:material/stop_circle: {t(f'playground.broken.{answer.ended_by}')}]")
    elif answer.done and not answer.text.strip() and not answer.error:
        said.append(t("playground.empty_answer"))
    return " · ".join(said)


def line(talk: Talk) -> None:
    """What stays at the foot of the page: how the session stands, and the line in which one asks."""
    held = session.current()
    state = session.look(talk.home, talk.choice)
    with st.bottom:
        if held.editing is not None:
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.caption(f":material/edit: {t('playground.editing', number=held.editing + 1)}", width="content")
                st.button(t("playground.edit_cancel"), key="play-edit-cancel", type="tertiary", on_click=_keep)
        elif state.open:
            st.fragment(_standing, run_every=LOOK_S)(talk, state.kind)
        else:
            _standing(talk, state.kind)
    st.chat_input(
        t("playground.ask", count=len(talk.choice.who)), key=INPUT, max_chars=chat.LONGEST_PROMPT, disabled=held.live,
        on_submit=_submit, args=(talk,),
    )  # fmt: skip


def _keep() -> None:
    session.current().editing = None
    STATE[INPUT] = ""


def _submit(talk: Talk) -> None:
    held = session.current()
    prompt = str(STATE.get(INPUT) or "")
    later: list[Turn] = []
    if held.editing is not None:
        held.turns, later = held.turns[: held.editing], held.turns[held.editing :]
    before = len(held.turns)
    talk.ask(prompt)
    if len(held.turns) == before:
        held.turns += later  # it could not be asked: nothing is thrown away
    held.editing = None


def _standing(talk: Talk, drawn: str) -> None:
    """One line: what the session does, and the one click that helps."""
    state = session.look(talk.home, talk.choice)
    if state.open != (drawn in ("waits", "starting", "ready")):
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption(state.told, width="content")
        if state.kind == "waits":
            frame.link(frame.QUEUE, t("playground.to_queue"), icon=":material/list_alt:")
        elif state.kind in ("closed", "ended", "failed"):
            text = t("playground.load") if state.kind == "closed" else t("playground.reopen")
            st.button(text, key="play-open", type="tertiary", icon=":material/bolt:", on_click=_open, args=(talk,))
        if state.kind == "failed":
            job_id: Any = session.current().session
            frame.link(frame.MONITOR, t("playground.to_log"), icon=":material/article:", job=job_id)
        if state.open and session.current().own:
            st.button(
                t("playground.close"),
                key="play-close",
                type="tertiary",
                on_click=session.leave,
                args=(talk.home,),
                help=t("playground.close_help"),
            )


def _open(talk: Talk) -> None:
    held = session.current()
    try:
        session.open_for(talk.home, talk.choice, talk.name)
    except OSError as error:
        held.problem = session.unwritten(error)
