"""What stands on the shelf: base models under models/, and what finished jobs have exported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pages.parts import bundle
from spool.protocol import durable
from spool.protocol.home import Home
from spool.protocol.jobs import Job


@dataclass(frozen=True)
class Base:
    """A base model on this server."""

    name: str
    kind: str
    size_bytes: int


@dataclass(frozen=True)
class Export:
    """One export of a finished job: `kind` is its folder's name, adapter or merged."""

    kind: str
    folder: Path
    size_bytes: int


def bases(home: Home) -> list[Base]:
    """The folders under models/ that hold a config.json, by name."""
    found = []
    try:
        folders = sorted(path for path in home.models.iterdir() if not path.name.startswith("."))
    except OSError:
        return []
    for folder in folders:
        config = _json(folder / "config.json")
        if config:
            weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
            found.append(Base(folder.name, _kind(config), weights))
    return found


def exports(home: Home, job: Job) -> list[Export]:
    """What of a finished job can be taken away, the adapter first."""
    found = []
    for kind in ("adapter", "merged"):
        folder = home.run(job.id).exports / kind
        if bundle.files(folder):
            found.append(Export(kind, folder, bundle.size(folder)))
    return found


def _kind(config: dict[str, Any]) -> str:
    """`Gemma 3 · 18 layers · width 640` from a model's config.json."""
    config = {**config, **(config.get("text_config") or {})}
    generation = str(config.get("model_type", "")).removesuffix("_text").replace("gemma", "Gemma ")
    parts = [generation.strip() or "unknown kind"]
    if config.get("num_hidden_layers"):
        parts.append(f"{config['num_hidden_layers']} layers")
    if config.get("hidden_size"):
        parts.append(f"width {config['hidden_size']:,}")
    return " · ".join(parts)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        document = durable.read_json(path)
    except (ValueError, OSError):
        return None
    return document if isinstance(document, dict) else None
