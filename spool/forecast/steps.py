"""How many steps a training takes, and what its `auto` settings become: the trainer and the forecast count alike.

The number of steps is that of transformers' Trainer with a loader that keeps its last, smaller batch.
"""

import math

from spool.protocol.training import Eval, Train


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


def optimizer(train: Train, on_gpu: bool) -> str:
    if train.optimizer != "auto":
        return train.optimizer
    return "adamw_8bit" if on_gpu else "adamw_torch"


def checkpointing(train: Train, on_gpu: bool) -> bool:
    """Whether activations are computed twice to save memory."""
    return on_gpu if train.gradient_checkpointing == "auto" else train.gradient_checkpointing
