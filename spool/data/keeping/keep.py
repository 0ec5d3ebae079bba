"""Datasets under datasets/NAME/VERSION/: the bytes as given, named by their hash, with what was found in them."""

import difflib
import errno
import fcntl
import hashlib
import io
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from spool.data.reading.limits import Limits
from spool.data.reading.table import printable
from spool.protocol import durable, settings
from spool.protocol.errors import DataError, NotFound
from spool.protocol.home import Home
from spool.protocol.jobs import iso, now_iso
from spool.protocol.process import locked

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
VERSION = re.compile(r"[0-9a-f]{12}")
RECORD = "dataset.json"
# The only file names a dataset ever gets; which one follows from how the file was read, never from what it was called.
PLAIN = ("csv", "tsv", "json", "jsonl", "txt", "parquet")
FILES = frozenset(f"data.{each}{packed}" for each in PLAIN for packed in ("", ".gz")) | {"data.zip"}
KEPT_PROBLEMS = 20
STALE_S = 3600


@dataclass(frozen=True)
class Stored:
    """One version of a stored dataset."""

    name: str
    version: str
    path: Path
    rows: int
    format: str | None
    """None where the layout was not recognised: it can be used with data.mapping."""
    added_at: str
    """When these bytes were last added (UTC, ISO 8601)."""
    original_name: str = ""
    report: dict[str, Any] | None = None
    parents: list[str] = field(default_factory=list)
    """The versions (NAME@VERSION) that a derived one was made from; empty for an upload."""
    recipe: list[dict[str, Any]] = field(default_factory=list)
    """The steps that made it from its parents (steps.py); `recipe.replay` does them again."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows of the parents (and files in them) that could not be read, and so are not in it: how many, by code."""
    size_bytes: int = 0
    deleted_at: str | None = None
    """When its bytes were deleted (UTC, ISO 8601); the record stays."""

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Origin:
    """Where a version comes from: a file that somebody uploaded, or a recipe and its parents."""

    original_name: str = ""
    parents: list[str] = field(default_factory=list)
    recipe: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


def add(home: Home, name: str, filename: str, data: bytes | Path | BinaryIO) -> Stored:
    """Keeps a file's bytes as a version of the dataset `name`. The same bytes are one version and are stored once.

    Memory stays bounded: bytes go to the disk as they are read.

    Args:
        filename: what the user's file was called; its ending helps to read it, and it is noted, no more.

    Raises:
        DataError: the name cannot be used, or the file cannot be read as rows. Nothing is left behind.
    """
    check_name(name)
    with drafting(home) as folder:
        ending = re.search(r"(\.[a-z0-9]{1,8})?(\.gz)?$", Path(filename).name.lower())
        draft = folder / f"data{ending[0] if ending else ''}"
        sha256 = _copy(data, draft)
        return settle(home, name, draft, sha256, Origin(original_name=printable(filename[:255])))


def settle(home: Home, name: str, draft: Path, sha256: str, origin: Origin, newest: bool = True) -> Stored:
    """Makes a finished file in a `drafting` folder a version of `name`: judges it, records it, moves it into place.

    Args:
        draft: synced; the only file in its folder.
        newest: bytes that are stored already become the newest version again, as the last upload counts.

    Raises:
        DataError: the file cannot be read as rows.
    """
    target = home.datasets / name / sha256[:12]
    known = _load(target)
    if known is None:
        named = origin.original_name or f"the new version of {name}"
        container, rows, format, report = _judged(draft, named, settings.load(home).data_limits)
        kept = draft.rename(draft.with_name(_file_name(container, draft)))
        document = {
            "schema": 1,
            "name": name,
            "version": sha256[:12],
            "file": kept.name,
            "original_name": origin.original_name,
            "size_bytes": kept.stat().st_size,
            "sha256": sha256,
            "rows": rows,
            "format": format,
            "added_at": _after_all(target.parent),
            "parents": origin.parents,
            "recipe": origin.recipe,
            "left_out": origin.left_out,
            "report": report,
        }
        durable.write_json(draft.parent / RECORD, document)
        target.parent.mkdir(exist_ok=True)
        durable.sync(draft.parent)
        try:
            durable.move(draft.parent, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if _load(target) is None:  # its record is damaged: the bytes are here anew
                durable.move(target, target.with_name(f".damaged-{target.name}-{time.time_ns()}"))
                durable.move(draft.parent, target)
            else:  # somebody added the same bytes meanwhile
                draft = kept
    if draft.exists():
        _added_again(target, draft, newest)
    stored = _load(target)
    assert stored is not None
    return stored


def list_datasets(home: Home) -> list[Stored]:
    """Every version of every dataset: by name, the newest version first."""
    if not home.datasets.is_dir():
        return []
    names = sorted(each.name for each in home.datasets.iterdir() if NAME.fullmatch(each.name) and each.is_dir())
    return [stored for name in names for stored in versions(home, name)]


def versions(home: Home, name: str, deleted: bool = False) -> list[Stored]:
    """The versions of one dataset, the newest first; or those that were deleted, of which only the record is left."""
    folder = home.datasets / name
    if not NAME.fullmatch(name) or not folder.is_dir():
        return []
    found = [_load(each) for each in folder.iterdir() if VERSION.fullmatch(each.name)]
    chosen = [each for each in found if each and (each.deleted_at is not None) == deleted]
    return sorted(chosen, key=lambda each: (each.added_at, each.version), reverse=True)


def find(home: Home, reference: str) -> Stored:
    """The dataset that NAME (its newest version) or NAME@VERSION stands for.

    Raises:
        NotFound: there is none (the hint names the nearest), or it was deleted (`dataset_deleted`).
    """
    name, at, version = reference.partition("@")
    kept = versions(home, name)
    for each in kept:
        if not at or each.version == version:
            return each
    for each in versions(home, name, deleted=True):
        if each.version == version or not (at or kept):
            day = (each.deleted_at or "")[:10]
            others = f"Stored versions: {', '.join(e.version for e in kept[:5])}." if kept else ""
            hint = f"Add the same bytes again to have it back. {others}".strip()
            raise NotFound(f"the dataset {each.reference} was deleted on {day}.", hint, "dataset_deleted")
    if kept:
        shown = ", ".join(f"{each.version} ({each.added_at[:10]})" for each in kept[:5])
        raise NotFound(f"the dataset {name} has no version {version[:80]!r}.", f"It has: {shown}.")
    names = sorted({each.name for each in list_datasets(home)})
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Stored: {', '.join(names[:10]) or 'none yet'}."
    raise NotFound(f"there is no dataset {name[:80]!r}.", hint)


def resolve(home: Home, reference: str) -> Path:
    """The data file of NAME or NAME@VERSION. It is not read; `verified` does that.

    Raises:
        NotFound: there is none; the hint names the nearest.
    """
    return find(home, reference).path


def verified(home: Home, reference: str) -> Stored:
    """The dataset behind a reference, with its bytes compared to its version: the whole file is read (1 GB: 1 s).

    Raises:
        NotFound: there is none, or it was deleted.
        DataError: `dataset_changed`, the bytes are gone or are others than those that were added.
    """
    stored = find(home, reference)
    verify(stored)
    return stored


def verify(stored: Stored) -> None:
    """Compares a version's bytes to its name.

    Raises:
        DataError: `dataset_changed`, the bytes are gone or are others than those that were added.
    """
    hint = "Add the file again under the same name; a changed file becomes a version of its own."
    try:
        sha256 = _sha256(stored.path)
    except OSError as error:
        message = f"the data of {stored.reference} cannot be read: {error.strerror}."
        raise DataError(message, hint, "dataset_changed") from None
    if sha256[:12] != stored.version:
        message = f"the data of {stored.reference} was changed on the disk: its bytes are not those that were added."
        raise DataError(message, hint, "dataset_changed")


def clean_name(filename: str) -> str:
    """A clean dataset name made from a file's: "Übersicht (2024).csv" becomes Ubersicht-2024."""
    stem = Path(filename.replace("\\", "/")).name
    stem = re.sub(r"(\.[A-Za-z]{2,7})+$", "", stem)
    plain = unicodedata.normalize("NFKD", stem.replace("ß", "ss")).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._]+", "-", plain).strip("-._")[:80].strip("-._") or "dataset"


def check_name(name: str) -> None:
    """Refuses what is no dataset name.

    Raises:
        DataError: it has other characters than letters, digits, dots, dashes and underscores, or too many.
    """
    if not NAME.fullmatch(name):
        hint = f"Use letters, digits, dots, dashes and underscores, at most 80: for example {clean_name(name)}."
        raise DataError(f"{name[:80]!r} cannot be a dataset's name.", hint, "bad_name")


def _judged(path: Path, filename: str, limits: Limits) -> tuple[str, int, str | None, dict[str, Any]]:
    """(container, rows, format, summary). A file whose layout is not recognised is kept: a mapping may come later."""
    from spool.data.judging.scan import scan  # here, for the daemon only resolves names and stays small

    try:
        found = scan(path, limits=limits, alone=True)
    except DataError as error:
        try:
            return _unrecognised(path, error, limits)
        except DataError as unreadable:
            message = unreadable.message.replace(str(path), filename).replace(path.name, filename)
            raise DataError(message, unreadable.hint, unreadable.code) from None
    summary = {
        "rows": found.tally.rows,
        "usable_rows": found.usable,
        "columns": found.columns,
        "encoding": found.encoding,
        "reading": found.note,
        "notices": found.notices,
        "mapping": found.layout.roles,
        "confidence": found.layout.confidence,
        "problem_count": sum(found.tally.findings.counts.values()),
        "problems": found.tally.findings.to_json()[:KEPT_PROBLEMS],
    }
    return found.container, found.tally.rows, found.layout.format, summary


def _unrecognised(path: Path, error: DataError, limits: Limits) -> tuple[str, int, None, dict[str, Any]]:
    """What can be said of a file whose rows are there and whose layout is not known. Raises `error` for any other."""
    from spool.data.reading.read import Reading
    from spool.data.reading.table import Record

    reading = Reading(path, limits=limits)
    readable, dropped = 0, 0
    for item in reading:
        readable += isinstance(item, Record)
        dropped += not isinstance(item, Record) and item.action == "dropped"
    if not readable:
        raise error
    summary = {"error": error.to_json(), "columns": reading.columns, "encoding": reading.encoding}
    return reading.container, readable + dropped, None, summary


def _file_name(container: str, path: Path) -> str:
    """One of FILES, by what the bytes are."""
    with open(path, "rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04":
        return "data.zip"
    packed = ".gz" if start[:2] == b"\x1f\x8b" else ""
    return f"data.{container}{packed}"


def _copy(data: bytes | Path | BinaryIO, target: Path) -> str:
    """Writes the bytes and fsyncs them; gives their SHA-256."""
    from spool.data.reading.source import open_regular

    if isinstance(data, Path):
        with open_regular(data) as source:
            return _copy(source, target)
    source = io.BytesIO(data) if isinstance(data, bytes) else data
    digest = hashlib.sha256()
    with open(target, "xb") as out:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


@contextmanager
def drafting(home: Home) -> Iterator[Path]:
    """A folder beside the datasets whose name no dataset can have; gone afterwards unless it was renamed away."""
    home.create()
    for left in home.datasets.glob(".adding-*"):
        if _age_s(left) > STALE_S and not _in_use(left):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
    folder = home.datasets / f".adding-{os.getpid()}-{os.urandom(6).hex()}"
    folder.mkdir()
    try:
        with locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _in_use(folder: Path) -> bool:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _age_s(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _added_again(target: Path, draft: Path, newest: bool) -> None:
    """Known bytes: their version is the newest one again, and has its bytes back where they are gone or damaged."""
    with locked(target):
        document = durable.read_json(target / RECORD)
        deleted = document.pop("deleted_at", None)
        data = target / document["file"]
        if deleted or not data.exists() or _sha256(data)[:12] != target.name:
            durable.move(draft, data)
        if newest or deleted:
            document["added_at"] = _after_all(target.parent)
            durable.write_json(target / RECORD, document)


def _after_all(dataset: Path) -> str:
    """Now, but later than each version of the dataset: two may be added within a millisecond, and clocks jump back."""
    versions = map(_load, dataset.iterdir()) if dataset.is_dir() else ()
    latest = max((each.added_at for each in versions if each), default="")
    now = now_iso()
    if now > latest:
        return now
    return iso((datetime.fromisoformat(latest) + timedelta(milliseconds=1)).timestamp())


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(folder: Path) -> Stored | None:
    """A stored version, or None where its record is missing or broken: it was never completed."""
    try:
        document = durable.read_json(folder / RECORD)
        if document["file"] not in FILES:
            return None
        return Stored(
            name=folder.parent.name,
            version=folder.name,
            path=folder / document["file"],
            rows=document["rows"],
            format=document["format"],
            added_at=document["added_at"],
            original_name=document.get("original_name", ""),
            report=document.get("report"),
            parents=document.get("parents", []),
            recipe=document.get("recipe", []),
            left_out=document.get("left_out", {}),
            size_bytes=document.get("size_bytes", 0),
            deleted_at=document.get("deleted_at"),
        )
    except (ValueError, KeyError, TypeError, OSError):
        return None


def to_json(stored: Stored) -> dict[str, Any]:
    return {**asdict(stored), "path": str(stored.path)}
