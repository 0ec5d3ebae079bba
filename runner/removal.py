"""Removes the exports and checkpoints of ended jobs that somebody asked to delete, and nothing else of them.

The record (runs/ID/removed.json) is written before anything goes, and each folder gets another name before its files
go: killed anywhere in between, the order still lies there and is carried out again to the same end.
"""

import logging
import os
import shutil
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from runner.submitters import Submitters
from spool.health.disk import tree
from spool.health.expiry import PRUNED
from spool.protocol import durable, metrics, removed
from spool.protocol.home import FINAL, Home, Run
from spool.protocol.jobs import now_iso
from spool.protocol.states import Tokens
from spool.protocol.ulid import is_ulid

log = logging.getLogger("runner")

PREFIX = "delete-"
MOST = 20
"""Orders a look: the queue must not wait for a long list of them."""


class Removal:
    """Only the daemon's main thread calls it, in the look in which drops are taken: nothing becomes a job meanwhile.

    Args:
        started_in: from where relative paths in specs count.
        submitters: whose orders may say who gave them.
    """

    def __init__(self, home: Home, started_in: Path | None = None, submitters: Submitters | None = None) -> None:
        self.home = home
        self.submitters = submitters or Submitters()
        self.started_in = started_in or Path.cwd()
        self._failed: set[str] = set()

    def look(self, names: Iterable[str]) -> set[str]:
        """Carries out the delete orders among the names in control/; gives the names that were meant for it."""
        mine = {name for name in names if name.startswith(PREFIX) and is_ulid(name.removeprefix(PREFIX))}
        if not mine:
            return mine
        needed = frozenset().union(*removed.needs(self.home, self.started_in).values())
        for name in sorted(mine)[:MOST]:
            path = self.home.control / name
            try:
                self._obey(name.removeprefix(PREFIX), self.submitters.of(path), needed)
            except OSError as error:  # a file that cannot go is no reason to hold the queue; it is tried again
                if name not in self._failed:
                    log.warning("%s: %s stays: %s", name, error.filename, error.strerror or error)
                self._failed.add(name)
            else:
                path.unlink(missing_ok=True)
        return mine

    def _obey(self, job_id: str, by: str | None, needed: frozenset[str]) -> None:
        found = Tokens(self.home).find(job_id)
        run = self.home.run(job_id)
        if found is None or found[0] not in FINAL:
            log.info("%s stays: only what an ended job has made can be deleted", job_id)
        elif job_id in needed:
            log.info("%s stays: a job that has not ended names it", job_id)
            _note(run, event="not_removed", why="a job that has not ended names it")
        else:
            remove(run, by)


def remove(run: Run, by: str | None) -> None:
    """Removes exports/ and checkpoints/ of a job that has ended and that nobody names.

    Raises:
        OSError: the record cannot be written, or a file cannot be removed.
    """
    folders = [path for path in (run.exports, run.checkpoints) if _is_folder(path)]
    if folders:
        size_bytes = sum(tree(folder) for folder in folders)
        what = [*_names(run.exports), *(["checkpoints"] if _names(run.checkpoints) else [])]
        record = {"v": 1, "at": now_iso(), "by": by, "what": what, "bytes": size_bytes}
        # Another death may have come after the record: it knew who asked, and how much there was.
        before = removed.read(run)
        if before is None or not set(what) <= set(before.what):
            durable.write_json(run.removed, record)
        for folder in folders:
            durable.move(folder, run.root / f"{PRUNED}{folder.name}-{time.time_ns()}")
        log.info("%s: removed %s, %.1f MB, asked by %s", run.root.name, ", ".join(what), size_bytes / 1e6, by or "?")
        _note(run, event="removed", what=", ".join(what), bytes=size_bytes, why=f"asked by {by}" if by else "asked for")
    for name in _names(run.root, hidden=True):
        if name.startswith(PRUNED):
            shutil.rmtree(run.root / name)


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _names(folder: Path, hidden: bool = False) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if hidden or not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _note(run: Run, **row: object) -> None:
    try:
        metrics.Writer(run.events, 0).write(**row)
    except OSError as error:
        log.warning("%s cannot say it: %s", run.events, error.strerror)
