"""Jobs as everybody sees them, from folders as the protocol's classes write them, with no runner about."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from spool.protocol import dropbox, durable, jobs, metrics
from spool.protocol.errors import NotFound
from spool.protocol.home import Home, State
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import is_ulid, mint

SPEC = {"schema": 1, "model": "gemma-3-270m", "dataset": "examples/support_tickets.jsonl"}
ERROR = {"code": "data_blocked", "message": "no row can be trained on.", "hint": "Correct the file."}
CONTRACT = {
    "id", "name", "kind", "state", "submitted_at", "started_at", "ended_at", "progress", "attempts", "result", "error",
}  # fmt: skip


def accept(home: Home, state: State, name: str = "a job", minute: int = 0, job_id: str | None = None) -> str:
    """A job as the runner leaves it behind once it has taken it."""
    tokens = Tokens(home)
    token = Token(5, tokens.last_sequence() + 1, job_id or mint())
    run = home.run(token.job_id)
    run.root.mkdir()
    durable.write_json(run.spec_orig, {**SPEC, "name": name})
    durable.write_json(run.spec, {**SPEC, "name": name})
    body = {
        "id": token.job_id,
        "name": name,
        "kind": "train",
        "model": SPEC["model"],
        "dataset": SPEC["dataset"],
        "submitted_at": f"2026-11-22T10:{minute:02d}:00.000Z",
        "submitted_by": "anna",
    }
    tokens.create(state, token, body)
    return token.job_id


def begin(home: Home, job_id: str, steps: int = 30, of: int = 120) -> None:
    """An attempt that has come some way."""
    run = home.run(job_id)
    run.attempts.mkdir(exist_ok=True)
    number = len(jobs.attempt_files(home, job_id)) + 1
    record = {"attempt": number, "started_at": f"2026-11-22T11:0{number}:00.000Z"}
    durable.write_json(run.attempts / f"{number:04d}.json", record)
    metrics.Writer(run.events, number).write(event="phase", phase="training")
    rows = metrics.Writer(run.metrics, number)
    for step in range(1, steps + 1):
        rows.write(step=step, total_steps=of, loss=2 / step, tokens_per_s=250.0, eta_s=float(of - step))
    run.log.write_text("-- training\n")


def end(home: Home, job_id: str, state: State, error: dict[str, str] | None = None) -> None:
    run = home.run(job_id)
    if state is State.DONE:
        result = {"adapter": str(run.exports / "adapter"), "final_loss": 0.0667, "eval_loss": None, "steps": 120}
        durable.write_json(run.result, {"v": 1, "attempt": 1, "outcome": "finished", "result": result})
    outcome = {"state": state.value, "ended_at": "2026-11-22T12:00:00.000Z", "error": error}
    durable.write_json(run.outcome, outcome)
    found = Tokens(home).find(job_id)
    assert found is not None
    if found[0] is not state:
        Tokens(home).move(found[1], found[0], state)


def reject(home: Home, name: str = "wrong.json") -> str:
    job_id = mint()
    problem = {
        "code": "unknown_field",
        "message": "there is no field 'rnk'.",
        "hint": "Did you mean 'rank'?",
        "pointer": "/lora/rnk",
        "line": 3,
        "column": 7,
    }
    reason = {**problem, "dropped_name": name, "rejected_at": "2026-11-22T10:30:00.000Z", "errors": [problem, problem]}
    (home.rejected / job_id).mkdir()
    durable.write_json(home.rejected / job_id / "reason.json", reason)
    (home.rejected / job_id / "dropped.json").write_text("{}")
    return job_id


def stage(home: Home) -> dict[str, str]:
    """One job in every state; state -> id."""
    ids = {state.value: accept(home, state, f"a {state} job", minute=i) for i, state in enumerate(State)}
    for state in ("running", "done", "failed", "cancelled"):
        begin(home, ids[state])
    for state in (State.DONE, State.FAILED, State.CANCELLED):
        end(home, ids[state], state, ERROR if state is State.FAILED else None)
    ids["rejected"] = reject(home)
    ids["incoming"] = dropbox.submit(home, {**SPEC, "name": "just dropped"})
    return ids


def test_every_state_has_the_contract_s_fields(home: Home) -> None:
    ids = stage(home)
    for wanted, job_id in ids.items():
        job = jobs.get_job(home, job_id).to_json()
        assert set(job) >= CONTRACT
        assert job["id"] == job_id
        assert job["state"] == ("checking" if wanted == "incoming" else wanted)
        assert set(job["progress"]) == {"step", "total_steps", "eta_s"}
        assert job["submitted_at"].endswith("Z")


def test_a_running_job(home: Home) -> None:
    job = jobs.get_job(home, stage(home)["running"])
    assert job.name == "a running job"
    assert job.started_at == "2026-11-22T11:01:00.000Z"
    assert job.progress == {"step": 30, "total_steps": 120, "eta_s": 90.0}
    assert (job.attempts, job.phase, job.ended, job.ended_at) == (1, "training", False, None)


def test_a_second_attempt_keeps_the_first_start(home: Home) -> None:
    job_id = accept(home, State.RUNNING)
    begin(home, job_id)
    begin(home, job_id, steps=50)
    job = jobs.get_job(home, job_id)
    assert (job.attempts, job.started_at, job.progress["step"]) == (2, "2026-11-22T11:01:00.000Z", 50)


def test_an_interrupted_job_in_the_queue_shows_how_far_it_came(home: Home) -> None:
    job_id = accept(home, State.QUEUED)
    begin(home, job_id)
    job = jobs.get_job(home, job_id)
    assert (job.state, job.progress["step"], job.phase) == ("queued", 30, None)


def test_ended_jobs(home: Home) -> None:
    ids = stage(home)
    done, failed, cancelled = (jobs.get_job(home, ids[state]) for state in ("done", "failed", "cancelled"))
    assert done.result is not None
    assert done.result["final_loss"] == 0.0667
    assert Path(done.result["adapter"]).is_absolute()
    assert failed.error == ERROR
    assert (done.error, failed.result, cancelled.error, cancelled.result) == (None, None, None, None)
    for job in (done, failed, cancelled):
        assert job.ended
        assert job.ended_at == "2026-11-22T12:00:00.000Z"
        assert job.progress["eta_s"] is None


def test_a_rejected_drop(home: Home) -> None:
    job = jobs.get_job(home, reject(home))
    assert (job.name, job.state, job.ended) == ("wrong.json", "rejected", True)
    assert job.error is not None
    assert job.error["code"] == "unknown_field"
    assert len(job.error["errors"]) == 2
    assert job.error["errors"][0]["pointer"] == "/lora/rnk"


def test_list_is_everything_oldest_first(home: Home) -> None:
    ids = stage(home)
    listed = jobs.list_jobs(home)
    assert {job.id for job in listed} == set(ids.values()) == jobs.job_ids(home)
    assert [job.submitted_at for job in listed] == sorted(job.submitted_at or "" for job in listed)
    assert listed[-1].id == ids["incoming"]


def test_list_of_one_state(home: Home) -> None:
    ids = stage(home)
    for state in ("queued", "running", "held", "done", "failed", "cancelled", "rejected"):
        assert [job.id for job in jobs.list_jobs(home, state)] == [ids[state]]
    assert {job.id for job in jobs.list_jobs(home, "checking")} == {ids["checking"], ids["incoming"]}


def test_without_a_home_there_are_no_jobs(tmp_path: Path) -> None:
    nowhere = Home(tmp_path / "none")
    assert jobs.list_jobs(nowhere) == []
    assert jobs.job_ids(nowhere) == set()
    for name in ("x", mint(), "../../etc/passwd", ""):
        with pytest.raises(NotFound):
            jobs.get_job(nowhere, name)


def test_while_the_runner_takes_it_a_job_never_vanishes(home: Home) -> None:
    job_id = dropbox.submit(home, SPEC)
    os.rename(home.incoming / f"{job_id}.json", home.accepting / f"{job_id}.json")
    assert jobs.get_job(home, job_id).state == "checking"
    token = Token(5, 1, job_id)
    Tokens(home).create(State.QUEUED, token, {"name": "x"})  # and accepting/ID.json is still there
    assert [job.state for job in jobs.list_jobs(home)] == ["queued"]


def test_a_job_that_moves_back_while_the_list_is_made(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """running -> queued after the queue was read: it must not slip past, nor lose its name."""
    job_id = accept(home, State.RUNNING, "slippery")
    token = Tokens(home).list(State.RUNNING)[0]
    really = Tokens.list

    def listing(self: Tokens, state: State) -> list[Token]:
        found = really(self, state)
        if state is State.QUEUED and not found:
            self.move(token, State.RUNNING, State.QUEUED)
        return found

    monkeypatch.setattr(Tokens, "list", listing)
    assert [(job.id, job.name, job.state) for job in jobs.list_jobs(home)] == [(job_id, "slippery", "queued")]


def test_a_job_that_moved_since_it_was_found_keeps_its_name(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = accept(home, State.QUEUED, "quick")
    token = Tokens(home).list(State.QUEUED)[0]
    really = Tokens.find

    def finding(self: Tokens, wanted: str) -> Any:
        found = really(self, wanted)
        if found and found[0] is State.QUEUED:
            self.move(token, State.QUEUED, State.RUNNING)
        return found

    monkeypatch.setattr(Tokens, "find", finding)
    job = jobs.get_job(home, job_id)
    assert (job.name, job.state) == ("quick", "running")


@pytest.mark.parametrize("rubbish", [b"", b"\xff\x00", b"[]", b"[1]", b"5", b'"x"', b"{", b"null"])
def test_one_damaged_file_takes_nothing_down(home: Home, rubbish: bytes) -> None:
    ids = stage(home)
    for state in State:
        token = Tokens(home).list(state)[0]
        Tokens(home).path(state, token).write_bytes(rubbish)
        run = home.run(token.job_id)
        for path in (run.outcome, run.result, run.metrics, run.events, *jobs.attempt_files(home, token.job_id)):
            if path.exists():
                path.write_bytes(rubbish)
    (home.rejected / ids["rejected"] / "reason.json").write_bytes(rubbish)
    (home.incoming / f"{ids['incoming']}.json").write_bytes(rubbish)
    listed = {job.id: job for job in jobs.list_jobs(home)}
    assert set(listed) == set(ids.values())
    for state in State:
        assert listed[ids[state.value]].state == state.value


@pytest.mark.alone
def test_whatever_lies_in_the_drop_box_is_listed_without_waiting(home: Home) -> None:
    names = {kind: mint() for kind in ("fifo", "folder", "link", "huge", "secret")}
    os.mkfifo(home.incoming / f"{names['fifo']}.json")
    (home.incoming / f"{names['folder']}.json").mkdir()
    (home.incoming / f"{names['link']}.json").symlink_to("/etc/passwd")
    with open(home.incoming / f"{names['huge']}.json", "wb") as file:
        file.truncate(5 << 30)
    (home.incoming / f"{names['secret']}.json").write_text('{"name": "x"}')
    (home.incoming / f"{names['secret']}.json").chmod(0)
    (home.incoming / "no id.json").write_text("{}")
    start = time.monotonic()
    assert {job.id for job in jobs.list_jobs(home)} == set(names.values())
    assert all(jobs.get_job(home, job_id).state == "checking" for job_id in names.values())
    assert time.monotonic() - start < 2


def test_many_jobs_are_listed_quickly(home: Home) -> None:
    (home.state(State.DONE)).mkdir(exist_ok=True)
    for number in range(1000):
        token = Token(5, number + 1, mint())
        Tokens(home).path(State.DONE, token).write_text('{"name": "x", "submitted_at": "2026-11-22T10:00:00.000Z"}')
    start = time.process_time()
    assert len(jobs.list_jobs(home)) == 1000
    assert time.process_time() - start < 2


def test_ids_are_found_by_prefix_only_where_they_are_ids(home: Home) -> None:
    (home.rejected / "notes").mkdir()
    (home.incoming / "mine.json").write_text("{}")
    assert all(is_ulid(job_id) for job_id in jobs.job_ids(home))
