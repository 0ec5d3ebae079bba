"""Makes a data home whole again that was copied while a runner worked in it: a backup, restored anywhere.

A copy is no single moment: a token that moves while its folders are copied is missed, or seen twice. What lies under
runs/ID decides then, since whatever is listed there was whole when it was listed:

- Two tokens of one job: the one in a final state counts, else the furthest (running, held, checking, queued).
- A run folder without a token: outcome.json says how the job ended; else it goes on from where its folder says.
- A token in a final state without outcome.json: the end is not in the copy, so the job goes on.
- A waiting token without a spec: the job was accepted while the copy was made; it ends as failed and says so.
- A drop that is a job already (a copy only: the same name and bytes) is that job.

In a home that is no copy all this finds nothing.
"""

import hashlib
import logging
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from runner.accept import LITTER
from runner.taking import read_regular
from spool.protocol import durable, parse
from spool.protocol.home import Home, Run, State
from spool.protocol.jobs import attempt_files, iso, now_iso
from spool.protocol.states import Token, Tokens, is_final
from spool.protocol.ulid import ALPHABET, is_ulid

log = logging.getLogger("runner")

FURTHEST = (State.RUNNING, State.HELD, State.CHECKING, State.QUEUED)
LOST = {
    "code": "not_in_copy",
    "message": "this data home is a copy, and the job was accepted while the copy was made: its spec is not in it.",
    "hint": "Submit it again.",
}


def heal(home: Home) -> int:
    """Puts right what a copy broke, before anything is taken or started; gives the number of corrections."""
    copied = _is_copy(home)
    tokens: dict[str, list[tuple[State, Token]]] = defaultdict(list)
    for state in State:
        for token in Tokens(home).list(state):
            tokens[token.job_id].append((state, token))
    taken = {path.stem for path in home.accepting.glob("*.json")}
    corrections = sum(_of_several(home, found) for found in tokens.values() if len(found) > 1)
    corrections += sum(_of_one(home, *found[0]) for job_id, found in tokens.items() if job_id not in taken)
    for job_id in sorted(filter(is_ulid, os.listdir(home.runs))):
        if job_id not in tokens:
            corrections += _without(home, job_id, job_id in taken)
    if copied:
        corrections += _dropped_again(home) + _claimed_by_nobody(home)
        _settle(home)
    if corrections:
        log.warning("the data home is a copy that was made while a runner worked: %d corrections", corrections)
    return corrections


def _of_several(home: Home, found: list[tuple[State, Token]]) -> int:
    """Leaves one token of a job, first in `found`."""
    ended = _ended_as(home.run(found[0][1].job_id))
    order = [*([ended] if ended else []), *FURTHEST, State.DONE, State.FAILED, State.CANCELLED]
    found.sort(key=lambda each: (order.index(each[0]), each[1]))
    for state, token in found[1:]:
        log.warning("%s stood in %s and in %s: it is %s", token.job_id, found[0][0], state, found[0][0])
        Tokens(home).path(state, token).unlink()
    durable.sync(*{home.state(state) for state, _ in found})
    return len(found) - 1


def _of_one(home: Home, state: State, token: Token) -> int:
    run = home.run(token.job_id)
    if is_final(state):
        if run.outcome.exists() or not run.spec.exists():
            return 0
        goes_on = _goes_on_in(home, token.job_id)
        log.warning("%s is %s, but its end is not in this copy: it is %s again", token.job_id, state, goes_on)
        durable.move(Tokens(home).path(state, token), Tokens(home).path(goes_on, token))
        return 1
    if run.spec.exists():
        return 0
    log.warning("%s: %s", token.job_id, LOST["message"])
    run.root.mkdir(exist_ok=True)
    durable.write_json(run.outcome, {"state": State.FAILED.value, "ended_at": now_iso(), "error": LOST})
    durable.move(Tokens(home).path(state, token), Tokens(home).path(State.FAILED, token))
    return 1


def _without(home: Home, job_id: str, taken: bool) -> int:
    """A run folder without a token. What was just taken and has got no further the intake finishes by itself."""
    run = home.run(job_id)
    further = run.outcome.exists() or run.checked.exists() or bool(attempt_files(home, job_id))
    if not run.spec.exists() or (taken and not further) or (home.rejected / job_id / "reason.json").exists():
        return 0
    spec = _read(run.spec)
    state = _ended_as(run) or _goes_on_in(home, job_id)
    token = Token(int(spec.get("priority", 5)), _place(home, job_id), job_id)
    body = {name: spec.get(name) for name in ("name", "kind", "model", "dataset", "retry_of")}
    digest = hashlib.sha256(run.spec_orig.read_bytes()).hexdigest() if run.spec_orig.exists() else None
    unknown = {
        "submitted_by": spec.get("submitted_by"),
        "account": None,
        "uid": None,
        "dropped_name": None,
        "spec_sha256": digest,
    }
    log.warning("%s had no token: it is %s", job_id, state)
    Tokens(home).create(state, token, {"id": job_id, **body, "submitted_at": iso(_minted_s(job_id)), **unknown})
    durable.sync(home.tmp, home.state(state))
    (home.accepting / f"{job_id}.json").unlink(missing_ok=True)
    return 1


def _ended_as(run: Run) -> State | None:
    try:
        state = State(_read(run.outcome).get("state", ""))
    except ValueError:
        return None
    return state if is_final(state) else None


def _goes_on_in(home: Home, job_id: str) -> State:
    """A job that was tried is concluded like one whose runner died; any other is passed on by its check's word."""
    return State.RUNNING if attempt_files(home, job_id) else State.CHECKING


def _place(home: Home, job_id: str) -> int:
    """A sequence number that puts a job before those that were submitted after it."""
    waiting = [token for state in (State.CHECKING, State.QUEUED) for token in Tokens(home).list(state)]
    later = [token.sequence for token in waiting if token.job_id > job_id]
    return min(later) if later else Tokens(home).last_sequence() + 1


def _minted_s(job_id: str) -> float:
    """The time in a ULID, in seconds since the epoch."""
    milliseconds = 0
    for letter in job_id[:10]:
        milliseconds = milliseconds * 32 + ALPHABET.index(letter)
    return milliseconds / 1000


def _dropped_again(home: Home) -> int:
    """Drops that the copy holds twice: where they lay, and as the jobs that they became."""
    drops = [path for path in home.incoming.iterdir() if not LITTER.fullmatch(path.name)]
    if not drops:
        return 0
    by_name: dict[str, list[str]] = defaultdict(list)
    for state in State:
        for token in Tokens(home).list(state):
            by_name[str(Tokens(home).body(state, token).get("dropped_name"))].append(token.job_id)
    nameless = by_name["None"]  # their tokens were made anew from their run folders
    taken = list(home.accepting.glob("*.json"))
    gone = 0
    for path in drops:
        name = os.fsencode(path.name).decode("utf-8", "backslashreplace")
        known = [*by_name[name], *nameless, path.stem]
        same = [*taken, *(home.run(job_id).spec_orig for job_id in known if is_ulid(job_id))]
        same += [home.rejected / path.stem / "dropped.json"] if is_ulid(path.stem) else []
        if _is_one_of(path, same):
            log.warning("%r in incoming/ is a job already: the copy was made while it was taken", path.name)
            path.unlink()
            gone += 1
    return gone


def _is_one_of(path: Path, others: list[Path]) -> bool:
    try:
        data = read_regular(path)
        return len(data) <= parse.MAX_BYTES and any(other.exists() and other.read_bytes() == data for other in others)
    except OSError:
        return False  # the intake says what is wrong with it


def _claimed_by_nobody(home: Home) -> int:
    """Marks of a submission_id whose job is not in the copy: it may be submitted again."""
    gone = 0
    for marker in home.submissions.iterdir():
        job_id = marker.read_text(errors="replace").strip()
        if not is_ulid(job_id) or not any(
            place.exists()
            for place in (
                home.run(job_id).root,
                home.rejected / job_id,
                home.accepting / f"{job_id}.json",
                home.incoming / f"{job_id}.json",
            )
        ):
            marker.unlink()
            gone += 1
    return gone


def _is_copy(home: Home) -> bool:
    """Whether these files were made by copying: no copy has the inode and the change time of what it was made from."""
    return _read(home.states / "origin.json") != _identity(home)


def _settle(home: Home) -> None:
    durable.write_new(home.states / "origin", b"Tells a copy of this data home from the original: leave it as it is.\n")
    durable.write_json(home.states / "origin.json", _identity(home))


def _identity(home: Home) -> dict[str, int] | None:
    try:
        info = (home.states / "origin").stat()
    except FileNotFoundError:
        return None
    return {"inode": info.st_ino, "changed_ns": info.st_ctime_ns}


def _read(path: Path) -> dict[str, Any]:
    try:
        document = durable.read_json(path)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
