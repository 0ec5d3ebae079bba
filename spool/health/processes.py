"""Processes as /proc shows them: who they are, and whether they are ours. A PID alone never decides anything."""

import os
import pwd
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spool.protocol.home import Home

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """`ours` is None where that cannot be told: it lives where we cannot see (another container) or may not look."""

    pid: int
    program: str | None = None
    user: str | None = None
    ours: bool | None = None

    def __str__(self) -> str:
        if self.program is None:
            return f"pid {self.pid}, which cannot be seen from here"
        return f"pid {self.pid} ({self.program}{f', user {self.user}' if self.user else ''})"


def look(home: Home, pid: int) -> Process:
    """A process, and whether it belongs to this data home's runner: it, its session's leader or one of its ancestors
    has one of the home's lock files open. A trainer inherits the GPU lock's descriptor, so that is so without a runner
    too."""
    if not (PROC / str(pid)).exists():
        return Process(pid)
    locks = {key for path in (home.gpu_lock, home.runner_lock) if (key := _key(path)) is not None}
    answers = [_ours(home, each, locks) for each in _line(pid)]
    ours = True if True in answers else None if None in answers else False
    return Process(pid, program(pid), user(pid), ours)


def holders(path: Path) -> list[int]:
    """Which processes (but this one) have a file open, as far as they may be looked at."""
    key, found = _key(path), list[int]()
    for pid in all_pids() if key else []:
        try:
            if pid != os.getpid() and any(_key(PROC / str(pid) / "fd" / fd) == key for fd, _ in links(pid)):
                found.append(pid)
        except OSError:
            continue
    return found


def program(pid: int) -> str:
    """What somebody would call it: the program, for Python with the script or module that it runs."""
    words = _words(pid)
    if not words:
        return _text(PROC / str(pid) / "comm").strip() or "?"
    name = Path(words[0]).name
    if re.fullmatch(r"python[\d.]*", name):
        rest = [word for word in words[1:] if word in ("-m", "-c") or not word.startswith("-")]
        name += "".join(f" {Path(word).name}" for word in rest[: 2 if rest[:1] == ["-m"] else 1])
    return name[:80]


def user(pid: int) -> str | None:
    try:
        number = uid(pid)
    except OSError:
        return None
    return name_of(number)


def name_of(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


def state(pid: int) -> str | None:
    """R, S, D, T ... of proc(5); T is stopped (SIGSTOP)."""
    fields = _stat(pid)
    return fields[0] if fields else None


def started(pid: int) -> float | None:
    """When it started, in seconds since the boot (CLOCK_BOOTTIME)."""
    fields = _stat(pid)
    return int(fields[19]) / os.sysconf("SC_CLK_TCK") if len(fields) > 19 else None


def command(pid: int) -> list[str]:
    return _words(pid)


def links(pid: int) -> Iterator[tuple[str, str]]:
    """(number, what it leads to) of each descriptor.

    Raises:
        PermissionError: another user's process.
    """
    folder = PROC / str(pid) / "fd"
    for name in os.listdir(folder):
        try:
            yield name, os.readlink(folder / name)
        except FileNotFoundError:
            continue


def watches(pid: int, fd: str) -> int:
    """How many files an inotify descriptor watches."""
    return _text(PROC / str(pid) / "fdinfo" / fd).count("inotify wd:")


def uid(pid: int) -> int:
    """Raises FileNotFoundError: it has ended."""
    return (PROC / str(pid)).stat().st_uid


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdecimal()]


def _line(pid: int) -> list[int]:
    """The process, its session's leader and its ancestors below init."""
    found = [pid]
    fields = _stat(pid)
    if fields and int(fields[3]) not in (0, 1, pid):
        found.append(int(fields[3]))
    while fields and (parent := int(fields[1])) > 1 and len(found) < 64:
        found.append(parent)
        fields = _stat(parent)
    return list(dict.fromkeys(found))


def _ours(home: Home, pid: int, locks: set[tuple[int, int]]) -> bool | None:
    words = _words(pid)
    named = str(home.root) in words and any(word.startswith("runner.") for word in words)
    try:
        return any(_key(PROC / str(pid) / "fd" / fd) in locks for fd, _ in links(pid))
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's: what it calls itself must do, if it is the runner's user who says so
        try:
            return True if named and uid(pid) == home.states.stat().st_uid else None
        except OSError:
            return None


def _key(path: Path) -> tuple[int, int] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on: a program's name may hold spaces and brackets."""
    return _text(PROC / str(pid) / "stat").rpartition(")")[2].split()


def _words(pid: int) -> list[str]:
    return [word for word in _text(PROC / str(pid) / "cmdline").split("\0") if word]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
