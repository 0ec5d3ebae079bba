"""Whether a runner is alive: what runner.json says, judged by its age. No decision rests on a PID."""

import time
from dataclasses import dataclass
from typing import Any

from spool.protocol import durable
from spool.protocol.home import Home

STALE_S = 20.0
"""The runner writes every 5 s; a few missed writes are a busy disk, four are a dead runner."""


@dataclass(frozen=True)
class Heartbeat:
    """The runner as its last sign of life tells it. `age_s` is None where no runner was ever started."""

    age_s: float | None = None
    state: str | None = None
    pid: int | None = None
    started_at: str | None = None
    current_job: str | None = None
    halted: str | None = None
    waiting_for: str | None = None
    version: str | None = None
    queue: str | None = None

    @property
    def alive(self) -> bool:
        return self.age_s is not None and abs(self.age_s) <= STALE_S and not self.stopped

    @property
    def stopped(self) -> bool:
        """It said goodbye: it was stopped on purpose."""
        return self.state == "stopped"


def read(home: Home, now: float | None = None) -> Heartbeat:
    """The last sign of life; `now` (epoch seconds) is for tests."""
    try:
        document = durable.read_json(home.runner_json)
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("heartbeat"), int | float):
        return Heartbeat()
    kept = ("state", "pid", "started_at", "current_job", "waiting_for", "version", "queue")
    age_s = (time.time() if now is None else now) - document["heartbeat"]
    return Heartbeat(age_s, halted=_reason(document.get("halted")), **{name: document.get(name) for name in kept})


def _reason(halted: Any) -> str | None:
    if isinstance(halted, dict):
        return str(halted.get("reason") or halted.get("code") or "no reason given")
    return str(halted) if halted else None
