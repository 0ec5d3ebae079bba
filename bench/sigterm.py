"""Stops a real runner in every phase of real jobs and looks at what becomes of them.

Run as: python -m bench.sigterm [--stops 50] [--model FOLDER] [--seed 1]        (goal: each within 60 s, all resumable)

Each stop is SIGTERM to the runner, as systemd sends it. For each: the phase, the seconds until runner and training are
gone, whether the job is queued again as interrupted with every checkpoint whole. At the end each job must have the
adapter and the curves of a job that nothing disturbed, bit for bit.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner import checkpoint
from spool.protocol import dropbox, durable, jobs, metrics
from spool.protocol.home import Home

ROOT = Path(__file__).resolve().parent.parent
PHASES = ("load", "tokenise", "first step", "mid-step", "eval", "save", "export")
SPEC: dict[str, Any] = {
    "schema": 1,
    "dataset": "examples/support_tickets.jsonl",
    "train": {"max_steps": 9, "save_steps": 4, "effective_batch": 4, "batch_size": 2},
    "data": {"eval_fraction": 0.03},
    "eval": {"every_steps": 3},
    "export": ["adapter", "merged"],
    "limits": {"min_free_gb": 0},
}
STEPS = SPEC["train"]["max_steps"]


def begun(home: Home, job_id: str, phase: str) -> bool:
    """Whether the attempt that runs now has reached a phase: from what it wrote, as anybody outside can see it."""
    run = home.run(job_id)
    number = len(jobs.attempt_files(home, job_id))
    events = [row for row in metrics.read(run.events) if row["attempt"] == number]
    phases = [str(row.get("phase", "")) for row in events if row.get("event") == "phase"]
    rows = [row for row in metrics.read(run.metrics) if row["attempt"] == number]
    step = max((row["step"] for row in rows), default=0)
    if phase == "load":
        return "loading the libraries" in phases
    if phase == "first step":
        return any(each.startswith("training") for each in phases)
    if phase == "export":
        return any(each.startswith(("saving", "merging")) for each in phases)
    if phase == "eval":
        return bool(rows) and rows[-1]["step"] % SPEC["eval"]["every_steps"] == 0 and "loss" in rows[-1]
    if phase == "save":
        return any(not (each / checkpoint.MANIFEST).exists() for each in checkpoint.listed(run.checkpoints))
    return 0 < step < STEPS


def over(home: Home, job_id: str) -> bool:
    return jobs.get_job(home, job_id).ended


def stop_in(
    home: Home, stop: Callable[[], int], job_id: str, phase: str, timeout_s: float = 300, delay_s: float = 0
) -> dict[str, Any]:
    """Waits for a phase of the job, stops the runner, and tells how it went.

    Raises:
        TimeoutError: the phase never came; the job may have ended before.
    """
    end = time.monotonic() + timeout_s
    state = "checking" if phase == "tokenise" else "running"
    while jobs.get_job(home, job_id).state != state or not (phase == "tokenise" or begun(home, job_id, phase)):
        if time.monotonic() > end or over(home, job_id):
            raise TimeoutError(f"{job_id} is {jobs.get_job(home, job_id).state} and was never seen in {phase!r}")
        time.sleep(0.002)
    time.sleep(delay_s)
    began = time.monotonic()
    code = stop()
    exit_s = time.monotonic() - began
    files = jobs.attempt_files(home, job_id)
    record = durable.read_json(files[-1]) if files else {}
    whole = all((each / checkpoint.MANIFEST).exists() for each in checkpoint.listed(home.run(job_id).checkpoints))
    state = jobs.get_job(home, job_id).state
    return {
        "phase": phase,
        "exit_s": round(exit_s, 2),
        "code": code,
        "outcome": record.get("outcome"),
        "checkpoint_step": record.get("checkpoint_step"),
        "whole": whole,
        "resumable": code == 0
        and (state == "queued" and record["outcome"] == "interrupted" if files else state in ("checking", "queued")),
    }


def learned(home: Home, job_id: str) -> tuple[bytes, dict[Any, Any]]:
    """The adapter's bytes and the curves."""
    run = home.run(job_id)
    rows = metrics.one_line(metrics.read(run.metrics))
    curves = {(row["step"], "eval_loss" in row): row.get("loss", row.get("eval_loss")) for row in rows}
    return (run.exports / "adapter" / "adapter_model.safetensors").read_bytes(), curves


class Daemon:
    """A runner that can be stopped and started again."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.start()

    def start(self) -> None:
        self.home.runner_json.unlink(missing_ok=True)
        with open(self.home.runner_log, "ab") as log:
            command = [sys.executable, "-m", "runner.daemon", "--home", str(self.home.root)]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        while not self.home.runner_json.exists():
            assert self.process.poll() is None, self.home.runner_log.read_text()[-2000:]
            time.sleep(0.01)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(180)


def bench(home: Home, model: str, stops: int, seed: int) -> bool:
    """Prints a line a stop and a summary; True where every stop was resumable and every job ended right."""
    rng = random.Random(seed)
    daemon = Daemon(home)
    spec = {**SPEC, "model": model}
    straight = dropbox.submit(home, spec)
    while not over(home, straight):
        time.sleep(0.05)
    assert jobs.get_job(home, straight).state == "done", jobs.get_job(home, straight).error
    seen: list[dict[str, Any]] = []
    ended: list[str] = []
    order = [PHASES[n % len(PHASES)] for n in range(stops)]
    rng.shuffle(order)
    job_id = dropbox.submit(home, spec)
    for phase in order:
        while True:  # a job that was already past the phase ends, and the next one is stopped there
            if phase == "tokenise":
                ended.append(job_id)
                job_id = dropbox.submit(home, spec)
            try:
                one = stop_in(
                    home, daemon.stop, job_id, phase, delay_s=0 if phase == "tokenise" else rng.random() * 0.5
                )
                if one["outcome"] != "finished":
                    break
                daemon.start()  # the job was done before the signal came: that was no stop of it
            except TimeoutError:
                pass
            ended.append(job_id)
            job_id = dropbox.submit(home, spec)
        seen.append(one)
        print(json.dumps({"stop": len(seen), **one}), flush=True)
        daemon.start()
        if over(home, job_id):
            ended.append(job_id)
            job_id = dropbox.submit(home, spec)
    disturbed = list(dict.fromkeys([*ended, job_id]))
    while not all(over(home, each) for each in disturbed):
        time.sleep(0.05)
    daemon.stop()
    right = [learned(home, each) == learned(home, straight) for each in disturbed]
    resumable = sum(each["resumable"] for each in seen)
    times = sorted(each["exit_s"] for each in seen)
    print(f"\n{resumable} of {len(seen)} stops resumable; {sum(right)} of {len(right)} jobs ended bit for bit right")
    print(f"seconds until all was gone: median {times[len(times) // 2]}, longest {times[-1]}")
    for phase in PHASES:
        some = [each["exit_s"] for each in seen if each["phase"] == phase]
        print(f"  {phase:<10} {len(some):3d} stops, longest {max(some, default=0):5.2f} s")
    return resumable == len(seen) and all(right)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sigterm")
    parser.add_argument("--stops", type=int, default=50)
    parser.add_argument("--model", type=Path, default=ROOT / "data" / "models" / "gemma-3-270m")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home.at(folder).create()
        home.settings.write_text('{"warm": false}')
        os.symlink(arguments.model.resolve(), home.models / "base")
        print(f"model {arguments.model.name}, {arguments.stops} stops, seed {arguments.seed}, {os.cpu_count()} cores")
        return 0 if bench(home, "base", arguments.stops, arguments.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
