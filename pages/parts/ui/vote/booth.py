"""One pair at a time: the prompt, the answers as A and B, and what this person finds of them."""

import html
from collections.abc import Sequence

import streamlit as st

from pages.parts.escape import lines
from pages.parts.texts import t
from pages.parts.ui import frame
from pages.parts.ui.play import session
from pages.parts.vote.course import END, Course
from spool.protocol import votes
from spool.protocol.ballot import Ballot, Sample
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.votes import Votes

STATE = st.session_state
PROBLEM = "vote-problem"
LETTERS = ("A", "B")
LONG_CHARS, LONG_LINES = 1000, 14
TALL_PX = 340
"""Of a long prompt, and of both answers where one of them is long."""

ROLES = ("system", "user", "assistant")

CHOICES = {"a": "A", "good": "G", "neither": "N", "b": "B"}
"""What can be found of a pair, with its key."""


def show(home: Home, ballot: Ballot, who: str, kept: Votes) -> None:
    """The pair that this person is at, or the end."""
    course = _course(ballot, who, kept)
    pair = course.at(STATE.get(_place(ballot, who)))
    problem = STATE.pop(PROBLEM, None)
    if problem:
        frame.show_error(*problem)
    total = len(course.order)
    st.progress(len(course.voted) / total, text=t("vote.progress", done=len(course.voted), total=total))
    if pair == END:
        _end(home, ballot, who, course)
        return
    sample = ballot.samples[pair]
    sides = votes.placed(who, pair, ballot.sides)
    _prompt(sample)
    _answers([sample.answers[side].text for side in sides])
    own = kept.votes.get((who, pair))
    _choices(home, ballot, who, pair, sides, list(own.better) if own else None)
    if sample.expected:
        with st.expander(t("vote.expected"), icon=":material/fact_check:"):
            session.text(sample.expected)
    _around(home, ballot, who, course, pair)


def _course(ballot: Ballot, who: str, kept: Votes) -> Course:
    return Course(votes.ordered(who, ballot.samples), kept.by(who, ballot).keys())


def _place(ballot: Ballot, who: str) -> str:
    return f"vote-at-{ballot.job_id}-{who}"


def _prompt(sample: Sample) -> None:
    earlier, asked = sample.messages[:-1], sample.messages[-1]["content"] if sample.messages else sample.prompt
    with st.container(border=True, gap="xsmall"):
        for turn in earlier:
            st.caption(t(f"vote.role.{turn['role'] if turn['role'] in ROLES else 'user'}"))
            st.text(lines(turn["content"]))
        st.caption(t("vote.prompt") if sample.messages else t("vote.beginning"))
        if _long(asked):
            _scrolled(asked, "prompt")
        else:
            st.text(lines(asked))


def _answers(texts: Sequence[str]) -> None:
    long = any(map(_long, texts))
    for letter, text, column in zip(LETTERS, texts, st.columns(2, gap="medium"), strict=True):
        with column.container(border=True, height="stretch", gap="xsmall", key=f"vote-answer-{letter}"):
            st.markdown(f"#### {letter}")
            if not text.strip():
                st.caption(t("vote.silent"))
            elif long:
                _scrolled(text, letter)
            else:
                session.text(text)


def _scrolled(text: str, name: str) -> None:
    """Literally, in a box of its own, which the keyboard reaches and so scrolls."""
    with st.container(height=TALL_PX, border=False, key=f"vote-long-{name}"):
        look = 'tabindex="0" style="white-space: pre-wrap; font: inherit; margin: 0"'
        st.html(f"<pre {look}>{html.escape(lines(text))}</pre>")


def _long(text: str) -> bool:
    return len(text) > LONG_CHARS or text.count("\n") > LONG_LINES


def _choices(home: Home, ballot: Ballot, who: str, pair: str, sides: tuple[str, str], own: list[str] | None) -> None:
    """The four buttons. Their keys hold the pair: an impatient second click is the same vote, and none on the next."""
    better = {"a": [sides[0]], "good": list(sides), "neither": [], "b": [sides[1]]}
    for (name, shortcut), column in zip(CHOICES.items(), st.columns(4, gap="small"), strict=True):
        chosen = own is not None and sorted(own) == sorted(better[name])
        column.button(
            t(f"vote.choice.{name}"),
            key=f"vote-{name}-{pair}",
            on_click=_cast,
            args=(home, ballot, who, pair, better[name]),
            type="primary" if chosen else "secondary",
            icon=":material/check:" if chosen else None,
            shortcut=shortcut,
            width="stretch",
        )


def _cast(home: Home, ballot: Ballot, who: str, pair: str, better: list[str]) -> None:
    try:
        votes.cast(home, ballot, who, pair, better)
        kept = votes.read(home, ballot.job_id)
    except FinetunerError as error:
        STATE[PROBLEM] = (error.message, error.hint)
    except OSError as error:
        STATE[PROBLEM] = (t("vote.unwritten", why=error.strerror or error), t("vote.unwritten_hint"))
    else:
        STATE[_place(ballot, who)] = _course(ballot, who, kept).after(pair)


def _around(home: Home, ballot: Ballot, who: str, course: Course, pair: str) -> None:
    """Back, skip, and the way out."""
    before, after = course.before(pair), course.after(pair)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        with st.container(horizontal=True, width="content", gap="small"):
            _step(ballot, who, "back", before, ":material/arrow_back:", "Left")
            _step(ballot, who, "skip", after if after != pair else None, ":material/arrow_forward:", "Right")
        with st.popover(t("vote.result.early"), icon=":material/lock_open:"):
            st.markdown(t("vote.result.warning"))
            _close(home, ballot, who)


def _step(ballot: Ballot, who: str, name: str, to: str | None, icon: str, shortcut: str) -> None:
    def go() -> None:
        STATE[_place(ballot, who)] = to

    st.button(
        t(f"vote.{name}"), key=f"vote-{name}", on_click=go, disabled=to is None, icon=icon, type="tertiary",
        shortcut=shortcut,
    )  # fmt: skip


def _close(home: Home, ballot: Ballot, who: str) -> None:
    def go() -> None:
        try:
            votes.close(home, ballot.job_id, who)
        except FinetunerError as error:
            STATE[PROBLEM] = (error.message, error.hint)
        except OSError as error:
            STATE[PROBLEM] = (t("vote.unwritten", why=error.strerror or error), t("vote.unwritten_hint"))

    st.button(t("vote.result.show"), key="vote-result", on_click=go, type="primary", icon=":material/visibility:")


def _end(home: Home, ballot: Ballot, who: str, course: Course) -> None:
    """All have a vote, or the rest was skipped: the last look back before the names are told."""
    left = len(course.order) - len(course.voted)
    with st.container(border=True, horizontal_alignment="center", gap="small"):
        st.space("small")
        st.markdown(f"**{t('vote.end.left', count=left) if left else t('vote.end.all')}**", width="content")
        st.markdown(f":gray[{t('vote.end.says')}]", width="content", text_alignment="center")
        with st.container(horizontal=True, horizontal_alignment="center", gap="small"):
            _step(ballot, who, "again", course.order[0], ":material/arrow_back:", "Left")
            _close(home, ballot, who)
        st.space("small")
