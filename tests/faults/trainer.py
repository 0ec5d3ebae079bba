"""A trainer without torch for the fault suite: the product's own checkpoints, a witness outside the spool.

Each step extends a chain of hashes, so that a job that was interrupted any number of times ends on the same digest as
one that was not. The lock on witness.lock lives as long as the process does: who finds it taken saw a second trainer.
The job's name says what happens: `ok N` (N steps), `long` (until it is stopped), `fail`, `crash` (SIGSEGV at step 1).
"""

import argparse
import fcntl
import hashlib
import os
import signal
import sys
import time
from pathlib import Path

from runner import checkpoint
from spool.protocol import durable
from spool.protocol.home import Home

STEP_S = 0.003
SPEC_HASH = "fault suite"
ERROR = {"code": "data_blocked", "message": "no rows.", "hint": "Add some."}


def digest(steps: int, start: int = 0, before: str = "") -> str:
    """What `steps` undisturbed steps end on."""
    for step in range(start + 1, steps + 1):
        before = hashlib.sha256(f"{before}{step}".encode()).hexdigest()
    return before


class Witness:
    """What is told to the oracle: one line with one write, in a folder that the runner knows nothing of."""

    def __init__(self, folder: Path, job_id: str, attempt: int) -> None:
        self.about = f"{job_id} {attempt} {os.getpid()}"
        self.log = os.open(folder / "witness.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.lock = os.open(folder / "witness.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.say("overlap")

    def say(self, word: str) -> None:
        os.write(self.log, f"{word} {self.about}\n".encode())


def train(home: Home, job_id: str, witness: Witness) -> dict[str, object] | None:
    """The result, or None when the job was asked to stop."""
    run = home.run(job_id)
    name = durable.read_json(run.spec)["name"]
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    cancel = home.control / f"cancel-{job_id}"
    found = checkpoint.newest(run.checkpoints, SPEC_HASH)
    done, state = 0, ""
    if found:
        word, _, state = (found / "state").read_text().partition(" ")
        done = int(word)
        witness.say(f"resumed-{done}")
    if name == "fail":
        return {"outcome": "failed", "error": ERROR}
    total = int(name.split()[1]) if name.startswith("ok") else 100_000
    for step in range(done + 1, total + 1):
        time.sleep(STEP_S)
        state = hashlib.sha256(f"{state}{step}".encode()).hexdigest()
        durable.append_line(run.metrics, {"v": 1, "step": step, "total_steps": total, "loss": 1 / step})
        if name == "crash":
            witness.say("crash")
            os.kill(os.getpid(), signal.SIGSEGV)
        if step % 4 == 0:
            folder = run.checkpoints / f"checkpoint-{step}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "state").write_text(f"{step} {state}")
            checkpoint.complete(folder, SPEC_HASH)
            checkpoint.rotate(run.checkpoints)
        if stopped or cancel.exists():
            return None
    return {"outcome": "finished", "result": {"steps": total, "adapter": state, "final_loss": 0.1, "eval_loss": None}}


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("--home", "--job", "--attempt"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    witness = Witness(Path(os.environ["FAULTS_DIR"]), arguments.job, int(arguments.attempt))
    witness.say("start")
    if os.environ.get("FAULTS_PLANTED") == "resume_blindly":
        checkpoint.problem = lambda *_: None
    home = Home.at(arguments.home)
    outcome = train(home, arguments.job, witness)
    if outcome is None:
        witness.say("stopped")
        return checkpoint.EXIT_INTERRUPTED
    durable.write_json(home.run(arguments.job).result, {"v": 1, "attempt": int(arguments.attempt), **outcome})
    witness.say("result")
    return 0


if __name__ == "__main__":
    sys.exit(main())
