"""Several runs on one chart: laid on a common axis, smoothed, thinned to a screen; their colours; CSV to take along."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv

from pages.parts.run import series
from pages.parts.run.bulk import Numbers
from pages.parts.run.columns import Columns, Rows
from spool.data.keeping.export import harmless

MOST_RUNS = 8
POINTS = 2400
"""Of all curves of a chart together."""
GRID = 160
"""Places at which the pointer reads all curves off."""


def slots(ids: Sequence[str], before: Mapping[str, int]) -> dict[str, int]:
    """A colour for each run: those that stay keep theirs, a new one gets the lowest free one."""
    kept = {each: before[each] for each in ids if each in before}
    free = (slot for slot in range(MOST_RUNS) if slot not in kept.values())
    return {each: kept[each] if each in kept else next(free) for each in ids[:MOST_RUNS]}


def asked(text: str | None) -> list[str]:
    """The ids of an address (`ID,ID`), each once, as many as are compared."""
    ids = dict.fromkeys(part.strip().upper() for part in (text or "").split(",") if part.strip())
    return list(ids)[:MOST_RUNS]


def axes(curves: Iterable[Columns]) -> list[str]:
    """Along what at least one of the runs can be drawn; steps always."""
    able = {"step"} | {axis for columns in curves for axis in series.axes(columns)}
    return [axis for axis in series.AXES if axis in able]


def table(
    curves: Mapping[int, Columns], axis: str, share: float, log: bool = False, points: int = POINTS
) -> pd.DataFrame:
    """What the chart draws, by colour slot: run (`r0` ...), x, loss, trend, eval_loss, at, best.

    It is one table, because a chart of one table keeps its view while the rows change. `at` is the trend read off at
    places that all runs share, `best` the lowest eval loss of all.

    Args:
        share: of a run that its trend averages over.
        log: what a logarithm cannot show is left out.
    """
    able = {slot: columns for slot, columns in curves.items() if axis in series.axes(columns)}
    lines = {slot: _line(columns, axis, share, log) for slot, columns in able.items()}
    places = _places([x for x, _, _ in lines.values()])
    most = max(120, points // max(1, len(able)))
    parts = []
    for slot, columns in able.items():
        found = [*_trained(*lines[slot], most, places), *_tested(columns, axis, log, most)]
        parts += [part.assign(run=f"r{slot}") for part in found]
    names = {name: pd.Series(dtype="float32") for name in ("x", "loss", "trend", "eval_loss", "at", "best")}
    if not parts:
        return pd.DataFrame({"run": pd.Series(dtype="str"), **names})
    whole = pd.concat(parts, ignore_index=True).reindex(columns=["run", *names])
    losses = whole["eval_loss"].to_numpy()
    if len(curves) > 1 and np.isfinite(losses).any():
        lowest = int(np.nanargmin(losses))
        whole.loc[lowest, "best"] = losses[lowest]
    return whole.astype(dict.fromkeys(names, "float32"))


def _line(columns: Columns, axis: str, share: float, log: bool) -> tuple[Numbers, Numbers, Numbers]:
    """(x, loss, trend) of every row; the trend is that of the whole curve, whatever of it is drawn."""
    rows = columns.rows("loss")
    x, values = series.along(columns, rows, axis), columns.at("loss", rows)
    window = series.window(share, rows.size, columns.latest("step"), columns.latest("total_steps"))
    trend = columns.remember(("overlay", share), lambda: series.smooth(values, window))
    kept = values > 0 if log else np.ones(rows.size, bool)
    return x[kept], values[kept], trend[kept]


def _trained(x: Numbers, values: Numbers, trend: Numbers, most: int, places: Numbers) -> Iterator[pd.DataFrame]:
    if not x.size:
        return
    kept = series.thin(x, values, most)
    yield pd.DataFrame({"x": x[kept], "loss": values[kept], "trend": trend[kept]})
    inside = places[(places >= x[0]) & (places <= x[-1])]
    yield pd.DataFrame({"x": inside, "at": np.interp(inside, x, trend)})


def _tested(columns: Columns, axis: str, log: bool, most: int) -> Iterator[pd.DataFrame]:
    rows = columns.rows("eval_loss")
    losses = columns.at("eval_loss", rows)
    rows, losses = (rows[losses > 0], losses[losses > 0]) if log else (rows, losses)
    if not rows.size:
        return
    x = series.along(columns, rows, axis)
    kept: Rows = np.union1d(series.thin(x, losses, most), [losses.argmin()])
    yield pd.DataFrame({"x": x[kept], "eval_loss": losses[kept]})


def _places(axes: Sequence[Numbers]) -> Numbers:
    ends = [x for x in axes if x.size]
    if not ends:
        return np.zeros(0)
    places: Numbers = np.unique(np.linspace(min(x[0] for x in ends), max(x[-1] for x in ends), GRID))
    return places


def curves_csv(curves: Mapping[tuple[str, str], Columns]) -> bytes:
    """Every row of every run, not thinned: job, name, step, epoch, tokens, seconds, loss, eval_loss, learning_rate.

    Args:
        curves: by (id, name).
    """
    tables = []
    for (job_id, name), columns in curves.items():
        rows = np.flatnonzero(columns.live)
        made = {"job": pa.array([job_id] * rows.size), "name": pa.array([harmless(name)] * rows.size)}
        made["step"] = pa.array(columns.at("step", rows).astype("i8"))
        found = {each: columns.at(each, rows) for each in ("epoch", "tokens", "loss", "eval_loss", "learning_rate")}
        found["seconds"] = series.trained_s(columns)[rows]
        for each in ("epoch", "tokens", "seconds", "loss", "eval_loss", "learning_rate"):
            kind = "f8" if each in ("tokens", "seconds") else "f4"
            made[each] = pa.array(found[each].astype(kind), from_pandas=True)
        tables.append(pa.table(made))
    out = io.BytesIO(b"\xef\xbb\xbf")
    out.seek(0, io.SEEK_END)
    if tables:
        arrow_csv.write_csv(pa.concat_tables(tables), out)
    return out.getvalue()


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
