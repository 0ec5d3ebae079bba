"""Fixtures: a fresh data home, a real runner over it, a tiny Gemma, and the embedded Gemma 3 270M."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spool.protocol import durable, jobs
from spool.protocol.home import Home

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parent.parent
STUB = [sys.executable, str(ROOT / "tests" / "stub_trainer.py")]
STUB_WARM = [sys.executable, str(ROOT / "tests" / "stub_warm.py")]
STUB_CHECKER = [sys.executable, str(ROOT / "tests" / "stub_checker.py")]

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Where Python is told to keep nothing that it compiles, each of the many processes here compiles the product anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

MEMORY = Path("/dev/shm")
MEMORY_BYTES = 8 * 2**30
"""What a whole run may leave there."""


def homes_fit_in_memory() -> bool:
    """Whether there is room, and programs may run from there."""
    try:
        told = os.statvfs(MEMORY)
    except OSError:
        return False
    return told.f_bavail * told.f_frsize >= MEMORY_BYTES and not told.f_flag & (os.ST_NOEXEC | os.ST_RDONLY)


# A test makes hundreds of fsyncs: on a disk each takes milliseconds, in memory none. Nothing here looks at what a disk
# keeps: what an fsync saves is what tests/power models. TMPDIR=/tmp has all on the disk.
if "TMPDIR" not in os.environ and homes_fit_in_memory():
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

# Beside other tests (`make test`) a training has one thread: threads that wait for each other are slow on few cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background has them ignore Ctrl-C, and their children with them.
signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_for(condition: Callable[[], Any], timeout_s: float = 30, every_s: float = 0.02) -> Any:
    """The first true value of `condition`; fails with what it last was after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s; last value: {value!r}")
        time.sleep(every_s)


class Runner:
    """A real daemon process, driven through files."""

    def __init__(
        self, home: Home, trainer: list[str] | None = None, cwd: Path = ROOT, warm: list[str] | None = None
    ) -> None:
        self.home = home
        self.log = home.root / "runner.log"
        self.command = [sys.executable, "-m", "runner.daemon", "--home", str(home.root)]
        self.command += ["--trainer", *trainer, "--checker", *STUB_CHECKER] if trainer else []
        self.command += ["--warm", *warm] if warm else []
        self.cwd = cwd
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Runner":
        self.home.runner_json.unlink(missing_ok=True)
        with open(self.log, "ab") as log:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self.process = subprocess.Popen(
                self.command, cwd=self.cwd, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(lambda: self.status().get("state") in ("ready", "waiting") or self.process.poll() is not None)
        return self

    def status(self) -> dict[str, Any]:
        return durable.read_json(self.home.runner_json) or {}

    def job(self, job_id: str) -> jobs.Job:
        return jobs.get_job(self.home, job_id)

    def wait(self, job_id: str, *states: str, timeout_s: float = 60) -> jobs.Job:
        def reached() -> bool:
            assert self.process is not None
            return self.job(job_id).state in states

        try:
            wait_for(reached, timeout_s)
        except AssertionError:
            run = self.home.run(job_id)
            logs = [path for path in (self.log, run.check_log, run.log, run.events) if path.exists()]
            told = "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in logs)
            raise AssertionError(f"{self.job(job_id)}\n{told}") from None
        return self.job(job_id)

    def child_pid(self) -> int:
        """The pid of the running trainer."""
        return wait_for(self._child)

    def checker_pid(self) -> int:
        """The pid of the child that checks data."""
        return wait_for(
            lambda: next((pid for pid, words in self.children().items() if b"--attempt" not in words), None)
        )

    def _child(self) -> int | None:
        return next((pid for pid, words in self.children().items() if b"--attempt" in words), None)

    def children(self) -> dict[int, list[bytes]]:
        """pid -> command line of every process whose parent is the daemon, from /proc."""
        assert self.process is not None
        found = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"--home" in words and b"runner.daemon" not in words:  # else it is a fork that has not become it yet
                found[int(pid)] = words
        return found

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 60) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)


TRAIN = ("test_training", "test_generate.py", "test_embedded_model.py", "test_data_parity.py")
"""How the names of files begin whose tests load a model."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of tests beside each other a process takes files as a whole, and one of them all that load a model."""
    from xdist.scheduler import LoadFileScheduling

    class OneTrains(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "training" if Path(file).name.startswith(TRAIN) else file

    return OneTrains(config, log)


@pytest.fixture(autouse=True)
def logs_are_heard() -> None:
    """Commands that were run in this process may have silenced them."""
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def a_termination_is_left_as_it_was() -> Iterator[None]:
    """The processes that a later test forks inherit what this one listens to with SIGTERM. A multiprocessing pool ends
    them by it, and where it meets a handler in Python just before they wait for work, they wait for ever."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    after = signal.signal(signal.SIGTERM, before)
    assert after == before, f"this test leaves {after} as the handler of SIGTERM"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def make_runner() -> Iterator[Callable[..., Runner]]:
    """Starts runners, and ends them and their children after the test. Without settings trainings make no report, and
    no process is kept warm for the next one."""
    started: list[Runner] = []

    def make(home: Home, trainer: list[str] | None = None, start: bool = True, warm: list[str] | None = None) -> Runner:
        if trainer is None and not home.settings.exists():
            home.settings.write_text('{"report_s": 0, "warm": false}')
        runner = Runner(home, trainer, warm=warm)
        started.append(runner)
        return runner.start() if start else runner

    yield make
    for runner in started:
        if runner.process and runner.process.poll() is None:
            children = runner.children()
            runner.process.kill()
            runner.process.wait()
            for child in children:
                try:
                    os.killpg(child, signal.SIGKILL)
                except ProcessLookupError:
                    pass


@pytest.fixture
def stub_runner(home: Home, make_runner: Callable[..., Runner]) -> Runner:
    """A runner whose jobs are done by the stub trainer: milliseconds a step, no torch."""
    return make_runner(home, STUB)


@pytest.fixture
def daemon(home: Home, make_runner: Callable[..., Runner]) -> Runner:
    """A runner that really trains."""
    return make_runner(home)


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    """A headless Chromium. CI has to have one."""
    from tests import screenshots

    if not screenshots.CHROMIUM.exists():
        reason = f"no {screenshots.CHROMIUM}: apt-get install chromium"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with screenshots.browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Gemma 3 with random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny-gemma"
    subprocess.run([sys.executable, str(ROOT / "tests" / "tiny.py"), str(folder)], check=True, capture_output=True)
    return folder


@dataclass(frozen=True)
class Demo:
    """What `make demo` has said, and the home that it left."""

    home: Path
    done: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, embedded_model: Path) -> Demo:
    """`make demo` as a newcomer runs it, once: six minutes. The tests of exports go on with the model that it taught;
    to run them alone and soon, let DEMO_HOME name a home that a demo has left."""
    if kept := os.environ.get("DEMO_HOME"):
        return Demo(Path(kept), subprocess.CompletedProcess([], 1, "", "DEMO_HOME was given: nothing was run"))
    home = tmp_path_factory.mktemp("demo") / "home"
    home.mkdir()
    (home / "models").symlink_to(ROOT / "data" / "models")
    (home / "settings.json").write_text('{"report_s": 900}')  # a busy machine would ask fewer rows in its four minutes
    environment = {**os.environ, "FINETUNER_HOME": str(home)}
    done = subprocess.run(
        ["make", "demo"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1400, check=False
    )
    return Demo(home, done)


@pytest.fixture(scope="session")
def embedded_model() -> Path:
    """The real Gemma 3 270M; `make test` prepares it before pytest starts."""
    folder = ROOT / "data" / "models" / "gemma-3-270m"
    assert (folder / "embedded.json").is_file(), "run `make setup` first: it prepares the embedded model"
    return folder
