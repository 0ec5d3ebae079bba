"""The card and its memory, as parts of bench/gpu_faults.py: held by others, too small for a batch, and the cure."""

import json
import random
import signal
import statistics
import subprocess
import sys
import time
from typing import Any

from bench.gpu_stage import ROOT, Found, Lane, Stage
from runner.card import Card
from spool.health import cures, heartbeat
from spool.health.gpu import Gpu
from spool.protocol import durable, jobs

FOREIGN_GB = 6
TOO_LITTLE = 0.002
"""Of the card: less than the embedding of the smallest Gemma takes."""
RAN_OUT = "the memory ran out with "
LARGE_ROWS, LARGE_WORDS = 256, 340
"""About 150,000 tokens in one batch: of which a share of the card holds a few thousand, packed or padded."""


def probe(lane: Lane) -> Found:
    """The card as the daemon asks for it before a claim."""
    card = Card(lane.home, Gpu())
    assert card.fault() is None, card.fault()
    assert card.busy() is None, card.busy()
    took = []
    for _ in range(100):
        began = time.perf_counter()
        assert card.fault() is None
        took.append((time.perf_counter() - began) * 1000)
        assert card.busy() is None
    return {"fault": None, "busy": None, "probe_ms_p50": statistics.median(took), "probe_ms_max": max(took)}


def large(lane: Lane, **train: Any) -> str:
    """Drops the job of one step whose batch of long rows has no room at once."""
    rng = random.Random(1)
    words = [*(ROOT / "examples" / "support_tickets.jsonl").read_text().split()[:4000]]
    path = lane.home.root / "large.jsonl"
    with open(path, "w") as file:
        for number in range(LARGE_ROWS):
            row = {"prompt": f"Letter {number}", "completion": " ".join(rng.choices(words, k=LARGE_WORDS))}
            file.write(json.dumps(row) + "\n")
    train = {"max_steps": 1, "save_steps": 1, "effective_batch": LARGE_ROWS, "batch_size": LARGE_ROWS, **train}
    return lane.drop(name="too large", dataset=str(path), train=train, eval={})


def came_down(lane: Lane, job_id: str) -> Found:
    """What a job showed that learned from less at once, by itself."""
    lane.ended(job_id)
    notes, result = lane.notes(job_id), jobs.get_job(lane.home, job_id).result or {}
    assert lane.outcomes(job_id) == ["finished"]
    assert notes, "it fitted at once"
    assert all(note.startswith(RAN_OUT) for note in notes), notes
    train = durable.read_json(lane.home.run(job_id).spec)["train"]
    names = ("packing", "batch_size", "gradient_accumulation", "effective_batch")
    peak = result["peak_gpu_mem_bytes"]
    return {"notes": notes, "peak_gpu_mem_bytes": peak, "train": {name: train[name] for name in names}}


def foreign_and_memory(stage: Stage) -> Found:
    """Others hold the card: the queue waits, and names them. Then packed rows that have no room at once."""
    lane = Lane(stage, "memory", foreign_gb=2)
    found: Found = {"probe": probe(lane)}
    holder = hold(FOREIGN_GB)
    try:
        lane.start(**share_of_card(stage.share))
        job_id = large(lane)
        lane.wait(lambda: jobs.get_job(lane.home, job_id).state == "queued", 120, "the check")
        lane.wait(lambda: heartbeat.read(lane.home).waiting_for, 20, "waiting_for")
        time.sleep(5)
        found["waiting_for"] = heartbeat.read(lane.home).waiting_for
        assert f"pid {holder.pid}" in str(found["waiting_for"]), found["waiting_for"]
        assert jobs.get_job(lane.home, job_id).attempts == 0
    finally:
        holder.kill()
        holder.wait()
    began = time.monotonic()
    lane.wait(lambda: lane.attempts(job_id), 20, "the start after the others have gone")
    found["start_after_the_others_ended_s"] = round(time.monotonic() - began, 2)
    stage.events["card"].set()
    stage.keep("foreign", found)
    return came_down(lane, job_id)


def padded(stage: Stage) -> Found:
    """The same where rows are padded: the process begins anew with half as many at once."""
    stage.wait_for("card")
    lane = Lane(stage, "padded")
    lane.start(UNSLOTH_COMPILE_DISABLE="1", **share_of_card(stage.share))  # compiling takes minutes each time
    return came_down(lane, large(lane, packing=False))


def too_little(stage: Stage) -> Found:
    """No room for the base itself: the job fails in words, nothing of it stays on the card, and the next one trains."""
    stage.wait_for("card")
    lane = Lane(stage, "too-little")
    lane.start(**share_of_card(TOO_LITTLE))
    job_id = lane.drop(name="too little")
    error = lane.ended(job_id, "failed").error or {}
    assert error["code"] == "out_of_memory", error
    assert "out of memory" in error["evidence"], error
    made = cures.suggestion(lane.home, jobs.get_job(lane.home, job_id))
    found: Found = {"error": error, "suggestion": made.sentence if made else None, "outcomes": lane.outcomes(job_id)}
    found["held_by_nobody_bytes"] = stage.unaccounted_bytes() - stage.baseline_bytes
    assert found["held_by_nobody_bytes"] < 200e6, found
    lane.stop()
    lane.start()
    behind = lane.drop(name="the one behind it")
    lane.ended(behind)
    return {**found, "next_job": stage.same(lane, behind)}


def share_of_card(share: float) -> dict[str, str]:
    return {"PYTORCH_ALLOC_CONF": f"per_process_memory_fraction:{share}"}


def hold(gigabytes: float) -> subprocess.Popen[bytes]:
    """A plain program that holds memory of the card until it is killed; all but so much where that is below 0."""
    command = [sys.executable, "-m", "bench.gpu_card", str(gigabytes)]
    holder = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True)
    assert holder.stdout
    assert holder.stdout.readline(), "it could not take the memory"
    return holder


def main() -> None:
    """What `hold` starts: takes so many gigabytes of the card and says so."""
    import torch

    gigabytes = float(sys.argv[1])
    count = gigabytes * 1e9 if gigabytes > 0 else torch.cuda.mem_get_info()[0] + gigabytes * 1e9
    held = torch.empty(int(count), dtype=torch.uint8, device="cuda")
    print(held.numel(), flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
