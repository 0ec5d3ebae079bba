"""How many steps a training takes, and what its `auto` settings become: the trainer and the forecast count alike.

The number of steps is that of transformers' Trainer with a loader that keeps its last, smaller batch. Which settings
are quickest was measured on an H100: bench/results/*-h100-plan.json.
"""

import math

from spool.protocol.training import Eval, Train, batches


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
"""The `model_type` of models whose rows can be packed: all but those with experts (shapes.py marks them)."""


def packing(train: Train, precision: str, kind: str, on_gpu: bool, room_tokens: float, longest: float) -> bool:
    """Whether rows are packed.

    Args:
        precision: resolved.
        kind: the base's `model_type`.
        room_tokens: for which the card has memory (costs.room_tokens); no limit on a CPU.
        longest: tokens of the longest row, which is never split.

    Raises:
        ValueError: the spec asks for what cannot be, in words.
    """
    checkpoints = train.gradient_checkpointing is True
    can = kind in PACKED_KINDS and precision == "16bit" and not checkpoints
    if train.packing is True and not can:
        if kind not in PACKED_KINDS:
            raise ValueError(f"packing is not built for models of the kind {kind or 'unknown'}")
        with_what = "gradient_checkpointing" if checkpoints else f"a base in {precision.removesuffix('bit')} bit"
        raise ValueError(f"packing does not go with {with_what}")
    fits = room_tokens >= longest
    if train.packing == "auto":
        return can and on_gpu and fits
    if train.packing and on_gpu and not fits:
        raise ValueError("the card has no room for packed rows, or is older than Ampere")
    return train.packing


def parts(train: Train, packed: bool) -> tuple[int, int]:
    """(batch_size, gradient_accumulation); an auto batch_size of packed rows is the whole effective batch.

    Raises:
        ValueError: one alone does not divide the effective batch.
    """
    return batches(train, train.effective_batch) if packed else batches(train)


def optimizer(train: Train, on_gpu: bool, packed: bool) -> str:
    if train.optimizer != "auto":
        return train.optimizer
    return "adamw_8bit" if on_gpu and not packed else "adamw_torch"


def checkpointing(train: Train, on_gpu: bool, packed: bool) -> bool:
    """Whether activations are computed twice to save memory."""
    return on_gpu and not packed if train.gradient_checkpointing == "auto" else train.gradient_checkpointing
