"""What differs between two versions of a dataset: rows added, removed and changed.

Rows are compared by their content wherever they stand, each as often as it is there (a multiset), so that another
order is no difference. Of the rows that only one version has, two are one changed row where they have the same "id"
(or "_id", "uuid", "key"); where the versions have no such column, the same first question; for plain text, and where
the layout is not recognised, the same line. All other rows were added or removed.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from spool.data.judging.formats import Layout
from spool.data.keeping import keep
from spool.data.keeping.keep import Stored
from spool.data.keeping.rows import Records, StoredRecords, key_of, layout_of, question_key
from spool.data.keeping.steps import KeepUsable, dialect_of
from spool.data.reading.read import AS_FOUND, Dialect
from spool.data.reading.table import Record
from spool.protocol import settings
from spool.protocol.errors import DataError
from spool.protocol.home import Home

IDS = ("id", "_id", "uuid", "key")
SHOWN_ROWS = 200

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]
Key = Callable[[Record], Any]


@dataclass(frozen=True)
class Change:
    """One row that differs; in a changed row both sides are there."""

    line_before: int | None
    line_after: int | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


@dataclass
class Diff:
    """The counts are exact; of each kind the first 200 rows are shown, in their order."""

    added: int
    removed: int
    changed: int
    unchanged: int
    added_rows: list[Change] = field(default_factory=list)
    removed_rows: list[Change] = field(default_factory=list)
    changed_rows: list[Change] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def diff(home: Home, before: str, after: str) -> Diff:
    """Compares two stored versions by hashes of 64 bits: 16 bytes a row are held, and each file is read twice.

    A difference is missed where two hashes are equal by chance: below 1 in 10 million for a million rows.

    Args:
        before, after: NAME or NAME@VERSION.

    Raises:
        NotFound: there is no such version.
        DataError: a file cannot be read.
    """
    versions = [keep.find(home, reference) for reference in (before, after)]
    limits = settings.load(home).data_limits
    old, new = (StoredRecords(each.path, limits, _dialect(each, versions)) for each in versions)
    old_key, new_key = _keys(old, new)
    old_hashes, old_keys = _hashed(old, old_key)
    new_hashes, new_keys = _hashed(new, new_key)
    removed, added = _surplus(old_hashes, new_hashes), _surplus(new_hashes, old_hashes)
    left, right = _paired(old_keys[removed], new_keys[added])
    changed_old, changed_new = removed[left], added[right]
    only_old = np.setdiff1d(removed, changed_old)[:SHOWN_ROWS]
    only_new = np.setdiff1d(added, changed_new)[:SHOWN_ROWS]
    first = np.argsort(changed_new)[:SHOWN_ROWS]
    old_rows = _rows(old, np.concatenate([only_old, changed_old[first]]))
    new_rows = _rows(new, np.concatenate([only_new, changed_new[first]]))
    return Diff(
        added=len(added) - len(changed_new),
        removed=len(removed) - len(changed_old),
        changed=len(changed_new),
        unchanged=len(new_hashes) - len(added),
        added_rows=[_change(None, new_rows[number]) for number in only_new.tolist()],
        removed_rows=[_change(old_rows[number], None) for number in only_old.tolist()],
        changed_rows=[
            _change(old_rows[a], new_rows[b])
            for a, b in zip(changed_old[first].tolist(), changed_new[first].tolist(), strict=True)
        ],
    )


def _dialect(stored: Stored, versions: list[Stored]) -> Dialect:
    """How a version is read: as the other one's recipe reads it, where that was made from it."""
    made = (each for each in versions if each.parents[:1] == [stored.reference])
    return next((dialect_of(each.recipe) for each in made), AS_FOUND)


def _keys(old: Records, new: Records) -> tuple[Key, Key]:
    """What makes two differing rows the same row, for the rows of either side."""
    first = [next(iter(stream()), Record(1, {})).value for stream in (old, new)]
    column = next((name for name in IDS if all(name in value for value in first)), None)
    if column:
        by_id: Key = lambda record: record.value.get(column)  # noqa: E731
        return by_id, by_id
    try:
        layouts = [layout_of(stream, KeepUsable()) for stream in (old, new)]
    except DataError:  # kept for a mapping that comes with a job
        layouts = []
    if not layouts or any(layout.format == "text" for layout in layouts):
        by_line: Key = lambda record: record.line  # noqa: E731
        return by_line, by_line
    return _question(layouts[0]), _question(layouts[1])


def _question(layout: Layout) -> Key:
    return lambda record: question_key(record, layout) or record.line


def _hashed(stream: Records, key: Key) -> tuple[Hashes, Hashes]:
    """(hash of each row's content, hash of its key)."""

    def numbers() -> Iterator[tuple[int, int]]:
        for record in stream():
            yield _number(record.value), _number(key(record))

    pairs: Hashes = np.fromiter(numbers(), dtype=np.dtype((np.uint64, 2)))
    return pairs[:, 0], pairs[:, 1]


def _number(value: Any) -> int:
    return int.from_bytes(key_of(value)[:8], "little")


def _rank(values: Hashes) -> Numbers:
    """How often each value occurred before, in order: [7, 8, 7] gives [0, 0, 1]."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(values) else np.empty(0, np.int64)
    lengths = np.diff(np.r_[starts, len(values)])
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.arange(len(values)) - np.repeat(starts, lengths)
    return ranks


def _surplus(values: Hashes, others: Hashes) -> Numbers:
    """The places of the values that are there more often than among the others: their last occurrences."""
    known, counts = np.unique(others, return_counts=True)
    at = np.searchsorted(known, values)
    at[at == len(known)] = 0
    times = np.where(known[at] == values, counts[at], 0) if len(known) else np.zeros(len(values), np.int64)
    return np.flatnonzero(_rank(values) >= times)


def _paired(left: Hashes, right: Hashes) -> tuple[Numbers, Numbers]:
    """Places of equal values in both, the first with the first, the second with the second ..."""
    # the golden ratio's bits keep the occurrences of one value apart
    first, second = (v + _rank(v).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) for v in (left, right))
    _, at_left, at_right = np.intersect1d(first, second, return_indices=True)
    return at_left, at_right


def _rows(stream: Records, wanted: Numbers) -> dict[int, Record]:
    numbers = set(wanted.tolist())
    return {number: record for number, record in enumerate(stream()) if number in numbers}


def _change(before: Record | None, after: Record | None) -> Change:
    return Change(
        line_before=before.line if before else None,
        line_after=after.line if after else None,
        before=before.value if before else None,
        after=after.value if after else None,
    )
