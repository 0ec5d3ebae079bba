"""What the product's own plan makes of a card, beside peers with their defaults: same rows, same effective batch.

Run as: python -m bench.gpu_plan OUT.json [--shape gemma-2b] [--steps 40]        (needs CUDA; not part of CI)

Random weights of the true shape, LoRA rank 16 on all linear layers, trained on every token. Ours are jobs dropped into
a folder, with a real daemon; the peers are plain scripts (bench/peer.py), one after the other on the same card.
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

from bench import random_gemma
from bench.gpu_faults import facts
from bench.gpu_stage import ROOT, Found, Lane, Stage
from spool.protocol import dropbox, durable, metrics


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


def peer(name: str, model: Path, rows: Path, length: int, steps: int, **variables: str) -> Found:
    out = rows.with_name(f"{name}-{rows.stem}.json")
    command = [sys.executable, "-m", "bench.peer", name, str(model), str(rows), str(length), str(steps), str(out)]
    log = out.with_suffix(".log")
    try:
        with open(log, "wb") as file:
            subprocess.run(
                command, cwd=ROOT, env={**os.environ, **variables}, stdout=file, stderr=file, timeout=200, check=True
            )
    except subprocess.SubprocessError as error:
        if "UNSLOTH_BLOCK_COMPILE" not in variables and name != "trl":
            return peer(name, model, rows, length, steps, UNSLOTH_BLOCK_COMPILE="0", **variables)
        return {"error": f"{error}: {log.read_text(errors='replace')[-1500:]}"}
    return {**json.loads(out.read_text()), **variables}


def ours(lane: Lane, rows: Path, steps: int, effective: int, **more: Any) -> Found:
    """A job from drop to end."""
    train = {"max_steps": steps, "save_steps": steps, "effective_batch": effective, **more.pop("train", {})}
    spec = {"schema": 1, "model": "base", "dataset": str(rows), "train": train, "data": {"eval_fraction": 0}, **more}
    dropped_at = time.time()
    job_id = dropbox.submit(lane.home, spec)
    job = lane.ended(job_id)
    assert job.result is not None
    told = [row for row in metrics.read(lane.home.run(job_id).metrics) if "loss" in row]
    resolved = durable.read_json(lane.home.run(job_id).spec)
    last = told[len(told) // 2 :]  # by then each length has been recorded
    seconds = last[-1]["t"] - last[0]["t"]
    return {
        "step_s": round(seconds / (len(last) - 1), 4),
        "median_step_s": statistics.median(row["step_time_s"] for row in last),
        "tokens_a_step": round((last[-1]["tokens"] - last[0]["tokens"]) / (len(last) - 1), 1),
        "tokens_per_s": round((last[-1]["tokens"] - last[0]["tokens"]) / seconds, 1),
        "peak_gb": round(job.result["peak_gpu_mem_bytes"] / 1e9, 2),
        "drop_to_first_step_s": round(told[0]["t"] - dropped_at, 1),
        "phases_s": {name: round(at - dropped_at, 1) for name, at in lane.phases(job_id, 1).items()},
        "plan": {"precision": resolved["precision"], **{
            name: resolved["train"][name]
            for name in ("packing", "batch_size", "gradient_accumulation", "optimizer", "gradient_checkpointing")}},
        "losses": [row["loss"] for row in told][:3],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_plan")
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", default="gemma-2b")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--peers", nargs="+", default=["unsloth", "trl"], help="of bench/peer.py")
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="plan-"))
    model, steps = root / "model", arguments.steps
    subprocess.run([sys.executable, "-m", "bench.random_gemma", arguments.shape, str(model)], cwd=ROOT, check=True)
    files = {}
    for name, count, tokens in (("natural", 8 * steps, None), ("long", 64 * 12, 1024)):
        files[name] = root / f"{name}.jsonl"
        rows = random_gemma.texts(count, tokens)
        files[name].write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    stage = Stage(root, model, arguments.out, steps, 0, 0)
    rate = matrix_tflops()
    stage.found |= facts(stage) | {
        "command": "python -m bench.gpu_plan " + " ".join(sys.argv[1:]),
        "matrix_tflops": round(rate, 1),
    }
    lane = Lane(stage, "home")
    durable.write_json(lane.home.settings, {"gpu_foreign_gb": 1000, "report_s": 0})
    try:
        lane.start()
        stage.keep("natural rows, ours", ours(lane, files["natural"], steps, 8))
        for name in arguments.peers:
            stage.keep(f"natural rows, {name}", peer(name, model, files["natural"], 1024, 14))
        stage.keep("1,024 tokens, ours, 64 rows a step", ours(lane, files["long"], 10, 64))
        stage.keep("1,024 tokens, ours", ours(lane, files["long"], 16, 8))
        first = arguments.peers[0]
        stage.keep(f"1,024 tokens, {first}", peer(first, model, files["long"], 1024, 12))
    finally:
        stage.ending.set()
        lane.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
