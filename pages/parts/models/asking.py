"""Jobs that evaluate: which models can be asked, what they are asked, and how one is asked for just once."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pages.parts.models import making
from spool.protocol import dropbox
from spool.protocol.home import Home
from spool.protocol.jobs import Job
from spool.protocol.spec import SCHEMA_VERSION
from spool.protocol.ulid import derived, mint

ROWS, MOST_ROWS = 120, 2000
MOST_MODELS = 20
"""So many are asked at once at most: each is a job of some minutes."""


@dataclass(frozen=True)
class Wanted:
    """What is asked: so many rows of a dataset (None: of those that each training kept), and the general questions."""

    dataset: str | None = None
    rows: int = ROWS
    general: bool = True


def usable(home: Home, job_id: str) -> bool:
    """Whether its adapter is there."""
    return os.path.exists(f"{home.runs}/{job_id}/exports/adapter/adapter_config.json")


def of(home: Home, everything: Iterable[Job]) -> dict[str, list[Job]]:
    """Training -> the jobs that evaluate it, oldest first."""
    found: dict[str, list[Job]] = {}
    for job in everything:
        if job.kind == "evaluate" and (asked := making.asked(home, job).of):
            found.setdefault(asked, []).append(job)
    return found


def submit(home: Home, model: Job, wanted: Wanted, name: str, before: Sequence[Job]) -> str:
    """Drops one job and gives its id, which follows from the model, what is asked and how many such jobs have ended: a
    second click, tab or person that asks for the same at the same time gets the same job.

    Raises:
        OSError, FinetunerError: it could not be dropped.
    """
    rows = min(MOST_ROWS, max(1, wanted.rows))
    asked = hashlib.sha256(f"{wanted.dataset or ''}/{rows}/{wanted.general}".encode()).hexdigest()[:16]
    submission_id = f"evaluate-{model.id}-{sum(job.ended for job in before)}-{asked}"
    job_id = derived(model.id, submission_id)
    if (home.rejected / job_id).exists():
        job_id = mint()
    spec: dict[str, Any] = {"schema": SCHEMA_VERSION, "kind": "evaluate", "name": name[:120], "job": model.id}
    spec |= {"dataset": wanted.dataset} if wanted.dataset else {}
    return dropbox.submit(
        home, {**spec, "rows": rows, "general": wanted.general, "submission_id": submission_id}, job_id
    )
