"""Rows to correct in place: from findings to an editable table, and from what was typed to a recipe's edits."""

from collections.abc import Mapping
from typing import Any

import orjson
import pandas as pd

from pages.parts.data import preview
from spool.data.reading.table import Record
from spool.protocol.errors import DataError

MOST_ROWS = 100
LONGEST_CELL = 20_000
"""A row with a longer cell is corrected in rejects.jsonl: a browser's table is no place for it."""

LINE = "line"


def places(found: list[dict[str, Any]], most: int = MOST_ROWS) -> list[dict[str, Any]]:
    """The rows of some findings, each once and as a recipe's steps name them: {"line", "byte"?, "file"?}."""
    unique: dict[tuple[Any, ...], dict[str, Any]] = {}
    for each in found:
        if each["line"]:
            place = {name: each[name] for name in ("line", "byte", "file") if each.get(name) not in (None, "")}
            unique.setdefault(tuple(place.values()), place)
    return list(unique.values())[:most]


def record_of(place: dict[str, Any], records: list[Record]) -> Record | None:
    """The record at a place, or None where that row cannot be read."""
    for record in records:
        file, byte = place.get("file", record.file), place.get("byte", record.byte)
        if record.line == place["line"] and file == record.file and byte == record.byte:
            return record
    return None


def table(rows: list[Record | None], columns: list[str]) -> pd.DataFrame:
    """One row for each record, cells as text; a row that cannot be read is empty and can be written anew."""
    cells = {
        column: [preview.cell(record.value.get(column), LONGEST_CELL) if record else "" for record in rows]
        for column in columns
    }
    return pd.DataFrame(cells, dtype="string")


def edits(
    changed: Mapping[int, Mapping[str, Any]], where: list[dict[str, Any]], rows: list[Record | None]
) -> list[dict[str, Any]]:
    """The edits of a recipe's step from what the editor says was changed: {row position: {column: new text}}.

    Raises:
        DataError: a cell that held JSON holds none any more.
    """
    found = []
    for position, cells in sorted(changed.items()):
        record = rows[position]
        values = {
            column: _value(record.value.get(column) if record else None, text, column, where[position]["line"])
            for column, text in cells.items()
        }
        found.append({**where[position], "values": values})
    return found


def _value(before: Any, text: Any, column: str, line: int) -> Any:
    if before is None or isinstance(before, str):
        return text or ""
    try:
        return orjson.loads(str(text))
    except ValueError as error:
        message = f"line {line}: the cell {column!r} held JSON, and what stands there now is none: {error}."
        raise DataError(message, 'Keep its brackets and quotes, as in [{"role": "user", ...}].', "bad_edit") from None
