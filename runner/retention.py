"""Removes what settings.retention says of jobs that have ended, a little at a time, and never what a job still needs.

Removed by age: checkpoints, set-aside checkpoints, prepared rows, rejected drops, half-written temporary files; a long
log keeps its beginning and its end. With little disk left, checkpoints of done and cancelled jobs go early, then
prepared rows. A job that is checking, queued, running or held is not touched, nor is any run that its spec names (or
that a drop names which is not taken yet). Datasets, models, exports, specs and metrics always stay.
"""

import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from spool.health import expiry
from spool.health.expiry import PRUNED, Expiry
from spool.protocol import durable, metrics
from spool.protocol.home import FINAL, Home, State
from spool.protocol.jobs import DROP_BYTES
from spool.protocol.references import runs_named
from spool.protocol.settings import Settings
from spool.protocol.states import Tokens
from spool.protocol.ulid import is_ulid

log = logging.getLogger("runner")

PASS_S = 600.0
"""Time between two looks through everything; a tenth of it while the disk is nearly full."""
LIVE = tuple(state for state in State if state not in FINAL)
COARSE_NS = 100_000_000
"""Two changes of a folder so close to each other may bear the same time."""
LEAST_SPECS = 50
"""So many are read in a call whatever its deadline: listing a long queue alone may take that time."""
HEAD_BYTES = 1 << 20
TAIL_BYTES = 4 << 20


class Calendar:
    """Wall time for ages of days. A clock that jumps ahead while the runner lives must not age what lies on the disk,
    so no more time passes here than the machine has really been up."""

    def __init__(self, wall: Callable[[], float] = time.time, elapsed: Callable[[], float] | None = None) -> None:
        self._wall = wall
        self._elapsed = elapsed or (lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
        self._began = wall() - self._elapsed()

    def now(self) -> float:
        return min(self._wall(), self._began + self._elapsed())

    @property
    def jump_s(self) -> float:
        """How far the wall clock was set since the runner's start: ahead (positive) or back."""
        return self._wall() - (self._began + self._elapsed())


class Retention:
    """The daemon makes one and calls `sweep` from its main thread in every tick (or every few seconds), never while a
    halt lasts: `self.retention.sweep(deadline_s=0.05)`. Between passes a call costs microseconds. Acceptance of drops
    happens in that same thread, so nothing becomes a job while something is being removed.

    A file that cannot be removed is logged once and left; only what the daemon could not go on without (listing the
    token folders) raises OSError.

    Args:
        clock: gives wall time (epoch s) through `now()`.
        started_in: from where relative paths in specs count.
    """

    def __init__(
        self, home: Home, options: Settings, clock: Calendar | None = None, started_in: Path | None = None
    ) -> None:
        self.home = home
        self.rules = options.retention
        self.clock = clock or Calendar()
        self.started_in = started_in or Path.cwd()
        self.tokens = Tokens(home)
        self._work: Iterator[None] | None = None
        self._rest_until = 0.0
        self._due: dict[str, float] = {}
        """Ended job -> when the next thing of it goes; such a job is not looked at before that."""
        self._live: dict[str, frozenset[str]] = {}
        """Job that has not ended -> the runs that its spec names."""
        self._drops: dict[tuple[str, int, int], frozenset[str]] = {}
        self._needed: frozenset[str] = frozenset()
        self._looked_at: tuple[tuple[int, ...], frozenset[str]] | None = None
        self._failed: set[Path] = set()
        self._freed_bytes = 0

    def sweep(self, deadline_s: float = 0.05) -> int:
        """Works for about so long; gives the bytes that it freed. The next call goes on where this one left off."""
        if self._work is None:
            low = self._low()
            if time.monotonic() < self._rest_until - (0.9 * PASS_S if low else 0.0):
                return 0
            self._work = self._pass(low)
        end = time.monotonic() + deadline_s
        self._freed_bytes = 0
        if not self._look_who_needs_what(end):
            return 0
        for _ in self._work:
            if time.monotonic() >= end:
                return self._freed_bytes
        self._work = None
        self._rest_until = time.monotonic() + PASS_S
        return self._freed_bytes

    def _look_who_needs_what(self, end: float) -> bool:
        """Reads the specs of jobs that have not ended, each once; False when the time was over first."""
        waiting = self._waiting()
        signature = (self._signature(), waiting)
        if signature == self._looked_at:
            return True
        # PRIORITY-SEQUENCE-ID.json; a name that is no token protects a run that does not exist
        live = {name[-31:-5] for state in LIVE for name in os.listdir(self.home.state(state))}
        self._live = {job_id: named for job_id, named in self._live.items() if job_id in live}
        for count, job_id in enumerate(live - self._live.keys()):
            if count >= LEAST_SPECS and time.monotonic() >= end:
                return False
            try:
                spec = self.home.run(job_id).spec.read_bytes()
            except FileNotFoundError:
                spec = b""
            self._live[job_id] = runs_named(self.home, self.started_in, spec)
        self._needed = waiting.union(live, *self._live.values())
        self._looked_at = signature
        return True

    def _signature(self) -> tuple[int, ...]:
        """Changes whenever a token comes or goes; equals no other one while a folder has changed so lately that another
        change might bear the same time."""
        times = tuple(self.home.state(state).stat().st_mtime_ns for state in LIVE)
        return times if max(times) < time.time_ns() - COARSE_NS else (time.monotonic_ns(),)

    def _waiting(self) -> frozenset[str]:
        """The runs that drops name which are not taken yet; what has not changed is not read again."""
        seen: dict[tuple[str, int, int], frozenset[str]] = {}
        for folder in (self.home.incoming, self.home.accepting):
            for entry in os.scandir(folder):
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                key = (entry.path, info.st_mtime_ns, info.st_size)
                seen[key] = self._drops.get(key) or runs_named(
                    self.home, self.started_in, durable.first_bytes(Path(entry.path), DROP_BYTES)
                )
        self._drops = seen
        return frozenset().union(*seen.values())

    def _pass(self, low: bool) -> Iterator[None]:
        """One look through everything, in small steps."""
        early: list[tuple[int, float, str, Expiry]] = []
        for state in sorted(FINAL):
            for token in self.tokens.list(state):
                job_id = token.job_id
                if self._due.get(job_id, 0.0) > self.clock.now() and not low:
                    continue
                yield from self._see_to(job_id, state, early)
                yield
        for _, _, job_id, each in sorted(early, key=lambda item: item[:3]):
            if not self._low():
                break
            yield from self._remove(job_id, each, "the disk is nearly full")
            self._due.pop(job_id, None)
        yield from self._rejected()
        yield from self._strays()
        self._due = {job_id: due for job_id, due in self._due.items() if self.home.run(job_id).root.exists()}

    def _see_to(self, job_id: str, state: State, early: list[tuple[int, float, str, Expiry]]) -> Iterator[None]:
        if job_id in self._needed or self._due.get(job_id) == float("inf"):
            return
        ended = expiry.ended_at(self.home.run(job_id))
        if ended is None:
            return
        left = [float("inf")]
        for each in expiry.of_job(self.home.run(job_id), state, ended, self.rules):
            if each.due <= self.clock.now():
                gone = yield from self._remove(job_id, each, f"the job ended {_days(self.clock.now() - ended)} ago")
                left += [] if gone else [self.clock.now() + PASS_S]
            else:
                left.append(each.due)
                if each.early is not None:
                    early.append((each.early, ended, job_id, each))
        self._due[job_id] = min(left)

    def _remove(self, job_id: str, each: Expiry, why: str) -> Generator[None, None, bool]:
        """Removes one thing of an ended job, and writes that down: in its events (nobody else writes there any more)
        and in the runner's log. False where it stays."""
        if job_id in self._needed:  # somebody has named it since it was judged
            return False
        run = self.home.run(job_id)
        before = self._freed_bytes
        try:
            if each.what == "log":
                self._freed_bytes += shorten(each.path, int((self.rules.log_mb or 0) * 1e6))
            else:
                yield from self._discard(each.path, run.root)
        except FileNotFoundError:
            return True  # somebody was faster
        except OSError as error:
            self._tell_once(each.path, error)
            return False
        freed = self._freed_bytes - before
        log.info("%s: removed %s (%s), %.1f MB: %s", job_id, each.what, each.path.name, freed / 1e6, why)
        try:
            row = {"event": "removed", "what": each.what, "name": each.path.name, "bytes": freed, "why": why}
            metrics.Writer(run.events, 0).write(**row)
        except OSError as error:
            self._tell_once(run.events, error)
        return True

    def _discard(self, path: Path, room: Path) -> Iterator[None]:
        """A file at once; a folder first gets another name in `room`, then goes file by file."""
        if not stat.S_ISDIR(path.lstat().st_mode):
            self._unlink(path)
            return
        if not path.name.startswith(PRUNED):
            aside = room / f"{PRUNED}{path.name}-{time.time_ns()}"
            os.rename(path, aside)
            path = aside
        for folder, _, names in os.walk(path):
            for name in names:
                self._unlink(Path(folder, name))
                yield
        shutil.rmtree(path)

    def _unlink(self, path: Path) -> None:
        info = path.lstat()
        path.unlink()
        if info.st_nlink == 1:
            self._freed_bytes += info.st_blocks * 512

    def _rejected(self) -> Iterator[None]:
        days = self.rules.rejected_days
        for entry in list(os.scandir(self.home.rejected)):
            yield
            path = Path(entry.path)
            try:
                if entry.name.startswith(PRUNED):
                    yield from self._discard(path, self.home.rejected)
                elif days is not None and is_ulid(entry.name) and entry.name not in self._needed:
                    age = self.clock.now() - (path / "reason.json").stat().st_mtime
                    if age >= days * expiry.DAY_S:
                        yield from self._discard(path, self.home.rejected)
                        log.info("removed the rejected drop %s, turned away %s ago", entry.name, _days(age))
            except FileNotFoundError:
                continue  # it is being rejected just now, or somebody has cleared it away
            except OSError as error:
                self._tell_once(path, error)

    def _strays(self) -> Iterator[None]:
        """Half-written files of processes that died. Other people's names in the drop box are theirs."""
        for folder in (self.home.tmp, self.home.incoming, self.home.control, self.home.spool, self.home.states):
            for entry in list(os.scandir(folder)):
                if folder != self.home.tmp and not expiry.TEMPORARY.fullmatch(entry.name):
                    continue
                path = Path(entry.path)
                try:
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(info.st_mode) and self.clock.now() - info.st_mtime >= expiry.TEMPORARY_S:
                        self._unlink(path)
                        log.info("removed the stray %s", path)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self._tell_once(path, error)
                yield

    def _low(self) -> bool:
        limit = self.rules.low_disk_gb
        return limit is not None and free_bytes(self.home.root) < limit * 1e9

    def _tell_once(self, path: Path, error: OSError) -> None:
        if path not in self._failed:
            self._failed.add(path)
            log.warning("%s stays: %s", path, error.strerror or error)


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def shorten(path: Path, limit_bytes: int) -> int:
    """Cuts the middle out of a log that nobody writes any more, at ends of lines; gives the bytes that it freed."""
    keep = min(HEAD_BYTES + TAIL_BYTES, limit_bytes // 2)
    head_bytes = keep * HEAD_BYTES // (HEAD_BYTES + TAIL_BYTES)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(head_bytes)
        head = head[: head.rfind(b"\n") + 1] or head
        file.seek(size - (keep - head_bytes))
        tail = file.read()
    tail = tail[tail.find(b"\n") + 1 :] or tail
    cut = size - len(head) - len(tail)
    note = f"\n[{cut / 1e6:,.1f} MB were cut out here after the job had ended: retention.log_mb in settings.json]\n\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.0.tmp")
    try:
        temporary.write_bytes(head + note.encode() + tail)
        shutil.copymode(path, temporary)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return size - path.stat().st_size


def _days(seconds: float) -> str:
    return f"{seconds / expiry.DAY_S:.1f} days" if seconds >= expiry.DAY_S else f"{seconds / 3600:.1f} hours"
