"""How fast the spool is: start, memory, a drop to its child's start, and everything once more with 10,000 jobs waiting.

Run as: python -m bench.spool [--jobs 10000] [--rounds 100] [--model FOLDER]        (the goals stand beside the results)

The data check passes everything at once, so that the spool's own time is seen; with --model the example is really
checked with that model's tokenizer as well, and the time from the drop is shown with it.
"""

import argparse
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from runner.daemon import Daemon
from spool.protocol import durable, settings
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

SLEEPER = "import time; time.sleep(600)"


def spec(name: str) -> bytes:
    return json.dumps({"schema": 1, "name": name, "model": "m", "dataset": "examples/support_tickets.jsonl"}).encode()


def fresh_home(folder: Path) -> Home:
    home = Home(folder).create()
    (home.models / "m").mkdir()
    (home.models / "m" / "config.json").write_text("{}")
    return home


def start(home: Home, checker: str | None = CHECKER, trainer: str = CHILD) -> tuple[subprocess.Popen[bytes], float]:
    """(process, seconds until runner.json says ready); without a checker the real one looks at the data."""
    (home.root / "child.py").write_text(trainer)
    stubs = ["--trainer", sys.executable, str(home.root / "child.py")]
    if checker:
        (home.root / "checker.py").write_text(checker)
        stubs += ["--checker", sys.executable, str(home.root / "checker.py")]
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
    daemon, _ = start(home, checker=None)
    try:
        return drop_to_start(home, rounds)
    finally:
        stop(daemon)


def cpu_s(pid: int) -> float:
    """What a process has computed so far: on a machine that others use too, the steadier measure."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def accept_many(home: Home, count: int) -> tuple[float, float]:
    """(seconds from the drop of `count` files until each has its token, CPU seconds); nothing is checked meanwhile."""
    daemon, _ = start(home, checker=SLEEPER)
    try:
        for i in range(count):
            (home.incoming / f".{i}.tmp").write_bytes(spec(f"job {i}"))
        began = time.perf_counter()
        for i in range(count):
            os.rename(home.incoming / f".{i}.tmp", home.incoming / f"{i:05d}.json")
        while sum(len(os.listdir(home.state(state))) for state in State) < count:
            time.sleep(0.05)
        return time.perf_counter() - began, cpu_s(daemon.pid)
    finally:
        stop(daemon)


def queue_all(home: Home) -> None:
    """What the check would do, without a child for every eight jobs."""
    for name in os.listdir(home.state(State.CHECKING)):
        os.rename(home.state(State.CHECKING) / name, home.state(State.QUEUED) / name)


def ticks(home: Home, young: int) -> tuple[float, list[float], list[float]]:
    """Seconds of a tick of the daemon: the first (it claims a job), the next, and those with `young` fresh drops."""
    sleeper = home.root / "sleeper.py"
    sleeper.write_text(SLEEPER)
    command = (sys.executable, str(sleeper))
    daemon = Daemon(home, settings.Settings(settle_s=60), ROOT, command, command)
    first = timed(daemon.tick)
    try:
        quiet = [timed(daemon.tick) for _ in range(20)]
        for i in range(young):
            (home.incoming / f"young {i}.json").write_bytes(spec("young"))
        busy = [timed(daemon.tick) for _ in range(10)]
    finally:
        daemon.stopping = True
        while daemon.running or daemon.gate.child:
            daemon.tick()
            time.sleep(0.01)
        daemon.watch.stop()
    for path in home.incoming.iterdir():
        path.unlink()
    return first, quiet, busy


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def listing(home: Home, *options: str) -> tuple[list[float], float]:
    """(seconds of `finetuner jobs`, the whole process, five times; CPU seconds of one)."""
    command = [sys.executable, "-m", "spool.cli.main", "jobs", "--home", str(home.root), *options]
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    taken = [timed(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True, cwd=ROOT)) for _ in range(5)]
    return taken, (sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before) / 5


def restart_after_kill(home: Home) -> float:
    """Seconds from the start after a kill -9 of runner and trainer until a job runs again."""
    daemon, _ = start(home, trainer=SLEEPER)
    job_id = working(home)
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    daemon.kill()
    daemon.wait()
    for child in children:
        os.killpg(int(child), signal.SIGKILL)
    home.runner_json.unlink()
    began = time.perf_counter()
    again, _ = start(home, trainer=SLEEPER)
    assert working(home) == job_id, "the interrupted job is not the first"
    took = time.perf_counter() - began
    stop(again)
    return took


def working(home: Home) -> str:
    while not (current := (durable.read_json(home.runner_json) or {}).get("current_job")):
        time.sleep(0.002)
    return str(current)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=100)
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
        many = fresh_home(folder / "many")
        accepted, accepted_cpu = accept_many(many, arguments.jobs)
        queue_all(many)
        (listed, listed_cpu), (listed_json, _) = listing(many), listing(many, "--json")
        restarted = restart_after_kill(many)
        first, quiet, busy = ticks(many, arguments.jobs)
        real = checked_to_start(folder / "real", arguments.model, 20) if arguments.model else []
    load = os.getloadavg()[0]
    print(f"python -m bench.spool --jobs {arguments.jobs} --rounds {arguments.rounds}")
    print(f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f}")
    worst = f"{min(ready):.2f} to {max(ready):.2f}"
    print(f"daemon start to ready       median {statistics.median(ready):.2f} s   (goal 0.5; {worst})")
    print(f"daemon memory               {memory:.0f} MB after {arguments.rounds} jobs   (goal 100)")
    p50, p99 = statistics.median(latency), percentile(latency, 0.99)
    print(f"drop to child's start       p50 {p50:.2f} s, p99 {p99:.2f} s   (goals 1.0 and 2.5; 0.5 of it to settle)")
    if real:
        print(f"the same, really checked    median {statistics.median(real):.2f} s, worst {max(real):.2f} s")
    print(f"with {arguments.jobs:,} jobs waiting:")
    print(f"accepting them all          {accepted:.1f} s, {accepted_cpu:.1f} s of CPU   (goal 60)")
    print(
        f"finetuner jobs              median {statistics.median(listed):.2f} s, worst {max(listed):.2f} s, "
        f"{listed_cpu:.2f} s of CPU   (goal 1)"
    )
    print(f"finetuner jobs --json       median {statistics.median(listed_json):.2f} s, worst {max(listed_json):.2f} s")
    print(f"the daemon's first tick     {first * 1e3:.0f} ms   (it heals, recovers and claims a job)")
    print(f"a tick while the job runs   median {of_ms(quiet)}, worst {max(quiet) * 1e3:.0f} ms   (goal 250)")
    print(f"... as many young drops     median {of_ms(busy)}, worst {max(busy) * 1e3:.0f} ms   (goal 250)")
    print(f"kill -9 to working again    {restarted:.2f} s   (goal 5)")
    return 0


def of_ms(values: list[float]) -> str:
    return f"{statistics.median(values) * 1e3:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
