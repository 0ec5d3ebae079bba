"""Text files of a run to show: its log and what is searched in it, its events, the start of a rejected drop.

Nothing here reads more than the end of a file, and what has not changed is not read again.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pages.parts import escape, words
from pages.parts.phrases import translated
from pages.parts.texts import has, t
from spool.protocol import metrics

LOG_BYTES = 64_000
LOG_LINES = 200
SEARCHED_BYTES = 8_000_000
"""As far back as a search goes: some 100,000 lines, in a tenth of a second."""

ROWS_BYTES = 4_000_000


@dataclass(frozen=True)
class Found:
    """What a search found: `lines` to show, how many lines hold the words, and whether the file goes further back."""

    lines: str
    hits: int
    cut: bool


def log(path: Path, lines: int = LOG_LINES, tail_bytes: int = LOG_BYTES) -> str:
    """The last lines of a log as plain text; empty where there is none yet."""
    text, _ = _end(path, tail_bytes)
    return "\n".join(text.rstrip().split("\n")[-lines:])


def search(path: Path, asked: str, every: bool = False, lines: int = LOG_LINES) -> Found:
    """The newest lines of a log that hold some words, in whatever case; or all of the newest, with marks.

    Args:
        every: the last lines as they are, each that holds the words behind an arrow.
    """
    wanted = asked.casefold()
    text, cut = _end(path, SEARCHED_BYTES)
    told = text.rstrip().split("\n") if text.strip() else []
    hits = [line for line in told if wanted in line.casefold()]
    if not every:
        return Found("\n".join(hits[-lines:]), len(hits), cut)
    marked = [("→ " if wanted in line.casefold() else "  ") + line for line in told[-lines:]]
    return Found("\n".join(marked), len(hits), cut)


def _end(path: Path, most_bytes: int) -> tuple[str, bool]:
    """The end of a text file from the start of a line, and whether something stands before it."""
    try:
        stat = path.stat()
    except OSError:
        return "", False
    return _read_end(path, most_bytes, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8)
def _read_end(path: Path, most_bytes: int, inode: int, size: int, changed_ns: int) -> tuple[str, bool]:
    data = _bytes(path, most_bytes)
    return escape.lines(data.decode("utf-8", "replace")), size > most_bytes


def _bytes(path: Path, most_bytes: int) -> bytes:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - most_bytes))
            data = file.read(most_bytes)
    except OSError:
        return b""
    return data.partition(b"\n")[2] if size > most_bytes else data


def head(path: Path, most_bytes: int = 64_000) -> str:
    """The start of a small text file, whatever is in it; empty where there is none."""
    try:
        with open(path, "rb") as file:
            return escape.lines(file.read(most_bytes).decode("utf-8", "replace"))
    except OSError:
        return ""


def rows(path: Path) -> Sequence[dict[str, Any]]:
    """The objects of a small file of JSON lines, oldest first: of a very large one those of its end."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return _rows(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _rows(path: Path, inode: int, size: int, changed_ns: int) -> Sequence[dict[str, Any]]:
    return tuple(metrics.parse(_bytes(path, ROWS_BYTES))[0])


def events(path: Path, most: int = 200) -> list[dict[str, Any]]:
    """The newest events, newest first."""
    return list(rows(path)[-most:][::-1])


def event(row: dict[str, Any]) -> str:
    """One event in words: a phase by its own words, anything else by its name and what it carries."""
    kind = str(row.get("event") or "event")
    if kind == "phase":
        return escape.one_line(words.phase(str(row.get("phase") or "")))
    if "words" in row:
        return escape.one_line(words.sentence(translated(row["words"] or "")))
    carried = {key: value for key, value in row.items() if key not in ("v", "t", "attempt", "seq", "event", "phase")}
    said = ", ".join(f"{_carried(key)} {translated(value)}" for key, value in carried.items())
    name = t(f"monitor.event.{kind}") if has(f"monitor.event.{kind}") else words.sentence(kind.replace("_", " "))
    return escape.one_line(name + (f": {said}" if said else ""))


def _carried(key: str) -> str:
    return t(f"monitor.carried.{key}") if has(f"monitor.carried.{key}") else key
