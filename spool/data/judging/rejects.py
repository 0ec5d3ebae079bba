"""rejects.jsonl: the rows of a file that cannot be used, each with its reason, to be corrected and added again."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from spool.data.judging.examples import to_example
from spool.data.judging.formats import recognise
from spool.data.reading.limits import DEFAULT, Limits
from spool.data.reading.read import AS_FOUND, Dialect, Reading
from spool.data.reading.table import Problem


def rejects(
    path: Path,
    format: str = "auto",
    mapping: Mapping[str, str] | None = None,
    dialect: Dialect = AS_FOUND,
    limits: Limits = DEFAULT,
    unlearnable: Mapping[tuple[str, int], str] | None = None,
) -> Iterator[bytes]:
    """One line of JSON for each dropped row: {"line", "byte", "file", "code", "message", "row"}, where `row` is its
    fields, or its source text where it could not be parsed.

    Args:
        unlearnable: (file, line) -> words, of rows that a model's tokens would leave nothing of to train on.

    Raises:
        DataError: the file cannot be read, or its layout is not recognised.
    """
    reading = Reading(path, dialect, limits)
    layout = recognise(reading.sample(), format, mapping)
    for item in reading:
        if isinstance(item, Problem):
            if item.action == "dropped":
                yield _line(item, item.raw)
            continue
        found = to_example(item, layout)
        if isinstance(found, Problem):
            yield _line(found, item.value)
        elif unlearnable and (words := unlearnable.get((item.file, item.line))):
            lost = Problem(item.line, "no_trainable_tokens", words, "dropped", item.byte, item.file)
            yield _line(lost, item.value)


def write(path: Path, target: Path, format: str, mapping: Mapping[str, str], dialect: Dialect, limits: Limits) -> int:
    """Writes them to a file and gives their count."""
    count = 0
    with open(target, "wb") as file:
        for line in rejects(path, format, mapping, dialect, limits):
            file.write(line)
            count += 1
    return count


def _line(problem: Problem, row: Any) -> bytes:
    place = {"line": problem.line, "byte": problem.byte, "file": problem.file}
    document = {**place, "code": problem.code, "message": problem.message, "row": row}
    try:
        return orjson.dumps(document, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # lone surrogates: bytes that were no text
        document["row"] = repr(row).encode("utf-8", "backslashreplace").decode()
        return orjson.dumps(document, default=str, option=orjson.OPT_APPEND_NEWLINE)
