"""Reading data row by row: each file's container is found by its content first and by its ending second."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from spool.data.reading import delimited, json_document, json_rows, parquet, plain_text
from spool.data.reading.limits import DEFAULT, Limits
from spool.data.reading.source import (
    GZIP,
    KINDS,
    ZIP,
    Part,
    Source,
    Stream,
    open_regular,
    open_source,
    refuse_other_kinds,
    shown,
)
from spool.data.reading.table import Problem, Record, Rows, Table, in_words
from spool.data.reading.text import Encoding, Lines, detect
from spool.protocol.errors import DataError

HEAD_CHARACTERS = 128 * 1024
SAMPLE_ROWS = 200
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Dialect:
    """How a file is to be read, where the user knows better than what is found."""

    encoding: str = "auto"
    delimiter: str = "auto"
    header: bool | None = None
    """Whether the first line of a table names its columns."""


AS_FOUND = Dialect()


class Reading:
    """The rows behind a path, in order, read as they are asked for. May be iterated once.

    Raises (when made):
        DataError: there is nothing there, or its first file cannot be read as rows.
    """

    def __init__(self, path: Path, dialect: Dialect = AS_FOUND, limits: Limits = DEFAULT) -> None:
        self.path = Path(path)
        self.dialect = dialect
        self.limits = limits
        self.source: Source = open_source(self.path, limits)
        self.notices: list[str] = list(self.source.notices)
        self._budget = self.source.budget()
        self._columns: dict[str, None] = {}
        self._waiting: list[Record | Problem] = []
        self.encoding, first = self._open(self.source.parts[0])
        self.container, self.note = first.container, first.note
        self.found = Dialect(self._codec, first.delimiter or "", first.header)
        """How the first file is read, with every auto resolved; delimiter "" and header None where it is no table."""
        if self.source.kind != "file":
            count = len(self.source.parts)
            self.note = f"{count} files of a {self.source.kind}; {self.note}" if count > 1 else self.note
        elif self.source.parts[0].packed:
            self.note = f"gzipped; {self.note}"
        self._items = self._all(first)

    def __iter__(self) -> Iterator[Record | Problem]:
        # handed over, not shared: a cycle would keep the file open until the garbage is collected
        waiting, items = self._waiting, self._items
        self._waiting, self._items = [], iter(())
        return chain(waiting, items)

    @property
    def columns(self) -> list[str]:
        """The columns seen so far."""
        return list(self._columns)

    def sample(self, rows: int = SAMPLE_ROWS) -> Table:
        """The first rows, without taking them away from who iterates."""
        while sum(isinstance(item, Record) for item in self._waiting) < rows and len(self._waiting) < 50 * rows:
            item = next(self._items, None)
            if item is None:
                break
            self._waiting.append(item)
        records = [item for item in self._waiting if isinstance(item, Record)]
        problems = [item for item in self._waiting if isinstance(item, Problem)]
        return Table(self.path, self.container, self.encoding, self.note, self.columns, records, problems)

    def _all(self, first: Rows) -> Iterator[Record | Problem]:
        yield from self._rows(first)
        for part in self.source.parts[1:]:
            try:
                encoding, rows = self._open(part)
            except DataError as error:
                yield Problem(0, error.code, f"the file was not read: {error.message}", "blocks", None, part.name)
                continue
            if encoding != self.encoding:
                self.notices.append(f"{part.name} is read as {encoding}.")
            yield from self._rows(rows)

    def _rows(self, rows: Rows) -> Iterator[Record | Problem]:
        known = 0
        columns = self._columns
        columns.update(dict.fromkeys(rows.columns))
        for item in rows.items:
            if len(rows.columns) != known:
                known = len(rows.columns)
                columns.update(dict.fromkeys(rows.columns))
            yield item

    def _open(self, part: Part) -> tuple[str, Rows]:
        """(encoding as shown, rows) of one file."""
        name = part.name or self.path.name
        stream = part.open(self._budget)
        magic = _magic(part, self.source)
        if magic.startswith(parquet.MAGIC):
            file = open_regular(part.path) if part.path else parquet.unpacked(io.BufferedReader(stream))
            self._codec = "utf-8"
            return "binary", parquet.rows(file, name, part.name, self._budget)
        refuse_other_kinds(magic, name)
        if part.ending == ".parquet" and magic:
            message = f"{name} is not Parquet: it does not begin with {parquet.MAGIC.decode()}."
            raise DataError(message, "Is it cut short, or named wrongly? Write or copy it again.")
        if magic.startswith((GZIP, ZIP)):
            raise DataError(f"{name} is an archive inside an archive.", "Unpack it one level.", "bad_archive")
        with io.BufferedReader(part.open(self.source.budget()), BLOCK_BYTES) as survey:
            encoding = detect(survey, name, self.dialect.encoding)
        self._codec = encoding.codec
        head = self._head(part, encoding, name)
        if encoding.notice:
            self.notices.append(encoding.notice if not part.name else f"{part.name}: {encoding.notice}")
        container = _container(head, part.ending, name)
        buffered = io.BufferedReader(stream, BLOCK_BYTES)
        return encoding.name, self._reader(container, buffered, encoding, head, part)

    def _head(self, part: Part, encoding: Encoding, name: str) -> str:
        """The first characters of a file.

        Raises:
            DataError: there are none but white space.
        """
        with part.open(self.source.budget()) as stream:
            stream.read(encoding.mark_bytes)
            text = io.TextIOWrapper(io.BufferedReader(stream), encoding.codec, encoding.errors, newline="")
            head = text.read(HEAD_CHARACTERS)
            while head and not head.strip():
                head = text.read(HEAD_CHARACTERS)
            broken = stream.broken
        if not head and broken:
            raise DataError(f"{name} cannot be unpacked: {broken}.", "Pack or copy it again.", "bad_archive")
        if not head:
            raise DataError(f"{name} is empty.", "Choose a file with rows in it.")
        return head

    def _reader(self, container: str, stream: Any, encoding: Encoding, head: str, part: Part) -> Rows:
        dialect, limits = self.dialect, self.limits
        if container == "json":
            stream.read(encoding.mark_bytes)
            text = io.TextIOWrapper(stream, encoding.codec, encoding.errors, newline="")
            rows = json_document.document(text.read, encoding, part.name, limits)
        elif container == "jsonl" and encoding.codec == "utf-8" and ("\n" in head or "\r" not in head):
            stream.read(encoding.mark_bytes)
            rows = json_rows.lines(byte_lines(stream, encoding.mark_bytes, limits.row_bytes), part.name)
        else:
            lines = Lines(stream, encoding, limits.row_bytes)
            if container == "jsonl":
                rows = json_rows.lines(lines, part.name)
            elif container == "txt":
                rows = plain_text.rows(lines, head, part.name)
            else:
                header = dialect.header
                rows = delimited.rows(lines, head, part.ending, part.name, limits, dialect.delimiter, header)
        rows.items = _watched(rows.items, stream.raw, part.name)
        return rows


def read(path: Path, dialect: Dialect = AS_FOUND, limits: Limits = DEFAULT) -> Table:
    """All rows of a small file at once. A row that cannot be read is a problem of the table, never an exception.

    Raises:
        DataError: there is no such file, it is not text, or none of its rows can be read.
    """
    reading = Reading(path, dialect, limits)
    records: list[Record] = []
    problems: list[Problem] = []
    for item in reading:
        if isinstance(item, Record):
            records.append(item)
        else:
            problems.append(item)
    found = (reading.container, reading.encoding, reading.note, reading.columns)
    table = Table(reading.path, *found, records, problems)
    if not records:
        raise nothing(table)
    return table


def iterate(path: Path, dialect: Dialect = AS_FOUND, limits: Limits = DEFAULT) -> Iterator[Record | Problem]:
    """Each row in order: a record, or the problem that drops it.

    Raises:
        DataError: as `Reading`.
    """
    return iter(Reading(path, dialect, limits))


def byte_lines(stream: BinaryIO, start: int, most: int) -> Iterator[tuple[int, int, bytes | None]]:
    """(number from 1, byte offset from `start`, bytes) of each line; None for one that is longer than `most`."""
    number, byte, rest = 0, start, b""
    skipping = 0
    while block := stream.read(BLOCK_BYTES):
        lines = block.split(b"\n")
        lines[0] = rest + lines[0]
        rest = lines.pop()
        for line in lines:
            number += 1
            if skipping or len(line) > most:
                yield number, byte, None
                byte += skipping + len(line) + 1
                skipping = 0
                continue
            yield number, byte, line
            byte += len(line) + 1
        if len(rest) > most:
            skipping += len(rest)
            rest = b""
    if rest or skipping:
        yield number + 1, byte, None if skipping else rest


def nothing(table: Table) -> DataError:
    """Why a file without a single readable row is of no use."""
    if not table.problems:
        message = f"{table.path.name} holds no rows (read as {table.container.upper()}, {table.encoding})."
        return DataError(message, "Choose a file with rows in it.")
    message = (
        f"none of the {table.rows:,} rows of {table.path.name} can be read "
        f"(read as {table.container.upper()}, {table.encoding}). {in_words(table.problems)}"
    )
    return DataError(message, "Correct the file. " + KINDS)


def _watched(items: Iterator[Record | Problem], stream: Stream, file: str) -> Iterator[Record | Problem]:
    """The rows, and at the end whether the packed file broke off before its own."""
    line = 0
    try:
        for item in items:
            line = item.line
            yield item
    finally:
        stream.close()
    broken = stream.broken
    if broken:
        message = f"the packed file is not whole: {broken}. An unknown number of rows is missing."
        yield Problem(line, "truncated", message, "blocks", None, file)


def _magic(part: Part, source: Source) -> bytes:
    with part.open(source.budget()) as stream:
        return stream.read(512) or b""


def _container(head: str, ending: str, name: str) -> str:
    """json, jsonl, csv or txt, by the first characters and the file's ending."""
    whole = len(head) < HEAD_CHARACTERS
    lines = [line for line in islice(_lines(head), 200) if line.strip()]
    lines = (lines if whole or len(lines) < 2 else lines[:-1])[:50]
    objects = sum(map(json_rows.is_row, lines))
    start = json_document.SPACE.sub("", head, count=1)[:1]
    if len(lines) > 1 and objects * 2 >= len(lines):
        return "jsonl"
    if start in ("{", "["):
        if ending in (".jsonl", ".ndjson") and (objects or len(lines) < 2 or lines[0].rstrip()[-1] in "}]"):
            return "jsonl"
        if ending in (".jsonl", ".ndjson"):  # one object over several lines, or a list of them
            return "json"
        if whole and json_rows.is_row(head):
            return "json"
        if ending == ".json" or re.match(r'\s*(\[\s*[\[{"]|\{\s*")', head):
            return "json"
    if ending in (".csv", ".tsv", ".tab"):
        return "csv"
    if delimited.looks_delimited(head, strict=ending in (".txt", ".text")):
        return "csv"
    if ending in (".jsonl", ".ndjson"):
        return "jsonl"
    if ending == ".json":
        first = shown(lines[0].strip()[:60]) if lines else ""
        raise DataError(f"{name} is not JSON: it starts with {first!r}.", "A JSON file starts with [ or {.")
    return "txt"


def _lines(text: str) -> Iterator[str]:
    return (match.group() for match in re.finditer(r"[^\r\n]+", text))
