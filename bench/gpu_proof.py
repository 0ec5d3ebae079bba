"""Drives a real daemon on a GPU through dropped files: 4-bit and 16-bit, a cancel, a kill -9 with resume, a merge.

Run as: python -m bench.gpu_proof MODEL_FOLDER OUT.json [--steps 30]        (needs CUDA; not part of CI)

What must hold is asserted: the daemon's heart beats throughout, NVML's figures stand in every row, the card's memory
is back at its baseline between jobs, and the resumed job ends on the same losses as an undisturbed one.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from runner import launch
from spool.health import heartbeat
from spool.protocol import dropbox, durable, jobs, metrics
from spool.protocol.home import Home

ROOT = Path(__file__).resolve().parent.parent
GPU_FIELDS = ("gpu_util_pct", "gpu_mem_bytes", "gpu_power_w", "gpu_temp_c")


def card_memory_bytes() -> int:
    import pynvml

    pynvml.nvmlInit()
    return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used)


class Proof:
    def __init__(self, home: Home, model: Path, steps: int) -> None:
        self.home, self.model, self.steps = home, model, steps
        self.oldest_heartbeat_s = 0.0
        home.settings.write_text('{"warm": false}')
        self.daemon = subprocess.Popen([sys.executable, "-m", "runner.daemon", "--home", str(home.root)], cwd=ROOT)
        threading.Thread(target=self._watch, daemon=True).start()
        self.wait(lambda: heartbeat.read(home).alive, 20)
        self.baseline = card_memory_bytes()

    def _watch(self) -> None:
        while True:
            time.sleep(1)
            age = heartbeat.read(self.home).age_s
            if age is not None:
                self.oldest_heartbeat_s = max(self.oldest_heartbeat_s, age)

    def wait(self, condition: Any, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert self.daemon.poll() is None, "the daemon ended"
            assert time.monotonic() < end, f"not within {timeout_s} s"
            time.sleep(0.1)

    def drop(self, name: str, precision: str, **more: Any) -> str:
        train = {"max_steps": self.steps, "save_steps": 10, **more.pop("train", {})}
        spec = {"schema": 1, "name": name, "model": str(self.model), "dataset": "examples/support_tickets.jsonl"}
        return dropbox.submit(self.home, {**spec, "precision": precision, "train": train, **more})

    def ended(self, job_id: str, state: str, timeout_s: float = 400) -> dict[str, Any]:
        """What a finished job showed, after checking it."""
        self.wait(lambda: jobs.get_job(self.home, job_id).ended, timeout_s)
        job = jobs.get_job(self.home, job_id)
        if job.state != state:
            print(self.home.run(job_id).log.read_text()[-6000:])
        assert job.state == state, job
        rows = [row for row in metrics.read(self.home.run(job_id).metrics) if "loss" in row]
        assert rows
        assert all(field in row for row in rows for field in GPU_FIELDS), "NVML figures are missing"
        time.sleep(1.0)
        left = card_memory_bytes() - self.baseline
        assert left < 200e6, f"{left / 1e6:.0f} MB are left on the card"
        times = [row["step_time_s"] for row in rows[3:]]
        starts = jobs.attempt_files(self.home, job_id)
        first = durable.read_json(starts[0])
        return {
            "job": job.name,
            "state": job.state,
            "attempts": job.attempts,
            "outcomes": [durable.read_json(path)["outcome"] for path in starts],
            "first_loss": rows[0]["loss"],
            "last_loss": rows[-1]["loss"],
            "eval_loss": (job.result or {}).get("eval_loss"),
            "steps": rows[-1]["step"],
            "median_step_s": statistics.median(times) if times else None,
            "start_to_first_row_s": round(rows[0]["t"] - _epoch(first["started_at"]), 1),
            "seconds": (job.result or {}).get("seconds"),
            "peak_gpu_mem_gb": round(((job.result or {}).get("peak_gpu_mem_bytes") or 0) / 1e9, 2),
            "max_power_w": max(row["gpu_power_w"] for row in rows),
            "max_util_pct": max(row["gpu_util_pct"] for row in rows),
            "max_temp_c": max(row["gpu_temp_c"] for row in rows),
            "spec": durable.read_json(self.home.run(job_id).spec)["train"],
        }


def _epoch(iso: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(iso).timestamp()


def bare_losses(proof: Proof, job_id: str) -> list[float]:
    """The losses of the plain Unsloth script with the settings of a finished job."""
    spec = durable.read_json(proof.home.run(job_id).spec)
    train = spec["train"]
    output = proof.home.root / "bare"
    output.mkdir()
    config = {
        "model": str(proof.home.models / proof.model),
        "dataset": spec["dataset"],
        "output": str(output),
        "seed": train["seed"],
        "max_length": spec["data"]["max_length"],
        "load_in_4bit": spec["precision"] == "4bit",
        "gradient_checkpointing": "unsloth" if train["gradient_checkpointing"] else False,
        "arguments": {
            "per_device_train_batch_size": train["batch_size"],
            "gradient_accumulation_steps": train["gradient_accumulation"],
            "max_steps": train["max_steps"],
            "learning_rate": train["learning_rate"],
            "lr_scheduler_type": train["scheduler"],
            "warmup_steps": train["warmup_ratio"],
            "weight_decay": train["weight_decay"],
            "optim": train["optimizer"],
        },
    }
    (output / "config.json").write_text(json.dumps(config))
    environment = {**os.environ, **launch.environment(proof.home)}
    command = [sys.executable, "tests/bare_unsloth.py", str(output / "config.json")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return [float(loss) for loss in json.loads((output / "curve.json").read_text())["losses"]]


def losses(home: Home, job_id: str) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in metrics.read(home.run(job_id).metrics) if "loss" in row}


def run(proof: Proof, found: dict[str, Any]) -> None:
    home = proof.home
    straight = proof.drop("4bit", "4bit", export=["adapter", "merged"])
    found["4bit"] = proof.ended(straight, "done")

    killed = proof.drop("killed with -9 and resumed", "4bit")
    proof.wait(lambda: jobs.get_job(home, killed).progress["step"] >= 12, 300)
    child = Path(f"/proc/{proof.daemon.pid}/task/{proof.daemon.pid}/children").read_text().split()[0]
    os.kill(int(child), signal.SIGKILL)
    found["resumed"] = proof.ended(killed, "done")
    assert found["resumed"]["outcomes"] == ["interrupted", "finished"]
    undisturbed, resumed = losses(home, straight), losses(home, killed)
    apart = {step: abs(undisturbed[step] - resumed[step]) for step in undisturbed}
    found["resumed"]["largest_loss_difference_to_undisturbed"] = max(apart.values())

    sixteen = proof.drop("16bit", "16bit", data={"eval_fraction": 0})
    found["16bit"] = proof.ended(sixteen, "done")

    cancelled = proof.drop("cancelled while it trains", "16bit", train={"max_steps": 100_000})
    proof.wait(lambda: jobs.get_job(home, cancelled).progress["step"] >= 5, 300)
    dropbox.cancel(home, cancelled)
    began = time.monotonic()
    proof.wait(lambda: jobs.get_job(home, cancelled).ended, 60)
    took = time.monotonic() - began
    found["cancelled"] = {**proof.ended(cancelled, "cancelled"), "cancel_took_s": round(took, 1)}

    plain = bare_losses(proof, sixteen)
    ours = list(losses(home, sixteen).values())
    found["16bit_against_plain_unsloth"] = {
        "steps": [len(ours), len(plain)],
        "largest_loss_difference": max(abs(a - b) for a, b in zip(ours, plain, strict=True)),
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    home = Home(Path(tempfile.mkdtemp(prefix="proof-"))).create()
    shutil.copytree(arguments.model, home.models / arguments.model.name)
    proof = Proof(home, Path(arguments.model.name), arguments.steps)
    found: dict[str, Any] = {}
    try:
        run(proof, found)
    finally:
        import torch

        packages = ("torch", "transformers", "peft", "trl", "unsloth", "unsloth_zoo", "bitsandbytes", "triton")
        found |= {
            "command": "python -m bench.gpu_proof " + " ".join(sys.argv[1:]),
            "date": time.strftime("%Y-%m-%d"),
            "device": torch.cuda.get_device_name(),
            "versions": {name: metadata.version(name) for name in packages} | {"python": platform.python_version()},
            "daemon_alive": proof.daemon.poll() is None,
            "oldest_heartbeat_s": round(proof.oldest_heartbeat_s, 1),
        }
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")
        proof.daemon.send_signal(signal.SIGTERM)
        found["daemon_exit"] = proof.daemon.wait(60)
        for log in home.runs.glob("*/train.log"):
            shutil.copyfile(log, arguments.out.parent / f"{log.parent.name}.log")
    assert found["daemon_alive"]
    assert found["oldest_heartbeat_s"] < 10
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
