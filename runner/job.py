"""What a job's code may lean on inside its process: its folders, its voice, and whether it was asked to stop."""

import contextlib
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

from runner.checkpoint import EXIT_INTERRUPTED
from spool.protocol import metrics, settings
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home, Run
from spool.protocol.resolve import Places


class Stopped(BaseException):
    """Raised at a point where the job can be left at once; a BaseException so that no library swallows it."""


class Anew(BaseException):
    """Raised where an attempt goes on in its process begun anew, with nothing in memory."""


class StopRequest:
    """Whether this attempt was asked to end: by SIGTERM, or by control/cancel-ID (which an orphan sees as well).

    `unsaved` is True while there are steps that no checkpoint holds yet: the trainer then looks at `requested` at
    every point where one can be made, and ends. At any other time there is nothing to save, and the signal ends the
    attempt on the spot. Further signals change nothing.
    """

    LEAVE_S = 15
    """A library may swallow the exception that ends the attempt, or be slow to pass it on. Then it is left so."""

    def __init__(self, home: Home, job_id: str) -> None:
        self._cancel_file = home.control / f"cancel-{job_id}"
        self._signalled = False
        self.unsaved = False

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, *_: Any) -> None:
        if self._signalled:
            return
        self._signalled = True
        if not self.unsaved:
            last = threading.Timer(self.LEAVE_S, os._exit, [EXIT_INTERRUPTED])
            last.daemon = True
            last.start()
            raise Stopped

    @property
    def requested(self) -> bool:
        return self._signalled or self.cancelled

    @property
    def cancelled(self) -> bool:
        return self._cancel_file.exists()


class Attempt:
    """What a job's code needs to know of its surroundings, and the ways it speaks to the outside."""

    PULSE_S = 1.0

    def __init__(self, home: Home, job_id: str, number: int, stop: StopRequest) -> None:
        self.home = home
        self.job_id = job_id
        self.number = number
        self.stop = stop
        self.run: Run = home.run(job_id)
        started_in = Path.cwd()
        self.places = Places(home, started_in, settings.roots(settings.load(home), home, started_in))
        self.metrics = metrics.Writer(self.run.metrics, number)
        self.events = metrics.Writer(self.run.events, number)
        self._pulsed = -self.PULSE_S
        self._phase: str | None = None

    def phase(self, words: str) -> None:
        """Tells what is being done; the monitor shows it. A stop that a library swallowed is heard here."""
        if self.stop.requested:
            raise Stopped
        print(f"-- {words}", flush=True)
        self.events.write(event="phase", phase=words)
        self._phase = words
        self.pulse()

    def note(self, words: str) -> None:
        """Tells what people should know of, in the log and among the events."""
        print(f"-- {words}", flush=True)
        self.events.write(event="note", words=words, phase=self._phase)

    def pulse(self) -> None:
        """A sign of life: the daemon ends a training whose runs/ID/pulse does not change for limits.stall_minutes.

        Costs next to nothing and may be called as often as one likes.
        """
        now = time.monotonic()
        if now - self._pulsed >= self.PULSE_S:
            self._pulsed = now
            with contextlib.suppress(OSError):  # a full disk is told by what must be written
                self.run.pulse.touch()


def low_disk(folder: Path, limit_gb: float) -> FinetunerError | None:
    """The error of a job whose disk has fewer free gigabytes than its limits.min_free_gb; None where it has enough."""
    return disk_full(folder, limit_gb) if shutil.disk_usage(folder).free < limit_gb * 1e9 else None


def disk_full(folder: Path, limit_gb: float, what_for: str = "") -> FinetunerError:
    free_gb = shutil.disk_usage(folder).free / 1e9
    return FinetunerError(
        f"there is not enough free disk{what_for}: {free_gb:.1f} GB at {folder} (limits.min_free_gb is {limit_gb:g}).",
        "Free some space (`finetuner doctor` shows what uses it), then retry.",
        "disk_full",
    )


def host_memory_bytes() -> int | None:
    """Resident memory of this process."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
