"""The two locks of a data home: who holds them, and whether the files are still the ones that are held."""

import fcntl
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from spool.health import processes
from spool.health.finding import Finding
from spool.health.heartbeat import Heartbeat
from spool.protocol import settings
from spool.protocol.home import Home

SCAN_S = 0.5


@dataclass
class OpenFiles:
    """One look through the descriptors of all processes that we may look into."""

    runner: set[int] = field(default_factory=set)
    """Processes that have runner.lock open; an orphan of a dead runner has not."""
    gpu: set[int] = field(default_factory=set)
    deleted: dict[int, str] = field(default_factory=dict)
    """Process -> a lock file that it has open and that is not there any more."""
    inotify: dict[int, list[int]] = field(default_factory=dict)
    """User id -> for each of its inotify instances the number of watches."""


def scan(home: Home) -> OpenFiles:
    found = OpenFiles()
    end = time.monotonic() + SCAN_S
    names = {str(home.runner_lock): found.runner, str(home.gpu_lock): found.gpu}
    for pid in processes.all_pids():
        if time.monotonic() > end:
            break
        try:
            for fd, link in processes.links(pid):
                if link in names:
                    names[link].add(pid)
                elif link.removesuffix(" (deleted)") in names:
                    found.deleted[pid] = link.removesuffix(" (deleted)")
                elif link.endswith("inotify"):
                    found.inotify.setdefault(processes.uid(pid), []).append(processes.watches(pid, fd))
        except OSError:
            continue
    return found


def holder(path: Path) -> int | None:
    """The process that took the lock on a file, by /proc/locks; 0 where somebody holds it who cannot be seen.

    /proc/locks is asked first: trying the lock could make a runner that starts at this moment give up.
    """
    try:
        info = path.stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if "->" not in words and words[1] == "FLOCK" and int(words[5].rsplit(":", 1)[1]) == info.st_ino:
            major, minor = (int(part, 16) for part in words[5].split(":")[:2])
            pid = int(words[4])
            if (major, minor) == (os.major(info.st_dev), os.minor(info.st_dev)) or _has_open(pid, path):
                return max(0, pid)
    return None


def runner_pid(home: Home, files: OpenFiles) -> int | None:
    """The process that holds runner.lock, as far as it can be seen. For words only."""
    pid = holder(home.runner_lock)
    return pid or (next(iter(files.runner)) if len(files.runner) == 1 else None)


def is_taken(path: Path) -> bool:
    """Whether the lock is held, by trying to share it for a moment: for where /proc/locks shows nothing."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def examine(home: Home, beat: Heartbeat, files: OpenFiles) -> list[Finding]:
    findings = _file_system(home)
    for pid, path in sorted(files.deleted.items()):
        message = (
            f"{path} was deleted or replaced while {processes.look(home, pid)} holds it: another could start beside."
        )
        cure = "Stop that process, then start the runner; nobody but the runner writes in spool/state."
        findings.append(Finding("locks", "fail", message, cure))
    lives = holder(home.runner_lock)
    if beat.alive and lives is None and not is_taken(home.runner_lock) and not files.deleted:
        message = f"the runner writes its heartbeat, but nobody holds {home.runner_lock}."
        cure = "Its lock file was deleted or replaced: stop the runner and start it again."
        findings.append(Finding("locks", "fail", message, cure))
    if lives is None and not beat.alive and files.gpu:
        who = ", ".join(str(processes.look(home, pid)) for pid in sorted(files.gpu)[:3])
        message = f"a trainer of a runner that is gone still lives and holds the GPU lock: {who}."
        cure = "A new runner waits for its end and keeps what it learned; `kill PID` ends it with a checkpoint."
        findings.append(Finding("locks", "warn", message, cure))
    return findings


def _file_system(home: Home) -> list[Finding]:
    if not home.tmp.is_dir() or not os.access(home.tmp, os.W_OK):
        return []
    cure = "Put the data home on a local disk; datasets and models may lie elsewhere."
    try:
        with tempfile.TemporaryFile(dir=home.tmp) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return [Finding("locks", "fail", f"files in {home.states} cannot be locked: {error.strerror}.", cure)]
    if settings.is_network_mount(home.states):
        message = f"{home.states} is on a network mount: its locks may not keep a second runner out."
        return [Finding("locks", "warn", message, cure)]
    return [Finding("locks", "ok", "locks lie on a local file system.")]


def _has_open(pid: int, path: Path) -> bool:
    try:
        return any(link == str(path) for _, link in processes.links(pid))
    except OSError:
        return False
