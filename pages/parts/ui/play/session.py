"""The session behind a chat in this browser tab: opened as a job, asked, stopped, followed, and left."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from inspect import cleandoc
from typing import Any

import streamlit as st

from pages.parts import alive, words
from pages.parts.escape import lines
from pages.parts.play import chat, standing
from pages.parts.play.chat import Answer, Choice, Settings, Turn
from pages.parts.play.standing import Around, Standing
from pages.parts.texts import t
from pages.parts.ui import frame
from spool.forecast.queue import spans
from spool.protocol import asks, dropbox, durable
from spool.protocol.asks import Answers
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.jobs import Job, get_job
from spool.protocol.ulid import mint

STATE = st.session_state
KEY = "play-chat"
MOST_SHARED = 20
"""Open chats that are looked at for one to share."""


@dataclass
class Chat:
    """What this tab remembers: the turns, and the job that answers them."""

    turns: list[Turn] = field(default_factory=list)
    session: str = ""
    own: bool = False
    """Whether this tab opened the session; else somebody else did, for the same models."""
    saved: list[str] = field(default_factory=list)
    """Where corrections went: a dataset's reference each."""
    editing: int | None = None
    """The turn whose question is being written anew."""
    problem: FinetunerError | None = None
    followers: dict[str, Answers] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        return bool(self.turns) and self.turns[-1].live


def current() -> Chat:
    return STATE.setdefault(KEY, Chat())


def job_of(home: Home, session: str) -> Job | None:
    try:
        return get_job(home, session) if session else None
    except FinetunerError:
        return None


def spec_of(home: Home, job_id: str) -> dict[str, Any]:
    """The spec of a job, also where the runner has not taken it yet; empty where there is none."""
    for path in (home.run(job_id).spec, home.incoming / f"{job_id}.json", home.accepting / f"{job_id}.json"):
        try:
            document = durable.read_json(path)
        except (OSError, ValueError):
            continue
        if isinstance(document, dict):
            return document
    return {}


def around(home: Home, job: Job) -> Around:
    """What else goes on; when the card is expected to be free only for who waits for it."""
    others = [each for each in frame.jobs() if each.state in ("running", "queued", "checking") and each.id != job.id]
    running = next((each for each in others if each.state == "running"), None)
    told = Around(running, len(others) - bool(running), alive.look(home), frame.now(), frame.zone())
    if job.state in ("queued", "checking") and others:
        ends = {each: span.end for each, span in spans(home, others, told.now).items()}
        told = replace(told, until=ends.get(running.id) if running else None)
        if None not in ends.values():
            told = replace(told, free=max(end for end in ends.values() if end))
    return told


def look(home: Home, choice: Choice) -> Standing:
    """How the session stands that would answer this choice."""
    held = current()
    job = job_of(home, held.session)
    if job is None or not choice.served_by(spec_of(home, job.id)):
        return standing.closed(choice.model)
    return of_job(home, job)


def of_job(home: Home, job: Job) -> Standing:
    """How a job of kind `generate` stands, a chat or a batch."""
    return standing.standing(job, around(home, job), answers(home, job.id).ready, chat.IDLE_MINUTES)


def answers(home: Home, session: str) -> Answers:
    """This tab's reader of a session's answers; one is kept, as they may be long."""
    held = current()
    if session not in held.followers:
        held.followers = {session: Answers(home, session)}
    held.followers[session].read()
    return held.followers[session]


def open_for(home: Home, choice: Choice, name: str) -> str:
    """The session for a choice: the one at hand, one that somebody has open for the same models, or a new job.

    Raises:
        FinetunerError, OSError: it could not be dropped.
    """
    held = current()
    job = job_of(home, held.session)
    if job is not None and not job.ended:
        if choice.served_by(spec_of(home, job.id)):
            return job.id
        leave(home)
    shared = _shared(home, choice)
    held.session, held.own = shared or mint(), not shared
    if not shared:
        spec = {"schema": 1, "kind": "generate", "interactive": True, "name": name[:120], **choice.subject}
        spec |= {"idle_minutes": chat.IDLE_MINUTES, "submission_id": held.session}
        dropbox.submit(home, spec, held.session)
    return held.session


def _shared(home: Home, choice: Choice) -> str:
    """An open chat of the same models: the card holds one at a time, so a second one would only wait for the first."""
    frame.roster().stale()
    open_ones = [job for job in frame.jobs() if job.kind == "generate" and not job.ended and job.state != "held"]
    for job in open_ones[:MOST_SHARED]:
        spec = spec_of(home, job.id)
        if spec.get("interactive") and choice.served_by(spec):
            return job.id
    return ""


def leave(home: Home) -> None:
    """Ends the session where this tab opened it; others who share it can open it again with one click."""
    held = current()
    if held.own and held.session:
        try:
            dropbox.cancel(home, held.session)
        except (FinetunerError, OSError):
            pass  # it has ended, which was the wish
    held.session, held.own = "", False


def ask(home: Home, choice: Choice, name: str, prompt: str, told: Settings, reference: str | None = None) -> None:
    """Puts a question to all models of the choice, each with its own answers so far."""
    held = current()
    held.problem = None
    turn = Turn(prompt.strip()[: chat.LONGEST_PROMPT], told, reference)
    if not turn.prompt or held.live:
        return
    try:
        session = open_for(home, choice, name)
        before = held.turns if told.memory else []
        for messages, who in chat.asked_alike(before, choice.who, turn.prompt, told.system):
            number = asks.ask(home, session, messages, who, **told.sampling)
            turn.answers |= {each: Answer(session, number) for each in who}
        turn.answers = {who: turn.answers[who] for who in choice.who}
    except FinetunerError as error:
        held.problem = error
        return
    except OSError as error:
        held.problem = unwritten(error)
        return
    held.turns.append(turn)


def stop(home: Home, turn: Turn) -> None:
    """Stops every answer that is not complete."""
    for session, number in {(answer.session, answer.ask) for answer in turn.answers.values() if not answer.done}:
        asks.stop(home, session, number)


def follow(home: Home, turns: Sequence[Turn]) -> None:
    """Brings the answers of the last turn up to date; what a session that has ended did not answer is lost."""
    for turn in turns:
        ended: dict[str, bool] = {}
        for who, answer in turn.answers.items():
            if answer.done:
                continue
            if answer.session not in ended:
                job = job_of(home, answer.session)  # looked at before its answers: it may write some and end
                ended[answer.session] = job is None or job.ended
            _fill(answer, who, answers(home, answer.session))
            if not answer.done and ended[answer.session]:
                answer.done, answer.ended_by = True, "lost"


def _fill(answer: Answer, who: str, told: Answers) -> None:
    found = told.by_ask.get(answer.ask, {}).get(who)
    if found is not None:
        answer.text, answer.done = found.text, found.done
        answer.tokens, answer.seconds, answer.ended_by = found.tokens, found.seconds, found.ended_by or ""
    error = told.errors.get(answer.ask)
    if error is not None and error.get("code") == "session_ended":
        answer.done, answer.ended_by = True, "lost"
    elif error is not None:
        answer.error, answer.done = error, True


def text(said: str) -> None:
    """Literally, whatever a model writes: no link, image or formula comes of it."""
    shown = lines(said)
    if said.lstrip()[:1] in ("{", "["):
        st.code(shown, language="json", wrap_lines=True)
    elif cleandoc(shown).strip() != shown.expandtabs().strip():  # else st.text takes away what indents a piece of code
        st.code(shown, language=None, wrap_lines=True)
    else:
        st.text(shown)


def unwritten(error: OSError) -> FinetunerError:
    """What to say where the spool cannot be written."""
    return FinetunerError(t("playground.unwritten", why=error.strerror), t("playground.unwritten_hint"), "disk")


def person() -> str:
    """Who is signed in; empty where nobody has to."""
    return frame.user() or ""


def phase(job: Job) -> str:
    """What a running job does, in words."""
    return words.phase(job.phase) if job.phase else t("playground.state.begins")
