"""A checker and a trainer that are quick and that write as durably as the real ones. No torch, no data.

Run as: python -m tests.power.child check --home DIR ID ...
        python -m tests.power.child train --home DIR --job ID --attempt N

The trainer saves checkpoints, resumes from the newest that verifies, exports a folder and leaves result.json. The
job's name says more: `bad` fails, `stopped` waits in its first attempt for SIGTERM (not where POWER_IS_BACK is set).
"""

import json
import os
import sys
import time

from runner import checkpoint
from spool.protocol import durable
from spool.protocol.home import Home, Run
from spool.protocol.metrics import Writer

SPEC_HASH = "power"
STEPS = 6


def main() -> int:
    what, home, rest = sys.argv[1], Home.at(sys.argv[3]), sys.argv[4:]
    if what == "train":
        return train(home.run(rest[1]), int(rest[3]))
    for job_id in rest:
        durable.write_json(home.run(job_id).checked, {"v": 1, "outcome": "passed", "error": None})
    return 0


def train(run: Run, attempt: int) -> int:
    name = json.loads(run.spec.read_bytes())["name"]
    checkpoint.newest(run.checkpoints, SPEC_HASH)
    rows = Writer(run.metrics, attempt)
    Writer(run.events, attempt).write(event="phase", phase="training")
    for step in range(1, STEPS + 1):
        rows.write(step=step, total_steps=STEPS, loss=1 / step)
        if step % 2 == 0:
            save(run, step)
    if name.startswith("stopped") and attempt == 1 and "POWER_IS_BACK" not in os.environ:
        time.sleep(60)
    if name.startswith("bad"):
        word = {"outcome": "failed", "error": {"code": "diverged", "message": "the loss is NaN.", "hint": "Less."}}
    else:
        word = {"outcome": "finished", "result": {"adapter": export(run, name), "final_loss": 0.1, "steps": STEPS}}
    durable.write_json(run.result, {"v": 1, "attempt": attempt, **word})
    return 0


def save(run: Run, step: int) -> None:
    """As the Trainer and its callback do it: plain writes, then `complete`, then the rotation."""
    folder = run.checkpoints / f"checkpoint-{step}"
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    for file in ("adapter.safetensors", "optimizer.pt", "parts/rng.pth"):
        (folder / file).write_bytes(f"{file} at {step}".encode() * 50)
    checkpoint.complete(folder, SPEC_HASH)
    checkpoint.rotate(run.checkpoints)


def export(run: Run, name: str) -> str:
    """As runner/exports/make.py does it (tests/power/stories.py looks at the real one)."""
    target, temporary = run.exports / "adapter", run.exports / ".adapter.tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    (temporary / "adapter.safetensors").write_bytes(name.encode() * 100)
    durable.sync(temporary / "adapter.safetensors")
    if not target.exists():
        durable.sync(temporary)
        durable.move(temporary, target)
    return str(target)


if __name__ == "__main__":
    sys.exit(main())
