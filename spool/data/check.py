"""The data doctor: what `finetuner check` and the Data page say about a file, from the same code that training uses."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from spool.data.chat import Encoder
from spool.data.judge import Judged, judge, resolve_train_on, tokenise
from spool.data.table import Problem, Record, count_dropped


@dataclass
class Report:
    """What was found in a file. `tokens` and `supervised_fraction` are null without a model."""

    format: str
    rows: int
    usable_rows: int
    """Rows with at least one token to train on."""
    columns: list[str]
    problems: list[Problem]
    tokens: dict[str, int] | None
    """p50, p95 and max of the rows' lengths, and over_limit: how many rows are cut."""
    duplicates: int
    """Rows that repeat an earlier one exactly; they stay."""
    supervised_fraction: float | None
    """Share of the tokens that is trained on."""
    encoding: str
    container: str
    reading: str
    mapping: dict[str, str]
    """The column that plays each role."""
    confidence: float
    alternatives: list[dict[str, Any]]
    max_length: int | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check(
    path: Path,
    format: str = "auto",
    mapping: Mapping[str, str] | None = None,
    model_folder: Path | None = None,
    max_length: int | None = None,
) -> Report:
    """Judges a file row by row, with a model's own tokenizer where its folder is given.

    Raises:
        DataError: the file cannot be read, or its layout is not recognised.
        ModelError: the folder is no usable Gemma.
    """
    judged = judge(path, format, mapping)
    repeated = _duplicates(judged.table.records)
    problems = judged.problems + repeated
    tokens, supervised, limit = None, None, max_length
    if model_folder is not None:
        encoder = Encoder.for_model(model_folder)
        found = tokenise(judged, encoder, resolve_train_on("auto", judged.layout), max_length)
        problems += found.problems
        limit = found.max_length
        tokens = {**_percentiles(found.lengths), "over_limit": found.over_limit}
        total = sum(len(row.input_ids) for row in found.rows)
        trained = sum(len(row.labels) - row.labels.count(-100) for row in found.rows)
        supervised = round(trained / total, 4) if total else 0.0
    return _report(judged, sorted(problems, key=lambda p: p.line), tokens, len(repeated), supervised, limit)


def _report(
    judged: Judged,
    problems: list[Problem],
    tokens: dict[str, int] | None,
    duplicates: int,
    supervised: float | None,
    limit: int | None,
) -> Report:
    table, layout = judged.table, judged.layout
    return Report(
        format=layout.format,
        rows=table.rows,
        usable_rows=table.rows - count_dropped(problems),
        columns=table.columns,
        problems=problems,
        tokens=tokens,
        duplicates=duplicates,
        supervised_fraction=supervised,
        encoding=table.encoding,
        container=table.container,
        reading=table.note,
        mapping=layout.roles,
        confidence=layout.confidence,
        alternatives=layout.alternatives,
        max_length=limit,
    )


def _duplicates(records: list[Record]) -> list[Problem]:
    first: dict[bytes, int] = {}
    found = []
    for record in records:
        try:
            content = orjson.dumps(record.value, option=orjson.OPT_SORT_KEYS)
        except TypeError:  # lone surrogates, integers over 64 bits
            content = repr(record.value).encode(errors="surrogatepass")
        key = hashlib.blake2b(content, digest_size=16).digest()
        if key in first:
            message = f"the same as line {first[key]}; it stays."
            found.append(Problem(record.line, "duplicate", message, "kept"))
        else:
            first[key] = record.line
    return found


def _percentiles(lengths: list[int]) -> dict[str, int]:
    """Nearest-rank percentiles: each is the length of a real row."""
    ordered = sorted(lengths) or [0]

    def at(share: float) -> int:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return {"p50": at(0.5), "p95": at(0.95), "max": ordered[-1]}
