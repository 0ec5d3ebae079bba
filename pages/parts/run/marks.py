"""What is marked on a run's curves: checkpoints, attempts, the best evaluation, and where something went wrong."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pages.parts.run import series
from pages.parts.run.columns import Columns

KINDS = ("checkpoint", "attempt", "best", "early", "not_finite", "diverged", "stalled")
"""A chart's table holds the place in this list: its order is part of the charts."""

MOST_CHECKPOINTS = 40
MOST_ATTEMPTS = 20

Mark = tuple[str, int, int]
"""(kind, step, which): `which` is the number of an attempt, else 0."""


def coded(found: Sequence[Mark]) -> list[tuple[int, int, int]]:
    """Kinds as their places in KINDS, as a chart's table holds them."""
    return [(KINDS.index(kind), step, which) for kind, step, which in found]


def find(
    columns: Columns,
    events: Sequence[dict[str, Any]],
    attempts: Sequence[dict[str, Any]] = (),
    error_code: str | None = None,
) -> list[Mark]:
    """Everything to mark, by step.

    Args:
        events: rows of events.jsonl, oldest first.
        attempts: the documents of attempts/, oldest first.
        error_code: of a job that failed.
    """
    last = columns.latest("step")
    if last is None:
        return []
    found = _checkpoints(events, int(last)) + _attempts(columns)
    best = series.best(columns)
    if best and columns.rows("eval_loss").size > 1:
        found.append(("best", best[0], 0))
    found += [("early", _step_at(columns, row.get("t")), 0) for row in events if row.get("event") == "ended_early"]
    bad = sorted({int(columns.columns["step"][row]) for row, _, _ in columns.nonfinite})
    found += [("not_finite", step, 0) for step in bad[:1]]
    found += [("stalled", _last_step(columns, each), 0) for each in attempts if each.get("outcome") == "stalled"]
    if error_code == "diverged" and not bad:
        found.append(("diverged", int(last), 0))
    return sorted(found, key=lambda mark: mark[1])


def _checkpoints(events: Sequence[dict[str, Any]], last: int) -> list[Mark]:
    """Each step once; of very many some, the newest among them."""
    told = {row.get("step") for row in events if row.get("event") == "checkpoint"}
    steps = sorted(step for step in told if isinstance(step, int) and 0 < step <= last)
    if len(steps) > MOST_CHECKPOINTS:
        steps = [steps[at] for at in np.linspace(0, len(steps) - 1, MOST_CHECKPOINTS).round().astype(int)]
    return [("checkpoint", step, 0) for step in steps]


def _attempts(columns: Columns) -> list[Mark]:
    """Where an attempt after the first took over: its first step that counts."""
    numbers = columns.columns["attempt"]
    if numbers.min() == numbers.max():
        return []
    rows = np.flatnonzero(columns.live)
    attempt = columns.columns["attempt"][rows]
    begins = rows[np.flatnonzero(np.diff(attempt) > 0) + 1]
    taken = [(int(columns.columns["step"][row]), int(columns.columns["attempt"][row])) for row in begins]
    return [("attempt", step, number) for step, number in taken[-MOST_ATTEMPTS:]]


def _step_at(columns: Columns, t: object) -> int:
    """The newest step at a moment (epoch seconds)."""
    rows = np.flatnonzero(columns.live)
    if not isinstance(t, (int, float)) or not columns.has("t") or not rows.size:
        return int(columns.latest("step") or 0)
    before = rows[columns.columns["t"][rows] <= t]
    return int(columns.columns["step"][before[-1] if before.size else rows[0]])


def _last_step(columns: Columns, attempt: dict[str, Any]) -> int:
    """Where an attempt stood when it ended."""
    own = columns.columns["step"][columns.columns["attempt"] == attempt.get("attempt")]
    return int(own.max()) if own.size else 0
