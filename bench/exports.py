"""What exports cost, and whether they are right: merge and GGUF beside what else can make them, in one run.

Run as: python -m bench.exports RUN_FOLDER [--base data/models/gemma-3-270m]      (a finished training: data/runs/ID)

Each way is a process of its own, in turns. Seconds count from when its libraries are imported; peak memory is that of
the process less what it held then. The goals: merge and q4_k_m together at most 60 s on 2 cores, a merge's peak at most
1.3 times the weights.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3

BEGIN = """
import resource, sys, time, json
from pathlib import Path
base, adapter, target = map(Path, sys.argv[1:4])
def held(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
"""
END = """
print(json.dumps({"seconds": time.perf_counter() - began, "peak_bytes": held() - before}))
"""
WAYS = {
    "ours": """
import torch, safetensors
from runner.exports import merge
before, began = held(), time.perf_counter()
merge.merge(base, adapter, target, lambda: None)
""",
    "peft merge_and_unload": """
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
before, began = held(), time.perf_counter()
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().save_pretrained(target)
""",
    "unsloth save_pretrained_merged": """
import unsloth
from unsloth import FastLanguageModel
before, began = held(), time.perf_counter()
model, tokenizer = FastLanguageModel.from_pretrained(str(adapter), max_seq_length=512, load_in_4bit=False)
model.save_pretrained_merged(str(target), tokenizer, save_method="merged_16bit")
""",
}
TO_GGUF = """
from runner.exports import gguf, gguf_file
import numpy
before, began = held(), time.perf_counter()
gguf.convert(base, target / "bf16.gguf", "bf16", lambda: None)
converted = time.perf_counter() - began
gguf.quantise(target / "bf16.gguf", target / "q4_k_m.gguf", "q4_k_m", None, lambda: None)
print(json.dumps({"convert_s": converted, "quantise_s": time.perf_counter() - began - converted}))
"""


def run(code: str, *arguments: Path) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEGIN + code, *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.exports")
    parser.add_argument("run", type=Path)
    parser.add_argument("--base", type=Path, default=ROOT / "data" / "models" / "gemma-3-270m")
    arguments = parser.parse_args()
    base, adapter = arguments.base.resolve(), (arguments.run / "exports" / "adapter").resolve()
    weights = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    print(f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}; weights {weights / 1e9:.2f} GB")  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        config = json.loads((adapter / "adapter_config.json").read_text())
        adapter = Path(shutil.copytree(adapter, Path(scratch) / "adapter"))  # it may have been trained elsewhere
        (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
        for turn in range(ROUNDS):
            for name, code in WAYS.items():
                target = Path(scratch) / f"{turn}-{name.split()[0]}"
                target.mkdir()
                taken[name].append(run(code + END, base, adapter, target))
        for name, each in taken.items():
            seconds = statistics.median(one["seconds"] for one in each)
            peak = statistics.median(one["peak_bytes"] for one in each)
            print(f"merge, {name:<32}{seconds:6.1f} s   peak {peak / 1e9:.2f} GB, {peak / weights:.2f} of the weights")
        merged = Path(scratch) / "0-ours"
        for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "chat_template.jinja"):
            if (base / name).exists():
                (merged / name).write_bytes((base / name).read_bytes())
        made = run(TO_GGUF, merged, adapter, Path(scratch))
        merge_s = statistics.median(one["seconds"] for one in taken["ours"])
        total = merge_s + made["convert_s"] + made["quantise_s"]
        print(f"GGUF: to bf16 {made['convert_s']:.1f} s, to q4_k_m {made['quantise_s']:.1f} s; "
              f"with the merge {total:.1f} s (goal 60 s)")  # fmt: skip


if __name__ == "__main__":
    main()
