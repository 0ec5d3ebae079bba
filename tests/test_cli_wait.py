"""`finetuner wait`, and what jobs may be called by: what scripts need that drop files and pick up results."""

import json
import os
import time

import pytest
from test_cli import beat, finetuner, play, start
from test_protocol_jobs import SPEC, accept, begin, end, reject

from spool.protocol import durable
from spool.protocol.home import Home, State
from spool.protocol.ulid import mint


def named(home: Home, job_id: str, **fields: str) -> None:
    """What the runner notes in a token about the drop it came from."""
    path = next(home.state(State.QUEUED).glob(f"*{job_id}.json"))
    durable.write_json(path, {**(durable.read_json(path) or {}), **fields})


def test_several_jobs_are_waited_for_and_told_as_they_end(home: Home) -> None:
    ids = [accept(home, State.RUNNING) for _ in range(3)]
    for job_id in ids:
        begin(home, job_id)
    beat(home)
    process = start(home, "wait", *ids, ids[0])
    assert process.stdout is not None
    for job_id in reversed(ids):
        end(home, job_id, State.DONE)
        assert process.stdout.readline() == f"{job_id} done\n"
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    assert f"{ids[0]} is running." in err
    assert "The adapter lies in" in err


@pytest.mark.parametrize(("state", "code"), [("failed", 1), ("cancelled", 1), ("rejected", 2)])
def test_the_worst_end_is_the_exit_code(home: Home, state: str, code: int) -> None:
    good = accept(home, State.RUNNING)
    begin(home, good)
    end(home, good, State.DONE)
    if state == "rejected":
        bad = reject(home)
    else:
        bad = accept(home, State.RUNNING)
        begin(home, bad)
        end(home, bad, State(state), {"code": "oom", "message": "the card is full.", "hint": "Use 4bit."})
    done = finetuner(home, "wait", good, bad, "--json")
    assert done.returncode == code
    assert [job["state"] for job in json.loads(done.stdout)] == ["done", state]
    assert finetuner(home, "wait", good).returncode == 0


def test_a_time_that_is_over_has_a_code_of_its_own(home: Home) -> None:
    running = accept(home, State.RUNNING)
    held = accept(home, State.HELD)
    done = finetuner(home, "wait", running, held, "--timeout", "0.5", "--json")
    assert done.returncode == 124
    assert [job["state"] for job in json.loads(done.stdout)] == ["running", "held"]
    assert f"not within 0.5 s: {running}, {held}" in done.stderr
    assert f"`finetuner release {held}`" in done.stderr
    assert done.stderr.count("No runner is alive") == 1


def test_a_halted_runner_says_why(home: Home) -> None:
    job_id = accept(home, State.QUEUED)
    beat(home, halted="the disk is full")
    done = finetuner(home, "wait", job_id, "--timeout", "0.8")
    assert done.returncode == 124
    assert done.stderr.count("The runner holds the queue: the disk is full.") == 1


def test_a_runner_that_goes_silent_is_told_once(home: Home) -> None:
    job_id = accept(home, State.RUNNING)
    beat(home)
    process = start(home, "wait", job_id, "--timeout", "30")
    time.sleep(1)
    beat(home, heartbeat=time.time() - 60)
    time.sleep(1.5)
    end(home, job_id, State.CANCELLED)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err.count("No runner is alive")) == (1, 1)


def test_a_job_is_found_by_its_submission_id_and_by_the_dropped_name(home: Home) -> None:
    first, second = accept(home, State.QUEUED, minute=1), accept(home, State.QUEUED, minute=2)
    for job_id, night in ((first, "night 1"), (second, "night 2")):
        named(home, job_id, dropped_name="nightly.json", submission_id=night)
        home.submission(night).write_text(job_id + "\n")
    for night, job_id in (("night 1", first), ("night 2", second)):
        done = finetuner(home, "show", night, "--json")
        job = json.loads(done.stdout)
        assert (job["id"], job["submission_id"], job["dropped_name"]) == (job_id, night, "nightly.json")
    done = finetuner(home, "cancel", "nightly.json", "--json")
    assert json.loads(done.stdout)["id"] == second
    assert f"'nightly.json' is {second}, the newest of 2 drops of that name." in done.stderr
    assert os.listdir(home.control) == [f"cancel-{second}"]
    rejected = reject(home, "mistyped.json")
    assert json.loads(finetuner(home, "show", "mistyped.json", "--json").stdout)["id"] == rejected


def test_a_drop_that_lies_in_incoming_is_waited_for_before_an_older_one_of_its_name(home: Home) -> None:
    old = accept(home, State.QUEUED)
    named(home, old, dropped_name="nightly.json")
    token = next(home.state(State.QUEUED).glob(f"*{old}.json"))
    token.rename(home.state(State.DONE) / token.name)
    (home.incoming / "nightly.json").write_text(json.dumps(SPEC))
    new = mint()

    def script(_: str) -> None:
        time.sleep(0.6)
        durable.write_json(home.accepting / f"{new}.from", {"dropped_name": "nightly.json"})
        (home.incoming / "nightly.json").rename(home.accepting / f"{new}.json")
        time.sleep(0.6)
        accept(home, State.QUEUED, job_id=new, minute=5)
        named(home, new, dropped_name="nightly.json")
        (home.accepting / f"{new}.json").unlink()
        (home.accepting / f"{new}.from").unlink()

    beat(home)
    runner = play(home, script)
    done = finetuner(home, "wait", "nightly.json", "--timeout", "4", "--json")
    runner.join()
    assert [job["id"] for job in json.loads(done.stdout)] == [new]
    assert done.returncode == 124


def test_what_is_never_taken_and_what_is_not_there(home: Home) -> None:
    (home.incoming / "nightly.json").write_text("{")
    done = finetuner(home, "wait", "nightly.json", "--timeout", "0.4")
    assert (done.returncode, done.stdout) == (124, "")
    assert f"nightly.json lies in {home.incoming} and has not been taken" in done.stderr
    for name in ("other.json", "../incoming/nightly.json", ""):
        assert finetuner(home, "wait", name, "--timeout", "20").returncode == 2
