"""Datasets under datasets/NAME/VERSION/: the bytes as given, named by their hash, with what was found in them."""

import difflib
import hashlib
import io
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spool.protocol import durable
from spool.protocol.errors import DataError, NotFound
from spool.protocol.home import Home
from spool.protocol.jobs import now_iso

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
VERSION = re.compile(r"[0-9a-f]{12}")
RECORD = "dataset.json"
# The only file names a dataset ever gets; which one follows from how the file was read, never from what it was called.
FILES = {container: f"data.{container}" for container in ("csv", "tsv", "json", "jsonl", "txt")}
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

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


def add(home: Home, name: str, filename: str, data: bytes | Path) -> Stored:
    """Keeps a file's bytes as a version of the dataset `name`. The same bytes are one version and are stored once.

    Args:
        filename: what the user's file was called; its ending helps to read it, and it is noted, no more.

    Raises:
        DataError: the name cannot be used, or the file cannot be read as rows. Nothing is left behind.
    """
    check_name(name)
    home.create()
    with _temporary(home) as folder:
        ending = Path(filename).suffix.lower()
        draft = folder / ("data" + (ending if re.fullmatch(r"\.[a-z0-9]{1,8}", ending) else ""))
        version, size_bytes = _copy(data, draft)
        known = _load(home.datasets / name / version)
        if known is not None:
            return _added_again(known)
        container, rows, format, report = _judged(draft, filename)
        kept = draft.rename(folder / FILES[container])
        document = {
            "schema": 1,
            "name": name,
            "version": version,
            "file": kept.name,
            "original_name": filename[:255],
            "size_bytes": size_bytes,
            "rows": rows,
            "format": format,
            "added_at": now_iso(),
            "report": report,
        }
        durable.write_json(folder / RECORD, document)
        target = home.datasets / name / version
        target.parent.mkdir(exist_ok=True)
        _commit(folder, target)
    stored = _load(target)
    assert stored is not None
    return stored


def list_datasets(home: Home) -> list[Stored]:
    """Every version of every dataset: by name, the newest version first."""
    if not home.datasets.is_dir():
        return []
    names = sorted(each.name for each in home.datasets.iterdir() if NAME.fullmatch(each.name) and each.is_dir())
    return [stored for name in names for stored in versions(home, name)]


def versions(home: Home, name: str) -> list[Stored]:
    """The versions of one dataset, the newest first."""
    folder = home.datasets / name
    if not NAME.fullmatch(name) or not folder.is_dir():
        return []
    found = [_load(each) for each in folder.iterdir() if VERSION.fullmatch(each.name)]
    return sorted((each for each in found if each), key=lambda each: (each.added_at, each.version), reverse=True)


def find(home: Home, reference: str) -> Stored:
    """The dataset that NAME (its newest version) or NAME@VERSION stands for.

    Raises:
        NotFound: there is none; the hint names the nearest.
    """
    name, at, version = reference.partition("@")
    kept = versions(home, name)
    if not kept:
        names = sorted({each.name for each in list_datasets(home)})
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Stored: {', '.join(names[:10]) or 'none yet'}."
        raise NotFound(f"there is no dataset {name[:80]!r}.", hint)
    for each in kept:
        if not at or each.version == version:
            return each
    shown = ", ".join(f"{each.version} ({each.added_at[:10]})" for each in kept[:5])
    raise NotFound(f"the dataset {name} has no version {version[:80]!r}.", f"It has: {shown}.")


def resolve(home: Home, reference: str) -> Path:
    """The data file of NAME or NAME@VERSION.

    Raises:
        NotFound: there is none; the hint names the nearest.
    """
    return find(home, reference).path


def clean_name(filename: str) -> str:
    """A clean dataset name made from a file's: "Übersicht (2024).csv" becomes Ubersicht-2024."""
    stem = Path(filename.replace("\\", "/")).name
    stem = re.sub(r"(\.[A-Za-z]{2,7})+$", "", stem)
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._]+", "-", plain).strip("-._")[:80].strip("-._") or "dataset"


def check_name(name: str) -> None:
    """Refuses what is no dataset name.

    Raises:
        DataError: it has other characters than letters, digits, dots, dashes and underscores, or too many.
    """
    if not NAME.fullmatch(name):
        hint = f"Use letters, digits, dots, dashes and underscores, at most 80: for example {clean_name(name)}."
        raise DataError(f"{name[:80]!r} cannot be a dataset's name.", hint, "bad_name")


def _judged(path: Path, filename: str) -> tuple[str, int, str | None, dict[str, Any]]:
    """(container, rows, format, summary). A file whose layout is not recognised is kept: a mapping may come later."""
    from spool.data.check import check  # here, for the daemon only resolves names and stays small
    from spool.data.read import read

    try:
        report = check(path)
    except DataError as error:
        try:
            table = read(path)
        except DataError as unreadable:
            message = unreadable.message.replace(str(path), filename).replace(path.name, filename)
            raise DataError(message, unreadable.hint, unreadable.code) from None
        summary: dict[str, Any] = {"error": error.to_json(), "columns": table.columns, "encoding": table.encoding}
        return table.container, table.rows, None, summary
    summary = report.to_json()
    summary["problem_count"] = len(report.problems)
    summary["problems"] = summary["problems"][:KEPT_PROBLEMS]
    return report.container, report.rows, report.format, summary


def _copy(data: bytes | Path, target: Path) -> tuple[str, int]:
    """Writes the bytes and fsyncs them; gives (version, size)."""
    from spool.data.read import open_regular

    digest, size_bytes = hashlib.sha256(), 0
    source = io.BytesIO(data) if isinstance(data, bytes) else open_regular(data)
    with source, open(target, "xb") as out:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            out.write(chunk)
            size_bytes += len(chunk)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()[:12], size_bytes


@contextmanager
def _temporary(home: Home) -> Iterator[Path]:
    """A folder beside the datasets whose name no dataset can have; gone afterwards unless it was renamed away."""
    for left in home.datasets.glob(".adding-*"):
        if _age_s(left) > STALE_S:  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
    folder = home.datasets / f".adding-{os.getpid()}-{os.urandom(6).hex()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _age_s(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _commit(folder: Path, target: Path) -> None:
    durable.sync(folder)
    try:
        durable.move(folder, target)
    except OSError:
        if _load(target) is None:  # else somebody added the same bytes meanwhile
            raise


def _added_again(stored: Stored) -> Stored:
    """Adding known bytes makes their version the newest one again: the last upload is what its name stands for."""
    record = stored.path.parent / RECORD
    document = durable.read_json(record)
    document["added_at"] = now_iso()
    durable.write_json(record, document)
    return replace(stored, added_at=document["added_at"])


def _load(folder: Path) -> Stored | None:
    """A stored version, or None where its record is missing or broken: it was never completed."""
    try:
        document = durable.read_json(folder / RECORD)
        file = document["file"]
        if file not in FILES.values():
            return None
        return Stored(
            name=folder.parent.name,
            version=folder.name,
            path=folder / file,
            rows=document["rows"],
            format=document["format"],
            added_at=document["added_at"],
            original_name=document.get("original_name", ""),
            report=document.get("report"),
        )
    except (ValueError, KeyError, TypeError, OSError):
        return None


def to_json(stored: Stored) -> dict[str, Any]:
    return {**asdict(stored), "path": str(stored.path)}
