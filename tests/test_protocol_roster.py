"""The roster says what `list_jobs` says, whatever moves, and reads again only what has changed."""

import os
import random
import threading
import time
from pathlib import Path

import pytest

from spool.protocol import dropbox, durable, jobs, roster
from spool.protocol.errors import NotFound
from spool.protocol.home import FINAL, Home, State
from spool.protocol.roster import Roster
from spool.protocol.states import MOVES, Tokens
from spool.protocol.ulid import mint
from tests.test_protocol_jobs import accept, begin, end, reject, stage


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


def fresh(home: Home) -> Roster:
    """One that looks only where it is told to."""
    return Roster(home, Clock())


def step(home: Home, noise: random.Random) -> None:
    """Something that a runner or a person does."""
    tokens = Tokens(home)
    placed = [(state, token) for state in State if state not in FINAL for token in tokens.list(state)]
    if not placed or noise.random() < 0.15:
        noise.choice([lambda: accept(home, State.CHECKING), lambda: reject(home), lambda: dropbox.submit(home, {})])()
        return
    state, token = noise.choice(placed)
    run = home.run(token.job_id)
    deed = noise.randrange(5)
    if deed == 0 and state is State.RUNNING:
        begin(home, token.job_id, steps=noise.randrange(1, 9))
    elif deed == 1 and state in (State.QUEUED, State.CHECKING):
        durable.write_json(run.wait, {"not_before": noise.randrange(10**9), "why": "the hub is busy"})
    elif deed == 2:
        tokens.reorder(token, state, noise.randrange(10), noise.randrange(10**6))
    elif deed == 3 and run.wait.exists():
        run.wait.unlink()
    else:
        target = noise.choice(
            sorted(m for m in MOVES[state] if m not in FINAL or state is State.RUNNING) or sorted(FINAL)
        )
        if target is State.RUNNING:
            begin(home, token.job_id, steps=3)
        if target in FINAL:
            end(home, token.job_id, target, {"code": "x", "message": "y.", "hint": "z."})
        else:
            tokens.move(token, state, target)


@pytest.mark.parametrize("seed", range(6))
def test_the_roster_is_what_list_jobs_says_after_any_moves(home: Home, seed: int) -> None:
    noise, seen = random.Random(seed), fresh(home)
    for _ in range(150):
        step(home, noise)
        seen.stale()
        assert seen.jobs() == jobs.list_jobs(home)
    assert len({job.state for job in seen.jobs()}) >= 6


def test_files_beside_a_waiting_token_are_seen_after_they_have_settled(home: Home) -> None:
    job_id = accept(home, State.QUEUED)
    begin(home, job_id)
    seen, run = fresh(home), home.run(job_id)
    for path in (run.attempts, run.events):
        os.utime(path, (time.time() - 60,) * 2)
    assert seen.job(job_id).waits is None
    durable.write_json(run.wait, {"not_before": 5.0, "why": "the disk is full"})
    os.utime(run.wait, (time.time() - 50,) * 2)
    seen.stale()
    waits = seen.job(job_id).waits
    assert waits is not None
    assert waits["why"] == "the disk is full"


def test_what_has_not_changed_is_not_read_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = stage(home)
    for path in home.runs.rglob("*"):
        os.utime(path, (time.time() - 60,) * 2)
    seen = fresh(home)
    seen.look()
    read = []
    real = roster.from_token
    monkeypatch.setattr(roster, "from_token", lambda *args: read.append(args[2].job_id) or real(*args))
    monkeypatch.setattr(roster, "from_rejected", lambda *_: pytest.fail("read again"))
    seen.stale()
    assert seen.jobs() == jobs.list_jobs(home)
    assert read == [ids["running"]]


def test_a_look_that_saw_nothing_new_is_the_same_look(home: Home) -> None:
    end(home, accept(home, State.QUEUED), State.CANCELLED)
    accept(home, State.QUEUED)
    reject(home)
    for path in home.root.rglob("*"):
        os.utime(path, (time.time() - 60,) * 2)
    seen = fresh(home)
    first = seen.look()
    seen.stale()
    assert seen.look() is first
    accept(home, State.QUEUED)
    seen.stale()
    assert seen.look().number == first.number + 1


def test_a_look_is_shared_for_as_long_as_it_costs_little(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = Clock(), []
    seen = Roster(home, clock)
    real = Roster._placed

    def slow(self: Roster) -> dict[str, tuple[State, str]]:
        looks.append(clock.now)
        clock.now += 0.01
        return real(self)

    monkeypatch.setattr(Roster, "_placed", slow)
    first = seen.look()
    clock.now += 0.15
    assert seen.look() is first
    assert len(looks) == 1
    clock.now += 0.1
    seen.look()
    assert len(looks) == 2
    monkeypatch.setattr(roster, "SHARE", 1e-9)
    seen.stale()
    seen.look()
    clock.now += roster.PAUSE_S - 0.01
    seen.look()
    assert len(looks) == 3
    clock.now += 0.02
    seen.look()
    assert len(looks) == 4


def test_who_asks_while_another_looks_gets_the_last_look(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = accept(home, State.QUEUED)
    seen = fresh(home)
    before = seen.look()
    busy, go_on, real = threading.Event(), threading.Event(), Roster._placed

    def slow(self: Roster) -> dict[str, tuple[State, str]]:
        busy.set()
        assert go_on.wait(10)
        return real(self)

    monkeypatch.setattr(Roster, "_placed", slow)
    accept(home, State.DONE)
    seen.stale()
    other = threading.Thread(target=seen.look)
    other.start()
    assert busy.wait(10)
    assert seen.look() is before
    go_on.set()
    other.join(10)
    assert seen.look().number > before.number
    assert seen.job(job_id).state == "queued"


def test_a_job_that_nobody_has_seen_yet_is_found_by_its_id(home: Home) -> None:
    seen = Roster(home, Clock())
    seen.look()
    job_id = accept(home, State.QUEUED)
    assert seen.job(job_id) == jobs.get_job(home, job_id)
    with pytest.raises(NotFound):
        seen.job(mint())
    with pytest.raises(NotFound):
        seen.job("../../etc/passwd")


def test_beyond_a_bound_the_oldest_that_ended_are_left_out(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "KEPT", 3)
    old = [accept(home, State.DONE, job_id=f"01K{i:05d}ABCDEFGHJKMNPQRSTV"[:26]) for i in range(6)]
    waiting = accept(home, State.QUEUED, job_id="01K00000AACDEFGHJKMNPQRSTV")
    seen = fresh(home)
    assert {job.id for job in seen.jobs()} == {*old[3:], waiting}
    assert seen.look().left_out == 3
    assert seen.job(old[0]).state == "done"


def test_a_home_that_is_not_there_has_no_jobs(tmp_path: Path) -> None:
    assert Roster(Home(tmp_path / "nothing")).jobs() == []
    assert not (tmp_path / "nothing").exists()
