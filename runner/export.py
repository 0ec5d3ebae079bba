"""What a finished job leaves under exports/: each made in a temporary folder and renamed into place when it is whole.

A manifest with hashes and lineage lies in each. The tokenizer files are the base's own, byte for byte.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner import checkpoint
from spool.data.judging.chat import Encoder
from spool.protocol import durable

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model")

TERMS_FILES = ("NOTICE", "GEMMA_TERMS.html")
"""Gemma's terms ask that they travel with every copy and derivative."""


Pulse = Callable[[], None]
"""A sign of life, given between files: hashing gigabytes takes a while."""


def adapter(exports: Path, model: Any, base: Path, encoder: Encoder, facts: dict[str, Any], pulse: Pulse) -> Path:
    """The LoRA adapter in PEFT's layout, with tokenizer, chat template, stop tokens and a README."""

    def make(folder: Path) -> None:
        model.save_pretrained(str(folder), safe_serialization=True)
        _companions(folder, base, encoder)
        (folder / "README.md").write_text(_readme(facts))

    return _export(exports / "adapter", make, "adapter", facts, pulse)


def merged(
    exports: Path, adapter_folder: Path, base: Path, encoder: Encoder, facts: dict[str, Any], pulse: Pulse
) -> Path:
    """16-bit weights with the adapter merged in. Always into the 16-bit base, also after a 4-bit training."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def make(folder: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.bfloat16)
        pulse()
        model = PeftModel.from_pretrained(model, str(adapter_folder)).merge_and_unload()
        pulse()
        model.generation_config.eos_token_id = encoder.stop_ids
        model.save_pretrained(str(folder), safe_serialization=True)
        _companions(folder, base, encoder)

    return _export(exports / "merged", make, "merged", facts, pulse)


def _export(target: Path, make: Callable[[Path], None], kind: str, facts: dict[str, Any], pulse: Pulse) -> Path:
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    make(temporary)
    files = {}
    for path in sorted(p for p in temporary.rglob("*") if p.is_file()):
        pulse()
        durable.sync(path)
        files[str(path.relative_to(temporary))] = {"bytes": path.stat().st_size, "sha256": checkpoint.sha256(path)}
    manifest = {"v": 1, "kind": kind, "lineage": {k: facts[k] for k in ("base", "dataset", "steps")}, "files": files}
    durable.write_json(temporary / "manifest.json", manifest)
    shutil.rmtree(target, ignore_errors=True)
    durable.move(temporary, target)
    return target


def _companions(folder: Path, base: Path, encoder: Encoder) -> None:
    for name in (*TOKENIZER_FILES, *TERMS_FILES):
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    (folder / "chat_template.jinja").write_text(encoder.template)
    generation = {"bos_token_id": encoder.bos_id, "eos_token_id": encoder.stop_ids, "pad_token_id": encoder.pad_id}
    (folder / "generation_config.json").write_bytes(durable.to_bytes(generation))


def _readme(facts: dict[str, Any]) -> str:
    return f"""---
base_model: {facts["base"]["reference"]}
library_name: peft
license: gemma
pipeline_tag: text-generation
---

# LoRA adapter for {facts["base"]["reference"]}

Trained on {facts["train_rows"]} rows of `{facts["dataset"]["reference"]}` for {facts["steps"]} steps; loss at the end
{facts["final_loss"]}, eval loss {facts["eval_loss"]}. Gemma is provided under and subject to the Gemma Terms of Use
found at ai.google.dev/gemma/terms; they hold for this adapter too.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

folder = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained("{facts["base"]["folder"]}", dtype="bfloat16")
model = PeftModel.from_pretrained(model, folder)
prompt = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "Hello"}}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
answer = model.generate(**prompt, max_new_tokens=200, generation_config=GenerationConfig.from_pretrained(folder))
print(tokenizer.decode(answer[0][prompt["input_ids"].shape[1] :], skip_special_tokens=True))
```
"""
