"""A kill, and an error, at every state-changing system call of one life cycle: one name and one ordinal at a time."""

import errno
import os
import random
import re
from collections import Counter
from dataclasses import dataclass

from tests.faults.box import Late, Process, fresh_box, wait_until
from tests.faults.life import drive, fill
from tests.faults.oracle import Oracle

CHANGING = (
    *(
        "rename",
        "renameat",
        "renameat2",
        "link",
        "linkat",
        "symlink",
        "mkdir",
        "mkdirat",
        "rmdir",
        "unlink",
        "unlinkat",
    ),
    *("openat", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "chmod", "fchmod", "flock", "fcntl"),
    *("vfork", "fork", "clone", "clone3", "wait4", "waitid", "kill"),
)
"""What may change the state of the spool, of a lock or of a child. openat counts where it creates or writes."""

FAILING = ("rename", "openat", "write", "fsync", "mkdir", "unlink", "rmdir", "ftruncate")
ERRORS = ("ENOSPC", "EIO")
RARE = ("EROFS", "EDQUOT")
TOLD = frozenset({"rename", "write", "fsync"})
"""A failure of these is never passed over. (One of mkdir is, where the folder is there already.)"""
FORKS = frozenset({"vfork", "fork", "clone", "clone3"})
ASKING = frozenset({"wait4", "waitid", "fcntl", "flock", "write"})
"""Calls that a quiet daemon makes again and again: beyond so many of a name the points are picked evenly."""

_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)")


@dataclass(frozen=True)
class Point:
    """The `nth` call of a name since the daemon's main began (from 1)."""

    name: str
    nth: int
    what: str
    """What the undisturbed run did there, for people."""

    def inject(self, fault: str) -> str:
        return f"{self.name}:{fault}:when={self.nth}"


def survey(bug: str | None = None) -> list[Point]:
    """The points of an undisturbed life cycle, in the order in which it passes them."""
    with fresh_box(bug) as box:
        long = fill(box)
        oracle = Oracle(box)
        daemon = box.start(trace=",".join(CHANGING))
        drive(box, oracle, daemon, long)
        assert daemon.tracer is not None
        daemon.tracer.wait(10)
        assert daemon.trace is not None
        lines = daemon.trace.read_text().splitlines()
        root = str(box.folder)
    counts: Counter[str] = Counter()
    points = []
    for line in lines:
        match = _LINE.match(line)
        if not match or match[1] not in CHANGING:
            continue
        counts[match[1]] += 1
        if _changes(match[1], match[2], root):
            points.append(Point(match[1], counts[match[1]], match[2].replace(root, "")[:110]))
    return points


def _changes(name: str, words: str, root: str) -> bool:
    if name == "openat":
        return "O_CREAT" in words or "O_WRONLY" in words or "O_RDWR" in words
    if name == "mkdir":
        return "EEXIST" not in words
    if name == "write":
        return root in words and "runner.log" not in words
    return name != "fcntl" or "F_SETLK" in words or "F_DUPFD" in words


def sample(points: list[Point], most_a_name: int) -> list[Point]:
    """At most so many points a name, spread evenly over the life cycle."""
    chosen = []
    for name in dict.fromkeys(point.name for point in points):
        of_name = [point for point in points if point.name == name]
        keep = min(most_a_name, len(of_name))
        chosen += [of_name[i * len(of_name) // keep] for i in range(keep)]
    return chosen


def thinned(points: list[Point], most_asking: int) -> list[Point]:
    """All points, of the names in ASKING at most so many."""
    kept = {id(point) for point in sample([p for p in points if p.name in ASKING], most_asking)}
    return [point for point in points if point.name not in ASKING or id(point) in kept]


def kill_at(point: Point, bug: str | None = None) -> tuple[bool, list[str]]:
    """(whether the point was reached, what was wrong afterwards)."""
    return _life(point.inject("signal=KILL"), bug)


def fail_at(point: Point, error: str, bug: str | None = None) -> tuple[bool, list[str]]:
    """One call fails once: the runner halts, says why, and goes on."""
    error = _suited(point.name, error)
    quietly = point.name not in TOLD or "/state/reserve" in point.what  # no room for the reserve is a state, no fault
    return _life(point.inject(f"error={error}"), bug, None if quietly else error)


def _suited(name: str, error: str) -> str:
    return {"ENOSPC": "EAGAIN", "EIO": "ENOMEM"}.get(error, error) if name in FORKS else error


def _life(inject: str, bug: str | None, must_be_told: str | None = None) -> tuple[bool, list[str]]:
    """One life cycle with one fault in it.

    Args:
        must_be_told: the error that must be found in the runner's log once it has struck.
    """
    wrong: list[str] = []
    with fresh_box(bug, wrong) as box:
        long = fill(box)
        oracle = Oracle(box)
        daemon = box.start(inject=inject)
        try:
            drive(box, oracle, daemon, long)
        except Late as late:
            wrong.append(f"I5: {late} (status {box.status()}, tokens {box.tokens()})")
        wrong += oracle.verdict()
        trace = _text(daemon)
        if must_be_told and "INJECTED" in trace and not _told(box.log.read_text(), must_be_told):
            wrong.append(f"{must_be_told} struck ({inject}) and the runner says nothing of it")
        if daemon.alive is False and daemon.code not in (0, -9, 75, 78):
            wrong.append(f"the runner ended with {daemon.code} instead of halting")
        reached = "INJECTED" in trace or daemon.code == -9
        if wrong:
            wrong.append(f"runner.log: {box.log.read_text()[-2500:]}")
    return reached, wrong


def _told(words: str, error: str) -> bool:
    return error in words or os.strerror(getattr(errno, error)) in words


def kill_where(name: str, part: str, most: int, bug: str | None = None) -> tuple[bool, list[str]]:
    """Kills at points of a name at which the undisturbed run mentions `part`, until one shows something."""
    chosen = [point for point in survey(bug) if point.name == name and part in point.what][:most]
    for point in chosen:
        _, wrong = kill_at(point, bug)
        if wrong:
            return True, wrong
    return bool(chosen), []


def persist(name: str, nth: int, error: str, bug: str | None = None) -> tuple[bool, list[str]]:
    """From the nth on every call of the name fails, until the runner has said why it is halted; then the fault goes."""
    wrong: list[str] = []
    reached = False
    with fresh_box(bug, wrong) as box:
        long = fill(box)
        oracle = Oracle(box)
        daemon = box.start(inject=f"{name}:error={error}:when={nth}+")

        def told() -> bool:
            """the runner says why it is halted, in runner.json or, where that cannot be written, in its log"""
            if name == "write":  # its log cannot be written either: it is enough that it stays up
                return _text(daemon).count("INJECTED") >= 20 or not daemon.alive
            return bool(box.status().get("halted")) or "halted" in box.log.read_text() or not daemon.alive

        try:
            try:
                wait_until(told, 10)
            except Late as late:
                if "INJECTED" in _text(daemon):
                    wrong.append(str(late))
            if not daemon.alive and daemon.code not in (75, 78):
                wrong.append(f"the runner ended with {daemon.code} instead of halting")
            reached = "INJECTED" in _text(daemon)
            if (
                reached
                and daemon.alive
                and name != "write"
                and not _told(box.log.read_text() + str(box.status()), error)
            ):
                wrong.append(f"the runner does not say {error}")
            daemon.untrace()
            drive(box, oracle, daemon, long)
        except Late as late:
            wrong.append(f"I5: {late} (status {box.status()})")
        wrong += oracle.verdict()
        if wrong:
            wrong.append(f"runner.log: {box.log.read_text()[-1500:]}")
    return reached, wrong


def _text(daemon: Process) -> str:
    return daemon.trace.read_text() if daemon.trace and daemon.trace.exists() else ""


def pick(points: list[Point], count: int, seed: int) -> list[Point]:
    """A fixed choice by seed, in order of the life cycle; every name is in it at least once."""
    source = random.Random(seed)
    names = list(dict.fromkeys(point.name for point in points))
    chosen = {id(source.choice([p for p in points if p.name == name])) for name in names}
    rest = [point for point in points if id(point) not in chosen]
    source.shuffle(rest)
    chosen |= {id(point) for point in rest[: max(0, count - len(chosen))]}
    return [point for point in points if id(point) in chosen]
