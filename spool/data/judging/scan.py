"""The structural pass over a file of any size: every row is read, laid out and judged once, on all cores.

Of each usable row only numbers stay in memory (about 45 bytes): where it lies, how long it is, and hashes of what it
says, by which duplicates, contradictions and overlaps are found afterwards (spool/data/judging/repeats.py).
"""

import gc
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from spool.data.judging import content
from spool.data.judging.examples import (
    PAIRS,
    Example,
    is_made,
    original_question,
    question,
    question_number,
    to_example,
)
from spool.data.judging.findings import Findings
from spool.data.judging.formats import Layout, recognise
from spool.data.reading import json_rows
from spool.data.reading.limits import DEFAULT, Limits
from spool.data.reading.read import AS_FOUND, Dialect, Reading, byte_lines, nothing
from spool.data.reading.source import open_regular
from spool.data.reading.table import Problem, Record

RANGE_BYTES = 32 << 20
PARALLEL_FROM_BYTES = 64 << 20
FIRST_TEXTS, EVERY_TEXT, MOST_TEXTS = 500, 41, 2_000
TEXT_BYTES = 2_000
SHORT_CHARACTERS = 4_000
MOST_LABELS = 10_000
TELL_EVERY_ROWS = 20_000
PARTED = b"\x1f"
EMPTY: tuple[Any, ...] = (None, "", [], {})

Say = Callable[[int, int], None]
"""Told how much is done: (bytes or rows so far, all of them; 0 where it is not known)."""


@dataclass
class Tally:
    """What was counted in a range of rows. The arrays have one entry a usable row, in reading order."""

    findings: Findings = field(default_factory=Findings)
    rows: int = 0
    """Rows read, the dropped ones too."""
    last_line: int = 0
    lines: array = field(default_factory=lambda: array("q"))
    bytes: array = field(default_factory=lambda: array("q"))
    """Byte offsets; -1 where there is none."""
    characters: array = field(default_factory=lambda: array("i"))
    answers: array = field(default_factory=lambda: array("Q"))
    """Hash of the last answer (or of the whole text)."""
    questions: array = field(default_factory=lambda: array("Q"))
    """Hash of the first user turn (or of the whole text): rows that ask the same stay on one side of a split."""
    made: array = field(default_factory=lambda: array("q"))
    """The usable rows (counted from 0) that were made from others."""
    prompts: array = field(default_factory=lambda: array("Q"))
    """Hash of all that stands before the last answer; 0 for plain text."""
    examples: bytearray = field(default_factory=bytearray)
    """A 128-bit hash of the whole example for each row."""
    files: array = field(default_factory=lambda: array("H"))
    turns: Counter[int] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    columns: dict[str, None] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    """Some of the rows' texts, spread over the file."""
    flagged: dict[str, array] = field(default_factory=dict)
    """Code -> the usable rows (counted from 0) in which it was found."""

    def merge(self, later: "Tally") -> None:
        """Appends what was counted in the range that follows."""
        self.findings.merge(later.findings, self.last_line)
        self.rows += later.rows
        if self.last_line:
            later.lines = array("q", (np.frombuffer(later.lines, np.int64) + self.last_line).tobytes())
        self.made.extend(row + len(self.lines) for row in later.made)
        for code, rows in later.flagged.items():
            moved = np.frombuffer(rows, np.int64) + len(self.lines)
            self.flagged.setdefault(code, array("q")).frombytes(moved.tobytes())
        for name in ("lines", "bytes", "characters", "answers", "questions", "prompts", "examples", "files"):
            getattr(self, name).extend(getattr(later, name))
        self.last_line += later.last_line
        self.turns += later.turns
        self.labels += later.labels
        self.columns.update(later.columns)
        self.texts += later.texts[:FIRST_TEXTS]


@dataclass
class Scan:
    """A file after the structural pass."""

    path: Path
    container: str
    encoding: str
    note: str
    notices: list[str]
    layout: Layout
    dialect: Dialect
    """As it was asked for; `found` is what it became."""
    found: Dialect
    limits: Limits
    columns: list[str]
    tally: Tally
    file_names: list[str]

    def rows_with(self, code: str) -> np.ndarray:
        """The usable rows (from 0, in order) in which a code was found."""
        return np.frombuffer(self.tally.flagged.get(code, array("q")), np.int64)

    def flag(self, code: str, row: int, message: str) -> None:
        """Adds a finding about a usable row, which stays."""
        self.tally.flagged.setdefault(code, array("q")).append(row)
        self.tally.findings.add(Problem(code=code, message=message, action="kept", **self.place(row)))

    @property
    def usable(self) -> int:
        return len(self.tally.lines)

    def place(self, row: int) -> dict[str, Any]:
        """line, byte and file of a usable row, as a Problem takes them."""
        byte = self.tally.bytes[row]
        file = self.file_names[self.tally.files[row]]
        return {"line": self.tally.lines[row], "byte": byte if byte >= 0 else None, "file": file}


def scan(
    path: Path,
    format: str = "auto",
    mapping: Mapping[str, str] | None = None,
    dialect: Dialect = AS_FOUND,
    limits: Limits = DEFAULT,
    say: Say = lambda done, total: None,
    alone: bool = False,
) -> Scan:
    """Judges every row of a file (a folder, an archive). Needs no model.

    Args:
        alone: starts no other processes. The web app's process cannot: they would run its page as their main module.

    Raises:
        DataError: the file cannot be read, none of its rows can be, or its layout is not recognised.
    """
    reading = Reading(path, dialect, limits)
    sample = reading.sample()
    if not sample.records:
        sample.problems = [item for item in reading if isinstance(item, Problem)]
        raise nothing(sample)
    layout = recognise(sample, format, mapping)
    names = [part.name for part in reading.source.parts]
    with without_collecting():
        if not alone and (ranges := _ranges(reading)):
            tally = _in_parallel(reading.path, ranges, layout, limits, say)
        else:
            tally = _count(reading, layout, names, say)
    columns = list(dict.fromkeys([*reading.columns, *tally.columns]))
    found = (reading.container, reading.encoding, reading.note, reading.notices)
    return Scan(reading.path, *found, layout, dialect, reading.found, limits, columns, tally, names)


def examples(scan: Scan) -> Iterator[Example]:
    """The usable rows of a scanned file again, in the same order as the scan's arrays."""
    for item in Reading(scan.path, scan.dialect, scan.limits):
        if isinstance(item, Record):
            example = to_example(item, scan.layout)
            if isinstance(example, Example):
                yield example


@contextmanager
def without_collecting() -> Iterator[None]:
    """Rows hold no cycles: looking for some would take a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _ranges(reading: Reading) -> list[tuple[int, int]]:
    """(start, end) byte offsets that processes may work on beside each other; none where one is enough."""
    part = reading.source.parts[0]
    alone = len(reading.source.parts) == 1 and part.path is not None and (part.size_bytes or 0) > PARALLEL_FROM_BYTES
    if not alone or reading.container != "jsonl" or not reading.encoding.startswith("utf-8"):
        return []
    size = part.size_bytes or 0
    return [(start, min(start + RANGE_BYTES, size)) for start in range(0, size, RANGE_BYTES)]


def _in_parallel(path: Path, ranges: list[tuple[int, int]], layout: Layout, limits: Limits, say: Say) -> Tally:
    cores = min(len(os.sched_getaffinity(0)), len(ranges), 16)
    total = Tally()
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn"), initializer=gc.disable) as pool:
        work = pool.map(_count_range, [(str(path), start, end, layout, limits) for start, end in ranges])
        for (_, end), tally in zip(ranges, work, strict=True):
            total.merge(tally)
            say(end, ranges[-1][1])
    return total


def _count_range(work: tuple[str, int, int, Layout, Limits]) -> Tally:
    """The lines that start in [start, end)."""
    path, start, end, layout, limits = work
    with open_regular(Path(path)) as file:
        mark = 3 if file.read(3) == b"\xef\xbb\xbf" else 0
        first = _line_start(file, start) if start else mark
        last = _line_start(file, end)
        if first >= last:
            return Tally()
        file.seek(first)
        bounded = _Bounded(file, last - first)
        rows = json_rows.lines(byte_lines(bounded, first, limits.row_bytes), "")  # type: ignore[arg-type]
        tally = _count(rows.items, layout, [""], lambda done, total: None)
        file.seek(first)
        tally.last_line = _newlines(_Bounded(file, last - first))
    tally.columns = dict.fromkeys(rows.columns)
    return tally


class _Bounded:
    """The next so many bytes of a file."""

    def __init__(self, file: Any, count: int) -> None:
        self.file, self.left = file, count

    def read(self, count: int) -> bytes:
        data: bytes = self.file.read(min(count, self.left))
        self.left -= len(data)
        return data


def _newlines(file: _Bounded) -> int:
    count = 0
    while block := file.read(1 << 20):
        count += block.count(b"\n")
    return count


def _line_start(file: Any, place: int) -> int:
    """Where the first line starts that does so at `place` or behind it."""
    file.seek(place - 1)
    while block := file.read(1 << 16):
        found = block.find(b"\n")
        if found >= 0:
            return int(file.tell() - len(block) + found + 1)
    return int(file.tell())


def _count(items: Iterable[Record | Problem], layout: Layout, names: list[str], say: Say) -> Tally:
    """The loop that every row goes through."""
    tally = Tally()
    numbers = {name: number for number, name in enumerate(names)}
    suspicious, add = content.suspicious, tally.findings.add
    pair = _plain_pair(layout)
    for number, item in enumerate(items):
        if number and number % TELL_EVERY_ROWS == 0:
            say(tally.rows, 0)
        tally.last_line = item.line
        if type(item) is not Record:
            tally.rows += item.action == "dropped"  # type: ignore[union-attr]
            add(item)  # type: ignore[arg-type]
            continue
        tally.rows += 1
        said = pair(item.value)
        if said is not None and not suspicious(said[0] + b"\n" + said[1]):
            _note(tally, item, numbers, said[0], *said, 2)
            if layout.format == "label":
                _note_label(tally, item.value[layout.roles["label"]])
            continue
        example = to_example(item, layout)
        if isinstance(example, Problem):
            add(example)
            continue
        _judge_example(tally, item, numbers, example)
        if layout.format == "label" and example.messages:
            _note_label(tally, example.messages[-1]["content"])
    return tally


def _judge_example(tally: Tally, record: Record, numbers: dict[str, int], example: Example) -> None:
    """Notes one row that took the long way, with what its text has that it should not."""
    place = {"line": record.line, "byte": record.byte, "file": record.file}
    for code, how in example.repairs:
        tally.findings.add(Problem(code=code, message=how, action="repaired", **place))  # type: ignore[arg-type]
    messages = example.messages
    if messages is None:
        turns, said = 0, [(example.text or "", False)]
        asked, answered = b"", (example.text or "").encode()
    else:
        spoken = [message for message in messages if message["role"] != "system"]
        turns = len(spoken)
        asked = PARTED.join(message["content"].encode() for message in messages[:-1])
        answered = messages[-1]["content"].encode()
        said = [(message["content"], message["role"] == "assistant") for message in messages]
    if content.suspicious(b"\n".join(text.encode() for text, _ in said)):
        for finding in {f.what: f for text, answer in said for f in _findings(text, answer)}.values():
            tally.findings.add(Problem(code=finding.code, message=finding.what, action="kept", **place))  # type: ignore[arg-type]
            flagged = tally.flagged.setdefault(finding.code, array("q"))
            if not flagged or flagged[-1] != len(tally.lines):
                flagged.append(len(tally.lines))
    asks = question(example).encode()
    _note(tally, record, numbers, asks, asked, answered, sum(len(text) for text, _ in said), turns)


def _findings(text: str, answer: bool) -> list[content.Finding]:
    """What a turn holds; system prompts come again in every row."""
    return _known_findings(text, answer) if len(text) < SHORT_CHARACTERS else content.findings(text, answer)


@lru_cache(256)
def _known_findings(text: str, answer: bool) -> list[content.Finding]:
    return content.findings(text, answer)


def _note(
    tally: Tally,
    record: Record,
    numbers: dict[str, int],
    asks: bytes,
    asked: bytes,
    answered: bytes,
    characters: int,
    turns: int,
) -> None:
    """Notes a usable row: `asks` is its first user turn, `asked` all before its last answer."""
    original = None
    if is_made(record):
        tally.made.append(len(tally.lines))
        original = original_question(record)
    tally.questions.append(question_number(asks) if original is None else original)
    tally.lines.append(record.line)
    tally.bytes.append(-1 if record.byte is None else record.byte)
    tally.characters.append(min(characters, 2**31 - 1))
    tally.answers.append(xxh3_64_intdigest(answered))
    tally.prompts.append(xxh3_64_intdigest(asked) if turns else 0)
    tally.examples += xxh3_128_digest(asked + PARTED + answered)
    tally.files.append(numbers[record.file])
    tally.turns[turns] += 1
    if len(tally.texts) < MOST_TEXTS and (tally.rows <= FIRST_TEXTS or tally.rows % EVERY_TEXT == 0):
        tally.texts.append((asked + b"\n" + answered)[:TEXT_BYTES].decode(errors="ignore"))


def _note_label(tally: Tally, label: str) -> None:
    if label in tally.labels or len(tally.labels) < MOST_LABELS:
        tally.labels[label] += 1


def _plain_pair(layout: Layout) -> Callable[[dict[str, Any]], tuple[bytes, bytes, int] | None]:
    """The usual row's prompt and answer, and their characters; None where something needs a second look."""
    if layout.format not in PAIRS:
        return lambda value: None
    roles = PAIRS[layout.format]
    asking, answering = (layout.roles[role] for role in roles)
    others = [column for role, column in layout.roles.items() if role not in roles]

    def pair(value: dict[str, Any]) -> tuple[bytes, bytes, int] | None:
        asked, answered = value.get(asking), value.get(answering)
        if type(asked) is not str or type(answered) is not str or not asked or not answered:
            return None
        if asked.lstrip()[:1] == "[" or asked.isspace() or answered.isspace() or "<" in asked or "<" in answered:
            return None
        if answered[0] == "{" and layout.format == "question_answer":
            return None
        for column in others:
            if value.get(column) not in EMPTY:
                return None
        try:
            return asked.encode(), answered.encode(), len(asked) + len(answered)
        except UnicodeEncodeError:
            return None

    return pair
