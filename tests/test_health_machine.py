"""The doctor on a machine whose locks, processes, clocks, disk and folders are really as they are said to be."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Runner, wait_for
from test_health_doctor import H100, NoGpu, beat, of, one
from test_protocol_jobs import accept, end
from test_retention import finish

from spool.health import alive, disk, folders, locks, machine, processes, xid
from spool.health.doctor import report
from spool.protocol import durable, settings
from spool.protocol.home import Home, State
from spool.protocol.settings import Settings

DAY_S = 86_400.0


@pytest.fixture
def hold() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts processes that hold a lock file as the runner (or an orphaned trainer) does."""
    living: list[subprocess.Popen[bytes]] = []

    def begin(path: Path) -> subprocess.Popen[bytes]:
        code = (
            "import fcntl, sys, time\nf = open(sys.argv[1], 'a')\nfcntl.flock(f, fcntl.LOCK_EX)\n"
            "print('up', flush=True)\ntime.sleep(600)"
        )
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        living.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process

    yield begin
    for process in living:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_real_runner(home: Home, stub_runner: Runner) -> None:
    assert stub_runner.process is not None
    pid = stub_runner.process.pid
    assert locks.holder(home.runner_lock) == pid
    assert locks.holder(home.gpu_lock) == pid
    assert (one(home, "runner").level, one(home, "locks").level) == ("ok", "ok")
    assert abs(machine.jump_s(home, pid) or 99) < 5
    inotify = one(home, "inotify")
    assert (inotify.level, "instances" in inotify.message) == ("ok", True)

    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: processes.state(pid) == "T")
    finding = one(home, "runner")
    assert (finding.level, "frozen" in finding.message) == ("fail", True)
    assert finding.cure == f"`kill -CONT {pid}`."
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: one(home, "runner").level == "ok")

    home.runner_lock.unlink()
    home.runner_lock.touch()  # replaced: another runner could start now
    finding = of(home, "locks")[1]
    assert (finding.level, "was deleted or replaced" in finding.message) == ("fail", True)
    assert str(pid) in finding.message


def test_a_runner_that_hangs(home: Home, hold: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = hold(home.runner_lock)
    beat(home, age_s=300)
    finding = one(home, "runner")
    assert (finding.level, "lives and holds its lock, but hangs" in finding.message) == ("fail", True)
    assert f"pid {process.pid}" in finding.message


def test_an_orphaned_trainer(home: Home, hold: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = hold(home.gpu_lock)
    beat(home, age_s=300)
    finding = of(home, "locks")[1]
    assert (finding.level, "still lives and holds the GPU lock" in finding.message) == ("warn", True)
    assert str(process.pid) in finding.message


def test_a_heartbeat_without_its_lock(home: Home) -> None:
    beat(home)
    finding = of(home, "locks")[1]
    assert (finding.level, "nobody holds" in finding.message) == ("fail", True)


def test_locks_that_proc_does_not_show(home: Home, hold: Callable[..., subprocess.Popen[bytes]]) -> None:
    assert not locks.is_taken(home.runner_lock)
    home.runner_lock.touch()
    assert not locks.is_taken(home.runner_lock)
    hold(home.runner_lock)
    assert locks.is_taken(home.runner_lock)


@pytest.mark.parametrize(("order", "words"), [("hold", "the queue is held"), ("drain", "the runner drains")])
def test_orders_that_stand(order: str, words: str, home: Home) -> None:
    (home.control / order).touch()
    finding = of(home, "runner")[1]
    assert (finding.level, words in finding.message, bool(finding.cure)) == ("warn", True, True)


def test_versions(home: Home, monkeypatch: pytest.MonkeyPatch, hold: Callable[..., Any]) -> None:
    monkeypatch.setattr(alive.metadata, "version", lambda _: "0.2.0")
    beat(home, version="0.1.0")
    assert "the runner is version 0.1.0, installed is 0.2.0" in one(home, "version").message
    beat(home, version="0.2.0")
    assert of(home, "version") == []
    beat(home, version="0.2.0", started_at="2020-01-01T00:00:00.000Z")
    assert "the code was changed after" in one(home, "version").message
    hold(home.runner_lock)
    monkeypatch.setattr(sys, "prefix", "/opt/another")
    assert "this is that of /opt/another" in one(home, "version").message


def test_the_card_that_is_missed(home: Home) -> None:
    durable.write_json(home.card_json, {"v": 1, "uuid": "GPU-1", "name": "NVIDIA H100", "count": 1})
    finding = one(home, "gpu", NoGpu(visible="0"))
    assert (finding.level, "was here and cannot be used now" in finding.message) == ("fail", True)
    assert str(home.card_json) in finding.cure
    assert one(home, "gpu", NoGpu(visible="")).level == "ok"  # hidden from this shell


class TwoCards(H100):
    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "uuid": "GPU-1", "count": 2}


def test_one_of_several_cards_is_gone(home: Home) -> None:
    assert "(one of 2)" in of(home, "gpu", TwoCards())[0].message
    durable.write_json(home.card_json, {"v": 1, "uuid": "GPU-1", "name": "NVIDIA H100", "count": 4})
    assert "2 of 4 GPUs are left" in one(home, "gpu", TwoCards()).message


# --- the disk


def test_bytes_by_use(home: Home) -> None:
    run = finish(home, State.DONE)
    (home.models / "big").mkdir()
    (home.models / "big" / "model.safetensors").write_bytes(b"x" * 3_000_000)
    (home.cache / "hub" / "blobs").mkdir(parents=True)
    (home.cache / "hub" / "blobs" / "x").write_bytes(b"x" * 2_000_000)
    (home.cache / "triton").mkdir()
    (home.cache / "triton" / "x").write_bytes(b"x" * 1_000_000)
    run.log.write_bytes(b"x" * 500_000)
    home.reserve.write_bytes(b"x" * 700_000)
    (run.root / ".pruned-checkpoints-1").mkdir()
    (run.checkpoints / "link").symlink_to(home.models / "big")
    uses = disk.measure(home, Settings()).uses
    assert list(uses)[:3] == ["models", "hub", "compiled"]
    near = {"models": 3_000_000, "hub": 2_000_000, "compiled": 1_000_000, "reserve": 700_000, "logs": 500_000}
    near |= {"checkpoints": 60_000, "exports": 20_000, "prepared_rows": 40_000}
    for name, count in near.items():
        assert count <= uses[name] <= count + 40_000, name
    assert {"datasets", "metrics", "records", "rejected", "spool"} <= set(uses)


def test_what_retention_will_free(home: Home) -> None:
    finish(home, State.DONE, days_ago=2)  # its rows are due, its checkpoints tomorrow
    finish(home, State.FAILED)  # its checkpoints in a fortnight
    measured = disk.measure(home, Settings())
    assert 20_000 <= measured.due_bytes <= 40_000
    assert measured.due_bytes + 100_000 <= measured.soon_bytes <= 250_000
    document = json.loads(json.dumps(report(home, NoGpu()).to_json()))["disk"]
    assert document["retention"]["due_bytes"] == measured.due_bytes
    assert document["retention"]["next_at"].startswith("20")
    assert any("retention removes up to" in finding.message for finding in of(home, "disk"))


def test_little_disk(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, level in ((500e9, "ok"), (5e9, "warn"), (0.4e9, "fail")):
        usage = SimpleNamespace(total=1e12, used=1e12 - free, free=int(free))
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda _, usage=usage: usage)
        assert of(home, "disk")[0].level == level


def test_few_inodes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    room = dict.fromkeys(("f_blocks", "f_bfree", "f_bavail"), 10**9)
    for free, level in ((900, "fail"), (15_000, "warn")):
        numbers = SimpleNamespace(f_favail=free, f_files=10**6, f_flag=0, f_frsize=4096, **room)
        monkeypatch.setattr(os, "statvfs", lambda _, numbers=numbers: numbers)
        finding = of(home, "disk")[1]
        assert (finding.level, f"{free:,} files more" in finding.message) == (level, True)


def test_the_reserve_is_gone(home: Home) -> None:
    assert len(of(home, "disk")) == 1  # without a runner nobody keeps it
    beat(home)
    assert "the reserve is gone" in of(home, "disk")[1].message
    with open(home.reserve, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 64_000_000)
    assert len(of(home, "disk")) == 1


def test_counting_stops_in_time(home: Home) -> None:
    for number in range(50):
        (home.models / str(number)).mkdir()
    measured = disk.measure(home, Settings(), budget_s=0.0)
    assert not measured.complete
    assert measured.free_bytes > 0


def test_a_long_history(home: Home) -> None:
    """Work grows with the jobs, not with their square: 10,000 take less than 3 s (docs/measured.md)."""
    for number in range(2000):
        job_id = f"01M81ZAFFVD06P58V9{number:08d}"
        run = home.run(job_id)
        run.root.mkdir()
        for path in (run.spec, run.outcome, run.log):
            path.write_bytes(b'{"ended_at": "2026-01-01T00:00:00.000Z"}')
        (home.state(State.DONE) / f"5-{number:012d}-{job_id}.json").touch()
    began = time.process_time()
    found = report(home, NoGpu())
    assert time.process_time() - began < 2
    assert any("2000 jobs" in finding.message for finding in found.findings)


# --- folders and mounts


def test_who_may_write_where(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.incoming.chmod(0o777)
    finding = one(home, "home")
    assert (finding.level, "everybody" in finding.message, "chmod o-w" in finding.cure) == ("warn", True, True)
    home.incoming.chmod(0o755)
    home.runs.chmod(0o757)
    assert "everybody on this machine can change results" in one(home, "home").message
    home.runs.chmod(0o755)
    home.settings.write_text("{}")
    home.settings.chmod(0o666)
    assert "what jobs may read" in one(home, "home").message
    home.settings.unlink()
    home.control.rmdir()
    assert (one(home, "home").level, "is not there" in one(home, "home").message) == ("fail", True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders to others")
def test_folders_of_another_user(home: Home) -> None:
    home.incoming.chmod(0o3770)
    assert one(home, "home").level == "ok"
    os.chown(home.incoming, 65_534, -1)
    finding = one(home, "home")
    assert (finding.level, "sticky" in finding.message) == ("fail", True)
    os.chown(home.incoming, 0, 12_345)
    home.incoming.chmod(0o770)
    assert "gid 12345, but what is made in it does not get that group" in one(home, "home").message
    home.incoming.chmod(0o2770)
    os.chown(home.state(State.QUEUED), 65_534, -1)
    assert "belongs to" in one(home, "home").message


@pytest.mark.parametrize(
    ("kind", "level"),
    [("nfs4", "warn"), ("fuse.sshfs", "warn"), ("virtiofs", "warn"), ("overlay", "ok"), ("ext4", None)],
)
def test_mounts_that_give_no_events(kind: str, level: str | None, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "filesystem", lambda _: kind)
    findings = of(home, "mounts")
    assert [finding.level for finding in findings] == ([level] if level else [])
    assert all(kind in finding.message for finding in findings)


def test_a_folder_that_only_a_sandbox_closes_is_no_broken_disk(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    device = home.states.stat().st_dev
    line = (
        f"36 25 {os.major(device)}:{os.minor(device)} / / ro,relatime shared:1 - ext4 /dev/sda1 %s,errors=remount-ro\n"
    )
    read_text = Path.read_text
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY, f_favail=1, f_files=0))

    def mounted(how: str) -> bool:
        told = {Path("/proc/self/mountinfo"): line % how}
        monkeypatch.setattr(Path, "read_text", lambda self, *_: told[self] if self in told else read_text(self))
        return folders._read_only(home.states)

    assert (mounted("rw"), mounted("ro")) == (False, True)


def test_a_file_system_that_became_read_only(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_read_only", lambda folder: folder == home.runs)
    assert (one(home, "mounts").level, "read-only" in one(home, "mounts").message) == ("fail", True)


# --- the machine


def test_a_clock_that_is_behind(home: Home) -> None:
    beat(home)
    os.utime(home.runs, (time.time() + 7300, time.time() + 7300))
    finding = of(home, "clock")[0]
    assert (finding.level, "2 hours from now" in finding.message) == ("warn", True)


def test_a_clock_that_was_set_while_the_runner_lives(home: Home, hold: Callable[..., Any]) -> None:
    hold(home.runner_lock)
    for started_at, words in (("2020-01-01T00:00:00.000Z", "set ahead"), ("2031-01-01T00:00:00.000Z", "set back")):
        beat(home, started_at=started_at)
        assert any(words in finding.message for finding in of(home, "clock"))


@pytest.mark.parametrize(("said", "warned"), [("yes", False), ("no", True), ("", False)])
def test_the_network_s_time(said: str, warned: bool, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Path, "is_dir", lambda self, really=Path.is_dir: str(self) == "/run/systemd/system" or really(self)
    )
    monkeypatch.setattr(machine.shutil, "which", lambda _: "/usr/bin/timedatectl")
    monkeypatch.setattr(machine.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=said + "\n"))
    assert any("NTP" in finding.message for finding in of(home, "clock")) is warned


def test_no_file_events(home: Home) -> None:
    beat(home, file_events="inotify instance limit reached")
    finding = one(home, "inotify")
    assert (finding.level, "inotify instance limit reached" in finding.message) == ("warn", True)
    assert "sysctl fs.inotify" in finding.cure


def test_inotify_is_nearly_used_up(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    beat(home)
    monkeypatch.setattr(machine, "_number", lambda path: 10 if "instances" in path.name else 1000)
    files = locks.OpenFiles(inotify={home.states.stat().st_uid: [3] * 10})
    (finding,) = machine.inotify(home, files)
    assert (finding.level, "10 of 10 instances, 30 of 1,000 watches" in finding.message) == ("warn", True)


def test_memory(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "GB of memory available" in of(home, "memory")[0].message
    usage = SimpleNamespace(total=64 << 20, used=0, free=64 << 20)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    assert any("--shm-size" in finding.cure for finding in of(home, "memory"))
    really = machine._number
    monkeypatch.setattr(machine, "_number", lambda path: 2 if path.name == "overcommit_memory" else really(path))
    assert any("overcommit" in finding.message for finding in of(home, "memory"))
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (256, 4096))
    assert any("only 256 files" in finding.message for finding in of(home, "memory"))


def test_what_the_kernel_said_of_the_card(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kmsg").write_text("3,102,9000000,-;NVRM: Xid (PCI:0000:18:00): 79, GPU has fallen off the bus.\n")
    monkeypatch.setattr(xid, "KMSG", tmp_path / "kmsg")
    assert any("Xid 79: the card has fallen off the bus" in finding.message for finding in of(home, "gpu"))


def test_every_finding_has_one_cure(home: Home, hold: Callable[..., Any]) -> None:
    """The illnesses above at once, as one report that is JSON and a text."""
    end(home, accept(home, State.RUNNING), State.FAILED, {"code": "x", "message": "x", "hint": ""})
    beat(home, file_events="none", started_at="2020-01-01T00:00:00.000Z", version="0.0.1")
    (home.control / "hold").touch()
    home.runs.chmod(0o777)
    with open(home.gpu_lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = report(home, NoGpu())
    assert len([finding for finding in found.findings if finding.level != "ok"]) >= 6
    for finding in found.findings:
        assert finding.message.endswith("."), finding
        assert bool(finding.cure) == (finding.level != "ok"), finding
