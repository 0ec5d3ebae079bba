"""Whether packed rows learn the same on a GPU: each row alone by transformers, the batch eagerly, and as a CUDA graph.

Run as: python -m bench.gpu_packed OUT.json        (needs CUDA; its twin on a CPU is tests/test_packed.py)

Random weights of two true shapes, of fewer layers: Gemma 2B, and Gemma 3 1B whose layers mostly see 512 tokens.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from bench import random_gemma
from runner.packed import ATTENTION, attention  # noqa: F401
from runner.packed.batch import Rows
from runner.packed.step import Step
from spool.data.judging.chat import NOT_TRAINED

LENGTHS = [700, 31, 240, 1, 1024, 96, 128, 5]


def adapted(folder: Path, attend: str) -> Any:
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation=attend, device_map={"": 0}
    )
    model = get_peft_model(base, LoraConfig(r=16, target_modules="all-linear"))
    for name, each in model.named_parameters():
        if "lora_B" in name:
            each.data.normal_(std=0.02)
    return model


def rows() -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(0)
    found = []
    for length in LENGTHS:
        ids = torch.randint(10, 500, (length,), generator=draw).tolist()
        found.append({"input_ids": ids, "labels": [NOT_TRAINED] * (length // 3) + ids[length // 3 :]})
    return found


def alone(folder: Path, some: list[dict[str, Any]], trained: int) -> tuple[float, list[Tensor]]:
    model, total = adapted(folder, "sdpa"), 0.0
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


def study(name: str, layers: int, folder: Path) -> dict[str, Any]:
    random_gemma.build(name, folder, layers)
    some = Rows(rows())
    trained = some.trained_tokens
    loss, gradients = alone(folder, rows(), trained)
    step = Step(adapted(folder, ATTENTION), len(some), max(LENGTHS), 1e9, 1e9)
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
    root = Path(tempfile.mkdtemp(prefix="packed-"))
    found = {name: study(name, layers, root / name) for name, layers in (("gemma-2b", 4), ("gemma-3-1b", 7))}
    Path(sys.argv[1]).write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    fine = all(
        each["replays_are_equal_bit_for_bit"] and each["gradients_graph_apart"] < 0.02 for each in found.values()
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
