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


def look(home: Home, now: float | None = None) -> Runner:
    """The runner as its last sign of life tells it; `now` (epoch seconds) is for tests."""
    beat = heartbeat.read(home, now)
    if beat.age_s is None:
        return Runner(False, None, "The runner has not been started yet: jobs wait.", "make up")
    if beat.stopped:
        return Runner(False, None, "The runner was stopped: jobs wait, nothing is lost.", "make up")
    if not beat.alive:
        return Runner(False, None, "The runner does not answer: jobs wait, nothing is lost.", "make up")
    busy = beat.current_job
    if beat.halted:
        why = f"The runner holds the queue: {beat.halted}. It goes on by itself when that is cured."
        return Runner(True, busy, why)
    if beat.waiting_for:
        return Runner(True, busy, f"The runner waits: {beat.waiting_for}.")
    if beat.state == "stopping":
        return Runner(True, busy, "The runner is stopping: waiting jobs start when it is started again.", "make up")
    return Runner(True, busy)
