"""What happens between two steps of training: metrics, checkpoints, limits, and stopping when asked."""

import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from runner import checkpoint
from runner.job import Attempt, Stopped
from spool.health.gpu import Gpu
from spool.protocol.errors import FinetunerError
from spool.protocol.spec import Limits


class Diverged(FinetunerError):
    default_code = "diverged"


class Progress(TrainerCallback):
    """One callback for everything, so that its order is the order of this file.

    Args:
        spec_hash: what checkpoints are bound to.
        tokens: counts the real tokens (not padding) that the collator has handed out for training.
    """

    def __init__(self, attempt: Attempt, limits: Limits, spec_hash: str, tokens: "TokenCount") -> None:
        self.attempt = attempt
        self.limits = limits
        self.spec_hash = spec_hash
        self.tokens = tokens
        self.gpu = Gpu()
        self.started = self.step_started = time.perf_counter()
        self.step_s: float | None = None
        self.logged_tokens = 0
        self.logged_at = self.started
        self.best: tuple[float, int] | None = None
        self.bad_evaluations = 0
        self.ended_early: str | None = None
        self.last_eval_loss: float | None = None
        self.last_eval_step: int | None = None

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.step_started = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        took = time.perf_counter() - self.step_started
        self.step_s = took if self.step_s is None else 0.8 * self.step_s + 0.2 * took
        if self.attempt.stop.requested:
            if self.attempt.stop.cancelled:
                raise Stopped
            control.should_save = control.should_training_stop = True
        hours = (time.perf_counter() - self.started) / 3600
        if self.limits.max_hours and hours >= self.limits.max_hours and state.global_step < state.max_steps:
            self._end_early(control, f"the limit of {self.limits.max_hours:g} hours is reached")
        return control

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if "loss" not in logs:
            return
        now, counted = time.perf_counter(), self.tokens.count
        loss, norm = float(logs["loss"]), logs.get("grad_norm")
        self._row(
            state,
            loss=loss,
            learning_rate=logs.get("learning_rate"),
            grad_norm=float(norm) if norm is not None else None,
            tokens_per_s=round((counted - self.logged_tokens) / max(1e-9, now - self.logged_at), 1),
            step_time_s=round(now - self.step_started, 4),
            tokens=counted,
            host_mem_bytes=host_memory_bytes(),
            **self.gpu.sample(),
        )
        self.logged_tokens, self.logged_at = counted, now
        if not math.isfinite(loss) or (norm is not None and not math.isfinite(float(norm))):
            hint = "Retry with a lower learning rate (a third of it); the last checkpoint is kept."
            raise Diverged(f"the loss is no number any more at step {state.global_step}.", hint)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, Any], **_: Any
    ) -> TrainerControl:
        loss = float(metrics["eval_loss"])
        self.last_eval_loss, self.last_eval_step = loss, state.global_step
        self._row(state, eval_loss=loss)
        self.logged_at = time.perf_counter()  # the time of an evaluation is not training time
        stopping = self.limits.early_stopping
        if stopping:
            if self.best is None or loss < self.best[0] - stopping.min_delta:
                self.best, self.bad_evaluations = (loss, state.global_step), 0
                control.should_save = True
            else:
                self.bad_evaluations += 1
                if self.bad_evaluations >= stopping.patience:
                    self._end_early(control, f"the eval loss has not fallen for {stopping.patience} evaluations")
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        checkpoint.complete(folder, self.spec_hash)
        best = folder.with_name(f"checkpoint-{self.best[1]}") if self.best else None
        checkpoint.rotate(folder.parent, spare=best)
        self.attempt.events.write(event="checkpoint", step=state.global_step, phase="training")
        free = shutil.disk_usage(folder).free
        if free < self.limits.min_free_gb * 1e9:
            raise FinetunerError(
                f"only {free / 1e9:.1f} GB of disk are free at step {state.global_step}.",
                f"Free some space (limits.min_free_gb is {self.limits.min_free_gb:g}), then retry.",
                "disk_full",
            )

    def _end_early(self, control: TrainerControl, why: str) -> None:
        self.ended_early = why
        control.should_training_stop = True
        self.attempt.events.write(event="ended_early", why=why, phase="training")

    def _row(self, state: TrainerState, **values: Any) -> None:
        left = max(0, state.max_steps - state.global_step)
        self.attempt.metrics.write(
            step=state.global_step,
            total_steps=state.max_steps,
            epoch=round(state.epoch or 0.0, 4),
            **{name: value for name, value in values.items() if value is not None},
            eta_s=round(left * self.step_s, 1) if self.step_s is not None else None,
        )


class TokenCount:
    """Wraps the trainer's collator and counts what it hands out while training: tokens that are not padding."""

    def __init__(self, collator: Any, model: Any) -> None:
        self.collator = collator
        self.model = model
        self.count = 0

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        if self.model.training:
            self.count += sum(len(row["input_ids"]) for row in rows)
        return self.collator(rows)


def host_memory_bytes() -> int | None:
    """Resident memory of this process."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
