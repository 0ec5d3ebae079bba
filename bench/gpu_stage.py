"""Data homes with a daemon of their own that share one GPU, seen from outside: what bench/gpu_faults.py breaks."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from spool.health import processes
from spool.health.gpu import Gpu
from spool.protocol import dropbox, durable, jobs, metrics
from spool.protocol.home import Home

ROOT = Path(__file__).resolve().parent.parent
Found = dict[str, Any]
LARGEST_DIFFERENCE = 1e-3
"""Of two losses that count as the same. A resume without the optimizer's state goes 0.04 astray."""
SHARED_GB = 1000
"""gpu_foreign_gb where daemons share the card: each of them is foreign to the others."""


class Stage:
    """What the parts share: folders, caches, the job, the undisturbed losses, and who waits for whom."""

    def __init__(self, root: Path, model: Path, out: Path, steps: int, compile_s: float, share: float) -> None:
        self.root, self.model, self.out = root, model.resolve(), out
        self.steps, self.compile_s, self.share = steps, compile_s, share
        self.found: Found = json.loads(out.read_text()) if out.exists() else {"parts": {}}
        self.lanes: list[Lane] = []
        self.events = {name: threading.Event() for name in ("card", "reference", "warm", "broken", "control")}
        self.write = threading.Lock()
        self.ending = threading.Event()
        self.card = Gpu().describe()
        self.baseline_bytes = self.unaccounted_bytes()
        threading.Thread(target=self._watch, daemon=True).start()

    def unaccounted_bytes(self) -> int:
        """What the card has in use beyond what its processes are known to hold."""
        if not self.card:
            return 0
        seen = Gpu().ask()
        return int(seen["mem_used_bytes"]) - sum(each["mem_bytes"] or 0 for each in seen["processes"])

    def wait_for(self, *events: str) -> None:
        for event in events:
            assert self.events[event].wait(900), f"{event!r} never came"

    def caches(self, folder: Path) -> dict[str, str]:
        return {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TRITON_CACHE_DIR": str(folder / "triton")}

    def same(self, lane: "Lane", job_id: str, limit: float = LARGEST_DIFFERENCE) -> Found:
        """How far a job is from the undisturbed one."""
        self.wait_for("reference")
        straight = json.loads((self.root / "reference.json").read_text())
        here = lane.losses(job_id)
        assert list(here) == list(straight["losses"]), "other steps than those of the undisturbed job"
        apart = max(abs(here[step] - loss) for step, loss in straight["losses"].items())
        assert apart <= limit, f"the losses are {apart} apart"
        return {
            "largest_loss_difference": apart,
            "adapter_is_the_same_bytes": lane.adapter_sha256(job_id) == straight["adapter_sha256"],
        }

    def keep(self, part: str, found: Found) -> None:
        with self.write:
            self.found["parts"][part] = found
            self.out.write_text(json.dumps(self.found, indent=2) + "\n")
        print(time.strftime("%H:%M:%S"), part, json.dumps(found), flush=True)

    def _watch(self) -> None:
        """The oracle outside: how many trainers each home has, and how long one that works shows no sign of life."""
        while not self.ending.wait(0.2):
            for lane in list(self.lanes):
                with contextlib.suppress(OSError):  # a process or a file that has gone meanwhile
                    lane.look()


class Lane:
    """A data home with a daemon of its own."""

    def __init__(self, stage: Stage, name: str, copy_of: Path | None = None, foreign_gb: float = SHARED_GB) -> None:
        self.stage = stage
        self.part = threading.get_ident()
        self.home = Home.at(stage.root / name)
        shutil.rmtree(self.home.root, ignore_errors=True)
        if copy_of:
            shutil.copytree(copy_of, self.home.root, symlinks=True)
        else:
            self.home.create()
            os.symlink(stage.model, self.home.models / "base")
        self.settings(foreign_gb)
        self.daemon: subprocess.Popen[bytes] | None = None
        self.most_trainers = 0
        self.longest_silence_s = 0.0
        stage.lanes.append(self)

    def settings(self, foreign_gb: float) -> None:
        durable.write_json(self.home.settings, {"gpu_foreign_gb": foreign_gb, "warm": False})

    def start(self, **variables: str) -> float:
        """Starts the daemon; gives the seconds until it had written its first sign of life."""
        began = time.monotonic()
        self.home.runner_json.unlink(missing_ok=True)
        environment = {
            **os.environ,
            **self.stage.caches(self.stage.root / "caches"),
            "HF_HUB_OFFLINE": "1",
            **variables,
        }
        command = [sys.executable, "-m", "runner.daemon", "--home", str(self.home.root)]
        with open(self.home.runner_log, "ab") as log:
            self.daemon = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.wait(self.home.runner_json.exists, 30, "the daemon's first sign of life")
        return round(time.monotonic() - began, 2)

    def stop(self) -> float:
        """SIGTERM, as systemd sends it; gives the seconds until the daemon and its training are gone."""
        assert self.daemon
        began = time.monotonic()
        self.daemon.send_signal(signal.SIGTERM)
        code, self.daemon = self.daemon.wait(150), None
        assert code == 0, f"the daemon ended with {code}"
        assert not self.trainers(), "the training outlived its daemon"
        return round(time.monotonic() - began, 2)

    def kill(self) -> None:
        assert self.daemon
        self.daemon.kill()
        self.daemon.wait()
        self.daemon = None

    def close(self) -> None:
        """Leaves nothing behind, however the part ended."""
        for pid in self.trainers():
            os.killpg(pid, signal.SIGKILL)
        if self.daemon:
            self.kill()
        for pid in self.trainers():
            os.killpg(pid, signal.SIGKILL)

    def drop(self, **more: Any) -> str:
        steps = self.stage.steps
        train = {"max_steps": steps, "save_steps": steps // 4, "effective_batch": 8, **more.pop("train", {})}
        spec = {"schema": 1, "model": "base", "dataset": "examples/support_tickets.jsonl", "precision": "4bit"}
        more["data"] = {"eval_fraction": 0, **more.pop("data", {})}
        return dropbox.submit(self.home, {**spec, "train": train, **more})

    def wait(self, condition: Callable[[], Any], timeout_s: float, what: str) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert self.daemon is None or self.daemon.poll() is None, f"the daemon ended: {self.last_words()}"
            assert time.monotonic() < end, f"{what}: not within {timeout_s:g} s; {self.last_words()}"
            time.sleep(0.03)

    def last_words(self) -> str:
        logs = sorted(self.home.runs.glob("*/train.log"))
        return "".join(path.read_text(errors="replace")[-1500:] for path in [self.home.runner_log, *logs[-1:]])

    def reaches(self, job_id: str, step: int, timeout_s: float = 400) -> None:
        self.wait(lambda: self.step(job_id) >= step, timeout_s, f"step {step}")

    def trains(self, job_id: str, attempt: int = 1) -> None:
        """Waits until the libraries and the model are loaded: the first steps come next, and with them compiling."""
        self.wait(lambda: "training" in self.phases(job_id, attempt), 300, "the training")

    def ended(self, job_id: str, state: str = "done", timeout_s: float = 500) -> jobs.Job:
        self.wait(lambda: jobs.get_job(self.home, job_id).ended, timeout_s, f"the end of the job ({state})")
        job = jobs.get_job(self.home, job_id)
        assert job.state == state, f"{job.error}; {self.last_words()}"
        assert self.most_trainers == 1, f"{self.most_trainers} trainers lived at once"
        return job

    def attempts(self, job_id: str) -> list[Found]:
        return [durable.read_json(path) for path in jobs.attempt_files(self.home, job_id)]

    def outcomes(self, job_id: str) -> list[str | None]:
        return [each["outcome"] for each in self.attempts(job_id)]

    def phases(self, job_id: str, attempt: int) -> dict[str, float]:
        """The time at which each phase of an attempt began."""
        events = metrics.read(self.home.run(job_id).events)
        mine = [row for row in events if row["attempt"] == attempt and row.get("event") == "phase"]
        return {row["phase"].partition(",")[0]: row["t"] for row in mine}

    def losses(self, job_id: str) -> dict[str, float]:
        rows = metrics.one_line(metrics.read(self.home.run(job_id).metrics))
        return {str(row["step"]): row["loss"] for row in rows if "loss" in row}

    def adapter_sha256(self, job_id: str) -> str:
        adapter = self.home.run(job_id).exports / "adapter" / "adapter_model.safetensors"
        return hashlib.sha256(adapter.read_bytes()).hexdigest()

    def trainers(self) -> list[int]:
        """What trains for this home: leaders of a session, so that what they have forked does not count."""
        return [pid for pid in processes.all_pids() if self._is_trainer(pid)]

    def look(self) -> None:
        alive = self.trainers()
        self.most_trainers = max(self.most_trainers, len(alive))
        for run in map(self.home.run, os.listdir(self.home.runs) if alive else []):
            signs = [path.stat().st_mtime for path in (run.pulse, run.metrics, run.events, run.log) if path.exists()]
            if signs and not run.outcome.exists():
                self.longest_silence_s = max(self.longest_silence_s, round(time.time() - max(signs), 1))

    def step(self, job_id: str) -> int:
        return int(jobs.get_job(self.home, job_id).progress["step"])

    def _is_trainer(self, pid: int) -> bool:
        words = processes.command(pid)
        try:
            return {"runner.child", "--job", str(self.home.root)} <= set(words) and os.getsid(pid) == pid
        except ProcessLookupError:
            return False


def epoch(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()
