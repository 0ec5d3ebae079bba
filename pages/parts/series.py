"""Metric rows as series to draw: whole curves smoothed first, then thinned to what a screen can show."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from spool.protocol import metrics
from spool.protocol.metrics import Row

MAX_POINTS = 2000
SMOOTHED_FROM = 20
"""Shorter curves are shown as they are: an average of a few points hides more than it shows."""


class Follower:
    """One run's rows, read on from where the last look ended. A page keeps one in its session."""

    def __init__(self, path: Path) -> None:
        self.reader = metrics.Reader(path)
        self.rows: list[Row] = []
        self.every: list[Row] = []
        """Also what a later attempt did again, in the order in which it was written."""

    def look(self) -> list[Row]:
        """The rows of one curve so far, resumed steps counted once."""
        new = self.reader.read_new()
        if self.reader.restarted:
            self.rows, self.every = [], []
        if new:
            self.every += new
            self.rows = metrics.one_line(self.rows + new)
        return self.rows

    @property
    def broken(self) -> int:
        """How many lines could not be read; they are passed over."""
        return self.reader.broken

    @property
    def repeated(self) -> bool:
        """Whether an attempt went over steps that an earlier one had done."""
        return len(self.rows) < len(self.every)


def number(value: Any) -> float | None:
    """The value where it is a finite number."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def latest(rows: Sequence[Row], name: str) -> float | None:
    """The newest number that stands under `name`."""
    return next((value for row in reversed(rows) if (value := number(row.get(name))) is not None), None)


def best(rows: Sequence[Row], name: str) -> float | None:
    return min((value for row in rows if (value := number(row.get(name))) is not None), default=None)


def pick(rows: Sequence[Row], name: str) -> tuple[list[int], list[float]]:
    """(steps, values) of the rows that hold a number under `name`."""
    pairs = [(number(row.get("step")), number(row.get(name))) for row in rows]
    kept = [(int(step), value) for step, value in pairs if step is not None and value is not None]
    return [step for step, _ in kept], [value for _, value in kept]


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """The debiased exponential average: the first value is itself, not pulled towards 0."""
    average, out = 0.0, []
    for count, value in enumerate(values, start=1):
        average = weight * average + (1 - weight) * value
        out.append(average / (1 - weight**count))
    return out


def thin(values: Sequence[float], points: int = MAX_POINTS) -> list[int]:
    """Positions of at most `points` values that keep the outline: each bucket's lowest and highest, and both ends."""
    total = len(values)
    if total <= points:
        return list(range(total))
    buckets = (points - 2) // 2
    kept = {0, total - 1}
    for bucket in range(buckets):
        start = 1 + bucket * (total - 2) // buckets
        end = 1 + (bucket + 1) * (total - 2) // buckets
        kept.add(min(range(start, end), key=values.__getitem__))
        kept.add(max(range(start, end), key=values.__getitem__))
    return sorted(kept)


def loss_frame(rows: Sequence[Row], points: int = MAX_POINTS) -> pd.DataFrame:
    """step, loss, trend, eval_loss: what the loss chart draws. The trend averages over about a fortieth of the rows.

    It is one table, because a chart of one table keeps its view while the rows change.
    """
    steps, values = pick(rows, "loss")
    window = max(3.0, len(values) / 40)
    trend = smooth(values, 1 - 1 / window) if len(values) >= SMOOTHED_FROM else values
    kept = thin(values, points)
    training = pd.DataFrame(
        {"step": [steps[i] for i in kept], "loss": [values[i] for i in kept], "trend": [trend[i] for i in kept]}
    )
    merged = training.merge(frame(rows, "eval_loss", points), on="step", how="outer").sort_values("step")
    return merged.astype({"step": "int32", "loss": "float32", "trend": "float32", "eval_loss": "float32"})


def attempts_frame(rows: Sequence[Row], points: int = MAX_POINTS) -> pd.DataFrame:
    """step, loss, attempt: the losses of every attempt, each thinned by itself."""
    numbers = sorted({int(row["attempt"]) for row in rows if number(row.get("loss")) is not None and "attempt" in row})
    parts = []
    for each in numbers:
        own = frame([row for row in rows if row.get("attempt") == each], "loss", max(100, points // len(numbers)))
        parts.append(own.assign(attempt=f"attempt {each}"))
    return pd.concat(parts) if parts else pd.DataFrame({"step": [], "loss": [], "attempt": []})


def frame(rows: Sequence[Row], name: str, points: int = MAX_POINTS) -> pd.DataFrame:
    """step and one value, such as eval_loss or learning_rate."""
    steps, values = pick(rows, name)
    kept = thin(values, points)
    return pd.DataFrame(
        {
            "step": pd.Series([steps[i] for i in kept], dtype="int32"),
            name: pd.Series([values[i] for i in kept], dtype="float32"),
        }
    )


def not_finite(rows: Sequence[Row]) -> list[int]:
    """The steps whose loss was no number."""
    return [int(row["step"]) for row in rows if "loss" in (row.get("nonfinite") or {}) and row.get("step") is not None]
