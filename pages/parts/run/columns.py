"""One run's metrics as columns of numbers: append-only, what a later attempt did again counted once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pages.parts.run.bulk import Block, Numbers

Flags = NDArray[np.bool_]
Rows = NDArray[np.intp]

_ALWAYS = ("step", "attempt")
_TYPES: dict[str, str] = {"t": "f8", "tokens": "f8", "step": "i4", "attempt": "i4"}
"""What single precision does not tell apart; all else is drawn."""

MOST_MARKS = 1000
MOST_KEPT = 64

Made = TypeVar("Made")


@dataclass(frozen=True)
class Columns:
    """What a run has written so far. Immutable: twenty pages may draw the same one while its file is read on.

    A row lives until a later attempt has gone over its step. `kept` remembers what was computed of it.
    """

    size: int = 0
    live: Flags = field(default_factory=lambda: np.zeros(0, "?"))
    columns: dict[str, Numbers] = field(default_factory=dict)
    nonfinite: tuple[tuple[int, str, str], ...] = ()
    """(row, field, "nan", "inf" or "-inf") of living rows, the first MOST_MARKS."""
    kept: dict[tuple[Any, ...], Any] = field(default_factory=dict, compare=False)

    def has(self, name: str) -> bool:
        return name in self.columns

    @property
    def repeated(self) -> bool:
        """Whether an attempt went over steps that an earlier one had done."""
        return not bool(self.live.all())

    def rows(self, name: str, every: bool = False) -> Rows:
        """The rows with a number under `name`, by step; of equal steps the one that was written last.

        Args:
            every: also what a later attempt did again, in the order in which it was written.
        """
        if name not in self.columns:
            return np.zeros(0, np.intp)
        if every:
            return np.flatnonzero(np.isfinite(self.columns[name]))
        if name in ("loss", "eval_loss"):
            return self.remember(("rows", name), lambda: self._rows(name))
        return self._rows(name)

    def _rows(self, name: str) -> Rows:
        found = np.flatnonzero(np.isfinite(self.columns[name]) & self.live)
        step = self.columns["step"][found]
        forward = np.diff(step)
        if found.size > 1 and forward.min() < 0:
            order = np.argsort(step, kind="stable")
            found, step = found[order], step[order]
            forward = np.diff(step)
        if found.size > 1 and forward.min() == 0:
            found = found[np.append(forward != 0, True)]
        return found

    def at(self, name: str, rows: Rows) -> Numbers:
        """The numbers of some rows, as float64; NaN where the run has none under `name`."""
        if name not in self.columns:
            return np.full(rows.size, np.nan)
        return self.columns[name][rows].astype("f8")

    def latest(self, name: str) -> float | None:
        """The newest number under `name`: that of the highest step."""
        if name not in self.columns:
            return None
        for start in range(self.size, 0, -4096):  # it stands near the end; no need to look at a million rows
            span = slice(max(0, start - 4096), start)
            found = np.flatnonzero(self.live[span] & np.isfinite(self.columns[name][span])) + span.start
            if found.size:
                return float(self.columns[name][found[-1]])
        return None

    def remember(self, key: tuple[Any, ...], make: Callable[[], Made]) -> Made:
        """What `make` gives, computed once for everybody who looks at these rows."""
        if key not in self.kept:
            if len(self.kept) >= MOST_KEPT:
                self.kept.clear()
            self.kept[key] = make()
        made: Made = self.kept[key]
        return made


class Growing:
    """The columns of a run that is being read. One thread at a time; `snapshot` is for everybody."""

    def __init__(self) -> None:
        self.size = 0
        self._room = 0
        self._columns: dict[str, Numbers] = {}
        self._live = np.zeros(0, "?")
        self._evaluates = np.zeros(0, "?")
        self._nonfinite: list[tuple[int, str, str]] = []
        self._attempt, self._began_at = -1, 0
        self._trains_from = self._evaluates_from = np.inf
        self._seen: Columns | None = None

    @property
    def nbytes(self) -> int:
        return sum(column.nbytes for column in self._columns.values()) + 2 * self._room

    def append(self, block: Block) -> None:
        count = len(block)
        if not count:
            return
        self._seen = None
        self._make_room(self.size + count)
        span = slice(self.size, self.size + count)
        for name, values in block.columns.items():
            if name in self._columns or name in _ALWAYS or np.isfinite(values).any():
                self._column(name)[span] = np.nan_to_num(values, nan=0.0) if name == "attempt" else values
        self._live[span] = True
        evaluates = np.isfinite(block.columns.get("eval_loss", np.full(count, np.nan)))
        evaluates[[row for row, name, _ in block.nonfinite if name == "eval_loss"]] = True
        self._evaluates[span] = evaluates
        free = MOST_MARKS - len(self._nonfinite)
        self._nonfinite += [(row + self.size, name, word) for row, name, word in block.nonfinite[: max(0, free)]]
        attempts = self._column("attempt")[span]
        begins = [0, *(np.flatnonzero(np.diff(attempts)) + 1).tolist(), count]
        for first, end in pairwise(begins):
            self._go_over(int(attempts[first]), self.size + first, self.size + end)
        self.size += count

    def snapshot(self) -> Columns:
        """What has been appended so far, sharing its memory."""
        if self._seen is None:
            live = self._live[: self.size].copy()  # rows die later; numbers never change
            columns = {name: column[: self.size] for name, column in self._columns.items()}
            bad = tuple(mark for mark in self._nonfinite if live[mark[0]])
            self._seen = Columns(self.size, live, columns, bad)
        return self._seen

    def _go_over(self, attempt: int, first: int, end: int) -> None:
        """Rows of an attempt came: what earlier ones did at its steps and after them was lost, and is done again.

        An evaluation that an earlier attempt owed comes at the step that was resumed from, whose training row stays.
        """
        if attempt != self._attempt:
            self._attempt, self._began_at = attempt, first
            self._trains_from = self._evaluates_from = np.inf
        step, evaluates = self._columns["step"][first:end], self._evaluates[first:end]
        trains_from = min(self._trains_from, step[~evaluates].min(initial=np.iinfo("i4").max))
        evaluates_from = min(self._evaluates_from, step[evaluates].min(initial=np.iinfo("i4").max))
        if (trains_from, evaluates_from) != (self._trains_from, self._evaluates_from) and self._began_at:
            before = slice(0, self._began_at)
            floor = np.where(self._evaluates[before], min(trains_from, evaluates_from), trains_from)
            self._live[before] &= self._columns["step"][before] < floor
        self._trains_from, self._evaluates_from = trains_from, evaluates_from

    def _column(self, name: str) -> Numbers:
        """Made when its first number comes: without a GPU five fields take no memory."""
        if name not in self._columns:
            self._columns[name] = self._empty(name)
        return self._columns[name]

    def _empty(self, name: str) -> Numbers:
        kind = _TYPES.get(name, "f4")
        empty: Numbers = np.zeros(self._room, kind) if kind == "i4" else np.full(self._room, np.nan, kind)
        return empty

    def _make_room(self, needed: int) -> None:
        if needed <= self._room:
            return
        self._room = max(1024, needed, self._room + self._room // 2)
        for name, old in self._columns.items():
            self._columns[name] = self._empty(name)
            self._columns[name][: self.size] = old[: self.size]
        for each in ("_live", "_evaluates"):
            grown = np.zeros(self._room, "?")
            grown[: self.size] = getattr(self, each)[: self.size]
            setattr(self, each, grown)
