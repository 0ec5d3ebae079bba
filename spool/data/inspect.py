"""What a page asks about a file: the doctor's report while it grows, single rows as the model sees them, and search."""

import json
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from spool.data import background
from spool.data.chat import NOT_TRAINED, Encoded, Encoder
from spool.data.examples import Example, to_example
from spool.data.formats import Layout, recognise
from spool.data.read import AS_FOUND, Dialect, Reading
from spool.data.table import Problem, Record
from spool.data.tokens import AUTO_MAX_TOKENS, resolve_train_on
from spool.protocol.errors import DataError, FinetunerError
from spool.protocol.home import Home

PATIENCE_S = 3.0
"""Who asks first waits so long: most files are judged by then, and nothing on the page moves afterwards."""
IN_MEMORY_BYTES = 32_000_000


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
) -> Inspection:
    """The report on a file as far as it is known; a process of its own works on it (spool/data/background.py).

    Asking again is cheap, and goes on until `complete`.
    """
    try:
        request = _request(path, format, mapping, dialect, model_folder, max_length)
        seen = background.ask(home, request)
        end = time.monotonic() + (PATIENCE_S if seen.stage == background.STARTING else 0)
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
) -> dict[str, Any]:
    """One row as the model of a folder sees it: the row at `line`, else the next one after it; None is the first.

    Gives {"line", "position" (from 0), "rows", "previous", "next" (lines or None), "text" (the rendered template),
    "tokens": [{"id", "text", "special", "trained"}], "limit" (tokens that are kept), "problem"}; a row that is left
    out has its problem {"code", "message"}, and tokens only where it could be rendered.

    Raises:
        DataError: the file cannot be read, or its layout is not recognised.
        ModelError: the folder is no usable Gemma.
    """
    encoder = _encoder(str(model_folder), _stamp(model_folder / "tokenizer.json"))
    if _size_bytes(path) <= IN_MEMORY_BYTES:
        layout, rows = _read(str(path), _stamp(path), format, _pairs(mapping), dialect)
        lines: Sequence[int] | np.ndarray = [row.line for row in rows]
    else:
        layout, rows = recognise(Reading(path, dialect).sample(), format, mapping), []
        lines = _lines(home, _request(path, format, mapping, dialect, model_folder, max_length))
    at = min(bisect_left(lines, line or 0), len(lines) - 1)
    row = rows[at] if rows else _row_at(path, dialect, int(lines[at]))
    seen: dict[str, Any] = {
        "line": int(lines[at]),
        "position": at,
        "rows": len(lines),
        "previous": int(lines[at - 1]) if at else None,
        "next": int(lines[at + 1]) if at + 1 < len(lines) else None,
        "text": "",
        "tokens": [],
        "limit": max_length or min(AUTO_MAX_TOKENS, encoder.context_length),
        "problem": None,
    }
    found = _encoded(row, layout, encoder)
    if isinstance(found, Problem):
        return {**seen, "problem": {"code": found.code, "message": found.message}}
    return {**seen, "text": found.text, "tokens": _tokens(encoder, found)}


def search(path: Path, text: str, most: int = 20, dialect: Dialect = AS_FOUND) -> list[dict[str, Any]]:
    """The first rows that hold a text in any case: [{"line", "preview"}], where the preview is the text's surrounding.

    Raises:
        DataError: the file cannot be read.
    """
    wanted = text.casefold()
    return list(islice(_hits(_records(path, dialect), wanted), most)) if wanted.strip() else []


def head(path: Path, rows: int, dialect: Dialect = AS_FOUND) -> list[Record]:
    """The first rows that can be read.

    Raises:
        DataError: the file cannot be read.
    """
    return list(islice(_records(path, dialect), rows))


def records(path: Path, lines: set[int], dialect: Dialect = AS_FOUND) -> list[Record]:
    """The rows that start on these lines; those that cannot be read are missing.

    Raises:
        DataError: the file cannot be read.
    """
    return [record for record in _records(path, dialect) if record.line in lines]


@lru_cache(maxsize=2)
def _read(
    path: str, stamp: float, format: str, mapping: tuple[tuple[str, str], ...], dialect: Dialect
) -> tuple[Layout, list[Record | Problem]]:
    """Every row of a file in memory, by line."""
    reading = Reading(Path(path), dialect)
    layout = recognise(reading.sample(), format, dict(mapping))
    rows = [row for row in reading if isinstance(row, Record) or row.action == "dropped"]
    return layout, sorted(rows, key=lambda row: row.line)


def _lines(home: Home, request: background.Request) -> Sequence[int] | np.ndarray:
    """The lines on which the rows of a large file start; before they are known those of its first rows."""
    known = background.lines(home, request)
    if known is not None:
        return known
    reading = Reading(Path(request.path), Dialect(request.encoding, request.delimiter, request.header))
    return [record.line for record in reading.sample(background.SAMPLE_ROWS).records]


def _row_at(path: Path, dialect: Dialect, line: int) -> Record | Problem:
    """The row on a line of a large file, which is read up to there."""
    for row in Reading(path, dialect):
        if row.line >= line and (isinstance(row, Record) or row.action == "dropped"):
            return row
    raise DataError(f"{path.name} has no row on line {line:,}.", "It was changed: load the page again.")


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@lru_cache(maxsize=1)
def _encoder(folder: str, stamp: float) -> Encoder:
    return Encoder.for_model(Path(folder))


def _encoded(row: Record | Problem, layout: Layout, encoder: Encoder) -> Encoded | Problem:
    found = to_example(row, layout) if isinstance(row, Record) else row
    return encoder.encode(found, resolve_train_on("auto", layout)) if isinstance(found, Example) else found


def _tokens(encoder: Encoder, row: Encoded) -> list[dict[str, Any]]:
    special = {number for number, token in encoder.tokenizer.get_added_tokens_decoder().items() if token.special}
    return [
        {
            "id": number,
            "text": str(encoder.tokenizer.id_to_token(number)).replace("\u2581", " "),
            "special": number in special,
            "trained": label != NOT_TRAINED,
        }
        for number, label in zip(row.input_ids, row.labels, strict=True)
    ]


def _records(path: Path, dialect: Dialect) -> Iterator[Record]:
    return (row for row in Reading(path, dialect) if isinstance(row, Record))


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
