"""A newcomer's first training, step by step: what has happened to the job, and what to make of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from spool.protocol.home import Home, Run
from spool.protocol.jobs import Job

RECIPE = Path(__file__).resolve().parents[3] / "examples" / "support_tickets.job.json"
STEPS = ("handed_in", "checked", "training", "done")
TAIL_BYTES = 128_000


@dataclass(frozen=True)
class Step:
    """`mood` is todo, now, done or wrong."""

    name: str
    mood: str


def recipe() -> dict[str, Any]:
    """The example's job spec."""
    found: dict[str, Any] = json.loads(RECIPE.read_text("utf-8"))
    return found


def model_is_here(home: Home) -> bool:
    return (home.models / str(recipe()["model"]) / "config.json").is_file()


def steps(job: Job) -> list[Step]:
    """Where the job is on its way. What has stopped it is marked at the step that it was at."""
    at = {"checking": 1, "queued": 2, "held": 2, "running": 2, "done": len(STEPS)}.get(job.state)
    stopped = at is None
    if at is None:
        at = 0 if job.state == "rejected" else 2 if job.attempts else 1
    moods = ["done" if number < at else "now" if number == at else "todo" for number in range(len(STEPS))]
    if stopped:
        moods[at] = "wrong"
    return [Step(name, mood) for name, mood in zip(STEPS, moods, strict=True)]


def losses(run: Run) -> list[float]:
    """The newest training losses, oldest first."""
    try:
        with open(run.metrics, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read()
    except OSError:
        return []
    found = []
    for line in data.splitlines():
        try:
            row = orjson.loads(line)
        except ValueError:
            continue
        loss = row.get("loss") if isinstance(row, dict) else None
        if isinstance(loss, int | float):
            found.append(float(loss))
    return found


def rows(run: Run) -> int | None:
    """How many rows the check found that can be trained on."""
    try:
        found = orjson.loads((run.data / "check.json").read_bytes()).get("usable_rows")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, int) else None
