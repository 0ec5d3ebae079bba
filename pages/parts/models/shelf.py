"""What stands on the shelf: base models under models/, and what finished jobs have exported."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pages.parts.models import bundle, proof
from pages.parts.models.proof import Certificate
from spool.protocol import durable, formats, removed
from spool.protocol.home import Home
from spool.protocol.jobs import Job
from spool.protocol.notes import Note
from spool.protocol.removed import Removed

KINDS = {formats.folder(name): name for name in formats.FORMATS}
"""The folders of exports, in the order in which they are shown."""

TERMS = ("NOTICE", "GEMMA_TERMS.html")
NEWEST, BEST, LARGEST, NAME = ORDERS = ("newest", "best", "largest", "name")


@dataclass(frozen=True)
class Base:
    """A base model on this server."""

    name: str
    kind: str
    size_bytes: int
    terms: tuple[str, ...] = ()
    """The files of its licence that lie beside it."""


@dataclass(frozen=True)
class Export:
    """One export of a finished job: `kind` is what specs call its format."""

    kind: str
    folder: Path
    size_bytes: int
    proof: Certificate | None = None

    @property
    def state(self) -> str:
        if self.proof is None:
            return proof.ORIGINAL if self.kind == "adapter" else proof.UNPROVEN
        return proof.READY if self.proof.passed else proof.SUSPECT


@dataclass(frozen=True)
class Model:
    """A trained model as the list shows it."""

    job: Job
    size_bytes: int
    note: Note
    removed: Removed | None = None

    @property
    def eval_loss(self) -> float | None:
        value = (self.job.result or {}).get("eval_loss")
        return float(value) if isinstance(value, int | float) else None


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
            terms = tuple(name for name in TERMS if (folder / name).is_file())
            found.append(Base(folder.name, _kind(config), weights, terms))
    return found


def exports(home: Home, job: Job) -> list[Export]:
    """What of a finished job can be taken away, the adapter first, what is suspect last."""
    folder = home.run(job.id).exports
    found = []
    for name, kind in KINDS.items():
        if size_bytes := size(folder / name):
            found.append(Export(kind, folder / name, size_bytes, proof.read(folder / name)))
    return sorted(found, key=lambda each: each.state == proof.SUSPECT)


def size(folder: Path) -> int:
    """Bytes of an export's files; 0 where there are none. An export is made at once and never changed."""
    try:
        return _size(folder, folder.stat().st_mtime_ns)
    except OSError:
        return 0


@lru_cache(maxsize=4096)
def _size(folder: Path, changed_ns: int) -> int:
    return bundle.size(folder)


def models(home: Home, jobs: Iterable[Job], notes: Mapping[str, Note]) -> list[Model]:
    """Every finished training job's model, also one whose files were removed. Of thousands each costs two looks."""
    runs, unnoted = str(home.runs), Note()
    found = []
    for job in jobs:
        if job.state == "done" and job.kind == "train":
            size_bytes = _exported(f"{runs}/{job.id}/exports")
            told = not size_bytes and os.path.exists(f"{runs}/{job.id}/removed.json")
            gone = removed.read(home.run(job.id)) if told else None
            found.append(Model(job, size_bytes, notes.get(job.id, unnoted), gone))
    return found


def _exported(folder: str) -> int:
    try:
        return _all_sizes(folder, os.stat(folder).st_mtime_ns)
    except OSError:
        return 0


@lru_cache(maxsize=16_384)
def _all_sizes(folder: str, changed_ns: int) -> int:
    return sum(size(Path(folder, name)) for name in os.listdir(folder) if name in KINDS)


def search(found: Iterable[Model], words: str, tags: Iterable[str] = ()) -> list[Model]:
    """Those in which every word occurs (name, model, data, person, id, note, tags) and that bear every tag."""
    wanted = [word.casefold() for word in words.split()]
    wanted_tags = {tag.casefold() for tag in tags}
    return [
        each
        for each in found
        if all(word in _said(each) for word in wanted) and wanted_tags <= {tag.casefold() for tag in each.note.tags}
    ]


def _said(each: Model) -> str:
    job = each.job
    parts = [job.name, job.model, job.dataset, job.submitted_by, job.id, each.note.text, *each.note.tags]
    return "\n".join(part for part in parts if part).casefold()


def ordered(found: Iterable[Model], by: str) -> list[Model]:
    """In one of ORDERS; what cannot be compared (no eval loss) comes last, newest first among equals."""
    newest = sorted(found, key=lambda each: each.job.ended_at or "", reverse=True)
    if by == BEST:
        return sorted(newest, key=lambda each: float("inf") if each.eval_loss is None else each.eval_loss)
    if by == LARGEST:
        return sorted(newest, key=lambda each: -each.size_bytes)
    return sorted(newest, key=lambda each: each.job.name.casefold()) if by == NAME else newest


def tags(found: Sequence[Model]) -> list[str]:
    """Every tag that is in use, the most used first."""
    known: dict[str, tuple[int, str]] = {}
    for each in found:
        for tag in each.note.tags:
            count, shown = known.get(tag.casefold(), (0, tag))
            known[tag.casefold()] = (count + 1, shown)
    return [shown for _, shown in sorted(known.values(), key=lambda pair: (-pair[0], pair[1].casefold()))]


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
