"""The card and its memory, as parts of bench/gpu_faults.py: held by others, too small for a batch, and the cure."""

import json
import random
import signal
import statistics
import subprocess
import sys
import time

from bench.gpu_stage import ROOT, SHARED_GB, Found, Lane, Stage
from runner.card import Card
from spool.health import cures, heartbeat
from spool.health.gpu import Gpu
from spool.protocol import durable, jobs

FOREIGN_GB = 6
LARGE_ROWS, LARGE_WORDS = 1024, 340
"""About a million tokens in one batch: the first layer alone needs more than the share of the card that it gets."""


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


def large(lane: Lane, rows: int) -> str:
    """Drops the job whose batch of so many long rows cannot fit."""
    rng = random.Random(1)
    words = [*(ROOT / "examples" / "support_tickets.jsonl").read_text().split()[:4000]]
    path = lane.home.root / "large.jsonl"
    with open(path, "w") as file:
        for number in range(rows):
            row = {"prompt": f"Letter {number}", "completion": " ".join(rng.choices(words, k=LARGE_WORDS))}
            file.write(json.dumps(row) + "\n")
    train = {"max_steps": 1, "effective_batch": rows, "batch_size": rows}
    return lane.drop(name="too large", dataset=str(path), train=train)


def foreign_and_memory(stage: Stage) -> Found:
    """Others hold the card: the queue waits. Then a batch that cannot fit, its cure, and the job behind it."""
    lane = Lane(stage, "memory", foreign_gb=2)
    found: Found = {"probe": probe(lane)}
    holder = hold(FOREIGN_GB)
    try:
        lane.start(**small_card(stage))
        job_id = large(lane, LARGE_ROWS)
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
    behind = lane.drop(name="the one behind it")
    stage.events["card"].set()
    error = lane.ended(job_id, "failed").error or {}
    found["too_large"] = {"error": error, "outcomes": lane.outcomes(job_id)}
    assert error["code"] == "out_of_memory", error
    assert "out of memory" in error["evidence"], error
    made = cures.suggestion(lane.home, jobs.get_job(lane.home, job_id))
    assert made, "no suggestion"
    train = made.spec["train"]
    assert (train["batch_size"], train["gradient_accumulation"]) == (LARGE_ROWS // 2, 2), made
    found["suggestion"] = {"sentence": made.sentence, "changes": made.to_json()["changes"]}
    time.sleep(2)
    more = stage.unaccounted_bytes() - stage.baseline_bytes
    assert more < 200e6, f"{more / 1e6:.0f} MB of the card are held by nobody"
    found["held_by_nobody_after_it_bytes"] = more
    lane.stop()
    stage.wait_for("reference")  # its compile caches are filled cold, by itself
    lane.settings(SHARED_GB)
    lane.start()
    lane.ended(behind)
    return {**found, "next_job": stage.same(lane, behind)}


def small_card(stage: Stage) -> dict[str, str]:
    return {"PYTORCH_ALLOC_CONF": f"per_process_memory_fraction:{stage.share}"}


def suggested(stage: Stage) -> Found:
    """The cure is taken, as by the page's one click, until the job fits."""
    stage.wait_for("card")
    lane = Lane(stage, "suggested")
    lane.start(**small_card(stage))
    job_id, tried = large(lane, LARGE_ROWS // 2), list[Found]()
    while True:
        lane.wait(lambda: jobs.get_job(lane.home, job_id).ended, 300, "the end of the job")  # noqa: B023
        job = jobs.get_job(lane.home, job_id)
        train = durable.read_json(lane.home.run(job_id).spec)["train"]
        names = ("batch_size", "gradient_accumulation", "effective_batch")
        tried.append({"state": job.state, **{name: train[name] for name in names}})
        if job.state != "failed":
            break
        assert (job.error or {})["code"] == "out_of_memory", job.error
        made = cures.suggestion(lane.home, job)
        assert made, f"no suggestion after {tried}"
        job_id = cures.submit(lane.home, job_id, made)
    assert job.state == "done", job.error
    assert {each["effective_batch"] for each in tried} == {LARGE_ROWS // 2}
    assert len(tried) > 1, "it fitted at once"
    return {"tried": tried, "peak_gpu_mem_bytes": (job.result or {}).get("peak_gpu_mem_bytes")}


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
