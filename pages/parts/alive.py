"""What the runner's heartbeat means for who waits, in words."""

import os
from dataclasses import dataclass

from pages.parts.phrases import translated
from pages.parts.texts import t
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


def start() -> str:
    """The command that starts the runner: the service's unit names its own."""
    return os.environ.get("FINETUNER_START") or "make up"


def look(home: Home, now: float | None = None) -> Runner:
    """The runner as its last sign of life tells it; `now` (epoch seconds) is for tests."""
    beat = heartbeat.read(home, now)
    if beat.age_s is None:
        return Runner(False, None, t("runner.never_started"), start())
    if beat.stopped:
        return Runner(False, None, t("runner.stopped"), start())
    if not beat.alive:
        return Runner(False, None, t("runner.silent"), start())
    busy, queue = beat.current_job, beat.queue or "open"
    if beat.halted:
        why = t("runner.halted", why=translated(beat.halted))
        return Runner(True, busy, why, halted=True, queue=queue)
    if beat.state == "stopping":
        says = t("runner.stopping")
        return Runner(True, busy, says, start(), queue=queue)
    if beat.waiting_for:
        return Runner(True, busy, t("runner.waits", why=translated(beat.waiting_for)), queue=queue)
    if queue in ("held", "draining"):  # a job still runs
        return Runner(True, busy, t(f"runner.queue.{queue}"), queue=queue)
    return Runner(True, busy, queue=queue)
