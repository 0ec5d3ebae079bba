"""How many steps a training takes, and what its `auto` settings become: the trainer and the forecast count alike.

The number of steps is that of transformers' Trainer with a loader that keeps its last, smaller batch. Which settings
are quickest was measured on an H100: bench/results/*-h100-plan.json.
"""

import math
from dataclasses import dataclass

from spool.forecast import costs
from spool.forecast.shapes import Shape
from spool.protocol.training import Eval, Lora, Train, batches


def total(train: Train, rows: int, batch_size: int, accumulation: int) -> int:
    """Optimizer steps of a whole run over `rows` rows; at least one."""
    if train.max_steps:
        return train.max_steps
    an_epoch = max(1, math.ceil(rows / (batch_size * accumulation)))
    return max(1, math.ceil(an_epoch * train.epochs))


def save_every(train: Train, steps: int) -> int:
    """Steps from one checkpoint to the next."""
    return min(500, max(10, steps // 10)) if train.save_steps == "auto" else train.save_steps


def evaluate_every(evaluation: Eval, steps: int) -> int:
    """Steps from one evaluation to the next."""
    return max(1, steps // 5) if evaluation.every_steps == "auto" else evaluation.every_steps


def precision(asked: str, parameters: int, on_gpu: bool, free_bytes: int) -> str:
    """16 bit needs the weights, and about as much again for activations; 4 bit where that is tight."""
    if asked != "auto":
        return asked
    return "16bit" if not on_gpu or parameters * 2 * 2 < free_bytes else "4bit"


PACKED_KINDS = (
    *("gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text"),
    *("gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text"),
)
"""The `model_type` of models whose rows can be packed."""


AMPERE = (8, 0)
"""The compute capability that packed rows need, for FlashAttention-2."""

COMFORTABLE_TOKENS = 2048
"""At once: with fewer a card is no longer busy, and it pays to keep less in memory."""


@dataclass(frozen=True)
class Way:
    """How a training computes. All learn the same, but for what 4 and 8 bit round."""

    precision: str
    packed: bool
    checkpointing: bool
    """Activations are computed twice to save memory."""
    optimizer: str
    room_tokens: float = math.inf
    """Of packed rows that there is memory for at once; more come in parts. No limit on a CPU."""


def way(
    train: Train,
    lora: Lora,
    asked_precision: str,
    shape: Shape | None,
    parameters: int,
    free_bytes: int | None,
    longest: float,
    mean: float,
    packs: bool = True,
) -> Way:
    """The quickest way that fits, as far as the spec leaves it open.

    Args:
        shape: None where nobody knows it.
        free_bytes: of the card; None on a CPU.
        longest, mean: tokens of the longest row, which is never split, and of rows on average.
        packs: whether the card has what packed rows need: Ampere or newer.

    Raises:
        ValueError: the spec asks for what cannot be, in words.
    """
    if shape and shape.stored:
        if asked_precision not in ("auto", shape.stored):
            raise ValueError(f"the base lies there in {shape.stored} and cannot be loaded in {asked_precision}")
        asked_precision = shape.stored
    on_gpu, kind = free_bytes is not None, shape.kind if shape else ""
    smaller = ("8bit", "4bit") if shape and shape.experts else ("8bit",)
    can = kind in PACKED_KINDS and asked_precision not in smaller
    if train.packing is True and not can:
        if kind not in PACKED_KINDS:
            raise ValueError(f"packing is not built for models of the kind {kind or 'unknown'}")
        with_experts = " that has experts" if shape and shape.experts else ""
        raise ValueError(f"packing does not go with a base in {asked_precision[0]} bit{with_experts}")
    if can and train.packing is True and not on_gpu:
        chosen = asked_precision if asked_precision != "auto" else "16bit"
        return Way(chosen, True, train.gradient_checkpointing is True, _or(train.optimizer, "adamw_torch"))
    if can and train.packing and on_gpu and packs:
        assert shape is not None
        wanted = max(longest, min(parts(train, packed=True)[0] * mean, COMFORTABLE_TOKENS))
        for optimizer in ("adamw_torch", "adamw_8bit") if train.optimizer == "auto" else (train.optimizer,):
            found = _quickest(train, lora, asked_precision, shape, free_bytes or 0, wanted, optimizer)
            if found.room_tokens >= longest:
                return found
    if train.packing is True:
        raise ValueError("the card has no room for packed rows, or is older than Ampere")
    chosen = precision(asked_precision, parameters, on_gpu, free_bytes or 0)
    checkpoints = on_gpu if train.gradient_checkpointing == "auto" else train.gradient_checkpointing
    return Way(chosen, False, checkpoints, _or(train.optimizer, "adamw_8bit" if on_gpu else "adamw_torch"))


def _quickest(
    train: Train, lora: Lora, asked_precision: str, shape: Shape, free_bytes: int, wanted: float, optimizer: str
) -> Way:
    """Of packed rows: what is quickest and has room for the wanted tokens at once, else what has most room."""
    ways = []
    small = () if shape.experts else ("4bit",)  # in which transformers' loader leaves experts as they are
    for chosen in ("16bit", *small) if asked_precision == "auto" else (asked_precision,):
        for again in (False, True) if train.gradient_checkpointing == "auto" else (train.gradient_checkpointing,):
            room = costs.room_tokens(shape, lora.rank, lora.target_modules, free_bytes, chosen, again, optimizer)
            ways.append(Way(chosen, True, again, optimizer, room))
            if room >= wanted:
                return ways[-1]
    return max(ways, key=lambda way: way.room_tokens)


def _or(asked: str, default: str) -> str:
    return default if asked == "auto" else asked


def parts(train: Train, packed: bool) -> tuple[int, int]:
    """(batch_size, gradient_accumulation); an auto batch_size of packed rows is the whole effective batch.

    Raises:
        ValueError: one alone does not divide the effective batch.
    """
    return batches(train, train.effective_batch) if packed else batches(train)
