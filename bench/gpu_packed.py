"""Whether packed rows learn the same on a GPU: each row alone by transformers, the batch eagerly, and as a CUDA graph.

Run as: python -m bench.gpu_packed OUT.json [NAME ...]        (needs CUDA; tests/test_packed_families.py on a CPU)

Random weights of true shapes, of fewer layers: one or two of each family, among them one that sees all tokens.
"""

import gc
import json
import statistics
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor

from bench import random_gemma
from runner.packed import ATTENTION, engine
from runner.packed.batch import Rows
from runner.packed.step import Step
from spool.data.judging.chat import NOT_TRAINED

STUDIED = {
    **{"gemma-2b": 4, "gemma-2-2b": 4, "gemma-2-27b": 2, "gemma-3-1b": 7, "gemma-3-4b": 6},
    **{"gemma-3n-e2b": 8, "gemma-4-e2b": 8, "gemma-4-31b": 6},
}
"""Name -> layers."""
PLAIN = {"gemma-2": "eager"}
"""transformers' own attention to compare with, by the beginnings of names: SDPA knows no soft caps. (`gemma-2b` has
none, and computes the same by both.)"""
LENGTHS = [700, 31, 240, 1, 1024, 96, 128, 5]


def adapted(name: str, layers: int) -> Any:
    torch.manual_seed(1)
    base = random_gemma.model(name, layers, attn_implementation=PLAIN.get(name[:7], "sdpa"))
    model = get_peft_model(base, LoraConfig(r=16, target_modules=engine.targets(base, "all-linear")))
    for each_name, each in model.named_parameters():
        if "lora_B" in each_name:
            each.data.normal_(std=0.02)
    return model


def rows() -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(0)
    found = []
    for length in LENGTHS:
        ids = torch.randint(10, 500, (length,), generator=draw).tolist()
        found.append({"input_ids": ids, "labels": [NOT_TRAINED] * (length // 3) + ids[length // 3 :]})
    return found


def alone(model: Any, some: list[dict[str, Any]], trained: int) -> tuple[float, list[Tensor]]:
    total = 0.0
    for each in some:
        with torch.autocast("cuda", torch.bfloat16):
            logits = model(input_ids=torch.tensor([each["input_ids"]], device="cuda")).logits[0].float()
            labels = torch.tensor(each["labels"], device="cuda")
            loss = F.cross_entropy(logits[:-1], labels[1:], ignore_index=NOT_TRAINED, reduction="sum") / trained
        loss.backward()
        total += loss.item()
    return total, [each.grad.clone() for each in model.parameters() if each.requires_grad]


def apart(found: Tensor, expected: list[Tensor]) -> float:
    """The norm of the difference, in norms of what is expected."""
    whole = torch.cat([each.flatten() for each in expected])
    return float((found - whole).norm() / whole.norm())


def study(name: str, layers: int) -> dict[str, Any]:
    some = Rows(rows())
    trained, model = some.trained_tokens, adapted(name, layers)
    loss, gradients = alone(model, rows(), trained)
    model.get_base_model().set_attn_implementation(ATTENTION)
    step = Step(model, len(some), max(LENGTHS), 1e9, 1e9)
    eager = step._computed(some, trained).item()
    found: dict[str, Any] = {
        "loss_alone": loss,
        "loss_eager": eager,
        "gradients_eager_apart": apart(step.gradients, gradients),
    }
    replays = []
    began = time.perf_counter()
    for _ in range(4):
        step.forget()
        graph = step.learn(some, trained).item()
        replays.append(step.gradients.clone())
    found |= {
        "loss_graph": graph,
        "gradients_graph_apart": apart(replays[0], gradients),
        "replays_are_equal_bit_for_bit": all(torch.equal(replays[0], each) for each in replays),
        "first_four_s": round(time.perf_counter() - began, 1),
    }
    step.forget()
    step.most_tokens = 800
    parts = step.learn(some, trained).item()
    found |= {"loss_in_parts": parts, "gradients_in_parts_apart": apart(step.gradients, gradients)}
    step.most_tokens = 1e9
    times = []
    for _ in range(20):
        torch.cuda.synchronize()
        at = time.perf_counter()
        step.learn(some, trained)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - at)
    return found | {"replay_ms": round(statistics.median(times) * 1e3, 2), "recorded": len(step.recorded)}


def main() -> int:
    found: dict[str, Any] = {}
    for name in sys.argv[2:] or STUDIED:
        began = time.perf_counter()
        try:
            found[name] = study(name, STUDIED[name])
        except Exception as error:
            traceback.print_exc()
            found[name] = {"error": f"{type(error).__name__}: {str(error)[:400]}"}
        gc.collect()
        torch.cuda.empty_cache()
        found[name] |= {"layers": STUDIED[name], "seconds": round(time.perf_counter() - began, 1)}
        Path(sys.argv[1]).write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 0 if all(map(fine, found.values())) else 1


def fine(each: dict[str, Any]) -> bool:
    return bool(each.get("replays_are_equal_bit_for_bit") and each["gradients_graph_apart"] < 0.02)


if __name__ == "__main__":
    sys.exit(main())
