"""A real daemon process, driven through files alone; its jobs are done by the stub trainer."""

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, STUB, Runner, wait_for

from spool.protocol import dropbox, durable, jobs
from spool.protocol.home import Home, State
from spool.protocol.states import Tokens
from spool.protocol.ulid import is_ulid, mint


def spec(name: str = "ok", **more: object) -> dict[str, object]:
    return {
        "schema": 1,
        "name": name,
        "model": str(ROOT / "tests"),
        "dataset": "examples/support_tickets.jsonl",
        **more,
    }


@pytest.fixture(autouse=True)
def model(home: Home) -> None:
    folder = home.models / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")


def drop(home: Home, name: str = "ok", filename: str | None = None, **more: object) -> str:
    document = {**spec(name, **more), "model": "m"}
    if filename is None:
        return dropbox.submit(home, document)
    (home.incoming / filename).write_text(json.dumps(document))
    return filename


def only_job(home: Home, state: str | None = None) -> jobs.Job | None:
    found = jobs.list_jobs(home, state)
    return found[0] if found else None


def test_a_dropped_file_becomes_a_done_job(home: Home, stub_runner: Runner) -> None:
    drop(home, filename="my job.json")
    wait_for(lambda: only_job(home, "done"))
    job = only_job(home)
    assert job is not None
    assert is_ulid(job.id)
    assert (job.state, job.attempts, job.progress["step"]) == ("done", 1, 5)
    assert job.result is not None
    assert job.result["final_loss"] == 0.2
    assert job.started_at is not None
    assert job.ended_at is not None
    assert job.submitted_at is not None
    assert job.submitted_at <= job.started_at <= job.ended_at
    run = home.run(job.id)
    assert json.loads(run.spec_orig.read_text())["name"] == "ok"
    assert json.loads(run.spec.read_text())["train"]["epochs"] == 3
    assert json.loads((run.attempts / "0001.json").read_text())["outcome"] == "finished"
    assert os.listdir(home.incoming) == []
    assert os.listdir(home.accepting) == []


def test_the_id_of_a_submitted_job_is_kept(home: Home, stub_runner: Runner) -> None:
    job_id = drop(home)
    assert stub_runner.wait(job_id, "done").id == job_id


def test_jobs_run_by_priority_then_arrival_one_at_a_time(home: Home, make_runner: Callable[..., Runner]) -> None:
    names = [(str(i), priority) for i, priority in enumerate([5, 5, 0, 9, 5])]
    ids = []
    for i, (_, priority) in enumerate(names):
        ids.append(drop(home, "ok", priority=priority))
        os.utime(home.incoming / f"{ids[-1]}.json", (1_000_000 + i, 1_000_000 + i))
    runner = make_runner(home, STUB)
    for job_id in ids:
        runner.wait(job_id, "done")
    order = sorted(ids, key=lambda job_id: runner.job(job_id).started_at or "")
    assert order == [ids[2], ids[0], ids[1], ids[4], ids[3]]
    spans = [(runner.job(i).started_at, runner.job(i).ended_at) for i in order]
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))  # type: ignore[operator]


def test_a_bad_spec_is_rejected_with_reasons_and_its_neighbour_is_not_delayed(home: Home, stub_runner: Runner) -> None:
    (home.incoming / "broken.json").write_text('{"schema": 1, "model": ')  # may still be growing: waits
    bad = {**spec(), "modle": 1, "lora": {"rank": "x"}, "dataset": "no/such/file.jsonl", "model": "m"}
    (home.incoming / "bad.json").write_text(json.dumps(bad, indent=1))
    missing = {"schema": 1, "model": "gemma-9", "dataset": "examples/no_such.jsonl"}
    (home.incoming / "missing.json").write_text(json.dumps(missing))
    good = drop(home)
    started = time.monotonic()
    stub_runner.wait(good, "done")
    assert time.monotonic() - started < 10
    wait_for(lambda: len(jobs.list_jobs(home, "rejected")) == 2)
    reasons = {r["dropped_name"]: r for r in (json.loads(p.read_text()) for p in home.rejected.glob("*/reason.json"))}
    assert {e["pointer"] for e in reasons["bad.json"]["errors"]} == {"/modle", "/lora/rank"}
    assert reasons["bad.json"]["errors"][0]["line"] is not None
    assert {e["pointer"] for e in reasons["missing.json"]["errors"]} == {"/model", "/dataset"}
    folder = next(home.rejected.glob("*/reason.txt")).parent
    wait_for((folder / "dropped.json").exists)
    assert "not accepted" in (folder / "reason.txt").read_text()
    assert (home.incoming / "broken.json").exists()


def test_an_unreadable_drop_is_rejected_after_its_time(home: Home, make_runner: Callable[..., Runner]) -> None:
    home.settings.write_text('{"unreadable_s": 1}')
    runner = make_runner(home, STUB)
    (home.incoming / "half.json").write_text('{"schema": 1,\n "model": ')
    (home.incoming / ".half.json.swp").write_text("litter")
    (home.incoming / "link.json").symlink_to("/etc/passwd")
    os.mkfifo(home.incoming / "pipe.json")
    wait_for(lambda: len(jobs.list_jobs(home, "rejected")) == 3)
    codes = sorted((j.error or {})["code"] for j in jobs.list_jobs(home, "rejected"))
    assert codes == ["bad_json", "not_a_file", "not_a_file"]
    wait_for(lambda: os.listdir(home.incoming) == [".half.json.swp"])  # the reasons come first, then the drop is moved
    assert runner.status()["state"] == "ready"


def test_a_growing_file_is_taken_once_it_is_whole(home: Home, stub_runner: Runner) -> None:
    text = json.dumps({**spec(), "model": "m"})
    with open(home.incoming / "slow.json", "w") as file:
        for start in range(0, len(text), 40):
            file.write(text[start : start + 40])
            file.flush()
            time.sleep(0.2)
    wait_for(lambda: only_job(home, "done"))
    assert jobs.list_jobs(home, "rejected") == []


def test_the_same_submission_id_is_one_job(home: Home, stub_runner: Runner) -> None:
    first = drop(home, submission_id="order 7")
    stub_runner.wait(first, "done")
    second = drop(home, submission_id="order 7")
    job = stub_runner.wait(second, "rejected")
    assert job.error is not None
    assert job.error["code"] == "duplicate_submission"
    assert first in job.error["message"]


def test_cancel_of_waiting_and_running_jobs(home: Home, stub_runner: Runner) -> None:
    running, waiting = drop(home, "slow"), drop(home)
    stub_runner.wait(running, "running")
    stub_runner.wait(waiting, "queued")
    dropbox.cancel(home, waiting)
    assert stub_runner.wait(waiting, "cancelled").attempts == 0
    dropbox.cancel(home, running)
    job = stub_runner.wait(running, "cancelled")
    assert job.ended_at is not None
    wait_for(lambda: os.listdir(home.control) == [])


def test_a_job_that_ignores_sigterm_is_killed_after_the_grace_time(
    home: Home, make_runner: Callable[..., Runner]
) -> None:
    home.settings.write_text('{"grace_s": 1}')
    runner = make_runner(home, STUB)
    job_id = drop(home, "stubborn")
    runner.wait(job_id, "running")
    wait_for(lambda: runner.job(job_id).progress["step"])
    dropbox.cancel(home, job_id)
    runner.wait(job_id, "cancelled", timeout_s=10)


def test_hold_release_and_top(home: Home, stub_runner: Runner) -> None:
    running = drop(home, "slow")
    stub_runner.wait(running, "running")
    first, second, third = drop(home), drop(home), drop(home)
    for job_id in (first, second, third):
        stub_runner.wait(job_id, "queued")
    dropbox.control(home, "hold", first)
    stub_runner.wait(first, "held")
    dropbox.control(home, "top", third)
    wait_for(lambda: Tokens(home).list(State.QUEUED)[0].job_id == third)
    dropbox.cancel(home, running)
    stub_runner.wait(second, "done")
    assert (stub_runner.job(third).ended_at or "") < (stub_runner.job(second).ended_at or "")
    assert stub_runner.job(first).state == "held"
    dropbox.control(home, "release", first)
    stub_runner.wait(first, "done")


def test_failures_are_told_and_the_next_job_runs(home: Home, stub_runner: Runner) -> None:
    failing, crashing, leaving, good = drop(home, "fail"), drop(home, "crash"), drop(home, "exit 3"), drop(home)
    job = stub_runner.wait(failing, "failed")
    assert job.error == {"code": "data_blocked", "message": "no rows.", "hint": "Add some."}
    job = stub_runner.wait(crashing, "failed")
    assert job.error is not None
    assert (job.error["code"], job.attempts) == ("crash_loop", 3)
    assert "SIGSEGV" in job.error["message"]
    assert stub_runner.wait(leaving, "failed").attempts == 3
    assert stub_runner.wait(good, "done").attempts == 1


def test_a_killed_child_is_resumed(home: Home, stub_runner: Runner) -> None:
    job_id = drop(home, "slow")
    for attempt in (1, 2):
        wait_for(lambda n=attempt: stub_runner.job(job_id).attempts == n and stub_runner._child())  # type: ignore[misc]
        checkpoint = home.run(job_id).checkpoints / "checkpoint-3" / "COMPLETE.json"
        wait_for(checkpoint.exists)
        os.kill(stub_runner.child_pid(), signal.SIGKILL)
    wait_for(lambda: stub_runner.job(job_id).attempts == 3)
    record = durable.read_json(home.run(job_id).attempts / "0001.json")
    assert (record["outcome"], record["exit"], record["checkpoint_step"]) == ("interrupted", -9, 3)
    assert durable.read_json(home.run(job_id).attempts / "0002.json")["resume_step"] == 3


def test_a_stopped_runner_puts_the_job_back_and_goes_on_later(home: Home, make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(home, STUB)
    job_id, later = drop(home, "slow"), drop(home)
    runner.wait(job_id, "running")
    wait_for(lambda: runner.job(job_id).progress["step"])
    assert runner.stop() == 0
    assert runner.job(job_id).state == "queued"
    assert Tokens(home).list(State.QUEUED)[0].job_id == job_id
    assert runner.status()["state"] == "stopped"
    runner.start()
    wait_for(lambda: runner.job(job_id).attempts == 2)
    assert runner.job(later).state == "queued"


def test_an_orphaned_trainer_keeps_the_lock_and_is_waited_for(home: Home, make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(home, STUB)
    job_id, later = drop(home, "slow"), drop(home)
    runner.wait(job_id, "running")
    wait_for(lambda: runner.job(job_id).progress["step"])
    orphan = runner.child_pid()
    runner.stop(signal.SIGKILL)
    second = make_runner(home, STUB)
    wait_for(lambda: second.status().get("state") == "waiting")
    assert second._child() is None
    assert second.job(later).state == "queued"
    assert Path(f"/proc/{orphan}").exists()
    dropbox.cancel(home, job_id)  # the orphan looks at the control file itself
    second.wait(job_id, "cancelled")
    second.wait(later, "done")


def test_an_orphan_that_finishes_is_done_and_not_run_again(home: Home, make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(home, STUB)
    job_id = drop(home, "slow")
    runner.wait(job_id, "running")
    orphan = runner.child_pid()
    runner.stop(signal.SIGKILL)
    durable.write_json(home.run(job_id).result, {"v": 1, "attempt": 1, "outcome": "finished", "result": {"steps": 9}})
    os.kill(orphan, signal.SIGKILL)
    second = make_runner(home, STUB)
    job = second.wait(job_id, "done")
    assert (job.attempts, job.result) == (1, {"steps": 9})


def test_both_killed_at_once(home: Home, make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(home, STUB)
    job_id = drop(home, "slow")
    runner.wait(job_id, "running")
    child = runner.child_pid()
    runner.stop(signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    second = make_runner(home, STUB)
    wait_for(lambda: second.job(job_id).attempts == 2)
    assert durable.read_json(home.run(job_id).attempts / "0001.json")["outcome"] == "interrupted"


def test_what_a_dead_runner_had_taken_is_finished(home: Home, make_runner: Callable[..., Runner]) -> None:
    job_id = mint()
    (home.accepting / f"{job_id}.json").write_text(json.dumps({**spec(), "model": "m"}))
    (home.tmp / "half").write_text("x")
    runner = make_runner(home, STUB)
    runner.wait(job_id, "done")
    assert os.listdir(home.accepting) == os.listdir(home.tmp) == []


def test_nothing_of_a_job_outlives_it(home: Home, stub_runner: Runner) -> None:
    job_id = drop(home, "child")
    stub_runner.wait(job_id, "done")
    pid = int((home.run(job_id).root / "grandchild").read_text())

    def gone() -> bool:
        try:
            return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True

    wait_for(gone)


def test_a_second_runner_is_refused(home: Home, stub_runner: Runner, make_runner: Callable[..., Runner]) -> None:
    second = make_runner(home, STUB, start=False)
    second.log = home.root / "second.log"
    with open(second.log, "wb") as log:
        code = subprocess.run(second.command, cwd=ROOT, stderr=log, timeout=30, check=False).returncode
    assert code == 75
    assert "another runner" in second.log.read_text()


def test_unusable_settings_end_the_runner_with_78(home: Home, make_runner: Callable[..., Runner]) -> None:
    home.settings.write_text('{"settle": 1}')
    runner = make_runner(home, STUB, start=False)
    done = subprocess.run(runner.command, cwd=ROOT, capture_output=True, timeout=30, check=False, text=True)
    assert done.returncode == 78
    assert "settle" in done.stderr


def test_a_replaced_incoming_folder_is_watched_again(home: Home, stub_runner: Runner) -> None:
    os.rename(home.incoming, home.spool / "old")
    time.sleep(2.5)
    drop(home, filename="again.json")
    wait_for(lambda: only_job(home, "done"))


def test_names_are_never_paths(home: Home, stub_runner: Runner) -> None:
    names = ["a b\nc.json", "-rf.json", "\N{PILE OF POO}.json", "x" * 250 + ".json", "..json.json"]
    for name in names:
        drop(home, filename=name)
    raw = os.fsencode(str(home.incoming)) + b"/\xff\xfe.json"
    with open(raw, "w") as file:
        file.write(json.dumps({**spec(), "model": "m"}))
    expected = len(names)  # "..json.json" starts with a dot: litter
    wait_for(lambda: len(jobs.list_jobs(home, "done")) == expected)
    assert os.listdir(home.incoming) == ["..json.json"]


def test_retry_makes_a_new_job(home: Home, stub_runner: Runner) -> None:
    first = drop(home, "fail", submission_id="once")
    stub_runner.wait(first, "failed")
    second = dropbox.retry(home, first)
    job = stub_runner.wait(second, "failed")
    assert (job.retry_of, job.name) == (first, "fail")


def test_the_daemon_never_loads_torch(home: Home, stub_runner: Runner) -> None:
    drop(home)
    wait_for(lambda: only_job(home, "done"))
    assert stub_runner.process is not None
    maps = Path(f"/proc/{stub_runner.process.pid}/maps").read_text()
    assert "pydantic_core" in maps
    assert not any(word in maps for word in ("libtorch", "pyarrow", "numpy", "tokenizers"))


def test_a_full_disk_halts_the_runner_and_it_goes_on_when_the_fault_is_gone(home: Home, stub_runner: Runner) -> None:
    job_id = drop(home, "slow")
    stub_runner.wait(job_id, "running")
    wait_for(lambda: stub_runner.job(job_id).progress["step"])
    home.tmp.rmdir()
    home.tmp.write_text("in the way")  # what a scan meets now is an error of the file system
    drop(home, filename="later.json")
    status = wait_for(lambda: stub_runner.status() if stub_runner.status().get("halted") else None)
    assert status["state"] == "halted"
    assert status["halted"]["reason"]
    assert stub_runner.job(job_id).state == "running"
    home.tmp.unlink()
    wait_for(lambda: stub_runner.status()["state"] == "ready")
    dropbox.cancel(home, job_id)
    stub_runner.wait(job_id, "cancelled")
    wait_for(lambda: only_job(home, "done"))


def test_of_two_jobs_moved_to_the_top_the_later_one_goes_first(home: Home, stub_runner: Runner) -> None:
    running = drop(home, "slow")
    stub_runner.wait(running, "running")
    waiting = [drop(home) for _ in range(3)]
    for job_id in waiting:
        stub_runner.wait(job_id, "queued")
    for job_id in waiting:
        dropbox.control(home, "top", job_id)
        wait_for(lambda first=job_id: Tokens(home).list(State.QUEUED)[0].job_id == first)  # type: ignore[misc]
    assert [token.job_id for token in Tokens(home).list(State.QUEUED)] == waiting[::-1]
