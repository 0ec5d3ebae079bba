"""What a data file becomes: records with their line numbers, and every row that was lost with its reason."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """One row. `line` counts from 1; for a row over several lines it is the first."""

    line: int
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about one row. `action` is what was done: "dropped", "cut" (shortened and kept) or "kept"."""

    line: int
    code: str
    message: str
    action: str = "dropped"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


@dataclass
class Table:
    """A file as it was read: its rows are the records and the dropped ones, always."""

    path: Path
    container: str
    """csv, tsv, json, jsonl or txt."""
    encoding: str
    note: str
    """How it was read, in words: the delimiter, one sample a line or paragraphs ..."""
    columns: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.records) + count_dropped(self.problems)


def count_dropped(problems: list[Problem]) -> int:
    return sum(problem.action == "dropped" for problem in problems)


def printable(text: str) -> str:
    """Text without lone surrogates, which can be neither printed nor stored."""
    return text.encode(errors="replace").decode()


def in_words(problems: list[Problem], at_most: int = 3) -> str:
    """The first few dropped rows as sentences."""
    dropped = [problem for problem in problems if problem.action == "dropped"]
    more = f" (and {len(dropped) - at_most:,} more)" if len(dropped) > at_most else ""
    return " ".join(f"Line {problem.line}: {problem.message}" for problem in dropped[:at_most]) + more
