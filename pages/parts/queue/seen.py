"""When somebody was here last, so that Home can say what has finished since then.

A visit ends when nothing has been seen of a person for AWAY_S. One small file a person under cache/seen, named by a
hash; it may be deleted, and where it cannot be written the last 24 hours count.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from spool.protocol import durable
from spool.protocol.home import Home

AWAY_S = 1800.0
WRITE_EVERY_S = 60.0
DAY_S = 86_400.0
LONGEST_S = 30 * DAY_S
PEOPLE = 500
"""So many files are kept, those of the people who were here last."""


def since(home: Home, person: str | None, now_s: float) -> float:
    """The end of the visit before this one, in UTC epoch seconds; marks that the person is here now."""
    if not person:
        return now_s - DAY_S
    path = home.seen / f"{hashlib.sha256(person.encode()).hexdigest()[:32]}.json"
    active, before = _read(path)
    if active is None or active > now_s + AWAY_S:
        before, active = now_s - DAY_S, 0.0
    elif now_s - active > AWAY_S:
        before = active
    if now_s - active > WRITE_EVERY_S:
        with suppress(OSError):
            _write(path, now_s, before)
    return max(before, now_s - LONGEST_S)


def _read(path: Path) -> tuple[float | None, float]:
    """(when the person was last seen, when the visit before ended)."""
    try:
        found = durable.read_json(path)
        return float(found["active"]), float(found["since"])
    except (OSError, ValueError, TypeError, KeyError):
        return None, 0.0


def _write(path: Path, active: float, before: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(durable.to_bytes({"v": 1, "active": round(active, 1), "since": round(before, 1)}))
    os.rename(temporary, path)
    if new:
        _tidy(path.parent)


def _tidy(folder: Path) -> None:
    with os.scandir(folder) as entries:
        files = sorted(entries, key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in files[PEOPLE:]:
        os.unlink(entry.path)
