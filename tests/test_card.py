"""The card before a job: lost, gone, hidden, hanging, or full of other people's processes."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_for

from runner.card import Card
from spool.health import processes, xid
from spool.health.gpu import Gpu
from spool.protocol import durable
from spool.protocol.home import Home

GB = 1_000_000_000


class StubGpu(Gpu):
    """A driver that says what it is told to; an answer that is an exception is raised."""

    def __init__(self, *answers: Any, visible: str | None = None) -> None:
        super().__init__(visible)
        self.answers = list(answers)
        self.asked = 0

    def ask(self) -> dict[str, Any]:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


def card(uuid: str = "GPU-1", count: int = 2, used_gb: float = 0.0, **held: float) -> dict[str, Any]:
    """A healthy card; `held` is pid123=GB."""
    found = [{"pid": int(name[3:]), "mem_bytes": int(gb * GB)} for name, gb in held.items()]
    memory = {"mem_total_bytes": 80 * GB, "mem_used_bytes": int((used_gb or sum(held.values())) * GB)}
    about = {"uuid": uuid, "name": "NVIDIA H100", "count": count, "capability": (9, 0)}
    return {**about, "processes": found, **memory}


class NVMLError(Exception):
    pass


LOST = NVMLError("GPU is lost")
NO_LIBRARY = NVMLError("NVML Shared Library Not Found")


@pytest.fixture(autouse=True)
def no_kernel_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(xid, "KMSG", tmp_path / "kmsg")


@pytest.fixture
def start() -> Iterator[Callable[..., int]]:
    """Starts processes of other people, or of ours, and ends them after the test."""
    living: list[subprocess.Popen[bytes]] = []

    def begin(code: str, **options: Any) -> int:
        words = [sys.executable, "-c", f"print('up', flush=True)\n{code}"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True, **options)
        living.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process.pid

    yield begin
    for process in living:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_machine_without_a_card_has_no_fault(home: Home) -> None:
    for error in (NO_LIBRARY, NVMLError("Driver Not Loaded"), ModuleNotFoundError("No module named 'pynvml'")):
        asked = Card(home, StubGpu(error))
        assert (asked.fault(), asked.busy()) == (None, None)
    assert Card(home, StubGpu({"count": 0})).fault() is None
    assert not home.card_json.exists()


def test_a_card_is_remembered(home: Home) -> None:
    asked = Card(home, StubGpu(card()))
    assert asked.fault() is None
    before = home.card_json.stat()
    assert durable.read_json(home.card_json) == {
        "v": 1,
        "uuid": "GPU-1",
        "name": "NVIDIA H100",
        "count": 2,
        "mem_total_bytes": 80 * GB,
        "capability": [9, 0],
    }
    assert asked.fault() is None
    assert home.card_json.stat() == before


# (what NVML says next, words of the fault)
FAULTS: list[tuple[Any, list[str]]] = [
    (LOST, ["NVIDIA H100 (GPU-1)", "GPU is lost", "reboot"]),
    (NVMLError("GPU requires restart"), ["nvidia-smi --gpu-reset"]),
    (NVMLError("RM has detected an NVML/RM version mismatch."), ["mismatch", "upgraded", "reboot"]),
    (NVMLError("Driver/library version mismatch"), ["upgraded", "reboot"]),
    (NVMLError("Driver Not Loaded"), ["Driver Not Loaded", "kernel"]),
    (NO_LIBRARY, ["install the driver"]),
    (NVMLError("Unknown Error"), ["Unknown Error", "reboot"]),
    ({"count": 0}, ["0 of 2 cards are left", "card.json"]),
    (card("GPU-2", count=1), ["1 of 2 cards are left", "card.json"]),
    ({"count": 2}, ["is not to be seen", "card.json"]),
]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_a_card_that_was_here(number: int, restart: bool, home: Home) -> None:
    answer, words = FAULTS[number]
    gpu = StubGpu(card())
    asked = Card(home, gpu)
    assert asked.fault() is None
    gpu.answers = [answer]
    if restart:
        asked = Card(home, gpu)
    fault = asked.fault()
    assert fault is not None
    assert all(word in fault for word in words), fault
    assert fault.endswith(".")
    gpu.answers = [card()]  # after a reset
    assert asked.fault() is None


def test_a_lost_card_is_a_fault_also_at_first_sight(home: Home) -> None:
    assert "is lost" in (Card(home, StubGpu(LOST)).fault() or "")


def test_a_card_that_was_taken_out_for_good(home: Home) -> None:
    gpu = StubGpu(card())
    asked = Card(home, gpu)
    asked.fault()
    gpu.answers = [NO_LIBRARY]
    assert asked.fault() is not None
    home.card_json.unlink()
    assert asked.fault() is None


def test_another_card_in_its_place_is_welcome(home: Home) -> None:
    gpu = StubGpu(card())
    asked = Card(home, gpu)
    asked.fault()
    gpu.answers = [card("GPU-7", count=2)]
    assert asked.fault() is None
    assert durable.read_json(home.card_json)["uuid"] == "GPU-7"


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_a_card_that_is_hidden_on_purpose(visible: str, home: Home) -> None:
    Card(home, StubGpu(card())).fault()
    assert Card(home, StubGpu({"count": 2}, visible=visible)).fault() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"uuid": 3}', '{"v": 1, "uuid": "x", "name": "y", "count": "2"}'])
def test_a_damaged_memory_is_no_memory(text: str, home: Home) -> None:
    home.card_json.write_text(text)
    assert Card(home, StubGpu(NO_LIBRARY)).fault() is None
    assert Card(home, StubGpu(card())).fault() is None
    assert durable.read_json(home.card_json)["count"] == 2


@pytest.mark.alone
def test_a_driver_that_hangs(home: Home) -> None:
    """It holds the daemon up once, no second question is asked meanwhile, and all is well when it answers."""
    go = threading.Event()

    class Hanging(StubGpu):
        def ask(self) -> dict[str, Any]:
            answer = super().ask()
            go.wait(30)
            return answer

    gpu = Hanging(card())
    asked = Card(home, gpu, timeout_s=0.6)
    began = time.monotonic()
    assert "does not answer" in (asked.fault() or "")
    assert 0.6 <= time.monotonic() - began < 5
    began = time.monotonic()
    assert "does not answer" in (asked.fault() or "")
    assert asked.busy() is None
    assert time.monotonic() - began < 0.5
    assert gpu.asked == 1
    go.set()
    wait_for(lambda: asked.fault() is None)


def test_the_kernel_s_word_is_added(home: Home, tmp_path: Path) -> None:
    (tmp_path / "kmsg").write_text(
        "6,100,5000000,-;usb 1-1: new device\n"
        "4,101,7000000,-;NVRM: Xid (PCI:0000:18:00): 13, pid=77, name=python, Graphics Exception\n"
        " SUBSYSTEM=pci\n"
        "3,102,9000000,-;NVRM: Xid (PCI:0000:18:00): 79, GPU has fallen off the bus.\n"
    )
    assert [(each.number, each.severe, each.at_s) for each in xid.read()] == [(13, False, 7.0), (79, True, 9.0)]
    fault = Card(home, StubGpu(LOST)).fault()
    assert "Xid 79: the card has fallen off the bus (PCI:0000:18:00)" in (fault or "")


def test_this_machine_s_kernel_log_can_be_read_or_not() -> None:
    assert isinstance(xid.read(Path("/dev/kmsg")), list)


def test_a_foreign_process_is_named(home: Home, start: Callable[..., int]) -> None:
    pid = start("import time; time.sleep(600)")
    gpu = StubGpu(card(**{f"pid{pid}": 9.66}))
    asked = Card(home, gpu)
    assert asked.fault() is None
    busy = asked.busy() or ""
    assert gpu.asked == 1  # one question serves both
    user = processes.user(os.getpid())
    assert f"pid {pid} ({processes.program(pid)}, " in busy
    assert f"user {user}) holds 9.7 GB" in busy
    gpu.answers = [card(**{f"pid{pid}": 1.9})]
    assert Card(home, gpu).busy() is None
    assert Card(home, gpu, foreign_gb=1.5).busy() is not None


def test_many_foreign_processes(home: Home) -> None:
    busy = Card(home, StubGpu(card(pid4000001=1, pid4000002=3, pid4000003=1, pid4000004=0.5))).busy() or ""
    assert "pid 4000002, which cannot be seen from here holds 3.0 GB, pid 400000" in busy
    assert busy.endswith("and 1 more")


def test_our_own_trainer_is_not_foreign(home: Home, start: Callable[..., int]) -> None:
    """It is known by the GPU lock that it inherited, its own children by their session; never by a number."""
    with open(home.gpu_lock, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
        pid = start(code, pass_fds=[lock.fileno()])
    (worker,) = (Path(f"/proc/{pid}/task/{pid}/children")).read_text().split() or wait_for(
        lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    )
    asked = Card(home, StubGpu(card(**{f"pid{pid}": 30, f"pid{worker}": 5})))
    assert processes.look(home, pid).ours is True
    assert processes.look(home, int(worker)).ours is True
    assert asked.busy() is None
    other = Home(home.root.parent / "other").create()
    other.gpu_lock.touch()
    assert processes.look(other, pid).ours is False
    assert Card(other, StubGpu(card(**{f"pid{pid}": 30}))).busy() is not None


def test_memory_whose_holder_cannot_be_seen(home: Home) -> None:
    """In a container the driver may name nobody."""
    assert "12.0 GB of the GPU are held by what cannot be seen" in (Card(home, StubGpu(card(used_gb=12))).busy() or "")
    assert Card(home, StubGpu(card(used_gb=1))).busy() is None


def test_memory_that_the_driver_does_not_count_by_process(home: Home) -> None:
    answer = {**card(used_gb=12), "processes": [{"pid": 4000001, "mem_bytes": None}]}
    assert "12.0 GB" in (Card(home, StubGpu(answer)).busy() or "")


def test_a_failing_card_is_not_busy(home: Home) -> None:
    assert Card(home, StubGpu(LOST)).busy() is None


def test_what_programs_are_called(start: Callable[..., int], home: Home) -> None:
    assert processes.program(4_000_001) == "?"
    pid = start("import time; time.sleep(600)")
    assert processes.program(pid).endswith(" -c")
    assert processes.state(pid) in ("S", "R", "D")
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: processes.state(pid) == "T")
    began = processes.started(pid)
    assert began is not None
    assert 0 <= time.clock_gettime(time.CLOCK_BOOTTIME) - began < 60


def test_this_machine(home: Home) -> None:
    """Whatever it has: an answer in time, twice the same."""
    asked = Card(home, Gpu())
    assert asked.fault() == asked.fault()
    assert asked.busy() is None or "GPU" in str(asked.busy())
