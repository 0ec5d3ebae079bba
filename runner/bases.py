"""Base models: found in the data home or fetched, and what is known of one without loading it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import fetch
from runner.job import Attempt
from spool.forecast import steps
from spool.forecast.shapes import count_parameters
from spool.protocol import durable, manifest
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.resolve import Trained
from spool.protocol.training import Limits


@dataclass(frozen=True)
class Base:
    """The base model's folder, and what is known of it without loading it."""

    reference: str
    folder: Path
    revision: str | None
    parameters: int
    weights_bytes: int

    def precision(self, asked: str, on_gpu: bool, free_bytes: int) -> str:
        """What a spec's `precision` becomes here."""
        return steps.precision(asked, self.parameters, on_gpu, free_bytes)


def find(
    reference: str, attempt: Attempt, revision: str | None = None, min_free_gb: float = Limits().min_free_gb
) -> Base:
    """The base that a spec names; one on the hub is fetched, the same commit in every attempt of a job.

    Args:
        revision: the commit to fetch; None: the newest.
        min_free_gb: what must stay free on the disk.

    Raises:
        FinetunerError: there is none, or it has no safetensors weights.
    """
    model = attempt.places.model(reference)
    folder = model.folder
    if folder is None:
        attempt.phase(f"fetching {reference}")
        pinned = durable.read_json(attempt.run.base) or {}  # the main branch may have moved between two attempts
        wanted = revision or pinned.get("revision")
        folder, revision = fetch.fetch(
            reference,
            pulse=attempt.pulse,
            revision=wanted,
            min_free_gb=min_free_gb,
            told=lambda how_far: attempt.phase(f"fetching {reference}, {how_far}"),
        )
        durable.write_json(attempt.run.base, {"revision": revision})
    return at(reference, folder, revision)


def at(reference: str, folder: Path, revision: str | None) -> Base:
    """The base in a folder.

    Raises:
        FinetunerError: it has no safetensors weights.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise FinetunerError(f"{folder} has no safetensors weights.", "Choose another copy.", "no_safetensors")
    return Base(
        reference, folder, revision, sum(map(count_parameters, weights)), sum(p.stat().st_size for p in weights)
    )


def of_training(training: Trained, attempt: Attempt) -> Base:
    """The very base that an adapter belongs to: its folder, or the same commit fetched again.

    Raises:
        FinetunerError: it is gone.
    """
    if training.base.is_dir() and training.base != Path():
        return at(training.reference, training.base, training.revision)
    return find(training.reference, attempt, training.revision)


def sha256(home: Home, folder: Path, pulse: Callable[[], None] = lambda: None) -> str:
    """One hash over all weights of a base. Each file is read once: the cache knows it by size, time and inode."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        info = path.stat()
        signature = [str(path.resolve()), info.st_size, info.st_mtime_ns, info.st_ino]
        known = home.cache / "weights" / f"{hashlib.sha256(str(signature[0]).encode()).hexdigest()[:32]}.json"
        try:
            document = durable.read_json(known) or {}
        except ValueError:
            document = {}
        if document.get("signature") != signature:
            with open(path, "rb") as file:
                document = {"signature": signature, "sha256": manifest.sha256(file, pulse)}
            known.parent.mkdir(parents=True, exist_ok=True)
            durable.write_json(known, document)
        whole.update(f"{path.name} {document['sha256']}\n".encode())
    return whole.hexdigest()


def check_unchanged(base: Base, trained_on: dict[str, Any], attempt: Attempt) -> None:
    """Raises FinetunerError where the base's weights are not those that the adapter was trained on."""
    before = trained_on.get("sha256")
    if before and sha256(attempt.home, base.folder, attempt.pulse) != before:
        message = f"the base in {base.folder} is not the one that the adapter was trained on: its weights were changed."
        raise FinetunerError(message, "Put the same base there again, or train on this one.", "base_changed")


def free_gpu_bytes(torch: Any) -> int:
    return int(torch.cuda.mem_get_info()[0])
