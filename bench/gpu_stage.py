"""Data homes with a daemon of their own, which share one GPU, as bench/gpu_*.py start them and look at them."""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from spool.forecast import costs, estimate, machine, rows, shapes
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
        self.held_out = root / "held-out.jsonl"
        rows = map(json.loads, (ROOT / "examples" / "support_tickets.jsonl").read_text().splitlines())
        asked = ({**row, "prompt": f"{row['prompt']} Please answer today."} for row in rows)
        self.held_out.write_text("".join(json.dumps(row) + "\n" for row in asked))
        threading.Thread(target=self._watch, daemon=True).start()

    def unaccounted_bytes(self) -> int:
        """What the card has in use beyond what its processes are known to hold: the least of a few answers, for
        processes come and go between the two questions that each takes."""
        if not self.card:
            return 0
        answers = [Gpu().ask() for _ in range(5)]
        return min(int(each["mem_used_bytes"]) - sum(one["mem_bytes"] or 0 for one in each["processes"])
                   for each in answers)  # fmt: skip

    def wait_for(self, *events: str) -> None:
        for event in events:
            while not self.events[event].wait(0.2):
                assert not self.ending.is_set(), f"the time is over, and {event!r} had not come"

    def caches(self, folder: Path) -> dict[str, str]:
        return {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TRITON_CACHE_DIR": str(folder / "triton")}

    def same(self, lane: "Lane", job_id: str) -> Found:
        """How far a job is from the undisturbed one."""
        self.wait_for("reference")
        straight = json.loads((self.root / "reference.json").read_text())
        here = lane.losses(job_id)
        assert list(here) == list(straight["losses"]), "other steps than those of the undisturbed job"
        apart = max(abs(here[step] - loss) for step, loss in straight["losses"].items())
        evaluated = (jobs.get_job(lane.home, job_id).result or {})["eval_loss"] - straight["eval_loss"]
        assert apart <= LARGEST_DIFFERENCE, f"the losses are {apart} apart, and {evaluated} at the evaluation"
        return {
            "largest_loss_difference": apart,
            "eval_loss_difference": evaluated,
            "adapter_is_the_same_bytes": lane.adapter_sha256(job_id) == straight["adapter_sha256"],
        }

    def keep(self, part: str, found: Found) -> None:
        with self.write:
            self.found["parts"][part] = found
            self.out.write_text(json.dumps(self.found, indent=2) + "\n")
        print(time.strftime("%H:%M:%S"), part, json.dumps(found), flush=True)

    def part(self, name: str, part: Callable[[], Found]) -> bool:
        """Keeps what a part found, or what it failed of: the others go on."""
        began = time.monotonic()
        try:
            found = part()
        except Exception as error:
            traceback.print_exc()
            found = {"failed": f"{type(error).__name__}: {error}"[:4000]}
        self.keep(name, {**found, "seconds": round(time.monotonic() - began, 1)})
        return "failed" not in found

    def _watch(self) -> None:
        """The oracle outside: how many trainers each home has, and how long one that works shows no sign of life."""
        while not self.ending.wait(0.2):
            for lane in list(self.lanes):
                with contextlib.suppress(OSError):  # a process or a file that has gone meanwhile
                    lane.look()


class Lane:
    """A data home with a daemon of its own."""

    def __init__(
        self, stage: Stage, name: str, copy_of: Path | None = None, foreign_gb: float = SHARED_GB, **settings: Any
    ) -> None:
        self.stage = stage
        self.part = threading.get_ident()
        self.home = Home.at(stage.root / name)
        shutil.rmtree(self.home.root, ignore_errors=True)
        if copy_of:
            shutil.copytree(copy_of, self.home.root, symlinks=True)
        else:
            self.home.create()
            os.symlink(stage.model, self.home.models / "base")
        self.settings(foreign_gb, **settings)
        self.daemon: subprocess.Popen[bytes] | None = None
        self.most_trainers = 0
        self.longest_silence_s = 0.0
        stage.lanes.append(self)

    def settings(self, foreign_gb: float, **settings: Any) -> None:
        durable.write_json(self.home.settings, {"gpu_foreign_gb": foreign_gb, "warm": False, "report_s": 0, **settings})

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
        for _ in range(2):
            for pid in self.children():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            if self.daemon:
                self.kill()

    def drop(self, **more: Any) -> str:
        steps = self.stage.steps
        train: Found = {"max_steps": steps, "save_steps": steps // 4, "effective_batch": 8}
        spec: Found = {"schema": 1, "model": "base", "dataset": "examples/support_tickets.jsonl"}
        if self.stage.card:
            spec["precision"], train["optimizer"] = "4bit", "adamw_8bit"  # its states are the harder ones to bring back
        else:
            spec["precision"], train["packing"] = "16bit", True  # as on a card
        spec["train"] = train | more.pop("train", {})
        spec["data"] = {"eval_fraction": 0, **more.pop("data", {})}
        spec["eval"] = {"dataset": str(self.stage.held_out), "every_steps": steps // 2, "sample_prompts": []}
        spec["limits"] = {"early_stopping": None, **more.pop("limits", {})}
        return dropbox.submit(self.home, spec | more)

    def wait(self, condition: Callable[[], Any], timeout_s: float, what: str, pause_s: float = 0.03) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert self.daemon is None or self.daemon.poll() is None, f"the daemon ended: {self.last_words()}"
            assert time.monotonic() < end, f"{what}: not within {timeout_s:g} s; {self.last_words()}"
            assert not self.stage.ending.is_set(), f"{what}: the time is over"
            time.sleep(pause_s)

    def last_words(self) -> str:
        logs = sorted(self.home.runs.glob("*/train.log"))
        return "".join(path.read_text(errors="replace")[-1500:] for path in [self.home.runner_log, *logs[-1:]])

    def reaches(self, job_id: str, step: int, timeout_s: float = 400) -> None:
        self.wait(lambda: self.step(job_id) >= step, timeout_s, f"step {step}")

    def trains(self, job_id: str, attempt: int = 1) -> None:
        """Waits until the libraries and the model are loaded: the first steps come next, and with them compiling."""
        first = {"training", "measuring what a step takes"}
        self.wait(lambda: first & self.phases(job_id, attempt).keys(), 300, "the training")

    def ended(self, job_id: str, state: str = "done", timeout_s: float = 500) -> jobs.Job:
        self.wait(lambda: jobs.get_job(self.home, job_id).ended, timeout_s, f"the end of the job ({state})")
        job = jobs.get_job(self.home, job_id)
        assert job.state == state, f"{job.error}; {self.last_words()}"
        assert self.most_trainers <= 1, f"{self.most_trainers} trainers lived at once"
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

    def notes(self, job_id: str) -> list[str]:
        """What the job told of in its own words."""
        return [row["words"] for row in metrics.read(self.home.run(job_id).events) if row.get("event") == "note"]

    def losses(self, job_id: str) -> dict[str, float]:
        rows = metrics.one_line(metrics.read(self.home.run(job_id).metrics))
        return {str(row["step"]): row["loss"] for row in rows if "loss" in row}

    def adapter_sha256(self, job_id: str) -> str:
        adapter = self.home.run(job_id).exports / "adapter" / "adapter_model.safetensors"
        return hashlib.sha256(adapter.read_bytes()).hexdigest()

    def trainers(self) -> list[int]:
        """What trains for this home: leaders of a session, so that what they have forked does not count."""
        return [pid for pid in processes.all_pids() if self._is(pid, {"runner.child", "--job"})]

    def children(self) -> list[int]:
        """Trainers, and what waits to be one or became one that way (it keeps its name)."""
        return self.trainers() + [pid for pid in processes.all_pids() if self._is(pid, {"runner.warm", "--line"})]

    def look(self) -> None:
        alive = self.trainers()
        self.most_trainers = max(self.most_trainers, len(alive))
        for run in map(self.home.run, os.listdir(self.home.runs) if alive else []):
            signs = [path.stat().st_mtime for path in (run.pulse, run.metrics, run.events, run.log) if path.exists()]
            if signs and not run.outcome.exists():
                self.longest_silence_s = max(self.longest_silence_s, round(time.time() - max(signs), 1))

    def step(self, job_id: str) -> int:
        return int(jobs.get_job(self.home, job_id).progress["step"])

    def figures(self, job_id: str, dropped_at: float) -> Found:
        """What a finished training took; steps and tokens of its second half: by then each length has been recorded."""
        run = self.home.run(job_id)
        told = [row for row in metrics.read(run.metrics) if "loss" in row]
        resolved, result = durable.read_json(run.spec), jobs.get_job(self.home, job_id).result or {}
        last = told[len(told) // 2 :]
        seconds, tokens = last[-1]["t"] - last[0]["t"], last[-1]["tokens"] - last[0]["tokens"]
        names = ("packing", "batch_size", "gradient_accumulation", "optimizer", "gradient_checkpointing")
        notes = self.notes(job_id)
        return {
            "step_s": round(seconds / (len(last) - 1), 4),
            "median_step_s": statistics.median(row["step_time_s"] for row in last),
            "tokens_a_step": round(tokens / (len(last) - 1), 1),
            "tokens_per_s": round(tokens / seconds, 1),
            "peak_gb": round((result["peak_gpu_mem_bytes"] or 0) / 1e9, 2),
            "drop_to_first_step_s": round(told[0]["t"] - dropped_at, 1),
            "phases_s": {name: round(at - dropped_at, 1) for name, at in self.phases(job_id, 1).items()},
            "plan": {
                "precision": resolved["precision"],
                **{name: resolved["train"][name] for name in names},
            },
            **({"measured": result["measured"]} if result.get("measured") else {}),
            "losses": [round(row["loss"], 4) for row in (*told[:3], told[-1])],
            **({"notes": notes} if notes else {}),
        }

    def foretold(self, job_id: str, card_bytes: int | None = None) -> Found:
        """Peak memory as the form says it where nothing was learned from finished jobs, beside what the job took.

        Args:
            card_bytes: of the card, where less of it was left than it has.
        """
        run = self.home.run(job_id)
        spec = durable.read_json(run.spec_orig)
        unlearned = Home.at(self.home.root.with_name(f"{self.home.root.name}-unlearned"))
        unlearned.create()
        if not (unlearned.models / spec["model"]).exists():
            (unlearned.models / spec["model"]).symlink_to((self.home.models / spec["model"]).resolve())
        here = machine.look(unlearned)
        here = replace(here, gpu_bytes=card_bytes or here.gpu_bytes)
        said = estimate.estimate(unlearned, spec, machine=here, run=run.root)
        counted = rows.prepared(run.root / "data")
        shape = shapes.of(unlearned, spec["model"], unlearned.models / spec["model"])
        assert counted, "the job's rows are not there"
        assert shape, "the model has no shape"
        plan = estimate.plan_of(estimate.Asked.of(spec, 0.0), counted, shape, here)
        assert plan, "the forecast has no plan"
        took = (jobs.get_job(self.home, job_id).result or {}).get("peak_gpu_mem_bytes") or 0
        peak = costs.peak_bytes(shape, plan)
        return {
            "said_must_be_free_gb": round((said.gpu_bytes or said.memory_bytes or 0) / 1e9, 2),
            "peak_foretold_gb": round(peak / 1e9, 2),
            "peak_gb": round(took / 1e9, 2),
            "foretold_against_measured": round(peak / took, 3) if took else None,
            "plan_foretold": {"precision": plan.precision, "packing": plan.packing, "batch_size": plan.batch},
            "problems": [problem.message for problem in said.problems],
        }

    def _is(self, pid: int, words: set[str]) -> bool:
        command = set(processes.command(pid))
        try:
            return words | {str(self.home.root)} <= command and os.getsid(pid) == pid
        except ProcessLookupError:
            return False


def facts(program: str) -> Found:
    """What a reader of the results must know of the run; `program` is the module's name."""
    packages = ("torch", "transformers", "peft", "trl", "unsloth", "unsloth_zoo", "bitsandbytes", "triton")
    versions = {name: metadata.version(name) for name in packages if any(metadata.distributions(name=name))}
    card = Gpu().describe()
    return {
        "command": f"python -m {program} " + " ".join(sys.argv[1:]),
        "date": time.strftime("%Y-%m-%d"),
        "device": f"{card.get('name', 'cpu')}, driver {card.get('driver')}, {os.cpu_count()} cores",
        "versions": versions | {"python": platform.python_version()},
    }


def built(root: Path, name: str, layers: int | None = None, tiny: bool = False) -> Path:
    """The folder of a base with random weights of the shape of that name; made where it is not there yet."""
    folder = root / "models" / (f"{name}-{layers}" if layers else name)
    if not (folder / "config.json").exists():
        program = ["tests/tiny.py", str(folder)] if tiny else ["-m", "bench.random_gemma", name, str(folder)]
        command = [sys.executable, *program, *([str(layers)] if layers and not tiny else [])]
        made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert made.returncode == 0, f"{name} cannot be built: {made.stderr[-1500:]}"
    return folder


def epoch(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()
