"""Retention: what the rules name goes when its time has come, a little at a time; what a live job needs never does."""

import json
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from test_protocol_jobs import SPEC, accept, reject

from runner import retention
from runner.retention import Calendar, Retention, shorten
from spool.health import expiry
from spool.protocol import dropbox, durable, jobs, metrics
from spool.protocol.home import FINAL, Home, Run, State
from spool.protocol.settings import Settings
from spool.protocol.states import Tokens

DAY_S = 86_400.0


class Clock(Calendar):
    """Wall time that a test turns ahead by days."""

    def __init__(self) -> None:
        super().__init__()
        self.days = 0.0

    def now(self) -> float:
        return super().now() + self.days * DAY_S


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """The machine's own free disk must not decide; the test says how many GB there are."""

    def say(free_gb: float) -> None:
        monkeypatch.setattr(retention, "free_bytes", lambda _: int(free_gb * 1e9))

    say(500)
    return say


def finish(home: Home, state: State, export: bool = True, days_ago: float = 0.0, **fields: Any) -> Run:
    """A job that has ended and left everything behind that a job can leave."""
    job_id = accept(home, State.RUNNING)
    run = home.run(job_id)
    if fields:
        durable.write_json(run.spec, {**SPEC, **fields})
    for name in ("checkpoint-10", "checkpoint-20", "checkpoint-15.incomplete-1700000000"):
        (run.checkpoints / name).mkdir(parents=True)
        (run.checkpoints / name / "adapter_model.safetensors").write_bytes(b"x" * 20_000)
    run.data.mkdir()
    for name in ("train.arrow", "eval.arrow", "check.json", "prepared.json"):
        (run.data / name).write_bytes(b"{}" + b" " * 10_000)
    if export:
        (run.exports / "adapter").mkdir(parents=True)
        (run.exports / "adapter" / "adapter_model.safetensors").write_bytes(b"x" * 20_000)
    run.log.write_text("-- training\n")
    run.metrics.write_text('{"step": 1, "loss": 2.0}\n')
    run.events.write_text('{"event": "phase", "phase": "training"}\n')
    ended = datetime.fromtimestamp(time.time() - days_ago * DAY_S, UTC).isoformat()
    durable.write_json(run.outcome, {"state": state.value, "ended_at": ended, "error": None})
    token = Tokens(home).list(State.RUNNING)[0]
    Tokens(home).move(token, State.RUNNING, state)
    return run


def left(run: Run) -> set[str]:
    names = {"checkpoints": run.checkpoints, "exports": run.exports / "adapter", "rows": run.data / "train.arrow"}
    return {name for name, path in names.items() if path.exists()}


def sweep(home: Home, clock: Clock, options: Settings | None = None) -> int:
    return Retention(home, options or Settings(), clock).sweep(deadline_s=30)


def rules(**fields: Any) -> Settings:
    return Settings.model_validate({"retention": fields})


# (state, days since its end, what of checkpoints, exports and rows is left)
TABLE: list[tuple[State, float, set[str]]] = [
    (State.DONE, 0.9, {"checkpoints", "exports", "rows"}),
    (State.DONE, 2.9, {"checkpoints", "exports"}),
    (State.DONE, 3.1, {"exports"}),
    (State.CANCELLED, 2.9, {"checkpoints", "exports"}),
    (State.CANCELLED, 3.1, {"exports"}),
    (State.FAILED, 13.9, {"checkpoints", "exports"}),
    (State.FAILED, 14.1, {"exports"}),
    (State.FAILED, 9000, {"exports"}),
]


@pytest.mark.parametrize(("state", "days", "expected"), TABLE)
def test_what_goes_when(state: State, days: float, expected: set[str], home: Home, clock: Clock) -> None:
    run = finish(home, state)
    clock.days = days
    freed = sweep(home, clock)
    assert left(run) == expected
    assert bool(freed) == (expected != {"checkpoints", "exports", "rows"})
    kept = ("metrics.jsonl", "events.jsonl", "spec.json", "spec.orig.json", "outcome.json", "train.log")
    assert all((run.root / name).exists() for name in kept)
    assert {"check.json", "prepared.json"} <= set(os.listdir(run.data))
    assert jobs.get_job(home, run.root.name).state == state.value


def test_a_job_that_left_no_export_keeps_its_checkpoints_like_a_failed_one(home: Home, clock: Clock) -> None:
    run = finish(home, State.DONE, export=False)
    clock.days = 13
    sweep(home, clock)
    assert "checkpoints" in left(run)
    clock.days = 15
    sweep(home, clock)
    assert "checkpoints" not in left(run)


def test_null_keeps_for_ever(home: Home, clock: Clock) -> None:
    runs = [finish(home, state) for state in sorted(FINAL)]
    refused = reject(home)
    clock.days = 9000
    names = ("done_checkpoints_days", "failed_checkpoints_days", "set_aside_days", "prepared_rows_days")
    assert sweep(home, clock, rules(**dict.fromkeys((*names, "rejected_days", "log_mb")))) == 0
    assert all(left(run) == {"checkpoints", "exports", "rows"} for run in runs)
    assert (home.rejected / refused).exists()


def test_checkpoints_set_aside_go_before_the_others(home: Home, clock: Clock) -> None:
    run = finish(home, State.FAILED)
    clock.days = 8
    sweep(home, clock)
    assert sorted(os.listdir(run.checkpoints)) == ["checkpoint-10", "checkpoint-20"]


def test_what_a_broken_export_left_half_made_goes_when_nobody_makes_it(home: Home, clock: Clock) -> None:
    run = finish(home, State.DONE)
    half = [run.exports / ".work" / "merged", run.exports / ".merged.tmp"]
    for folder in half:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"x" * 20_000)
    sweep(home, clock)
    assert all(folder.exists() for folder in half)
    clock.days = 1.1
    waiting = accept(home, State.QUEUED)
    durable.write_json(home.run(waiting).spec, {**SPEC, "kind": "export", "job": run.root.name})
    sweep(home, clock)
    assert all(folder.exists() for folder in half)
    (token,) = Tokens(home).list(State.QUEUED)
    Tokens(home).move(token, State.QUEUED, State.CANCELLED)
    sweep(home, clock)
    assert os.listdir(run.exports) == ["adapter"]


@pytest.mark.parametrize("state", [State.CHECKING, State.QUEUED, State.HELD, State.RUNNING])
def test_a_job_that_has_not_ended_keeps_everything(state: State, home: Home, clock: Clock) -> None:
    run = finish(home, State.FAILED)  # even with an outcome.json: the folder of its token decides
    (token,) = Tokens(home).list(State.FAILED)
    durable.move(Tokens(home).path(State.FAILED, token), Tokens(home).path(state, token))
    clock.days = 9000
    assert sweep(home, clock, rules(low_disk_gb=100_000)) == 0
    assert left(run) == {"checkpoints", "exports", "rows"}
    assert len(os.listdir(run.checkpoints)) == 3


NAMED: list[Callable[[Run], dict[str, Any]]] = [
    lambda run: {"model": str(run.checkpoints / "checkpoint-20")},
    lambda run: {"model": os.path.relpath(run.checkpoints / "checkpoint-20")},
    lambda run: {"kind": "export", "adapter": str(run.checkpoints / "checkpoint-20")},
    lambda run: {"kind": "export", "job": run.root.name},
    lambda run: {"kind": "evaluate", "jobs": ["x", run.root.name]},
    lambda run: {"retry_of": run.root.name},
    lambda run: {"dataset": str(run.data / "train.arrow")},
    lambda run: {"eval": {"dataset": str(run.data / "eval.arrow")}},
    lambda run: {"model": "short-name"},
]


@pytest.mark.parametrize("number", range(len(NAMED)))
@pytest.mark.parametrize("state", [State.CHECKING, State.HELD])
def test_what_a_waiting_job_names_stays(number: int, state: State, home: Home, clock: Clock) -> None:
    run = finish(home, State.DONE)
    other = finish(home, State.DONE)
    (home.models / "short-name").symlink_to(run.checkpoints / "checkpoint-20")
    waiting = accept(home, state)
    durable.write_json(home.run(waiting).spec, {**SPEC, **NAMED[number](run)})
    clock.days = 9000
    sweep(home, clock)
    assert left(run) == {"checkpoints", "exports", "rows"}
    assert left(other) == {"exports"}
    (token,) = Tokens(home).list(state)
    Tokens(home).move(token, state, State.CANCELLED)
    sweep(home, clock)
    assert left(run) == {"exports"}


def test_a_path_through_a_link_is_found(home: Home, clock: Clock, tmp_path: Path) -> None:
    run = finish(home, State.DONE)
    (tmp_path / "mine").symlink_to(run.checkpoints)
    waiting = accept(home, State.QUEUED)
    durable.write_json(home.run(waiting).spec, {**SPEC, "model": str(tmp_path / "mine" / "checkpoint-20")})
    clock.days = 9000
    sweep(home, clock)
    assert "checkpoints" in left(run)


def test_a_retry_that_comes_while_things_are_removed(home: Home, clock: Clock) -> None:
    """Whenever the retry arrives, the old job is either whole or has lost whole things: never half a checkpoint."""
    for moment in range(1, 12):
        runs = [finish(home, State.FAILED) for _ in range(3)]
        clock.days = 20
        pruner = Retention(home, Settings(), clock)
        for _ in range(moment):
            pruner.sweep(deadline_s=0)
        before = {run.root: left(run) for run in runs}
        for run in runs:
            dropbox.retry(home, run.root.name)
        pruner.sweep(deadline_s=30)
        for run in runs:
            assert left(run) == before[run.root], moment
            if run.checkpoints.exists():
                names = set(os.listdir(run.checkpoints))
                assert names >= {"checkpoint-10", "checkpoint-20"}
                assert all(os.listdir(run.checkpoints / name) for name in names)
        for drop in home.incoming.iterdir():
            drop.unlink()
        sweep(home, clock)
        assert [left(run) for run in runs] == [{"exports"}] * 3


@pytest.mark.parametrize("folder", ["incoming", "accepting"])
def test_a_drop_that_is_not_taken_yet_names_a_run(folder: str, home: Home, clock: Clock) -> None:
    run = finish(home, State.FAILED)
    half = json.dumps({**SPEC, "retry_of": run.root.name})[:-1]  # still being copied
    (getattr(home, folder) / "mine.json").write_text(half)
    os.mkfifo(home.incoming / "pipe.json")
    clock.days = 20
    sweep(home, clock)
    assert "checkpoints" in left(run)


def test_each_removal_is_written_down(home: Home, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    run = finish(home, State.DONE)
    clock.days = 4
    with caplog.at_level(logging.INFO, "runner"):
        freed = sweep(home, clock)
    rows = [row for row in metrics.read(run.events) if row["event"] == "removed"]
    assert sorted(row["name"] for row in rows) == ["checkpoints", "eval.arrow", "train.arrow"]
    assert sum(row["bytes"] for row in rows) == freed
    assert freed >= 80_000
    assert all("ended 4.0 days ago" in row["why"] for row in rows)
    assert sum(run.root.name in message for message in caplog.messages) == 3


def test_little_work_a_call_and_none_between_passes(home: Home, clock: Clock) -> None:
    runs = [finish(home, State.DONE) for _ in range(5)]
    clock.days = 4
    pruner = Retention(home, Settings(), clock)
    calls = 0
    while any("checkpoints" in left(run) for run in runs):
        pruner.sweep(deadline_s=0)
        calls += 1
        assert calls < 500
    assert calls > 10
    pruner.sweep(deadline_s=30)  # the rest of the pass
    late = finish(home, State.DONE, days_ago=5)
    assert pruner.sweep(deadline_s=30) == 0
    assert "checkpoints" in left(late)
    pruner._rest_until = 0
    assert pruner.sweep(deadline_s=30) > 0
    assert "checkpoints" not in left(late)


def test_what_a_crash_left_half_removed_goes_at_the_next_start(home: Home, clock: Clock) -> None:
    run = finish(home, State.DONE)
    clock.days = 4
    pruner = Retention(home, Settings(), clock)
    while "checkpoints" in left(run):
        pruner.sweep(deadline_s=0)
    assert [name for name in os.listdir(run.root) if name.startswith(expiry.PRUNED)]
    sweep(home, clock)
    assert not [name for name in os.listdir(run.root) if name.startswith(".")]


def test_rejected_drops(home: Home, clock: Clock) -> None:
    refused = reject(home)
    clock.days = 89
    sweep(home, clock)
    assert jobs.get_job(home, refused).state == "rejected"
    clock.days = 91
    sweep(home, clock)
    assert os.listdir(home.rejected) == []


def test_a_long_log_keeps_its_beginning_and_its_end(home: Home, clock: Clock) -> None:
    run = finish(home, State.FAILED)
    lines = [f"line {number} {'x' * 90}\n" for number in range(30_000)]
    run.log.write_text("".join(lines))
    size = run.log.stat().st_size
    freed = sweep(home, clock, rules(log_mb=2))
    text = run.log.read_text()
    assert text.startswith(lines[0])
    assert text.endswith(lines[-1])
    assert len(text) < 1.1e6
    assert freed == size - len(text)
    assert "MB were cut out here" in text
    assert set(text.splitlines(keepends=True)) - set(lines) == {
        "\n",
        text.splitlines(keepends=True)[text.count("\n", 0, text.index("\n[")) + 1],
    }
    assert sweep(home, clock, rules(log_mb=2)) == 0


def test_a_log_without_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(b"\r" * 1_000_000)
    shorten(path, 200_000)
    assert path.stat().st_size < 150_000


def test_strays(home: Home, clock: Clock) -> None:
    run = finish(home, State.DONE)
    mine = [home.tmp / "5-000001000001-x.json", home.incoming / ".A.json.7.8.tmp", run.root / ".spec.json.7.8.tmp"]
    theirs = [home.incoming / ".x.json.swp", home.incoming / "slow.json.part", run.root / "note.txt"]
    for path in mine + theirs:
        path.touch()
    sweep(home, clock)
    assert all(path.exists() for path in mine + theirs)
    clock.days = 2
    sweep(home, clock)
    assert [path.exists() for path in mine + theirs] == [False] * 3 + [True] * 3


def test_a_full_disk_takes_the_oldest_of_the_done_jobs_first(
    home: Home, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest, older = (finish(home, State.DONE, days_ago=days) for days in (2.5, 2.4))
    cancelled, failed = finish(home, State.CANCELLED, days_ago=2.6), finish(home, State.FAILED, days_ago=7.5)
    everything = [oldest, older, cancelled, failed]
    options = rules(prepared_rows_days=30)

    def free(_: Path) -> int:
        return int(1e9 * (4 + sum("checkpoints" not in left(run) for run in everything) * wanted))

    monkeypatch.setattr(retention, "free_bytes", free)
    wanted = 1.0
    sweep(home, clock, options)
    assert ["checkpoints" in left(run) for run in everything] == [False, True, True, True]
    wanted = 0.5
    sweep(home, clock, options)
    assert ["checkpoints" in left(run) for run in everything] == [False, False, True, True]
    wanted = 0.0
    sweep(home, clock, options)
    assert ["checkpoints" in left(run) for run in everything] == [False, False, False, True]
    assert [left(run) & {"rows"} for run in everything] == [set()] * 4
    assert len(os.listdir(failed.checkpoints)) == 2  # the damaged one has gone, by age


def test_links_are_not_followed(home: Home, clock: Clock, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "adapter_model.safetensors").touch()
    run = finish(home, State.DONE)
    (run.checkpoints / "checkpoint-99").symlink_to(precious)
    other = finish(home, State.DONE)
    os.rename(other.checkpoints, tmp_path / "elsewhere")
    other.checkpoints.symlink_to(tmp_path / "elsewhere")
    clock.days = 9000
    sweep(home, clock)
    assert left(run) == {"exports"}
    assert os.listdir(precious) == ["adapter_model.safetensors"]
    assert len(os.listdir(tmp_path / "elsewhere")) == 3


def test_what_cannot_be_removed_is_told_once_and_tried_again(
    home: Home, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finish(home, State.DONE)
    clock.days = 4
    really = os.rename

    def refuse(source: Any, target: Any) -> None:
        if str(source).endswith("checkpoints"):
            raise PermissionError(1, "Operation not permitted", str(source))
        really(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    pruner = Retention(home, Settings(), clock)
    for _ in range(3):
        pruner.sweep(deadline_s=30)
        pruner._rest_until = 0.0
        clock.days += 1
    assert sum("stays: Operation not permitted" in message for message in caplog.messages) == 1
    assert left(run) == {"checkpoints", "exports"}
    monkeypatch.undo()
    monkeypatch.setattr(retention, "free_bytes", lambda _: 10**12)
    pruner.sweep(deadline_s=30)
    assert left(run) == {"exports"}


def test_jobs_of_unknown_age_stay(home: Home, clock: Clock) -> None:
    run = finish(home, State.DONE)
    run.outcome.unlink()
    clock.days = 9000
    sweep(home, clock)
    assert left(run) == {"checkpoints", "exports", "rows"}


def test_a_clock_that_jumps_ages_nothing() -> None:
    wall, elapsed = [1_000_000.0], [50.0]
    clock = Calendar(lambda: wall[0], lambda: elapsed[0])
    wall[0] += 10
    elapsed[0] += 10
    assert (clock.now(), clock.jump_s) == (1_000_010.0, 0.0)
    wall[0] += 365 * DAY_S
    assert clock.now() == 1_000_010.0
    assert clock.jump_s == 365 * DAY_S
    wall[0] = 500.0  # set back: ages only shrink
    assert clock.now() == 500.0


@pytest.mark.alone
def test_a_long_history(home: Home, clock: Clock) -> None:
    """What a call may cost where the history is long: judged once, then passed over."""
    tokens = Tokens(home)
    for number in range(2000):
        job_id = f"01M81ZAFFVD06P58V9{number:08d}"
        (home.runs / job_id).mkdir()
        (home.runs / job_id / "outcome.json").write_text('{"ended_at": "2026-01-01T00:00:00.000Z"}')
        name = f"5-{number:012d}-{job_id}.json"
        (home.state(State.DONE if number % 2 else State.QUEUED) / name).write_text("{}")
    assert len(tokens.list(State.DONE)) == 1000
    pruner = Retention(home, Settings(), clock)
    began = time.monotonic()
    pruner.sweep(deadline_s=30)
    assert time.monotonic() - began < 3
    pruner._rest_until = 0.0
    began = time.monotonic()
    pruner.sweep(deadline_s=30)
    assert time.monotonic() - began < 0.5
