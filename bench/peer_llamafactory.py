"""One training by LLaMA-Factory with the settings of its own examples, for a report beside bench/peer.py's.

Run as: python -m bench.peer_llamafactory qlora|lora|pretrain MODEL_FOLDER ROWS.jsonl STEPS OUT.json
`qlora` and `lora` are examples/train_qlora/qwen3_lora_sft_otfq.yaml and examples/train_lora/qwen3_lora_sft.yaml of its
repository, but for the chat template: rows of plain text go through its stage `pt`, one row after the other, where
every token is learned. `pretrain` is examples/train_lora/qwen3_lora_pretrain.yaml as it stands: it packs rows into
blocks of 2,048 tokens, so a step is eight blocks, not eight rows. All of them take the first 1,000 rows.

It needs its own packages, as LLaMA-Factory 0.9.5 pins them, before the machine's on PYTHONPATH: transformers 5.6.0,
tokenizers 0.22.2, trl 0.24.0, peft 0.18.1, accelerate 1.11.0, datasets 4.0.0 (with dill 0.3.8, multiprocess 0.70.16
and fsspec 2025.3.0), omegaconf 2.4.0, and bitsandbytes 0.50.2 for `qlora`. Without CUDA it runs too, to be tried.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from bench.peer import FIRST

EXAMPLE: dict[str, Any] = {
    "trust_remote_code": True,
    "stage": "pt",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": 8,
    "lora_target": "all",
    "cutoff_len": 2048,
    "max_samples": 1000,
    "preprocessing_num_workers": 16,
    "dataloader_num_workers": 4,
    "logging_steps": 10,
    "save_steps": 500,
    "plot_loss": True,
    "overwrite_output_dir": True,
    "save_only_model": False,
    "report_to": "none",
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8,
    "learning_rate": 1e-4,
    "num_train_epochs": 3.0,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "bf16": True,
    "ddp_timeout": 180000000,
}
"""What the three examples have in common, as they have it."""
APART: dict[str, dict[str, Any]] = {
    "qlora": {"quantization_bit": 4, "quantization_method": "bnb", "packing": False},
    "lora": {"packing": False},
    "pretrain": {},
}


def main() -> int:
    name, folder, rows, steps, out = sys.argv[1:]
    began = time.perf_counter()
    import torch
    from llamafactory.train.tuner import run_exp
    from transformers import TrainerCallback

    ends: list[float] = []
    tokens: list[int] = [0]
    losses: list[float] = []

    def count(_: Any, __: Any, given: dict[str, Any]) -> None:
        tokens[-1] += given["input_ids"].numel()

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, model: Any, **__: Any) -> None:
            model.register_forward_pre_hook(count, with_kwargs=True)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            ends.append(time.perf_counter())
            tokens.append(0)

        def on_train_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            losses.extend(row["loss"] for row in state.log_history if "loss" in row)

    work = Path(out).with_suffix("")
    work.mkdir(parents=True, exist_ok=True)
    listed = {"rows": {"file_name": str(Path(rows).resolve()), "columns": {"prompt": "text"}}}
    (work / "dataset_info.json").write_text(json.dumps(listed))
    arguments = EXAMPLE | APART[name] | {
        "model_name_or_path": folder,
        "dataset": "rows",
        "dataset_dir": str(work),
        "output_dir": str(work / "saves"),
        "max_steps": int(steps),
        "use_cpu": not torch.cuda.is_available(),
    }  # fmt: skip
    run_exp(arguments, callbacks=[Clock()])
    counted = ends[FIRST:]
    step_s = (counted[-1] - counted[0]) / (len(counted) - 1)
    tokens_a_step = sum(tokens[FIRST + 1 : len(ends)]) / (len(counted) - 1)
    found = {
        "step_s": round(step_s, 4),
        "tokens_a_step": round(tokens_a_step, 1),
        "tokens_per_s": round(tokens_a_step / step_s, 1),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "first_step_s": round(ends[0] - began, 1),
        "padding_free": True,
        "losses": losses[:3],
    }
    Path(out).write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
