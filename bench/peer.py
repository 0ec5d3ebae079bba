"""One training by plain means, for bench/gpu_plan.py: TRL with PEFT, or Unsloth, with the defaults that people use.

Run as: python -m bench.peer trl|unsloth|unsloth16 MODEL_FOLDER ROWS.jsonl MAX_LENGTH STEPS OUT.json
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FIRST = 5
"""Steps that are not counted: they compile, and choose kernels."""


def main() -> int:
    name, folder, rows, max_length, steps, out = sys.argv[1:]
    began = time.perf_counter()
    model, tokenizer, arguments = (_trl if name == "trl" else _unsloth)(folder, int(max_length), name)
    import torch
    from datasets import load_dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    on_gpu = torch.cuda.is_available()
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if on_gpu:
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=load_dataset("json", data_files=rows, split="train"),
        callbacks=[Clock()],
        args=SFTConfig(
            **arguments,
            output_dir=str(Path(out).with_suffix("")),
            max_steps=int(steps),
            max_length=int(max_length),
            learning_rate=2e-4,
            bf16=True,
            seed=42,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
    )
    trainer.train()
    held = trainer.train_dataset["input_ids"]
    rows_a_step = trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps
    tokens = sum(map(len, held)) / len(held) * rows_a_step
    counted = ends[FIRST:]
    step_s = (counted[-1] - counted[0]) / (len(counted) - 1)
    found = {
        "step_s": round(step_s, 4),
        "tokens_a_step": round(tokens, 1),
        "tokens_per_s": round(tokens / step_s, 1),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if on_gpu else None,
        "first_step_s": round(ends[0] - began, 1),
        "padding_free": bool(trainer.args.padding_free),
        "losses": [row["loss"] for row in trainer.state.log_history if "loss" in row][:3],
    }
    Path(out).write_text(json.dumps(found))
    return 0


def _trl(folder: str, max_length: int, name: str) -> tuple[Any, Any, dict[str, Any]]:
    """QLoRA as TRL's and PEFT's guides have it: NF4, checkpointing (SFTConfig's default), small batches accumulated."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    four = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=four, dtype=torch.bfloat16, device_map={"": 0}
    )
    model = get_peft_model(
        prepare_model_for_kbit_training(model), LoraConfig(r=16, lora_alpha=16, target_modules=LAYERS)
    )
    return (
        model,
        AutoTokenizer.from_pretrained(folder),
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    )


def _unsloth(folder: str, max_length: int, name: str) -> tuple[Any, Any, dict[str, Any]]:
    """The notebooks' settings: 4 bit, Unsloth's checkpointing, 2 rows at once and 4 times accumulated, 8-bit AdamW.

    `unsloth16`: as quick as Unsloth's own switches go for the same effective batch.
    """
    from unsloth import FastLanguageModel

    quick = name == "unsloth16"
    model, tokenizer = FastLanguageModel.from_pretrained(
        folder, max_seq_length=max_length, load_in_4bit=not quick, use_exact_model_name=True
    )
    model = FastLanguageModel.get_peft_model(
        model, r=16, lora_alpha=16, target_modules=LAYERS, random_state=42,
        use_gradient_checkpointing=False if quick else "unsloth",
    )  # fmt: skip
    size = {"per_device_train_batch_size": 8} if quick else {
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}  # fmt: skip
    rows = int(os.environ.get("PEER_ROWS", "0"))
    return model, tokenizer, {**size, "optim": "adamw_8bit", **({"per_device_train_batch_size": rows} if rows else {})}


if __name__ == "__main__":
    sys.exit(main())
