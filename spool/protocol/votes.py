"""Blind votes on pairs of answers: HOME/votes/ID.json of a job, written whole and under a lock.

`{"v": 1, "votes": [{"sample", "who", "better", "at"}], "closed": [{"who", "at"}]}`. There is one vote a person and
sample; `sample` is the hash of what was read (ballot.py), so that a report made anew inherits none. `better` names the
sides that were found good: one won, both or none of them is a tie. Which side stood on the left is not kept: it follows
from person and sample. Who has seen the result is `closed` and votes no more, for those votes would not be blind.

A file that cannot be read is put aside as ID.damaged-TIME.json at the next vote, and said for as long as it lies there.
"""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import Field, ValidationError

from spool.protocol import durable, jobs
from spool.protocol.ballot import Ballot
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.jobs import now_iso
from spool.protocol.process import locked
from spool.protocol.training import Group
from spool.protocol.ulid import is_ulid

LONGEST_WHO = 200
MOST_VOTES = 10_000
FILE_BYTES = 8 * 1024 * 1024

Who = Annotated[str, Field(max_length=LONGEST_WHO)]
"""Who is signed in, or a name that somebody gave; empty for somebody on this machine."""


class Vote(Group):
    """What one person found of one pair."""

    sample: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    who: Who
    better: Annotated[list[str], Field(max_length=2)]
    at: str


class Closed(Group):
    """Who has seen the result."""

    who: Who
    at: str


class _File(Group):
    v: Literal[1] = 1
    votes: Annotated[tuple[Vote, ...], Field(max_length=MOST_VOTES, strict=False)] = ()
    closed: Annotated[tuple[Closed, ...], Field(max_length=MOST_VOTES, strict=False)] = ()


@dataclass(frozen=True)
class Votes:
    """All votes on one job's answers, those on answers of an earlier report too."""

    votes: Mapping[tuple[str, str], Vote] = field(default_factory=dict)
    """(who, sample) -> vote."""
    closed: Mapping[str, str] = field(default_factory=dict)
    """Who has seen the result -> when (UTC, ISO 8601)."""
    damaged: tuple[str, ...] = ()
    """Names of files under votes/ that cannot be read."""

    def on(self, ballot: Ballot) -> list[Vote]:
        """Those on the answers of this ballot."""
        return [vote for vote in self.votes.values() if vote.sample in ballot.samples]

    def by(self, who: str, ballot: Ballot) -> dict[str, Vote]:
        """What one person has voted, by sample."""
        return {vote.sample: vote for vote in self.on(ballot) if vote.who == who}


def read(home: Home, job_id: str) -> Votes:
    """The votes of a job; none where nobody has voted.

    Raises:
        OSError: the file is there and may not be read.
    """
    if not is_ulid(job_id):
        return Votes()
    aside = tuple(sorted(path.name for path in home.votes.glob(f"{job_id}.damaged-*")))
    path = _path(home, job_id)
    try:
        found = _read(path)
    except ValueError:
        return Votes(damaged=(path.name, *aside))
    votes = {(vote.who, vote.sample): vote for vote in found.votes}
    return Votes(votes, {each.who: each.at for each in found.closed}, aside)


def cast(home: Home, ballot: Ballot, who: str, sample: str, better: Sequence[str]) -> None:
    """Keeps a vote in the place of the one that this person has given on this pair.

    Args:
        better: the side that won; both where both are good, none where both are bad.

    Raises:
        NotFound: there is no such job.
        FinetunerError: the person has seen the result, there is no such pair or side, or there are too many votes.
        OSError: the disk.
    """
    if sample not in ballot.samples or not set(better) <= set(ballot.sides):
        raise FinetunerError("there is no such pair of answers.", "Open the page again.", "no_such_sample")
    vote = Vote(sample=sample, who=_who(who), better=[s for s in ballot.sides if s in better], at=now_iso())

    def change(kept: _File) -> _File:
        if any(each.who == vote.who for each in kept.closed):
            hint = "Your earlier votes count."
            raise FinetunerError("you have seen the result: a vote would not be blind any more.", hint, "ballot_closed")
        others = [each for each in kept.votes if (each.who, each.sample) != (vote.who, vote.sample)]
        if len(others) >= MOST_VOTES:
            hint = "Move votes/ID.json of the data home away to begin anew."
            raise FinetunerError(f"{MOST_VOTES:,} votes are kept for this job; more do not fit.", hint, "too_many")
        return kept.model_copy(update={"votes": (*others, vote)})

    _change(home, ballot.job_id, change)


def close(home: Home, job_id: str, who: str) -> None:
    """Notes that a person sees the result now. Raises as `cast`."""
    seen = Closed(who=_who(who), at=now_iso())

    def change(kept: _File) -> _File:
        if any(each.who == seen.who for each in kept.closed):
            return kept
        return kept.model_copy(update={"closed": (*kept.closed, seen)})

    _change(home, job_id, change)


def placed(who: str, sample: str, sides: tuple[str, str]) -> tuple[str, str]:
    """(the side shown as A, the one shown as B): as good as a coin, and the same at each reload."""
    return sides[::-1] if _coin(who, "side", sample)[0] & 1 else sides


def ordered(who: str, samples: Iterable[str]) -> list[str]:
    """The pairs in an order of this person's own, which is the same at each reload."""
    return sorted(samples, key=lambda sample: _coin(who, "place", sample))


def _coin(*parts: str) -> bytes:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).digest()


def _who(who: str) -> str:
    return who.encode("utf-8", "replace").decode()[:LONGEST_WHO]


def _path(home: Home, job_id: str) -> Path:
    return home.votes / f"{job_id}.json"


def _change(home: Home, job_id: str, change: Callable[[_File], _File]) -> None:
    jobs.get_job(home, job_id)
    home.create()
    path = _path(home, job_id)
    with locked(home.votes):
        try:
            kept = _read(path)
        except ValueError:
            durable.move(path, path.with_name(f"{job_id}.damaged-{time.time_ns()}.json"))
            kept = _File()
        durable.write_json(path, change(kept).model_dump())


def _read(path: Path) -> _File:
    """What lies there may be anything: a pipe, a link, gigabytes.

    Raises:
        ValueError: it is no file of votes.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return _File()
    if not stat.S_ISREG(found.st_mode) or found.st_size > FILE_BYTES:
        raise ValueError("no file of votes")
    try:
        return _File.model_validate(orjson.loads(path.read_bytes()))
    except ValidationError as error:
        raise ValueError(str(error)) from None
