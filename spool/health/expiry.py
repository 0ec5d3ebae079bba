"""What of an ended job goes, and when: the rules of settings.retention, for the runner that removes and the doctor that
tells."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from spool.protocol import durable
from spool.protocol.home import Run, State
from spool.protocol.settings import Retention

DAY_S = 86_400.0
TEMPORARY = re.compile(r"\..+\.\d+\.\d+\.tmp")
"""What durable.write_atomic leaves behind when its process dies."""
TEMPORARY_S = DAY_S
PRUNED = ".pruned-"
"""What is being removed is renamed to this first: a crash leaves something that nobody takes for whole."""


@dataclass(frozen=True)
class Expiry:
    """Something that goes at `due` (epoch seconds); `early` gives the order in which things go before that when the
    disk is nearly full (0 first), and is None for what keeps its days."""

    what: str
    path: Path
    due: float
    early: int | None = None


def ended_at(run: Run) -> float | None:
    """When a job ended (epoch seconds): what outcome.json says, else its age; None where there is none."""
    try:
        document = durable.read_json(run.outcome)
        return datetime.fromisoformat(document["ended_at"]).timestamp()
    except (OSError, ValueError, TypeError, KeyError):
        pass
    try:
        return run.outcome.stat().st_mtime
    except OSError:
        return None


def of_job(run: Run, state: State, ended: float, rules: Retention) -> list[Expiry]:
    """Everything that goes of a job, due or not. Links are passed over: what they lead to is somebody else's."""
    found: list[Expiry] = []
    entries = {entry.name: entry for entry in _entries(run.root)}
    for name, entry in entries.items():
        if name.startswith(PRUNED):
            found.append(Expiry("remains", Path(entry.path), 0.0))
        elif TEMPORARY.fullmatch(name):
            found.append(Expiry("temporary file", Path(entry.path), _changed(entry) + TEMPORARY_S))
        elif name in (run.log.name, run.check_log.name):
            if rules.log_mb is not None and _bytes(entry) > rules.log_mb * 1e6:
                found.append(Expiry("log", Path(entry.path), ended))
        elif name == run.checkpoints.name and entry.is_dir(follow_symlinks=False):
            found += _checkpoints(run, state, ended, rules)
        elif name == run.exports.name and entry.is_dir(follow_symlinks=False):
            half = [each for each in _entries(run.exports) if each.name.startswith(".")]
            found += [Expiry("half-made export", Path(each.path), _changed(each) + TEMPORARY_S) for each in half]
        elif name == run.data.name and rules.prepared_rows_days is not None and entry.is_dir(follow_symlinks=False):
            due = ended + rules.prepared_rows_days * DAY_S
            rows = [each for each in _entries(run.data) if each.name.endswith(".arrow")]
            found += [Expiry("prepared rows", Path(each.path), due, early=2) for each in rows]
    return found


def _checkpoints(run: Run, state: State, ended: float, rules: Retention) -> list[Expiry]:
    entries = list(_entries(run.checkpoints))
    if not entries:
        return []
    kept_elsewhere = state is State.CANCELLED or (state is State.DONE and any(_entries(run.exports)))
    days = rules.done_checkpoints_days if kept_elsewhere else rules.failed_checkpoints_days
    found = []
    if days is not None:
        early = (0 if state is State.DONE else 1) if kept_elsewhere else None
        found.append(Expiry("checkpoints", run.checkpoints, ended + days * DAY_S, early))
    if rules.set_aside_days is not None:
        due = ended + rules.set_aside_days * DAY_S
        found += [Expiry("set-aside checkpoint", Path(e.path), due) for e in entries if ".incomplete-" in e.name]
    return found


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return


def _changed(entry: os.DirEntry[str]) -> float:
    """A rename sets it, unlike the time of the last write."""
    try:
        return entry.stat(follow_symlinks=False).st_ctime
    except FileNotFoundError:
        return float("inf")


def _bytes(entry: os.DirEntry[str]) -> int:
    try:
        info = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return 0
    return info.st_size if stat.S_ISREG(info.st_mode) else 0
