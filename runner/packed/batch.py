"""Rows of a batch as one long row: where each begins, which places are learned, and how long it is made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from spool.data.judging.chat import NOT_TRAINED
from spool.forecast.costs import SHORTEST, rounded


class Rows:
    """The rows of one batch: token ids and labels of each. No list, for the libraries would look into each number."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.ids = [np.asarray(row["input_ids"], np.int64) for row in rows]
        self.labels = [np.asarray(row["labels"], np.int64) for row in rows]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def trained_tokens(self) -> int:
        """Tokens that are learned: none is predicted at a row's first place."""
        return sum(int((labels[1:] != NOT_TRAINED).sum()) for labels in self.labels)

    @property
    def tokens(self) -> int:
        return sum(map(len, self.ids))

    def parts(self, most_tokens: float) -> Iterator["Rows"]:
        """In their order, as many at once as have room in so many tokens; a longer row comes alone."""
        first, held = 0, 0
        for i, ids in enumerate(self.ids):
            if i > first and held + len(ids) > most_tokens:
                yield self._some(first, i)
                first, held = i, 0
            held += len(ids)
        yield self._some(first, len(self))

    def behind(self, count: int) -> "Rows":
        """All but so many of the first."""
        return self._some(count, len(self))

    def _some(self, start: int, end: int) -> "Rows":
        some = Rows([])
        some.ids, some.labels = self.ids[start:end], self.labels[start:end]
        return some


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What transformers' Trainer carries from the loader to the step. It counts a batch's rows by `lengths`."""
    return {"rows": Rows(rows), "lengths": torch.tensor([len(row["input_ids"]) for row in rows])}


@dataclass(frozen=True)
class Size:
    """What a CUDA graph is recorded for."""

    tokens: int
    learned: int
    rows: int
    """Rows and one more: what fills the length up is a row of its own."""
    longest: int
    """No row has more tokens."""

    @classmethod
    def of(cls, rows: Rows, most_rows: int, longest: int) -> "Size":
        """Args: the most rows that any batch has, and the tokens of the longest row of all."""
        tokens = rounded(rows.tokens)
        quarters = max(1, -(-4 * rows.trained_tokens // tokens))
        return cls(tokens, tokens * quarters // 4, most_rows + 1, max(longest, tokens // 4, SHORTEST))


@dataclass
class Packed:
    """One long row. Shapes: T tokens, N learned places, R rows.

    input_ids (1, T), position_ids (1, T) counting from 0 in each row, starts (R + 1) of the rows and the end (int32),
    places (N) whose next token is learned, targets (N), which are those tokens, or -100 where N is filled up.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    starts: torch.Tensor
    places: torch.Tensor
    targets: torch.Tensor

    def tensors(self) -> list[torch.Tensor]:
        return [self.input_ids, self.position_ids, self.starts, self.places, self.targets]

    def to(self, device: Any) -> "Packed":
        return Packed(*(tensor.to(device, non_blocking=True) for tensor in self.tensors()))


def pack(rows: Rows, size: Size | None = None) -> Packed:
    """On the CPU. What `size` has more than the rows is filled up with a row of padding, which nothing learns from."""
    lengths = [len(ids) for ids in rows.ids]
    starts = np.cumsum([0, *lengths])
    positions = [np.arange(length) for length in lengths]
    learned = [np.flatnonzero(labels[1:] != NOT_TRAINED) for labels in rows.labels]
    places = np.concatenate([start + at for start, at in zip(starts[:-1], learned, strict=True)])
    targets = np.concatenate([labels[1:][at] for labels, at in zip(rows.labels, learned, strict=True)])
    ids = np.concatenate(rows.ids)
    if size is not None:
        rest = size.tokens - len(ids)
        ids = np.pad(ids, (0, rest))
        positions.append(np.arange(rest))
        starts = np.pad(starts, (0, size.rows + 1 - len(starts)), constant_values=size.tokens)
        targets = np.pad(targets, (0, size.learned - len(targets)), constant_values=NOT_TRAINED)
        places = np.pad(places, (0, size.learned - len(places)))
    return Packed(
        torch.from_numpy(ids)[None],
        torch.from_numpy(np.concatenate(positions))[None],
        torch.from_numpy(starts.astype(np.int32)),
        torch.from_numpy(places),
        torch.from_numpy(targets),
    )


def spans(starts: torch.Tensor) -> list[tuple[int, int]]:
    """(start, end) of each row; the rows must be known on the CPU."""
    return [(start, end) for start, end in pairwise(starts.tolist()) if end > start]
