"""What a page asks about a file: the doctor's report while it grows, single rows as the model sees them, and search."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from spool.data import background
from spool.data.judging.chat import NOT_TRAINED, Encoded, Encoder
from spool.data.judging.examples import Example, to_example
from spool.data.judging.formats import Layout, recognise
from spool.data.judging.tokens import AUTO_MAX_TOKENS, resolve_train_on
from spool.data.reading import json_rows
from spool.data.reading.limits import Limits
from spool.data.reading.read import AS_FOUND, Dialect, Reading
from spool.data.reading.source import open_regular, signature
from spool.data.reading.table import Problem, Record
from spool.protocol import settings
from spool.protocol.errors import DataError, FinetunerError
from spool.protocol.home import Home

PATIENCE_S = 3.0
"""Who asks first waits so long: most files are judged by then, and nothing on the page moves afterwards."""
BLOCK_ROWS, BLOCK_CHARACTERS = 64, 4_000_000
"""Rows that are read together where a file cannot be entered in the middle, so that the next ones are there."""


@dataclass(frozen=True)
class Inspection:
    """What is known of a file so far.

    `report` is the document of `finetuner check --json`; before `complete` it is None, or its tokens and comparisons
    are those of the first rows (`statistics.sampled_rows`). `error` is {"code", "message", "hint"} where the file
    cannot be judged. `stage` says what is being done, `done` and `total` how far that is (0 where it is not known).
    """

    report: dict[str, Any] | None
    complete: bool
    error: dict[str, Any] | None
    stage: str = ""
    done: int = 0
    total: int = 0


def look(
    home: Home,
    path: Path,
    *,
    format: str = "auto",
    mapping: Mapping[str, str] | None = None,
    dialect: Dialect = AS_FOUND,
    model_folder: Path | None = None,
    max_length: int | None = None,
    patience_s: float | None = None,
) -> Inspection:
    """The report on a file as far as it is known; a process of its own works on it (spool/data/background.py).

    Asking again is cheap, and goes on until `complete`.

    Args:
        patience_s: how long who asks first waits, seconds; PATIENCE_S where nothing is said.
    """
    try:
        request = _request(path, format, mapping, dialect, model_folder, max_length)
        seen = background.ask(home, request)
        patience_s = PATIENCE_S if patience_s is None else patience_s
        end = time.monotonic() + (patience_s if seen.stage == background.STARTING else 0)
        while not (seen.complete or seen.error) and time.monotonic() < end:
            time.sleep(0.05)
            seen = background.ask(home, request)
    except FinetunerError as error:
        return Inspection(None, True, error.to_json())
    return Inspection(
        seen.report, seen.complete or seen.error is not None, seen.error, seen.stage, seen.done, seen.total
    )


def _request(
    path: Path,
    format: str,
    mapping: Mapping[str, str] | None,
    dialect: Dialect,
    model_folder: Path | None,
    max_length: int | None,
) -> background.Request:
    how = (dialect.encoding, dialect.delimiter, dialect.header)
    folder = str(model_folder) if model_folder else None
    return background.Request(str(path.resolve()), format, _pairs(mapping), *how, folder, max_length)


def row_view(
    home: Home,
    path: Path,
    line: int | None,
    model_folder: Path,
    format: str = "auto",
    mapping: Mapping[str, str] | None = None,
    max_length: int | None = None,
    dialect: Dialect = AS_FOUND,
    position: int | None = None,
) -> dict[str, Any]:
    """One row as the model of a folder sees it: the row at `line`, else the next one after it; None is the first.

    Where rows share a line (JSON on one line, several files) only `position` tells them apart; it counts from 0.

    Gives {"line", "position", "rows", "previous", "next" (lines or None), "text" (the rendered template),
    "tokens": [{"id", "text", "special", "trained"}], "limit" (tokens that are kept), "problem"}; a row that is left
    out has its problem {"code", "message"}, and tokens only where it could be rendered. `rows` is 2,000 at most until
    the whole file has been read once.

    Raises:
        DataError: the file cannot be read, or its layout is not recognised.
        ModelError: the folder is no usable Gemma.
    """
    encoder = _encoder(str(model_folder), _stamp(model_folder / "tokenizer.json"))
    file = _File.now(home, path, dialect)
    layout, direct = _opened(file, format, _pairs(mapping))
    places = background.rows(home, _request(path, format, mapping, dialect, model_folder, max_length))
    if places is None:
        places = _first_places(file)
    at = _place(places, line) if position is None else max(0, min(position, len(places) - 1))
    seen: dict[str, Any] = {
        "line": int(places[at][1]),
        "position": at,
        "rows": len(places),
        "previous": int(places[at - 1][1]) if at else None,
        "next": int(places[at + 1][1]) if at + 1 < len(places) else None,
        "text": "",
        "tokens": [],
        "limit": max_length or min(AUTO_MAX_TOKENS, encoder.context_length),
        "problem": None,
    }
    found = _encoded(_row_at(file, direct, places, at), layout, encoder)
    if isinstance(found, Problem):
        return {**seen, "problem": {"code": found.code, "message": found.message}}
    return {**seen, "text": found.text, "tokens": _tokens(encoder, found)}


def search(path: Path, text: str, limits: Limits, most: int = 20, dialect: Dialect = AS_FOUND) -> list[dict[str, Any]]:
    """The first rows that hold a text in any case: [{"line", "preview"}], where the preview is the text's surrounding.

    Raises:
        DataError: the file cannot be read.
    """
    wanted = text.casefold()
    return list(islice(_hits(_records(path, dialect, limits), wanted), most)) if wanted.strip() else []


def head(path: Path, rows: int, limits: Limits, dialect: Dialect = AS_FOUND) -> list[Record]:
    """The first rows that can be read.

    Raises:
        DataError: the file cannot be read.
    """
    return list(islice(_records(path, dialect, limits), rows))


def records(path: Path, lines: set[int], limits: Limits, dialect: Dialect = AS_FOUND) -> list[Record]:
    """The rows that start on these lines; those that cannot be read are missing.

    Raises:
        DataError: the file cannot be read.
    """
    reading = Reading(path, dialect, limits)
    last = max(lines, default=0)
    rows: Iterator[Record] = (row for row in reading if isinstance(row, Record))
    if reading.source.kind == "file":  # else the next file's lines count from 1 again
        rows = takewhile(lambda row: row.line <= last, rows)
    return [record for record in rows if record.line in lines]


@dataclass(frozen=True)
class _File:
    """A file in one state and how it is read: what is cached of it is not taken for another's."""

    path: Path
    state: str
    dialect: Dialect
    limits: str

    @classmethod
    def now(cls, home: Home, path: Path, dialect: Dialect) -> "_File":
        return cls(path, str(signature(path)), dialect, settings.load(home).data_limits.model_dump_json())

    def read(self) -> Reading:
        return Reading(self.path, self.dialect, Limits.model_validate_json(self.limits))

    def rows(self) -> Iterator[tuple[tuple[int, int, int], Record | Problem]]:
        """Each row, the dropped ones too, with its place as in `background.rows`."""
        reading = self.read()
        numbers = {part.name: number for number, part in enumerate(reading.source.parts)}
        for row in reading:
            if isinstance(row, Record) or (row.action == "dropped" and row.line):
                yield (numbers[row.file], row.line, -1 if row.byte is None else row.byte), row


@lru_cache(maxsize=32)
def _opened(file: _File, format: str, mapping: tuple[tuple[str, str], ...]) -> tuple[Layout, bool]:
    """Its layout, and whether it can be entered at a row's byte."""
    reading = file.read()
    lines = reading.container == "jsonl" and reading.encoding.startswith("utf-8")
    plain = reading.source.kind == "file" and reading.source.parts[0].path is not None
    return recognise(reading.sample(), format, dict(mapping)), lines and plain


@lru_cache(maxsize=8)
def _first_places(file: _File) -> np.ndarray:
    """`background.rows` of a file's first rows."""
    return np.array([place for place, _ in islice(file.rows(), background.SAMPLE_ROWS)], np.int64).reshape(-1, 3)


def _place(places: np.ndarray, line: int | None) -> int:
    """The number of the first row on a line or behind it; of the last row where there is none."""
    behind = places[:, 1] >= (line or 0)
    return int(behind.argmax()) if behind.any() else len(places) - 1


def _row_at(file: _File, direct: bool, places: np.ndarray, at: int) -> Record | Problem:
    """A row by its number in `places`."""
    if direct:
        return _line_at(file, places, at)
    start, beyond = at // BLOCK_ROWS * BLOCK_ROWS, at % BLOCK_ROWS
    rows = _block(file, *_wanted(places, start, start + BLOCK_ROWS))
    return rows[beyond] if beyond < len(rows) else _block(file, *_wanted(places, at, at + 1))[0]


def _line_at(file: _File, places: np.ndarray, at: int) -> Record | Problem:
    """A row of JSON lines, read from where it starts to where the next one does."""
    _, line, start = map(int, places[at])
    most = Limits.model_validate_json(file.limits).row_bytes
    with open_regular(file.path) as source:
        end = int(places[at + 1][2]) if at + 1 < len(places) else os.fstat(source.fileno()).st_size
        source.seek(start)
        raw = source.read(min(end - start, most + 2)).split(b"\n", 1)[0]
    for row in json_rows.lines([(line, start, raw if len(raw) <= most else None)], "").items:
        if isinstance(row, Record) or row.action == "dropped":
            return row
    raise _changed(file)


def _wanted(places: np.ndarray, start: int, end: int) -> tuple[tuple[tuple[int, int, int], ...], int]:
    """(places of some rows, how many rows before them share the first one's place)."""
    wanted = tuple((int(n), int(line), int(byte)) for n, line, byte in places[start:end])
    return wanted, int((places[:start] == places[start]).all(axis=1).sum())


@lru_cache(maxsize=8)
def _block(file: _File, wanted: tuple[tuple[int, int, int], ...], skipped: int) -> list[Record | Problem]:
    """The rows at some places, for which the file is read up to there; fewer where they are very long."""
    found: list[Record | Problem] = []
    characters = 0
    for place, row in file.rows():
        if place != wanted[len(found)]:
            continue
        if skipped:
            skipped -= 1
            continue
        found.append(row)
        characters += len(str(row.value)) if isinstance(row, Record) else len(row.raw)
        if len(found) == len(wanted) or characters > BLOCK_CHARACTERS:
            return found
    raise _changed(file)


def _changed(file: _File) -> DataError:
    return DataError(f"{file.path.name} was changed while it was looked at.", "Load the page again.", "data_changed")


@lru_cache(maxsize=1)
def _encoder(folder: str, stamp: float) -> Encoder:
    return Encoder.for_model(Path(folder))


def _encoded(row: Record | Problem, layout: Layout, encoder: Encoder) -> Encoded | Problem:
    found = to_example(row, layout) if isinstance(row, Record) else row
    return encoder.encode(found, resolve_train_on("auto", layout)) if isinstance(found, Example) else found


def _tokens(encoder: Encoder, row: Encoded) -> list[dict[str, Any]]:
    special = {number for number, token in encoder.tokenizer.get_added_tokens_decoder().items() if token.special}
    known: dict[tuple[int, bool], dict[str, Any]] = {}  # one for all that are equal: a row may have millions
    shown = []
    for number, label in zip(row.input_ids, row.labels, strict=True):
        key = (number, label != NOT_TRAINED)
        if key not in known:
            text = str(encoder.tokenizer.id_to_token(number)).replace("\u2581", " ")
            known[key] = {"id": number, "text": text, "special": number in special, "trained": key[1]}
        shown.append(known[key])
    return shown


def _records(path: Path, dialect: Dialect, limits: Limits) -> Iterator[Record]:
    return (row for row in Reading(path, dialect, limits) if isinstance(row, Record))


def _hits(rows: Iterator[Record], wanted: str) -> Iterator[dict[str, Any]]:
    for row in rows:
        text = " · ".join(map(_as_text, row.value.values()))
        at = text.casefold().find(wanted)
        if at >= 0:
            yield {"line": row.line, "preview": text[max(0, at - 30) : at + 90]}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _stamp(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _pairs(mapping: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((mapping or {}).items()))
