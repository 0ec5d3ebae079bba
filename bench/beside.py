"""What a training loses to the check of the next jobs' data, which goes on beside it: steps with and without, in pairs.

Run as: python -m bench.beside [--model FOLDER] [--pairs 3] [--rows 300000]   (goal: at most 2 % longer steps)

One runner, one training at a time. In every second one, jobs with data of their own are dropped as soon as it trains:
they are read, judged, tokenised and kept while it goes on, and are cancelled at its end.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.start import until
from spool.protocol import dropbox, jobs, metrics
from spool.protocol.home import Home

ROOT = Path(__file__).resolve().parent.parent
FIRST = 5
"""Steps that are not counted."""


def data(folder: Path, rows: int, number: int) -> Path:
    """Rows that no job has seen before: nothing of them is in a cache."""
    path = folder / f"other-{number}.jsonl"
    with open(path, "w") as file:
        for i in range(rows):
            question = f"Question {number}.{i}: where is the parcel of order {i * 7919 % 100_003}?"
            answer = f"It left on day {i % 28 + 1} and arrives after {i % 9 + 1} days, as order {i} did."
            file.write(json.dumps({"question": question, "answer": answer}) + "\n")
    return path


def steps_s(home: Home, spec: dict[str, Any], others: list[dict[str, Any]]) -> list[float]:
    """Seconds of each step of a job, which is done when this returns."""
    job_id = dropbox.submit(home, spec)
    until(lambda: metrics.last(home.run(job_id).metrics))
    beside = [dropbox.submit(home, other) for other in others]
    until(lambda: jobs.get_job(home, job_id).ended)
    assert jobs.get_job(home, job_id).state == "done", jobs.get_job(home, job_id).error
    if beside:
        busy = [jobs.get_job(home, each).state for each in beside]
        assert "checking" in busy, f"the check was over before the training: {busy}"
    for each in beside:
        dropbox.control(home, "cancel", each)
    until(lambda: all(jobs.get_job(home, each).ended for each in beside))
    return [row["step_time_s"] for row in metrics.read(home.run(job_id).metrics) if "loss" in row][FIRST:]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=ROOT / "data" / "models" / "gemma-3-270m")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rows", type=int, default=300_000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="beside-"))
    home = Home(folder / "home").create()
    home.settings.write_text(json.dumps({"warm": False, "report_s": 0}))
    (home.models / "base").symlink_to(arguments.model.resolve())
    spec: dict[str, Any] = {"schema": 1, "model": "base", "dataset": "examples/support_tickets.jsonl"}
    train = {"max_steps": arguments.steps, "logging_steps": 1}
    mine = {**spec, "train": train, "data": {"eval_fraction": 0}, "eval": {"sample_prompts": []}}
    with open(home.runner_log, "ab") as log:
        command = [sys.executable, "-m", "runner.daemon", "--home", str(home.root)]
        daemon = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    found: dict[str, list[float]] = {"alone": [], "beside": []}
    try:
        for pair in range(arguments.pairs):
            for name in ("alone", "beside"):
                count = 2 if name == "beside" else 0
                others = [{**spec, "dataset": str(data(folder, arguments.rows, 10 * pair + i))} for i in range(count)]
                took = steps_s(home, mine, others)
                found[name].append(statistics.median(took))
                print(name, f"median step {found[name][-1]:.4f} s of {len(took)}", flush=True)
    finally:
        daemon.terminate()
        daemon.wait()
    ratios = [beside / alone for alone, beside in zip(found["alone"], found["beside"], strict=True)]
    print(f"{arguments.model.name}, {os.cpu_count()} cores; {arguments.rows:,} rows a job are checked beside it")
    print(f"ratio of the median steps, pair by pair: {', '.join(f'{each:.3f}' for each in ratios)}")
    print(f"median {statistics.median(ratios):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
