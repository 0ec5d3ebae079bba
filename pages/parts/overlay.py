"""Curves of several runs for one chart: read once as columns, laid on a common axis, smoothed, thinned to a screen.

The whole curve is smoothed first and then thinned, so that the trend does not depend on how much is drawn.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tsdownsample import MinMaxLTTBDownsampler

from spool.data.keeping.export import harmless
from spool.protocol import metrics

Numbers = NDArray[np.float64]

AXES = ("step", "epoch", "tokens", "time")
MOST_RUNS = 8
POINTS = 2400
"""Of all curves of a chart together."""
GRID = 160
"""Places at which the pointer reads all curves off."""
PAUSE_S = 600.0
"""Two rows of an attempt further apart than this do not count as training: a machine that slept, a frozen process."""


@dataclass(frozen=True)
class Curve:
    """One run's rows as columns of equal length, resumed steps once, in the order of the steps; NaN where a row has no
    such number. `time` counts the seconds of training, without the time between attempts."""

    step: Numbers
    epoch: Numbers
    tokens: Numbers
    time: Numbers
    loss: Numbers
    eval_loss: Numbers
    learning_rate: Numbers
    energy_j: float | None = None
    """Power over time, where the card tells it."""

    def axis(self, name: str) -> Numbers:
        return {"step": self.step, "epoch": self.epoch, "tokens": self.tokens, "time": self.time}[name]


def load(path: Path) -> Curve:
    """The curve of a metrics.jsonl; one without rows where there is none."""
    return of_rows(metrics.one_line(metrics.read(path)))


def of_rows(rows: Sequence[Mapping[str, Any]]) -> Curve:
    def column(name: str) -> Numbers:
        values = (row.get(name) for row in rows)
        usable = (v if isinstance(v, int | float) and not isinstance(v, bool) else np.nan for v in values)
        return np.fromiter(usable, dtype=np.float64, count=len(rows))

    step, epoch = column("step"), column("epoch")
    passed = _passed(column("t"), column("attempt"))
    trained = np.nan_to_num(column("tokens_per_s") * column("step_time_s"))
    tokens = np.cumsum(trained) if trained.any() else np.full(len(rows), np.nan)
    power = column("gpu_power_w")
    energy = float(np.nansum(power * passed)) if np.isfinite(power).any() else None
    if np.isfinite(epoch).sum() > 1 and np.isnan(epoch).any():  # an evaluation's row carries none
        known = np.isfinite(epoch)
        epoch = np.interp(step, step[known], epoch[known])
    return Curve(
        step, epoch, tokens, np.cumsum(passed), column("loss"), column("eval_loss"), column("learning_rate"), energy
    )


def _passed(t: Numbers, attempt: Numbers) -> Numbers:
    """Seconds since the row before: 0 at the first row of an attempt, and where a clock was set."""
    if not len(t):
        return t
    passed = np.diff(t, prepend=t[0])
    passed[1:][attempt[1:] != attempt[:-1]] = 0.0
    return np.where((passed > 0) & (passed < PAUSE_S), passed, 0.0)


def smooth(values: Numbers, weight: float) -> Numbers:
    """The debiased exponential average: the first value is itself, not pulled towards 0. NaN is passed over."""
    if weight <= 0:
        return values
    return pd.Series(values).ewm(alpha=1 - weight, adjust=True, ignore_na=True).mean().to_numpy()


def slots(ids: Sequence[str], before: Mapping[str, int]) -> dict[str, int]:
    """A colour for each run: those that stay keep theirs, a new one gets the lowest free one."""
    kept = {each: before[each] for each in ids if each in before}
    free = (slot for slot in range(MOST_RUNS) if slot not in kept.values())
    return {each: kept[each] if each in kept else next(free) for each in ids[:MOST_RUNS]}


def asked(text: str | None, known: Iterable[str] | None = None) -> list[str]:
    """The ids of an address (`ID,ID`), each once, as many as are compared; only known ones where those are given."""
    ids = dict.fromkeys(part.strip().upper() for part in (text or "").split(",") if part.strip())
    allowed = set(known) if known is not None else None
    return [each for each in ids if allowed is None or each in allowed][:MOST_RUNS]


def has(curves: Iterable[Curve], axis: str) -> bool:
    """Whether any curve can be drawn over this axis."""
    return any(np.isfinite(curve.axis(axis)).any() for curve in curves)


def table(
    curves: Mapping[int, Curve], axis: str, weight: float, log: bool = False, points: int = POINTS
) -> pd.DataFrame:
    """What the chart draws, by colour slot: run (`r0` ...), x, loss, trend, eval_loss, at, best.

    It is one table, because a chart of one table keeps its view while the rows change. `at` is the trend read off at
    places that all runs share, `best` the lowest eval loss of all.
    """
    whole = {slot: _drawable(curve, axis, log) for slot, curve in curves.items()}
    trends = {slot: smooth(curve.loss, weight) for slot, curve in whole.items()}
    share = max(120, points // max(1, len(curves)))
    places = _places([curve.axis(axis) for curve in whole.values()])
    parts = []
    for slot, curve in whole.items():
        parts += [part.assign(run=f"r{slot}") for part in _parts(curve, trends[slot], axis, share, places)]
    columns = {name: pd.Series(dtype="float32") for name in ("x", "loss", "trend", "eval_loss", "at", "best")}
    if not parts:
        return pd.DataFrame({"run": pd.Series(dtype="str"), **columns})
    found = pd.concat(parts, ignore_index=True).reindex(columns=["run", *columns])
    if len(curves) > 1 and found["eval_loss"].notna().any():
        lowest = int(found["eval_loss"].to_numpy().argmin())
        found.loc[lowest, "best"] = found.loc[lowest, "eval_loss"]
    return found.astype({name: "float64" if name == "x" else "float32" for name in columns})


def _drawable(curve: Curve, axis: str, log: bool) -> Curve:
    """Without rows that have no place on the axis; what a logarithm cannot show is left out."""
    kept = np.isfinite(curve.axis(axis))
    columns = {name: getattr(curve, name)[kept] for name in (*AXES, "loss", "eval_loss", "learning_rate")}
    if log:
        for name in ("loss", "eval_loss"):
            columns[name] = np.where(columns[name] > 0, columns[name], np.nan)
    return Curve(**columns, energy_j=curve.energy_j)


def _parts(curve: Curve, trend: Numbers, axis: str, share: int, places: Numbers) -> Iterator[pd.DataFrame]:
    x = curve.axis(axis)
    rows = np.flatnonzero(np.isfinite(curve.loss))
    if len(rows):
        kept = rows[_thin(curve.loss[rows], share)]
        yield pd.DataFrame({"x": x[kept], "loss": curve.loss[kept], "trend": trend[kept]})
        inside = places[(places >= x[rows[0]]) & (places <= x[rows[-1]])]
        yield pd.DataFrame({"x": inside, "at": np.interp(inside, x[rows], trend[rows])})
    rows = np.flatnonzero(np.isfinite(curve.eval_loss))
    if len(rows):
        kept = rows[_thin(curve.eval_loss[rows], share)]
        lowest = rows[int(np.argmin(curve.eval_loss[rows]))]
        kept = np.union1d(kept, [lowest])
        yield pd.DataFrame({"x": x[kept], "eval_loss": curve.eval_loss[kept]})


def _places(axes: Sequence[Numbers]) -> Numbers:
    ends = [each for each in axes if len(each)]
    if not ends:
        return np.array([])
    low, high = min(each.min() for each in ends), max(each.max() for each in ends)
    return np.unique(np.linspace(low, high, GRID))


def _thin(values: Numbers, points: int) -> NDArray[np.int64]:
    """Positions of about `points` values that keep the outline, lone spikes too."""
    if len(values) <= points:
        return np.arange(len(values))
    return MinMaxLTTBDownsampler().downsample(values, n_out=points).astype(np.int64)


CURVE_COLUMNS = ("step", "epoch", "tokens", "time", "loss", "eval_loss", "learning_rate")


def curves_csv(curves: Mapping[tuple[str, str], Curve]) -> bytes:
    """Every row of every run, not thinned: job, name, step, epoch, tokens, seconds, loss, eval_loss, learning_rate.

    Args:
        curves: by (id, name).
    """
    frames = [
        pd.DataFrame({name: getattr(curve, name) for name in CURVE_COLUMNS}).assign(job=job_id, name=harmless(said))
        for (job_id, said), curve in curves.items()
    ]
    if not frames:
        return b""
    found = pd.concat(frames, ignore_index=True)[["job", "name", *CURVE_COLUMNS]].rename(columns={"time": "seconds"})
    found["step"] = found["step"].astype("Int64")
    return b"\xef\xbb\xbf" + found.to_csv(index=False, float_format="%.7g", lineterminator="\r\n").encode()


def table_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A table for a spreadsheet: numbers stay numbers, text that could be a formula gets an apostrophe (OWASP)."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([harmless(each) for each in header])
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return b"\xef\xbb\xbf" + out.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, int | float) else harmless(str(value))
