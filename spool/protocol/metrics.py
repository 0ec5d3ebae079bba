"""metrics.jsonl and events.jsonl: one JSON object a line, appended by one write(2), readable while written.

A metrics row: `v`, `attempt`, `seq`, `t` (UTC epoch s), `step`, `total_steps`, then `epoch`, `loss`, `eval_loss`,
`learning_rate`, `grad_norm`, `tokens_per_s`, `step_time_s`, `gpu_util_pct`, `gpu_mem_bytes`, `gpu_power_w`,
`gpu_temp_c`, `host_mem_bytes`, `eta_s` as they come. A value that is not finite is null and named under `nonfinite`.
"""

import math
import os
import time
from pathlib import Path
from typing import Any

import orjson

from spool.protocol import durable
from spool.protocol.redact import redact

Row = dict[str, Any]


def finite(values: Row) -> Row:
    """The row with NaN and infinities as null, each named: {"loss": null, "nonfinite": {"loss": "nan"}}."""
    bad = {k: str(v) for k, v in values.items() if isinstance(v, float) and not math.isfinite(v)}
    return {**values, **dict.fromkeys(bad), "nonfinite": bad} if bad else values


class Writer:
    """Appends the rows of one attempt; number 0 stands for the check before the first."""

    def __init__(self, path: Path, attempt: int) -> None:
        self.path = path
        self.attempt = attempt
        self.sequence = 0

    def write(self, **values: Any) -> None:
        self.sequence += 1
        told = {name: redact(value) if isinstance(value, str) else value for name, value in values.items()}
        row = {"v": 1, "attempt": self.attempt, "seq": self.sequence, "t": round(time.time(), 3), **told}
        durable.append_line(self.path, finite(row))


class Reader:
    """Reads a growing file: each call of `read_new` gives the whole lines that came since the last one.

    An unterminated last line waits until it is whole; a line that is not JSON is counted in `broken` and passed over.
    A file that was replaced or cut short is read again from its start (`restarted` tells the caller). The bytes before
    the offset are compared too: a new file may get the old one's inode number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.inode = 0
        self.tail = b""
        self.broken = 0
        self.restarted = False

    def read_new(self) -> list[Row]:
        self.restarted = False
        try:
            with open(self.path, "rb") as file:
                stat = os.fstat(file.fileno())
                file.seek(self.offset - len(self.tail))
                if stat.st_ino != self.inode or file.read(len(self.tail)) != self.tail:
                    self.restarted = self.inode != 0
                    self.inode, self.offset, self.tail, self.broken = stat.st_ino, 0, b"", 0
                    file.seek(0)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        self.tail = (self.tail + whole)[-200:]
        rows, broken = parse(whole)
        self.broken += broken
        return rows


def parse(data: bytes) -> tuple[list[Row], int]:
    """(rows, lines that are none) of whole lines."""
    rows, broken = [], 0
    for line in data.splitlines():
        try:
            row = orjson.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif line.strip():
            broken += 1
    return rows, broken


def read(path: Path) -> list[Row]:
    """Every whole row of the file."""
    return Reader(path).read_new()


def last(path: Path, tail_bytes: int = 16_384) -> Row | None:
    """The last whole row, without reading the file from its start."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - tail_bytes))
            data = file.read()
    except OSError:
        return None
    for line in reversed(data[: data.rfind(b"\n") + 1].splitlines()):
        try:
            row = orjson.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            return row
    return None


def one_line(rows: list[Row]) -> list[Row]:
    """The rows of a curve: where attempts repeat steps after a resume, the last attempt's row stands."""
    kept: dict[tuple[Any, bool], Row] = {}
    for row in rows:
        kept[(row.get("step"), "eval_loss" in row)] = row
    return sorted(kept.values(), key=lambda row: (row.get("step") or 0, "eval_loss" in row))
