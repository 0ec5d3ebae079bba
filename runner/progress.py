"""What happens between two steps of training: metrics, signs of life, limits, and stopping when asked."""

import math
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from runner.course import Course
from runner.job import Attempt, Stopped, host_memory_bytes, low_disk
from spool.health.gpu import Gpu
from spool.protocol.errors import FinetunerError
from spool.protocol.training import Limits

LOOK_AT_DISK_S = 60
LOOK_AT_CARD_S = 0.25
"""A step may be shorter than what NVML takes to answer: rows in between have what it said last."""


class Diverged(FinetunerError):
    default_code = "diverged"

    def __init__(self, words: str) -> None:
        hint = "Retry with a lower learning rate (a third of it); the last checkpoint is kept."
        super().__init__(words, hint)


class LeaveEvaluation(BaseException):
    """Raised inside an evaluation when a stop was asked for; `runner.trainer` catches it and makes a checkpoint."""


class Progress(TrainerCallback):
    """One callback for everything, so that its order is the order of this file.

    A stop is looked for after each step, each part of an accumulated step and each batch of an evaluation.
    """

    def __init__(self, attempt: Attempt, limits: Limits, course: Course) -> None:
        self.attempt = attempt
        self.limits = limits
        self.course = course
        self.gpu = Gpu()
        self.card: dict[str, Any] = {}
        self.looked_at_card = -LOOK_AT_CARD_S
        self.step_started = self.looked_at_disk = self.marked = time.perf_counter()
        self.saved_step = 0
        self.step_tokens = 0
        self.left_in_step = False
        self.logged_tokens = course.tokens
        self.logged_at = self.marked

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.saved_step = state.global_step
        self.marked = self.logged_at = time.perf_counter()

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.attempt.pulse()
        self.step_started = time.perf_counter()
        self.step_tokens = 0

    def on_substep_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.attempt.pulse()
        if self._stop_asked():
            self.left_in_step = control.should_training_stop = True
            control.should_save = state.global_step > self.saved_step

    def on_prediction_step(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.attempt.pulse()
        if self._stop_asked():
            raise LeaveEvaluation

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.attempt.stop.unsaved = True
        self.attempt.pulse()
        took, course = time.perf_counter() - self.step_started, self.course
        course.step_s = took if course.step_s is None else 0.8 * course.step_s + 0.2 * took
        course.tokens += self.step_tokens
        self.count_time()
        if self._stop_asked():
            course.owes_evaluation = control.should_evaluate
            control.should_evaluate = False
            control.should_save = control.should_training_stop = True
            return
        hours = self.limits.max_hours
        if hours and course.trained_s >= hours * 3600 and state.global_step < state.max_steps:
            control.should_evaluate = args.eval_strategy != "no"
            self._end_early(control, f"the limit of {hours:g} hours is reached")
        if time.perf_counter() - self.looked_at_disk >= LOOK_AT_DISK_S:
            self.looked_at_disk = time.perf_counter()
            if low_disk(self.attempt.run.root, self.limits.min_free_gb):
                control.should_save = True  # which ends the job, after a last checkpoint where there is room for it

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if "loss" not in logs:
            return
        now, counted = time.perf_counter(), self.course.tokens
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
            **self._look_at_card(now),
        )
        self.logged_tokens, self.logged_at = counted, now
        if not math.isfinite(loss) or (norm is not None and not math.isfinite(float(norm))):
            raise Diverged(f"the loss is no number any more at step {state.global_step}.")
        factor, divergence = self.limits.divergence_factor, self.course.divergence
        if factor and divergence.add(loss, factor):
            raise Diverged(
                f"the loss has risen from {divergence.best:.2f} to {divergence.smoothed:.2f} "
                f"(over {divergence.SPAN} steps) and stays there, at step {state.global_step}."
            )

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, Any], **_: Any
    ) -> None:
        loss = float(metrics["eval_loss"])
        self._row(state, eval_loss=loss)
        self.logged_at = time.perf_counter()  # the time of an evaluation is not training time
        if self.course.evaluated(loss, state.global_step, self.limits.early_stopping):
            control.should_save = True
        elif self.course.ended_early:
            self._end_early(control, self.course.ended_early)

    def count_time(self) -> None:
        """Adds what has passed since the last call to the time trained."""
        now = time.perf_counter()
        self.course.trained_s += now - self.marked
        self.marked = now

    def pass_over(self, seconds: float) -> None:
        """Time that was spent on something else than training."""
        self.marked += seconds
        self.logged_at += seconds

    def _look_at_card(self, now: float) -> dict[str, Any]:
        if now - self.looked_at_card >= LOOK_AT_CARD_S:
            self.looked_at_card, self.card = now, self.gpu.sample()
        return self.card

    def _stop_asked(self) -> bool:
        """True where a checkpoint is to be made and the attempt to end; a cancelled job needs none."""
        if self.attempt.stop.requested and self.attempt.stop.cancelled:
            raise Stopped
        return self.attempt.stop.requested

    def _end_early(self, control: TrainerControl, why: str) -> None:
        self.course.ended_early = why
        control.should_save = control.should_training_stop = True
        self.attempt.events.write(event="ended_early", why=why, phase="training")

    def _row(self, state: TrainerState, **values: Any) -> None:
        left, step_s = max(0, state.max_steps - state.global_step), self.course.step_s
        self.attempt.metrics.write(
            step=state.global_step,
            total_steps=state.max_steps,
            epoch=round(state.epoch or 0.0, 4),
            **{name: value for name, value in values.items() if value is not None},
            eta_s=round(left * step_s, 1) if step_s is not None else None,
        )
