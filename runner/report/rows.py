"""What is asked for a report, and what was said to it: rows of a training's data, as its check has tokenised them."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spool.data.judging import arrow_rows
from spool.data.judging.chat import Encoder
from spool.data.prepared import Prepared

MOST_ROWS = 120
"""More make the intervals narrower and not the sentence another."""
PROMPT_TOKENS = 1024
EXPECTED_TOKENS = 512
SEED = 6


@dataclass(frozen=True)
class Asked:
    """One prompt, as tokens, and the answer that the data has for it."""

    prompt: str
    ids: list[int]
    expected: str
    expected_ids: list[int]
    """With the tokens that end it; empty for a question of the general set, which has no answer of its own."""
    messages: tuple[dict[str, str], ...] = ()
    """The whole conversation, which ends with the prompt; empty for plain text."""

    @property
    def key(self) -> str:
        """The same for the same tokens."""
        numbers = np.array([len(self.ids), *self.ids, *self.expected_ids], np.int64)
        return hashlib.sha256(numbers.tobytes()).hexdigest()[:32]


@dataclass(frozen=True)
class Said:
    """An answer: its text, whether it ended by itself, and how surprising its model found the expected one."""

    text: str
    stopped: bool
    tokens: int
    loss: float | None
    """Mean negative log-probability a token of the expected answer; None where there is none."""


@dataclass(frozen=True)
class Row:
    """One row of the data, answered by both."""

    prompt: str
    expected: str
    base: Said
    tuned: Said
    messages: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Chosen:
    """The rows that may be asked, in an order of which each beginning is a fair sample."""

    rows: list[Asked]
    held_out: bool
    """Whether they were kept away from the training."""
    of: int
    """How many there are to choose from."""


def of_training(data: Prepared | None, encoder: Encoder, most: int = MOST_ROWS) -> Chosen:
    """Rows that the training kept for evaluation, else some that it has learned from."""
    if data is None:
        return Chosen([], False, 0)
    path, rows = (data.eval, data.eval_rows) if data.eval else (data.train, data.train_rows)
    return Chosen(choose(path, rows, encoder, most), data.eval is not None, rows)


def choose(path: Path, rows: int, encoder: Encoder, most: int) -> list[Asked]:
    """Some of a file's tokenised rows; those that are longer than a report can ask are passed over."""
    places = random.Random(SEED).sample(range(rows), min(most, rows))
    wanted = set(places)
    found = {
        i: _asked(row.input_ids.tolist(), row.labels.tolist(), encoder)
        for i, row in enumerate(arrow_rows.read(path))
        if i in wanted
    }
    return [asked for i in places if (asked := found[i])]


def _asked(ids: list[int], labels: list[int], encoder: Encoder) -> Asked | None:
    """A row, cut where its last answer begins; plain text where a third of it is told, at most."""
    question = encoder.question(ids, labels)
    if question is None:
        return None
    cut, messages = question
    expected = ids[cut:]
    if cut > PROMPT_TOKENS or len(expected) > EXPECTED_TOKENS:
        return None
    prompt = messages[-1]["content"] if messages else encoder.decode(ids[:cut])
    return Asked(str(prompt), ids[:cut], encoder.decode(expected).strip(), expected, tuple(messages or ()))


def fingerprint(rows: Sequence[Asked]) -> str:
    """The same for the same rows asked, whoever answers them."""
    return hashlib.sha256("".join(row.key for row in rows).encode()).hexdigest()[:32] if rows else ""


def answer_tokens(rows: Sequence[Asked]) -> int:
    """How long an answer may become: half as long again as the longest that is expected."""
    longest = max((len(row.expected_ids) for row in rows), default=0)
    return min(256, longest + longest // 2 + 8)
