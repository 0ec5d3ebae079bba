"""JSON and JSON lines: rows with the line where each starts; what does not parse is a problem, and reading goes on."""

import json
import re
from bisect import bisect_right
from typing import Any

import orjson

from spool.data.table import Problem, Record, printable
from spool.protocol.errors import DataError

LIST_KEYS = ("data", "rows", "examples", "records", "items", "instances", "samples", "train")
MAX_DEPTH = 64
PATIENCE_CHARACTERS = 200_000_000

Found = tuple[list[Record], list[Problem]]

# NaN and Infinity are no JSON; pandas and Python write them for a missing value.
DECODER = json.JSONDecoder(parse_constant=lambda _: None)
GAP = re.compile(r"[\s,]*")
SPACE = re.compile(r"\s*")


def rows(text: str, container: str) -> tuple[list[str], list[Record], list[Problem], str]:
    """(columns, records, problems, how it was read in words).

    Raises:
        DataError: a JSON object that is neither rows nor columns of equal length.
    """
    if container == "jsonl":
        records, problems = _lines(text)
        note = "one JSON object a line"
    else:
        records, problems, note = _document(text)
    columns: dict[str, None] = {}
    last: list[str] = []
    for record in records:
        names = list(record.value)
        if names != last:
            columns.update(dict.fromkeys(map(printable, names)))
            last = names
    return list(columns), records, problems, note


def _lines(text: str) -> Found:
    records: list[Record] = []
    problems: list[Problem] = []
    for line, row in enumerate(text.split("\n"), 1):
        if not row or row.isspace():
            continue
        try:
            value = orjson.loads(row)
        except ValueError:
            try:
                value = DECODER.decode(row.strip())
            except (ValueError, RecursionError) as error:
                problems.append(Problem(line, "bad_json", _why(error, row)))
                continue
        _add(value, line, row, records, problems)
    return records, problems


def _add(value: Any, line: int, source: str, records: list[Record], problems: list[Problem]) -> None:
    if source.count("[") + source.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        problems.append(Problem(line, "too_deep", f"nested deeper than {MAX_DEPTH} levels."))
    elif isinstance(value, dict):
        records.append(Record(line, value))
    elif isinstance(value, str):
        records.append(Record(line, {"text": value}))
    elif isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        records.append(Record(line, {"messages": value}))
    else:
        kind = {list: "a list", bool: "true or false", type(None): "null"}.get(type(value), "a number")
        problems.append(Problem(line, "wrong_type", f"the row is {kind}; an object with named fields is needed."))


def _document(text: str) -> tuple[list[Record], list[Problem], str]:
    document = _Document(text)
    start = SPACE.match(text).end()  # type: ignore[union-attr]
    if text[start] == "[":
        end = document.read_list(start + 1)
        document.note_rest(end)
        return document.records, document.problems, "a list of rows"
    try:
        fields, end = document.fields(start)
        whole = not text[end:].strip()
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        document.read_list(start, closed=False)
        return document.records, document.problems, "JSON objects one after the other"
    return _from_object(document, fields)


def _from_object(document: "_Document", fields: dict[str, tuple[int, Any]]) -> tuple[list[Record], list[Problem], str]:
    """The rows of one JSON object: a list of them under a known key, columns, or the object itself as one row."""
    values = {name: value for name, (_, value) in fields.items()}
    lists = [n for n in LIST_KEYS if isinstance(values.get(n), list) and any(isinstance(r, dict) for r in values[n])]
    if lists:
        document.read_list(fields[lists[0]][0] + 1)
        for name in lists[1:]:
            message = f"the list {name!r} ({len(values[name]):,} rows) was not read, only {lists[0]!r}."
            document.problems.append(Problem(document.line(fields[name][0]), "not_read", message, "kept"))
        return document.records, document.problems, f"the rows under {lists[0]!r}"
    if values and all(isinstance(v, list) for v in values.values()) and not any(map(_is_chat, values.values())):
        lengths = {name: len(value) for name, value in values.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{printable(name)}: {length:,}" for name, length in list(lengths.items())[:8])
            raise DataError(f"the JSON object's lists have different lengths ({shown}).", "Make them equally long.")
        lines = document.element_lines(next(iter(fields.values()))[0] + 1)
        for line, row in zip(lines, zip(*values.values(), strict=True), strict=True):
            document.records.append(Record(line, dict(zip(values, row, strict=True))))
        return document.records, document.problems, "one list a column"
    if len(values) > 1 and all(isinstance(v, dict) and v for v in values.values()):
        keys = [list(v) for v in values.values()]
        if all(each == keys[0] for each in keys) and keys[0][0].isdigit():  # what pandas' DataFrame.to_json() writes
            line = document.line(next(iter(fields.values()))[0])
            for key in keys[0]:
                document.records.append(Record(line, {name: values[name][key] for name in values}))
            return document.records, document.problems, "one object a column (pandas)"
    document.records.append(Record(document.line(0), values))
    return document.records, document.problems, "one object as one row"


def _is_chat(value: list[Any]) -> bool:
    return any(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)


class _Document:
    """Walks one JSON text element by element, so that each row keeps its line and a broken one costs only itself."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.records: list[Record] = []
        self.problems: list[Problem] = []
        self.newlines = [match.start() for match in re.finditer("\n", text)]
        self.patience = PATIENCE_CHARACTERS

    def line(self, index: int) -> int:
        return bisect_right(self.newlines, index - 1) + 1

    def fields(self, index: int) -> tuple[dict[str, tuple[int, Any]], int]:
        """{name: (position, value)} of the object at `index`, and where it ends."""
        found: dict[str, tuple[int, Any]] = {}
        index = self._skip(index + 1)
        while index < len(self.text) and self.text[index] != "}":
            name, index = DECODER.raw_decode(self.text, index)
            index = self._skip(index)
            if not isinstance(name, str) or self.text[index : index + 1] != ":":
                raise ValueError("a name and a colon are needed")
            place = self._skip(index + 1)
            value, index = DECODER.raw_decode(self.text, place)
            found[name] = (place, value)
            index = GAP.match(self.text, index).end()  # type: ignore[union-attr]
        if index >= len(self.text):
            raise ValueError("the object is not closed")
        return found, index + 1

    def element_lines(self, index: int) -> list[int]:
        lines = []
        while self.text[index := self._gap(index)] != "]":
            lines.append(self.line(index))
            _, index = DECODER.raw_decode(self.text, index)
        return lines

    def read_list(self, index: int, closed: bool = True) -> int:
        """Reads rows from `index` to the closing bracket (or the end of the text) and gives the place after it."""
        text = self.text
        while True:
            index = self._gap(index)
            if index >= len(text):
                if closed:
                    message = "the file ends before the list is closed: it looks like an unfinished copy."
                    self.problems.append(Problem(self.line(len(text.rstrip())), "bad_json", message, "kept"))
                return index
            if text[index] == "]" and closed:
                return index + 1
            line = self.line(index)
            try:
                value, end = DECODER.raw_decode(text, index)
            except (ValueError, RecursionError) as error:
                resumed = self._resume(index, line, error)
                if resumed is None:
                    return len(text)
                index = resumed
                continue
            _add(value, line, text[index:end], self.records, self.problems)
            index = end

    def note_rest(self, index: int) -> None:
        rest = self.text[index:].strip()
        if rest:
            place = self._skip(index)
            message = f"text after the end of the list was not read: {rest[:40]!r}."
            self.problems.append(Problem(self.line(place), "bad_json", message))

    def _resume(self, index: int, line: int, error: Exception) -> int | None:
        """Records the broken row at `index` and finds the next one: an object that starts as the good rows do."""
        self.patience -= getattr(error, "pos", index) - index
        first = next((name for record in self.records[:1] for name in record.value), None)
        opening = r"(?<=\n)[ \t]{0,4}\{" if first is None else r"\{\s*" + re.escape(json.dumps(first)) + r"\s*:"
        found = re.compile(opening).search(self.text, index + 1) if self.patience > 0 else None
        message = _why(error, self.text)
        left = len(self.text) - index
        if found is None and left > 1000:
            message += f" Nothing after it could be read ({left:,} characters)."
        self.problems.append(Problem(line, "bad_json", message))
        return found.start() if found else None

    def _gap(self, index: int) -> int:
        return GAP.match(self.text, index).end()  # type: ignore[union-attr]

    def _skip(self, index: int) -> int:
        return SPACE.match(self.text, index).end()  # type: ignore[union-attr]


def _why(error: Exception, source: str) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep to be read."
    if not isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {str(error)[:80]}."
    if not source[error.pos :].strip() or error.msg.startswith("Unterminated string"):
        return "the JSON breaks off in the middle: it looks cut short, or a quote is missing."
    place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
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
