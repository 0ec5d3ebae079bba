"""When each job is expected to start and to end: the running one by its own speed, the waiting ones in their order."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from spool.forecast import history, hours, machine
from spool.forecast.estimate import estimate
from spool.forecast.machine import Machine
from spool.health import heartbeat
from spool.protocol import durable, settings
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home, State
from spool.protocol.jobs import Job
from spool.protocol.settings import Window
from spool.protocol.states import Tokens

BETWEEN_S = 3.0
"""From the end of a job to the start of the next."""
KEPT = 20_000
MOST_NIGHTS = 400


@dataclass(frozen=True)
class Span:
    """When a job is expected to run (UTC). `why` says what keeps a start from being told, or what it waits for."""

    start: datetime | None
    end: datetime | None
    why: str = ""


def spans(home: Home, jobs: list[Job], now: datetime, local: Any = None) -> dict[str, Span]:
    """The expected span of each job that runs or waits its turn, by id. Held and ended jobs have none.

    Args:
        now: UTC.
        local: the time zone that the settings' window is meant in; by default this machine's.
    """
    try:
        window = settings.load(home).window
    except FinetunerError:
        window = None
    lengths = _Lengths(home)
    found: dict[str, Span] = {}
    free: datetime | None = now
    for job in (job for job in jobs if job.state == "running"):
        span = _running(home, job, now, lengths)
        found[job.id] = span
        free = span.end + timedelta(seconds=BETWEEN_S) if span.end and free else None
    stopped = _stopped(home)
    waiting = {job.id: job for job in jobs if job.state in ("queued", "checking")}
    for job_id in _in_order(home, waiting):
        job = waiting[job_id]
        if stopped:
            found[job_id] = Span(None, None, stopped)
            continue
        found[job_id] = span = _next(job, free, window, lengths.of(job_id), local)
        if span.start is None or span.why == LATER:
            continue  # others pass by meanwhile
        free = span.end + timedelta(seconds=BETWEEN_S) if span.end else None
    return found


LATER = "it is tried again after a while"
HELD = "the queue is held"
DRAINING = "the runner drains: it starts no job until it is restarted or released"
NOT_ALIVE = "the runner is not running"
HALTED = "a fault of the machine holds the queue"
UNKNOWN_BEFORE = "how long the job before it takes cannot be told"
UNKNOWN = "how long it takes cannot be told"
RUNS_OVER = "it takes longer than expected"


def _running(home: Home, job: Job, now: datetime, lengths: "_Lengths") -> Span:
    """A job's end by its own speed; by its estimate until it has one."""
    started = _moment(job.started_at) or now
    left = job.progress.get("eta_s")
    if isinstance(left, int | float) and job.progress.get("step"):
        return Span(started, now + timedelta(seconds=max(0.0, float(left))))
    expected = lengths.of(job.id)
    if expected is None:
        return Span(started, None, UNKNOWN)
    end = started + timedelta(seconds=expected)
    return Span(started, end) if end > now else Span(started, now, RUNS_OVER)


def _next(job: Job, free: datetime | None, window: Window | None, length: float | None, local: Any) -> Span:
    if free is None:
        return Span(None, None, UNKNOWN_BEFORE)
    start, why = free, ""
    not_before = _moment((job.waits or {}).get("not_before"))
    if not_before is not None and not_before > start:
        start, why = not_before, LATER
    if window is not None and (opens := _opens(window, start, local)) != start:
        start, why = opens, why or f"jobs start between {window.start} and {window.end} only"
    if length is None:
        return Span(start, None, why or UNKNOWN)
    return Span(start, _end(start, timedelta(seconds=length), window, local), why)


def _end(start: datetime, length: timedelta, window: Window | None, local: Any) -> datetime:
    """A job that makes room when the window closes goes on when it opens again."""
    if window is None or window.at_end != "interrupt":
        return start + length
    for _ in range(MOST_NIGHTS):
        closes = hours.closes(window, _wall(start, local))
        if closes is None or start + length <= (end := _utc(closes, local)):
            break
        length -= end - start
        start = _opens(window, end, local)
    return start + length


def _opens(window: Window, moment: datetime, local: Any) -> datetime:
    opens = hours.opens(window, _wall(moment, local))
    return moment if opens == _wall(moment, local) else _utc(opens, local)


def _wall(moment: datetime, local: Any) -> datetime:
    """What the clock on the wall shows, as the window is written."""
    return moment.astimezone(local).replace(tzinfo=None)


def _utc(wall: datetime, local: Any) -> datetime:
    return wall.replace(tzinfo=local).astimezone(UTC)


def _in_order(home: Home, waiting: Mapping[str, Job]) -> list[str]:
    """As they will start: by their tokens, what is still checked among those that are ready."""
    tokens = [token for state in (State.QUEUED, State.CHECKING) for token in Tokens(home).list(state)]
    order = [token.job_id for token in sorted(tokens) if token.job_id in waiting]
    seen = set(order)
    return order + [job_id for job_id in sorted(waiting) if job_id not in seen]


def _stopped(home: Home) -> str:
    """Why nothing starts whatever its turn; empty where jobs do."""
    if home.hold.exists():
        return HELD
    if home.drain.exists():
        return DRAINING
    beat = heartbeat.read(home)
    if beat.halted:
        return HALTED
    return "" if beat.alive else NOT_ALIVE


class _Lengths:
    """Seconds that jobs take, kept by id: a job's spec does not change, but its rows are counted once it is checked.

    Where nothing can be computed, jobs of its kind are taken for a measure.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.root = str(home.root)
        self.wisdom = len(history.of(home)).bit_length()  # what was learned counts anew each time it has doubled
        self.machine: Machine | None = None

    def of(self, job_id: str) -> float | None:
        counted = (self.root, self.wisdom, job_id, True)
        if counted in _kept:
            return _kept[counted]
        ready = os.path.exists(f"{self.root}/runs/{job_id}/data/prepared.json")
        key = (self.root, self.wisdom, job_id, ready)
        if key in _kept:
            return _kept[key]
        run = self.home.run(job_id)
        try:
            spec = durable.read_json(run.spec)
        except (OSError, ValueError):
            spec = None
        if not isinstance(spec, dict):
            return None
        self.machine = self.machine or machine.look(self.home)
        found = estimate(self.home, spec, machine=self.machine, run=run.root)
        seconds = found.seconds or history.wall_s(self.home, str(spec.get("kind", "train")))
        with _lock:
            _kept[key] = seconds
            while len(_kept) > KEPT:
                del _kept[next(iter(_kept))]
        return seconds


_kept: dict[tuple[str, int, str, bool], float | None] = {}
_lock = threading.Lock()


def _moment(text: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)
