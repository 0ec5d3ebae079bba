"""Checkpoints that can be trusted: a manifest with hashes is written last, and only what verifies is resumed from.

Torch-free on purpose: the daemon looks at manifests, the child writes and verifies them. PyTorch and transformers
resume from a directory that lacks its optimizer, scheduler or random state without a word and go another way.
"""

import hashlib
import logging
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from spool.protocol import durable

log = logging.getLogger("runner")

MANIFEST = "COMPLETE.json"
EXIT_INTERRUPTED = 75
KEEP = 2

_NAME = re.compile(r"checkpoint-(\d+)")


def complete(folder: Path, spec_hash: str) -> dict[str, Any]:
    """Makes a finished checkpoint durable: fsyncs every file, then writes the manifest that declares it whole."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        durable.sync(path)
        files[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    manifest = {"v": 1, "step": step_of(folder), "spec_sha256": spec_hash, "written_at": time.time(), "files": files}
    durable.sync(folder)
    durable.write_json(folder / MANIFEST, manifest)
    durable.sync(folder.parent)
    return manifest


def problem(folder: Path, spec_hash: str) -> str | None:
    """Why a checkpoint must not be resumed from, or None where every byte is what was written."""
    try:
        manifest = durable.read_json(folder / MANIFEST)
    except ValueError:
        return "its manifest is damaged"
    if not isinstance(manifest, dict):
        return "it was never finished"
    if manifest.get("spec_sha256") != spec_hash:
        return "it belongs to another spec or other data"
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"] or sha256(path) != expected["sha256"]:
            return f"{name} is damaged"
    return None


def newest(folder: Path, spec_hash: str) -> Path | None:
    """The newest checkpoint that verifies. Those that do not are set aside under a name that says so."""
    for path in reversed(listed(folder)):
        why = problem(path, spec_hash)
        if why is None:
            return path
        aside = path.with_name(f"{path.name}.incomplete-{int(time.time())}")
        log.warning("%s is set aside: %s", path.name, why)
        os.rename(path, aside)
    return None


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint that has a manifest; cheap, hashes nothing."""
    steps = [step_of(path) for path in listed(folder) if (path / MANIFEST).exists()]
    return max(steps, default=None)


def rotate(folder: Path, keep: int = KEEP, spare: Path | None = None) -> None:
    """Removes all but the `keep` newest finished checkpoints; `spare` (the best one) is never removed."""
    finished = [path for path in listed(folder) if (path / MANIFEST).exists()]
    for path in finished[:-keep]:
        if spare is None or path != spare:
            (path / MANIFEST).unlink()
            shutil.rmtree(path)


def listed(folder: Path) -> list[Path]:
    """Every checkpoint-N folder, by step."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _NAME.fullmatch(p.name)), key=step_of)


def step_of(folder: Path) -> int:
    match = _NAME.fullmatch(folder.name)
    return int(match[1]) if match else -1


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
