"""Tokenised rows as Arrow IPC streams, written and read in batches; `datasets.Dataset.from_file` maps them as they are.

The format: https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format. Its columns are made from buffers:
`pyarrow.array` would import pandas, a third of a second in which somebody waits for their first job.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BATCH_ROWS = 1000
BATCH_TOKENS = 2_000_000


class TokenRow(NamedTuple):
    """One row: int32 arrays of equal length; `row` counts the usable rows of the file from 0."""

    row: int
    line: int
    byte: int
    """-1 where the file knows no byte offsets."""
    input_ids: np.ndarray
    labels: np.ndarray


class Writer:
    """One file of rows. Close it, or nothing in it counts."""

    def __init__(self, path: Path) -> None:
        import pyarrow

        self.rows = self.tokens = 0
        self._arrow: Any = pyarrow
        self._places: list[tuple[int, int, int]] = []
        self._ids: list[Any] = []
        self._labels: list[Any] = []
        self._waiting_tokens = 0
        ids = pyarrow.list_(pyarrow.int32())
        numbers = [(name, pyarrow.int64()) for name in ("row", "line", "byte")]
        self._schema = pyarrow.schema([*numbers, ("input_ids", ids), ("labels", ids)])
        self._file = open(path, "wb")  # noqa: SIM115  (closed in close)
        self._stream = pyarrow.ipc.new_stream(self._file, self._schema)

    def add(
        self, row: int, line: int, byte: int, input_ids: Sequence[int] | np.ndarray, labels: Sequence[int] | np.ndarray
    ) -> None:
        self.rows += 1
        self.tokens += len(input_ids)
        self._places.append((row, line, byte))
        self._ids.append(np.asarray(input_ids, np.int32))
        self._labels.append(np.asarray(labels, np.int32))
        self._waiting_tokens += len(input_ids)
        if len(self._places) == BATCH_ROWS or self._waiting_tokens >= BATCH_TOKENS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._stream.close()
        self._file.close()

    def _flush(self) -> None:
        if not self._places:
            return
        count = len(self._places)
        numbers = np.array(self._places, np.int64).T
        columns = [self._numbers(np.ascontiguousarray(column)) for column in numbers]
        offsets = np.concatenate(([0], np.cumsum([len(ids) for ids in self._ids]))).astype(np.int32)
        columns += [self._lists(offsets, values) for values in (self._ids, self._labels)]
        self._stream.write_batch(self._arrow.RecordBatch.from_arrays(columns, schema=self._schema))
        assert count == len(offsets) - 1
        self._places, self._ids, self._labels, self._waiting_tokens = [], [], [], 0

    def _numbers(self, values: np.ndarray) -> Any:
        kind = self._arrow.int64() if values.dtype == np.int64 else self._arrow.int32()
        return self._arrow.Array.from_buffers(kind, len(values), [None, self._arrow.py_buffer(values)])

    def _lists(self, offsets: np.ndarray, values: list[np.ndarray]) -> Any:
        flat = self._numbers(np.concatenate(values))
        kind = self._arrow.list_(self._arrow.int32())
        buffers = [None, self._arrow.py_buffer(offsets)]
        return self._arrow.Array.from_buffers(kind, len(offsets) - 1, buffers, children=[flat])


def read(path: Path) -> Iterator[TokenRow]:
    """Each row of a file, a batch in memory at a time; the arrays are views into it."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_stream(source) as reader:
        for batch in reader:
            rows, lines, bytes_ = (_view(batch.column(n), np.int64) for n in range(3))
            ids, labels = batch.column(3), batch.column(4)
            offsets = np.frombuffer(ids.buffers()[1], np.int32)
            flat_ids, flat_labels = (np.frombuffer(each.buffers()[3], np.int32) for each in (ids, labels))
            for n in range(batch.num_rows):
                cut = slice(offsets[n], offsets[n + 1])
                yield TokenRow(int(rows[n]), int(lines[n]), int(bytes_[n]), flat_ids[cut], flat_labels[cut])


def _view(column: Any, kind: Any) -> np.ndarray:
    return np.frombuffer(column.buffers()[1], kind)
