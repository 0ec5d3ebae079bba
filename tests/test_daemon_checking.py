"""Jobs lie in `checking` before they are queued: a real daemon with a stub checker and a stub trainer."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, STUB, Runner, wait_for
from test_daemon import drop, model  # noqa: F401  (model is an autouse fixture)

from runner.gate import Gate
from spool.protocol import dropbox, durable
from spool.protocol.home import Home, State
from spool.protocol.jobs import get_job
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import mint


def let_go(home: Home, job_id: str) -> None:
    (home.run(job_id).root / "go").touch()


def checks(home: Home, job_id: str) -> int:
    """How many processes have begun to check the job."""
    log = home.run(job_id).check_log
    return sum(line.startswith("check ") for line in log.read_text().splitlines()) if log.exists() else 0


def test_what_must_not_train_fails_while_another_job_trains_and_no_attempt_is_made(
    home: Home, stub_runner: Runner
) -> None:
    running = drop(home, "slow")
    stub_runner.wait(running, "running")
    blocked, good = drop(home, "blocked"), drop(home)
    job = stub_runner.wait(blocked, "failed")
    assert job.error == {"code": "data_blocked", "message": "nothing to train on.", "hint": "Add answers."}
    assert (job.attempts, job.started_at) == (0, None)
    assert job.ended_at is not None
    assert not home.run(blocked).attempts.exists()
    stub_runner.wait(good, "queued")
    assert stub_runner.job(running).state == "running"


def test_the_order_is_kept_over_more_than_one_batch(home: Home, make_runner: Callable[..., Runner]) -> None:
    priorities = [5, 9, 0, 5, 5, 9, 5, 0, 5, 5]
    ids = [drop(home, "blocked" if n == 4 else "ok", priority=priority) for n, priority in enumerate(priorities)]
    for n, job_id in enumerate(ids):
        os.utime(home.incoming / f"{job_id}.json", (1_000_000 + n, 1_000_000 + n))
    runner = make_runner(home, STUB)
    for job_id in ids:
        runner.wait(job_id, "done", "failed")
    done = [n for n in range(10) if n != 4]
    order = sorted(done, key=lambda n: runner.job(ids[n]).started_at or "")
    assert order == sorted(done, key=lambda n: (priorities[n], n))


def test_cancel_while_checking(home: Home, stub_runner: Runner) -> None:
    cancelled, behind = drop(home, "check slow"), drop(home)
    wait_for(lambda: checks(home, cancelled))
    stub_runner.wait(behind, "checking")
    checker = stub_runner.checker_pid()
    dropbox.cancel(home, cancelled)
    job = stub_runner.wait(cancelled, "cancelled")
    assert (job.attempts, job.error) == (0, None)
    wait_for(lambda: not Path(f"/proc/{checker}").exists())
    stub_runner.wait(behind, "done")
    assert stub_runner.job(cancelled).state == "cancelled"
    assert not home.run(cancelled).checked.exists()
    assert os.listdir(home.control) == []


def test_a_killed_check_is_begun_again_and_never_counts(home: Home, stub_runner: Runner) -> None:
    job_id = drop(home, "check slow")
    for n in (1, 2, 3, 4):
        wait_for(lambda n=n: checks(home, job_id) == n)  # type: ignore[misc]
        os.kill(stub_runner.checker_pid(), signal.SIGKILL)
    wait_for(lambda: checks(home, job_id) == 5)
    assert stub_runner.job(job_id).state == "checking"
    assert not home.run(job_id).crashes.exists()
    let_go(home, job_id)
    stub_runner.wait(job_id, "done")


def test_a_job_that_crashes_its_check_fails_and_those_behind_it_go_on(home: Home, stub_runner: Runner) -> None:
    crashing, once, good = drop(home, "check crash"), drop(home, "check once"), drop(home)
    job = stub_runner.wait(crashing, "failed")
    assert job.error is not None
    assert job.error["code"] == "check_crashed"
    assert "SIGSEGV" in job.error["message"]
    assert "3 times" in job.error["message"]
    assert (checks(home, crashing), job.attempts) == (3, 0)
    stub_runner.wait(once, "done")
    assert durable.read_json(home.run(once).crashes)["crashes"] == 1
    stub_runner.wait(good, "done")
    assert not home.run(good).crashes.exists()


def test_a_stopped_runner_ends_its_check_at_once_and_does_it_again_later(
    home: Home, make_runner: Callable[..., Runner]
) -> None:
    runner = make_runner(home, STUB)
    job_id = drop(home, "check slow")
    wait_for(lambda: checks(home, job_id))
    checker = runner.checker_pid()
    started = time.monotonic()
    assert runner.stop() == 0
    assert time.monotonic() - started < 5
    assert not Path(f"/proc/{checker}").exists()
    assert runner.job(job_id).state == "checking"
    let_go(home, job_id)
    runner.start()
    runner.wait(job_id, "done")
    assert checks(home, job_id) == 2


def test_the_word_of_a_dead_runners_check_is_heard(home: Home, make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(home, STUB)
    job_id = drop(home, "check slow")
    wait_for(lambda: checks(home, job_id))
    runner.stop(signal.SIGKILL)
    let_go(home, job_id)
    wait_for(home.run(job_id).checked.exists)
    assert runner.job(job_id).state == "checking"
    second = make_runner(home, STUB)
    second.wait(job_id, "done")
    assert checks(home, job_id) == 1


def test_a_checking_job_is_moved_at_once_and_held_once_it_is_queued(home: Home, stub_runner: Runner) -> None:
    """Nothing else runs: were the order not obeyed first, the job would start as soon as it is queued."""
    job_id = drop(home, "check slow")
    wait_for(lambda: checks(home, job_id))
    dropbox.control(home, "hold", job_id)
    dropbox.control(home, "top", job_id)
    wait_for(lambda: os.listdir(home.control) == [f"hold-{job_id}"])
    assert (stub_runner.job(job_id).state, stub_runner.job(job_id).priority) == ("checking", 0)
    let_go(home, job_id)
    assert stub_runner.wait(job_id, "held", "running", "done").state == "held"
    wait_for(lambda: os.listdir(home.control) == [])
    dropbox.control(home, "release", job_id)
    assert stub_runner.wait(job_id, "done").attempts == 1


def test_a_check_holds_no_gpu_lock_and_sees_no_gpu(home: Home, make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(home, STUB)
    job_id = drop(home, "check slow")
    wait_for(lambda: checks(home, job_id))
    checker = runner.checker_pid()
    opened = [os.readlink(f"/proc/{checker}/fd/{fd}") for fd in os.listdir(f"/proc/{checker}/fd")]
    assert not any(path.endswith(".lock") for path in opened)
    assert b"CUDA_VISIBLE_DEVICES=" in Path(f"/proc/{checker}/environ").read_bytes().split(b"\0")
    runner.stop(signal.SIGKILL)
    second = make_runner(home, STUB)
    assert second.status()["state"] == "ready"  # not waiting for the orphan
    let_go(home, job_id)
    second.wait(job_id, "done")


def test_a_damaged_word_is_no_word(home: Home, make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(home, STUB, start=False)
    job_id = drop(home, "slow")
    runner.start()
    runner.wait(job_id, "running")
    runner.stop()
    state, token = Tokens(home).find(job_id) or (None, None)
    assert state is State.QUEUED
    assert token is not None
    os.rename(Tokens(home).path(State.QUEUED, token), Tokens(home).path(State.CHECKING, token))
    home.run(job_id).checked.write_bytes(b'{"outcome": "pas')
    runner.start()
    runner.wait(job_id, "running")
    assert checks(home, job_id) == 2


class Ended:
    """A checking child that is gone."""

    def __init__(self, returncode: int, for_memory: bool) -> None:
        self.returncode, self.for_memory = returncode, for_memory

    def poll(self) -> bool:
        return True

    def killed_for_memory(self) -> bool:
        return self.for_memory


@pytest.mark.parametrize(
    ("returncode", "for_memory", "code"),
    [(-9, True, "out_of_memory"), (1, False, "check_crashed"), (-11, False, "check_crashed"), (-9, False, None)],
)
def test_what_a_silent_end_means(home: Home, returncode: int, for_memory: bool, code: str | None) -> None:
    gate = Gate(home, ROOT, ())
    heads = [Token(5, n, mint()) for n in (1, 2)]
    for token in heads:
        home.run(token.job_id).root.mkdir()
        gate.tokens.create(State.CHECKING, token, {})
    for _ in range(3):
        assert gate.tokens.list(State.FAILED) == []
        gate.child, gate.job_ids = Ended(returncode, for_memory), [token.job_id for token in heads]  # type: ignore
        gate.settle()
        assert gate.child is None
    failed = gate.tokens.list(State.FAILED)
    assert failed == ([heads[0]] if code else [])
    for token in failed:
        error = get_job(home, token.job_id).error
        assert error is not None
        assert error["code"] == code
        assert error["message"]
        assert error["hint"]
    assert not home.run(heads[1].job_id).crashes.exists()


@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_a_full_control_folder_of_orders_for_ended_jobs_is_cleared(
    home: Home, stub_runner: Runner, outcome: str
) -> None:
    job_id = drop(home, "ok" if outcome == "passed" else "blocked")
    stub_runner.wait(job_id, "done", "failed")
    for verb in ("hold", "top", "cancel", "release"):
        (home.control / f"{verb}-{job_id}").touch()
    wait_for(lambda: os.listdir(home.control) == [])
