"""One JSON document of any size: a list of rows, an object of them in many shapes, or objects one after the other."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

from spool.data.reading.json_mending import COMMENT, DECODER, mended
from spool.data.reading.json_rows import noting, to_row, why
from spool.data.reading.limits import Limits
from spool.data.reading.roles import KNOWN_NAMES, plain
from spool.data.reading.table import Problem, Record, Rows, printable
from spool.data.reading.text import Encoding
from spool.protocol.errors import DataError

LIST_KEYS = ("data", "rows", "examples", "records", "items", "instances", "samples", "train")
SPLIT = ({"columns", "data"}, {"columns", "data", "index"})
PATIENCE_CHARACTERS = 200_000_000
CHUNK_CHARACTERS = 1 << 20
MENDED_CHARACTERS = 100_000

GAP = re.compile(rf"[\s,]*(?:(?:{COMMENT})[\s,]*)*")
SPACE = re.compile(rf"\s*(?:(?:{COMMENT})\s*)*")


def document(read: Callable[[int], str], encoding: Encoding, file: str, limits: Limits) -> Rows:
    """The rows of one JSON document. `read` gives the next so many characters, "" at the end.

    Raises:
        DataError: a JSON object that is neither rows nor columns of equal length.
    """
    walk = _Document(read, encoding, file, limits)
    note, items = walk.shape()
    shown: list[str] = []
    return Rows("json", note, noting(items, {}, shown), shown)


def _is_chat(value: list[Any]) -> bool:
    return any(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)


def _is_known(name: str) -> bool:
    return plain(name) in KNOWN_NAMES


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _nameless(cells: list[Any]) -> Any:
    """A row without the columns' names, as DataFrame.to_json(orient="values") writes it; else what it was."""
    if len(cells) < 2 or any(isinstance(cell, dict | list) for cell in cells):
        return cells
    return {f"column {number}": cell for number, cell in enumerate(cells, 1)}


def _named_rows(values: list[Any]) -> list[Any] | None:
    """The rows of an object that has one under each name: objects with the same fields, or conversations."""
    if all(isinstance(value, dict) and value and value.keys() == values[0].keys() for value in values):
        return values if any(map(_is_known, values[0])) else None
    return values if all(isinstance(value, list) and _is_chat(value) for value in values) else None


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
                before = [self._not_read(each, *found, name) for each, found in fields.items() if _are_rows(*found[1:])]
                return f"the rows under {name!r}", chain(before, self._rows_under(name, place))
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
                value, self.end = self.decode(at, self.whole_characters)
                if _are_rows(value):
                    yield self._not_read(name, at, value, key)
        except (ValueError, RecursionError):
            line, byte = self.place(min(index, len(self.text)))
            yield Problem(line, "bad_json", "what follows the rows is not valid JSON.", "kept", byte, self.file)

    def _not_read(self, name: str, place: int, value: list[Any], key: str) -> Problem:
        line, byte = self.place(place)
        message = f"the list {printable(name)!r} ({len(value):,} rows) was not read, only {key!r}."
        return Problem(line, "not_read", message, "kept", byte, self.file)

    def _of_fields(self, start: int, fields: dict[str, tuple[int, Any]]) -> tuple[str, Iterator[Record | Problem]]:
        values = {name: value for name, (_, value) in fields.items()}
        if values.keys() in SPLIT and isinstance(values["columns"], list) and isinstance(values["data"], list):
            return "columns and data (pandas)", self._split(fields)
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
        if len(values) > 1 and not any(map(_is_known, values)) and (found := _named_rows(list(values.values()))):
            lines = [self.place(place) for place, _ in fields.values()]
            return "one row a name", (
                to_row(value, line, byte, self.file, "") for (line, byte), value in zip(lines, found, strict=True)
            )
        return "one object as one row", iter([to_row(values, line, byte, self.file, self.text)])

    def _split(self, fields: dict[str, tuple[int, Any]]) -> Iterator[Record | Problem]:
        """What DataFrame.to_json(orient="split") writes."""
        columns = [str(name) for name in fields["columns"][1]]
        place, data = fields["data"]
        for (line, byte), cells in zip(self._element_places(place + 1), data, strict=True):
            if isinstance(cells, list) and len(cells) == len(columns):
                yield Record(line, dict(zip(columns, cells, strict=True)), byte, self.file)
            else:
                message = f"the row has not the {len(columns):,} cells that 'columns' names."
                yield Problem(line, "ragged_row", message, "dropped", byte, self.file, json.dumps(cells))

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
                yield from self._mended(problem, resumed is None and closed)
                if resumed is None:
                    index = len(self.text)
                    break
                index = resumed
                continue
            if self.first_name is None and isinstance(value, dict):
                self.first_name = next(iter(value), None)
            elif self.first_name is None and isinstance(value, list):
                value = _nameless(value)
            yield to_row(value, line, byte, self.file, self.text[index:end])
            index = end
        self.end = index

    def _mended(self, problem: Problem, last: bool) -> Iterator[Record | Problem]:
        """The row that a broken one was meant to be, and that it was repaired; the problem where it stays broken."""
        text = problem.raw.strip()
        text = text.removesuffix("]").rstrip() if last else text
        text = text.rstrip(",").rstrip()
        found = mended(text) if text[:1] == "{" and len(text) <= MENDED_CHARACTERS else None
        if found is None:
            yield problem
            return
        yield replace(problem, message=f"{problem.message} {found[1]}", action="repaired", raw="")
        yield to_row(found[0], problem.line, problem.byte or 0, self.file, text)

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
        opening = r"(?<=\n)[ \t]{0,4}\{"
        if name is not None:
            opening = rf"\{{\s*(?:{re.escape(json.dumps(name))}|'{re.escape(name)}')\s*:"
        pattern = re.compile(opening)
        message = why(error, self.text, index)
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
        quoted = re.compile(r"\{\s*'([^'\\]{1,100})'\s*:").match(text, index)
        return quoted.group(1) if quoted else None
    return name if isinstance(name, str) else None
