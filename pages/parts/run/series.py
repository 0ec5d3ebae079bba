"""What of a run's columns is drawn: an axis to draw along, curves smoothed whole and thinned to what a screen shows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from tsdownsample import MinMaxLTTBDownsampler

from pages.parts.run.bulk import Numbers
from pages.parts.run.columns import Columns, Flags, Rows
from spool.protocol import energy

MAX_POINTS = 1000
"""Of the loss: as many as a wide screen has pixels for."""

TIPS = 300
"""Places along the axis that tell their numbers under the pointer: each is a shape that the browser keeps."""

MAX_EVALUATIONS = 300
STRIP_POINTS = 160
SPARK_POINTS = 48
AXES = ("step", "time", "epoch", "tokens")
RANGES = {"all": 1.0, "half": 0.5, "tenth": 0.1}
SMOOTHINGS = (0.0, 0.01, 0.025, 0.05, 0.1, 0.2)
"""Shares of the run that the trend averages over: they mean the same for 100 steps and for 1,000,000."""

USUAL_SMOOTHING = 0.025
SMOOTHED_FROM = 20
"""Shorter curves are shown as they are: an average of a few points hides more than it shows."""

SIDE = 0.85
"""Beyond this share of the axis a word would run out of the chart."""


def window(share: float, rows: int, step: float | None, total_steps: float | None) -> float:
    """Over how many rows the trend averages: a share of those that the whole run will have.

    It does not grow with the run, or each refresh would change the past of the line.
    """
    expected = rows * max(1.0, total_steps / step) if step and total_steps else rows
    return max(1.0, share * expected) if rows >= SMOOTHED_FROM else 1.0


def smooth(values: Numbers | Sequence[float], window: float) -> Numbers:
    """The debiased exponential average over about `window` values; the first is itself, not pulled towards 0.

    out[n] = sum(w**k * values[n - k]) / sum(w**k) over k = 0..n, with w = 1 - 1 / window.
    """
    given = np.asarray(values, "f8")
    if window <= 1:
        return given
    averaged: Numbers = pd.Series(given).ewm(alpha=1 / window, adjust=True).mean().to_numpy()
    return averaged


def thin(x: Numbers, values: Numbers, points: int = MAX_POINTS) -> Rows:
    """Positions of about `points` values that keep a line's outline along ascending x: both ends, and lone spikes."""
    if len(values) <= points:
        return np.arange(len(values))
    chosen = MinMaxLTTBDownsampler().downsample(
        np.ascontiguousarray(x, "f8"), np.ascontiguousarray(values, "f8"), n_out=points
    )
    return chosen.astype(np.intp)


def axes(columns: Columns) -> list[str]:
    """Along what this run can be drawn."""
    needs = {"step": "step", "time": "t", "epoch": "epoch", "tokens": "tokens"}
    return [axis for axis in AXES if columns.has(needs[axis])]


def along(columns: Columns, rows: Rows, axis: str, every: bool = False) -> Numbers:
    """Where rows stand on an axis: steps, seconds trained, epochs or tokens learned from.

    Rows that do not carry it (an evaluation has no tokens) stand where their step does.
    """
    if axis == "step":
        return columns.at("step", rows)
    if axis == "time":
        return trained_s(columns, every)[rows]
    known = columns.rows(axis)
    return np.interp(columns.at("step", rows), columns.at("step", known), columns.at(axis, known))


def trained_s(columns: Columns, every: bool = False) -> Numbers:
    """For each row the seconds of training up to it; the time between two attempts and lost steps do not count."""
    out = np.zeros(columns.size)
    kept = np.flatnonzero(columns.live) if not every else np.arange(columns.size)
    t, attempt = columns.at("t", kept), columns.at("attempt", kept)
    known = np.isfinite(t)
    took = np.zeros(kept.size)
    took[1:] = np.where((np.diff(attempt) == 0) & known[1:] & known[:-1], np.clip(np.diff(t), 0, None), 0.0)
    out[kept] = np.cumsum(np.nan_to_num(took))
    return out


def energy_wh(columns: Columns) -> float | None:
    """What the card has used, from its power over time; None without a reading. Steps done again cost theirs too."""
    rows = columns.rows("gpu_power_w", every=True)
    if not rows.size:
        return None
    return energy.used_wh(*(columns.at(name, rows) for name in ("t", "gpu_power_w", "attempt")))


def spark(values: Sequence[float] | Numbers, points: int = SPARK_POINTS) -> list[float]:
    """A curve in at most `points` means, for a chart the size of a word; empty below three. Gaps are left out."""
    given = np.asarray(values, "f8")
    given = given[np.isfinite(given)]
    if given.size > points:
        begins = np.arange(points) * given.size // points
        given = np.add.reduceat(given, begins) / np.diff(np.append(begins, given.size))
    return [float(f"{value:.5g}") for value in given] if given.size > 2 else []


def best(columns: Columns) -> tuple[int, float] | None:
    """(step, eval loss) of the best evaluation, the first of equals."""
    rows = columns.rows("eval_loss")
    if not rows.size:
        return None
    losses = columns.at("eval_loss", rows)
    at = int(losses.argmin())
    return int(columns.at("step", rows)[at]), float(losses[at])


def loss_table(
    columns: Columns,
    axis: str = "step",
    share: float = USUAL_SMOOTHING,
    shown: str = "all",
    marks: Sequence[tuple[int, int, int]] = (),
    points: int = MAX_POINTS,
) -> pd.DataFrame:
    """x, step, loss, trend, eval_loss, mark, which, side, tip: what the loss chart draws, by x.

    It is one table, because a chart of one table keeps its view while the rows change. `mark` is what a row marks, -1
    for nothing, `side` 1 where its word stands before it, and `tip` true where the row tells its numbers; an evaluation
    stands in the row of its step.

    Args:
        shown: one of RANGES: the last part of the run.
        marks: (mark, step, which) of what is marked.
    """
    rows, tested = columns.rows("loss"), columns.rows("eval_loss")
    x, step, values = along(columns, rows, axis), columns.at("step", rows), columns.at("loss", rows)
    trend = smooth(values, window(share, rows.size, columns.latest("step"), columns.latest("total_steps")))
    tested_x, tested_step = along(columns, tested, axis), columns.at("step", tested)
    ends = [end for each in (x, tested_x) if each.size for end in (each[0], each[-1])]
    since = max(ends, default=0.0) - (max(ends, default=0.0) - min(ends, default=0.0)) * RANGES[shown]
    first = int(np.searchsorted(x, since))
    seen = np.flatnonzero(tested_x >= since)
    seen = seen[thin(tested_x[seen], columns.at("eval_loss", tested[seen]), MAX_EVALUATIONS)]
    place = np.searchsorted(step, tested_step[seen])
    beside = np.array(
        [at < step.size and step[at] == own for at, own in zip(place, tested_step[seen], strict=True)], "?"
    )
    kept = np.union1d(thin(x[first:], values[first:], points) + first, place[beside]).astype(np.intp)
    evals = np.full(kept.size, np.nan)
    evals[np.searchsorted(kept, place[beside])] = columns.at("eval_loss", tested[seen[beside]])
    alone = seen[~beside]
    noted = [(mark, at, which, x_at) for (mark, at, which), x_at in zip(marks, _places(marks, step, x), strict=True)]
    noted = [each for each in noted if each[3] >= since]
    end = (columns.latest("total_steps") if axis == "step" else None) or max(ends, default=0.0)
    late = [each[3] > since + SIDE * (end - since) for each in noted]
    rest = alone.size + len(noted)
    nothing = np.full(rest, np.nan)
    made = {
        "x": (np.r_[x[kept], tested_x[alone], [each[3] for each in noted]], "f4"),
        "step": (np.r_[step[kept], tested_step[alone], [each[1] for each in noted]], "i4"),
        "loss": (np.r_[values[kept], nothing], "f4"),
        "trend": (np.r_[trend[kept], nothing], "f4"),
        "eval_loss": (np.r_[evals, columns.at("eval_loss", tested[alone]), np.full(len(noted), np.nan)], "f4"),
        "mark": (np.r_[np.full(kept.size + alone.size, -1), [each[0] for each in noted]], "i1"),
        "which": (np.r_[np.zeros(kept.size + alone.size), [each[2] for each in noted]], "i2"),
        "side": (np.r_[np.zeros(kept.size + alone.size), late], "i1"),
        "tip": (np.r_[_tips(x[kept]) | np.isfinite(evals), np.ones(alone.size), np.zeros(len(noted))], "?"),
    }
    order = np.argsort(made["x"][0], kind="stable")
    return pd.DataFrame({name: values[order].astype(kind) for name, (values, kind) in made.items()})


def _tips(x: Numbers) -> Flags:
    """The first of each of TIPS equal parts of an ascending axis; all where there are no more."""
    if x.size <= TIPS or x[-1] <= x[0]:
        return np.ones(x.size, "?")
    part = ((x - x[0]) * (TIPS / (x[-1] - x[0]))).astype(np.intp)
    return np.append(True, np.diff(part) != 0)


def _places(marks: Sequence[tuple[int, int, int]], step: Numbers, x: Numbers) -> Numbers:
    """Where the steps of marks stand on an axis."""
    return np.interp([at for _, at, _ in marks], step, x) if marks and step.size else np.full(len(marks), np.nan)


def attempts_table(columns: Columns, axis: str = "step", points: int = MAX_POINTS) -> pd.DataFrame:
    """x, step, loss, attempt: the losses of every attempt, each thinned by itself."""
    rows = columns.rows("loss", every=True)
    numbers = columns.at("attempt", rows)
    x, step, values = along(columns, rows, axis, every=True), columns.at("step", rows), columns.at("loss", rows)
    known = np.unique(numbers)[-12:]
    parts = []
    for each in known:
        own = np.flatnonzero(numbers == each)
        own = own[np.argsort(x[own], kind="stable")]
        own = own[thin(x[own], values[own], max(100, points // len(known)))]
        parts.append(pd.DataFrame({"x": x[own], "step": step[own], "loss": values[own], "attempt": int(each)}))
    table = pd.concat(parts) if parts else pd.DataFrame({"x": [], "step": [], "loss": [], "attempt": []})
    return table.astype({"x": "float32", "step": "int32", "loss": "float32", "attempt": "int16"})


STRIP = {
    "learning_rate": "last",
    "grad_norm": "max",
    "tokens_per_s": "mean",
    "gpu_util_pct": "mean",
    "gpu_mem_bytes": "max",
    "gpu_temp_c": "max",
    "gpu_power_w": "mean",
    "host_mem_bytes": "max",
}
"""What is drawn under the loss, and how rows become one point: a spike of the gradient must not be averaged away."""


def strip_fields(columns: Columns) -> list[str]:
    """Which of STRIP this run has; the program's own memory only where the card's is not known."""
    found = [name for name in STRIP if columns.has(name)]
    return [name for name in found if name != "host_mem_bytes" or "gpu_mem_bytes" not in found]


def strip_table(columns: Columns, axis: str = "step", shown: str = "all", points: int = STRIP_POINTS) -> pd.DataFrame:
    """x, step and a column for each of strip_fields: all at the same places, so that one ruler reads them all."""
    fields = strip_fields(columns)
    rows = columns.rows("loss") if columns.has("loss") else columns.rows("step")
    x = along(columns, rows, axis)
    if x.size:
        first = int(np.searchsorted(x, x[-1] - (x[-1] - x[0]) * RANGES[shown]))
        rows, x = rows[first:], x[first:]
    if not rows.size:
        return pd.DataFrame({name: np.zeros(0) for name in ("x", "step", *fields)})
    count = min(points, rows.size)
    begins = np.arange(count) * rows.size // count
    ends = np.append(begins[1:], rows.size)
    last = rows[ends - 1]
    made = {"x": x[ends - 1].astype("f4"), "step": columns.at("step", last).astype("i4")}
    in_order = bool(columns.live.all()) and bool((np.diff(rows) > 0).all())
    for name in fields:
        if STRIP[name] == "last":
            made[name] = columns.at(name, last).astype("f4")
        elif in_order:  # spans of the file as it lies there; what stands between has no such number
            values = columns.columns[name][rows[0] : rows[-1] + 1]
            made[name] = _reduce(values, rows[begins] - rows[0], STRIP[name])
        else:
            made[name] = _reduce(columns.at(name, rows), begins, STRIP[name])
    return pd.DataFrame(made)


def _reduce(values: Numbers, begins: Rows, how: str) -> Numbers:
    """The mean or the highest number of each span, NaN where it has none."""
    known = np.isfinite(values)
    counts = np.add.reduceat(known, begins, dtype="f8")
    if how == "max":
        made = np.maximum.reduceat(np.where(known, values, -np.inf), begins)
    else:
        made = np.add.reduceat(np.where(known, values, 0), begins, dtype="f8") / np.maximum(counts, 1)
    found: Numbers = np.where(counts > 0, made, np.nan).astype("f4")
    return found
