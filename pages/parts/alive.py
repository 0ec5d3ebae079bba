"""What the runner's heartbeat means for who waits, in words."""

from dataclasses import dataclass

from spool.health import heartbeat
from spool.protocol.home import Home


@dataclass(frozen=True)
class Runner:
    """`problem` is one sentence that says why jobs do not start, `cure` what to do; both empty when all is well."""

    alive: bool
    busy_with: str | None = None
    problem: str = ""
    cure: str = ""
    halted: bool = False
    """A fault of the machine holds the queue, `problem` says which."""
    queue: str = "open"
    """open, held, draining, or closed outside of the hours that the settings name."""


def look(home: Home, now: float | None = None) -> Runner:
    """The runner as its last sign of life tells it; `now` (epoch seconds) is for tests."""
    beat = heartbeat.read(home, now)
    if beat.age_s is None:
        return Runner(False, None, "The runner has not been started yet: jobs wait.", "make up")
    if beat.stopped:
        return Runner(False, None, "The runner was stopped: jobs wait, nothing is lost.", "make up")
    if not beat.alive:
        return Runner(False, None, "The runner does not answer: jobs wait, nothing is lost.", "make up")
    busy, queue = beat.current_job, beat.queue or "open"
    if beat.halted:
        why = f"The runner holds the queue: {beat.halted}. It goes on by itself when that is cured."
        return Runner(True, busy, why, halted=True, queue=queue)
    if beat.state == "stopping":
        says = "The runner is stopping: waiting jobs start when it is started again."
        return Runner(True, busy, says, "make up", queue=queue)
    if beat.waiting_for:
        return Runner(True, busy, f"No job starts: {beat.waiting_for}.", queue=queue)
    if queue in ("held", "draining"):  # a job still runs
        says = "is held" if queue == "held" else "drains"
        return Runner(True, busy, f"The queue {says}: after this job no other starts.", queue=queue)
    return Runner(True, busy, queue=queue)
