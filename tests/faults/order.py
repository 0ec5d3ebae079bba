"""The order of writes, fsyncs and renames, read from a trace of one life cycle and compared with the protocol's table.

The trace has all threads of the daemon (the product fsyncs side by side) and none of its children. A file is durable
from the end of an fsync on that no write followed; an entry of a folder from the end of an fsync of the folder on.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath as P

from spool.protocol.home import FINAL, State
from spool.protocol.states import MOVES, Token
from tests.faults.box import fresh_box
from tests.faults.life import drive, fill
from tests.faults.oracle import Oracle

CALLS = "rename,renameat,renameat2,openat,write,pwrite64,ftruncate,fsync,fdatasync,mkdir,mkdirat,unlink,unlinkat"

_PID = re.compile(r"(\d+) +(.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_FD = re.compile(r"\w+\(\d+<([^>]*)>")
_QUOTED = re.compile(r'"([^"]*)"')


@dataclass(frozen=True)
class Event:
    call: str
    paths: tuple[str, ...]
    creates: bool = False
    ok: bool = True


def events(trace: str, root: str) -> Iterator[Event]:
    """The calls in the order in which they ended, with their paths below the data home."""
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        match = _PID.match(line)
        pid, words = (match[1], match[2]) if match else ("0", line)
        if words.endswith("<unfinished ...>"):
            begun[pid] = words.removesuffix("<unfinished ...>")
            continue
        if resumed := _RESUMED.match(words):
            words = begun.pop(pid, f"{resumed[1]}(") + resumed[2]
        call = words.partition("(")[0]
        if call not in CALLS.split(","):
            continue
        in_fd = _FD.match(words)
        paths = [in_fd[1]] if in_fd and not call.startswith(("rename", "openat", "mkdir", "unlink")) else []
        paths = paths or _QUOTED.findall(words)
        inside = tuple(path.removeprefix(root + "/") for path in paths if path.startswith(root + "/"))
        if inside:
            failed = " = -1 " in words
            yield Event(call, inside, "O_CREAT" in words or "O_TRUNC" in words, not failed)


@dataclass
class Disk:
    """What a power cut would leave: the files and entries that are not durable yet."""

    dirty: set[str] = field(default_factory=set)
    entries: dict[str, set[str]] = field(default_factory=dict)
    """folder -> names in it whose coming or going is not durable."""

    def change(self, path: str) -> None:
        self.entries.setdefault(str(P(path).parent), set()).add(P(path).name)

    def apply(self, event: Event) -> None:
        first = event.paths[0]
        if event.call == "openat":
            if event.creates:
                self.dirty.add(first)
                self.change(first)
        elif event.call in ("write", "pwrite64", "ftruncate"):
            self.dirty.add(first)
        elif event.call in ("fsync", "fdatasync"):
            self.dirty.discard(first)
            self.entries.pop(first, None)
        elif event.call.startswith("rename"):
            source, target = event.paths
            if source in self.dirty:
                self.dirty.discard(source)
                self.dirty.add(target)
            else:
                self.dirty.discard(target)
            self.change(source)
            self.change(target)
        elif event.call.startswith(("mkdir", "unlink")):
            self.change(first)
            self.dirty.discard(first)

    def lacks(self, path: str) -> list[str]:
        """What of a file is not durable: its bytes, its name in its folder."""
        lacking = [f"the bytes of {path}"] if path in self.dirty else []
        if P(path).name in self.entries.get(str(P(path).parent), set()):
            lacking.append(f"the entry {path}")
        return lacking


def kind(path: str) -> str:
    """What stands for a path in the table."""
    parts = P(path).parts
    if parts[:2] == ("spool", "state"):
        return parts[2]
    if parts[0] == "spool":
        return parts[1]
    return "run" if parts[0] == "runs" else parts[0]


def before(source: str, target: str, disk: Disk) -> list[str]:
    """The table: what must be durable before this rename commits. Names are those of docs/design.md."""
    token = Token.parse(P(target).name)
    move = (kind(source), kind(target))
    if token and kind(source) == "tmp":
        run = f"runs/{token.job_id}"
        needed = [source, f"{run}/spec.json", f"{run}/spec.orig.json", run]
    elif token and kind(target) in FINAL:
        needed = [f"runs/{token.job_id}/outcome.json"]
        if kind(source) == "running":
            needed += _attempts(token.job_id, disk)
    elif token and move == ("running", "queued"):
        needed = _attempts(token.job_id, disk)
    elif kind(target) == "rejected":
        folder = P(target).parent
        needed = [str(folder / "reason.txt"), str(folder / "reason.json"), str(folder)]
    elif P(source).name.startswith(".") and kind(target) != "runner.json":
        needed = [source]
        return [f"the bytes of {source}"] if source in disk.dirty else []
    else:
        return []
    return [lack for path in needed for lack in disk.lacks(path)]


def _attempts(job_id: str, disk: Disk) -> list[str]:
    folder = f"runs/{job_id}/attempts"
    return [folder, *(f"{folder}/{name}" for name in disk.entries.get(folder, set()) if not name.startswith("."))]


def allowed(source: str, target: str) -> bool:
    """Whether the state machine knows this move of a token."""
    states = {state.value: state for state in State}
    if kind(source) in states and kind(target) in states:
        return states[kind(target)] in MOVES[states[kind(source)]] or kind(source) == kind(target)
    return kind(source) not in states


def judge(found: list[Event]) -> list[str]:
    """Every rename against the table; and that both folders are durable before the next thing that relies on it."""
    disk, wrong, moved = Disk(), [], 0
    open_moves: list[tuple[str, str]] = []
    for event in found:
        if not event.ok:
            continue
        if event.call.startswith("unlink") and kind(event.paths[0]) in ("accepting", "control"):
            wrong += _unsettled(disk, open_moves, f"before the unlink of {event.paths[0]}")
            open_moves = []
        if event.call.startswith("rename") and len(event.paths) == 2:
            source, target = event.paths
            if kind(target) != "runner.json":
                moved += 1
                wrong += [
                    f"{lack} is not durable when {source} becomes {target}" for lack in before(source, target, disk)
                ]
                if not allowed(source, target):
                    wrong.append(f"no such transition: {source} to {target}")
                job = P(target).stem.rpartition("-")[2]
                same = [move for move in open_moves if P(move[1]).stem.rpartition("-")[2] == job]
                wrong += _unsettled(disk, same, f"before {job} moves on")
                open_moves = [move for move in open_moves if move not in same] + [(source, target)]
        creates = event.call == "openat" and event.creates
        if creates and Token.parse(P(event.paths[0]).name) and kind(event.paths[0]) != "tmp":
            wrong.append(f"a token came to be in {event.paths[0]} by another call than rename")
        disk.apply(event)
    wrong += _unsettled(disk, open_moves, "at the end")
    if moved < 20:
        wrong.append(f"the suite itself: only {moved} renames were seen")
    return list(dict.fromkeys(wrong))


def _unsettled(disk: Disk, moves: list[tuple[str, str]], when: str) -> list[str]:
    wrong = []
    for source, target in moves:
        for path in (source, target):
            if P(path).name.startswith(".") and path == source:
                continue
            if P(path).name in disk.entries.get(str(P(path).parent), set()):
                wrong.append(f"the folder of {path} is not fsynced after {source} became {target} ({when})")
    return wrong


def check(bug: str | None = None) -> tuple[bool, list[str]]:
    """One undisturbed life cycle under strace, all threads; what of it is out of order."""
    with fresh_box(bug) as box:
        long = fill(box)
        oracle = Oracle(box)
        daemon = box.start(trace=CALLS, follow=True)
        drive(box, oracle, daemon, long)
        assert daemon.tracer is not None
        daemon.tracer.wait(10)
        assert daemon.trace is not None
        found = list(events(daemon.trace.read_text(), str(box.home.root)))
    return True, judge(found)
