"""Lines of metrics.jsonl as columns of numbers, a block at a time: by pyarrow where it is well formed, else by line."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import json as arrow_json

from spool.protocol import metrics

FIELDS = (
    "t", "step", "attempt", "total_steps", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm", "tokens_per_s",
    "step_time_s", "tokens", "host_mem_bytes", "gpu_util_pct", "gpu_mem_bytes", "gpu_power_w", "gpu_temp_c", "eta_s",
)  # fmt: skip
"""Each is drawn or counted somewhere; whatever else a row carries is passed over."""

BLOCK_BYTES = 1 << 20
HIGHEST_STEP = 2**31 - 1

Numbers = NDArray[np.floating[Any]]

_SCHEMA = pa.schema([(name, pa.float64()) for name in FIELDS])
_PARSE = arrow_json.ParseOptions(explicit_schema=_SCHEMA, unexpected_field_behavior="ignore")
_READ = arrow_json.ReadOptions(use_threads=False, block_size=2 * BLOCK_BYTES)


@dataclass
class Block:
    """The rows of a piece of a file that name a step.

    `columns` holds one float64 a row and field, NaN where a row has none; `nonfinite` (row, field, "nan", "inf" or
    "-inf") what was no number; `broken` counts lines that could not be read.
    """

    columns: dict[str, Numbers]
    nonfinite: list[tuple[int, str, str]] = field(default_factory=list)
    broken: int = 0

    def __len__(self) -> int:
        return len(self.columns["step"])


def parse(data: bytes) -> Block:
    """Whole lines, at most BLOCK_BYTES of them at a time for a steady use of memory."""
    return _with_steps(_by_arrow(data) or _by_line(data))


def _by_arrow(data: bytes) -> Block | None:
    """None where a line may be anything but one flat object of numbers and texts.

    pyarrow 26 ends the process on a document that is a bare `null` or number, and reads two documents of one line as
    two rows. Neither can be where each line has exactly one brace at its start and one at its end.
    """
    lines = data.count(b"\n")
    opened, closed = data.count(b"{"), data.count(b"}")
    if not (data[:1] == b"{" and opened == closed == lines == data.count(b"}\n") == data.count(b"\n{") + 1):
        return None
    try:
        table = arrow_json.read_json(pa.BufferReader(data), read_options=_READ, parse_options=_PARSE)
    except pa.ArrowException:
        return None
    if table.num_rows != lines:
        return None
    found = {name: table.column(name).to_numpy() for name in FIELDS if table.column(name).null_count < lines}
    return Block(found | {"step": table.column("step").to_numpy()})


def _by_line(data: bytes) -> Block:
    rows, broken = metrics.parse(data)
    bad = [
        (at, str(name), str(word))
        for at, row in enumerate(rows)
        if isinstance(row.get("nonfinite"), dict)
        for name, word in row["nonfinite"].items()
    ]
    columns = {name: np.array([_number(row.get(name)) for row in rows], dtype="float64") for name in FIELDS}
    return Block(columns, bad, broken)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else np.nan


def _with_steps(block: Block) -> Block:
    step = block.columns["step"]
    with np.errstate(invalid="ignore"):
        usable = (step >= 0) & (step <= HIGHEST_STEP)
    if usable.all():
        return block
    place = np.cumsum(usable) - 1
    bad = [(int(place[at]), name, word) for at, name, word in block.nonfinite if usable[at]]
    return Block({name: values[usable] for name, values in block.columns.items()}, bad, block.broken)
