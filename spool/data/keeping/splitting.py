"""Rows for training and rows for evaluation, split so that nothing of the one is known from the other.

Whole groups go to one side: rows with the same value of a column, or with the same first question. Which ones is
decided by a hash of the seed and the group, so a dataset that grows keeps its split for the most part. A row that was
made from another (`augmented`) belongs to that row's group and is never evaluated on: where the group is for
evaluation, it is on neither side.
"""

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from spool.data.judging.examples import is_made
from spool.data.judging.formats import Layout
from spool.data.keeping.rows import Records, key_of, layout_of, question_key, rank
from spool.data.keeping.steps import Split
from spool.data.reading.table import Record
from spool.protocol.errors import DataError


@dataclass
class _Group:
    rows: int = 0
    """Rows that could be evaluated on: usable, and not made from others."""
    stratum: str = ""


def split(stream: Records, step: Split) -> Records:
    """The rows of one side, in their order; rows that cannot be used are on the training side, to be seen there.

    Holds about 200 bytes a group and 8 a row.

    Raises (when walked):
        DataError: `cannot_split`, there are too few groups.
    """

    def walk() -> Iterator[Record]:
        layout = layout_of(stream, step)
        keys, groups = _groups(stream, step, layout)
        chosen = _choose(groups, step)
        for key, record in zip(keys, stream(), strict=True):
            evaluated = key in chosen
            if step.side == "train":
                if not evaluated:
                    yield record
            elif evaluated and not is_made(record):
                yield record

    return walk


def group_of(record: Record, layout: Layout, by: str | None) -> str | None:
    """What a row has in common with those that must be on its side; None for a row that cannot be used."""
    question = question_key(record, layout)
    if question is None or by is None:
        return question
    return key_of(record.value.get(by)).hex()[:16]


def _groups(stream: Records, step: Split, layout: Layout) -> tuple["array[int]", dict[int, _Group]]:
    """(the group of each row, 0 for a row that cannot be used; the groups)."""
    keys = array("Q")
    found: dict[int, _Group] = {}
    known = {step.by, step.stratify} - {None}
    for record in stream():
        known -= set(record.value)
        name = group_of(record, layout, step.by)
        key = int(name, 16) if name else 0
        keys.append(key)
        if not name:
            continue
        group = found.setdefault(key, _Group())
        if not is_made(record):
            if not group.rows and step.stratify is not None:
                group.stratum = key_of(record.value.get(step.stratify)).hex()
            group.rows += 1
    if known:
        names = " and ".join(repr(each) for each in sorted(filter(None, known)))
        raise DataError(f"no row has the column {names}.", "Choose a column of the dataset.", "cannot_split")
    return keys, found


def _choose(groups: dict[int, _Group], step: Split) -> set[int]:
    """The groups for evaluation: of each stratum in random order those that still fit; one group stays for training."""
    strata: dict[str, list[int]] = {}
    for key in sorted(groups, key=lambda key: (rank(step.seed, key), key)):
        if groups[key].rows:
            strata.setdefault(groups[key].stratum, []).append(key)
    sizes = {name: sum(groups[key].rows for key in keys) for name, keys in sorted(strata.items())}
    total = sum(sizes.values())
    wanted = step.eval_rows or max(1, round((step.eval_fraction or 0) * total))
    if sum(map(len, strata.values())) < 2 or wanted >= total:
        message = f"{wanted:,} of {total:,} usable rows cannot be split off: something must be left to train on."
        hint = "Ask for fewer, or group by another column." if len(groups) > 1 else "All rows belong to one group."
        raise DataError(message, hint, "cannot_split")
    chosen = set()
    for name, quota in _quotas(sizes, wanted).items():
        for key in strata[name]:
            if groups[key].rows <= quota:
                chosen.add(key)
                quota -= groups[key].rows
    if not chosen:
        smallest = min(groups[key].rows for keys in strata.values() for key in keys)
        message = f"no group is small enough for {wanted:,} eval rows: the smallest has {smallest:,} rows."
        raise DataError(message, "Ask for more eval rows, or group by another column.", "cannot_split")
    return chosen


def _quotas(sizes: dict[str, int], wanted: int) -> dict[str, int]:
    """Shares out the eval rows by the largest remainder (Hare quota)."""
    total = sum(sizes.values())
    exact = {name: wanted * size / total for name, size in sizes.items()}
    quotas = {name: math.floor(share) for name, share in exact.items()}
    open_seats = wanted - sum(quotas.values())
    for name in sorted(exact, key=lambda name: (quotas[name] - exact[name], name))[:open_seats]:
        quotas[name] += 1
    return quotas
