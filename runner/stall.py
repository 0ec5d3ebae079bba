"""The watchdog over a trainer: whether what it writes still grows.

Steps, batches and downloads all give a sign of life. Only changes count, on a clock that nobody can set; what the
file times say does not matter.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Protocol

from spool.health import processes
from spool.protocol import durable
from spool.protocol.home import Home, Run
from spool.protocol.training import Limits

log = logging.getLogger("runner")

DUMP_S = 3.0
"""Time for the stack dump (SIGUSR1, faulthandler) before SIGTERM."""
GRACE_S = 20.0


class Watched(Protocol):
    kill_at: float | None

    def dump(self) -> None: ...

    def terminate(self, grace_s: float) -> None: ...


class Orphan:
    """The trainer of a runner that is dead: whatever still holds the GPU lock and writes this job's log."""

    def __init__(self, home: Home, job_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.home = home
        self.job_id = job_id
        self.clock = clock
        self.kill_at: float | None = None

    def dump(self) -> None:
        self._signal(signal.SIGUSR1)

    def terminate(self, grace_s: float) -> None:
        if self.kill_at is None:
            self.kill_at = self.clock() + grace_s
            self._signal(signal.SIGTERM)
        elif self.clock() >= self.kill_at:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        write_the_log = processes.holders(self.home.run(self.job_id).log)
        for pid in processes.holders(self.home.gpu_lock):
            try:
                if pid in write_the_log:
                    os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue


class Vigil:
    """Watches one attempt. `why` is set once it was given up."""

    def __init__(self, run: Run, child: Watched, clock: Callable[[], float] = time.monotonic) -> None:
        self.run = run
        self.child = child
        self.clock = clock
        self.limit_s = _limit_s(run)
        self.seen = self._signs()
        self.since = clock()
        self.dumped_at: float | None = None
        self.why: str | None = None

    def look(self) -> None:
        """Ends a child that has given no sign of life for the job's `stall_minutes`. Called at every tick."""
        now, signs = self.clock(), self._signs()
        if self.why is None and signs != self.seen:
            self.seen, self.since = signs, now
        if self.limit_s is None or now - self.since < self.limit_s:
            return
        if self.dumped_at is None:
            if self.child.kill_at is not None:  # it is being stopped for another reason
                return
            minutes = f"{self.limit_s / 60:g} minute{'' if self.limit_s == 60 else 's'}"
            self.why = f"the job gave no sign of life for {minutes}"
            log.warning("%s: %s; its stacks go to %s", self.run.root.name, self.why, self.run.log)
            self.dumped_at = now
            self.child.dump()
        elif now - self.dumped_at >= DUMP_S:
            self.child.terminate(GRACE_S)

    def _signs(self) -> tuple[tuple[int, int], ...]:
        found = []
        for path in (self.run.pulse, self.run.metrics, self.run.events, self.run.log):
            try:
                info = path.stat()
                found.append((info.st_size, info.st_mtime_ns))
            except FileNotFoundError:
                found.append((0, 0))
        return tuple(found)


def _limit_s(run: Run) -> float | None:
    try:
        limits = durable.read_json(run.spec).get("limits", {})
        minutes = limits.get("stall_minutes", Limits.model_fields["stall_minutes"].default)
    except (OSError, ValueError, AttributeError):
        return None
    return float(minutes) * 60 if isinstance(minutes, int | float) else None
