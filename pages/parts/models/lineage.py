"""Where a trained model comes from, and what depends on it: what is asked before anything of it is deleted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spool.data.keeping import keep
from spool.data.keeping.keep import Stored
from spool.protocol import removed
from spool.protocol.home import Home
from spool.protocol.jobs import Job

MARK = "corrected_model"
"""The column in which the Playground writes whose answer a row corrects."""
READ_BYTES = 64_000_000
"""Of a dataset's file; corrections are written by hand and far smaller."""


@dataclass(frozen=True)
class Dependents:
    """Jobs that still need its files, jobs that repeat it, and datasets that hold corrections of its answers."""

    needing: tuple[str, ...] = ()
    retries: tuple[Job, ...] = ()
    datasets: tuple[Stored, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.needing or self.retries or self.datasets)


def dependents(home: Home, job_id: str, everything: Sequence[Job], started_in: Path) -> Dependents:
    """What depends on a job. Only `needing` keeps its files from being deleted: the others have what they need."""
    return Dependents(
        tuple(removed.needed_by(home, job_id, started_in)),
        tuple(job for job in everything if job.retry_of == job_id),
        tuple(corrected_in(home, job_id)),
    )


def corrected_in(home: Home, job_id: str) -> list[Stored]:
    """The newest version of each dataset in which somebody corrected an answer of this model."""
    newest: dict[str, Stored] = {}
    for stored in keep.list_datasets(home):
        newest.setdefault(stored.name, stored)
    return [stored for stored in newest.values() if _marked(stored) and _holds(stored.path, job_id)]


def users(base: str, jobs: Sequence[Job]) -> int:
    """How many finished adapters need a base model to run."""
    return sum(job.state == "done" and job.kind == "train" and job.model == base for job in jobs)


def _marked(stored: Stored) -> bool:
    columns = (stored.report or {}).get("columns")
    return stored.deleted_at is None and isinstance(columns, list) and MARK in columns


def _holds(path: Path, text: str) -> bool:
    try:
        with open(path, "rb") as file:
            return text.encode() in file.read(READ_BYTES)
    except OSError:
        return False
