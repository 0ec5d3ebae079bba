"""Parquet: rows in batches of bounded size, with the labels' names that Hugging Face keeps in the file's metadata."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from spool.data.source import Budget
from spool.data.table import Problem, Record, Rows
from spool.protocol.errors import DataError

MAGIC = b"PAR1"
BATCH_BYTES = 32_000_000
BATCH_ROWS = 1_000
FOOTER_STRING_BYTES = 64_000_000
FOOTER_ITEMS = 1_000_000
PACKED_BYTES_A_VALUE = 2


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
    import pyarrow as pa

    limits = budget.limits
    try:
        table = _open(stream)
        if packed := _packed_strings(table.metadata):
            table = _open(stream, packed)
        columns = list(table.schema_arrow.names)
        labels = _labels(table.schema_arrow.metadata or {})
        most = _largest_group(table.metadata)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{name} cannot be read as Parquet: {_first_line(error)}.", "Write or copy it again.") from None
    if len(columns) > limits.max_columns:
        message = f"{name} has {len(columns):,} columns; at most {limits.max_columns:,} are read."
        raise DataError(message, "Keep the columns that are needed.", "too_many_columns")
    if most > limits.max_unpack_ratio * max(1, _size(stream)) and most > 100_000_000:
        message = f"{name} unpacks to more than {limits.max_unpack_ratio:g} times its size."
        raise DataError(message, "Write it again with smaller row groups.", "unpacks_too_far")
    return Rows("parquet", f"{table.metadata.num_rows:,} rows", _rows(table, columns, labels, file, budget), columns)


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


def _rows(
    table: Any, columns: list[str], labels: dict[str, list[str]], file: str, budget: Budget
) -> Iterator[Record | Problem]:
    import pyarrow as pa

    total = table.metadata.num_rows
    average = sum(table.metadata.row_group(n).total_byte_size for n in range(table.metadata.num_row_groups))
    batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES * max(1, total) // max(1, average)))
    line = 0
    try:
        for batch in table.iter_batches(batch_size=batch_rows):
            for index in range(batch.num_rows):
                line += 1
                value = {name: batch.column(place)[index].as_py() for place, name in enumerate(columns)}
                size = sum(len(cell) for cell in value.values() if isinstance(cell, str | bytes))
                budget.spend_unpacked(size)
                if size > budget.limits.row_bytes:
                    words = "the row is longer than data_limits.max_row_mb allows."
                    yield Problem(line, "row_too_large", words, "dropped", None, file)
                    continue
                for name, names in labels.items():
                    number = value.get(name)
                    if isinstance(number, int) and 0 <= number < len(names):
                        value[name] = names[number]
                yield Record(line, value, None, file)
    except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError) as error:
        words = f"the file is damaged from here on, {total - line:,} rows cannot be read: {_first_line(error)}."
        yield Problem(line + 1, "damaged", words, "blocks", None, file)


def _labels(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Column -> names of its classes, as the datasets library writes them (features of type ClassLabel)."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {n: f["names"] for n, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _largest_group(metadata: Any) -> int:
    return max((metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups)), default=0)


def _size(stream: BinaryIO) -> int:
    place = stream.tell()
    size = stream.seek(0, 2)
    stream.seek(place)
    return size


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160].rstrip(".")
