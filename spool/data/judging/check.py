"""The data doctor: all that `finetuner check`, the Data page and a job's own check find in a file, from one place.

Three passes: the structural one (scan.py), the rows against each other (repeats.py, near.py), and, where a model is
given, the tokens (tokens.py). `sample` lets the last two look at the first rows only, for an answer at once.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from spool.data.judging import near, repeats, statistics, tokens
from spool.data.judging.chat import Encoder
from spool.data.judging.examples import Example
from spool.data.judging.rules import Rules, refuse
from spool.data.judging.scan import Scan, examples, scan, without_collecting
from spool.data.judging.tokens import Tokens
from spool.data.reading.limits import DEFAULT, Limits
from spool.data.reading.read import AS_FOUND, Dialect
from spool.data.reading.source import content_sha256
from spool.data.reading.table import Problem

NEAR_BATCH_ROWS = 512

Say = Callable[[str, int, int], None]
"""Told (what is being done, how much of it, how much there is; 0 where that is not known)."""


def silent(stage: str, done: int, total: int) -> None:
    """For whom progress does not matter."""


@dataclass(frozen=True)
class Look:
    """How a file is looked at."""

    format: str = "auto"
    mapping: Mapping[str, str] = field(default_factory=dict)
    dialect: Dialect = AS_FOUND
    limits: Limits = field(default_factory=Limits)
    train_on: str = "auto"
    max_length: int | None = None
    """None: the longest row, at most 2048 and what the model can."""
    sample: int | None = None
    """So many first rows are tokenised and compared; None: all."""


@dataclass(frozen=True)
class Model:
    """Whose tokens are counted."""

    encoder: Encoder
    sha256: str
    """Of its tokenizer and template (spool/data/judging/chat.py, `identity`)."""


@dataclass
class Examined:
    """A file after all passes. Its findings are in `scan.tally.findings`."""

    scan: Scan
    train_on: str
    sha256: str = ""
    """Of the bytes that were read; empty where no tokens were counted."""
    tokens: Tokens | None = None
    max_length: int | None = None
    over_limit: int = 0
    unlearnable: set[int] = field(default_factory=set)
    """Usable rows of the scan of which no token would be trained on."""
    looked_at: int = 0
    """Rows that were tokenised and compared."""
    supervised_fraction: float | None = None


@dataclass
class Report:
    """What was found in a file. `tokens` and `supervised_fraction` are null without a model."""

    format: str
    rows: int
    usable_rows: int
    """Rows with at least one token to train on."""
    columns: list[str]
    problems: list[Problem]
    """The first 10,000 of each code; `problem_counts` counts all."""
    problem_counts: dict[str, int]
    blocked: dict[str, Any] | None
    """Why no job may train on the file as it is (code, message, hint)."""
    tokens: dict[str, int] | None
    """p50, p95 and max of the rows' lengths, and over_limit: how many rows are cut."""
    duplicates: int
    """Rows that say the same as an earlier one; they stay unless asked to go."""
    near_duplicates: int
    supervised_fraction: float | None
    """Share of the tokens that is trained on."""
    encoding: str
    container: str
    reading: str
    notices: list[str]
    mapping: dict[str, str]
    """The column that plays each role."""
    confidence: float
    alternatives: list[dict[str, Any]]
    max_length: int | None
    statistics: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "problems": [problem.to_json() for problem in self.problems]}


def check(
    path: Path,
    format: str = "auto",
    mapping: Mapping[str, str] | None = None,
    model_folder: Path | None = None,
    max_length: int | None = None,
    *,
    dialect: Dialect = AS_FOUND,
    limits: Limits = DEFAULT,
    rules: Rules | None = None,
    cache: Path | None = None,
    sample: int | None = None,
    say: Say = silent,
) -> Report:
    """Judges a file row by row, with a model's own tokenizer where its folder is given.

    Args:
        rules: what blocks a job; by default what blocks one that sets nothing.
        cache: HOME/cache/tokens, where tokens are kept from one check to the next.

    Raises:
        DataError: the file cannot be read, or its layout is not recognised.
        ModelError: the folder is no usable Gemma.
    """
    look = Look(format, mapping or {}, dialect, limits, "auto", max_length, sample)
    model = None
    if model_folder is not None:
        encoder = Encoder.for_model(model_folder)
        model = Model(encoder, encoder.identity)
    if cache is not None:
        found = examine(path, look, model, cache, say)
        return report(found, rules or Rules())
    with tempfile.TemporaryDirectory(prefix="finetuner-") as folder:
        return report(examine(path, look, model, Path(folder), say), rules or Rules())


def examine(
    path: Path, look: Look, model: Model | None, cache: Path, say: Say = silent, scanned: Scan | None = None
) -> Examined:
    """All passes over a file; the first may have been made already (`scanned`, which is added to).

    Raises:
        DataError: the file cannot be read, or its layout is not recognised.
    """
    found = scanned or structure(path, look, say)
    done = Examined(found, tokens.resolve_train_on(look.train_on, found.layout))
    done.looked_at = min(found.usable, look.sample or found.usable)
    with without_collecting():
        repeats.compare(found)
        _near(found, done.looked_at, say)
    if model is not None:
        done.sha256 = content_sha256(path)
        name = tokens.key(found, done.sha256, model.sha256, done.train_on, look.sample)
        count = partial(say, "counting tokens")
        done.tokens = tokens.tokenise(found, model.encoder, done.train_on, cache / name, count, look.sample)
        _cut(done, look, model.encoder)
    return done


def structure(path: Path, look: Look, say: Say = silent) -> Scan:
    """The structural pass alone."""
    return scan(path, look.format, look.mapping, look.dialect, look.limits, partial(say, "reading"))


def _near(found: Scan, rows: int, say: Say) -> None:
    """Rows that are nearly the same as an earlier one, and no exact repetition."""
    signatures = near.Near()
    texts: list[str] = []
    for number, example in enumerate(islice(examples(found), rows), 1):
        texts.append(_text(example))
        if len(texts) == NEAR_BATCH_ROWS or number == rows:
            signatures.add(near.signatures(texts))
            texts = []
            say("comparing rows", number, rows)
    exact = set(found.rows_with("duplicate").tolist())
    for first, row, likeness in signatures.groups():
        if row not in exact:
            place = found.place(first)
            where = f"line {place['line']:,}" + (f" of {place['file']}" if place["file"] else "")
            found.flag("near_duplicate", row, f"about {likeness:.0%} the same as {where}.")


def _text(example: Example) -> str:
    if example.messages is None:
        return example.text or ""
    return "\n".join(message["content"] for message in example.messages)


def _cut(done: Examined, look: Look, encoder: Encoder) -> None:
    """What the limit of tokens does to each row."""
    assert done.tokens is not None
    found, kept = done.scan, done.tokens
    found.tally.findings.add_all(kept.problems)
    done.max_length = tokens.resolve_max_length(look.max_length, kept, encoder)
    done.over_limit = int((kept.lengths > done.max_length).sum())
    suspects = (kept.lengths > done.max_length) | (kept.trained == 0)
    total, trained = int(np.minimum(kept.lengths, done.max_length).sum()), int(kept.trained[~suspects].sum())
    if suspects.any():
        for index, row in enumerate(kept.read()):
            if suspects[index]:
                left, problem = tokens.cut(row, done.max_length, found.place(row.row))
                if problem is not None:
                    found.tally.findings.add(problem)
                if left is None:
                    done.unlearnable.add(row.row)
                    total -= min(len(row.input_ids), done.max_length)
                else:
                    trained += tokens.learned(left.labels)
    done.supervised_fraction = round(trained / total, 4) if total else 0.0


def report(done: Examined, rules: Rules, with_statistics: bool = True) -> Report:
    """The findings as everybody gets them."""
    found, findings = done.scan, done.scan.tally.findings
    layout, counts = found.layout, findings.counts
    blocked = refuse(found.path.name, found.tally.rows, findings, rules)
    lengths = None
    if done.tokens is not None:
        lengths = {**statistics.percentiles(done.tokens.lengths), "over_limit": done.over_limit}
    return Report(
        format=layout.format,
        rows=found.tally.rows,
        usable_rows=found.tally.rows - findings.rows_dropped,
        columns=found.columns,
        problems=findings.sorted(),
        problem_counts=dict(counts),
        blocked=blocked.to_json() if blocked else None,
        tokens=lengths,
        duplicates=counts["duplicate"],
        near_duplicates=counts["near_duplicate"],
        supervised_fraction=done.supervised_fraction,
        encoding=found.encoding,
        container=found.container,
        reading=found.note,
        notices=found.notices,
        mapping=layout.roles,
        confidence=layout.confidence,
        alternatives=layout.alternatives,
        max_length=done.max_length,
        statistics=statistics.of(done) if with_statistics else {},
    )
