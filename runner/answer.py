"""One batch of answers, token by token: of a model, of its adapters, or of several of them side by side.

Nothing of a model's own generation defaults counts, only what is asked for. Random numbers are drawn only where the
temperature is above 0.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from spool.data.judging.chat import Encoder
from spool.protocol.spec import Sampling

LOOK_S = 0.1
"""How often somebody may look at what has been said so far."""
BASE = "base"

Said = list[list[int]]
"""The new tokens of each row so far, without the one that ends an answer."""
Look = Callable[[Said], bool]
"""Sees what has been said so far; True cuts all answers off."""


@dataclass(frozen=True)
class Row:
    """One prompt, as tokens, for one of those who answer: "base", or the name of an adapter."""

    who: str
    ids: list[int]


@dataclass(frozen=True)
class Reply:
    """An answer: its text without special tokens, and how it ended: stop (by itself), length or cancelled."""

    text: str
    tokens: int
    seconds: float
    ended_by: str
    ids: tuple[int, ...] = ()
    """As they came, with the token that ended it."""

    @property
    def stopped(self) -> bool:
        return self.ended_by == "stop"


def answer(
    model: Any, encoder: Encoder, rows: Sequence[Row], sampling: Sampling, look: Look = lambda said: False
) -> list[Reply]:
    """The answers to all rows, in one batch that is padded on the left.

    Args:
        model: a transformers model, or a PeftModel where somebody but the base answers.
        look: called at most each LOOK_S.
    """
    width = max(len(row.ids) for row in rows)
    ids = [[encoder.pad_id] * (width - len(row.ids)) + row.ids for row in rows]
    mask = [[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows]
    watch = _Watch(len(rows), width, encoder.stop_ids, look)
    if sampling.temperature > 0:
        torch.manual_seed(sampling.seed)
    began = time.perf_counter()
    with torch.no_grad(), folded(model), _whose(model, rows) as whose:
        out = model.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=encoder.stop_ids,
            pad_token_id=encoder.pad_id,
            stopping_criteria=StoppingCriteriaList([watch]),
            use_cache=True,
            num_beams=1,
            repetition_penalty=float(sampling.repetition_penalty),
            **_choosing(sampling),
            **whose,
        )
    ended = time.perf_counter()
    replies = []
    for i, said in enumerate(out[:, width:].tolist()):
        end = next((k for k, token in enumerate(said) if token in encoder.stop_ids), None)
        kept = said if end is None else said[:end]
        how = "stop" if end is not None else "cancelled" if watch.cut else "length"
        seconds = (watch.ended[i] or ended) - began
        replies.append(
            Reply(encoder.decode(kept).strip(), len(kept), round(seconds, 3), how, tuple(said[: len(kept) + 1]))
        )
    return replies


def _choosing(sampling: Sampling) -> dict[str, Any]:
    """Every value is given: what is left out a model's generation_config.json would fill in."""
    if sampling.temperature == 0:
        return {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50}
    return {
        "do_sample": True,
        "temperature": float(sampling.temperature),
        "top_p": float(sampling.top_p),
        "top_k": sampling.top_k,
    }


class _Watch(StoppingCriteria):
    """Lets somebody look at the answers as they grow, notes when each has ended, and cuts them off when asked."""

    def __init__(self, rows: int, width: int, stop_ids: list[int], look: Look) -> None:
        self.width = width
        self.stop_ids = set(stop_ids)
        self.look = look
        self.looked = time.perf_counter()
        self.ended: list[float | None] = [None] * rows
        self.cut = False

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        now = time.perf_counter()
        for i, token in enumerate(input_ids[:, -1].tolist()):
            if self.ended[i] is None and token in self.stop_ids:
                self.ended[i] = now
        if now - self.looked >= LOOK_S:
            self.looked = now
            self.cut = self.look([self._said(row) for row in input_ids[:, self.width :].tolist()])
        return torch.full((input_ids.shape[0],), self.cut, dtype=torch.bool, device=input_ids.device)

    def _said(self, row: list[int]) -> list[int]:
        end = next((k for k, token in enumerate(row) if token in self.stop_ids), None)
        return row if end is None else row[:end]


@contextlib.contextmanager
def _whose(model: Any, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Sees to it that each row is answered by its own: one alone by switching, several by PEFT's mixed batches."""
    who = {row.who for row in rows}
    if not hasattr(model, "peft_config"):
        yield {}
    elif who == {BASE}:
        with model.disable_adapter():
            yield {}
    elif len(who) == 1:
        name = who.pop()
        if model.active_adapter != name:
            model.set_adapter(name)
        yield {}
    else:
        yield {"adapter_names": ["__base__" if row.who == BASE else row.who for row in rows]}


@contextlib.contextmanager
def folded(model: Any) -> Iterator[None]:
    """For a frozen weight torch.matmul multiplies the last position of a batch with a copy of the whole output matrix a
    row, which takes a CPU ten times as long; for one that could learn it folds the batch. Nothing learns here."""
    weight = model.get_output_embeddings().weight
    frozen = weight.is_floating_point() and not weight.requires_grad
    if frozen:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        if frozen:
            weight.requires_grad_(False)
