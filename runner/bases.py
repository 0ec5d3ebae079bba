"""Base models: found in the data home or fetched, and what is known of one without loading it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import fetch
from runner.job import Attempt
from spool.forecast import steps
from spool.forecast.shapes import count_parameters
from spool.protocol import durable
from spool.protocol.errors import FinetunerError


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


def find(reference: str, attempt: Attempt, revision: str | None = None) -> Base:
    """The base that a spec names; one on the hub is fetched, the same commit in every attempt of a job.

    Args:
        revision: the commit to fetch; None: the newest.

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


def free_gpu_bytes(torch: Any) -> int:
    return int(torch.cuda.mem_get_info()[0])
