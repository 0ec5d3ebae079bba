"""Drops into an incoming/ that lies on another file system, comes and goes, or gives no events."""

import errno
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import STUB, Runner, wait_for
from drop_box import Box, text
from watchdog.observers.api import BaseObserver

from runner import taking, watch
from runner.watch import Wake, Watch
from spool.protocol import durable, jobs
from spool.protocol.home import Home, State
from spool.protocol.states import Tokens
from spool.protocol.ulid import mint


class PowerCut(BaseException):
    """Not an Exception: nothing on the way catches it."""


@pytest.fixture
def apart(home: Home, monkeypatch: pytest.MonkeyPatch) -> Box:
    """A box whose incoming/ answers EXDEV, as one on another file system does."""
    really = os.rename

    def rename(source: Any, target: Any) -> None:
        if (Path(source).parent == home.incoming) != (Path(target).parent == home.incoming):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
        really(source, target)

    monkeypatch.setattr(os, "rename", rename)
    return Box(home)


@pytest.fixture
def mounted(home: Home) -> Iterator[Home]:
    """A home whose incoming/ is a tmpfs of its own."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=1777", "tmpfs", str(home.incoming)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a tmpfs is not permitted here; the same paths run with EXDEV simulated")
    yield home
    while os.path.ismount(home.incoming):
        subprocess.run(["umount", "-l", str(home.incoming)], check=True)


def unmount(home: Home) -> None:
    subprocess.run(["umount", str(home.incoming)], check=True)


def test_a_drop_on_another_file_system_is_copied_and_goes(mounted: Home) -> None:
    box = Box(mounted)
    job_id = mint()
    box.drop(f"{job_id}.json", text("far"))
    box.drop("bad.json", b"{}")
    box.drop("cut.json", b"{")
    with open(mounted.incoming / "huge.json", "wb") as file:
        file.truncate(1 << 20)
    (mounted.incoming / "folder").mkdir()
    os.mkfifo(mounted.incoming / "pipe")
    box.wait()
    box.wait(61)
    assert box.names == ["far"]
    assert box.accepted[0].job_id == job_id
    assert box.rejected == {
        "bad.json": "missing",
        "cut.json": "bad_json",
        "huge.json": "too_large",
        "folder": "is_a_folder",
        "pipe": "not_a_file",
    }
    assert box.bytes_of("bad_json").read_bytes() == b"{"
    assert not box.bytes_of("too_large").exists()  # what is no small file stays on its own file system, hidden
    kept = Path(box.reason("huge.json")["kept_at"])
    assert kept.parent == mounted.incoming
    assert kept.stat().st_size == 1 << 20
    assert all(name.startswith(".rejected-") for name in os.listdir(mounted.incoming))
    before = len(box.rejected)
    box.wait(3600)
    assert len(box.rejected) == before
    box.one_place_each()


def test_a_crash_anywhere_in_the_copy_makes_one_job(apart: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box, left = apart, [0]

    def counted(really: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise PowerCut
            return really(*arguments, **named)

        return call

    for point in range(100):
        box.drop("a.json", text("a"))
        box.drop("bad.json", b"{}")
        box.intake.scan()
        box.now += 0.6
        left[0] = point
        came_through = True
        with monkeypatch.context() as patch:
            for where, what in ((os, "rename"), (durable, "write_unsynced"), (Path, "unlink"), (Path, "mkdir")):
                patch.setattr(where, what, counted(getattr(where, what)))
            patch.setattr(durable, "sync", counted(durable.sync))
            try:
                box.intake.scan()
            except PowerCut:
                came_through = False
        box = box.restarted()
        box.wait()
        assert box.names == ["a"], point
        assert list(box.rejected.values()) == ["missing"], point
        assert box.clean(), point
        box.one_place_each()
        if came_through:
            assert point > 20
            return
        for folder in (box.home.state(State.CHECKING), box.home.rejected, box.home.runs):
            shutil.rmtree(folder)
        box.home.create()
    pytest.fail("no scan came through")


def test_an_incoming_that_was_away_while_the_runner_recovered_makes_one_job(apart: Box, tmp_path: Path) -> None:
    """The copy was made and committed, or not yet made, when the mount went; it comes back with .taking-ID on it."""
    home = apart.home
    done, open_ = mint(), mint()
    home.run(done).root.mkdir()
    (home.incoming / f"{taking.TAKING}{done}").write_bytes(text("done long ago"))
    (home.incoming / f"{taking.TAKING}{open_}").write_bytes(text("was under way"))
    (home.incoming / f"{taking.TAKING}rubbish").write_bytes(text("somebody's joke"))
    os.mkfifo(home.incoming / f"{taking.TAKING}{mint()}")
    apart.wait()
    apart.wait()
    assert apart.names == ["was under way"]
    assert apart.accepted[0].job_id == open_
    assert len(os.listdir(home.incoming)) == 2  # the jokes


def test_a_copy_whose_original_cannot_go_is_no_job(apart: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would be taken anew at each scan."""
    apart.drop("a.json", text("a"))
    apart.intake.scan()
    apart.now += 0.6
    really = os.rename

    def refused(source: Any, target: Any) -> None:
        if Path(source).parent == apart.home.incoming:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(source))
        really(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refused)
        for _ in range(3):
            apart.wait()
    assert apart.accepted == []
    assert apart.intake.left == {"a.json": "cannot take it: Operation not permitted"}
    apart.wait()
    assert apart.names == ["a"]


def test_the_drop_box_may_be_deleted_mounted_and_unmounted_while_the_runner_works(
    mounted: Home, make_runner: Callable[..., Runner]
) -> None:
    (mounted.models / "m").mkdir()
    (mounted.models / "m" / "config.json").write_text("{}")
    good = text(dataset="examples/support_tickets.jsonl")
    runner = make_runner(mounted, STUB)

    def done(count: int) -> None:
        wait_for(lambda: len(jobs.list_jobs(mounted, "done")) == count)
        assert runner.status()["state"] == "ready"

    (mounted.incoming / "on the mount.json").write_bytes(good)
    done(1)
    unmount(mounted)
    (mounted.incoming / "below it.json").write_bytes(good)
    done(2)
    shutil.rmtree(mounted.incoming)
    wait_for(mounted.incoming.is_dir)
    (mounted.incoming / "in the new folder.json").write_bytes(good)
    done(3)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mounted.incoming)], check=True)
    (mounted.incoming / "mounted again.json").write_bytes(good)
    done(4)
    assert len(Tokens(mounted).list(State.DONE)) == 4
    assert "Traceback" not in runner.log.read_text()


# Events are only hints


@pytest.fixture
def watched(home: Home) -> Iterator[tuple[Home, Wake, Watch]]:
    wake = Wake()
    watching = Watch(wake, [home.incoming, home.control])
    watching.ensure()
    yield home, wake, watching
    watching.stop()


def woken(wake: Wake) -> bool:
    started = time.monotonic()
    wake.wait(5)
    return time.monotonic() - started < 4


def test_every_way_in_wakes_the_runner(watched: tuple[Home, Wake, Watch], tmp_path: Path) -> None:
    from test_drops import WAYS_IN

    home, wake, _ = watched
    for i, way in enumerate(WAYS_IN):
        source = tmp_path / f"{i}.json"
        source.write_bytes(text())
        way(source, home.incoming / f"{i}.json")
        assert woken(wake), way
        time.sleep(0.1)
        wake.wait(0)  # the rest of its events


def test_a_fault_in_a_handler_or_a_dead_thread_is_noticed_at_the_next_scan(
    watched: tuple[Home, Wake, Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, wake, watching = watched
    seen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)

    def failing() -> None:
        raise RuntimeError("a fault in a handler")

    with monkeypatch.context() as patch:
        patch.setattr(wake, "set", failing)
        (home.incoming / "a.json").write_bytes(b"x")
        wait_for(lambda: seen)
        wait_for(lambda: not watching._observer.is_alive())  # type: ignore[union-attr]
    watching.ensure()
    (home.incoming / "b.json").write_bytes(b"x")
    assert woken(wake)
    assert watching.problem is None


@pytest.mark.parametrize("fault", [errno.EMFILE, errno.ENOSPC])
def test_without_inotify_the_scans_go_on_alone_and_nothing_leaks(
    home: Home, fault: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two watches fails, as it does where a limit is reached."""
    wake = Wake()
    watching = Watch(wake, [home.incoming, home.control])

    def start(self: Any) -> None:
        first = next(iter(self.emitters))
        first.start()
        raise OSError(fault, os.strerror(fault))

    before = threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(BaseObserver, "start", start)
        for _ in range(5):
            watching.ensure()
        assert watching.problem == f"[Errno {fault}] {os.strerror(fault)}"
        box = Box(home)
        box.drop("a.json")
        box.wait()
        assert box.names == ["ok"]
    wait_for(lambda: threading.active_count() <= before)
    watching.ensure()
    assert watching.problem is None
    (home.incoming / "b.json").write_bytes(b"x")
    assert woken(wake)
    watching.stop()


def test_drops_whose_events_were_lost_are_found_by_the_next_scan(
    home: Home, make_runner: Callable[..., Runner]
) -> None:
    """The runner is stopped while its event queue overflows; what comes after that is seen by nobody."""
    import signal

    (home.models / "m").mkdir()
    (home.models / "m" / "config.json").write_text("{}")
    runner = make_runner(home, STUB)
    assert runner.process is not None
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    os.kill(runner.process.pid, signal.SIGSTOP)
    litter = [open(home.incoming / name, "wb", buffering=0) for name in (".one", ".two")]  # noqa: SIM115
    for i in range(most + 2000):  # by turns: the kernel joins an event with its like before it
        litter[i % 2].write(b"x")
    for file in litter:
        file.close()
    for i in range(150):
        (home.incoming / f"{i}.json").write_bytes(text(str(i), dataset="examples/support_tickets.jsonl"))
    os.kill(runner.process.pid, signal.SIGCONT)
    wait_for(lambda: len(list(home.runs.iterdir())) == 150, timeout_s=30)
    wait_for(lambda: os.listdir(home.incoming) in ([".one", ".two"], [".two", ".one"]))
    assert watch.log.name == "runner"
