"""A backup is a copy of one folder, also while a runner works in it; restored elsewhere, it goes on."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import STUB, Runner, wait_for

from runner import recover
from runner.accept import LITTER
from spool.protocol import dropbox, durable, jobs
from spool.protocol.home import Home, State
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import mint

SPEC = {"schema": 1, "name": "ok", "model": "m", "dataset": "examples/support_tickets.jsonl"}
COPIERS = {"cp": ["cp", "-a"], "rsync": ["rsync", "-a"]}


@pytest.fixture(autouse=True)
def model(home: Home) -> None:
    (home.models / "m").mkdir()
    (home.models / "m" / "config.json").write_text("{}")


def place(home: Home, state: State, job_id: str | None = None, **files: object) -> str:
    """A job whose token lies in `state`, with these files (name without .json) in its run folder."""
    job_id = job_id or mint()
    run = home.run(job_id)
    run.attempts.mkdir(parents=True)
    for name, document in {"spec": {**SPEC, "priority": 3}, "spec.orig": SPEC, **files}.items():
        folder = run.attempts if name == "0001" else run.root
        durable.write_json(folder / f"{name}.json", document)
    Tokens(home).create(
        state, Token(3, 1_000_007, job_id), {"id": job_id, "name": "ok", "dropped_name": f"{job_id}.json"}
    )
    return job_id


def minted_after(job_id: str) -> str:
    """An id of a later millisecond: within one, ids have no order."""
    while (later := mint())[:10] == job_id[:10]:
        pass
    return later


def where(home: Home, job_id: str) -> list[State]:
    return [state for state in State for token in Tokens(home).list(state) if token.job_id == job_id]


def again(home: Home, source: State, target: State) -> None:
    """The token of the only job in `source` is also in `target`: what a copy in the middle of a move holds."""
    (token,) = Tokens(home).list(source)
    shutil.copy(Tokens(home).path(source, token), Tokens(home).path(target, token))


@pytest.mark.parametrize("how", COPIERS)
def test_a_copy_of_a_busy_home_goes_on_elsewhere(
    how: str, home: Home, make_runner: Callable[..., Runner], tmp_path: Path
) -> None:
    if shutil.which(how) is None:
        assert "CI" not in os.environ, f"{how} is missing: .ci/run installs it"
        pytest.skip(f"{how} is not installed")
    runner = make_runner(home, STUB)
    before = [dropbox.submit(home, SPEC) for _ in range(5)]
    before.append(dropbox.submit(home, {**SPEC, "name": "slow", "priority": 9}))
    for job_id in before[:-1]:
        runner.wait(job_id, "done")
    runner.wait(before[-1], "running")
    wait_for(lambda: (home.run(before[-1]).checkpoints / "checkpoint-3").exists())
    (home.run(before[0]).root / "large").write_bytes(os.urandom(40_000_000))  # the copy takes a while
    copying = subprocess.Popen([*COPIERS[how], f"{home.root}/", str(tmp_path / "copy")], stderr=subprocess.PIPE)
    during = []
    while copying.poll() is None and len(during) < 6:
        during.append(dropbox.submit(home, {**SPEC, "priority": 0}))
        (home.incoming / f"hand {len(during)}.json").write_text(json.dumps({**SPEC, "name": f"hand {len(during)}"}))
        time.sleep(0.05)
    assert copying.wait(60) in (0, 1, 23, 24), "a file may vanish while it is copied; nothing else may go wrong"
    runner.stop()

    copy = Home(tmp_path / "copy")
    attempts = len(jobs.attempt_files(copy, before[-1]))
    restored = make_runner(copy, STUB)
    for job_id in before[:-1]:
        job = restored.job(job_id)
        assert (job.state, job.attempts) == ("done", 1)
        assert job.result is not None
        assert job.result["adapter"] == str(copy.run(job_id).exports / "adapter")
    resumed = restored.wait(before[-1], "running")
    wait_for(lambda: len(jobs.attempt_files(copy, before[-1])) > attempts)
    assert durable.read_json(jobs.attempt_files(copy, before[-1])[-1])["resume_step"] == 3
    assert resumed.state == "running"
    dropbox.cancel(copy, before[-1])

    def at_rest() -> bool:  # a half-written drop that was copied under its temporary name stays, as litter
        dropped = [name for name in os.listdir(copy.incoming) if not LITTER.fullmatch(name)]
        return not dropped and all(job.ended for job in jobs.list_jobs(copy))

    wait_for(at_rest, 60)
    ids = [token.job_id for state in State for token in Tokens(copy).list(state)]
    assert len(ids) == len(set(ids))
    names = [job.name for job in jobs.list_jobs(copy) if job.name.startswith("hand")]
    assert len(names) == len(set(names)), "a drop became two jobs"
    for job in jobs.list_jobs(copy):
        if job.state == "failed":
            assert job.id in during or job.name.startswith("hand")
            assert job.error is not None
            assert job.error["code"] == "not_in_copy"


@pytest.mark.parametrize(
    ("source", "target", "files", "expected"),
    [
        (State.CHECKING, State.QUEUED, {}, State.CHECKING),
        (State.QUEUED, State.RUNNING, {}, State.RUNNING),
        (State.RUNNING, State.QUEUED, {}, State.RUNNING),
        (State.QUEUED, State.HELD, {}, State.HELD),
        (State.RUNNING, State.DONE, {"outcome": {"state": "done"}}, State.DONE),
        (State.QUEUED, State.CANCELLED, {"outcome": {"state": "cancelled"}}, State.CANCELLED),
    ],
)
def test_two_tokens_of_a_job_become_one(
    home: Home, source: State, target: State, files: dict[str, object], expected: State
) -> None:
    job_id = place(home, source, **files)
    again(home, source, target)
    assert recover.heal(home) == 1
    assert where(home, job_id) == [expected]
    assert recover.heal(home) == 0


def test_two_places_in_one_queue_become_one(home: Home) -> None:
    job_id = place(home, State.QUEUED)
    (token,) = Tokens(home).list(State.QUEUED)
    first = Token(0, 5, job_id)
    shutil.copy(Tokens(home).path(State.QUEUED, token), Tokens(home).path(State.QUEUED, first))
    assert recover.heal(home) == 1
    assert Tokens(home).list(State.QUEUED) == [first]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, State.CHECKING),
        ({"checked": {"outcome": "passed"}}, State.CHECKING),
        ({"0001": {"attempt": 1, "outcome": None}}, State.RUNNING),
        ({"0001": {"attempt": 1}, "outcome": {"state": "failed", "error": None}}, State.FAILED),
    ],
)
def test_a_run_without_a_token_gets_one(home: Home, files: dict[str, object], expected: State) -> None:
    job_id = place(home, State.QUEUED, **files)
    later = place(home, State.CHECKING, minted_after(job_id))
    (token,) = Tokens(home).list(State.QUEUED)
    Tokens(home).path(State.QUEUED, token).unlink()
    assert recover.heal(home) == 1
    assert where(home, job_id) == [expected]
    found = Tokens(home).find(job_id)
    assert found is not None
    assert found[1].priority == 3
    assert found[1] < Token(3, 1_000_007, later)
    job = jobs.get_job(home, job_id)
    assert (job.name, job.model) == ("ok", "m")
    assert abs(time.time() - time.mktime(time.strptime(str(job.submitted_at)[:19], "%Y-%m-%dT%H:%M:%S"))) < 90_000


def test_an_end_that_is_not_in_the_copy_is_worked_for_again(home: Home) -> None:
    job_id = place(home, State.DONE, **{"0001": {"attempt": 1, "outcome": None}})
    assert recover.heal(home) == 1
    assert where(home, job_id) == [State.RUNNING]


def test_a_job_whose_spec_is_not_in_the_copy_fails_with_those_words(home: Home) -> None:
    job_id = place(home, State.QUEUED)
    shutil.rmtree(home.run(job_id).root)
    assert recover.heal(home) == 1
    job = jobs.get_job(home, job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["code"] == "not_in_copy"


def test_what_was_just_taken_is_left_to_the_intake(home: Home) -> None:
    job_id = place(home, State.QUEUED)
    (token,) = Tokens(home).list(State.QUEUED)
    Tokens(home).path(State.QUEUED, token).unlink()
    (home.accepting / f"{job_id}.json").write_text(json.dumps(SPEC))
    assert recover.heal(home) == 0


def test_a_drop_that_is_a_job_already_is_that_job_in_a_copy_only(home: Home, tmp_path: Path) -> None:
    recover.heal(home)
    job_id = place(home, State.QUEUED)
    drop = home.run(job_id).spec_orig.read_bytes()
    (home.incoming / f"{job_id}.json").write_bytes(drop)
    assert recover.heal(home) == 0, "in the original it was dropped on purpose"
    subprocess.run(["cp", "-a", str(home.root), str(tmp_path / "copy")], check=True)
    copy = Home(tmp_path / "copy")
    (copy.incoming / "other.json").write_bytes(drop)
    assert recover.heal(copy) == 1
    assert os.listdir(copy.incoming) == ["other.json"]


@pytest.mark.parametrize("where_it_got", ["accepting", "runs"])
def test_a_drop_that_was_caught_on_its_way_is_one_job(home: Home, where_it_got: str) -> None:
    drop = json.dumps(SPEC).encode()
    (home.incoming / "by hand.json").write_bytes(drop)
    if where_it_got == "accepting":
        (home.accepting / f"{mint()}.json").write_bytes(drop)
    else:
        run = home.run(place(home, State.QUEUED))
        run.spec_orig.write_bytes(drop)
        (token,) = Tokens(home).list(State.QUEUED)
        Tokens(home).path(State.QUEUED, token).unlink()
    recover.heal(home)
    assert os.listdir(home.incoming) == []


def test_a_submission_whose_job_is_not_in_the_copy_may_come_again(home: Home) -> None:
    kept = place(home, State.QUEUED)
    durable.write_atomic(home.submission("here"), f"{kept}\n".encode())
    durable.write_atomic(home.submission("gone"), f"{mint()}\n".encode())
    assert recover.heal(home) == 1
    assert home.submission("here").exists()
    assert not home.submission("gone").exists()


def test_folders_are_written_relative_and_shown_absolute(home: Home, tmp_path: Path) -> None:
    assert home.relative(home.runs / "x") == "runs/x"
    assert home.relative(tmp_path) == str(tmp_path)
    result = {"adapter": "runs/x", "base": {"folder": "models/m"}, "final_loss": 1.0}
    job_id = place(home, State.DONE, outcome={"state": "done"}, result={"attempt": 1, "result": result})
    shown = jobs.get_job(home, job_id).result
    assert shown == {
        "adapter": str(home.runs / "x"),
        "base": {"folder": str(home.models / "m")},
        "final_loss": 1.0,
    }
