"""Parquet: read by a process of its own, for a damaged file can make the library abort the process that reads it.

Run as: python -m spool.data.reading.parquet MAX_COLUMNS MAX_ROW_BYTES < FILE     (the reader does)

The child writes a line of JSON for what it finds, after a letter: H (head: columns, rows), R (a row), P (a problem),
E (an error that makes the file useless), D (done). Where D is missing, it died; its memory is limited.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import orjson

from spool.data.reading.source import Budget
from spool.data.reading.table import Problem, Record, Rows
from spool.protocol.errors import DataError
from spool.protocol.process import search_path

MAGIC = b"PAR1"
BATCH_BYTES = 32_000_000
BATCH_ROWS = 1_000
FOOTER_STRING_BYTES = 64_000_000
FOOTER_ITEMS = 1_000_000
PACKED_BYTES_A_VALUE = 2
CHILD_MEMORY_BYTES = 8 << 30
CHILD_CPU_S = 4 * 3600


def unpacked(stream: BinaryIO) -> BinaryIO:
    """The bytes of a stream in a nameless temporary file: Parquet is read from its end."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115  (the reader closes it)
    with stream:
        shutil.copyfileobj(stream, copy, 1 << 20)
    copy.seek(0)
    return copy


def rows(stream: BinaryIO, name: str, file: str, budget: Budget) -> Rows:
    """The rows of a Parquet file. Their `line` is the row's number; they have no byte offset.

    Raises:
        DataError: it is no Parquet file, is damaged, or has too many columns.
    """
    items = _items(stream, file, budget)
    head = next(items)
    if isinstance(head, Problem):
        raise DataError(f"{name} cannot be read as Parquet: {head.message}.", "Write or copy it again.", head.code)
    assert isinstance(head, dict)
    return Rows("parquet", f"{head['rows']:,} rows", items, head["columns"])  # type: ignore[arg-type]


def _items(stream: BinaryIO, file: str, budget: Budget) -> Iterator[dict[str, Any] | Record | Problem]:
    """The head first (or the problem that makes the file useless), then the rows."""
    limits = budget.limits
    command = [sys.executable, "-m", "spool.data.reading.parquet", str(limits.max_columns), str(limits.row_bytes)]
    environment = {**os.environ, "PYTHONPATH": search_path()}
    child = subprocess.Popen(
        command, stdin=stream, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, bufsize=1 << 20
    )
    assert child.stdout is not None
    line, ended = 0, False
    try:
        for said in child.stdout:
            kind, document = said[:1], orjson.loads(said[1:])
            if kind == b"R":
                line += 1
                budget.spend_unpacked(len(said))
                yield Record(line, document, None, file)
            elif kind == b"P":
                line += 1
                yield Problem(line, document["code"], document["message"], document["action"], None, file)
            elif kind == b"H":
                yield document
            else:
                ended = True
                if kind == b"E":
                    yield Problem(0, document["code"], document["message"])
        if not ended:
            words = "the file is damaged, the library that reads it broke off"
            yield Problem(line + 1, "damaged", words, "blocks", None, file)
    finally:
        child.kill()
        child.stdout.close()
        child.wait()
        stream.close()


def main() -> int:
    """The child's side."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (CHILD_MEMORY_BYTES, CHILD_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CHILD_CPU_S, CHILD_CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    max_columns, row_bytes = map(int, sys.argv[1:3])
    out = sys.stdout.buffer

    def say(kind: bytes, document: Any) -> None:
        out.write(kind + orjson.dumps(document, default=_plain, option=orjson.OPT_APPEND_NEWLINE))

    try:
        for kind, document in _read(sys.stdin.buffer, max_columns, row_bytes):
            say(kind, document)
    except Exception as error:  # the library raises many kinds
        say(b"E", {"code": "bad_data", "message": _first_line(error)})
    say(b"D", None)
    out.flush()
    return 0


def _read(stream: BinaryIO, max_columns: int, row_bytes: int) -> Iterator[tuple[bytes, Any]]:
    table = _open(stream)
    if packed := _packed_strings(table.metadata):
        table = _open(stream, packed)
    columns = list(table.schema_arrow.names)
    if len(columns) > max_columns:
        message = f"it has {len(columns):,} columns, and at most {max_columns:,} are read"
        yield b"E", {"code": "too_many_columns", "message": message}
        return
    yield b"H", {"columns": columns, "rows": table.metadata.num_rows}
    line = 0
    try:
        for value in _values(table, columns, _labels(table.schema_arrow.metadata or {})):
            line += 1
            if sum(len(cell) for cell in value.values() if isinstance(cell, str | bytes)) > row_bytes:
                words = "the row is longer than data_limits.max_row_mb allows."
                yield b"P", {"code": "row_too_large", "message": words, "action": "dropped"}
            else:
                yield b"R", value
    except Exception as error:
        lost = table.metadata.num_rows - line
        words = f"the file is damaged from here on, {lost:,} rows cannot be read: {_first_line(error)}."
        yield b"P", {"code": "damaged", "message": words, "action": "blocks"}


def _open(stream: BinaryIO, as_dictionary: list[str] | None = None) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(
        stream,
        thrift_string_size_limit=FOOTER_STRING_BYTES,
        thrift_container_size_limit=FOOTER_ITEMS,
        read_dictionary=as_dictionary,
        pre_buffer=False,
    )


def _packed_strings(metadata: Any) -> list[str]:
    """The text columns that take so little room that a few long values must stand for all rows.

    Unfolded, a batch of them could take any amount of memory; read as dictionaries they unfold row by row.
    """
    found = set()
    for group in (metadata.row_group(n) for n in range(metadata.num_row_groups)):
        for column in (group.column(n) for n in range(group.num_columns)):
            small = column.total_uncompressed_size < PACKED_BYTES_A_VALUE * max(1, column.num_values)
            if column.physical_type == "BYTE_ARRAY" and small:
                found.add(column.path_in_schema)
    return sorted(found)


def _values(table: Any, columns: list[str], labels: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    total = table.metadata.num_rows
    size = sum(table.metadata.row_group(n).total_byte_size for n in range(table.metadata.num_row_groups))
    batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES * max(1, total) // max(1, size)))
    for batch in table.iter_batches(batch_size=batch_rows):
        for index in range(batch.num_rows):
            value = {name: batch.column(place)[index].as_py() for place, name in enumerate(columns)}
            for name, names in labels.items():
                number = value.get(name)
                if isinstance(number, int) and 0 <= number < len(names):
                    value[name] = names[number]
            yield value


def _labels(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Column -> names of its classes, as the datasets library writes them (features of type ClassLabel)."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {n: f["names"] for n, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _plain(value: Any) -> Any:
    """What JSON does not know: bytes that are text, dates, decimals. Pictures and sound become nothing."""
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode()
        return None
    return str(value)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160].rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
