"""Whether the runner lives, from the heartbeat it leaves in runner.json."""

from dataclasses import dataclass
from typing import Any

from spool.protocol import durable
from spool.protocol.home import Home

STALE_S = 20


@dataclass(frozen=True)
class Runner:
    """`problem` is one sentence that says why jobs do not start, `cure` what to do; both empty when all is well."""

    alive: bool
    busy_with: str | None = None
    problem: str = ""
    cure: str = ""


def look(home: Home, now: float) -> Runner:
    """Reads runner.json; `now` is in epoch seconds."""
    try:
        told = durable.read_json(home.runner_json)
    except (ValueError, OSError):
        told = None
    return judge(told if isinstance(told, dict) else None, now)


def judge(told: dict[str, Any] | None, now: float) -> Runner:
    heartbeat = (told or {}).get("heartbeat")
    if told is None or not isinstance(heartbeat, (int, float)):
        return Runner(False, None, "The runner has not been started yet: jobs wait.", "make up")
    if told.get("state") == "stopped":
        return Runner(False, None, "The runner was stopped: jobs wait, nothing is lost.", "make up")
    if now - heartbeat > STALE_S:
        return Runner(False, None, "The runner does not answer: jobs wait, nothing is lost.", "make up")
    busy = told.get("current_job")
    busy = busy if isinstance(busy, str) else None
    halted = told.get("halted")
    if halted:
        why = halted.get("reason") if isinstance(halted, dict) else halted
        return Runner(True, busy, f"The runner holds the queue: {why}. It goes on by itself when that is cured.")
    if told.get("waiting_for"):
        return Runner(True, busy, f"The runner waits: {told['waiting_for']}.")
    if told.get("state") == "stopping":
        return Runner(True, busy, "The runner is stopping: waiting jobs start when it is started again.", "make up")
    return Runner(True, busy)
