"""When jobs are expected to start and to end, with the clock given."""

import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from spool.forecast import hours, queue
from spool.forecast.queue import Span, spans
from spool.protocol import durable
from spool.protocol.home import Home, State
from spool.protocol.jobs import Job
from spool.protocol.settings import Window
from spool.protocol.states import Token, Tokens

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
BETWEEN = timedelta(seconds=queue.BETWEEN_S)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with a runner, where each job takes as many minutes as its sequence number."""
    home = Home(tmp_path / "home").create()
    durable.write_json(home.runner_json, {"state": "ready", "heartbeat": time.time()})
    monkeypatch.setattr(queue._Lengths, "of", lambda self, job_id: 60.0 * int(job_id[3:8]) or None)
    return home


def job(home: Home, number: int, state: State = State.QUEUED, priority: int = 5, **told: Any) -> Job:
    job_id = f"01K{number:05d}ABCDEFGHJKMNPQRSTV"
    Tokens(home).create(state, Token(priority, number, job_id), {})
    return Job(job_id, f"job {number}", "train", state.value, **told)


def test_jobs_follow_each_other_in_queue_order(home: Home) -> None:
    first, urgent, checked = job(home, 2), job(home, 4, priority=0), job(home, 3, State.CHECKING)
    held, done = job(home, 5, State.HELD), job(home, 6, State.DONE)
    found = spans(home, [first, held, checked, done, urgent], NOW)
    assert set(found) == {first.id, urgent.id, checked.id}
    assert found[urgent.id] == Span(NOW, NOW + 4 * MINUTE)
    assert found[first.id] == Span(NOW + 4 * MINUTE + BETWEEN, NOW + 6 * MINUTE + BETWEEN)
    assert found[checked.id] == Span(NOW + 6 * MINUTE + 2 * BETWEEN, NOW + 9 * MINUTE + 2 * BETWEEN)


def test_a_running_job_ends_by_its_own_speed(home: Home) -> None:
    progress = {"step": 10, "total_steps": 100, "eta_s": 90.0}
    runs = job(home, 50, State.RUNNING, started_at="2026-11-23T11:58:00Z", progress=progress)
    waits = job(home, 1)
    found = spans(home, [runs, waits], NOW)
    assert found[runs.id] == Span(NOW - 2 * MINUTE, NOW + 1.5 * MINUTE)
    assert found[waits.id].start == NOW + 1.5 * MINUTE + BETWEEN


def test_before_its_first_step_a_running_job_goes_by_its_estimate(home: Home) -> None:
    runs = job(home, 5, State.RUNNING, started_at="2026-11-23T11:58:00Z")
    assert spans(home, [runs], NOW)[runs.id] == Span(NOW - 2 * MINUTE, NOW + 3 * MINUTE)
    late = spans(home, [runs], NOW + 10 * MINUTE)[runs.id]
    assert late == Span(NOW - 2 * MINUTE, NOW + 10 * MINUTE, queue.RUNS_OVER)


def test_a_job_that_waits_for_the_network_lets_others_pass(home: Home) -> None:
    waits = job(home, 1, waits={"why": "no network", "not_before": "2026-11-23T12:30:00Z"})
    other = job(home, 2)
    found = spans(home, [waits, other], NOW)
    assert found[waits.id] == Span(NOW + 30 * MINUTE, NOW + 31 * MINUTE, queue.LATER)
    assert found[other.id] == Span(NOW, NOW + 2 * MINUTE)


def test_what_cannot_be_told_is_not_told(home: Home) -> None:
    unknown, after = job(home, 0), job(home, 1)
    found = spans(home, [unknown, after], NOW)
    assert found[unknown.id] == Span(NOW, None, queue.UNKNOWN)
    assert found[after.id] == Span(None, None, queue.UNKNOWN_BEFORE)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"hold": True}, queue.HELD),
        ({"drain": True}, queue.DRAINING),
        ({"beat": {"halted": {"reason": "card lost"}}}, queue.HALTED),
        ({"beat": {"state": "stopped"}}, queue.NOT_ALIVE),
    ],
)
def test_where_nothing_starts_no_start_is_told(home: Home, told: dict[str, Any], why: str) -> None:
    if told.get("hold"):
        home.hold.touch()
    if told.get("drain"):
        home.drain.touch()
    if "beat" in told:
        durable.write_json(home.runner_json, {"state": "ready", "heartbeat": time.time()} | told["beat"])
    waits = job(home, 1)
    assert spans(home, [waits], NOW) == {waits.id: Span(None, None, why)}


def test_outside_of_the_window_jobs_start_when_it_opens(home: Home) -> None:
    durable.write_json(home.settings, {"window": {"start": "20:00", "end": "07:00"}})
    zone = timezone(timedelta(hours=1))
    long, later = job(home, 700, priority=0), job(home, 1)
    found = spans(home, [long, later], NOW, zone)
    opens = datetime(2026, 11, 23, 19, 0, tzinfo=UTC)
    assert found[long.id].start == opens
    assert "20:00" in found[long.id].why
    # it ends at 06:40 UTC, which is 07:40 there: the next one waits for the evening
    assert found[later.id].start == opens + timedelta(days=1)


def test_a_job_that_makes_room_at_the_end_of_the_window_goes_on_in_the_next(home: Home) -> None:
    window = {"start": "20:00", "end": "22:00", "at_end": "interrupt"}
    durable.write_json(home.settings, {"window": window})
    long = job(home, 150)
    opens = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
    assert spans(home, [long], NOW, UTC)[long.id].end == opens + timedelta(days=1) + 30 * MINUTE
    durable.write_json(home.settings, {"window": window | {"at_end": "finish"}})
    assert spans(home, [long], NOW, UTC)[long.id].end == opens + 150 * MINUTE


@pytest.mark.parametrize(
    ("window", "now", "opens"),
    [
        ({"start": "20:00", "end": "07:00"}, "2026-11-23T21:00", "2026-11-23T21:00"),
        ({"start": "20:00", "end": "07:00"}, "2026-11-23T12:00", "2026-11-23T20:00"),
        ({"start": "20:00", "end": "07:00", "days": ["sat"]}, "2026-11-23T12:00", "2026-11-28T20:00"),
        ({"start": "09:00", "end": "17:00", "days": ["mon"]}, "2026-11-23T17:30", "2026-11-30T09:00"),
        (None, "2026-11-23T17:30", "2026-11-23T17:30"),
    ],
)
def test_when_a_window_opens(window: dict[str, Any] | None, now: str, opens: str) -> None:
    found = hours.opens(Window.model_validate(window) if window else None, datetime.fromisoformat(now))
    assert found == datetime.fromisoformat(opens)


@pytest.mark.alone
def test_a_thousand_waiting_jobs_take_no_time(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    durable.write_json(home.runner_json, {"state": "ready", "heartbeat": time.time()})
    jobs = [job(home, number) for number in range(1000)]
    for each in jobs:
        folder = home.run(each.id).root
        folder.mkdir()
        (folder / "spec.json").write_text('{"schema": 1, "model": "google/gemma-2b", "train": {"max_steps": 5}}')
        (folder / "data").mkdir()
        files = '{"max_length": 64, "files": {"train.arrow": {"rows": 10, "tokens": 90}}}'
        (folder / "data" / "prepared.json").write_text(files)
    first = spans(home, jobs, NOW)
    assert all(span.start and span.end for span in first.values())
    took = []
    for _ in range(5):
        began = time.process_time()
        assert spans(home, jobs, NOW).keys() == first.keys()
        took.append(time.process_time() - began)
    assert min(took) < 0.1
