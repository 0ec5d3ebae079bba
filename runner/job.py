"""What a job's code may lean on inside its process: its folders, its voice, and whether it was asked to stop."""

import errno
import signal
from pathlib import Path
from typing import Any

from spool.protocol import metrics, settings
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home, Run
from spool.protocol.resolve import Places


class Stopped(BaseException):
    """Raised at a point where the job can be left at once; a BaseException so that no library swallows it."""


class StopRequest:
    """Whether this attempt was asked to end: by SIGTERM, or by control/cancel-ID (which an orphan sees as well).

    `between_steps` is True while the trainer looks at `requested` after each step, so that a checkpoint can be
    written first. Anywhere else there is nothing to save, and the signal ends the attempt on the spot.
    """

    def __init__(self, home: Home, job_id: str) -> None:
        self._cancel_file = home.control / f"cancel-{job_id}"
        self._signalled = False
        self.between_steps = False

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, *_: Any) -> None:
        self._signalled = True
        if not self.between_steps:
            raise Stopped

    @property
    def requested(self) -> bool:
        return self._signalled or self.cancelled

    @property
    def cancelled(self) -> bool:
        return self._cancel_file.exists()


class Attempt:
    """What a job's code needs to know of its surroundings, and the ways it speaks to the outside."""

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

    def phase(self, words: str) -> None:
        """Tells what is being done; the monitor shows it. A stop that a library swallowed is heard here."""
        if self.stop.requested:
            raise Stopped
        print(f"-- {words}", flush=True)
        self.events.write(event="phase", phase=words)


def explain(error: Exception, code: str, broke_off: str, memory_hint: str) -> dict[str, Any]:
    """The error as people read it. What was not foreseen is named by its last line, the log has the rest.

    Args:
        code, broke_off: the code of what was not foreseen, and what its words begin with.
    """
    if isinstance(error, FinetunerError):
        return error.to_json()
    words = str(error).strip().splitlines() or [""]
    if "out of memory" in str(error).lower() or isinstance(error, MemoryError):
        return {"code": "out_of_memory", "message": f"memory ran out: {words[0][:300]}", "hint": memory_hint}
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return {"code": "disk_full", "message": f"the disk is full: {error}", "hint": "Free some space and retry."}
    message = f"{broke_off}{type(error).__name__}: {words[0][:300]}"
    return {"code": code, "message": message, "hint": "The log holds the details."}
