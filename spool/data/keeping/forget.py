"""Deleting a dataset's bytes: who needs them is asked first, and the record stays."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from spool.data.keeping import keep
from spool.data.keeping.keep import RECORD, Stored
from spool.protocol import durable
from spool.protocol.errors import DataError
from spool.protocol.home import FINAL, Home
from spool.protocol.jobs import DROP_BYTES, now_iso
from spool.protocol.process import locked
from spool.protocol.states import Tokens
from spool.protocol.ulid import is_ulid

STORED_PATH = re.compile(r"([^/]+)/([0-9a-f]{12})/data\.[a-z.]+$")


def used_by(home: Home, stored: Stored) -> list[str]:
    """The ids of the jobs that used or will use a version, or one that was made from it; the oldest first."""
    return sorted(_users(home, {stored.reference} | _descendants(home, stored)))


def needed_by(home: Home, stored: Stored) -> list[str]:
    """The ids of the jobs that have not ended and read this very version; the oldest first."""
    return sorted(job_id for job_id in _users(home, {stored.reference}) if not _has_ended(home, job_id))


def delete(home: Home, reference: str, force: bool = False) -> Stored:
    """Deletes a version's bytes. Its record stays, with `deleted_at`; adding the same bytes again brings it back.

    Args:
        force: also where ended jobs used it, or others were made from it: those can then not be made again.

    Raises:
        NotFound: there is none, or it was deleted already.
        DataError: `in_use`; with `force` only where a job that has not ended needs it.
    """
    stored = keep.find(home, reference)
    folder = stored.path.parent
    with locked(folder):
        if needing := needed_by(home, stored):
            message = f"{stored.reference} cannot be deleted: {_jobs(needing)} still to be trained on it."
            raise DataError(message, "Cancel them first, or wait until they have ended.", "in_use")
        using, made = used_by(home, stored), _descendants(home, stored)
        if (using or made) and not force:
            what = [_jobs(using)] if using else []
            what += [f"{', '.join(sorted(made)[:5])}{' …' if len(made) > 5 else ''}"] if made else []
            message = f"{stored.reference} was used by {' and '.join(what)}."
            hint = "They keep what they have; but without these bytes none can be made again. Delete it with force."
            raise DataError(message, hint, "in_use")
        document = durable.read_json(folder / RECORD)
        deleted_at = now_iso()
        # the record first: without bytes and without this date it would look like damage
        durable.write_json(folder / RECORD, {**document, "deleted_at": deleted_at})
        stored.path.unlink(missing_ok=True)
        durable.sync(folder)
    return replace(stored, deleted_at=deleted_at)


def _jobs(ids: list[str]) -> str:
    shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return f"the job {shown}" if len(ids) == 1 else f"the jobs {shown}"


def _descendants(home: Home, stored: Stored) -> set[str]:
    """References of the versions that were made from this one, directly or not; deleted ones do not count."""
    parents = {each.reference: set(each.parents) for each in keep.list_datasets(home)}
    found: set[str] = set()
    wave = {stored.reference}
    while wave:
        wave = {child for child, theirs in parents.items() if theirs & wave} - found - {stored.reference}
        found |= wave
    return found


def _users(home: Home, references: set[str]) -> set[str]:
    newest: dict[str, str] = {}
    for stored in keep.list_datasets(home):
        newest.setdefault(stored.name, stored.version)
    return {job_id for job_id, dataset, known in _jobs_of(home) if _meant(dataset, known, newest) in references}


def _jobs_of(home: Home) -> Iterator[tuple[str, Any, Any]]:
    """(id, the spec's dataset, the version that it turned out to be, where that is known) of every job."""
    for run in home.runs.iterdir() if home.runs.is_dir() else ():
        if is_ulid(run.name):
            found = _read(run / "data" / "prepared.json").get("dataset")
            known = found.get("version") if isinstance(found, dict) else None
            yield run.name, _read(run / "spec.json").get("dataset"), known
    for folder in (home.incoming, home.accepting):
        for drop in folder.glob("*.json"):
            if is_ulid(drop.stem):
                yield drop.stem, _read(drop).get("dataset"), None


def _meant(dataset: Any, known: Any, newest: dict[str, str]) -> str | None:
    """The version that a spec's dataset names: NAME@VERSION, NAME, or the path of its file."""
    if not isinstance(dataset, str):
        return None
    if path := STORED_PATH.search(dataset):
        return f"{path[1]}@{path[2]}"
    return dataset if "@" in dataset else f"{dataset}@{known or newest.get(dataset)}"


def _has_ended(home: Home, job_id: str) -> bool:
    """Also where only its folder is left; a drop that is not taken yet has not."""
    found = Tokens(home).find(job_id)
    if found:
        return found[0] in FINAL
    return not any((folder / f"{job_id}.json").exists() for folder in (home.incoming, home.accepting))


def _read(path: Path) -> dict[str, Any]:
    """A small JSON object, or an empty one: what is dropped may be anything, a pipe or gigabytes."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return {}
    try:
        document = orjson.loads(os.read(fd, DROP_BYTES)) if stat.S_ISREG(os.fstat(fd).st_mode) else {}
    except (OSError, ValueError):
        return {}
    finally:
        os.close(fd)
    return document if isinstance(document, dict) else {}
