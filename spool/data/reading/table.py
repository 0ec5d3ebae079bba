"""What a data file becomes: records with their line numbers, and every row that was lost with its reason."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Record:
    """One row. `line` counts from 1; for a row over several lines it is the first. In Parquet: its number."""

    line: int
    value: dict[str, Any]
    byte: int | None = None
    """Offset of the row's first byte in its (unpacked) file; None where there is none, as in Parquet."""
    file: str = ""
    """The row's file where several were read (a folder, a zip archive)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about one row (line 0: about the whole file).

    `action` is what was done: "dropped", "repaired" (the message says how), "cut" (shortened and kept), "kept", or
    "blocks" (no job may train on the file as it is).
    """

    line: int
    code: str
    message: str
    action: str = "dropped"
    byte: int | None = None
    file: str = ""
    raw: str = ""
    """The row's source where it could not even be parsed, so that it can be corrected and added again."""

    def to_json(self) -> dict[str, Any]:
        shown = {"line": self.line, "code": self.code, "message": self.message, "action": self.action}
        return {**shown, "byte": self.byte} | ({"file": self.file} if self.file else {})

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


@dataclass
class Rows:
    """One file being read: `items` gives every row in order, `columns` is complete when it is through."""

    container: str
    note: str
    items: Iterator[Record | Problem]
    columns: list[str]
    delimiter: str | None = None
    """Of a CSV file, as it was found or stated."""
    header: bool | None = None


@dataclass
class Table:
    """A file, or its first rows, as it was read: its rows are the records and the dropped ones, always."""

    path: Path
    container: str
    """csv, tsv, json, jsonl, txt or parquet."""
    encoding: str
    note: str
    """How it was read, in words: the delimiter, one sample a line or paragraphs ..."""
    columns: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.records) + count_dropped(self.problems)


def count_dropped(problems: Iterable[Problem]) -> int:
    return sum(problem.action == "dropped" for problem in problems)


def printable(text: str) -> str:
    """Text without lone surrogates, which can be neither printed nor stored."""
    return text.encode(errors="replace").decode()


def in_words(problems: list[Problem], at_most: int = 3) -> str:
    """The first few dropped rows as sentences."""
    dropped = [problem for problem in problems if problem.action == "dropped"]
    more = f" (and {len(dropped) - at_most:,} more)" if len(dropped) > at_most else ""
    return " ".join(f"Line {problem.line}: {problem.message}" for problem in dropped[:at_most]) + more
