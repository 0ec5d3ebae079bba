"""`finetuner models`: the base models that a job can name, those of this server first, and what each needs."""

import argparse
from dataclasses import asdict
from typing import Any

from spool.cli import terminal
from spool.forecast import needs, shapes
from spool.protocol import catalogue
from spool.protocol.catalogue import Published
from spool.protocol.home import Home


def run(arguments: argparse.Namespace, home: Home) -> int:
    local = sorted(path.parent.name for path in home.models.glob("*/config.json"))
    known = [told(home, each, each.name in local) for each in catalogue.published()]
    others = [{"name": name, "here": "models"} for name in local if catalogue.find(name) is None]
    if arguments.json:
        terminal.print_json([*others, *known])
        return 0
    rows = [row(each) for each in sorted([*others, *known], key=lambda each: each["here"] is None)]
    terminal.table(("NAME", "GENERATION", "WEIGHTS", "CONTEXT", "4 BIT", "16 BIT", "HERE", "LICENCE"), rows)
    terminal.say(f"\n4 bit and 16 bit: what a GPU must have for {needs.ORDINARY}.")
    terminal.say("Any other Gemma works by its hub id (ORG/NAME) or its folder. More: docs/models.md, --json.")
    return 0


def told(home: Home, model: Published, is_local: bool) -> dict[str, Any]:
    """A model of the catalogue as one JSON object; bytes are null where they cannot be told."""
    memory, fetched = needs.of(model), shapes.fetched(home, model.repository)
    return {
        **asdict(model),
        "repository": model.repository,
        "parameters": needs.parameters(model),
        "memory_bytes": asdict(memory) if memory else None,
        "here": "models" if is_local else "fetched" if fetched else None,
    }


def row(model: dict[str, Any]) -> tuple[str, ...]:
    here = {"models": "models/", "fetched": "fetched"}.get(str(model["here"]), "")
    if "family" not in model:
        return (model["name"], "", "", "", "", "", here, "")
    memory = model["memory_bytes"] or {}
    return (
        model["name"],
        model["family"],
        billions(model["parameters"]),
        f"{model['context_tokens']:,}",
        gigabytes(memory.get("gpu_4bit")),
        gigabytes(memory.get("gpu_16bit")),
        here,
        model["licence"],
    )


def billions(parameters: int | None) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters else "-"


def gigabytes(bytes_: int | None) -> str:
    return f"{bytes_ / 1e9:.1f} GB" if bytes_ else "-"
