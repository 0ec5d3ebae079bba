"""What finished jobs took: read once a job from its folder, and kept while the process lives."""

import math
import os
import statistics
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from spool.forecast import rows, shapes
from spool.forecast.costs import LINEAR_BYTES, OPTIMIZER_BYTES, Plan
from spool.forecast.shapes import Shape
from spool.protocol import durable, jobs, metrics
from spool.protocol.home import Home, Run, State
from spool.protocol.states import Tokens

NEWEST = 200
TAIL_BYTES = 65_536
FEWEST_STEPS = 3


@dataclass(frozen=True)
class Past:
    """A finished training: what it was, and what it took. Seconds and bytes are None where they were not told."""

    job_id: str
    device: str
    shape: Shape
    plan: Plan
    step_s: float | None
    wall_s: float | None
    """From the start of its one attempt to its end; None where there were more attempts."""
    peak_gpu_bytes: int | None
    memory_bytes: int | None
    model: str = ""


def of(home: Home) -> list[Past]:
    """The newest finished trainings, newest first. A folder that cannot be read is passed over."""
    stamp = _stamp(home)
    with _lock:
        at, found = _found.get(str(home.root), (-1, []))
        if at == stamp:
            return found
        ids = _newest(home)
        known = _known.setdefault(str(home.root), {})
        for job_id in list(known.keys() - set(ids)):
            del known[job_id]
        for job_id in ids:
            if job_id not in known:
                known[job_id] = read(home, job_id)
        while len(_known) > 8:
            del _known[next(iter(_known))]
        found = [past for job_id in ids if (past := known[job_id]) is not None]
        _found[str(home.root)] = (stamp, found)
        return found


def wall_s(home: Home, kind: str) -> float | None:
    """How long jobs of a kind take by the median of the newest that finished; None before one has."""
    root, stamp = str(home.root), _stamp(home)
    with _lock:
        at, found = _usual.get(root, (-1, {}))
        if at != stamp:
            took: dict[str, list[float]] = {}
            wanted = set(_newest(home))
            for token in Tokens(home).list(State.DONE):
                seconds = _wall_s(home, home.run(token.job_id)) if token.job_id in wanted else None
                if seconds is not None:
                    took.setdefault(str(Tokens(home).body(State.DONE, token).get("kind", "train")), []).append(seconds)
            found = {name: statistics.median(each) for name, each in took.items()}
            _usual[root] = (stamp, found)
        return found.get(kind)


def _stamp(home: Home) -> int:
    """When a job last came to `done`; 0 before there is a home."""
    try:
        return home.state(State.DONE).stat().st_mtime_ns
    except OSError:
        return 0


_known: dict[str, dict[str, Past | None]] = {}
_found: dict[str, tuple[int, list[Past]]] = {}
_usual: dict[str, tuple[int, dict[str, float]]] = {}
"""By home, with the time at which a job last came to `done`: nothing else changes the answer."""
_lock = threading.Lock()


def _newest(home: Home) -> list[str]:
    """By their ids, which begin with the time: priorities order the folder's names, not time."""
    return sorted((token.job_id for token in Tokens(home).list(State.DONE)), reverse=True)[:NEWEST]


def read(home: Home, job_id: str) -> Past | None:
    """One finished job; None where its files do not tell enough."""
    run = home.run(job_id)
    try:
        result = (durable.read_json(run.result) or {})["result"]
        spec = durable.read_json(run.spec) or {}
        base = result["base"]
        shape = shapes.of(home, str(base["reference"]), home.root / str(base["folder"]))
        if shape is None:
            return None
        plan = _plan(run, spec, result)
        told = _rows(run.metrics)
        steps_s = [row["step_time_s"] for row in told if isinstance(row.get("step_time_s"), int | float)]
        held = [row["host_mem_bytes"] for row in told if isinstance(row.get("host_mem_bytes"), int)]
        steps_s = steps_s[2:] if len(steps_s) > 2 * FEWEST_STEPS else steps_s  # the first ones compile kernels
        return Past(
            job_id,
            str(result["device"]),
            shape,
            plan,
            statistics.median(steps_s) if len(steps_s) >= FEWEST_STEPS else None,
            _wall_s(home, run),
            result["peak_gpu_mem_bytes"] if isinstance(result.get("peak_gpu_mem_bytes"), int) else None,
            max(held) if held else None,
            str(base["reference"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
        return None


def _plan(run: Run, spec: dict[str, Any], result: dict[str, Any]) -> Plan:
    """Raises KeyError, TypeError or ValueError where something is missing or no number."""
    train, lora, steps = spec["train"], spec["lora"], int(result["steps"])
    if spec["precision"] not in LINEAR_BYTES or train["optimizer"] not in OPTIMIZER_BYTES or steps < 1:
        raise ValueError("not resolved")
    batch, accumulation = int(train["batch_size"]), int(train["gradient_accumulation"])
    counted = rows.prepared(run.data)
    mean = counted.mean_tokens if counted else result["tokens"] / (steps * batch * accumulation)
    held = int(result.get("eval_rows") or 0)
    return Plan(
        steps,
        batch,
        accumulation,
        max(1.0, float(mean)),
        float(spec["data"]["max_length"]),
        int(lora["rank"]),
        lora["target_modules"],
        spec["precision"],
        bool(train["gradient_checkpointing"]),
        train["optimizer"],
        result["device"] != "cpu",
        int(result.get("train_rows") or 0),
        held,
        -(-steps // int(spec["eval"]["every_steps"])) if held else 0,
        tuple(map(str, spec["export"])),
        float((result.get("report") or {}).get("seconds") or 0.0),
        train.get("packing") is True,
        float((result.get("measured") or {}).get("room_tokens") or math.inf),
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    """The last rows of its metrics; the first one of a long file is cut and passed over."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return metrics.parse(file.read())[0]
    except OSError:
        return []


def _wall_s(home: Home, run: Run) -> float | None:
    attempts = jobs.attempt_files(home, run.root.name)
    if len(attempts) != 1:
        return None
    try:
        attempt = durable.read_json(attempts[0]) or {}
        started, ended = (datetime.fromisoformat(attempt[name]) for name in ("started_at", "ended_at"))
        return (ended - started).total_seconds()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
