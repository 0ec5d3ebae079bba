"""Deleting what a job has made: who depends on it, the order for the runner, and the record that stays.

An order is control/delete-ID; what is in it says by whom ({"by": "ann"}), an empty file is as good. The runner removes
exports/ and checkpoints/ and writes runs/ID/removed.json first; spec, metrics, outcome and log stay.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from spool.protocol import durable, jobs
from spool.protocol.errors import FinetunerError
from spool.protocol.home import FINAL, Home, Run, State
from spool.protocol.jobs import DROP_BYTES
from spool.protocol.references import runs_named
from spool.protocol.ulid import is_ulid

ORDER_BYTES = 4096
LIVE = tuple(state for state in State if state not in FINAL)


@dataclass(frozen=True)
class Removed:
    """What was removed of a job, when (UTC, ISO 8601) and by whom."""

    at: str
    by: str | None
    size_bytes: int
    what: tuple[str, ...]
    """Names of the exports (adapter, merged), and `checkpoints`."""


def read(run: Run) -> Removed | None:
    """None where nothing was removed, or where the record is damaged."""
    document = _small(run.removed)
    at, by, size, what = (document.get(name) for name in ("at", "by", "bytes", "what"))
    if not isinstance(at, str) or not isinstance(what, list):
        return None
    names = tuple(str(name)[:80] for name in what[:20])
    return Removed(at, str(by)[:200] if by else None, size if isinstance(size, int) else 0, names)


def ask(home: Home, job_id: str, by: str | None, started_in: Path) -> None:
    """Asks the runner to delete what an ended job has made. Asked twice it is one order.

    Raises:
        NotFound: there is no such job.
        FinetunerError: it has not ended or was never a job, its files are gone already, or another job needs them.
    """
    job = jobs.get_job(home, job_id)
    if job.state not in FINAL:
        hint = "Only what an ended job has made can be deleted." + ("" if job.ended else " Cancel it first.")
        raise FinetunerError(f"job {job_id} is {job.state}.", hint, "not_ended")
    if read(home.run(job_id)) and not os.path.lexists(home.run(job_id).exports):
        raise FinetunerError(f"the files of job {job_id} were removed already.", "Nothing is left to do.", "removed")
    if needing := needed_by(home, job_id, started_in):
        hint = "Cancel what waits on it, or wait until it has ended."
        raise FinetunerError(f"{_named(needing)} still needs the files of job {job_id}.", hint, "in_use")
    home.create()
    durable.write_json(order(home, job_id), {"by": (by or "")[:200] or None})


def order(home: Home, job_id: str) -> Path:
    """Where the order lies until the runner has carried it out."""
    return home.control / f"delete-{job_id}"


def asked_by(path: Path) -> str | None:
    """Who gave an order: as it says itself, else None."""
    by = _small(path, ORDER_BYTES).get("by")
    return by[:200] if isinstance(by, str) and by else None


def needed_by(home: Home, job_id: str, started_in: Path) -> list[str]:
    """The ids of the jobs that have not ended, or are not taken yet, and name this one; the oldest first."""
    return sorted(each for each, named in needs(home, started_in).items() if job_id in named and each != job_id)


def needs(home: Home, started_in: Path) -> dict[str, frozenset[str]]:
    """Each job that has not ended, and each drop that is not taken yet (by its file's name), with the runs it names."""
    found = {}
    for folder in (home.incoming, home.accepting):
        for path in _listed(folder):
            found[path.stem] = runs_named(home, started_in, durable.first_bytes(path, DROP_BYTES))
    for state in LIVE:
        for path in _listed(home.state(state)):
            if is_ulid(job_id := path.name[-31:-5]):
                found[job_id] = runs_named(home, started_in, durable.first_bytes(home.run(job_id).spec, DROP_BYTES))
    return found


def _named(ids: list[str]) -> str:
    shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return f"the job {shown}" if len(ids) == 1 else f"each of the jobs {shown}"


def _listed(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder) if not name.startswith(".")]
    except FileNotFoundError:
        return []


def _small(path: Path, most_bytes: int = DROP_BYTES) -> dict[str, Any]:
    try:
        document = orjson.loads(durable.first_bytes(path, most_bytes))
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
