"""Questions to try a model on: rows of the dataset that its job learned from, those kept away from training first."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from spool.data import inspect
from spool.data.judging import arrow_rows
from spool.data.judging.examples import Example, to_example
from spool.data.keeping.rows import layout_of
from spool.data.keeping.steps import WithLayout
from spool.data.reading.table import Record
from spool.protocol import durable, metrics, resolve, settings
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home

LOOKED_AT = 400
"""Rows of a dataset that are read for it at most."""
LONGEST = 1500
"""A longer question is no example to click on."""


@dataclass(frozen=True)
class Suggestion:
    """A question with the answer that the dataset has; `unseen` where it was kept away from training."""

    prompt: str
    reference: str
    unseen: bool


def suggestions(home: Home, job_id: str, most: int = 3) -> list[Suggestion]:
    """The first questions to ask of a job's adapter; none where its data is gone or holds no questions."""
    found = _sampled(home, job_id)
    try:
        return (found or _of_dataset(home, job_id))[:most]
    except (FinetunerError, OSError, ValueError):
        return []


def _sampled(home: Home, job_id: str) -> list[Suggestion]:
    """Those that were answered while it trained: rows of the eval split."""
    path = home.run(job_id).samples
    rows = (row for row in metrics.read(path) if isinstance(row.get("reference"), str))
    pairs = {str(row.get("prompt") or ""): row["reference"] for row in islice(rows, 64)}
    return [Suggestion(prompt, reference, True) for prompt, reference in pairs.items() if 0 < len(prompt) <= LONGEST]


def _of_dataset(home: Home, job_id: str) -> list[Suggestion]:
    spec = durable.read_json(home.run(job_id).spec) or {}
    reference, data = str(spec.get("dataset") or ""), spec.get("data") or {}
    if not reference or reference.startswith("hf:"):
        return []
    options = settings.load(home)
    places = resolve.Places(home, Path.cwd(), settings.roots(options, home, Path.cwd()))
    rows = inspect.head(places.dataset(reference), LOOKED_AT, options.data_limits)
    layout = layout_of(
        lambda: iter(rows), WithLayout(format=data.get("format", "auto"), mapping=data.get("mapping", {}))
    )
    unseen = _unseen(home.run(job_id).data / "eval.arrow")
    found = [each for record in rows if (each := _suggestion(record, to_example(record, layout), unseen))]
    return sorted(found, key=lambda each: not each.unseen)


def _unseen(path: Path) -> set[int]:
    """The lines of the rows that were kept away from training; they are thrown away some days after a job."""
    try:
        return {row.line for row in islice(arrow_rows.read(path), LOOKED_AT)}
    except (OSError, ValueError):
        return set()


def _suggestion(record: Record, example: Any, unseen: Iterable[int]) -> Suggestion | None:
    """Of a row with one question and one answer."""
    if not isinstance(example, Example) or not example.messages or len(example.messages) != 2:
        return None
    asked, said = (str(message["content"]) for message in example.messages)
    return Suggestion(asked, said, record.line in unseen) if len(asked) <= LONGEST else None
