"""What keeps the queue from going wrong over night: waiting, holding, draining, windows, stalls, locks that vanish."""

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import STUB, Runner, wait_for

from runner import waits
from runner.schedule import is_open
from runner.stall import DUMP_S, Vigil
from spool.cli.main import main as finetuner
from spool.protocol import dropbox, durable
from spool.protocol.home import Home, Run
from spool.protocol.settings import Window


@pytest.fixture(autouse=True)
def model(home: Home) -> None:
    folder = home.models / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")


def drop(home: Home, name: str = "ok", **more: object) -> str:
    spec = {"schema": 1, "name": name, "model": "m", "dataset": "examples/support_tickets.jsonl", **more}
    return dropbox.submit(home, spec)


def outcomes(run: Run) -> list[str]:
    return [json.loads(path.read_text())["outcome"] for path in sorted(run.attempts.iterdir())]


def let_pass(run: Run) -> dict[str, Any]:
    """Turns the job's own clock: what it waits for is over."""
    wait = wait_for(lambda: durable.read_json(run.wait))
    durable.write_json(run.wait, {**wait, "not_before": 0})
    return dict(wait)


@pytest.mark.parametrize(("name", "code"), [("away", "no_network"), ("full", "disk_full")])
def test_what_passes_by_itself_is_waited_for(
    home: Home, stub_runner: Runner, name: str, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = drop(home, name)
    run = home.run(job_id)
    wait = let_pass(run) if name == "away" else wait_for(lambda: durable.read_json(run.wait))
    assert (wait["code"], wait["tries"]) == (code, 1)
    if name == "full":
        stub_runner.wait(drop(home), "done")  # others go on meanwhile
        job = stub_runner.job(job_id)
        assert job.state == "queued"
        assert job.waits is not None
        assert job.waits["why"] == "disk_full."
        assert job.waits["not_before"] > (job.submitted_at or "")
        assert finetuner(["--home", str(home.root), "show", job_id]) == 0
        assert "disk_full." in capsys.readouterr().out
        assert wait["free_bytes"] > 1e9
        let_pass(run)
    stub_runner.wait(job_id, "done")
    assert outcomes(run) == ["interrupted", "finished"]
    assert not run.wait.exists()


def test_a_check_that_finds_no_network_is_done_again(home: Home, stub_runner: Runner) -> None:
    job_id = drop(home, "check away")
    wait = let_pass(home.run(job_id))
    assert wait["code"] == "no_network"
    stub_runner.wait(job_id, "done")


def test_waiting_ends_when_it_has_not_helped(home: Home) -> None:
    run = home.run("x")
    run.root.mkdir()
    error = {"code": "no_network", "message": "no way.", "hint": ""}
    waited = [waits.begin(run, error, None, 0, clock=lambda: 100.0) for _ in range(1 + len(waits.BACK_OFF_S))]
    assert [round(wait.not_before - 100) for wait in waited if wait] == list(waits.BACK_OFF_S)
    assert waited[-1] is None
    assert waits.begin(run, error, 20, 0) is not None  # it got further: the count begins anew


def test_nobody_waits_for_ever_because_a_clock_was_set_back(home: Home) -> None:
    run = home.run("x")
    run.root.mkdir()
    wait = waits.begin(run, {"code": "hub_busy", "message": "busy.", "hint": ""}, None, 0, clock=lambda: 1_000_000.0)
    assert wait is not None
    assert not wait.is_over(run, 1_000_001.0)
    assert wait.is_over(run, 1_000_061.0)
    assert wait.is_over(run, 10_000.0)


def test_a_held_queue_stays_held_over_a_restart(home: Home, make_runner: Callable[..., Runner]) -> None:
    assert finetuner(["--home", str(home.root), "hold"]) == 0
    job_id = drop(home)
    runner = make_runner(home, STUB)
    runner.wait(job_id, "queued")
    wait_for(lambda: runner.status()["queue"] == "held")
    runner.stop()
    runner.start()
    wait_for(lambda: "held" in (runner.status()["waiting_for"] or ""))
    assert runner.job(job_id).state == "queued"
    assert finetuner(["--home", str(home.root), "release"]) == 0
    runner.wait(job_id, "done")
    assert os.listdir(home.control) == []


def test_drain_finishes_the_job_and_starts_no_other(home: Home, make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(home, STUB)
    first = drop(home, "slow")
    runner.wait(first, "running")
    second = drop(home)
    dropbox.queue(home, "drain")
    wait_for(lambda: runner.status()["queue"] == "draining")
    assert runner.job(first).state == "running"
    dropbox.cancel(home, first)  # "slow" ends only so
    runner.wait(first, "cancelled")
    assert finetuner(["--home", str(home.root), "drain", "--wait"]) == 0
    runner.wait(second, "queued")
    assert (runner.status()["current_job"], runner.status()["queue"]) == (None, "draining")
    runner.stop()
    runner.start()  # a restart is what one drains for: it ends the drain
    runner.wait(second, "done")
    assert not home.drain.exists()


@pytest.mark.parametrize(
    ("window", "now", "expected"),
    [
        ({"start": "20:00", "end": "07:00"}, "2026-11-22 19:59", False),
        ({"start": "20:00", "end": "07:00"}, "2026-11-22 20:00", True),
        ({"start": "20:00", "end": "07:00"}, "2026-11-23 06:59", True),
        ({"start": "20:00", "end": "07:00"}, "2026-11-23 07:00", False),
        ({"start": "20:00", "end": "07:00", "days": ["fri"]}, "2026-11-28 03:00", True),  # Saturday, of Friday's
        ({"start": "20:00", "end": "07:00", "days": ["fri"]}, "2026-11-28 21:00", False),
        ({"start": "09:00", "end": "17:00"}, "2026-11-22 12:00", True),
        ({"start": "09:00", "end": "17:00"}, "2026-11-22 17:00", False),
        ({"start": "08:00", "end": "08:00", "days": ["sat"]}, "2026-11-29 07:59", True),  # a whole day
    ],
)
def test_the_window(window: dict[str, Any], now: str, expected: bool) -> None:
    assert is_open(Window.model_validate(window), datetime.fromisoformat(now)) is expected


def test_outside_of_the_window_no_job_starts(home: Home, make_runner: Callable[..., Runner]) -> None:
    minute = time.strftime("%H:%M", time.localtime(time.time() - 120))
    before = time.strftime("%H:%M", time.localtime(time.time() - 180))
    home.settings.write_text(json.dumps({"window": {"start": before, "end": minute}}))
    runner = make_runner(home, STUB)
    job_id = drop(home)
    runner.wait(job_id, "queued")
    wait_for(lambda: f"between {before} and {minute}" in (runner.status()["waiting_for"] or ""))
    assert runner.status()["queue"] == "closed"


def test_the_queue_waits_for_disk_instead_of_burning_through(home: Home, make_runner: Callable[..., Runner]) -> None:
    home.settings.write_text('{"min_free_gb": 100000}')
    runner = make_runner(home, STUB)
    job_id = drop(home)
    runner.wait(job_id, "queued")
    wait_for(lambda: "GB of disk are free" in (runner.status()["waiting_for"] or ""))


class Silent:
    """A child that writes nothing; notes how it is ended."""

    def __init__(self) -> None:
        self.kill_at: float | None = None
        self.dumps = 0

    def dump(self) -> None:
        self.dumps += 1

    def terminate(self, grace_s: float) -> None:
        self.kill_at = grace_s


def test_a_silent_child_leaves_its_stacks_and_is_ended(home: Home) -> None:
    run, child, clock = home.run("x"), Silent(), [0.0]
    run.root.mkdir()
    durable.write_json(run.spec, {"limits": {"stall_minutes": 1}})
    vigil = Vigil(run, child, clock=lambda: clock[0])

    def look_at(*times: float) -> None:
        for clock[0] in times:
            vigil.look()

    look_at(30, 59)
    run.pulse.touch()
    look_at(60, 119)
    assert vigil.why is None
    look_at(121)
    run.log.write_text("the stacks")
    assert (child.dumps, child.kill_at) == (1, None)
    look_at(121 + DUMP_S)
    assert child.kill_at is not None
    assert vigil.why == "the job gave no sign of life for 1 minute"


def test_without_stall_minutes_nobody_watches(home: Home) -> None:
    run = home.run("x")
    run.root.mkdir()
    durable.write_json(run.spec, {"limits": {"stall_minutes": None}})
    now = 0.0
    vigil = Vigil(run, Silent(), clock=lambda: now)
    now = 1e6
    vigil.look()
    assert vigil.why is None


@pytest.mark.parametrize("deleted", ["runner.lock", "gpu.lock", "both"])
def test_deleted_lock_files_let_no_second_trainer_in(
    home: Home, make_runner: Callable[..., Runner], deleted: str
) -> None:
    first = make_runner(home, STUB)
    job_id = drop(home, "slow")
    first.wait(job_id, "running")
    trainer = first.child_pid()
    for path in (home.runner_lock, home.gpu_lock):
        if deleted in (path.name, "both"):
            path.unlink()
    second = make_runner(home, STUB, start=False).start()
    assert second.process is not None
    assert second.process.wait(20) == 75
    first.stop(signal.SIGKILL)  # its trainer is an orphan now, and the lock files are new ones
    third = make_runner(home, STUB)
    wait_for(lambda: "earlier runner" in (third.status().get("waiting_for") or ""))
    assert Path(f"/proc/{trainer}").exists()
    os.killpg(trainer, signal.SIGTERM)
    third.wait(job_id, "running")
    assert third.child_pid() != trainer


def hung(home: Home, runner: Runner) -> str:
    """A job that hangs in its first attempt, given up after a second instead of half an hour."""
    dropbox.queue(home, "hold")
    job_id = drop(home, "freeze")
    runner.wait(job_id, "queued")
    spec = durable.read_json(home.run(job_id).spec)
    durable.write_json(home.run(job_id).spec, {**spec, "limits": {**spec["limits"], "stall_minutes": 0.02}})
    dropbox.queue(home, "release")
    runner.wait(job_id, "running")
    return job_id


@pytest.mark.alone
def test_a_job_that_hangs_is_ended_and_tried_again(home: Home, stub_runner: Runner) -> None:
    job_id = hung(home, stub_runner)
    stub_runner.wait(job_id, "done")
    run = home.run(job_id)
    assert outcomes(run) == ["stalled", "finished"]
    first = durable.read_json(run.attempts / "0001.json")
    assert "no sign of life" in first["why"]
    assert "most recent call first" in run.log.read_text()  # where it hung


@pytest.mark.alone
def test_an_orphan_that_hangs_does_not_stop_the_queue(home: Home, make_runner: Callable[..., Runner]) -> None:
    first = make_runner(home, STUB)
    job_id = hung(home, first)
    orphan = first.child_pid()
    first.stop(signal.SIGKILL)
    second = make_runner(home, STUB)
    second.wait(job_id, "done")
    assert not Path(f"/proc/{orphan}").exists()
    assert outcomes(home.run(job_id)) == ["stalled", "finished"]
