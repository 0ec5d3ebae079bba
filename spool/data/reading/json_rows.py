"""JSON lines: rows with the line where each starts; what does not parse is a problem, and reading goes on."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from spool.data.reading.json_mending import DECODER, mended
from spool.data.reading.plain_text import too_long
from spool.data.reading.table import Problem, Record, Rows, printable

MAX_DEPTH = 64
SHOWN_COLUMNS = 1_000

Line = tuple[int, int, "str | bytes | None"]


def lines(found: Iterable[Line], file: str) -> Rows:
    """The rows of JSON lines. `found` gives (number, byte offset, line as text or as UTF-8 bytes)."""
    columns: dict[str, None] = {}
    shown: list[str] = []
    return Rows("jsonl", "one JSON object a line", noting(_lines(found, file), columns, shown), shown)


def is_row(line: str) -> bool:
    """Whether a line is a whole JSON object or list."""
    line = line.strip()
    if line[:1] not in ("{", "[") or line[-1:] not in ("}", "]"):
        return False
    try:
        orjson.loads(line)
    except ValueError:
        return False
    return True


def noting(items: Iterable[Record | Problem], columns: dict[str, None], shown: list[str]) -> Iterator[Record | Problem]:
    """Passes the rows on and notes the names of their fields."""
    last: Any = None
    for item in items:
        if type(item) is Record and (names := item.value.keys()) != last:
            last = names
            if len(columns) < SHOWN_COLUMNS:
                for name in names:
                    if name not in columns:
                        columns[name] = None
                        shown.append(printable(name))
        yield item


def _lines(found: Iterable[Line], file: str) -> Iterator[Record | Problem]:
    loads = orjson.loads
    for line, byte, row in found:
        if row is None:
            yield too_long(line, byte, file)
            continue
        try:
            value = loads(row)
        except ValueError:
            if not row.isspace() and row:
                yield from _unusual(row, line, byte, file)
            continue
        if type(value) is dict and _opened(row) < MAX_DEPTH:
            yield Record(line, value, byte, file)
        else:
            yield to_row(value, line, byte, file, row)


def _opened(row: str | bytes) -> int:
    """An upper bound of how deep a row is nested."""
    if isinstance(row, bytes):
        return row.count(b"{") + row.count(b"[")
    return row.count("{") + row.count("[")


def _unusual(row: str | bytes, line: int, byte: int, file: str) -> Iterator[Record | Problem]:
    """A line that strict JSON refuses: read all the same where only the notation is at fault, and said so."""
    if isinstance(row, bytes):
        row = row.decode("utf-8", "surrogateescape")
    text = row.strip()
    try:
        yield to_row(DECODER.decode(text), line, byte, file, row)
        return
    except (ValueError, RecursionError) as error:
        reason = why(error, text)
    if re.search("[\udc80-\udcff]", text):
        words = "it holds bytes that are no valid text in this encoding."
        yield Problem(line, "bad_encoding", words, "dropped", byte, file, row)
        return
    meant = mended(text)
    if meant is None:
        yield Problem(line, "bad_json", reason, "dropped", byte, file, row)
        return
    value, how = meant
    yield Problem(line, "bad_json", f"{reason} {how}", "repaired", byte, file)
    yield to_row(value, line, byte, file, row)


def to_row(value: Any, line: int, byte: int, file: str, source: str | bytes) -> Record | Problem:
    raw = source if isinstance(source, str) else source.decode("utf-8", "replace")
    if raw.count("[") + raw.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        return Problem(line, "too_deep", f"nested deeper than {MAX_DEPTH} levels.", "dropped", byte, file, raw)
    if isinstance(value, dict):
        return Record(line, value, byte, file)
    if isinstance(value, str):
        return Record(line, {"text": value}, byte, file)
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return Record(line, {"messages": value}, byte, file)
    kind = {list: "a list", bool: "true or false", type(None): "null"}.get(type(value), "a number")
    words = f"the row is {kind}; an object with named fields is needed."
    return Problem(line, "wrong_type", words, "dropped", byte, file, raw)


def why(error: Exception, source: str, start: int = 0) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep to be read."
    if not isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {str(error)[:80]}."
    if not source[error.pos : error.pos + 1000].strip() or error.msg.startswith("Unterminated string"):
        return "the JSON breaks off in the middle: it looks cut short, or a quote is missing."
    line = source.count("\n", start, error.pos) + 1
    column = error.pos - max(start - 1, source.rfind("\n", start, error.pos))
    place = f"column {column}" if line == 1 else f"its line {line}, column {column}"
    hint = " JSON needs double quotes." if source[error.pos : error.pos + 1] == "'" else ""
    return f"not valid JSON at {place}: {error.msg[:1].lower() + error.msg[1:]}.{hint}"


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level and deepest <= MAX_DEPTH:
        deepest += 1
        level = [
            child
            for node in level
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
    return deepest
