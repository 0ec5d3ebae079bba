"""Packed rows in little memory on a GPU: peak, speed and losses of Gemma 2B and 7B in 4 bit with checkpointing.

Run as: python -m bench.gpu_memory OUT.json [NAME ...]        (needs CUDA; random weights)

Each setting takes the same weights and rows, and an optimizer with its states whose learning rate is 0: all losses of
a model must be equal but for rounding. `capped` is what `auto` would hold at once on a card of 6 GB (2B) or 11 GB (7B),
with torch kept from taking more.
"""

import gc
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench import random_gemma
from runner import bases
from runner.packed import engine, loss
from runner.packed.batch import Rows
from runner.packed.step import Step
from spool.forecast import costs, shapes
from spool.protocol.parse import parse_spec
from spool.protocol.spec import JobSpec

BEGAN = time.perf_counter()
GB = 1e9
CAPS = {"gemma-2b": 6 * GB, "gemma-7b": 11 * GB}
MODELS = sys.argv[2:] or list(CAPS)


def rows(count: int) -> Rows:
    draw = torch.Generator().manual_seed(0)
    ids = [torch.randint(10, 500, (1024,), generator=draw).tolist() for _ in range(count)]
    return Rows([{"input_ids": each, "labels": each} for each in ids])


def clean() -> None:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def measure(model: Any, count: int, room: float, recorded: float, steps: int) -> dict[str, Any]:
    clean()
    some, notes = rows(count), list[str]()
    step = Step(model, count, 1024, room, recorded, notes.append)
    step.recompute()
    optimizer = torch.optim.AdamW(step.parameters, lr=0.0, fused=True)
    times, found = [], torch.zeros(())
    for i in range(steps + 2):
        torch.cuda.synchronize()
        at = time.perf_counter()
        found = step.learn(some, some.trained_tokens)
        optimizer.step()
        step.forget()
        torch.cuda.synchronize()
        if i > 1:
            times.append(time.perf_counter() - at)
    evaluated = step.loss(some).item()
    return {
        "loss": found.item(),
        "evaluated": evaluated,
        "tokens_per_s": round(some.tokens / statistics.median(times)),
        "step_ms": round(statistics.median(times) * 1e3, 1),
        "peak_gb": round(torch.cuda.max_memory_allocated() / GB, 2),
        "peak_reserved_gb": round(torch.cuda.max_memory_reserved() / GB, 2),
        "graphs": len(step.recorded),
        "notes": notes,
    }


def study(name: str, root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    folder = random_gemma.build(name, root / name)
    clean()
    document = {"schema": 1, "model": str(folder), "dataset": "none", "precision": "4bit"}
    spec, at = parse_spec(json.dumps(document).encode()), time.perf_counter()
    assert isinstance(spec, JobSpec)
    model = engine.load(spec, bases.at(name, folder, None)).train()
    shutil.rmtree(folder)
    found["load_s"] = round(time.perf_counter() - at, 1)
    found["loaded_gb"] = round(torch.cuda.memory_allocated() / GB, 2)
    found["peak_of_loading_gb"] = round(torch.cuda.max_memory_allocated() / GB, 2)
    steps = 8 if name == "gemma-2b" else 4
    shape = shapes.named(name)
    assert shape is not None
    room = costs.room_tokens(shape, 16, "all-linear", CAPS[name], "4bit", True)
    total = torch.cuda.get_device_properties(0).total_memory
    for key, count, at_once, recorded, cap, chunk in (
        ("2 rows, graphs", 2, 1e9, 1e9, total, 1 << 28),
        ("2 rows, no graphs", 2, 1e9, 0, total, 1 << 28),
        ("8 rows, graphs", 8, 1e9, 1e9, total, 1 << 28),
        ("8 rows, graphs, 1 GiB of logits", 8, 1e9, 1e9, total, 1 << 30),
        ("8 rows, no graphs", 8, 1e9, 0, total, 1 << 28),
        ("8 rows one by one, graphs", 8, 1024, 1e9, total, 1 << 28),
        ("8 rows, capped, graphs", 8, room, 1e9, CAPS[name], 1 << 28),
    ):
        if time.perf_counter() - BEGAN > 80:
            found[key] = "no time left"
            continue
        loss.CHUNK_BYTES = chunk
        clean()
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap / total))
        try:
            found[key] = measure(model, count, at_once, recorded, steps)
        except Exception as error:
            found[key] = repr(error)[:400]
        torch.cuda.set_per_process_memory_fraction(1.0)
    found["room_tokens_capped"] = round(room)
    found["said_a_token_mb"] = round(costs.packed_token_bytes(shape, True) / 1e6, 3)
    return found


def main() -> None:
    shm = Path("/dev/shm")
    roomy = shm.is_dir() and shutil.disk_usage(shm).free > 40e9
    root = Path(tempfile.mkdtemp(prefix="memory-", dir=shm if roomy else None))
    found: dict[str, Any] = {"torch": torch.__version__, "device": torch.cuda.get_device_name()}
    try:
        for name in MODELS:
            found[name] = study(name, root)
            found["seconds"] = round(time.perf_counter() - BEGAN, 1)
            Path(sys.argv[1]).write_text(json.dumps(found, indent=2) + "\n")
            clean()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
