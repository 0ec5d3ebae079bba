"""The LoRA adapter of a training, in PEFT's layout, with what is needed to use it. Made by the training itself."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner.exports import card, companions
from spool.data.judging.chat import Encoder
from spool.protocol import durable, manifest


def save(
    exports: Path, model: Any, base: Path, encoder: Encoder, facts: dict[str, Any], pulse: Callable[[], None]
) -> Path:
    """Writes exports/adapter/ as a whole or not at all: weights, tokenizer, chat template, stop tokens, model card.

    Args:
        facts: the training's result, with its `job`, `name` and `settings` (the spec with every auto resolved).
    """
    target = exports / "adapter"
    temporary = exports / ".adapter.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    model.save_pretrained(str(temporary), safe_serialization=True)
    _name_base(temporary / "adapter_config.json", facts.get("base") or {})
    companions.tokenizer(temporary, base, encoder)
    card.write(temporary, "adapter", facts, None, encoder)
    manifest.write(temporary, "adapter", lineage(facts), pulse)
    shutil.rmtree(target, ignore_errors=True)
    durable.move(temporary, target)
    return target


def _name_base(config: Path, base: dict[str, Any]) -> None:
    """PEFT writes the folder that the base was loaded from, which nobody else has. What the hub has is named so that
    PEFT fetches it from there, at the same commit."""
    if base.get("revision"):
        named = {"base_model_name_or_path": base["reference"], "revision": base["revision"]}
        config.write_bytes(durable.to_bytes({**durable.read_json(config), **named}))


def lineage(facts: dict[str, Any]) -> dict[str, Any]:
    """Where an export comes from, as its manifest says."""
    return {key: facts.get(key) for key in ("job", "name", "base", "dataset", "steps")}
