"""The steps of finished jobs once more in a bare loop: the same plan, model, rows and order, and nothing around it.

Run as: python -m bench.bare OUT.json RUN_FOLDER ...        (runs/ID of trainings whose rows were packed)

No daemon, callbacks, metrics, checkpoints or signs of life; each loss is read, as a script that prints it would. The
losses are compared, so that it is seen that the same was computed. For bench/gpu_plan.py.
"""

import gc
import itertools
import json
import math
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer, get_scheduler, set_seed

from runner import bases
from runner.packed import engine
from spool.forecast import costs, shapes
from spool.protocol import durable, metrics
from spool.protocol.home import Home, Run
from spool.protocol.spec import load


def ends(run: Run) -> tuple[list[float], list[float]]:
    """(the time at which each step ended, its loss) in a bare loop."""
    spec: Any = load(durable.read_json(run.spec))
    result = durable.read_json(run.result)["result"]
    home = Home.at(run.root.parent.parent)
    base = bases.at(spec.model, home.models / spec.model, None)
    shape = shapes.of(home, spec.model, base.folder)
    assert shape
    recorded = costs.RECORDED_BYTES / costs.packed_token_bytes(shape)
    room = (result["measured"] or {}).get("room_tokens") or math.inf  # what the job's probe came to
    set_seed(spec.train.seed)
    model = engine.load(spec, base)
    train: Any = Dataset.from_file(str(run.root / "data" / "train.arrow")).select_columns(["input_ids", "labels"])
    attempt: Any = SimpleNamespace(run=run, note=print)
    made = engine.trainer(spec, attempt, model, train, None, room, recorded)
    step, parameters = made.step, [each for each in model.parameters() if each.requires_grad]
    total = result["steps"]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=spec.train.learning_rate,
        weight_decay=spec.train.weight_decay,
        fused=model.device.type == "cuda",
    )
    schedule = get_scheduler(spec.train.scheduler, optimizer, made.args.get_warmup_steps(total), total)
    times, losses = [], []
    model.train()
    batches = iter(Trainer.get_train_dataloader(made))  # not our own one's, which counts
    for _ in range(total):
        rows = next(batches)["rows"]
        step.forget()
        loss = step.learn(rows, rows.trained_tokens)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        times.append(time.time())
    return times, losses


def cleared() -> None:
    """Gives back what the run before held of the card."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def compared(run: Run) -> dict[str, Any]:
    """Step k of the job beside step k of the bare loop, in the second half: by then each length has been recorded."""
    told = [row for row in metrics.read(run.metrics) if "loss" in row]
    cleared()
    times, losses = ends(run)
    half = len(told) // 2
    job, bare = ([b - a for a, b in itertools.pairwise(times)][half:] for times in ([row["t"] for row in told], times))
    return {
        "steps": len(job),
        "job_median_step_s": round(statistics.median(job), 5),
        "bare_median_step_s": round(statistics.median(bare), 5),
        "median_of_paired_ratios": round(statistics.median(j / b for j, b in zip(job, bare, strict=True)), 4),
        "ratio_of_sums": round(sum(job) / sum(bare), 4),
        "largest_loss_difference": max(abs(row["loss"] - loss) for row, loss in zip(told, losses, strict=True)),
    }


def main() -> int:
    out, *folders = map(Path, sys.argv[1:])
    out.write_text(json.dumps([compared(Run(folder)) for folder in folders]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
