"""What the runner costs: the median step time of a job against the same plain Unsloth script, paired in one run.

Run as: python -m bench.runner_cost [--model gemma-3-270m] [--steps 16] [--pairs 2]        (goal: ratio at most 1.02)

The steps are timed in the same way on both sides: from the end of one to the end of the next. Both see the same
rows in the same order, so step k is compared with step k; the ratio is the median over all pairs of steps.
"""

import argparse
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from spool.health import heartbeat
from spool.protocol import dropbox, durable, jobs, metrics
from spool.protocol.home import Home

ROOT = Path(__file__).resolve().parent.parent
ROWS = 160


def job_steps(home: Home, spec: dict[str, object]) -> list[float]:
    job_id = dropbox.submit(home, spec)
    while not (job := jobs.get_job(home, job_id)).ended:
        time.sleep(0.2)
    assert job.state == "done", job.error
    times = [row["t"] for row in metrics.read(home.run(job_id).metrics) if "loss" in row]
    return [b - a for a, b in itertools.pairwise(times)]


def bare_steps(folder: Path, spec: dict[str, object], model: Path, steps: int) -> list[float]:
    output = Path(tempfile.mkdtemp(dir=folder))
    config = {
        "model": str(model),
        "dataset": spec["dataset"],
        "output": str(output),
        "seed": 42,
        "max_length": 160,
        "load_in_4bit": False,
        "gradient_checkpointing": False,
        "arguments": {
            "per_device_train_batch_size": 8,
            "max_steps": steps,
            "learning_rate": 5e-4,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.03,
            "weight_decay": 0.01,
        },
    }
    (output / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "tests/bare_unsloth.py", str(output / "config.json")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    times = json.loads((output / "curve.json").read_text())["times"]
    return [b - a for a, b in itertools.pairwise(times)]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=str(ROOT / "data" / "models" / "gemma-3-270m"))
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=2)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="runner-cost-"))
    home = Home(folder / "home").create()
    home.settings.write_text('{"warm": false}')
    rows = folder / "rows.jsonl"
    lines = (ROOT / "examples" / "support_tickets.jsonl").read_text().splitlines()[:ROWS]
    rows.write_text("\n".join(lines) + "\n")
    train = {"max_steps": arguments.steps, "learning_rate": 5e-4, "batch_size": 8}
    data = {"max_length": 160, "eval_fraction": 0}
    spec: dict[str, object] = {"schema": 1, "model": "base", "dataset": str(rows), "precision": "16bit"}
    spec |= {"train": train, "data": data}
    (home.models / "base").symlink_to(arguments.model)
    daemon = subprocess.Popen([sys.executable, "-m", "runner.daemon", "--home", str(home.root)], cwd=ROOT)
    ratios, ours, plain = [], [], []
    try:
        while not heartbeat.read(home).alive:
            time.sleep(0.1)
        for pair in range(arguments.pairs):
            sides = [
                lambda: bare_steps(folder, spec, Path(arguments.model), arguments.steps),
                lambda: job_steps(home, spec),
            ]
            first, second = (sides[i]() for i in ((0, 1) if pair % 2 == 0 else (1, 0)))
            bare, job = (first, second) if pair % 2 == 0 else (second, first)
            ratios += [j / b for j, b in zip(job[1:], bare[1:], strict=True)]
            ours, plain = ours + job[1:], plain + bare[1:]
            print(
                f"pair {pair + 1}: job {statistics.median(job):.3f} s, bare {statistics.median(bare):.3f} s", flush=True
            )
    finally:
        daemon.terminate()
        daemon.wait()
        durable.write_json(folder / "steps.json", {"job": ours, "bare": plain})
    print(f"median step: job {statistics.median(ours):.3f} s, bare script {statistics.median(plain):.3f} s")
    medians = statistics.median(ours) / statistics.median(plain)
    print(f"ratio of medians {medians:.3f}, median of paired ratios {statistics.median(ratios):.3f}   (goal 1.02)")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
