"""Text files of a run to show: the end of its log, its events, the start of a rejected drop."""

from pathlib import Path
from typing import Any

from pages.parts import escape, words
from spool.protocol import metrics


def log(path: Path, lines: int = 200, tail_bytes: int = 64_000) -> str:
    """The last lines of a log as plain text; empty where there is none yet."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - tail_bytes))
            data = file.read()
    except OSError:
        return ""
    if size > tail_bytes:
        data = data.partition(b"\n")[2]
    return "\n".join(escape.lines(data.decode("utf-8", "replace")).rstrip().split("\n")[-lines:])


def head(path: Path, most_bytes: int = 64_000) -> str:
    """The start of a small text file, whatever is in it; empty where there is none."""
    try:
        with open(path, "rb") as file:
            return escape.lines(file.read(most_bytes).decode("utf-8", "replace"))
    except OSError:
        return ""


def events(path: Path, most: int = 200) -> list[dict[str, Any]]:
    """The newest events, newest first."""
    return metrics.read(path)[-most:][::-1]


def event(row: dict[str, Any]) -> str:
    """One event in words: a phase by its own words, anything else by its name and what it carries."""
    kind = str(row.get("event") or "event")
    if kind == "phase":
        return escape.one_line(words.sentence(str(row.get("phase") or "")))
    carried = {key: value for key, value in row.items() if key not in ("v", "t", "attempt", "seq", "event", "phase")}
    said = ", ".join(f"{key} {value}" for key, value in carried.items())
    return escape.one_line(words.sentence(kind.replace("_", " ")) + (f": {said}" if said else ""))
