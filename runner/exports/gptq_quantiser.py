"""GPTQ by llm-compressor: 16-bit weights in, 4-bit weights out. It runs in `.venv-gptq` (made by `make gptq`).

Run as: .venv-gptq/bin/python runner/exports/gptq_quantiser.py < JOB      (runner/exports/gptq.py does)

The first line of JOB is JSON: {"model": folder, "target": folder, "rows": [[token, ...], ...]}; the input is then kept
open for as long as the result is wanted. The last line of the output is {"quantised": 126, "group_size": 128} or
{"error": "why"}; all that libraries say goes to standard error, their progress too. Nothing of ours is imported.

GPTQ (arXiv 2210.17323) rounds a matrix column by column and has the columns that follow make up for each error, by
what the rows feed it. A group of columns shares one scale: its largest number is 7.5 steps.
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

GROUPS = (128, 64, 32)
"""Columns that may share a scale; vLLM's kernels take these. The largest that divides every matrix is taken."""
UNTOUCHED = ("vision", "audio", "multi_modal", "embed", "lm_head", "per_layer", "router")
"""What stays in 16 bit: all that is no matrix of the language model's layers."""
SHARD = "5GB"


def main() -> int:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_when_nobody_waits, daemon=True).start()
    try:
        answer = quantise(Path(job["model"]), Path(job["target"]), job["rows"])
    except Exception as error:
        import traceback

        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    print(json.dumps(answer), file=answers, flush=True)
    return 1 if "error" in answer else 0


def _leave_when_nobody_waits() -> None:
    """Whoever started this may be killed without a chance to end it."""
    while os.read(0, 4096):
        pass
    os._exit(3)


def quantise(model: Path, target: Path, rows: list[list[int]]) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(
        str(model), dtype="auto", local_files_only=True, trust_remote_code=False
    )
    linear = {name: module for name, module in loaded.named_modules() if isinstance(module, torch.nn.Linear)}
    chosen = {name for name in linear if ".layers." in name and not any(word in name for word in UNTOUCHED)}
    left = set(linear) - chosen
    patterns = [f"re:.*{word}.*" for word in UNTOUCHED if any(word in name for name in left)]
    others = sorted(name for name in left if not any(word in name for word in UNTOUCHED))
    untouched = [*patterns, *others]
    widths = {linear[name].in_features for name in chosen}
    group = next((size for size in GROUPS if not any(width % size for width in widths)), None)
    if not chosen or group is None:
        return {
            "error": f"its matrices have {sorted(widths)} columns, which are no groups of {', '.join(map(str, GROUPS))}"
        }

    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier

    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": group}
    scheme = {"group_0": {"targets": ["Linear"], "weights": {**weights, "observer": "memoryless_minmax"}}}
    # llm-compressor adds 1 to Gemma's norms while it works and takes it away again: in 16 bit that loses bits
    before = {name: each.detach().clone() for name, each in loaded.named_parameters() if each.ndim == 1}
    oneshot(
        model=loaded,
        processor=AutoTokenizer.from_pretrained(str(model), local_files_only=True),
        dataset=Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}),
        recipe=GPTQModifier(config_groups=scheme, ignore=untouched),
        num_calibration_samples=len(rows),
        max_seq_length=max(map(len, rows)),
        shuffle_calibration_samples=False,
    )
    _put_back(loaded, before)
    loaded.save_pretrained(str(target), save_compressed=True, max_shard_size=SHARD)
    _name_again(target / "config.json", untouched)
    return {"quantised": len(chosen), "group_size": group}


def _name_again(path: Path, untouched: list[str]) -> None:
    """What is saved names each layer as the file does, and transformers calls those of a model that sees otherwise."""
    config = json.loads(path.read_text())
    config["quantization_config"]["ignore"] = untouched
    path.write_text(json.dumps(config, indent=2) + "\n")


def _put_back(model: Any, before: dict[str, Any]) -> None:
    from compressed_tensors.offload import update_offload_parameter

    for name, value in before.items():
        place, _, last = name.rpartition(".")
        update_offload_parameter(model.get_submodule(place), last, value)


if __name__ == "__main__":
    sys.exit(main())
