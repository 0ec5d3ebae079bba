"""The disk: what uses it, what retention will free and when, and whether enough of it is left."""

import math
import os
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spool.health import expiry
from spool.health.finding import Finding, Level
from spool.protocol.home import FINAL, Home, State
from spool.protocol.settings import Settings
from spool.protocol.states import Tokens
from spool.protocol.training import Limits

LOW_GB = 10.0
LOW_INODES = 20_000
BUDGET_S = 1.0
"""How long may be counted: with ten thousand jobs the answer is a lower bound, and says so."""
SOON_S = 7 * expiry.DAY_S

_OF_A_RUN = {"checkpoints": "checkpoints", "exports": "exports", "data": "prepared_rows"}
_OF_THE_CACHE = {"inductor": "compiled", "triton": "compiled", "unsloth": "compiled"}


@dataclass
class Disk:
    """Bytes as they lie on the disk, by use. `complete` is False where the time was over first."""

    free_bytes: int
    total_bytes: int
    inodes_free: int
    inodes_total: int
    uses: dict[str, int] = field(default_factory=dict)
    complete: bool = True
    due_bytes: int = 0
    """What retention removes at its next pass, at most: it leaves what a waiting job names."""
    soon_bytes: int = 0
    """What it removes within seven days, that included."""
    next_at: float | None = None

    def to_json(self) -> dict[str, Any]:
        next_at = datetime.fromtimestamp(self.next_at, UTC).isoformat(timespec="seconds") if self.next_at else None
        return {
            "free_bytes": self.free_bytes,
            "total_bytes": self.total_bytes,
            "inodes_free": self.inodes_free,
            "inodes_total": self.inodes_total,
            "complete": self.complete,
            "uses": self.uses,
            "retention": {"due_bytes": self.due_bytes, "in_7_days_bytes": self.soon_bytes, "next_at": next_at},
        }


def measure(home: Home, options: Settings, budget_s: float = BUDGET_S) -> Disk:
    """Counts what lies under the data home; changes nothing."""
    place = next(folder for folder in (home.root, *home.root.parents) if folder.exists())
    usage, nodes = shutil.disk_usage(place), os.statvfs(place)
    disk = Disk(usage.free, usage.total, nodes.f_favail, nodes.f_files)
    try:
        _count(home, disk, time.monotonic() + budget_s)
    except TimeoutError:
        disk.complete = False
    try:
        _foresee(home, options, disk, time.monotonic() + 0.5 * budget_s)
    except TimeoutError:
        disk.complete = False
    disk.uses = dict(sorted(disk.uses.items(), key=lambda each: -each[1]))
    return disk


def examine(home: Home, disk: Disk, options: Settings, runner_lives: bool) -> list[Finding]:
    """The findings about a disk that was measured."""
    findings = [_room(home, disk)]
    if disk.inodes_total and disk.inodes_free < LOW_INODES:
        cure = "Remove small files on this file system; `du --inodes -x` finds them."
        level: Level = "fail" if disk.inodes_free < 1000 else "warn"
        findings.append(Finding("disk", level, f"only {disk.inodes_free:,} files more can be made (inodes).", cure))
    if disk.soon_bytes:
        now = f", {size(disk.due_bytes)} of it as soon as it looks" if disk.due_bytes else ""
        message = f"retention removes up to {size(disk.soon_bytes)} within seven days{now}."
        findings.append(Finding("disk", "ok", message))
    wanted = options.reserve_mb * 1_000_000
    if runner_lives and wanted and disk.uses.get("reserve", 0) < wanted:
        message = "the reserve is gone: with a full disk the runner could not write down how jobs end."
        cure = f"Free {2 * options.reserve_mb} MB or more; the runner makes it anew by itself."
        findings.append(Finding("disk", "warn", message, cure))
    return findings


def size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 50_000_000 else f"{count / 1e6:,.1f} MB"


def _room(home: Home, disk: Disk) -> Finding:
    free_gb = disk.free_bytes / 1e9
    least = "at least " if not disk.complete else ""
    parts = [f"{name.replace('_', ' ')} {size(count)}" for name, count in list(disk.uses.items())[:6] if count]
    used = f"; {least}{', '.join(parts)}" if parts else ""
    message = f"{free_gb:,.1f} of {disk.total_bytes / 1e9:,.1f} GB free{used}."
    if free_gb >= LOW_GB:
        return Finding("disk", "ok", message)
    level: Level = "fail" if free_gb < Limits().min_free_gb else "warn"
    little = "Jobs may not start." if level == "fail" else "That is little: checkpoints and exports need room."
    cures = {
        "checkpoints": f"Delete checkpoints of ended jobs ({home.runs}/*/checkpoints)",
        "models": f"Delete models that nobody uses ({home.models})",
        "datasets": "Forget datasets that nobody uses (Data page)",
        "exports": "Delete models that nobody needs (on the Models page, or `finetuner delete ID --yes`)",
        "hub": f"Delete {home.cache}/hub: it is fetched again when needed",
    }
    largest = next((name for name in disk.uses if name in cures), "checkpoints")
    return Finding("disk", level, f"{message} {little}", f"{cures[largest]}, or move the data home.")


def _count(home: Home, disk: Disk, end: float) -> None:
    uses = disk.uses
    for name, folder in (("models", home.models), ("datasets", home.datasets), ("rejected", home.rejected)):
        uses[name] = tree(folder, end)
    for entry in _scan(home.cache):
        name = _OF_THE_CACHE.get(entry.name, entry.name.replace("-", "_"))
        uses[name] = uses.get(name, 0) + (tree(entry.path, end) if entry.is_dir(follow_symlinks=False) else _own(entry))
    reserve = next((_own(entry) for entry in _scan(home.states) if entry.name == home.reserve.name), 0)
    uses["reserve"] = reserve
    uses["spool"] = tree(home.spool, end) - uses["rejected"] - reserve
    runs = dict.fromkeys(("checkpoints", "exports", "prepared_rows", "logs", "metrics", "records"), 0)
    uses |= runs
    for run in _scan(home.runs):
        _count_run(run.path, uses, end)


def _count_run(folder: str, uses: dict[str, int], end: float) -> None:
    for entry in _scan(folder):
        if entry.is_dir(follow_symlinks=False):
            name = "checkpoints" if entry.name.startswith(expiry.PRUNED) else _OF_A_RUN.get(entry.name, "records")
            uses[name] += tree(entry.path, end)
        elif entry.name.endswith(".log"):
            uses["logs"] += _own(entry)
        else:
            uses["metrics" if entry.name.endswith(".jsonl") else "records"] += _own(entry)


def _foresee(home: Home, options: Settings, disk: Disk, end: float) -> None:
    """What retention will remove. References of waiting jobs are not looked into: it may be less."""
    now = time.time()
    for state in sorted(FINAL):
        for token in Tokens(home).list(state):
            if time.monotonic() > end:
                raise TimeoutError
            run = home.run(token.job_id)
            going = expiry.of_job(run, State(state), 0.0, options.retention)
            if not going:
                continue
            ended = expiry.ended_at(run)
            for each in expiry.of_job(run, State(state), ended, options.retention) if ended else ():
                count = tree(each.path, end) if each.path.is_dir() else _own_bytes(each.path)
                disk.next_at = min(disk.next_at or each.due, each.due)
                disk.due_bytes += count if each.due <= now else 0
                disk.soon_bytes += count if each.due <= now + SOON_S else 0


def tree(folder: str | Path, end: float = math.inf) -> int:
    """Bytes that a folder takes on the disk, links not followed; what is gone meanwhile counts nothing.

    Args:
        end: when to give up, on the monotonic clock.

    Raises:
        TimeoutError: the time is over.
    """
    total, waiting = 0, [os.fspath(folder)]
    while waiting:
        if time.monotonic() > end:
            raise TimeoutError
        for entry in _scan(waiting.pop()):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            else:
                total += _own(entry)
    return total


def _scan(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _own(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except OSError:
        return 0


def _own_bytes(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0
