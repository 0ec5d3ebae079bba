"""The training recipe, top to bottom: data, base model, LoRA, trainer, train (or resume), export.

Unsloth does the work on GPU and CPU alike; nothing here adds to or takes from what a plain Unsloth script with the
same settings learns (tests/test_training_parity.py compares the two, loss by loss and tensor by tensor).
"""

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from runner import bases, checkpoint
from runner.bases import Base
from runner.course import Course
from runner.exports import adapter
from runner.job import Attempt, Stopped, low_disk
from spool.data import prepared
from spool.data.judging.chat import Encoder
from spool.data.prepare import Task, prepare
from spool.data.prepared import Prepared
from spool.forecast import steps
from spool.protocol import durable
from spool.protocol.errors import FinetunerError
from spool.protocol.spec import JobSpec
from spool.protocol.training import batches

LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SMALL_MODEL_PARAMETERS = 1_000_000_000


def train(spec: JobSpec, attempt: Attempt) -> dict[str, Any]:
    """Trains one LoRA adapter and gives the job's `result`.

    Raises:
        FinetunerError: with a code, in words a person can act on.
        Stopped: on request, after a checkpoint where one was possible.
    """
    started = time.perf_counter()
    low = low_disk(attempt.run.root, spec.limits.min_free_gb)
    if low:
        raise low
    base = bases.find(spec.model, attempt)
    encoder = Encoder.for_model(base.folder)
    data = _find_data(spec, attempt, base, encoder)
    hashed = ThreadPoolExecutor(1).submit(bases.sha256, attempt.home, base.folder)  # while the libraries load

    attempt.phase("loading the libraries")
    import unsloth  # noqa: F401, I001  (it patches the others, so it comes first)
    import torch
    from transformers import set_seed

    on_gpu = torch.cuda.is_available()
    spec = _resolve(spec, base, data, on_gpu, bases.free_gpu_bytes(torch) if on_gpu else 0)
    _keep_resolved(spec, attempt)

    attempt.phase("loading the model")
    set_seed(spec.train.seed)
    model, tokenizer = _load(spec, base)
    spec_hash = _spec_hash(spec, base, data)
    resume = checkpoint.newest(attempt.run.checkpoints, spec_hash, attempt.note)
    trainer, course = _trainer(spec, attempt, model, tokenizer, data, encoder, resume, spec_hash)
    _learn(attempt, trainer, course, resume)
    if course.best and course.best[1] != trainer.state.global_step:
        _load_best(attempt, model, course, spec_hash)

    attempt.phase("saving the adapter")
    facts = _facts(attempt, base, data, course, trainer, torch, on_gpu)
    facts |= {"base": {**facts["base"], "sha256": hashed.result()}, "seconds": round(time.perf_counter() - started, 1)}
    whose = {"job": attempt.job_id, "name": spec.name or attempt.job_id, "settings": spec.to_json(), **facts}
    folder = adapter.save(attempt.run.exports, model, base.folder, encoder, whose, attempt.pulse)
    return {"adapter": attempt.home.relative(folder), **facts}


def _learn(attempt: Attempt, trainer: Any, course: Any, resume: Path | None) -> None:
    """Trains to the end, from the checkpoint if there is one; only evaluates where that was at the end already.

    Raises:
        Stopped: on request, after a checkpoint where one was possible.
    """
    from transformers import TrainerState

    from runner.trainer import EndedEarly

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


def _find_data(spec: JobSpec, attempt: Attempt, base: Base, encoder: Encoder) -> Prepared:
    """What the check left. It is made anew where it is missing, damaged, or tokenised for another model."""
    data = prepared.load(attempt.run.data)
    if data is not None and data.tokenizer_sha256 == encoder.identity:
        return data
    return prepare(Task.of(spec, attempt.places, encoder), attempt.run.data, attempt.phase)


def _resolve(spec: JobSpec, base: Base, data: Prepared, on_gpu: bool, free_bytes: int) -> JobSpec:
    """The spec with every `auto` replaced by what it becomes here."""
    try:
        size, accumulation = batches(spec.train)
    except ValueError as error:
        raise FinetunerError(f"/train: {error}.", "Choose a divisor.", "bad_spec") from None
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
            "optimizer": steps.optimizer(t, on_gpu),
            "gradient_checkpointing": steps.checkpointing(t, on_gpu),
            "packing": False,
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
    return spec.model_copy(
        update={
            "precision": base.precision(spec.precision, on_gpu, free_bytes),
            "train": train,
            "data": resolved_data,
            "eval": spec.eval.model_copy(update={"every_steps": every, "sample_prompts": _sampled(spec, data, on_gpu)}),
        }
    )


def _sampled(spec: JobSpec, data: Prepared, on_gpu: bool) -> str | list[str]:
    """`eval.sample_prompts`: of auto stays auto what answers rows, as their answers stand beside them."""
    asked = spec.eval.sample_prompts
    return [] if asked == "auto" and not (on_gpu and data.eval) else asked


def _keep_resolved(spec: JobSpec, attempt: Attempt) -> None:
    durable.write_json(attempt.run.spec, spec.to_json())


def _spec_hash(spec: JobSpec, base: Base, data: Prepared) -> str:
    """What a checkpoint is bound to: everything that the loss curve depends on."""
    document = {k: v for k, v in spec.to_json().items() if k in ("precision", "lora", "train", "data")}
    document["base"] = [base.reference, base.revision, base.weights_bytes]
    document["dataset"] = [data.dataset["sha256"], data.files["train.arrow"]["sha256"], data.tokenizer_sha256]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _load(spec: JobSpec, base: Base) -> tuple[Any, Any]:
    from unsloth import FastLanguageModel

    assert isinstance(spec.data.max_length, int)
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(base.folder),
        max_seq_length=spec.data.max_length,
        load_in_4bit=spec.precision == "4bit",
        load_in_8bit=spec.precision == "8bit",
        use_exact_model_name=True,
        trust_remote_code=False,
    )
    modules = spec.lora.target_modules
    model = FastLanguageModel.get_peft_model(
        model,
        r=spec.lora.rank,
        lora_alpha=spec.lora.alpha,
        lora_dropout=spec.lora.dropout,
        target_modules=LINEAR_LAYERS if modules == "all-linear" else modules,
        bias="none",
        use_rslora=spec.lora.rslora,
        use_gradient_checkpointing="unsloth" if spec.train.gradient_checkpointing else False,
        random_state=spec.train.seed,
    )
    return model, tokenizer


def _trainer(
    spec: JobSpec,
    attempt: Attempt,
    model: Any,
    tokenizer: Any,
    data: Prepared,
    encoder: Encoder,
    resume: Path | None,
    spec_hash: str,
) -> tuple[Any, Course]:
    from datasets import Dataset

    from runner.progress import Progress
    from runner.samples import Samples, prompts
    from runner.trainer import Trainer

    def mapped(path: Path) -> Any:
        return Dataset.from_file(str(path)).select_columns(["input_ids", "labels"])

    course = Course() if resume is None else Course.read(resume)
    if course.best and resume and course.best[1] != checkpoint.step_of(resume):
        best = resume.with_name(f"checkpoint-{course.best[1]}")
        why = checkpoint.problem(best, spec_hash)
        if why:
            attempt.note(f"the best checkpoint so far ({best.name}) is lost: {why}. The best of what follows is kept.")
            course.best, course.bad_evaluations = None, 0
    trainer = Trainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=mapped(data.train),
        eval_dataset=mapped(data.eval) if data.eval else None,
        args=_arguments(spec, attempt, data.eval is not None),
    )
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


def _arguments(spec: JobSpec, attempt: Attempt, evaluates: bool) -> Any:
    from trl import SFTConfig

    t = spec.train
    return SFTConfig(
        output_dir=str(attempt.run.checkpoints),
        per_device_train_batch_size=t.batch_size,
        per_device_eval_batch_size=t.batch_size,
        gradient_accumulation_steps=t.gradient_accumulation,
        num_train_epochs=t.epochs,
        max_steps=t.max_steps or -1,
        learning_rate=t.learning_rate,
        lr_scheduler_type=t.scheduler,
        warmup_steps=t.warmup_ratio,
        weight_decay=t.weight_decay,
        optim=t.optimizer,
        seed=t.seed,
        logging_steps=t.logging_steps,
        logging_nan_inf_filter=False,
        max_length=spec.data.max_length,
        packing=False,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=spec.eval.every_steps if evaluates else None,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=t.save_steps,
        save_total_limit=None,
        report_to="none",
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},  # the check has cut every row; a second copy would lie beside it
    )


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
