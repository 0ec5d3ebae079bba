"""How soon a job starts: from its drop to its first step, with a child kept warm and without, in pairs.

Run as: python -m bench.start [--model FOLDER] [--pairs 3] [--out JSON]   (goal: at most 65 % of cold, 40 % on a GPU)

One home and one runner a way, so that both find their caches filled: the first job of each is not counted. The warm
child is ready before each drop, as it is where a job comes to an idle runner. Each time is read from what the job
wrote: the first metrics row with a loss, and the phases among its events.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.gpu_stage import facts
from spool.health import heartbeat
from spool.protocol import dropbox, jobs, metrics
from spool.protocol.home import Home

ROOT = Path(__file__).resolve().parent.parent
ROWS = 160


class Way:
    """A runner over a home of its own, with a warm child or without."""

    def __init__(self, folder: Path, warm: bool, model: Path) -> None:
        self.warm = warm
        self.home = Home(folder / ("warm" if warm else "cold")).create()
        self.home.settings.write_text(json.dumps({"warm": warm, "report_s": 0}))
        (self.home.models / "base").symlink_to(model)
        with open(self.home.runner_log, "ab") as log:
            command = [sys.executable, "-m", "runner.daemon", "--home", str(self.home.root)]
            self.daemon = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def ready(self) -> None:
        """Waits until a drop finds the runner as it is to be measured."""
        until(lambda: heartbeat.read(self.home).alive and heartbeat.read(self.home).current_job is None)
        if self.warm:
            log = self.home.cache / "warm.log"
            until(lambda: log.exists() and "-- ready" in log.read_text())

    def job(self, spec: dict[str, Any]) -> dict[str, float]:
        """Seconds from the drop to the end of the first step, and to what comes before it."""
        (self.home.cache / "warm.log").unlink(missing_ok=True)  # the next child writes a new one
        dropped = time.time()
        job_id = dropbox.submit(self.home, spec)
        until(lambda: jobs.get_job(self.home, job_id).ended)
        job = jobs.get_job(self.home, job_id)
        assert job.state == "done", job.error
        run = self.home.run(job_id)
        ahead = "loaded ahead" in run.log.read_text()
        assert ahead == self.warm, "the job was not started in the way that is measured"
        first = next(row["t"] for row in metrics.read(run.metrics) if row.get("loss") is not None)
        told = {row["phase"]: row["t"] - dropped for row in metrics.read(run.events) if row.get("event") == "phase"}
        return {**told, "first step": first - dropped}

    def stop(self) -> None:
        self.daemon.terminate()
        self.daemon.wait()


def until(condition: Any, limit_s: float = 600) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it took too long; the logs in the home say why"
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=ROOT / "data" / "models" / "gemma-3-270m")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--precision", default="16bit")
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="start-"))
    rows = folder / "rows.jsonl"
    lines = (ROOT / "examples" / "support_tickets.jsonl").read_text().splitlines()[:ROWS]
    rows.write_text("\n".join(lines) + "\n")
    spec: dict[str, Any] = {"schema": 1, "model": "base", "dataset": str(rows), "precision": arguments.precision}
    spec |= {"train": {"max_steps": arguments.steps}, "data": {"eval_fraction": 0}}
    ways = {warm: Way(folder, warm, arguments.model.resolve()) for warm in (False, True)}
    times: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    try:
        for pair in range(arguments.pairs + 1):
            for warm, way in ways.items():
                for each in ways.values():  # nothing loads beside the job that is measured
                    each.ready()
                found = way.job(spec)
                print("warm" if warm else "cold", json.dumps({k: round(v, 2) for k, v in found.items()}), flush=True)
                if pair:
                    times[warm].append(found)
    finally:
        for way in ways.values():
            way.stop()
    cold, warm_s = (statistics.median(each["first step"] for each in times[warm]) for warm in (False, True))
    print(f"{arguments.model.name}, {ROWS} rows, {arguments.precision}, {os.cpu_count()} cores")
    print(f"from drop to first step, median of {arguments.pairs}: cold {cold:.2f} s, warm {warm_s:.2f} s")
    loaded = statistics.median(each["first step"] - each["training"] for each in times[True])
    print(f"warm is {100 * warm_s / cold:.0f} % of cold; from the loaded model to the first step {loaded:.2f} s")
    if arguments.out:
        found = {"cold": times[False], "warm": times[True], "warm_against_cold": round(warm_s / cold, 3)}
        found |= {"loaded_to_first_step_s": round(loaded, 2)}
        arguments.out.write_text(json.dumps(facts("bench.start") | found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
