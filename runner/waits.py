"""Jobs that must not start yet: runs/ID/wait.json says until when, for how much disk, and why.

Only the daemon writes it. A job waits where trying again at once could not help: the network is away, the hub is
busy, the disk is full. Its place in the queue stays its own, others pass by meanwhile.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from spool.health.failure import BACK_OFF_S
from spool.protocol import durable
from spool.protocol.home import Home, Run
from spool.protocol.jobs import iso


@dataclass(frozen=True)
class Wait:
    """`not_before` is UTC epoch seconds; `free_bytes` is what the disk must have; `tries` counts failures in a row."""

    not_before: float
    why: str
    tries: int
    code: str
    free_bytes: int = 0
    step: int | None = None

    def words(self) -> str:
        return f"{self.why} It is tried again after {iso(self.not_before)}."

    def is_over(self, run: Run, now: float) -> bool:
        """Also where the clock was set back: nobody is made to wait longer than the longest back-off."""
        if now < self.not_before <= now + BACK_OFF_S[-1]:
            return False
        return self.free_bytes == 0 or shutil.disk_usage(run.root).free >= self.free_bytes


def of(run: Run) -> Wait | None:
    """The job's wait. A damaged one counts as none: the job is tried at once."""
    try:
        document = durable.read_json(run.wait)
        return Wait(**{name: value for name, value in document.items() if name != "v"}) if document else None
    except (ValueError, TypeError, AttributeError):
        return None


def begin(
    run: Run, error: dict[str, Any], step: int | None, free_bytes: int, clock: Callable[[], float] = time.time
) -> Wait | None:
    """Lets the job wait once more; None when it has waited BACK_OFF_S through without getting further than `step`."""
    before = of(run)
    again = before is not None and before.code == error["code"] and before.step == step
    tries = before.tries + 1 if before is not None and again else 1
    if tries > len(BACK_OFF_S):
        return None
    wait = Wait(round(clock() + BACK_OFF_S[tries - 1], 3), error["message"], tries, error["code"], free_bytes, step)
    durable.write_json(run.wait, {"v": 1, **asdict(wait)})
    return wait


def may_start(home: Home, job_id: str, clock: Callable[[], float] = time.time) -> bool:
    run = home.run(job_id)
    wait = of(run)
    return wait is None or wait.is_over(run, clock())
