"""Bugs that the suite must catch: small patches, put into the forked daemon before it begins.

`__main__.py` names the case that must fail when a bug is planted; a bug that is not caught fails the run.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from runner import accept, attempts, launch
from spool.protocol import dropbox, durable, jobs
from spool.protocol.home import State
from spool.protocol.states import Tokens, is_final


@dataclass(frozen=True)
class Bug:
    words: str
    patch: Callable[[], None]


def serial_fsyncs() -> None:
    """The fsyncs of one commit one after another in the main thread, so that strace's counters reach each of them."""
    durable.sync_all = lambda paths: durable.sync(*paths)  # type: ignore[assignment]


def shift_clock(seconds: float) -> None:
    """The wall clock is off by so much; the monotonic one is not."""
    real = time.time
    time.time = lambda: real() + seconds

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(seconds=seconds)

    jobs.datetime = Shifted  # type: ignore[misc, attr-defined]


def _lock_not_inherited() -> None:
    def popen(*arguments: Any, **options: Any) -> Any:
        return subprocess.Popen(*arguments, **{**options, "pass_fds": ()})

    real = subprocess
    names = {name: getattr(real, name) for name in ("DEVNULL", "STDOUT", "PIPE", "TimeoutExpired")}
    launch.subprocess = SimpleNamespace(Popen=popen, **names)  # type: ignore[attr-defined]


def _copied() -> None:
    def move(source: Path, target: Path) -> None:
        shutil.copyfile(source, target)
        durable.sync(target, target.parent)
        os.unlink(source)
        durable.sync(source.parent)

    durable.move = move


def _unlinked_first() -> None:
    def move(source: Path, target: Path) -> None:
        data = source.read_bytes()
        os.unlink(source)
        durable.write_new(target, data)
        durable.sync(target.parent, source.parent)

    durable.move = move


def _blind_requeue() -> None:
    real_list, real_start = Tokens.list, launch.start
    begun: list[bool] = []

    def listed(self: Tokens, state: State) -> Any:
        found = real_list(self, state)
        if state is State.RUNNING and not begun:
            for token in found:
                self.move(token, State.RUNNING, State.QUEUED)
            found = []
        return found

    def start(*arguments: Any, **options: Any) -> Any:
        begun.append(True)
        return real_start(*arguments, **options)

    Tokens.list = listed  # type: ignore[method-assign]
    launch.start = start


def _deletes_halves() -> None:
    real = accept.Intake.scan

    def scan(self: Any) -> Any:
        for path in self.home.incoming.glob("[!.]*.json"):
            with contextlib.suppress(OSError):
                try:
                    json.loads(path.read_bytes())
                except ValueError:
                    path.unlink()
        return real(self)

    accept.Intake.scan = scan  # type: ignore[method-assign]


def _files_not_synced() -> None:
    real = durable.sync

    def sync(*paths: Path) -> None:
        real(*(path for path in paths if path.is_dir()))

    durable.sync = sync


def _folders_not_synced() -> None:
    real = durable.sync

    def sync(*paths: Path) -> None:
        real(*(path for path in paths if not path.is_dir()))

    durable.sync = sync


def _acknowledged_early() -> None:
    real = dropbox.submit

    def submit(home: Any, spec: Any, job_id: str | None = None) -> str:
        job_id = job_id or dropbox.mint()
        os.write(1, f"{job_id}\n".encode())
        return real(home, spec, job_id)

    dropbox.submit = submit


def _take_forgotten() -> None:
    real = os.rename

    def rename(source: Any, target: Any) -> None:
        if "/state/tmp/" in str(source):
            job_id = Path(source).stem.rpartition("-")[2]
            (Path(source).parent.parent / "accepting" / f"{job_id}.json").unlink(missing_ok=True)
        real(source, target)

    accept.os = SimpleNamespace(**{**vars(os), "rename": rename})  # type: ignore[attr-defined]


def _never_poison() -> None:
    attempts.poison = lambda *_, **__: None


def _moved_twice() -> None:
    real = Tokens.move

    def move(self: Tokens, token: Any, source: State, target: State) -> None:
        real(self, token, source, target)
        if is_final(target) and target is not State.FAILED:
            durable.move(self.path(target, token), self.path(State.FAILED, token))
            durable.move(self.path(State.FAILED, token), self.path(target, token))

    Tokens.move = move  # type: ignore[method-assign]


def _no_patience() -> None:
    real = accept.Intake.__init__

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        self.settle_s = 0.0

    accept.Intake.__init__ = init  # type: ignore[method-assign]


def _wall_clock_sequence() -> None:
    Tokens.last_sequence = lambda _: int(time.time())  # type: ignore[method-assign]


def _swallowed_fsync() -> None:
    real = durable.sync

    def sync(*paths: Path) -> None:
        with contextlib.suppress(OSError):
            real(*paths)

    durable.sync = sync


def _second_runner() -> None:
    real = launch.Lock.acquire

    def acquire(self: Any) -> bool:
        return real(self) or self.folder.name == "state"

    launch.Lock.acquire = acquire  # type: ignore[method-assign]


def _crash_retold() -> None:
    """The bug that this suite found: a runner that knows less tells again how an attempt ended."""
    real = attempts.end

    def end(home: Any, job_id: str, number: int, outcome: str, **details: Any) -> None:
        path = home.run(job_id).attempts / f"{number:04d}.json"
        record = durable.read_json(path) or {}
        if record.get("outcome"):
            durable.write_json(path, {**record, "outcome": outcome, **details})
        real(home, job_id, number, outcome, **details)

    attempts.end = end


BUGS: dict[str, Bug] = {
    "lock_not_inherited": Bug("the trainer does not inherit the GPU lock", _lock_not_inherited),
    "copied": Bug("a token is copied and then deleted instead of renamed", _copied),
    "unlinked_first": Bug("a token is deleted before the new one is written", _unlinked_first),
    "blind_requeue": Bug("a start puts running jobs back without looking for result.json", _blind_requeue),
    "deletes_halves": Bug("a half-written drop is deleted", _deletes_halves),
    "files_not_synced": Bug("files are not fsynced before the rename that commits them", _files_not_synced),
    "folders_not_synced": Bug("folders are not fsynced after a rename", _folders_not_synced),
    "acknowledged_early": Bug("submit prints the id before the drop is in place", _acknowledged_early),
    "take_forgotten": Bug("the taken drop is deleted before its token is committed", _take_forgotten),
    "never_poison": Bug("crashes are not counted", _never_poison),
    "moved_twice": Bug("a token is moved on after it has reached a final state", _moved_twice),
    "no_patience": Bug("a drop is taken while it still changes", _no_patience),
    "wall_clock_sequence": Bug("the place in the queue comes from the wall clock", _wall_clock_sequence),
    "swallowed_fsync": Bug("a failed fsync is passed over", _swallowed_fsync),
    "second_runner": Bug("a second runner starts although the first one lives", _second_runner),
    "crash_retold": Bug("a crash is recorded as an interruption by the next runner", _crash_retold),
    "resume_blindly": Bug("the trainer resumes from a damaged checkpoint", lambda: None),
}
