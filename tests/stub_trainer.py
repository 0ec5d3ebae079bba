"""A trainer without torch for tests of the daemon: speaks the child's protocol, a few milliseconds a step.

The job's name says what happens: `ok`, `slow` (until it is stopped), `stubborn` (ignores SIGTERM), `fail`,
`crash` (dies by SIGSEGV), `exit 3`, `child` (leaves a grandchild behind), `freeze` (writes nothing more after the first
step of its first attempt), `away` (the first attempt finds no network), `full` (the first attempt finds the disk full,
after a checkpoint), `talk` (an interactive job: on until it is asked to make room), `rude` (one that makes none),
`crash` (also as one).
"""

import argparse
import faulthandler
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from runner.checkpoint import EXIT_INTERRUPTED, complete
from runner.job import Attempt, Stopped, StopRequest
from spool.protocol import durable
from spool.protocol.home import Home


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("--home", "--job"):
        parser.add_argument(name)
    parser.add_argument("--attempt", type=int)
    arguments = parser.parse_args()
    home = Home.at(arguments.home)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    stop = StopRequest(home, arguments.job)
    stop.listen()
    attempt = Attempt(home, arguments.job, arguments.attempt, stop)
    spec = durable.read_json(attempt.run.spec)
    name = spec["name"]
    attempt.phase("training")
    if name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("exit"):
        return int(name.split()[1])
    if name == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if name == "child":
        child = subprocess.Popen(["sleep", "600"])
        Path(attempt.run.root / "grandchild").write_text(str(child.pid))
    steps = 100_000 if name in ("slow", "stubborn", "talk", "rude") else 5
    try:
        for step in range(1, steps + 1):
            time.sleep(0.005)
            if step <= 200:
                attempt.metrics.write(step=step, total_steps=steps, loss=1 / step, eta_s=0.0)
            attempt.pulse()
            if name == "talk" and attempt.run.make_room.exists():
                break
            if name == "freeze" and arguments.attempt == 1:
                time.sleep(600)
            if step == 3:
                folder = attempt.run.checkpoints / "checkpoint-3"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "state").write_text("x")
                complete(folder, "stub")
            if name != "stubborn" and stop.requested:
                return EXIT_INTERRUPTED
    except Stopped:
        return EXIT_INTERRUPTED
    if name in ("away", "full") and arguments.attempt == 1:
        code = "no_network" if name == "away" else "disk_full"
        outcome = {"outcome": "failed", "error": {"code": code, "message": f"{code}.", "hint": "Wait."}}
    elif name == "fail":
        outcome = {"outcome": "failed", "error": {"code": "data_blocked", "message": "no rows.", "hint": "Add some."}}
    elif name == "talk":
        outcome = {"outcome": "finished", "result": {"answers": 0, "ended_by": "made_room"}}
    else:
        result = {
            "adapter": home.relative(attempt.run.exports / "adapter"),
            "final_loss": 0.2,
            "eval_loss": None,
            "steps": steps,
        }
        outcome = {"outcome": "finished", "result": result}
    durable.write_json(attempt.run.result, {"v": 1, "attempt": arguments.attempt, **outcome})
    return 0


if __name__ == "__main__":
    sys.exit(main())
