"""What an interactive job is asked, and what jobs of kind generate answer: spool/asks/ and runs/ID/answers.jsonl.

An ask is spool/asks/JOBID-ASKID.json, written as a whole: `{"v": 1, "messages": [{"role", "content"} ...], "who":
["base", JOBID ...]}` and the fields of `spec.Sampling`. An empty file JOBID-ASKID.stop ends its answers early. The
job's child takes the files away as it answers them, the runner those of jobs that have ended.

Rows of answers.jsonl, each one write(2), all with `v` and `t` (UTC epoch s):
- of a session, when it can be asked: `ready` (true), `who`
- while it answers, ten times a second at most: `ask`, `who`, `delta` (text that is new)
- at the end of an answer: `ask`, `who`, `done` (true), `text`, `tokens`, `seconds`, `ended_by` (stop: by itself;
  length: cut at max_new_tokens; cancelled)
- of an ask that cannot be answered: `ask`, `error` (code, message, hint)
- of a list of prompts: `ask` (its place in the list, from 0), `who`, `prompt`, `reference`, `text`, `tokens`,
  `seconds`, `ended_by`
"""

import os
import re
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from spool.protocol import dropbox, durable, jobs, metrics
from spool.protocol.errors import FinetunerError, Problem, SpecError
from spool.protocol.home import Home
from spool.protocol.parse import parse_spec
from spool.protocol.spec import GenerateSpec, Sampling, Ulid
from spool.protocol.states import Tokens, is_final
from spool.protocol.strict import MAX_BYTES, parse_json
from spool.protocol.training import Group
from spool.protocol.ulid import is_ulid, mint

MAX_MESSAGES = 64
MAX_CONTENT = 65_536
MAX_WHO = 6
UNKNOWN_S = 3600.0
"""What nobody knows a job for is left for so long: its drop may not be taken yet."""

_NAME = re.compile(r"([0-7][0-9A-HJKMNP-TV-Z]{25})-([0-7][0-9A-HJKMNP-TV-Z]{25})\.(json|stop)")


class Message(Group):
    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(min_length=1, max_length=MAX_CONTENT)]


class Ask(Sampling):
    """One question with the conversation before it, and who answers."""

    v: Literal[1] = 1
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    who: Annotated[list[Literal["base"] | Ulid], Field(min_length=1, max_length=MAX_WHO)]

    @property
    def turns(self) -> list[dict[str, Any]]:
        """The conversation as chat templates take it."""
        return [message.model_dump() for message in self.messages]


# What pages call


def open_session(home: Home, spec: Mapping[str, Any]) -> str:
    """Drops an interactive job and gives its id; it can be asked at once, and answers when it has started.

    Args:
        spec: what differs from the defaults of kind generate: `job` or `model`, perhaps `also`, `idle_minutes` ...

    Raises:
        SpecError: with every problem; nothing is dropped.
    """
    whole = {"schema": 1, "kind": "generate", "interactive": True, **spec}
    checked = parse_spec(durable.to_bytes(whole))
    if not isinstance(checked, GenerateSpec) or not checked.interactive:
        raise SpecError([Problem("bad_value", "this is no interactive job.", "", "/interactive")])
    return dropbox.submit(home, whole)


def ask(
    home: Home, job_id: str, messages: Sequence[Mapping[str, str]], who: Sequence[str], **sampling: int | float
) -> str:
    """Asks a session and gives the ask's id; what is answered stands in `Answers`.

    Args:
        messages: `role` (system, first only; then user and assistant by turns, a user's last) and `content`.
        who: "base" and ids of trainings that the session holds.
        sampling: fields of `spec.Sampling`.

    Raises:
        SpecError: something does not fit; nothing was asked.
        NotFound: there is no such job.
        FinetunerError: the session has ended.
    """
    document = {"v": 1, "messages": [dict(each) for each in messages], "who": list(who), **sampling}
    data = durable.to_bytes(document)
    parse_ask(data)
    job = jobs.get_job(home, job_id)
    if job.ended:
        raise FinetunerError(f"the session {job_id} has ended.", "Open a new one.", "session_ended")
    home.create()
    ask_id = mint()
    durable.write_atomic(_path(home, job_id, ask_id, "json"), data)
    return ask_id


def stop(home: Home, job_id: str, ask_id: str) -> None:
    """Ends the answers to one ask: what was said so far stays."""
    if is_ulid(job_id) and is_ulid(ask_id):
        _path(home, job_id, ask_id, "stop").touch()


@dataclass
class Answer:
    """What one of those asked has said so far. `ask` is an ask's id, or a prompt's place in the list."""

    ask: str | int
    who: str
    text: str = ""
    done: bool = False
    tokens: int | None = None
    seconds: float | None = None
    ended_by: str | None = None
    prompt: str | None = None
    reference: str | None = None


class Answers:
    """Follows a job's answers.jsonl: each `read` takes in what has come since the one before, and nothing twice."""

    def __init__(self, home: Home, job_id: str) -> None:
        self._reader = metrics.Reader(home.run(job_id).answers)
        self._clear()

    def _clear(self) -> None:
        self.ready = False
        """A session can be asked and has not ended, as far as its child has said."""
        self.who: list[str] = []
        self.by_ask: dict[str | int, dict[str, Answer]] = {}
        """ask -> who -> answer, in the order in which they came."""
        self.errors: dict[str, dict[str, Any]] = {}
        """ask -> why it was not answered: code, message, hint."""

    def read(self) -> bool:
        """Takes in what is new; True where anything was."""
        rows = self._reader.read_new()
        if self._reader.restarted:
            self._clear()
        for row in rows:
            self._take(row)
        return bool(rows) or self._reader.restarted

    def of(self, ask_id: str | int) -> list[Answer]:
        """What was answered to one ask, by each."""
        return list(self.by_ask.get(ask_id, {}).values())

    def finished(self, ask_id: str | int, who: Sequence[str]) -> bool:
        """Whether all of `who` have ended their answer, or the ask was refused."""
        answers = self.by_ask.get(ask_id, {})
        return ask_id in self.errors or all(name in answers and answers[name].done for name in who)

    def _take(self, row: dict[str, Any]) -> None:
        if row.get("ready"):
            self.ready, self.who = True, list(row.get("who") or [])
            return
        asked, who = row.get("ask"), row.get("who")
        if not isinstance(asked, str | int):
            return
        if isinstance(row.get("error"), dict):
            self.errors[str(asked)] = row["error"]
            return
        if not isinstance(who, str):
            return
        answer = self.by_ask.setdefault(asked, {}).setdefault(who, Answer(asked, who))
        if "delta" in row:
            answer.text += str(row["delta"])
            return
        answer.text, answer.done = str(row.get("text") or ""), True
        for name in ("tokens", "seconds", "ended_by", "prompt", "reference"):
            setattr(answer, name, row.get(name))


# What the job's child and the runner call


def parse_ask(data: bytes) -> Ask:
    """The ask in these bytes, whoever wrote them.

    Raises:
        SpecError: with every problem.
    """
    if len(data) > MAX_BYTES:
        message = f"the question and what was said before have {len(data):,} bytes; at most {MAX_BYTES:,} fit."
        raise SpecError([Problem("too_large", message, "Begin a new conversation.")])
    document, _ = parse_json(data, MAX_CONTENT)
    try:
        asked = Ask.model_validate(document)
    except ValidationError as error:
        raise SpecError([_problem(each) for each in error.errors(include_url=False)[:20]]) from None
    problems = _turns(asked)
    if len(set(asked.who)) < len(asked.who):
        problems.append(Problem("bad_value", "somebody is asked twice.", "Name each once.", "/who"))
    if problems:
        raise SpecError(problems)
    return asked


def _problem(error: Any) -> Problem:
    pointer = "".join(f"/{part}" for part in error["loc"])
    return Problem("bad_ask", f"{error['msg'].lower()}.", "", pointer)


def _turns(asked: Ask) -> list[Problem]:
    """Chat templates take a system turn first, then users and assistants by turns."""
    roles = [message.role for message in asked.messages]
    first = 1 if roles[0] == "system" else 0
    fits = all(role == ("assistant" if i % 2 else "user") for i, role in enumerate(roles[first:]))
    if fits and roles[-1] == "user":
        return []
    hint = "One system message at most, first; then user and assistant by turns, and a user's last."
    return [Problem("bad_turns", "the messages are not in the order of a conversation.", hint, "/messages")]


def pending(home: Home, job_id: str) -> list[str]:
    """The ids of what a session was asked and has not taken, oldest first."""
    return sorted(ask_id for job, ask_id, kind in _listed(home) if job == job_id and kind == "json")


def take(home: Home, job_id: str, ask_id: str) -> Ask:
    """Reads an ask and takes its file away.

    Raises:
        SpecError: it is none; its file is gone too.
        FileNotFoundError: somebody took it away.
    """
    path = _path(home, job_id, ask_id, "json")
    try:
        data = _read(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        path.unlink(missing_ok=True)
        raise SpecError([Problem("not_readable", f"the question cannot be read: {error.strerror}.")]) from None
    path.unlink(missing_ok=True)
    return parse_ask(data)


def stopped(home: Home, job_id: str, ask_id: str) -> bool:
    """Whether somebody wants an ask's answers to end."""
    return os.path.lexists(_path(home, job_id, ask_id, "stop"))


def forget(home: Home, job_id: str, ask_id: str) -> None:
    """Takes away what is left of an ask that was answered."""
    for kind in ("json", "stop"):
        _path(home, job_id, ask_id, kind).unlink(missing_ok=True)


def sweep(home: Home, clock: float | None = None) -> int:
    """Removes what jobs were asked that have ended, and what belongs to none; gives how many files that were."""
    now = time.time() if clock is None else clock
    entries = _entries(home)
    named = {entry.name: match[1] for entry in entries if (match := _NAME.fullmatch(entry.name))}
    stands = {job_id: Tokens(home).find(job_id) for job_id in set(named.values())}
    gone = 0
    for entry in entries:
        found = stands.get(named.get(entry.name, ""))
        if found and not is_final(found[0]):
            continue
        try:
            if found or now - entry.stat(follow_symlinks=False).st_mtime > UNKNOWN_S:
                os.unlink(entry.path)
                gone += 1
        except OSError:  # it is gone, or a folder that somebody put there
            continue
    return gone


def is_session(home: Home, job_id: str) -> bool:
    """Whether an accepted job is an interactive one."""
    try:
        spec = durable.read_json(home.run(job_id).spec)
    except (OSError, ValueError):
        return False
    return isinstance(spec, dict) and spec.get("kind") == "generate" and spec.get("interactive") is True


def write_row(path: Path, **values: Any) -> None:
    """Appends a row to answers.jsonl, or to another file of rows that is read in the same way."""
    durable.append_line(path, metrics.finite({"v": 1, "t": round(time.time(), 3), **values}))


def _path(home: Home, job_id: str, ask_id: str, kind: str) -> Path:
    if not (is_ulid(job_id) and is_ulid(ask_id)):
        raise FinetunerError("there is no such question.", "Ask it again.", "not_found")
    return home.asks / f"{job_id}-{ask_id}.{kind}"


def _listed(home: Home) -> list[tuple[str, str, str]]:
    """(job, ask, json or stop) of what lies in the folder."""
    matches = (_NAME.fullmatch(entry.name) for entry in _entries(home))
    return [(match[1], match[2], match[3]) for match in matches if match]


def _entries(home: Home) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(home.asks) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _read(path: Path) -> bytes:
    """The bytes of a regular file: what lies there may be a pipe that never answers, a link, gigabytes."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, "it is no regular file")
        data = b""
        while len(data) <= MAX_BYTES and (more := os.read(fd, MAX_BYTES + 1)):
            data += more
        return data
    finally:
        os.close(fd)
