"""The server in a few numbers for monitoring: is the runner at work, what waits, how much disk is left."""

import os
import shutil
from dataclasses import dataclass
from typing import Any

from spool.health import heartbeat
from spool.protocol.home import Home, State


@dataclass(frozen=True)
class Status:
    runner: str
    """ready, waiting, halted, stopped (on purpose), silent (it died or hangs) or absent (none was ever started)."""

    reason: str | None
    """Of a runner that waits or is halted."""

    current_job: str | None
    queue: str | None
    """open, held, draining, or closed outside of the window."""

    heartbeat_age_s: float | None
    jobs: dict[str, int]
    disk_free_bytes: int
    disk_total_bytes: int

    @property
    def ok(self) -> bool:
        """Whether jobs are seen to; a queue that somebody holds on purpose is no fault."""
        return self.runner in ("ready", "waiting")

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **vars(self)}

    def to_metrics(self) -> str:
        """The text format of Prometheus."""
        rows: list[tuple[str, str, dict[str, float]]] = [
            ("up", "1 while the runner gives signs of life.", {"": int(self.runner in ("ready", "waiting", "halted"))}),
            ("ok", "1 while jobs are seen to: the runner is up and no fault holds the queue.", {"": int(self.ok)}),
            ("waiting", "1 while no job starts, for want of disk or of the card.", {"": int(self.runner == "waiting")}),
            ("disk_free_bytes", "Free disk below the data home.", {"": self.disk_free_bytes}),
            ("jobs", "Jobs by state.", {f'{{state="{state}"}}': count for state, count in self.jobs.items()}),
        ]
        if self.heartbeat_age_s is not None:
            age = {"": round(self.heartbeat_age_s, 1)}
            rows.append(("heartbeat_age_seconds", "Time since the runner's last sign of life.", age))
        lines = []
        for name, words, values in rows:
            lines += [f"# HELP finetuner_{name} {words}", f"# TYPE finetuner_{name} gauge"]
            lines += [f"finetuner_{name}{labels} {value}" for labels, value in values.items()]
        return "\n".join(lines)


def look(home: Home) -> Status:
    """Takes milliseconds; changes nothing.

    Raises:
        OSError: the data home cannot be read.
    """
    beat = heartbeat.read(home)
    place = next(folder for folder in (home.root, *home.root.parents) if folder.exists())
    usage = shutil.disk_usage(place)
    alive = beat.alive
    return Status(
        runner=_word(beat),
        reason=(beat.halted or beat.waiting_for) if alive else None,
        current_job=beat.current_job if alive else None,
        queue=(beat.queue or "open") if alive else None,
        heartbeat_age_s=beat.age_s,
        jobs={state.value: _count(home, state) for state in State},
        disk_free_bytes=usage.free,
        disk_total_bytes=usage.total,
    )


def _word(beat: heartbeat.Heartbeat) -> str:
    if beat.age_s is None:
        return "absent"
    if not beat.alive:
        return "stopped" if beat.stopped else "silent"
    if beat.halted:
        return "halted"
    return "waiting" if beat.waiting_for else "ready"


def _count(home: Home, state: State) -> int:
    try:
        return sum(name.endswith(".json") for name in os.listdir(home.state(state)))
    except FileNotFoundError:
        return 0
