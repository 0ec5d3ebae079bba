"""Notes and tags that people put on jobs: HOME/notes/ID.json, written whole; the last writer counts and is named."""

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from spool.protocol import durable, jobs
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.jobs import now_iso
from spool.protocol.ulid import is_ulid

LONGEST_TEXT = 4000
LONGEST_TAG = 32
MOST_TAGS = 12
FILE_BYTES = 64 * 1024
TAG = re.compile(r"\w[\w .:/+#-]*")


@dataclass(frozen=True)
class Note:
    """What somebody wrote on a job; empty where nobody has."""

    text: str = ""
    tags: tuple[str, ...] = ()
    by: str | None = None
    at: str | None = None
    """UTC, ISO 8601."""

    def __bool__(self) -> bool:
        return bool(self.text or self.tags)

    def to_json(self) -> dict[str, Any]:
        return {"text": self.text, "tags": list(self.tags), "by": self.by, "at": self.at}


def read(home: Home, job_id: str) -> Note:
    """The note on a job; an empty one where there is none, or where its file is damaged."""
    return _read(home.notes / f"{job_id}.json") if is_ulid(job_id) else Note()


def read_all(home: Home) -> dict[str, Note]:
    """Every note that says something, by job."""
    try:
        names = os.listdir(home.notes)
    except OSError:
        return {}
    ids = [name.removesuffix(".json") for name in names if is_ulid(name.removesuffix(".json"))]
    return {job_id: note for job_id in ids if (note := _read(home.notes / f"{job_id}.json"))}


def write(home: Home, job_id: str, text: str, tags: Iterable[str], by: str | None = None) -> Note:
    """Replaces the note on a job; both empty take it away.

    Raises:
        NotFound: there is no such job.
        FinetunerError: the text or a tag cannot be kept as it is.
    """
    jobs.get_job(home, job_id)
    note = Note(_text(text), clean_tags(tags), (by or "")[:200] or None, now_iso())
    home.create()
    path = home.notes / f"{job_id}.json"
    if note:
        durable.write_json(path, {"v": 1, **note.to_json()})
    elif path.exists():
        path.unlink()
        durable.sync(home.notes)
    return note


def clean_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """In the order given, each once whatever its capitals, blanks put right.

    Raises:
        FinetunerError: one is too long or holds other signs, or there are too many.
    """
    kept: dict[str, str] = {}
    for tag in tags:
        plain = " ".join(str(tag).split())
        if not plain:
            continue
        if len(plain) > LONGEST_TAG or not TAG.fullmatch(plain):
            hint = f"Letters, digits, blanks and . : / + # - are possible, {LONGEST_TAG} at most."
            raise FinetunerError(f"{plain[:60]!r} cannot be a tag.", hint, "bad_tag")
        kept.setdefault(plain.casefold(), plain)
    if len(kept) > MOST_TAGS:
        raise FinetunerError(f"{len(kept)} tags are too many.", f"Keep {MOST_TAGS} at most.", "bad_tag")
    return tuple(kept.values())


def _text(text: str) -> str:
    plain = "".join(c for c in text.replace("\r\n", "\n") if c in "\n\t" or c.isprintable()).strip()
    if len(plain) > LONGEST_TEXT:
        message = f"the note has {len(plain):,} characters."
        raise FinetunerError(message, f"Shorten it to {LONGEST_TEXT:,}.", "note_too_long")
    return plain


def _read(path: Path) -> Note:
    """What lies there may be anything: a pipe, a link, gigabytes."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return Note()
    try:
        document = orjson.loads(os.read(fd, FILE_BYTES)) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    except (OSError, ValueError):
        return Note()
    finally:
        os.close(fd)
    if not isinstance(document, dict):
        return Note()
    text, tags, by, at = (document.get(name) for name in ("text", "tags", "by", "at"))
    try:
        kept = clean_tags(tags[:MOST_TAGS]) if isinstance(tags, list) else ()
    except FinetunerError:
        kept = ()
    return Note(
        text[:LONGEST_TEXT] if isinstance(text, str) else "",
        kept,
        by[:200] if isinstance(by, str) else None,
        at if isinstance(at, str) else None,
    )
