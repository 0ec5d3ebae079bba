"""What the product's own plan makes of a card, beside peers with their defaults: same rows, same effective batch.

Run as: python -m bench.gpu_plan OUT.json [--only PART ...] [--root FOLDER]        (needs CUDA; not part of CI)

Random weights of the true shapes, LoRA rank 16 on all linear layers, trained on every token. Ours are jobs dropped into
a folder, with a real daemon; the peers are plain scripts (bench/peer.py, bench/bare.py). All of it is timed, so one
thing after the other has the card to itself; bench/gpu_jobs.py is what need not be. A part that fails is told of in
OUT.json, which is written after each. --tiny tries the parts without a card.
"""

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench import gpu_card, random_gemma
from bench.gpu_stage import ROOT, Found, Lane, Stage, built, epoch, facts
from spool.health.gpu import Gpu
from spool.protocol import dropbox, energy, jobs, metrics

PEER_S = 150
"""The most that a peer may take, but for one of the largest model."""
CAPS_GB = {"gemma-2b": 6.0, "gemma-7b": 11.0}
"""What the original table asks of a card; so much of it is left free."""


def matrix_tflops() -> float:
    """The card's own rate: two matrices of 8,192 x 8,192 in bf16."""
    code = (
        "import torch,time; a,b=(torch.randn(8192,8192,device='cuda',dtype=torch.bfloat16) for _ in range(2))\n"
        "for _ in range(5): a@b\n"
        "torch.cuda.synchronize(); t=time.perf_counter()\n"
        "for _ in range(30): a@b\n"
        "torch.cuda.synchronize(); print(2*8192**3*30/(time.perf_counter()-t)/1e12)"
    )
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


class Bench:
    """The card, one daemon over one home, the models and the rows that all train on."""

    def __init__(self, stage: Stage, shape: str, tiny: bool) -> None:
        self.stage, self.shape, self.tiny = stage, shape, tiny
        self.lane = Lane(stage, "home", warm=False, report_s=0)
        self.done: dict[str, str] = {}
        self.files: dict[str, Path] = {}
        steps = stage.steps
        for name, count, tokens in (("natural", 8 * steps, None), ("long", 64 * (4 if tiny else 12), 1024)):
            self.files[name] = stage.root / f"{name}.jsonl"
            rows = [row[:60] if tiny else row for row in random_gemma.texts(count, tokens)]
            self.files[name].write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))

    def ours(self, part: str, model: str, rows: str, steps: int, effective: int = 8, **more: Any) -> Found:
        """A job from drop to end."""
        folder = self.lane.home.models / model
        if not folder.exists():
            folder.symlink_to(built(self.stage.root, model, tiny=self.tiny))
        train = {"max_steps": steps, "save_steps": steps, "effective_batch": effective}
        train |= {"packing": True} if self.tiny and more.get("precision") != "4bit" else {}
        spec = {"schema": 1, "model": model, "dataset": str(self.files[rows]), "train": train, **more}
        dropped_at = time.time()
        job_id = dropbox.submit(self.lane.home, {**spec, "data": {"eval_fraction": 0}})
        self.done[part] = job_id
        self.lane.ended(job_id, timeout_s=280)
        return self.lane.figures(job_id, dropped_at)

    def peer(self, name: str, model: str, rows: str, steps: int, limit_s: float = PEER_S) -> Found:
        folder = built(self.stage.root, model, tiny=self.tiny)
        words = [name, str(folder), str(self.files[rows]), "1024", str(steps)]
        out = self.stage.root / f"{name}-{model}-{rows}.json"
        return json.loads(self._plain(limit_s, "bench.peer", out, *words, str(out)))

    def _plain(self, limit_s: float, module: str, out: Path, *words: str) -> str:
        """What a plain script writes into `out`."""
        log = out.with_suffix(".log")
        with open(log, "wb") as file:
            process = subprocess.Popen([sys.executable, "-m", module, *words], cwd=ROOT, stdout=file, stderr=file)
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
        said = f"{module} ended with {code} (None: after {limit_s:g} s): {log.read_text(errors='replace')[-1500:]}"
        assert code == 0, said
        return out.read_text()

    def job(self, rows: str) -> str:
        """The job of 8 of such rows a step, made where it is not there yet."""
        part = f"{NAMES[rows]}, ours"
        steps = self.stage.steps if rows == "natural" else min(24, self.stage.steps)
        if part not in self.done:
            self.stage.part(part, lambda: self.with_forecast(part, self.ours(part, self.shape, rows, steps)))
        return self.done[part]

    def with_forecast(self, part: str, found: Found, card_bytes: int | None = None) -> Found:
        try:
            return {**found, "forecast": self.lane.foretold(self.done[part], card_bytes)}
        except Exception as error:  # what was measured stays
            return {**found, "forecast": f"{type(error).__name__}: {error}"}

    def long(self) -> None:
        """Rows of 1,024 tokens: ours, then Unsloth's notebook defaults."""
        self.job("long")
        self.stage.part("1,024 tokens, unsloth", lambda: self.peer("unsloth", self.shape, "long", 12))

    def bare(self) -> None:
        """Our own steps against a bare loop."""
        runs = [str(self.lane.home.run(self.job(rows)).root) for rows in ("natural", "long")]
        out = self.stage.root / "bare.json"

        def bare() -> Found:
            found = json.loads(self._plain(PEER_S, "bench.bare", out, str(out), *runs))
            return dict(zip(("natural", "long"), found, strict=True))

        self.stage.part("a job's steps against a bare loop", bare)

    def large(self) -> None:
        """The large-batch preset."""
        part = f"{NAMES['long']}, ours, 64 rows a step"
        self.stage.part(part, lambda: self.with_forecast(part, self.ours(part, self.shape, "long", 10, 64)))

    def natural(self) -> None:
        """Rows of natural length: ours, then the peers."""
        self.job("natural")
        for name in ("unsloth", "trl"):
            self.stage.part(f"natural rows, {name}", partial(self.peer, name, self.shape, "natural", 14))

    def small(self) -> None:
        """A card of which little is left, held by another program: CUDA then tells every library the same."""
        for model, left_gb in CAPS_GB.items():
            part = f"{model} in 4 bit, {left_gb:g} GB left, ours"
            built(self.stage.root, model, tiny=self.tiny)  # while there is room for it
            with self.held(left_gb) as before:

                def ours(part: str = part, model: str = model, left: float = left_gb, before: int = before) -> Found:
                    found = self.ours(part, model, "long", 12, precision="4bit")
                    told = metrics.read(self.lane.home.run(self.done[part]).metrics)
                    most = max((row["gpu_mem_bytes"] for row in told if "gpu_mem_bytes" in row), default=0)
                    found["with_context_and_cache_gb"] = round((most - before) / 1e9, 2)
                    return self.with_forecast(part, found, int(left * 1e9))

                self.stage.part(part, ours)
                self.stage.part(part.replace("ours", "unsloth"), partial(self.peer, "unsloth", model, "long", 10, 220))

    @contextlib.contextmanager
    def held(self, left_gb: float) -> Iterator[int]:
        """Bytes of the card that are in use while all but `left_gb` of it is held."""
        holder = None if self.tiny else gpu_card.hold(-left_gb)
        try:
            yield Gpu().sample().get("gpu_mem_bytes", 0)
        finally:
            if holder:
                holder.kill()
                holder.wait()

    def beside(self) -> None:
        """A check of a large dataset while a job trains, and the energy of that job."""
        self.stage.part("a check beside a training", self._beside)

    def _beside(self) -> Found:
        home, steps = self.lane.home, 12 * self.stage.steps
        other = self.stage.root / "other.jsonl"
        with open(other, "w") as file:
            for i in range(3_000 if self.tiny else 300_000):
                question = f"Question {i}: where is the parcel of order {i * 7919 % 100_003}?"
                answer = f"It left on day {i % 28 + 1} and arrives after {i % 9 + 1} days, as order {i} did."
                file.write(json.dumps({"question": question, "answer": answer}) + "\n")
        meter, over = Meter(), threading.Event()
        threading.Thread(target=meter.run, args=(over,), daemon=True).start()
        dropped: list[str] = []

        def drop_other() -> None:
            job_id = self.running()
            self.lane.reaches(job_id, steps // 3)
            dropped.append(dropbox.submit(home, {"schema": 1, "model": self.shape, "dataset": str(other)}))
            dropbox.control(home, "hold", dropped[0])  # it is checked, and not trained

        helper = threading.Thread(target=drop_other, daemon=True)
        helper.start()
        try:
            figures = self.ours("beside", self.shape, "natural", steps)
        finally:
            over.set()
            helper.join(5)
            for each in dropped:
                dropbox.cancel(home, each)
        run = home.run(dropped[0])
        began = epoch(jobs.get_job(home, dropped[0]).submitted_at or "")
        checked = run.checked.stat().st_mtime if run.checked.exists() else None
        rows = [row for row in metrics.read(home.run(self.done["beside"]).metrics) if "loss" in row]
        took: dict[str, list[float]] = {"before": [], "during": [], "after": []}
        for a, b in itertools.islice(itertools.pairwise(rows), steps // 10, None):
            when = "before" if b["t"] < began else "during" if checked is None or b["t"] < checked else "after"
            took[when].append(b["t"] - a["t"])
        beside = [statistics.median(took[name]) for name in ("before", "after") if took[name]]
        return {
            "check_s": round(checked - began, 1) if checked else "not over at the training's end",
            "steps": {name: len(each) for name, each in took.items()},
            "median_step_s": {name: round(statistics.median(each), 5) for name, each in took.items() if each},
            "mean_step_s": {name: round(statistics.fmean(each), 5) for name, each in took.items() if each},
            "during_against_the_others": round(statistics.median(took["during"]) / statistics.fmean(beside), 4),
            "energy": meter.against(rows),
            "job": figures,
        }

    def running(self) -> str:
        self.lane.wait(lambda: "beside" in self.done, 60, "the drop")
        return self.done["beside"]


class Meter:
    """NVML's own counter of the card's energy, read on and on."""

    def __init__(self) -> None:
        self.read: list[tuple[float, float]] = []

    def run(self, over: threading.Event) -> None:
        try:
            import pynvml

            pynvml.nvmlInit()
            device = pynvml.nvmlDeviceGetHandleByIndex(0)
            while not over.wait(0.1):
                self.read.append((time.time(), pynvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1000))
        except Exception as error:  # no card, or one without a counter
            print(f"no energy counter: {error}", flush=True)

    def against(self, rows: list[dict[str, Any]]) -> Found:
        """Joules between the first row and the last, by the power in the rows and by the counter."""
        ours = energy.of_rows(rows)
        if ours is None or not self.read:
            return {"joules": None}
        first, last = (min(self.read, key=lambda each: abs(each[0] - t)) for t in (rows[0]["t"], rows[-1]["t"]))
        counter = last[1] - first[1]
        return {
            "joules_by_metrics": round(ours * 3600, 1),
            "joules_by_nvml_counter": round(counter, 1),
            "ratio": round(ours * 3600 / counter, 4) if counter else None,
            "seconds": round(last[0] - first[0], 1),
        }


NAMES = {"natural": "natural rows", "long": "1,024 tokens"}
PARTS: dict[str, Callable[[Bench], None]] = {
    "long": Bench.long,
    "bare": Bench.bare,
    "beside": Bench.beside,
    "large": Bench.large,
    "small": Bench.small,
    "natural": Bench.natural,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_plan")
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="in this order")
    parser.add_argument("--root", type=Path, help="kept, with the models in it, for a later call")
    parser.add_argument("--shape", default="gemma-2b")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--tiny", action="store_true", help="tries the parts with a tiny model")
    arguments = parser.parse_args()
    root = arguments.root or Path(tempfile.mkdtemp(prefix="plan-"))
    root.mkdir(parents=True, exist_ok=True)
    model = built(root, arguments.shape, tiny=arguments.tiny)
    stage = Stage(root, model, arguments.out, arguments.steps, 0, 0)
    stage.found |= facts("bench.gpu_plan")
    if not arguments.tiny:
        stage.found["matrix_tflops"] = round(matrix_tflops(), 1)
    bench = Bench(stage, arguments.shape, arguments.tiny)
    try:
        bench.lane.start()
        for name in arguments.only:
            try:
                PARTS[name](bench)
            except Exception as error:
                stage.keep(name, {"failed": f"{type(error).__name__}: {error}"[:2000]})
    finally:
        stage.ending.set()
        bench.lane.close()
    return 1 if any("failed" in found for found in stage.found["parts"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
