"""The life that is recorded: seven drops, two runners, every kind of end. Promises go into the log as they are made.

Run as: python -m tests.power.life HOME [PLANT]        (tests/power/trace.py does, under strace)
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spool.protocol import dropbox, durable, jobs
from spool.protocol.home import Home
from spool.protocol.ulid import mint

ROOT = Path(__file__).resolve().parents[2]
ENDS = {
    "good": ("done",),
    "copied": ("done",),
    "synced": ("done",),
    "bad": ("failed",),
    "stopped": ("done",),
    "unwanted": ("cancelled", "done"),  # done where the cancel came to nothing
    "wrong": ("rejected",),
    "again": ("rejected",),
}
"""The name of each job and how it may end. `again` has the submission_id of `good`."""
SETTINGS = {"settle_s": 0.02, "scan_s": 0.05, "unreadable_s": 0.2, "heartbeat_s": 5, "min_free_gb": 0, "reserve_mb": 0}


def prepare(home: Home) -> None:
    """The base that everything starts from; all of it counts as safe. The folders are the runner's to make."""
    (home.models / "m").mkdir(parents=True)
    (home.models / "m" / "config.json").write_text("{}")
    home.settings.write_text(json.dumps(SETTINGS))


def spec(name: str, **more: Any) -> dict[str, Any]:
    return {"schema": 1, "name": name, "model": "m", "dataset": "examples/support_tickets.jsonl", **more}


def mark(words: str) -> None:
    """Notes a promise in the recording."""
    with open(os.devnull, "wb", buffering=0) as nowhere:
        nowhere.write(f"mark {words}".encode())


def run_module(plant: str, module: str, *arguments: str) -> list[str]:
    # by its path: argparse takes no -m behind --trainer
    return [sys.executable, str(ROOT / "tests" / "power" / "planted.py"), plant, module, *arguments]


def runner_arguments(home: Home, plant: str) -> list[str]:
    trainer, checker = (run_module(plant, "tests.power.child", what) for what in ("train", "check"))
    return ["--home", str(home.root), "--trainer", *trainer, "--checker", *checker]


def runner(home: Home, plant: str) -> subprocess.Popen[bytes]:
    command = run_module(plant, "runner.daemon", *runner_arguments(home, plant))
    with open(home.root.with_name(f"{home.root.name}.log"), "ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def submit(home: Home, plant: str, name: str, **more: Any) -> str:
    """The real `finetuner submit`: its printed id is the promise, and strace sees it."""
    command = run_module(plant, "spool.cli.main", "--home", str(home.root), "submit", "-")
    data = json.dumps(spec(name, **more)).encode()
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, check=True)
    return done.stdout.decode().strip()


def until(condition: Callable[[], Any], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(condition)
        time.sleep(0.02)


def observe(home: Home) -> None:
    """Notes every job that anybody would now see as ended."""
    for job in jobs.list_jobs(home):
        if job.state == "rejected":
            mark(f"ended {json.loads((home.rejected / job.id / 'dropped.json').read_bytes())['name']} rejected")
        elif job.ended:
            mark(f"ended {job.name} {job.state}")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, "the runner did not stop as asked"


def main(home: Home, plant: str) -> None:
    started: list[subprocess.Popen[bytes]] = []
    try:
        live(home, plant, started)
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def live(home: Home, plant: str, started: list[subprocess.Popen[bytes]]) -> None:
    submit(home, plant, "good", submission_id="once")
    (home.incoming / "copied job.json").write_text(json.dumps(spec("copied")))  # cp syncs nothing
    synced = home.incoming / "synced job.json"
    durable.write_new(synced, durable.to_bytes(spec("synced")))
    durable.sync(home.incoming)
    mark("dropped synced")
    started.append(runner(home, plant))
    submit(home, plant, "bad")
    (home.incoming / f"{mint()}.json").write_bytes(durable.to_bytes(spec("wrong", modle=1)))
    dropbox.submit(home, spec("again", submission_id="once"))
    mark("dropped again")
    until(lambda: len([job for job in jobs.list_jobs(home) if job.ended]) == 6)
    observe(home)
    stopped = submit(home, plant, "stopped", priority=1)
    until(lambda: (home.run(stopped).checkpoints / "checkpoint-6" / "COMPLETE.json").exists())
    unwanted = submit(home, plant, "unwanted")
    until(lambda: jobs.get_job(home, unwanted).state == "queued")
    dropbox.cancel(home, unwanted)
    mark("cancelled unwanted")
    until(lambda: jobs.get_job(home, unwanted).ended)
    observe(home)
    stop(started[0])
    started.append(runner(home, plant))
    until(lambda: jobs.get_job(home, stopped).ended)
    observe(home)
    dropbox.queue(home, "hold")
    mark("held")
    stop(started[1])


if __name__ == "__main__":
    main(Home.at(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "none")
