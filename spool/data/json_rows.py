"""JSON and JSON lines: rows with the line where each starts; what does not parse is a problem, and reading goes on."""

import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson

from spool.data.limits import Limits
from spool.data.plain_text import too_long
from spool.data.table import Problem, Record, Rows, printable
from spool.data.text import Encoding
from spool.protocol.errors import DataError

LIST_KEYS = ("data", "rows", "examples", "records", "items", "instances", "samples", "train")
MAX_DEPTH = 64
PATIENCE_CHARACTERS = 200_000_000
CHUNK_CHARACTERS = 1 << 20
LITERAL_CHARACTERS = 100_000
SHOWN_COLUMNS = 1_000

Line = tuple[int, int, "str | bytes | None"]

# NaN and Infinity are no JSON; pandas and Python write them for a missing value.
DECODER = json.JSONDecoder(parse_constant=lambda _: None)
LENIENT = json.JSONDecoder(parse_constant=lambda _: None, strict=False)
GAP = re.compile(r"[\s,]*")
SPACE = re.compile(r"\s*")
SURPLUS_COMMA = re.compile(r",(\s*[}\]])")


def lines(found: Iterable[Line], file: str) -> Rows:
    """The rows of JSON lines. `found` gives (number, byte offset, line as text or as UTF-8 bytes)."""
    columns: dict[str, None] = {}
    shown: list[str] = []
    return Rows("jsonl", "one JSON object a line", _noting(_lines(found, file), columns, shown), shown)


def document(read: Callable[[int], str], encoding: Encoding, file: str, limits: Limits) -> Rows:
    """The rows of one JSON document. `read` gives the next so many characters, "" at the end.

    Raises:
        DataError: a JSON object that is neither rows nor columns of equal length.
    """
    walk = _Document(read, encoding, file, limits)
    note, items = walk.shape()
    shown: list[str] = []
    return Rows("json", note, _noting(items, {}, shown), shown)


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


def _noting(
    items: Iterable[Record | Problem], columns: dict[str, None], shown: list[str]
) -> Iterator[Record | Problem]:
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
            yield _row(value, line, byte, file, row)


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
        yield _row(DECODER.decode(text), line, byte, file, row)
        return
    except (ValueError, RecursionError) as error:
        reason = _why(error, text)
    if re.search("[\udc80-\udcff]", text):
        words = "it holds bytes that are no valid text in this encoding."
        yield Problem(line, "bad_encoding", words, "dropped", byte, file, row)
        return
    mended = _mended(text)
    if mended is None:
        yield Problem(line, "bad_json", reason, "dropped", byte, file, row)
        return
    value, how = mended
    yield Problem(line, "bad_json", f"{reason} {how}", "repaired", byte, file)
    yield _row(value, line, byte, file, row)


def _mended(text: str) -> tuple[Any, str] | None:
    """(value, how) where the notation can be mended without a guess about the contents."""
    attempts = (
        (lambda: LENIENT.decode(text), "Control characters in it were read as they stand."),
        (lambda: DECODER.decode(text.rstrip(",")), "The comma at its end was left out."),
        (lambda: DECODER.decode(SURPLUS_COMMA.sub(r"\1", text)), "A comma before a closing bracket was left out."),
    )
    for attempt, how in attempts:
        try:
            return attempt(), how
        except (ValueError, RecursionError):
            pass
    if text[:1] == "{" and "'" in text and len(text) <= LITERAL_CHARACTERS:
        try:
            value = ast.literal_eval(text)
            orjson.dumps(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None
        return (value, "It was read as Python writes a dict.") if isinstance(value, dict) else None
    return None


def _row(value: Any, line: int, byte: int, file: str, source: str | bytes) -> Record | Problem:
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


def _is_chat(value: list[Any]) -> bool:
    return any(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)


class _Document:
    """Walks one JSON text through a window, so that each row keeps its place and a broken one costs only itself.

    The window holds the text from the row at hand on; what lies before it is forgotten.
    """

    def __init__(self, read: Callable[[int], str], encoding: Encoding, file: str, limits: Limits) -> None:
        self.read = read
        self.encoding = encoding
        self.file = file
        self.row_characters = limits.row_bytes
        self.whole_characters = int(limits.max_whole_mb * 1e6)
        self.text = read(CHUNK_CHARACTERS)
        self.ended = False
        self.patience = PATIENCE_CHARACTERS
        self.first_name: str | None = None
        self._counted = 0
        self._line, self._byte = 1, encoding.mark_bytes

    def shape(self) -> tuple[str, Iterator[Record | Problem]]:
        """(how it is read in words, its rows)."""
        start = self._skip(0)
        if self.text[start : start + 1] == "[":
            return "a list of rows", self._list_then_rest(start + 1)
        try:
            return self._object(start)
        except (ValueError, RecursionError):
            return "JSON objects one after the other", self.rows(start, closed=False)

    def _list_then_rest(self, index: int) -> Iterator[Record | Problem]:
        yield from self.rows(index)
        index = self._skip(self.end)
        if index < len(self.text):
            line, byte = self.place(index)
            message = f"text after the end of the list was not read: {self.text[index : index + 40]!r}."
            yield Problem(line, "bad_json", message, "dropped", byte, self.file, self.text[index : index + 1000])

    def _object(self, index: int) -> tuple[str, Iterator[Record | Problem]]:
        """The rows of one JSON object: a list of them under a known key, columns, or the object itself as one row."""
        start = index
        fields: dict[str, tuple[int, Any]] = {}
        for name, place in self._names(index + 1):
            if name in LIST_KEYS and self._opens_rows(place):
                return f"the rows under {name!r}", self._rows_under(name, place)
            value, self.end = self.decode(place, self.whole_characters)
            fields[name] = (place, value)
        if self._skip(self.end) < len(self.text):
            return "JSON objects one after the other", self.rows(start, closed=False)
        return self._of_fields(start, fields)

    def _names(self, index: int) -> Iterator[tuple[str, int]]:
        """(name, where its value starts) of each field; the caller leaves the value's end in `self.end`."""
        index = self._skip(index)
        while self.text[index : index + 1] != "}":
            name, index = self.decode(index, self.row_characters)
            index = self._skip(index)
            if not isinstance(name, str) or self.text[index : index + 1] != ":":
                raise ValueError("a name and a colon are needed")
            yield name, self._skip(index + 1)
            index = self._gap(self.end)
        self.end = index + 1

    def _opens_rows(self, place: int) -> bool:
        if self.text[place : place + 1] != "[":
            return False
        first = self._skip(place + 1)
        return self.text[first : first + 1] == "{"

    def _rows_under(self, key: str, place: int) -> Iterator[Record | Problem]:
        yield from self.rows(place + 1)
        index = self._gap(self.end)
        if self.text[index : index + 1] != '"':
            return
        try:
            for name, at in self._names(index):
                line, byte = self.place(at)
                value, self.end = self.decode(at, self.whole_characters)
                if name in LIST_KEYS and isinstance(value, list):
                    message = f"the list {name!r} ({len(value):,} rows) was not read, only {key!r}."
                    yield Problem(line, "not_read", message, "kept", byte, self.file)
        except (ValueError, RecursionError):
            line, byte = self.place(min(index, len(self.text)))
            yield Problem(line, "bad_json", "what follows the rows is not valid JSON.", "kept", byte, self.file)

    def _of_fields(self, start: int, fields: dict[str, tuple[int, Any]]) -> tuple[str, Iterator[Record | Problem]]:
        values = {name: value for name, (_, value) in fields.items()}
        if values and all(isinstance(v, list) for v in values.values()) and not any(map(_is_chat, values.values())):
            lengths = {name: len(value) for name, value in values.items()}
            if len(set(lengths.values())) > 1:
                shown = ", ".join(f"{printable(name)}: {length:,}" for name, length in list(lengths.items())[:8])
                raise DataError(f"the JSON object's lists have different lengths ({shown}).", "Make them equally long.")
            places = self._element_places(next(iter(fields.values()))[0] + 1)
            rows = zip(places, zip(*values.values(), strict=True), strict=True)
            return "one list a column", (
                Record(line, dict(zip(values, row, strict=True)), byte, self.file) for (line, byte), row in rows
            )
        line, byte = self.place(start)
        if len(values) > 1 and all(isinstance(v, dict) and v for v in values.values()):
            keys = [list(v) for v in values.values()]
            if all(each == keys[0] for each in keys) and keys[0][0].isdigit():  # what DataFrame.to_json() writes
                line, byte = self.place(next(iter(fields.values()))[0])
                return "one object a column (pandas)", (
                    Record(line, {name: values[name][key] for name in values}, byte, self.file) for key in keys[0]
                )
        return "one object as one row", iter([_row(values, line, byte, self.file, self.text)])

    def _element_places(self, index: int) -> Iterator[tuple[int, int]]:
        while self.text[index := self._gap(index)] != "]":
            yield self.place(index)
            _, index = DECODER.raw_decode(self.text, index)

    def rows(self, index: int, closed: bool = True) -> Iterator[Record | Problem]:
        """The rows from `index` to the closing bracket (or the end of the text); leaves the place after it in `end`."""
        while True:
            index = self._gap(self._forget(index))
            if index >= len(self.text):
                if closed:
                    line, byte = self.place(len(self.text.rstrip()))
                    message = "the file ends before the list is closed: it looks like an unfinished copy."
                    yield Problem(line, "bad_json", message, "kept", byte, self.file)
                break
            if self.text[index] == "]" and closed:
                index += 1
                break
            line, byte = self.place(index)
            try:
                value, end = self.decode(index, self.row_characters)
            except (ValueError, RecursionError) as error:
                problem, resumed = self._resume(index, line, byte, error)
                yield problem
                if resumed is None:
                    index = len(self.text)
                    break
                index = resumed
                continue
            if self.first_name is None and isinstance(value, dict):
                self.first_name = next(iter(value), None)
            yield _row(value, line, byte, self.file, self.text[index:end])
            index = end
        self.end = index

    def decode(self, index: int, most: int) -> tuple[Any, int]:
        """(value, where it ends) of the JSON value at `index`; reads on while it is not whole, up to `most` characters.

        Raises:
            ValueError, RecursionError: it is not valid, or longer.
        """
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, index)
                if end < len(self.text) or not isinstance(value, int | float) or not self._more():
                    return value, end
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - 16
                if not unfinished or len(self.text) - index > most or not self._more():
                    raise

    def place(self, index: int) -> tuple[int, int]:
        """(line, byte offset) of a place in the window, which may not lie before the last one asked for."""
        if index < self._counted:  # after a look ahead
            passed, sign = self.text[index : self._counted], -1
        else:
            passed, sign = self.text[self._counted : index], 1
        self._line += sign * passed.count("\n")
        self._byte += sign * self.encoding.length_bytes(passed)
        self._counted = index
        return self._line, self._byte

    def _resume(self, index: int, line: int, byte: int, error: Exception) -> tuple[Problem, int | None]:
        """The broken row at `index` as a problem, and where the next one starts: an object like the good rows."""
        self.patience -= max(0, getattr(error, "pos", index) - index)
        name = self.first_name or _first_name(self.text, index)
        opening = r"(?<=\n)[ \t]{0,4}\{" if name is None else r"\{\s*" + re.escape(json.dumps(name)) + r"\s*:"
        pattern = re.compile(opening)
        message = _why(error, self.text, index)
        source = self.text[index : index + self.row_characters]
        found = pattern.search(self.text, index + 1) if self.patience > 0 else None
        lost = 0
        while found is None and self.patience > 0:
            kept = max(index + 1, len(self.text) - 256)  # an opening may lie across the window's end
            lost += kept - index
            index = self._forget(kept, at_once=True)
            before = len(self.text)
            if not self._more():
                break
            self.patience -= len(self.text) - before
            found = pattern.search(self.text, index)
        if found is None:
            lost += len(self.text) - index
            if lost > 1000:
                message += f" Nothing after it could be read ({lost:,} characters)."
            self.text = self.text[: self._counted] if self._counted < len(self.text) else self.text
            return Problem(line, "bad_json", message, "dropped", byte, self.file, source), None
        resumed = found.start()
        if lost == 0:
            source = self.text[index:resumed]
        return Problem(line, "bad_json", message, "dropped", byte, self.file, source), resumed

    def _forget(self, index: int, at_once: bool = False) -> int:
        """Drops the text before `index` once it is long; gives the new index of the same place."""
        if index < CHUNK_CHARACTERS and not at_once:
            return index
        self.place(index)
        self.text = self.text[index:]
        self._counted = 0
        return 0

    def _more(self) -> bool:
        """Reads on: as much again as the window holds, so that a long value is not parsed too often."""
        if self.ended:
            return False
        more = self.read(max(CHUNK_CHARACTERS, len(self.text)))
        self.ended = not more
        self.text += more
        return bool(more)

    def _gap(self, index: int) -> int:
        return self._past(GAP, index)

    def _skip(self, index: int) -> int:
        return self._past(SPACE, index)

    def _past(self, pattern: re.Pattern[str], index: int) -> int:
        while True:
            index = pattern.match(self.text, index).end()  # type: ignore[union-attr]
            if index < len(self.text) or not self._more():
                return index


def _first_name(text: str, index: int) -> str | None:
    """The name of an object's first field."""
    try:
        name, _ = DECODER.raw_decode(text, SPACE.match(text, index + 1).end())  # type: ignore[union-attr]
    except (ValueError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def _why(error: Exception, source: str, start: int = 0) -> str:
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
