"""Every job at a glance, again and again: what `list_jobs` says, kept up to date by reading only what has changed.

The folders stay the truth and nothing is written. A look costs the names in the state folders; a job's files are read
when its token is new or has moved, and again while something beside a waiting token changes. What has ended never
changes. Many threads may ask: one of them looks, the others get what it saw.
"""

import heapq
import operator
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from spool.protocol.home import FINAL, Home, State
from spool.protocol.jobs import Folders, Job, from_drop, from_rejected, from_token, get_job
from spool.protocol.states import Token
from spool.protocol.ulid import is_ulid

KEPT = 20_000
"""So many jobs that have ended are known, the newest by their ids; what is older is found by its id alone."""

PAUSE_S = 1.0
"""The longest time for which a look is passed on to whoever asks."""

SHARE = 0.05
"""Looks take at most this much of the time: a small home is looked at anew at almost every call."""

UNSETTLED_S = 0.1
"""A file that changed this shortly before it was read may change again within the file system's clock tick."""

_ID = slice(-31, -5)
_TRAVELS = (*State, State.QUEUED)
"""In the order in which jobs travel, and the queue once more: interrupted and released jobs go back to it."""

_WAITING = frozenset({State.CHECKING, State.QUEUED, State.HELD})

Mark = tuple[int, ...] | None


@dataclass(slots=True)
class _Known:
    state: State
    filename: str
    """Of the token that was read; empty where it must be read again."""
    job: Job
    mark: Mark = None


@dataclass
class Look:
    """What one look saw; `jobs` oldest first, `left_out` counts ended jobs beyond KEPT.

    While nothing changes it is the same object with the same `number`: what was made of it can be kept.
    """

    jobs: list[Job] = field(default_factory=list)
    by_id: dict[str, Job] = field(default_factory=dict)
    left_out: int = 0
    number: int = 0


class Roster:
    """The jobs of one home, for all who ask in this process. Its Job objects are shared: nobody may change them.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, home: Home, clock: Callable[[], float] = time.monotonic) -> None:
        self.home = home
        self.clock = clock
        self._folders = Folders(home)
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._refused: dict[str, Job] = {}
        self._last = Look()
        self._next_at = float("-inf")

    def look(self) -> Look:
        """The newest look, at most PAUSE_S old."""
        if self.clock() < self._next_at:
            return self._last
        if not self._lock.acquire(blocking=self._last.number == 0):
            return self._last  # somebody is looking just now
        try:
            began = self.clock()
            if began >= self._next_at:
                self._last = self._look()
                ended = self.clock()
                self._next_at = ended + min(PAUSE_S, (ended - began) / SHARE)
        finally:
            self._lock.release()
        return self._last

    def jobs(self) -> list[Job]:
        """All jobs, oldest first, as `list_jobs` gives them."""
        return list(self.look().jobs)

    def job(self, job_id: str) -> Job:
        """One job by its id.

        Raises:
            NotFound: there is none.
        """
        return self.look().by_id.get(job_id) or get_job(self.home, job_id)

    def stale(self) -> None:
        """Has the next call look again: something has just been handed in."""
        self._next_at = float("-inf")

    def _look(self) -> Look:
        dropped = self._dropped()
        placed = self._placed()
        left_out = self._forget_the_oldest(placed)
        known: dict[str, _Known] = {}
        for job_id, (state, filename) in placed.items():
            each = self._known.get(job_id)
            if each is None or each.filename != filename or each.state is not state or state not in FINAL:
                each = self._read(job_id, state, filename, each)
            known[job_id] = each
        self._known = known
        jobs = {job_id: from_drop(path, job_id) for job_id, path in dropped.items() if job_id not in known}
        jobs |= self._rejected()
        jobs |= {job_id: each.job for job_id, each in known.items()}
        ordered = sorted(jobs.values(), key=lambda job: (job.submitted_at or "", job.id))
        last = self._last
        if last.number and len(ordered) == len(last.jobs) and all(map(operator.is_, ordered, last.jobs)):
            return last
        return Look(ordered, jobs, left_out, last.number + 1)

    def _dropped(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for folder in (self.home.incoming, self.home.accepting):
            for name in _names(str(folder)):
                if name.endswith(".json") and is_ulid(name[:-5]):
                    found[name[:-5]] = folder / name
        return found

    def _placed(self) -> dict[str, tuple[State, str]]:
        found: dict[str, tuple[State, str]] = {}
        for state in _TRAVELS:
            for name in _names(self._folders.states[state]):
                known = self._known.get(name[_ID])
                if (known is not None and known.filename == name) or Token.parse(name):
                    found[name[_ID]] = (state, name)
        return found

    def _forget_the_oldest(self, placed: dict[str, tuple[State, str]]) -> int:
        if len(placed) <= KEPT:
            return 0
        ended = [job_id for job_id, (state, _) in placed.items() if state in FINAL]
        oldest = heapq.nsmallest(len(ended) - KEPT, ended)
        for job_id in oldest:
            del placed[job_id]
        return len(oldest)

    def _rejected(self) -> dict[str, Job]:
        names = [name for name in _names(str(self.home.rejected)) if is_ulid(name)]
        kept = {name: self._refused[name] for name in names if name in self._refused}
        for name in names:
            if name not in kept and (self.home.rejected / name / "reason.json").exists():
                kept[name] = from_rejected(self.home, name)
        self._refused = kept
        return kept

    def _read(self, job_id: str, state: State, filename: str, known: _Known | None) -> _Known:
        mark = self._mark(job_id) if state in _WAITING else None
        if known and mark and (known.state, known.filename, known.mark) == (state, filename, mark):
            return known
        token = Token.parse(filename)
        assert token is not None
        job = from_token(self.home, state, token, self._folders)
        unsure = job.state != state.value or job.submitted_at is None or (job.ended and job.ended_at is None)
        return _Known(state, "" if unsure else filename, job, mark)  # it moved meanwhile, or a file could not be read

    def _mark(self, job_id: str) -> Mark:
        """What tells that something beside a waiting token has changed; None while it may still be changing."""
        run = f"{self._folders.runs}/{job_id}"
        seen: list[int] = []
        newest = 0.0
        for name in ("attempts", "events.jsonl", "wait.json"):
            try:
                info = os.stat(f"{run}/{name}")
            except OSError:
                seen.append(0)
                continue
            seen += (info.st_ino, info.st_size, info.st_mtime_ns)
            newest = max(newest, info.st_mtime)
        return None if newest > time.time() - UNSETTLED_S else tuple(seen)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
