"""Several datasets in one: a share of each, evenly interleaved, brought to one layout where theirs differ."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from spool.data.judging.examples import Example, to_example
from spool.data.judging.formats import Layout
from spool.data.keeping.rows import MARKS, Records, layout_of, rank
from spool.data.keeping.steps import Mix
from spool.data.reading.table import Record
from spool.protocol.errors import DataError


def mix(streams: Sequence[Records], step: Mix) -> Records:
    """The mixture of the usable rows of several sources; lines count from 1 in its order.

    Where all sources have the same columns in the same roles, rows stay as they are. Else each becomes
    {"messages": [...]} and loses its other columns, a rejected answer too. The rows of a source come in its order and
    are a random choice of it. Holds one number for each row that is chosen.

    Raises (when walked):
        DataError: `cannot_mix`, or a source's layout is not recognised.
    """

    def walk() -> Iterator[Record]:
        if len(step.weights) != len(streams):
            message = f"{len(streams)} datasets cannot be mixed by {len(step.weights)} weights."
            raise DataError(message, "Give one weight a dataset, in the same order.", "cannot_mix")
        layouts = [layout_of(stream, step) for stream in streams]
        kinds = {layout.format == "text" for layout in layouts}
        if len(kinds) > 1:
            message = "plain text cannot be mixed with questions and answers: one file has one layout."
            raise DataError(message, "Train on one after the other, or mix datasets of one kind.", "cannot_mix")
        same = all((each.format, each.roles) == (layouts[0].format, layouts[0].roles) for each in layouts)
        usable = [_usable(stream, layout, same) for stream, layout in zip(streams, layouts, strict=True)]
        sizes = [sum(1 for _ in each()) for each in usable]
        counts = _counts(sizes, step)
        chosen = [
            _chosen(each, index, size, count, step.seed)
            for index, (each, size, count) in enumerate(zip(usable, sizes, counts, strict=True))
        ]
        for number, value in enumerate(_interleaved(chosen, counts), 1):
            yield Record(number, value)

    return walk


def _usable(stream: Records, layout: Layout, as_they_are: bool) -> Records:
    def walk() -> Iterator[Record]:
        for record in stream():
            example = to_example(record, layout)
            if isinstance(example, Example):
                yield record if as_they_are else Record(record.line, _common(record, example))

    return walk


def _common(record: Record, example: Example) -> dict[str, Any]:
    taught = {"text": example.text} if example.messages is None else {"messages": example.messages}
    return taught | {name: record.value[name] for name in MARKS if name in record.value}


def _counts(sizes: list[int], step: Mix) -> list[int]:
    """How many rows each source gives.

    Raises:
        DataError: a source has none.
    """
    total = sum(step.weights)
    shares = [weight / total for weight in step.weights]
    if not all(sizes):
        empty = sizes.index(0) + 1
        raise DataError(f"dataset {empty} of the mixture has no usable row.", "Leave it out.", "cannot_mix")
    rows = step.rows or min(int(size / share) for size, share in zip(sizes, shares, strict=True))
    # each boundary is rounded once, so that the counts add up to the rows
    edges = [round(rows * sum(shares[:index])) for index in range(len(shares) + 1)]
    counts = [end - start for start, end in pairwise(edges)]
    if step.rows is None:  # a boundary that was rounded up must not make a row appear twice
        counts = [min(count, size) for count, size in zip(counts, sizes, strict=True)]
    return counts


def _chosen(stream: Records, index: int, size: int, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` rows of a source: whole rounds through it, then a random choice in its order."""
    for _ in range(count // size):
        yield from (record.value for record in stream())
    rest = count % size
    kept = set(heapq.nsmallest(rest, range(size), key=lambda number: rank(seed, index, number)))
    yield from (record.value for number, record in enumerate(stream()) if number in kept)


def _interleaved(sources: list[Iterator[dict[str, Any]]], counts: list[int]) -> Iterator[dict[str, Any]]:
    """Always from the source that is furthest behind its share."""
    given = [0] * len(counts)
    for _ in range(sum(counts)):
        open_sources = [index for index, count in enumerate(counts) if given[index] < count]
        index = min(open_sources, key=lambda index: ((given[index] + 0.5) / counts[index], index))
        given[index] += 1
        yield next(sources[index])
