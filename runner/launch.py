"""How a child is started and ended: the one seam through which a job gets its processes.

A child is the leader of its own session and process group and writes to a file under runs/ID/ (never to a pipe). A
trainer inherits the GPU lock's descriptors: while it lives, the lock is held, whatever becomes of the daemon. The
child that checks data has no part in that lock and sees no GPU. A child that was started before its job gets the lock
with the job.
"""

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from spool.health.machine import available_bytes
from spool.protocol import durable
from spool.protocol.home import Home
from spool.protocol.process import search_path

log = logging.getLogger("runner")

TRAINER = (sys.executable, "-m", "runner.child")
CHECKER = (sys.executable, "-m", "runner.checking")
WARM = (sys.executable, "-m", "runner.warm")

OURS_ALONE = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""The daemon's line to systemd: a child that used it would speak for the daemon."""


class Lock:
    """A lock file, and a folder with it: a file may be deleted and made anew under whoever holds it, a folder in use
    may not."""

    def __init__(self, file: Path, folder: Path) -> None:
        self.folder = folder
        self.fds: tuple[int, ...] = ()
        self._held: list[int] = []
        self._lock = FileLock(
            file,
            blocking=False,
            thread_local=False,
            fallback_to_soft=False,
            preserve_lock_file=True,
            on_acquired=self._held.append,
        )

    def acquire(self) -> bool:
        """True once no other process holds either.

        Raises:
            OSError: the file system knows no locks.
        """
        if self.fds:
            return True
        try:
            self._lock.acquire()
        except Timeout:
            return False
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(folder)
            self._lock.release()
            self._held.clear()
            if isinstance(error, BlockingIOError):
                return False
            raise
        self.fds = (self._held[-1], folder)
        return True


@dataclass
class Child:
    """A process that works on a job (or on the data of several), seen from the daemon."""

    name: str
    process: subprocess.Popen[bytes]
    oom_kills: int
    clock: Callable[[], float] = time.monotonic
    kill_at: float | None = None
    returncode: int | None = field(default=None)

    def terminate(self, grace_s: float) -> None:
        """SIGTERM to the group; SIGKILL follows in `poll` when the grace time is over."""
        if self.kill_at is None:
            self.kill_at = self.clock() + grace_s
            log.info("stopping %s (SIGTERM, %g s of grace)", self.name, grace_s)
            self._signal(signal.SIGTERM)

    def dump(self) -> None:
        """Asks for the stacks of all its threads, in its log (faulthandler)."""
        os.kill(self.process.pid, signal.SIGUSR1)

    def poll(self) -> bool:
        """True once the child has ended and nothing of its group is left; may be asked again."""
        if self.returncode is not None:
            return True
        ended = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            if self.kill_at is not None and self.clock() >= self.kill_at:
                log.warning("killing %s: it did not stop in time", self.name)
                self._signal(signal.SIGKILL)
                self.kill_at = self.clock() + 5
            return False
        self._signal(signal.SIGKILL)  # before it is reaped, so that the group id is still its own
        self.returncode = self.process.wait()
        return True

    def killed_for_memory(self) -> bool:
        return self.returncode == -signal.SIGKILL and oom_kills() > self.oom_kills

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def start(
    home: Home, job_id: str, attempt: int, gpu_lock: Lock, started_in: Path, trainer: tuple[str, ...] = TRAINER
) -> Child:
    """Starts the process for one attempt of one job."""
    assert gpu_lock.fds, "a trainer is started only under the GPU lock"
    command = [*trainer, "--home", str(home.root), "--job", job_id, "--attempt", str(attempt)]
    return _start(job_id, command, started_in, home.run(job_id).log, environment(home), gpu_lock.fds)


def start_check(home: Home, job_ids: list[str], started_in: Path, checker: tuple[str, ...] = CHECKER) -> Child:
    """Starts the process that checks the data of some jobs, in this order."""
    command = [*checker, "--home", str(home.root), *job_ids]
    # The trainer tokenises nothing beside torch's threads; here all cores may help, at the priority of what is idle.
    variables = {**environment(home), "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "true"}
    return _start(f"the check of {job_ids[0]}", command, started_in, home.run(job_ids[0]).check_log, variables, ())


class Warm:
    """At most one child that has its libraries loaded before there is a job for it (runner/warm.py).

    It never decides whether a job runs: where there is none, or it does not fit, `take` gives None and the job gets
    a fresh process. It holds no lock and no memory of the card, and ends with the daemon, whose end of the line closes.
    """

    AFTER_S = 15.0
    """A job has its start to itself before the next child begins to load."""
    PAUSE_S = 600.0
    """After a child that ended by itself, killed for memory for instance."""
    SPARE_BYTES = 4_000_000_000
    """Memory that must be available: a child takes up to a gigabyte, the smallest training 2.3."""

    def __init__(
        self,
        home: Home,
        started_in: Path,
        command: tuple[str, ...],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.home = home
        self.started_in = started_in
        self.command = command
        self.clock = clock
        self.log = home.cache / "warm.log"
        self.child: Child | None = None
        self.on_gpu = False
        self._leaving: list[Child] = []
        self._not_before = clock()
        self._niceness = os.getpriority(os.PRIO_PROCESS, 0)

    def due(self) -> bool:
        """Whether a child is missing and may be started now. Called at every look: it also sees to one that ended."""
        self._leaving = [child for child in self._leaving if not child.poll()]
        if self.child is not None and self.child.poll():
            log.warning("the child that was kept warm has ended by itself; its last words are in %s", self.log)
            self._not_before = self.clock() + self.PAUSE_S
            self._forget()
        return self.child is None and self.clock() >= self._not_before and available_bytes() >= self.SPARE_BYTES

    def start(self, on_gpu: bool) -> None:
        """Starts one, at the lowest priority. What it loads there keeps a job that it does not fit from having it."""
        self.on_gpu, self.variables, self.packages = on_gpu, environment(self.home), packages()
        self.line, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = [*self.command, "--home", str(self.home.root), "--line", str(its_end.fileno())]
        try:
            self.log.parent.mkdir(exist_ok=True)
            self.log.unlink(missing_ok=True)
            fds = (its_end.fileno(),)
            name, gpu = "the child that was kept warm", ["--gpu"] if on_gpu else []
            self.child = _start(name, words + gpu, self.started_in, self.log, self.variables, fds)
        except OSError as error:
            log.warning("no child is kept warm for now: %s", error)
            self._not_before = self.clock() + self.PAUSE_S
            self.line.close()
        finally:
            its_end.close()
        if self.child and _priority_returns():
            _set_priority(self.child, 19)

    def take(self, job_id: str, attempt: int, gpu_lock: Lock) -> Child | None:
        """Hands the job to the child, also while it still loads; None where a fresh process has to do it."""
        assert gpu_lock.fds, "a job is handed over only under the GPU lock"
        self._not_before = max(self._not_before, self.clock() + self.AFTER_S)
        child = self.child
        if child is None or child.poll() or not self._fits(job_id):
            return None
        if self.variables != environment(self.home) or self.packages != packages():
            self.end()
            return None
        _set_priority(child, self._niceness)
        order = ["--home", str(self.home.root), "--job", job_id, "--attempt", str(attempt)]
        with open(self.home.run(job_id).log, "ab") as output:
            try:
                socket.send_fds(self.line, [json.dumps(order).encode()], [*gpu_lock.fds, output.fileno()])
            except OSError:  # it has just ended, or is about to
                return None
        child.name, child.oom_kills = job_id, oom_kills()
        self._forget()
        return child

    def end(self) -> None:
        """Ends it, if there is one; nothing is lost with it."""
        if self.child is not None:
            self.child.terminate(grace_s=1)
            self._leaving.append(self.child)
            self._forget()

    def _forget(self) -> None:
        self.child = None
        self.line.close()

    def _fits(self, job_id: str) -> bool:
        """Without a GPU it has loaded Unsloth, whose patches only a training may have in its process."""
        run = self.home.run(job_id)
        if self.on_gpu:
            return True
        try:
            return durable.read_json(run.spec).get("kind") == "train" and not run.trained.exists()
        except (OSError, ValueError, AttributeError):
            return False


def _set_priority(child: Child, niceness: int) -> None:
    """Of all its threads: in Linux each has its own."""
    with contextlib.suppress(OSError):  # it has just ended
        for thread in os.listdir(f"/proc/{child.process.pid}/task"):
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, int(thread), niceness)


def _priority_returns() -> bool:
    """Whether a priority that was lowered can be raised again (RLIMIT_NICE, or a capability): a thread tries it."""
    found: list[bool] = []

    def attempt() -> None:
        me = threading.get_native_id()
        now = os.getpriority(os.PRIO_PROCESS, me)
        try:
            for niceness in (now + 1, now):
                os.setpriority(os.PRIO_PROCESS, me, niceness)
            found.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=attempt, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread can be started
        return False
    thread.join()
    return bool(found)


def _start(
    name: str, command: list[str], folder: Path, log_file: Path, variables: dict[str, str], pass_fds: tuple[int, ...]
) -> Child:
    before = oom_kills()
    with open(log_file, "ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=pass_fds,
        )
    return Child(name, process, before)


def environment(home: Home) -> dict[str, str]:
    """The daemon's environment plus: caches in the data home, the hub token, no telemetry, unbuffered output."""
    inherited = {name: value for name, value in os.environ.items() if name not in OURS_ALONE}
    return {
        "TORCHINDUCTOR_CACHE_DIR": str(home.cache / "inductor"),
        "TRITON_CACHE_DIR": str(home.cache / "triton"),
        "UNSLOTH_COMPILE_LOCATION": str(home.cache / "unsloth"),
        "HF_HUB_CACHE": str(home.cache / "hub"),
        "HF_DATASETS_CACHE": str(home.cache / "benchmarks"),
        "TOKENIZERS_PARALLELISM": "false",
        **inherited,
        **hub_token(),
        "PYTHONPATH": search_path(),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "UNSLOTH_DISABLE_STATISTICS": "1",
    }


def packages() -> list[int]:
    """When packages were last installed or removed: each time the folder changes that they lie in."""
    folders = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    return [os.stat(folder).st_mtime_ns for folder in sorted(folders)]


def hub_token() -> dict[str, str]:
    """HF_TOKEN from the credential `hf_token` of the service, where it has one; it lies in no file that others read."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    try:
        token = (Path(folder) / "hf_token").read_text().strip() if folder else ""
    except (OSError, UnicodeDecodeError):
        return {}
    return {"HF_TOKEN": token} if token else {}


def oom_kills() -> int:
    """How often the kernel has killed for memory since boot, or in this cgroup: tells that from other SIGKILLs."""
    total = 0
    for path, word in (("/proc/vmstat", "oom_kill "), ("/sys/fs/cgroup/memory.events", "oom_kill ")):
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(word))
    return total
