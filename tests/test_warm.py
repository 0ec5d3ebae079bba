"""The child that is kept warm for the next job: what it holds, what it does with a job, and what becomes of the job
where there is none."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, STUB, STUB_WARM, Runner, wait_for

from runner import launch
from runner.stall import Orphan
from spool.health import processes
from spool.protocol import dropbox, durable
from spool.protocol.home import Home

AHEAD = "-- the libraries were loaded ahead"


@pytest.fixture(autouse=True)
def often(home: Home) -> None:
    """The daemon looks often: a child is begun at its second look."""
    home.settings.write_text('{"scan_s": 0.2}')


@pytest.fixture
def runner(home: Home, make_runner: Callable[..., Runner]) -> Runner:
    return make_runner(home, STUB, warm=STUB_WARM)


def drop(home: Home, name: str = "ok") -> str:
    (home.models / "m").mkdir(exist_ok=True)
    (home.models / "m" / "config.json").write_text("{}")
    spec = {"schema": 1, "name": name, "model": "m", "dataset": "examples/support_tickets.jsonl"}
    return dropbox.submit(home, spec)


def waiting(runner: Runner) -> int:
    """The pid of the child that waits."""
    return wait_for(lambda: next((pid for pid, words in runner.children().items() if b"--line" in words), None))


def ready(runner: Runner) -> int:
    pid = waiting(runner)
    wait_for(lambda: "-- ready" in (runner.home.cache / "warm.log").read_text())
    return pid


def gone(pid: int) -> bool:
    return processes.state(pid) in (None, "Z")


def outcomes(home: Home, job_id: str) -> list[str]:
    return [durable.read_json(path)["outcome"] for path in sorted(home.run(job_id).attempts.iterdir())]


def is_locked(path: Path) -> bool:
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_the_child_that_waits_does_the_job_and_holds_the_lock_from_then_on(
    home: Home, runner: Runner, make_runner: Callable[..., Runner]
) -> None:
    pid = ready(runner)
    assert pid not in processes.holders(home.gpu_lock)
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
    if launch._priority_returns():
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    job_id = drop(home, "slow")
    runner.wait(job_id, "running")
    wait_for(lambda: runner.job(job_id).progress["step"])
    assert pid in processes.holders(home.gpu_lock)
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0)
    assert AHEAD in home.run(job_id).log.read_text()

    runner.stop(signal.SIGKILL)  # what it holds is the lock itself, and a new runner waits for it
    assert is_locked(home.gpu_lock)
    second = make_runner(home, STUB, warm=STUB_WARM)
    wait_for(lambda: "earlier runner" in (second.status().get("waiting_for") or ""))
    assert not gone(pid)
    other = ready(second)
    Orphan(home, job_id).terminate(grace_s=30)  # it is known by the job's log
    wait_for(lambda: gone(pid))
    wait_for(lambda: second.job(job_id).attempts == 2)
    assert outcomes(home, job_id)[0] == "interrupted"
    wait_for(lambda: other in processes.holders(home.gpu_lock))


@pytest.mark.parametrize("load", ["", "slow"])
def test_it_ends_with_the_daemon(home: Home, make_runner: Callable[..., Runner], load: str) -> None:
    (home.root / "load").write_text(load)
    runner = make_runner(home, STUB, warm=STUB_WARM)
    pid = waiting(runner) if load else ready(runner)
    runner.stop(signal.SIGKILL)
    wait_for(lambda: gone(pid))
    runner.start()
    pid = waiting(runner)
    assert runner.stop() == 0
    wait_for(lambda: gone(pid))


@pytest.mark.parametrize("stop", ["cancel", "runner"])
def test_a_job_that_was_handed_over_while_it_loads_can_be_stopped(
    home: Home, make_runner: Callable[..., Runner], stop: str
) -> None:
    (home.root / "load").write_text("slow")
    runner = make_runner(home, STUB, warm=STUB_WARM)
    pid = waiting(runner)
    job_id = drop(home)
    wait_for(lambda: pid in processes.holders(home.run(job_id).log))
    os.kill(pid, signal.SIGUSR1)  # the watchdog asks where it hangs, and reads it in the job's log
    wait_for(lambda: "in load" in home.run(job_id).log.read_text())
    if stop == "cancel":
        dropbox.cancel(home, job_id)
        runner.wait(job_id, "cancelled")
    else:
        assert runner.stop() == 0
        assert runner.job(job_id).state == "queued"
        assert outcomes(home, job_id) == ["interrupted"]
    assert gone(pid)


def test_a_job_that_is_handed_over_while_it_loads_begins_when_it_has(
    home: Home, make_runner: Callable[..., Runner]
) -> None:
    (home.root / "load").write_text("slow")
    runner = make_runner(home, STUB, warm=STUB_WARM)
    pid = waiting(runner)
    job_id = drop(home)
    wait_for(lambda: pid in processes.holders(home.run(job_id).log))
    (home.root / "loaded").touch()
    assert runner.wait(job_id, "done").attempts == 1
    assert AHEAD in home.run(job_id).log.read_text()


def test_where_it_was_killed_the_job_gets_a_fresh_process(home: Home, runner: Runner) -> None:
    pid = ready(runner)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists())  # the daemon has seen it
    job_id = drop(home)
    assert runner.wait(job_id, "done").attempts == 1
    assert AHEAD not in home.run(job_id).log.read_text()
    assert "has ended by itself" in runner.log.read_text()


def test_where_the_libraries_cannot_be_loaded_the_job_begins_cold(
    home: Home, make_runner: Callable[..., Runner]
) -> None:
    """Before its job it ends; with its job it begins anew, in the same process and with the lock."""
    (home.root / "load").write_text("fail")
    runner = make_runner(home, STUB, warm=STUB_WARM)
    wait_for(lambda: "has ended by itself" in runner.log.read_text())
    assert "no libraries here" in (home.cache / "warm.log").read_text()
    first = drop(home)
    assert runner.wait(first, "done").attempts == 1
    runner.stop()

    (home.root / "load").write_text("slow fail")
    runner.start()
    pid = waiting(runner)
    second = drop(home)
    wait_for(lambda: pid in processes.holders(home.run(second).log))
    home.settings.unlink()
    os.mkfifo(home.settings)  # the trainer, the real one, waits at it
    (home.root / "loaded").touch()
    wait_for(lambda: f"--job\0{second}" in Path(f"/proc/{pid}/cmdline").read_text())
    assert pid in processes.holders(home.gpu_lock)
    home.settings.write_text("{}")
    home.settings.unlink()
    job = runner.wait(second, "failed")  # by the real trainer, which has read the model
    assert job.attempts == 1
    assert "no libraries here" in home.run(second).log.read_text()
    assert "-- starting" in home.run(second).log.read_text()


@pytest.mark.parametrize("off", ["setting", "other trainer"])
def test_nothing_is_kept_warm(home: Home, make_runner: Callable[..., Runner], off: str) -> None:
    if off == "setting":
        home.settings.write_text('{"warm": false}')
    runner = make_runner(home, STUB, warm=STUB_WARM if off == "setting" else None)
    job_id = drop(home)
    runner.wait(job_id, "done")
    assert AHEAD not in home.run(job_id).log.read_text()
    assert not (home.cache / "warm.log").exists()


@pytest.fixture
def warm(home: Home) -> Iterator[launch.Warm]:
    """The daemon's side alone, with a clock that stands still."""
    found = launch.Warm(home, ROOT, (sys.executable, STUB_WARM[1]), clock=lambda: 0.0)
    yield found
    found.end()
    wait_for(lambda: (found.due(), not found._leaving)[1])


def lock(home: Home) -> launch.Lock:
    found = launch.Lock(home.gpu_lock, home.states)
    assert found.acquire()
    return found


def run_of(home: Home, job_id: str, **spec: Any) -> str:
    home.run(job_id).attempts.mkdir(parents=True)
    durable.write_json(home.run(job_id).spec, {"schema": 1, "kind": "train", "name": "ok", **spec})
    return job_id


def test_a_job_starts_with_the_environment_of_now(
    home: Home, warm: launch.Warm, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert warm.due()
    warm.start(on_gpu=False)
    assert warm.child
    pid = warm.child.process.pid
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert warm.take(run_of(home, "1"), 1, lock(home)) is None
    assert warm.child is None
    wait_for(lambda: gone(pid))


def test_what_was_compiled_is_kept_in_the_data_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries' own caches, which go by content, versions and card; an administrator may name other places."""
    caches = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "UNSLOTH_COMPILE_LOCATION", "HF_HUB_CACHE")
    for name in caches:
        monkeypatch.delenv(name, raising=False)
    given = launch.environment(home)
    assert {Path(given[name]).parent for name in caches} == {home.cache}
    assert len({given[name] for name in caches}) == len(caches)
    monkeypatch.setenv("TRITON_CACHE_DIR", "/fast/triton")
    assert launch.environment(home)["TRITON_CACHE_DIR"] == "/fast/triton"


def test_a_job_starts_with_the_packages_of_now(
    home: Home, warm: launch.Warm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launch.sysconfig, "get_path", lambda name: str(tmp_path))
    os.utime(tmp_path, (1, 1))
    warm.start(on_gpu=False)
    assert warm.child
    pid = warm.child.process.pid
    (tmp_path / "torch-3.0.dist-info").mkdir()
    assert warm.take(run_of(home, "1"), 1, lock(home)) is None
    wait_for(lambda: gone(pid))


@pytest.mark.parametrize(
    ("spec", "trained", "fits"),
    [
        ({}, False, True),
        ({}, True, False),  # its process makes exports and the report
        ({"kind": "generate"}, False, False),
        ({"kind": "export"}, False, False),
        ({"kind": "evaluate"}, False, False),
    ],
)
def test_what_unsloth_has_patched_does_nothing_but_train(
    home: Home, warm: launch.Warm, spec: dict[str, Any], trained: bool, fits: bool
) -> None:
    warm.start(on_gpu=False)
    kept = warm.child
    job_id = run_of(home, "1", **spec)
    if trained:
        durable.write_json(home.run(job_id).trained, {})
    child = warm.take(job_id, 1, lock(home))
    assert (child is kept) == fits
    assert (warm.child is kept) != fits  # it goes on waiting for a training
    if child:
        wait_for(child.poll)
        assert child.returncode == 0
        assert durable.read_json(home.run(job_id).result)["outcome"] == "finished"


def test_on_a_gpu_it_does_every_job(home: Home, warm: launch.Warm) -> None:
    warm.start(on_gpu=True)
    child = warm.take(run_of(home, "1", kind="generate"), 1, lock(home))
    assert child
    wait_for(child.poll)


def test_none_is_started_while_memory_is_short_or_a_job_has_just_begun(
    home: Home, warm: launch.Warm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "available_bytes", lambda: launch.Warm.SPARE_BYTES - 1)
    assert not warm.due()
    monkeypatch.undo()
    assert warm.due()
    assert warm.take(run_of(home, "1"), 1, lock(home)) is None
    assert not warm.due()
    warm.clock = lambda: launch.Warm.AFTER_S
    assert warm.due()


def test_one_that_ended_by_itself_is_not_replaced_at_once_whatever_starts_meanwhile(
    home: Home, warm: launch.Warm
) -> None:
    warm.start(on_gpu=False)
    assert warm.child
    warm.child.process.kill()
    wait_for(lambda: warm.due() or warm.child is None)
    assert warm.take(run_of(home, "1"), 1, lock(home)) is None
    warm.clock = lambda: launch.Warm.PAUSE_S - 1
    assert not warm.due()
    warm.clock = lambda: launch.Warm.PAUSE_S
    assert warm.due()
