"""Checkpoints that can be trusted: a manifest with hashes is written last, and only what verifies is resumed from.

Torch-free on purpose: the daemon looks at manifests, the child writes and verifies them. PyTorch and transformers
resume from a directory that lacks its optimizer, scheduler or random state without a word and go another way, and a
damaged file can hold a pickle: nothing of a checkpoint is opened by them before every byte of it is known.
"""

import errno
import functools
import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from spool.protocol import durable

log = logging.getLogger("runner")

MANIFEST = "COMPLETE.json"
ADAPTER = "adapter_model.safetensors"
EXIT_INTERRUPTED = 75
KEEP = 2

PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "unsloth", "unsloth_zoo", "bitsandbytes")
"""What attempts and checkpoints record the version of."""

BOUND_TO = ("torch", "transformers", "peft", "trl")
"""Where the first number of one of their versions has changed, a checkpoint is not resumed from: what its files mean
is theirs to change (transformers #34631)."""

_NAME = re.compile(r"checkpoint-(\d+)")
_NONFINITE = {
    "F64": ("<u8", 0x7FF0 << 48),
    "F32": ("<u4", 0x7F80 << 16),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
"""Layout and exponent bits of safetensors' types: a number is not finite where all of its exponent bits are set."""


class NotFinite(ValueError):
    """The adapter of a checkpoint holds NaN or infinities."""


def complete(folder: Path, spec_hash: str) -> dict[str, Any]:
    """Makes a finished checkpoint durable: fsyncs all of it, then writes the manifest that declares it whole.

    Raises:
        NotFinite: the adapter holds a number that is none; there is no manifest then.
        OSError: a file could not be written or fsynced; there is no manifest then.
    """
    bad = not_finite(folder / ADAPTER)
    if bad:
        raise NotFinite(f"{bad} of {folder.name} holds numbers that are not finite")
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.name != MANIFEST):
        durable.sync(path)
        if path.is_dir():
            continue
        files[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    manifest = {
        "v": 1,
        "step": step_of(folder),
        "spec_sha256": spec_hash,
        "written_at": time.time(),
        "versions": versions(),
        "files": files,
    }
    durable.sync(*sorted(p for p in folder.rglob("*") if p.is_dir()), folder)
    durable.write_json(folder / MANIFEST, manifest)
    durable.sync(folder.parent, folder.parent.parent)
    return manifest


def problem(folder: Path, spec_hash: str) -> str | None:
    """Why a checkpoint must not be resumed from, or None where every byte is what was written."""
    try:
        manifest = durable.read_json(folder / MANIFEST)
        if manifest is None:
            return "it was never finished"
        files = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
        bound, written = manifest["spec_sha256"], dict(manifest.get("versions", {}))
        step = int(manifest["step"])
    except (ValueError, TypeError, KeyError, AttributeError, OSError):
        return "its manifest is damaged"
    if bound != spec_hash:
        return "it belongs to another spec or other data"
    if step != step_of(folder):
        return f"its manifest is that of step {step}"
    changed = _other_versions(written)
    if changed:
        return f"it was written with {changed}, and what its files mean may have changed"
    extra = {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()} - {MANIFEST} - files.keys()
    if extra:
        return f"{min(extra)} is not of it"
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file() or path.is_symlink():
            return f"{name} is missing"
        if path.stat().st_size != size or sha256(path) != digest:
            return f"{name} is damaged"
    bad = not_finite(folder / ADAPTER)
    return f"{bad} in {ADAPTER} holds numbers that are not finite" if bad else None


def newest(folder: Path, spec_hash: str, say: Callable[[str], None] = log.warning) -> Path | None:
    """The newest checkpoint that verifies. Newer ones that do not are set aside under a name that says so.

    Args:
        say: told in words why each was set aside.
    """
    for path in reversed(listed(folder)):
        why = problem(path, spec_hash)
        if why is None:
            return path
        aside = _free_name(path.with_name(f"{path.name}.incomplete-{int(time.time())}"))
        durable.move(path, aside)
        say(f"{path.name} is not resumed from: {why}. It is set aside as {aside.name}.")
    return None


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint that has a manifest; cheap, hashes nothing."""
    steps = [step_of(path) for path in listed(folder) if (path / MANIFEST).exists()]
    return max(steps, default=None)


def rotate(folder: Path, keep: int = KEEP, spare: Path | None = None) -> None:
    """Removes all but the `keep` newest finished checkpoints, after a new one is durable.

    `spare` (the best one) is never removed. Older folders without a manifest are what a crash left of a save or of a
    removal: they go too.
    """
    folders = listed(folder)
    finished = [path for path in folders if (path / MANIFEST).exists()]
    kept = {*finished[-keep:], spare}
    for path in folders:
        if path not in kept and finished and step_of(path) < step_of(finished[-1]):
            (path / MANIFEST).unlink(missing_ok=True)
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


@functools.cache
def versions() -> dict[str, str]:
    """What is installed of PACKAGES."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def not_finite(path: Path) -> str | None:
    """The first tensor of a safetensors file that holds NaN or an infinity; None where there is none, or no file.

    The layout is that of https://huggingface.co/docs/safetensors: nothing of torch is needed to read it.
    """
    if not path.is_file():
        return None
    import numpy as np

    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    for name, entry in header.items():
        layout, bits = _NONFINITE.get(entry.get("dtype"), (None, 0))
        if layout is None:
            continue
        start, end = entry["data_offsets"]
        if end > start:
            numbers: Any = np.memmap(path, layout, "r", 8 + size + start, (end - start) // int(layout[2]))
            if bool(np.any((numbers & bits) == bits)):
                return str(name)
    return None


def is_disk_full(error: BaseException, folder: Path) -> bool:
    """Whether a failed save means that there is no room: the kernel's word, or that of a library that ate it.

    torch tells a short write only as "PytorchStreamWriter failed": then the room that is left decides.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        words = str(seen)
        if any(said in words for said in ("No space left", "os error 28", "quota exceeded", "os error 122")):
            return True
        if "PytorchStreamWriter" in words or "unexpected pos" in words:
            return shutil.disk_usage(folder).free < 64 * 2**20
        seen = seen.__cause__ or seen.__context__
    return False


def _other_versions(written: dict[str, str]) -> str:
    """What was written with another major version than is installed; empty where that is nothing."""
    installed = versions()
    return " and ".join(
        f"{name} {version} (now {installed[name]})"
        for name, version in written.items()
        if name in BOUND_TO
        and name in installed
        and str(version).partition(".")[0] != installed[name].partition(".")[0]
    )


def _free_name(path: Path) -> Path:
    free, n = path, 1
    while free.exists():
        n += 1
        free = path.with_name(f"{path.name}-{n}")
    return free
