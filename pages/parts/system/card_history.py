"""The GPU over the last hours: what the metrics of running and finished jobs say of it, thinned to what a chart shows.

Nothing is sampled beside the training: between jobs the card is not looked at, and the curve has a gap.
"""

import os
import threading
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

from spool.protocol.home import FINAL, Home, State
from spool.protocol.states import Tokens

FIELDS = ("gpu_util_pct", "gpu_mem_bytes", "gpu_temp_c", "gpu_power_w")
MOST_JOBS = 60
LOOKED_AT = 400
"""Ended jobs, the newest first, whose files are asked when they were written last."""
WHOLE_BYTES = 1_000_000
PIECES, PIECE_BYTES = 240, 4_096
"""Of a longer file so many pieces are read, at even distances."""
POINTS = 360
GAP_S = 120.0


def table(home: Home, now_s: float, hours: float) -> pd.DataFrame:
    """Columns t (UTC epoch s), gpu_util_pct, gpu_mem_bytes, gpu_temp_c, gpu_power_w and stretch, in order of time.

    At most some 360 rows, each the mean of its slice of time; memory the highest. Rows of one `stretch` hang
    together: where nothing was measured for two minutes a new one begins. Empty where no job saw a card.
    """
    since = now_s - hours * 3600
    rows = [row for path in _files(home, since) for row in _kept_rows(path) if since <= row[0] <= now_s + 60]
    found = pd.DataFrame(rows, columns=["t", *FIELDS]).astype(float)
    if found.empty:
        return found.assign(stretch=pd.Series(dtype=int))
    slice_s = hours * 3600 / POINTS
    found["slice"] = ((found["t"] - since) // slice_s).astype(int)
    how = {"t": "mean", **dict.fromkeys(FIELDS, "mean"), "gpu_mem_bytes": "max"}
    thin = found.groupby("slice", sort=True).agg(how).reset_index(drop=True)
    thin["stretch"] = (thin["t"].diff() > max(GAP_S, 1.5 * slice_s)).cumsum()
    return thin


def newest(home: Home, job_id: str) -> dict[str, Any]:
    """What the card did at the newest row of a running job; empty where it told nothing."""
    for line in reversed(_tail(home.run(job_id).metrics).splitlines()):
        row = _row(line)
        if row and any(name in row for name in FIELDS):
            return {name: row[name] for name in ("t", *FIELDS) if isinstance(row.get(name), int | float)}
    return {}


def _files(home: Home, since: float) -> list[Path]:
    """Metrics that were written since, of the newest jobs."""
    tokens = Tokens(home)
    running = [token.job_id for token in tokens.list(State.RUNNING)]
    ended = sorted((token.job_id for state in FINAL for token in tokens.list(State(state))), reverse=True)
    paths = [home.run(job_id).metrics for job_id in [*running, *ended[:LOOKED_AT]]]
    return [path for path in paths if _written(path) >= since][:MOST_JOBS]


def _kept_rows(path: Path) -> list[tuple[float, ...]]:
    """Of a file that has not grown since, what was read of it before."""
    try:
        info = path.stat()
    except OSError:
        return []
    state = (info.st_size, info.st_mtime_ns)
    with _lock:
        at, found = _read_before.get(str(path), ((0, 0), []))
    if at != state:
        found = _read(path, info.st_size)
        with _lock:
            _read_before[str(path)] = (state, found)
            while len(_read_before) > 4 * MOST_JOBS:
                del _read_before[next(iter(_read_before))]
    return found


_read_before: dict[str, tuple[tuple[int, int], list[tuple[float, ...]]]] = {}
_lock = threading.Lock()


def _read(path: Path, size: int) -> list[tuple[float, ...]]:
    try:
        with open(path, "rb") as file:
            if size <= WHOLE_BYTES:
                lines = file.read(WHOLE_BYTES).splitlines()
            else:
                lines = []
                for number in range(PIECES):
                    file.seek(number * (size - PIECE_BYTES) // (PIECES - 1))
                    lines += file.read(PIECE_BYTES).splitlines()[1:-1]  # the first and the last one are cut
    except OSError:
        return []
    nan = float("nan")
    rows = (_row(line) for line in lines)
    return [
        (float(row["t"]), *(float(row[name]) if _number(row.get(name)) else nan for name in FIELDS))
        for row in rows
        if row and _number(row.get("t")) and any(_number(row.get(name)) for name in FIELDS)
    ]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = orjson.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tail(path: Path, most_bytes: int = 16_384) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - most_bytes))
            return file.read()
    except OSError:
        return b""


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
