"""Asking base and tuned model the same rows, in the time that there is. The only part of a report that needs torch.

The base answers first, then the adapter is merged into its weights in memory (as the merged export has them: computed
in 32 bit, rounded once), then the same rows are asked again. On a CPU that takes half the time of an unmerged adapter
(bench/report.py --unmerged). Rows come in an order of which each beginning is a fair sample, so that being cut short
makes intervals wider and nothing else.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.exports import merge
from runner.exports.merge import CannotMerge
from runner.report.rows import Asked, Said
from spool.data.judging.chat import Encoder
from spool.protocol import durable
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.resolve import Trained
from spool.protocol.spec import Sampling

TOLD_ROWS = 20
BATCH_ROWS = 80
"""A CPU reads all weights for each new token, whatever the batch."""
LOSS_ROWS, LOSS_TOKENS = 8, 400
"""Texts that are read at once, and expected tokens in them: each takes a megabyte, a number for each token there is."""
ALIKE = 1.5
"""Prompts that are answered together are at most so many times as long as the shortest of them: padding takes time."""
ALIKE_TOKENS = 48
"""And this much longer, so that short ones make no batches of their own."""
FIRST_ROWS = 8
"""Of everything so many are asked, also where the time is over: a few say more than none."""
BASE_SHARE = 0.6
"""Of the time left, what the base may take; the tuned model stops by itself and is faster."""
MERGED = True
"""False leaves the adapter beside its base, to measure what that costs."""
RESERVE = 1.15
"""A batch begins only where this many times what it should take is left."""

NO_MEMORY = ("Make the report on a larger card; the adapter is not touched by it.", "out_of_memory")

Pulse = Callable[[], None]


@dataclass(frozen=True)
class Part:
    """Rows of one kind: those of the data, or the general set."""

    name: str
    rows: list[Asked]
    answer_tokens: int


class Memory:
    """What a base has said before, by the tokens that it was asked; may be deleted at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = self._read()
        self._new = False

    def _read(self) -> dict[str, Said]:
        try:
            return {key: Said(**said) for key, said in (durable.read_json(self.path) or {})["said"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):  # another release's, or damaged: asked anew
            return {}

    def get(self, row: Asked) -> Said | None:
        return self._known.get(row.key)

    def keep(self, row: Asked, said: Said) -> None:
        self._known[row.key] = said
        self._new = True

    def save(self) -> None:
        if self._new:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            durable.write_json(self.path, {"v": 1, "said": {key: asdict(said) for key, said in self._known.items()}})


def memory(home: Home, weights_sha256: str, encoder: Encoder, data_version: str, answer_tokens: int) -> Memory:
    """What this base has said to these data with these settings, on hardware of this kind."""
    import torch

    known = [
        weights_sha256,
        encoder.identity,
        data_version,
        answer_tokens,
        torch.__version__,
        torch.cuda.is_available(),
    ]
    return Memory(home.base_answers / f"{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:32]}.json")


@dataclass(frozen=True)
class Heard:
    """(base, tuned) for each row that both have answered, in the order of the part's rows."""

    answers: list[tuple[Said, Said]]
    asked: int
    """How many there were to ask."""
    cached: int
    """Answers of the base that were known before."""

    @property
    def cut(self) -> bool:
        return len(self.answers) < self.asked


def ask(
    base: Path,
    adapter: Path,
    encoder: Encoder,
    parts: Sequence[Part],
    memories: dict[str, Memory],
    deadline: float,
    pulse: Pulse = lambda: None,
    now: Callable[[], float] = time.monotonic,
    worth: Callable[[dict[str, list[Said]]], Sequence[str]] = list,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Heard]:
    """Part -> what both have said to its rows.

    Raises:
        FinetunerError: the card is too small, or the adapter does not fit the base.

    Args:
        memories: of each part, what the base has said before.
        deadline: by `now`, when to be done; FIRST_ROWS of everything are asked all the same.
        worth: the parts that the tuned model is asked too, by what the base has said to each.
        told: how many answers there are, and how many there will be, now and then.
    """
    clock = _Clock(deadline, now)
    missing = {part.name: [row for row in part.rows if memories[part.name].get(row) is None] for part in parts}
    cached = {part.name: len(part.rows) - len(missing[part.name]) for part in parts}
    model = load(base)
    pulse()
    done, of = 0, sum(map(len, missing.values())) + sum(len(part.rows) for part in parts)
    until = clock.share(BASE_SHARE)
    for part, share in _shares(parts, clock, until):
        few = 0 if cached[part.name] else FIRST_ROWS
        for row, said in _answers(model, "base", encoder, part, missing[part.name], clock, share, pulse, few):
            memories[part.name].keep(row, said)
            done += 1
            if done % TOLD_ROWS == 0:
                told(done, of)
        memories[part.name].save()
    known = {part.name: [row for row in part.rows if memories[part.name].get(row) is not None] for part in parts}
    heard = {name: [say for row in rows if (say := memories[name].get(row))] for name, rows in known.items()}
    both = worth(heard)
    parts = [part for part in parts if part.name in both]
    of = done + sum(len(known[part.name]) for part in parts)
    model, who = tune(model, base, adapter)
    pulse()
    found = {}
    for part, share in _shares(parts, clock, deadline):
        tuned = _answers(model, who, encoder, part, known[part.name], clock, share, pulse, FIRST_ROWS)
        pairs = []
        for row, other in tuned:
            if (first := memories[part.name].get(row)) is not None:
                pairs.append((first, other))
            done += 1
            if done % TOLD_ROWS == 0:
                told(done, of)
        found[part.name] = Heard(pairs, len(part.rows), cached[part.name])
    return found


class _Clock:
    def __init__(self, deadline: float, now: Callable[[], float]) -> None:
        self.deadline, self.now = deadline, now

    def share(self, part: float) -> float:
        """The moment at which so much of the time left will have passed."""
        now = self.now()
        return now + max(0.0, self.deadline - now) * part


def _shares(parts: Sequence[Part], clock: _Clock, until: float) -> Iterator[tuple[Part, float]]:
    """Each part and the moment until which it may ask: what is left, divided by what is to be said."""
    weights = [len(part.rows) * part.answer_tokens for part in parts]
    for i, part in enumerate(parts):
        now = clock.now()
        left = max(0.0, until - now) * (weights[i] / max(1, sum(weights[i:])))
        yield part, now + left


def _answers(
    model: Any,
    who: str,
    encoder: Encoder,
    part: Part,
    rows: list[Asked],
    clock: _Clock,
    until: float,
    pulse: Pulse,
    few: int,
) -> Iterator[tuple[Asked, Said]]:
    """Batches as long as the next one should be done in time; the first `few` rows in any case."""
    import torch

    start, size, most, row_s = 0, FIRST_ROWS, BATCH_ROWS, 0.0
    while start < len(rows):
        batch = rows[start : start + size]
        began = clock.now()
        if start >= few and began + RESERVE * row_s * len(batch) > until:
            batch = batch[: int(max(0.0, until - began) / (RESERVE * row_s))] if row_s else []
            if len(batch) < FIRST_ROWS:
                return
        try:
            said = _said(model, who, encoder, batch, part.answer_tokens, pulse)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise FinetunerError("there is not enough memory on the card to answer a row.", *NO_MEMORY) from None
            torch.cuda.empty_cache()
            size = most = len(batch) // 2
            continue
        yield from zip(batch, said, strict=True)
        row_s = (clock.now() - began) / len(batch)
        start, size = start + len(batch), most


def _said(
    model: Any, who: str, encoder: Encoder, batch: Sequence[Asked], answer_tokens: int, pulse: Pulse
) -> list[Said]:
    """What one model says to each row, in their order."""
    from runner.answer import Row, answer

    def look(said: Any) -> bool:
        pulse()
        return False

    found: dict[int, Said] = {}
    for places in _alike([len(row.ids) for row in batch]):
        asked = [Row(who, batch[i].ids) for i in places]
        replies = answer(model, encoder, asked, Sampling(max_new_tokens=answer_tokens), look)
        losses = expected_losses(model, [batch[i] for i in places], pulse)
        for i, reply, loss in zip(places, replies, losses, strict=True):
            found[i] = Said(reply.text, reply.stopped, reply.tokens, loss)
    return [found[i] for i in range(len(batch))]


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Places of prompts that are about as long, shortest first."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if groups and lengths[i] <= lengths[groups[-1][0]] * ALIKE + ALIKE_TOKENS:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def expected_losses(model: Any, rows: Sequence[Asked], pulse: Pulse = lambda: None) -> list[float | None]:
    """Mean negative log-probability a token of each expected answer, every token after the true ones before it."""
    losses: list[float | None] = []
    while len(losses) < len(rows):
        pulse()
        rest = rows[len(losses) :]
        longest = max(len(row.expected_ids) for row in rest[:LOSS_ROWS])
        losses += _losses(model, rest[: max(1, min(LOSS_ROWS, LOSS_TOKENS // max(1, longest)))])
    return losses


def _losses(model: Any, rows: Sequence[Asked]) -> list[float | None]:
    """Padded on the left: places count from each other in a Gemma, so those before a text change nothing."""
    import torch

    from runner.answer import folded

    if not any(row.expected_ids for row in rows):
        return [None] * len(rows)
    texts = [[*row.ids, *row.expected_ids[:-1]] for row in rows]
    width = max(map(len, texts))
    ids = torch.tensor([[0] * (width - len(text)) + text for text in texts], device=model.device)
    mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts], device=model.device)
    keep = max(len(row.expected_ids) for row in rows)
    with torch.no_grad(), folded(model):
        logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=keep).logits
    found: list[float | None] = []
    for row, places in zip(rows, logits, strict=True):
        wanted = torch.tensor(row.expected_ids, device=logits.device)
        expects = places[keep - len(wanted) :].float()
        found.append(float(torch.nn.functional.cross_entropy(expects, wanted)) if len(wanted) else None)
    return found


def load(base: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            str(base),
            dtype=torch.bfloat16,
            device_map={"": 0 if torch.cuda.is_available() else "cpu"},
            local_files_only=True,
            trust_remote_code=False,
        ).eval()
    except torch.OutOfMemoryError:
        raise FinetunerError("the base in 16 bit does not fit on the card.", *NO_MEMORY) from None


def tune(model: Any, base: Path, adapter: Path) -> tuple[Any, str]:
    """(the model with the adapter in it, the name that it answers by). The base's weights are changed."""
    if MERGED:
        try:
            _merge(model, base, adapter)
            return model, "base"
        except CannotMerge as error:
            if error.code != CannotMerge.default_code:  # it does not fit, or is damaged
                raise
    from runner.generate import with_adapter  # no plain LoRA: PEFT knows more kinds

    training = Trained("tuned", adapter.parent.name, adapter, base, base.name, None)
    return with_adapter(model, training).eval(), training.job_id


def _merge(model: Any, base: Path, adapter: Path) -> None:
    """Raises CannotMerge before anything is changed."""
    import torch

    places = {tensor.name: tensor for tensor in merge.tensors(base)}
    weights = dict(model.named_parameters())
    pairs = merge.adapter_pairs(base, adapter)
    if any(name not in weights for name, _ in pairs):
        raise CannotMerge("transformers names this model's weights otherwise than its files do.", "")
    for name, pair in pairs:
        with torch.no_grad():
            weights[name].copy_(merge.rounded_rows(places[name], pair, None))
