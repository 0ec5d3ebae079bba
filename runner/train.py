"""The training recipe, top to bottom: data, base model, LoRA, trainer, train (or resume), export.

There are two ways to train, and the spec's resolved `packing` says which: `runner.packed.engine` on a card of which
FlashAttention-2 and the model's kind allow it, else `runner.padded`, which is Unsloth's. Both learn the same.
"""

import hashlib
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner import bases, checkpoint
from runner.bases import Base
from runner.course import Course
from runner.exports import adapter
from runner.job import Anew, Attempt, Stopped, low_disk
from spool.data import prepared
from spool.data.judging.chat import Encoder
from spool.data.prepare import Task, prepare
from spool.data.prepared import Prepared
from spool.forecast import costs, shapes, steps
from spool.forecast.shapes import Shape
from spool.forecast.steps import Way
from spool.protocol import durable
from spool.protocol.errors import FinetunerError
from spool.protocol.spec import JobSpec

SMALL_MODEL_PARAMETERS = 1_000_000_000
GROUPED_PRODUCTS = (9, 10)
"""Hopper and the Blackwell of servers, where PyTorch multiplies with experts without asking the card how many tokens
each has (ATen/native/cuda/GroupedBlas.cpp): elsewhere such steps cannot be recorded."""


def train(spec: JobSpec, attempt: Attempt) -> dict[str, Any]:
    """Trains one LoRA adapter and gives the job's `result`.

    Raises:
        FinetunerError: with a code, in words a person can act on.
        Stopped: on request, after a checkpoint where one was possible.
        Anew: the training goes on from its newest checkpoint in a process begun anew.
    """
    started = time.perf_counter()
    low = low_disk(attempt.run.root, spec.limits.min_free_gb)
    if low:
        raise low
    base = bases.find(spec.model, attempt, min_free_gb=spec.limits.min_free_gb)
    encoder = Encoder.for_model(base.folder)
    data = _find_data(spec, attempt, base, encoder)
    hashed = ThreadPoolExecutor(1).submit(bases.sha256, attempt.home, base.folder)  # while the libraries load

    attempt.phase("loading the libraries")
    import torch

    room = _room(attempt, base, torch)
    spec, way = _resolve(spec, base, data, room)
    _keep_resolved(spec, attempt)
    engine = _engine(spec)

    attempt.phase("loading the model")
    from transformers import set_seed

    set_seed(spec.train.seed)
    try:
        model = engine.load(spec, base)
    except torch.OutOfMemoryError:
        raise FinetunerError(f"{RAN_OUT} while the model was loaded.", NEED_LESS, "out_of_memory") from None
    spec_hash = _spec_hash(spec, base, data)
    resume = checkpoint.newest(attempt.run.checkpoints, spec_hash, attempt.note)
    trainer, course = _trainer(spec, attempt, engine, model, data, encoder, resume, spec_hash, way, room)
    measured = None
    try:
        if spec.train.packing:
            from runner import probe

            measured = probe.look(spec, attempt, base, trainer)
        _learn(attempt, trainer, course, resume)
    except torch.OutOfMemoryError:
        if attempt.stop.requested:
            raise
        if _step_down(spec, attempt):
            raise Anew from None
        raise FinetunerError(f"{RAN_OUT} with one row at once.", NEED_LESS, "out_of_memory") from None
    if course.best and course.best[1] != trainer.state.global_step:
        _load_best(attempt, trainer.model, course, spec_hash)

    attempt.phase("saving the adapter")
    facts = _facts(attempt, base, data, course, trainer, torch, room.on_gpu)
    facts |= {"measured": asdict(measured) if measured else None}
    facts |= {"base": {**facts["base"], "sha256": hashed.result()}, "seconds": round(time.perf_counter() - started, 1)}
    whose = {"job": attempt.job_id, "name": spec.name or attempt.job_id, "settings": spec.to_json(), **facts}
    folder = adapter.save(attempt.run.exports, trainer.model, base.folder, encoder, whose, attempt.pulse)
    return {"adapter": attempt.home.relative(folder), **facts}


def _learn(attempt: Attempt, trainer: Any, course: Any, resume: Path | None) -> None:
    """Trains to the end, from the checkpoint if there is one; only evaluates where that was at the end already.

    Raises:
        Stopped: on request, after a checkpoint where one was possible.
    """
    from transformers import TrainerState

    from runner.lasting import EndedEarly

    if resume is not None:
        state = TrainerState.load_from_json(str(resume / "trainer_state.json"))
        if course.ended_early or state.global_step >= state.max_steps:
            attempt.phase(f"taking up the trained adapter of step {state.global_step}")
            trainer.state = state
            _load_adapter(trainer.model, resume)
            if course.owes_evaluation:
                trainer.evaluate()
            return
    begun_at = checkpoint.step_of(resume) if resume else 0
    attempt.events.write(event="begun", step=begun_at, phase="training")
    attempt.phase("training" if resume is None else f"training, from step {begun_at}")
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except EndedEarly:
        pass
    attempt.stop.unsaved = False
    if attempt.stop.requested:
        raise Stopped


def _step_down(spec: JobSpec, attempt: Attempt) -> bool:
    """Holds less on the card at once, from here on in all attempts; False where nothing less can be held. Packed rows
    come in smaller parts by themselves: where one row is too much, its activations are computed twice."""
    changed: dict[str, Any]
    if spec.train.packing:
        if spec.train.gradient_checkpointing:
            return False
        attempt.note(f"{RAN_OUT} with one row at once: from now on activations are computed twice. {SAME}")
        changed = {"gradient_checkpointing": True}
    else:
        size, accumulation = spec.train.batch_size, spec.train.gradient_accumulation
        assert isinstance(size, int)
        assert isinstance(accumulation, int)
        if size == 1:
            return False
        rows = size * accumulation
        smaller = max(each for each in range(1, size // 2 + 1) if rows % each == 0)
        words = f"{RAN_OUT} with rows by {size} on the card: from now on they come by {smaller}"
        attempt.note(f"{words}. Each step still learns from {rows} rows.")
        changed = {"batch_size": smaller, "gradient_accumulation": rows // smaller}
    _keep_resolved(spec.model_copy(update={"train": spec.train.model_copy(update=changed)}), attempt)
    return True


RAN_OUT, SAME = "the memory ran out", "What is learned stays the same."
NEED_LESS = (
    "Retry as suggested: the base in 4 bit (precision) needs less memory, and so do shorter rows (data.max_length)."
)


def _find_data(spec: JobSpec, attempt: Attempt, base: Base, encoder: Encoder) -> Prepared:
    """What the check left. It is made anew where it is missing, damaged, or tokenised for another model."""
    data = prepared.load(attempt.run.data)
    if data is not None and data.tokenizer_sha256 == encoder.identity:
        return data
    return prepare(Task.of(spec, attempt.places, encoder), attempt.run.data, attempt.phase)


@dataclass(frozen=True)
class Room:
    """What the plan of a training depends on beside the spec and the rows."""

    free_bytes: int | None
    """Of the card; None on a CPU."""
    shape: Shape | None
    """The base's, where it is known."""
    packs: bool = True
    """Whether the card has what packed rows need."""
    recorded_tokens: float = 0.0
    """Of packed rows that a CUDA graph is made for."""

    @property
    def on_gpu(self) -> bool:
        return self.free_bytes is not None


def _room(attempt: Attempt, base: Base, torch: Any) -> Room:
    shape = shapes.of(attempt.home, base.reference, base.folder)
    if not torch.cuda.is_available():
        return Room(None, shape)
    capability = torch.cuda.get_device_capability()
    records = shape is not None and (not shape.experts or capability[0] in GROUPED_PRODUCTS)
    recorded_tokens = costs.RECORDED_BYTES / costs.packed_token_bytes(shape) if shape and records else 0.0
    return Room(bases.free_gpu_bytes(torch), shape, capability >= steps.AMPERE, recorded_tokens)


def _engine(spec: JobSpec) -> Any:
    """Loads the libraries of the one way or the other.

    Raises:
        Anew: what was loaded ahead is the other's. Unsloth patches the libraries, and must be there before them.
    """
    unsloth, others = "unsloth" in sys.modules, "transformers" in sys.modules
    if unsloth if spec.train.packing else others and not unsloth:
        raise Anew
    if spec.train.packing:
        from runner.packed import engine

        return engine
    from runner import padded

    return padded


def _resolve(spec: JobSpec, base: Base, data: Prepared, room: Room) -> tuple[JobSpec, Way]:
    """The spec with every `auto` replaced by what it becomes here, and how that computes."""
    on_gpu, mean = room.on_gpu, data.files["train.arrow"]["tokens"] / max(1, data.train_rows)
    try:
        way = steps.way(
            spec.train,
            spec.lora,
            spec.precision,
            room.shape,
            base.parameters,
            room.free_bytes,
            data.max_length,
            mean,
            room.packs,
        )
        size, accumulation = steps.parts(spec.train, way.packed)
    except ValueError as error:
        raise FinetunerError(f"/train: {error}.", "Choose another value, or auto.", "bad_spec") from None
    rows, t = data.train_rows, spec.train
    total = steps.total(t, rows, size, accumulation)
    train = t.model_copy(
        update={
            "batch_size": size,
            "gradient_accumulation": accumulation,
            "effective_batch": size * accumulation,
            "learning_rate": (5e-4 if base.parameters < SMALL_MODEL_PARAMETERS else 2e-4)
            if t.learning_rate == "auto"
            else t.learning_rate,
            "optimizer": way.optimizer,
            "gradient_checkpointing": way.checkpointing,
            "packing": way.packed,
            "save_steps": steps.save_every(t, total),
        }
    )
    if not on_gpu and train.optimizer in ("adamw_8bit", "paged_adamw_8bit"):
        raise FinetunerError(f"the optimizer {train.optimizer} needs a GPU.", "Use auto or adamw_torch.", "bad_spec")
    every = steps.evaluate_every(spec.eval, total)
    resolved_data = spec.data.model_copy(
        update={
            "format": data.format,
            **data.dialect,
            "train_on": data.train_on,
            "max_length": data.max_length,
            "eval_fraction": data.eval_fraction,
        }
    )
    resolved = spec.model_copy(
        update={
            "precision": way.precision,
            "train": train,
            "data": resolved_data,
            "eval": spec.eval.model_copy(update={"every_steps": every, "sample_prompts": _sampled(spec, data, on_gpu)}),
        }
    )
    return resolved, way


def _sampled(spec: JobSpec, data: Prepared, on_gpu: bool) -> str | list[str]:
    """`eval.sample_prompts`: of auto stays auto what answers rows, as their answers stand beside them."""
    asked = spec.eval.sample_prompts
    return [] if asked == "auto" and not (on_gpu and data.eval) else asked


def _keep_resolved(spec: JobSpec, attempt: Attempt) -> None:
    durable.write_json(attempt.run.spec, spec.to_json())


def _spec_hash(spec: JobSpec, base: Base, data: Prepared) -> str:
    """What a checkpoint is bound to: everything that the loss curve depends on. In how many parts a step's rows come
    is none of it, nor whether packed rows compute twice."""
    document = {k: v for k, v in spec.to_json().items() if k in ("precision", "lora", "train", "data")}
    document["train"] = {k: v for k, v in document["train"].items() if k not in ("batch_size", "gradient_accumulation")}
    document["train"]["gradient_checkpointing"] &= not spec.train.packing
    document["base"] = [base.reference, base.revision, base.weights_bytes]
    document["dataset"] = [data.dataset["sha256"], data.files["train.arrow"]["sha256"], data.tokenizer_sha256]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _trainer(
    spec: JobSpec,
    attempt: Attempt,
    engine: Any,
    model: Any,
    data: Prepared,
    encoder: Encoder,
    resume: Path | None,
    spec_hash: str,
    way: Way,
    room: Room,
) -> tuple[Any, Course]:
    from datasets import Dataset

    from runner.progress import Progress
    from runner.samples import Samples, prompts

    def mapped(path: Path) -> Any:
        return Dataset.from_file(str(path)).select_columns(["input_ids", "labels"])

    course = Course() if resume is None else Course.read(resume)
    if course.best and resume and course.best[1] != checkpoint.step_of(resume):
        best = resume.with_name(f"checkpoint-{course.best[1]}")
        why = checkpoint.problem(best, spec_hash)
        if why:
            attempt.note(f"the best checkpoint so far ({best.name}) is lost: {why}. The best of what follows is kept.")
            course.best, course.bad_evaluations = None, 0
    held_out = mapped(data.eval) if data.eval else None
    trainer = engine.trainer(spec, attempt, model, mapped(data.train), held_out, way.room_tokens, room.recorded_tokens)
    progress = Progress(attempt, spec.limits, course)
    trainer.keep(progress, spec_hash)
    asked = prompts(spec, data, encoder) if spec.eval.sample_prompts else []
    if asked:
        assert isinstance(spec.eval.every_steps, int)
        every = None if data.eval else spec.eval.every_steps
        trainer.add_callback(
            Samples(attempt, encoder, asked, progress, every, bounded=spec.eval.sample_prompts == "auto")
        )
    return trainer, course


def _load_adapter(model: Any, folder: Path) -> None:
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(folder / checkpoint.ADAPTER))


def _load_best(attempt: Attempt, model: Any, course: Course, spec_hash: str) -> None:
    """Makes the best checkpoint the result; the last step stays it where the best does not verify any more."""
    assert course.best
    folder = attempt.run.checkpoints / f"checkpoint-{course.best[1]}"
    why = checkpoint.problem(folder, spec_hash)
    if why is None:
        _load_adapter(model, folder)
    else:
        attempt.note(f"the best checkpoint ({folder.name}) is lost: {why}. The adapter is that of the last step.")
        course.best = None


def _facts(
    attempt: Attempt, base: Base, data: Prepared, course: Course, trainer: Any, torch: Any, on_gpu: bool
) -> dict[str, Any]:
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    evaluation = course.best or course.last_evaluation
    folder = attempt.home.relative(base.folder)
    return {
        "final_loss": losses[-1] if losses else None,
        "train_loss": sum(losses) / len(losses) if losses else None,
        "eval_loss": evaluation[0] if evaluation else None,
        "steps": trainer.state.global_step,
        "best_step": course.best[1] if course.best else None,
        "ended_early": course.ended_early,
        "tokens": course.tokens,
        "train_rows": data.train_rows,
        "eval_rows": data.eval_rows,
        "trained_s": round(course.trained_s, 1),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "peak_gpu_mem_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "base": {"reference": base.reference, "folder": folder, "revision": base.revision},
        "dataset": data.dataset,
    }
