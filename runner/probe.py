"""The probe before a training of packed rows: whether its largest batch fits, and how long steps take.

The largest and a usual batch of as many as the training has are drawn from its rows; each is learned from and forgotten
again. Where memory runs out the step comes down to smaller parts by itself (runner/packed/step.py), before anything was
learned. What was found is kept for trainings that are alike, so that they need no look of their own.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute
import torch

from runner import packed
from runner.bases import Base
from runner.job import Attempt
from runner.packed.batch import Rows
from runner.packed.step import Step
from runner.randomness import random_state, restore
from spool.forecast import costs, shapes, steps
from spool.forecast.costs import Plan, rounded
from spool.protocol import durable
from spool.protocol.spec import JobSpec

MOST_DRAWN = 20_000
"""Batches."""
ENOUGH_S = 8.0
"""After that nothing is tried once more. An H100 needed 1.3 to 7.7 s, for models of 270M to 31B."""
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")
ENGINE = Path(packed.__file__).parent
"""Our own part, whose version are its files."""


@dataclass(frozen=True)
class Measured:
    """`room_tokens` are on the card at once at most (None: any number), which takes `peak_bytes` of its memory (None on
    a CPU). `step_s` are the seconds of a usual step's forward and backward pass. The probe took `took_s`: 0 where this
    was known before."""

    room_tokens: int | None
    peak_bytes: int | None
    step_s: float
    tokens_per_s: float
    took_s: float = 0.0

    def words(self, steps: int, disk_bytes: float | None) -> str:
        """For people; `disk_bytes` of the whole job are computed, not measured."""
        speed = f"{self.tokens_per_s:,.0f} tokens a second"
        memory = f"{self.peak_bytes / 1e9:.1f} GB of the card, " if self.peak_bytes else ""
        disk = f"; at most {disk_bytes / 1e9:.1f} GB of disk" if disk_bytes else ""
        whole = f"{_duration(steps * self.step_s)} for all {steps:,} steps"
        return f"measured on this machine: {memory}{speed}, {whole}{disk}"


def look(spec: JobSpec, attempt: Attempt, base: Base, trainer: Any) -> Measured:
    """What a trainer of packed rows will take, measured or known; its step then has room for as much as was found.

    Raises:
        torch.OutOfMemoryError: there is no room for a single row.
    """
    step, rows, t = trainer.step, trainer.train_dataset, spec.train
    assert isinstance(t.batch_size, int)
    assert isinstance(t.gradient_accumulation, int)
    lengths = pyarrow.compute.list_value_length(rows.data.column("input_ids")).to_numpy()
    count = steps.total(t, len(lengths), t.batch_size, t.gradient_accumulation)
    found = drawn(lengths, t.batch_size, count * t.gradient_accumulation, t.seed)
    largest, usual = (Rows([rows[int(i)] for i in each]) for each in found)
    card = torch.cuda.get_device_properties(0) if step.on_gpu else None
    alike = [
        [base.reference, base.revision, base.weights_bytes],
        [card.name, card.total_memory, rounded(int(step.most_tokens))] if card else "cpu",
        [spec.precision, t.gradient_checkpointing, t.optimizer, spec.lora.model_dump()],
        [len(largest), t.gradient_accumulation],
        [*(rounded(each) for each in (largest.tokens, usual.tokens, max(map(len, largest.ids))))],
    ]
    folder = attempt.home.cache / "measured"
    measured = _known(folder, alike)
    if measured is None:
        attempt.phase("measuring what a step takes")
        measured = measure(step, largest, usual, t.gradient_accumulation, attempt.pulse)
        _keep(folder, alike, measured)
    if measured.room_tokens is not None:
        step.most_tokens = min(step.most_tokens, measured.room_tokens)
    words = measured.words(count, _disk_bytes(spec, attempt, base, trainer, lengths, count))
    attempt.events.write(event="measured", words=words, phase="measuring what a step takes")
    return measured


def _disk_bytes(
    spec: JobSpec, attempt: Attempt, base: Base, trainer: Any, lengths: np.ndarray, count: int
) -> float | None:
    """What the job leaves at its fullest moment, by the forecast's formulas; None where the base's shape is unknown."""
    shape = shapes.of(attempt.home, base.reference, base.folder)
    if shape is None:
        return None
    t, held = spec.train, trainer.eval_dataset
    plan = Plan(
        count,
        int(t.batch_size),
        int(t.gradient_accumulation),
        float(lengths.mean()),
        float(lengths.max()),
        spec.lora.rank,
        spec.lora.target_modules,
        spec.precision,
        bool(t.gradient_checkpointing),
        t.optimizer,
        trainer.step.on_gpu,
        len(lengths),
        len(held) if held is not None else 0,
        exports=tuple(spec.export),
        packing=True,
    )
    return costs.disk_bytes(shape, plan, max(1, count // steps.save_every(t, count)))


def drawn(lengths: np.ndarray, rows: int, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the largest of so many batches, and those of one in the middle, drawn as a training draws them: in
    epochs, each in an order of its own.

    Args:
        lengths: (n) tokens of each row.
        rows: of a batch; the last one of an epoch may have fewer.
    """
    draw = np.random.default_rng(seed)
    an_epoch = math.ceil(len(lengths) / rows)
    batches = [
        batch
        for _ in range(math.ceil(min(steps, MOST_DRAWN) / an_epoch))
        for batch in np.split(draw.permutation(len(lengths)), range(rows, len(lengths), rows))
    ]
    batches.sort(key=lambda batch: int(lengths[batch].sum()))
    return batches[-1], batches[len(batches) // 2]


def measure(
    step: Step, largest: Rows, usual: Rows, accumulation: int = 1, pulse: Callable[[], None] = lambda: None
) -> Measured:
    """Learns from the largest part of each batch, and forgets it. The random numbers that it draws are drawn again.

    Raises:
        torch.OutOfMemoryError: there is no room for a single row.
    """
    random, began = random_state(), time.perf_counter()
    try:
        for _ in range(2):
            _learn(step, largest, pulse)
            if time.perf_counter() - began > ENOUGH_S:
                break
        peak_bytes = torch.cuda.max_memory_allocated() if step.on_gpu else None
        a_token_s = math.inf  # the first time kernels are compiled, and a length is recorded
        for _ in range(3):
            a_token_s = min(a_token_s, _learn(step, usual, pulse))
            if time.perf_counter() - began > ENOUGH_S:
                break
    finally:
        step.forget()
        restore(random)
    room_tokens = int(step.most_tokens) if math.isfinite(step.most_tokens) else None
    step_s = a_token_s * usual.tokens * accumulation
    took_s = round(time.perf_counter() - began, 2)
    return Measured(room_tokens, peak_bytes, round(step_s, 4), round(1 / a_token_s, 1), took_s)


def _learn(step: Step, rows: Rows, pulse: Callable[[], None]) -> float:
    """Seconds a token of the batch's largest part: as much as is on the card at once."""
    part = max(rows.parts(step.most_tokens), key=lambda part: part.tokens)
    began = time.perf_counter()
    step.learn(part, part.trained_tokens)
    if step.on_gpu:
        torch.cuda.synchronize()
    pulse()
    return (time.perf_counter() - began) / part.tokens


def _known(folder: Path, alike: Sequence[Any]) -> Measured | None:
    try:
        document = durable.read_json(_file(folder, alike))
        return Measured(**document) if document else None
    except (ValueError, TypeError):
        return None


def _keep(folder: Path, alike: Sequence[Any], measured: Measured) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    durable.write_json(_file(folder, alike), asdict(replace(measured, took_s=0.0)))


def _file(folder: Path, alike: Sequence[Any]) -> Path:
    versions = [metadata.version(name) for name in PACKAGES]
    ours = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(ENGINE.glob("*.py"))]
    whole = json.dumps([*alike, *versions, *ours], sort_keys=True)
    return folder / f"{hashlib.sha256(whole.encode()).hexdigest()[:32]}.json"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
