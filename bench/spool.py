"""How fast the spool is: start of the daemon, its memory, a drop to its child's start, 1,000 drops at once.

Run as: python -m bench.spool [--drops 1000] [--rounds 20] [--model FOLDER]        (goals: 0.5 s, 100 MB, 1.0 s, 10 s)

The data check passes everything at once, so that the spool's own time is seen; with --model the example is really
checked with that model's tokenizer as well, and the time from the drop is shown with it.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from spool.protocol import durable
from spool.protocol.home import Home, State
from spool.protocol.jobs import get_job

ROOT = Path(__file__).resolve().parent.parent
CHILD = """import json, os, sys, time
started = time.time()
home, job, attempt = sys.argv[2], sys.argv[4], int(sys.argv[6])
with open(f"{home}/runs/{job}/result.json", "w") as file:
    json.dump({"attempt": attempt, "outcome": "finished", "result": {"started": started}}, file)
"""
CHECKER = """import json, os, sys
for job in sys.argv[3:]:
    run = f"{sys.argv[2]}/runs/{job}"
    with open(f"{run}/checked.tmp", "w") as file:
        json.dump({"v": 1, "outcome": "passed", "error": None}, file)
    os.rename(f"{run}/checked.tmp", f"{run}/checked.json")
"""


def spec(name: str) -> bytes:
    return json.dumps({"schema": 1, "name": name, "model": "m", "dataset": "examples/support_tickets.jsonl"}).encode()


def fresh_home(folder: Path) -> Home:
    home = Home(folder).create()
    (home.models / "m").mkdir()
    (home.models / "m" / "config.json").write_text("{}")
    return home


def start(home: Home, checks: bool = False) -> tuple[subprocess.Popen[bytes], float]:
    """(process, seconds until runner.json says ready)."""
    child, checker = home.root / "child.py", home.root / "checker.py"
    child.write_text(CHILD)
    checker.write_text(CHECKER)
    stubs = ["--trainer", sys.executable, str(child)]
    if not checks:
        stubs += ["--checker", sys.executable, str(checker)]
    home.runner_json.unlink(missing_ok=True)
    began = time.perf_counter()
    daemon = subprocess.Popen(
        [sys.executable, "-m", "runner.daemon", "--home", str(home.root), *stubs],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    while (durable.read_json(home.runner_json) or {}).get("state") != "ready":
        assert daemon.poll() is None, "the daemon ended"
        time.sleep(0.002)
    return daemon, time.perf_counter() - began


def stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.send_signal(signal.SIGTERM)
    daemon.wait()


def memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def drop_to_start(home: Home, rounds: int) -> list[float]:
    """Seconds from a file's appearance to the first line of the child's own code."""
    taken = []
    for i in range(rounds):
        before = set(os.listdir(home.runs))
        dropped = time.time()
        durable.write_atomic(home.incoming / f"job {i}.json", spec(f"round {i}"))
        while not (fresh := set(os.listdir(home.runs)) - before):
            time.sleep(0.005)
        job_id = fresh.pop()
        while get_job(home, job_id).state != "done":
            time.sleep(0.01)
        taken.append(durable.read_json(home.run(job_id).result)["result"]["started"] - dropped)
    return taken


def checked_to_start(folder: Path, model: Path, rounds: int) -> list[float]:
    """The same as `drop_to_start` with the example really checked."""
    home = Home(folder).create()
    (home.models / "m").symlink_to(model.resolve())
    daemon, _ = start(home, checks=True)
    try:
        return drop_to_start(home, rounds)
    finally:
        stop(daemon)


def accept_many(folder: Path, count: int) -> tuple[float, float]:
    """Seconds from the drop of `count` files until each has its token, and until the last is checked."""
    home = fresh_home(folder)
    daemon, _ = start(home)
    try:
        for i in range(count):
            (home.incoming / f".{i}.tmp").write_bytes(spec(f"job {i}"))
        began = time.perf_counter()
        for i in range(count):
            os.rename(home.incoming / f".{i}.tmp", home.incoming / f"{i:05d}.json")
        while sum(len(os.listdir(home.state(state))) for state in State) < count:
            time.sleep(0.02)
        accepted = time.perf_counter() - began
        while len(os.listdir(home.state(State.CHECKING))):
            time.sleep(0.05)
        return accepted, time.perf_counter() - began
    finally:
        stop(daemon)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--drops", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = fresh_home(folder / "home")
        ready = []
        for _ in range(5):
            daemon, took = start(home)
            ready.append(took)
            stop(daemon)
        daemon, _ = start(home)
        latency = drop_to_start(home, arguments.rounds)
        memory = memory_mb(daemon.pid)
        stop(daemon)
        accepted, checked = accept_many(folder / "many", arguments.drops)
        real = checked_to_start(folder / "real", arguments.model, arguments.rounds) if arguments.model else []
    worst = f"{min(ready):.2f} to {max(ready):.2f}"
    print(f"daemon start to ready     median {statistics.median(ready):.2f} s   (goal 0.5; {worst})")
    print(f"daemon memory             {memory:.0f} MB after {arguments.rounds} jobs   (goal 100)")
    middle = statistics.median(latency)
    print(
        f"drop to child's start     median {middle:.2f} s   (goal 1.0, 0.5 of it to settle; worst {max(latency):.2f})"
    )
    print(
        f"{arguments.drops} drops accepted       {accepted:.1f} s   (goal 10); the last checked after {checked:.1f} s"
    )
    if real:
        print(f"the same, really checked  median {statistics.median(real):.2f} s   (worst {max(real):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
