"""What systemd hears: a fake notify socket, and a real daemon with the stub trainer."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, STUB, Runner, wait_for

from runner.launch import environment
from runner.notify import MORE_TIME_S, Notify
from spool.protocol import dropbox
from spool.protocol.home import Home


class Manager:
    """systemd's end of the line. Keeps every message."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.messages: list[list[str]] = []

    def heard(self, *lines: str) -> bool:
        try:
            while True:
                self.messages.append(self.socket.recv(4096).decode().splitlines())
        except BlockingIOError:
            pass
        return any(all(any(said.startswith(line) for said in message) for line in lines) for message in self.messages)

    def count(self, line: str) -> int:
        self.heard()
        return sum(line in message for message in self.messages)


@pytest.fixture(params=["abstract", "path"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Manager, str]]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@finetuner-test-{os.getpid()}-{tmp_path.name}"
    made = Manager(address)
    yield made, address
    made.socket.close()


def test_ready_once_and_each_change_of_words(manager: tuple[Manager, str]) -> None:
    systemd, address = manager
    notify = Notify({"NOTIFY_SOCKET": address})
    notify.tell("ready", False)
    notify.tell("ready", False)
    notify.tell("a line\nwith READY=1 in it", False)
    notify.tell("stopping", True)
    assert systemd.heard("STOPPING=1", "STATUS=stopping")
    assert systemd.messages == [
        ["READY=1", "STATUS=ready"],
        ["STATUS=a line with READY=1 in it"],
        ["STOPPING=1", "STATUS=stopping"],
    ]


def test_the_watchdog_is_fed_at_half_of_its_time_and_a_stop_asks_for_more(manager: tuple[Manager, str]) -> None:
    systemd, address = manager
    now = [100.0]
    notify = Notify({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "10000000"}, lambda: now[0])
    for _ in range(21):  # ten seconds of rounds
        notify.alive(False)
        now[0] += 0.5
    assert systemd.count("WATCHDOG=1") == 3
    now[0] += 5
    notify.alive(True)
    assert systemd.heard("WATCHDOG=1", f"EXTEND_TIMEOUT_USEC={MORE_TIME_S * 1e6:.0f}")


def test_another_process_s_watchdog_is_not_fed(manager: tuple[Manager, str]) -> None:
    systemd, address = manager
    Notify({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}).alive(False)
    assert not systemd.heard("")


def test_no_manager_and_a_dead_one_change_nothing(tmp_path: Path) -> None:
    for environment_ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "1000"}):
        notify = Notify(environment_)
        notify.tell("ready", False)
        notify.alive(True)


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_real_runner_tells_systemd_how_it_goes(
    home: Home, make_runner: Callable[..., Runner], manager: tuple[Manager, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd, address = manager
    (home.models / "m").mkdir()
    (home.models / "m" / "config.json").write_text("{}")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    runner = make_runner(home, STUB)
    wait_for(lambda: systemd.heard("READY=1", "STATUS=ready"))
    job_id = dropbox.submit(
        home, {"schema": 1, "name": "slow", "model": "m", "dataset": "examples/support_tickets.jsonl"}
    )
    wait_for(lambda: systemd.heard(f"STATUS=ready: job {job_id}"))
    child = Path(f"/proc/{runner.child_pid()}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in child
    assert b"WATCHDOG" not in child
    shutil.move(home.incoming, home.root / "elsewhere")
    home.incoming.write_text("not a folder")
    wait_for(lambda: systemd.heard("STATUS=halted, the queue is held"))
    assert runner.process is not None
    assert runner.process.poll() is None
    fed = systemd.count("WATCHDOG=1")
    wait_for(lambda: systemd.count("WATCHDOG=1") > fed + 1)
    runner.process.send_signal(signal.SIGSTOP)  # a loop that hangs
    systemd.heard()
    fed = systemd.count("WATCHDOG=1")
    with pytest.raises(AssertionError):
        wait_for(lambda: systemd.count("WATCHDOG=1") > fed, timeout_s=1)
    runner.process.send_signal(signal.SIGCONT)
    assert runner.stop() == 0
    assert systemd.heard("STOPPING=1")
    assert systemd.messages[-1][-1].startswith("STATUS=")


def test_the_token_is_a_credential_that_only_children_are_given(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert "HF_TOKEN" not in environment(home)
    (tmp_path / "hf_token").write_text("hf_canary\n")
    assert environment(home)["HF_TOKEN"] == "hf_canary"
    (tmp_path / "hf_token").write_bytes(b"\xff\xfe")
    assert "HF_TOKEN" not in environment(home)


def test_the_line_costs_no_import_of_torch() -> None:
    code = "import sys, runner.notify, runner.recover; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
