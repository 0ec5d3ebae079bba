"""Jobs that make exports: which model each is for, what it has made so far, and how one is asked for just once."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from pages.parts.escape import one_line
from pages.parts.models import proof, shelf
from pages.parts.models.shelf import Export
from pages.parts.phrases import translated
from pages.parts.run import tail
from spool.protocol import dropbox, formats
from spool.protocol.home import Home
from spool.protocol.jobs import DROP_BYTES, Job
from spool.protocol.parse import parse_spec
from spool.protocol.spec import SCHEMA_VERSION
from spool.protocol.ulid import derived, is_ulid, mint

WAITS, MAKING, PROVING, MISSING = "waits", "making", "proving", "missing"
"""How a format stands that is not there yet; MISSING where its job ended without it."""


@dataclass(frozen=True)
class Asked:
    """What a job of kind export is to make, and of which training."""

    of: str | None
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One format of a job: `state` is one of above or of proof; `why` is said of one that failed."""

    kind: str
    state: str
    export: Export | None = None
    why: str = ""

    @property
    def there(self) -> bool:
        return self.export is not None


def asked(home: Home, job: Job) -> Asked:
    """What a job was asked for; nothing where its spec cannot be read."""
    for path in (home.run(job.id).spec, home.incoming / f"{job.id}.json", home.accepting / f"{job.id}.json"):
        try:
            return _asked(path, path.stat().st_mtime_ns)
        except (OSError, ValueError):
            continue
    return Asked(None, ())


@lru_cache(maxsize=4096)
def _asked(path: Path, changed_ns: int) -> Asked:
    with open(path, "rb") as file:
        spec = orjson.loads(file.read(DROP_BYTES))
    if not isinstance(spec, dict):
        raise ValueError("it is no JSON object")
    of, wanted = spec.get("job"), spec.get("export", ["merged"])
    named = set(map(str, wanted)) if isinstance(wanted, list) else set()
    return Asked(of if isinstance(of, str) and is_ulid(of) else None, _in_order(named))


def of(home: Home, everything: Iterable[Job], job_id: str) -> list[Job]:
    """The jobs that make exports of a training, oldest first."""
    return [job for job in everything if job.kind == "export" and asked(home, job).of == job_id]


def rows(home: Home, job: Job) -> list[Row]:
    """What a job has made and what it still has to: a line for each format that it was asked for."""
    wanted = asked(home, job)
    kinds = list(wanted.kinds)
    folder = home.run(wanted.of or job.id).exports
    at, now = _at_work(home, job)
    told: dict[str, Any] = (job.result or {}).get("exports") or {}
    failed = _failures(home, job)
    found = []
    for kind in kinds:
        export = _there(folder, kind)
        error = (told.get(kind) or {}).get("error") or {}
        if export is not None:
            found.append(Row(kind, export.state, export))
        elif kind in failed or error:
            found.append(
                Row(kind, proof.FAILED, None, failed.get(kind) or one_line(translated(error.get("message") or ""), 300))
            )
        elif job.ended:
            found.append(Row(kind, MISSING))
        else:
            found.append(Row(kind, now if kind == at else WAITS))
    return found


def _there(folder: Path, kind: str) -> Export | None:
    place = folder / formats.folder(kind)
    size_bytes = shelf.size(place)
    return Export(kind, place, size_bytes, proof.read(place)) if size_bytes else None


def share(found: Sequence[Row]) -> float:
    """How much is done, each format's making and proving as one half of it."""
    done = {WAITS: 0.0, MAKING: 0.0, PROVING: 0.5}
    return sum(done.get(row.state, 1.0) for row in found) / len(found) if found else 0.0


def _at_work(home: Home, job: Job) -> tuple[str, str]:
    """(the format that is at work, making or proving); empty where none is."""
    if job.state != "running":
        return "", WAITS
    for row in tail.events(home.run(job.id).events):
        verb, _, kind = str(row.get("phase") or "").partition(" ")
        if verb in (MAKING, PROVING) and kind in formats.FORMATS:
            return kind, verb
    return "", WAITS


def _failures(home: Home, job: Job) -> dict[str, str]:
    """Format -> why, of those that could not be made, as the job's notes say."""
    found = {}
    for row in tail.events(home.run(job.id).events)[::-1]:
        kind, mark, why = str(row.get("words") or "").partition(" could not be made: ")
        if mark and kind in formats.FORMATS:
            found[kind] = one_line(why, 300)
    return found


def _in_order(kinds: Iterable[str]) -> tuple[str, ...]:
    wanted = set(kinds)
    return tuple(kind for kind in formats.FORMATS if kind in wanted)


# ---- asking for one


def submit(
    home: Home,
    model: Job,
    kinds: Iterable[str],
    name: str,
    before: Sequence[Job],
    push: Mapping[str, Any] | None = None,
) -> str:
    """Drops one job and gives its id, which follows from the model, the formats and how many such jobs have ended: a
    second click, tab or person that asks for the same at the same time gets the same job.

    Args:
        push: `repo` and `private` of a repository on the hub that it goes to.

    Raises:
        SpecError: the hub would take no such name.
        OSError, FinetunerError: it could not be dropped.
    """
    wanted = list(_in_order(kinds))
    where = [f"{push['repo']} {push['private']}"] if push else []
    asked_for = hashlib.sha256("/".join([*wanted, *where]).encode()).hexdigest()[:16]
    submission_id = f"export-{model.id}-{sum(job.ended for job in before)}-{asked_for}"
    job_id = derived(model.id, submission_id)
    if (home.rejected / job_id).exists():
        job_id = mint()
    spec: dict[str, Any] = {"schema": SCHEMA_VERSION, "kind": "export", "name": name[:120], "job": model.id}
    spec |= {"export": wanted, "submission_id": submission_id} | ({"push": dict(push)} if push else {})
    parse_spec(orjson.dumps(spec))
    return dropbox.submit(home, spec, job_id)
