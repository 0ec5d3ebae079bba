"""Interactive jobs under a real daemon: they start last, make room, end once, and leave nothing behind."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import STUB, Runner, wait_for

from runner import guest
from runner.guest import Guest
from spool.protocol import asks, dropbox, durable, jobs
from spool.protocol.home import Home
from spool.protocol.ulid import mint


@pytest.fixture(autouse=True)
def model(home: Home) -> None:
    (home.models / "m").mkdir()
    (home.models / "m" / "config.json").write_text("{}")


def session(home: Home, name: str = "talk", **fields: object) -> str:
    return asks.open_session(home, {"model": "m", "name": name, **fields})


def train(home: Home, name: str = "ok", **fields: object) -> str:
    spec = {"schema": 1, "name": name, "model": "m", "dataset": "examples/support_tickets.jsonl", **fields}
    return dropbox.submit(home, spec)


def result(home: Home, job_id: str) -> dict[str, object]:
    return jobs.get_job(home, job_id).result or {}


def test_a_session_runs_while_nothing_else_does_and_makes_room(home: Home, stub_runner: Runner) -> None:
    talking = session(home, priority=0)
    stub_runner.wait(talking, "running")
    asks.ask(home, talking, [{"role": "user", "content": "Hello"}], ["base"])
    began = time.monotonic()
    job = train(home, priority=9)
    stub_runner.wait(job, "done")
    assert time.monotonic() - began < 30
    assert (stub_runner.job(talking).state, result(home, talking)["ended_by"]) == ("done", "made_room")
    assert stub_runner.job(talking).attempts == 1
    wait_for(lambda: list(home.asks.iterdir()) == [])


def test_a_list_of_prompts_needs_room_too_and_a_second_session_waits(home: Home, stub_runner: Runner) -> None:
    first, second = session(home), session(home)
    stub_runner.wait(first, "running")
    time.sleep(0.3)
    assert stub_runner.job(second).state == "queued"
    batch = dropbox.submit(home, {"schema": 1, "kind": "generate", "model": "m", "prompts": ["x"], "name": "ok"})
    stub_runner.wait(batch, "done")
    assert result(home, first)["ended_by"] == "made_room"
    stub_runner.wait(second, "running")


def test_a_session_starts_after_what_was_submitted_later(home: Home, make_runner: Callable[..., Runner]) -> None:
    talking = session(home, priority=0)
    trained = [train(home), train(home, priority=9)]
    runner = make_runner(home, STUB)
    for job_id in trained:
        runner.wait(job_id, "done")
    wait_for(lambda: runner.job(talking).started_at)
    started = [runner.job(job_id).started_at or "" for job_id in [*trained, talking]]
    assert started == sorted(started)


def test_no_session_starts_while_data_is_checked_and_none_ends_for_a_queue_that_is_held(
    home: Home, stub_runner: Runner
) -> None:
    checked = train(home, "check slow")
    wait_for(lambda: stub_runner.job(checked).state == "checking" and stub_runner.checker_pid())
    talking = session(home)
    wait_for(lambda: stub_runner.job(talking).state == "queued")
    time.sleep(0.5)
    assert stub_runner.job(talking).state == "queued"
    (home.run(checked).root / "go").touch()
    stub_runner.wait(checked, "done")
    stub_runner.wait(talking, "running")
    dropbox.queue(home, "hold")
    wait_for(lambda: stub_runner.status()["queue"] == "held")
    waits = train(home)
    stub_runner.wait(waits, "queued")
    time.sleep(0.5)
    assert stub_runner.job(talking).state == "running"
    dropbox.queue(home, "release")
    stub_runner.wait(waits, "done")


def test_a_session_can_be_cancelled(home: Home, stub_runner: Runner) -> None:
    talking = session(home)
    stub_runner.wait(talking, "running")
    dropbox.cancel(home, talking)
    stub_runner.wait(talking, "cancelled")


def test_a_session_that_is_stopped_with_its_runner_is_done_and_not_taken_up_again(
    home: Home, make_runner: Callable[..., Runner]
) -> None:
    runner = make_runner(home, STUB)
    talking = session(home)
    runner.wait(talking, "running")
    assert runner.stop() == 0
    assert (runner.job(talking).state, result(home, talking)) == ("done", {"ended_by": "interrupted"})
    runner.start()
    assert runner.job(talking).attempts == 1


def test_a_session_whose_runner_and_child_were_killed_is_done_as_interrupted(
    home: Home, make_runner: Callable[..., Runner]
) -> None:
    runner = make_runner(home, STUB)
    talking = session(home)
    runner.wait(talking, "running")
    child = runner.child_pid()
    runner.stop(signal.SIGKILL)
    os.killpg(child, signal.SIGKILL)
    runner.start()
    runner.wait(talking, "done")
    assert result(home, talking)["ended_by"] == "interrupted"
    assert durable.read_json(home.run(talking).attempts / "0001.json")["outcome"] == "interrupted"


def test_a_session_that_outlived_its_runner_makes_room_for_the_next_one(
    home: Home, make_runner: Callable[..., Runner]
) -> None:
    runner = make_runner(home, STUB)
    talking = session(home)
    runner.wait(talking, "running")
    runner.stop(signal.SIGKILL)
    runner.start()
    time.sleep(0.5)
    assert runner.job(talking).state == "running"
    job = train(home)
    runner.wait(job, "done")
    assert result(home, talking)["ended_by"] == "made_room"


def test_a_session_that_crashes_has_failed_at_once(home: Home, stub_runner: Runner) -> None:
    talking = session(home, "crash")
    job = stub_runner.wait(talking, "failed")
    assert job.error is not None
    assert (job.error["code"], job.attempts) == ("crashed", 1)


def test_retrying_a_session_opens_another(home: Home, stub_runner: Runner) -> None:
    talking = session(home)
    stub_runner.wait(talking, "running")
    dropbox.cancel(home, talking)
    stub_runner.wait(talking, "cancelled")
    again = dropbox.retry(home, talking)
    stub_runner.wait(again, "running")
    assert asks.is_session(home, again)


class Child:
    kill_at: float | None = None
    ended_with: float | None = None

    def dump(self) -> None: ...

    def terminate(self, grace_s: float) -> None:
        self.ended_with = grace_s


def test_a_session_that_makes_no_room_is_ended_within_thirty_seconds(home: Home, tmp_path: Path) -> None:
    run = home.run(mint())
    run.root.mkdir()
    now, wanted, child = [100.0], [False], Child()
    visitor = Guest(run, child, lambda: wanted[0], lambda: now[0])
    visitor.look()
    assert not run.make_room.exists()
    wanted[0] = True
    visitor.look()
    assert run.make_room.exists()
    wanted[0] = False  # the other job was cancelled: whoever was asked to go goes all the same
    now[0] += guest.LEAVE_S - 0.1
    visitor.look()
    assert child.ended_with is None
    now[0] += 0.1
    visitor.look()
    assert child.ended_with == guest.GRACE_S
    assert guest.LEAVE_S + guest.GRACE_S + 2 < 30


def test_a_session_that_had_to_be_ended_for_another_job_says_so(home: Home, stub_runner: Runner) -> None:
    talking = session(home, "rude")
    stub_runner.wait(talking, "running")
    home.run(talking).make_room.touch()  # as the daemon leaves it
    os.killpg(stub_runner.child_pid(), signal.SIGTERM)
    stub_runner.wait(talking, "done")
    assert result(home, talking)["ended_by"] == "made_room"
