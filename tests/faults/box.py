"""One data home under test, with what acts on it: daemons that are forked, traced and killed, drops, waiting."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.accept import LITTER
from spool.protocol import dropbox, durable
from spool.protocol.home import FINAL, Home, State
from spool.protocol.states import Token

ROOT = Path(__file__).resolve().parents[2]
TRAINER = [sys.executable, str(ROOT / "tests" / "faults" / "trainer.py")]
CHECKER = [sys.executable, str(ROOT / "tests" / "stub_checker.py")]
SETTINGS = {
    "settle_s": 0.05,
    "scan_s": 0.2,
    "unreadable_s": 0.3,
    "grace_s": 5,
    "stop_s": 5,
    "heartbeat_s": 1,
    "reserve_mb": 1,
}
PATIENCE_S = 45
"""A runner that has not come to an end of its work after so long has not come back by itself."""


class Late(AssertionError):
    """A condition that did not come true in time."""


def wait_until(condition: Callable[[], Any], timeout_s: float = PATIENCE_S, every_s: float = 0.01) -> Any:
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise Late(f"not within {timeout_s:g} s: {getattr(condition, '__doc__', None) or 'a condition'}")
        time.sleep(every_s)
    return value


class Zygote:
    """Forks daemons. One a thread: its pipe carries one request at a time."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


_threads = threading.local()
_zygotes: list[Zygote] = []


def zygote() -> Zygote:
    """This thread's own."""
    if not hasattr(_threads, "zygote"):
        _threads.zygote = Zygote()
        _zygotes.append(_threads.zygote)
    return _threads.zygote


def close_zygotes() -> None:
    while _zygotes:
        _zygotes.pop().close()
    _threads.__dict__.clear()


class Process:
    """A forked daemon (or `finetuner`), perhaps with strace at it."""

    def __init__(self, pid: int, tracer: subprocess.Popen[bytes] | None, trace: Path | None) -> None:
        self.pid = pid
        self.tracer = tracer
        self.trace = trace
        self._zygote = zygote()

    @property
    def code(self) -> int | None:
        return self._zygote.ask(op="poll", pid=self.pid)["code"]

    @property
    def alive(self) -> bool:
        return self.code is None

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.alive:
            os.kill(self.pid, number)

    def end(self, number: int = signal.SIGKILL) -> int:
        """Signals and waits; a tracer ends with what it traces."""
        self.kill(number)
        wait_until(lambda: not self.alive)
        if self.tracer:
            self.tracer.wait(10)
        return self.code or 0

    def untrace(self) -> None:
        """Takes the fault away: strace lets go, the process lives on."""
        if self.tracer and self.tracer.poll() is None:
            self.tracer.send_signal(signal.SIGINT)
            self.tracer.wait(10)


class Box:
    """A data home in a folder of its own, with the oracle's witness beside it."""

    def __init__(self, folder: Path, bug: str | None = None) -> None:
        self.folder = folder
        self.bug = bug
        self.home = Home(folder / "home").create()
        self.witness = folder / "witness"
        self.witness.mkdir()
        self.log = folder / "runner.log"
        self.daemons: list[Process] = []
        self.dropped: dict[str, tuple[bytes, str]] = {}
        """What was acknowledged: id -> (the bytes, the state that it must end in)."""
        self.refused: list[bytes] = []
        """What was dropped and must be found in rejected/, each once."""
        self.home.settings.write_text(json.dumps(SETTINGS))
        (self.home.models / "m").mkdir()
        (self.home.models / "m" / "config.json").write_text("{}")

    def spec(self, name: str, **more: Any) -> dict[str, Any]:
        return {"schema": 1, "name": name, "model": "m", "dataset": "examples/support_tickets.jsonl", **more}

    def submit(self, name: str, must_end: str = "done", **more: Any) -> str:
        data = durable.to_bytes(self.spec(name, **more))
        job_id = dropbox.submit(self.home, data)
        self.dropped[job_id] = (data, must_end)
        return job_id

    def refuse(self, filename: str, data: bytes) -> None:
        (self.home.incoming / filename).write_bytes(data)
        self.refused.append(data)

    def start(
        self,
        inject: str | None = None,
        trace: str | None = None,
        follow: bool = False,
        clock_s: float = 0,
        what: str = "daemon",
        argv: list[str] | None = None,
        log: Path | None = None,
    ) -> Process:
        """Forks a daemon.

        Args:
            inject: strace's words after `-e inject=`.
            trace: system call names to write to a file; with `follow` those of all threads, else of the main one,
                and then fsyncs that the product makes side by side are made one after another.
            clock_s: by how much the wall clock is off.
        """
        traced = bool(inject or trace)
        words = ["--home", str(self.home.root), "--trainer", *TRAINER, "--checker", *CHECKER]
        answer = zygote().ask(
            op="fork",
            what=what,
            argv=argv if argv is not None else words,
            cwd=str(ROOT),
            log=str(log or self.log),
            env={"FAULTS_DIR": str(self.witness), "FAULTS_PLANTED": self.bug or "", "PYTHONPATH": str(ROOT)},
            stop=traced,
            serial=traced and not follow,
            clock_s=clock_s,
            planted=self.bug,
        )
        pid = answer["pid"]
        process = Process(pid, *self._strace(pid, inject, trace, follow)) if traced else Process(pid, None, None)
        self.daemons.append(process)
        return process

    def _strace(
        self, pid: int, inject: str | None, trace: str | None, follow: bool
    ) -> tuple[subprocess.Popen[bytes], Path]:
        output = self.folder / f"strace.{pid}"
        command = ["strace", "-y", "-s", "0", "-o", str(output), "-p", str(pid)]
        command += ["-f", "-b", "execve"] if follow else []
        command += ["-e", f"trace={trace or inject.partition(':')[0]}"]  # type: ignore[union-attr]
        command += ["-e", f"inject={inject}"] if inject else []
        notes = self.folder / f"strace.{pid}.notes"
        with open(notes, "wb") as sink:
            tracer = subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)
        wait_until(lambda: "attached" in notes.read_text() or tracer.poll() is not None, every_s=0.002)
        if tracer.poll() is not None:
            raise RuntimeError(f"strace does not work here: {notes.read_text().strip()}")
        os.kill(pid, signal.SIGCONT)
        return tracer, output

    def tokens(self) -> dict[str, list[State]]:
        """Every job's states: one, if all is well."""
        found: dict[str, list[State]] = {}
        for state in State:
            for name in os.listdir(self.home.state(state)):
                if token := Token.parse(name):
                    found.setdefault(token.job_id, []).append(state)
        return found

    def state(self, job_id: str) -> State | None:
        return next(iter(self.tokens().get(job_id, [])), None)

    def step(self, job_id: str) -> int:
        try:
            return self.home.run(job_id).metrics.read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def status(self) -> dict[str, Any]:
        try:
            return durable.read_json(self.home.runner_json) or {}
        except (OSError, ValueError):
            return {}

    def idle(self, daemon: Process) -> bool:
        """All that was dropped has ended and the runner says that it is ready. Raises Late where a job is nowhere."""
        lost = [job_id for job_id in self.dropped if self._nowhere(job_id)]
        if lost and (lost := [job_id for job_id in lost if self._nowhere(job_id) and self._nowhere(job_id)]):
            raise Late(f"{lost[0]} is nowhere any more")
        status = self.status()
        if status.get("pid") != daemon.pid or status.get("state") != "ready" or status.get("current_job"):
            return False
        tokens = self.tokens()
        if any(not (set(tokens.get(job_id, [])) & FINAL) for job_id in self.dropped):
            return False
        drops = [name for name in os.listdir(self.home.incoming) if not LITTER.fullmatch(name)]
        left = [*drops, *os.listdir(self.home.control), *os.listdir(self.home.accepting)]
        return not left and not any(set(states) - FINAL for states in tokens.values())

    def _nowhere(self, job_id: str) -> bool:
        """To be asked again: a token may go from a folder not yet looked at to one that was."""
        places = (self.home.incoming / f"{job_id}.json", self.home.accepting / f"{job_id}.json")
        return not any(map(os.path.lexists, (*places, self.home.rejected / job_id))) and not self.tokens().get(job_id)

    def said(self) -> list[list[str]]:
        """What the trainers told: [word, job, attempt, pid] each, in order."""
        try:
            return [line.split() for line in (self.witness / "witness.log").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def live_trainers(self) -> list[int]:
        """The pids of trainers that live and whose session is their own, by what they told."""
        pids = {int(words[3]) for words in self.said() if words[0] == "start"}
        return [pid for pid in pids if self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        try:
            return str(self.home.root).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    def clear(self) -> None:
        """Ends everything that was started here."""
        for daemon in self.daemons:
            if daemon.alive:
                os.kill(daemon.pid, signal.SIGCONT)
                daemon.end()
        for _ in range(3):  # one may just have been started
            for entry in Path("/proc").iterdir():
                if entry.name.isdecimal() and int(entry.name) != os.getpid() and self._is_ours(int(entry.name)):
                    os.kill(int(entry.name), signal.SIGKILL)


@contextmanager
def fresh_box(bug: str | None = None, keep_on: list[str] | None = None) -> Iterator[Box]:
    """A box in memory where that can be had: what a kill does to files does not depend on the disk.

    Args:
        keep_on: the folder stays for people to look at when this list has something in it at the end.
    """
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=base))
    box = Box(folder, bug)
    try:
        yield box
    finally:
        box.clear()
        if not (keep_on and os.environ.get("FAULTS_KEEP")):
            shutil.rmtree(folder, ignore_errors=True)
        elif keep_on:
            keep_on.append(f"(kept in {folder})")
