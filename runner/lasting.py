"""What a training needs to survive, for any trainer of transformers: whole checkpoints, and a stop at any point."""

import math
import shutil
from collections import deque
from pathlib import Path
from typing import Any

from transformers import Trainer

from runner import checkpoint
from runner.job import Attempt, disk_full, low_disk
from runner.progress import Diverged, LeaveEvaluation, Progress
from runner.randomness import random_state, restore
from spool.protocol.spec import JobSpec


class EndedEarly(BaseException):
    """The evaluation that a resumed training owed has ended it, before another step."""


def arguments(spec: JobSpec, attempt: Attempt, evaluates: bool) -> dict[str, Any]:
    """What every trainer is given of a resolved spec: transformers' TrainingArguments."""
    t = spec.train
    return {
        "output_dir": str(attempt.run.checkpoints),
        "per_device_train_batch_size": t.batch_size,
        "gradient_accumulation_steps": t.gradient_accumulation,
        "num_train_epochs": t.epochs,
        "max_steps": t.max_steps or -1,
        "learning_rate": t.learning_rate,
        "lr_scheduler_type": t.scheduler,
        "warmup_steps": min(t.warmup_ratio, math.nextafter(1, 0)),  # 1 would be one step
        "weight_decay": t.weight_decay,
        "optim": t.optimizer,
        "seed": t.seed,
        "logging_steps": t.logging_steps,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": spec.eval.every_steps if evaluates else None,
        "prediction_loss_only": True,
        "save_strategy": "steps",
        "save_steps": t.save_steps,
        "save_total_limit": None,
        "report_to": "none",
        "disable_tqdm": True,
    }


class Lasting(Trainer):
    """Comes before the trainer that computes. `keep` gives it its course and what its checkpoints are bound to."""

    def keep(self, progress: Progress, spec_hash: str) -> None:
        self.progress = progress
        self.course = progress.course
        self.spec_hash = spec_hash
        self.handed_out: deque[int] = deque()
        self.after_step = random_state()
        self.add_callback(progress)

    def get_train_dataloader(self) -> Any:
        """The loader is one batch ahead of the training, so tokens are queued here and counted when they are used."""
        collate = self.data_collator  # type: ignore[has-type]

        def counting(rows: list[dict[str, Any]]) -> Any:
            self.handed_out.append(sum(len(row["input_ids"]) for row in rows))
            return collate(rows)

        self.data_collator = counting
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collate

    def training_step(self, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        if self.course.owes_evaluation:
            self.evaluate()
            self.control.should_save = False  # the checkpoint of this step is the one that was resumed from
            if self.course.ended_early:
                raise EndedEarly
        loss = super().training_step(model, inputs, *more, **named)
        self.progress.step_tokens += self.handed_out.popleft()
        return loss

    def _maybe_log_save_evaluate(self, *values: Any, **named: Any) -> None:
        if self.progress.left_in_step:
            restore(self.after_step)  # what half a step has drawn will be drawn again
        super()._maybe_log_save_evaluate(*values, **named)
        if self.args.gradient_accumulation_steps > 1:
            self.after_step = random_state()

    def _evaluate(self, *values: Any, **named: Any) -> Any:
        before = random_state()
        try:
            return super()._evaluate(*values, **named)
        except LeaveEvaluation:
            restore(before)
            self.course.owes_evaluation = True
            self.control.should_save = self.control.should_training_stop = True
            return None

    def _save_checkpoint(self, *values: Any, **named: Any) -> None:
        """The library's save, then progress.json, the manifest, and only then the removal of older ones."""
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        limit_gb = self.progress.limits.min_free_gb
        low = low_disk(folder.parent, limit_gb) if folder.parent.is_dir() else None
        if low and shutil.disk_usage(folder.parent).free < 2 * _last_bytes(folder.parent):
            raise low
        try:
            super()._save_checkpoint(*values, **named)
            self.progress.count_time()
            self.course.write(folder)
            checkpoint.complete(folder, self.spec_hash)
        except Exception as error:
            full = checkpoint.is_disk_full(error, folder.parent)
            shutil.rmtree(folder, ignore_errors=True)  # what was half written gives its room back
            if full:
                raise disk_full(
                    folder.parent, limit_gb, f" for the checkpoint of step {self.state.global_step}"
                ) from None
            if isinstance(error, checkpoint.NotFinite):
                raise Diverged(f"the adapter holds numbers that are none at step {self.state.global_step}.") from None
            raise
        best = self.course.best
        checkpoint.rotate(folder.parent, spare=folder.with_name(f"checkpoint-{best[1]}") if best else None)
        self.progress.saved_step = self.state.global_step
        self.progress.attempt.stop.unsaved = False
        self.progress.attempt.events.write(event="checkpoint", step=self.state.global_step, phase="training")
        if low:
            raise low


def _last_bytes(folder: Path) -> int:
    """The size of the newest checkpoint, 0 where there is none."""
    folders = checkpoint.listed(folder)
    return sum(path.stat().st_size for path in folders[-1].rglob("*")) if folders else 0
