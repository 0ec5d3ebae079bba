"""Moving jobs in the queue: like moving names in a list, with unique numbers, and never half done."""

import os
import random
from pathlib import Path

import pytest

from runner import place
from runner.orders import Orders
from spool.protocol import dropbox, durable
from spool.protocol.home import Home, State
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import mint

MOVES = {"top": place.top, "up": place.up, "down": place.down}


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(Home(tmp_path / "home").create())


def put(tokens: Tokens, number: int, priority: int = 5, state: State = State.QUEUED) -> str:
    token = Token(priority, number, mint())
    tokens.home.run(token.job_id).root.mkdir()
    tokens.create(state, token, {"id": token.job_id})
    return token.job_id


def waiting(tokens: Tokens) -> list[Token]:
    return sorted(token for state in place.WAITING for token in tokens.list(state))


def ids(tokens: Tokens) -> list[str]:
    return [token.job_id for token in waiting(tokens)]


def moved(order: list[str], verb: str, job_id: str) -> list[str]:
    """What a person expects."""
    at = order.index(job_id)
    to = {"top": 0, "up": max(0, at - 1), "down": min(len(order) - 1, at + 1)}[verb]
    rest = [other for other in order if other != job_id]
    return [*rest[:to], job_id, *rest[to:]]


@pytest.mark.parametrize("seed", range(12))
def test_any_moves_are_those_of_a_list_and_numbers_stay_unique(tokens: Tokens, seed: int) -> None:
    noise = random.Random(seed)
    first = noise.choice([0, 1, 1_000_000])
    for number in range(12):
        state = noise.choice([State.QUEUED, State.QUEUED, State.CHECKING, State.HELD, State.RUNNING, State.DONE])
        put(tokens, first + number, noise.choice([5, 5, 5, 0, 9]), state)
    for _ in range(60):
        expected = ids(tokens)
        if not expected:
            return
        verb, job_id = noise.choice(list(MOVES)), noise.choice(expected)
        highest = tokens.last_sequence()
        MOVES[verb](tokens, job_id)
        assert ids(tokens) == moved(expected, verb, job_id), (verb, job_id)
        living = [token.sequence for state in place.LIVING for token in tokens.list(state)]
        assert len(set(living)) == len(living)
        assert max(living) <= highest, "the next job that is accepted gets the next number"
        if noise.random() < 0.1:
            put(tokens, tokens.last_sequence() + 1, noise.choice([5, 0]))


class Cut(Exception):
    pass


@pytest.mark.parametrize("verb", list(MOVES))
@pytest.mark.parametrize("first", [0, 1_000_000])
def test_a_move_that_is_cut_short_leaves_the_old_order_or_the_new_and_is_finished_later(
    tokens: Tokens, verb: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, cuts = durable.move, 0
    names = [put(tokens, first + n, priority) for n, priority in enumerate([0, 5, 5, 5, 5, 7, 7])]
    for job_id in names:
        for after in (1, 2, 3):
            before, left = ids(tokens), [after]
            wanted = moved(before, verb, job_id)

            def move(source: Path, target: Path, left: list[int] = left) -> None:
                if left[0] == 0:
                    raise Cut
                left[0] -= 1
                real(source, target)

            monkeypatch.setattr(durable, "move", move)
            try:
                MOVES[verb](tokens, job_id)
            except Cut:
                cuts += 1
                monkeypatch.setattr(durable, "move", real)
                assert ids(tokens) in (before, wanted)
                MOVES[verb](tokens, job_id)
            monkeypatch.setattr(durable, "move", real)
            assert ids(tokens) == wanted
            numbers = [token.sequence for token in waiting(tokens)]
            assert len(set(numbers)) == len(numbers)
    assert cuts or (verb, first) == ("top", 1_000_000), "one rename is enough there"


def test_a_job_that_changes_its_class_takes_the_priority_of_its_neighbour(tokens: Tokens) -> None:
    high, low = put(tokens, 10, 2), put(tokens, 11, 5)
    place.up(tokens, low)
    assert [token[::2] for token in waiting(tokens)] == [(2, low), (2, high)]
    place.down(tokens, low)
    assert [token[::2] for token in waiting(tokens)] == [(2, high), (2, low)]


def test_the_first_stays_first_and_the_last_stays_last_without_a_rename(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = put(tokens, 10, 0), put(tokens, 11)
    monkeypatch.setattr(durable, "move", lambda *_: pytest.fail("renamed"))
    place.up(tokens, first)
    place.top(tokens, first)
    place.down(tokens, last)


# ---- as orders


def orders(tokens: Tokens) -> Orders:
    return Orders(tokens.home, lambda state, token: bool(tokens.move(token, state, State.CANCELLED)) or True)


def give(home: Home, *asked: tuple[str, str], level: int | None = None) -> None:
    """At times that are apart."""
    for at, (verb, job_id) in enumerate(asked):
        dropbox.control(home, verb, job_id, level)
        os.utime(home.control / f"{verb}{'' if level is None else level}-{job_id}", (1000 + at,) * 2)


def test_orders_are_carried_out_in_the_order_in_which_they_were_given(tokens: Tokens) -> None:
    a, b, c = (put(tokens, 10 + n) for n in range(3))
    for asked, order in (
        ([("top", b), ("top", c)], [c, b, a]),
        ([("top", c), ("top", b)], [b, c, a]),
        ([("up", a), ("down", b)], [a, b, c]),
    ):
        give(tokens.home, *asked)
        orders(tokens).look()
        assert ids(tokens) == order
        assert dropbox.orders(tokens.home) == []


def test_priority_is_for_waiting_and_held_jobs_and_keeps_the_age(tokens: Tokens) -> None:
    a, b, held = put(tokens, 10), put(tokens, 11), put(tokens, 12, state=State.HELD)
    give(tokens.home, ("priority", b), ("priority", a), ("priority", held), level=0)
    orders(tokens).look()
    assert [token[:2] for token in waiting(tokens)] == [(0, 10), (0, 11)]
    assert tokens.list(State.HELD)[0][:2] == (0, 12)


@pytest.mark.parametrize("verb", ["top", "up", "down", "priority3"])
@pytest.mark.parametrize("state", [State.RUNNING, State.DONE, State.FAILED, State.CANCELLED])
def test_an_order_to_move_what_waits_no_more_comes_to_nothing(tokens: Tokens, verb: str, state: State) -> None:
    job_id = put(tokens, 10, state=state)
    (tokens.home.control / f"{verb}-{job_id}").touch()
    orders(tokens).look()
    assert tokens.list(state) == [Token(5, 10, job_id)]
    assert dropbox.orders(tokens.home) == []


def test_a_thousand_orders_are_carried_out_at_one_look(tokens: Tokens) -> None:
    names = [put(tokens, 10 + n) for n in range(60)]
    for job_id in names:
        dropbox.control(tokens.home, "cancel", job_id)
    dropbox.control(tokens.home, "top", put(tokens, 99))
    orders(tokens).look()
    assert len(tokens.list(State.CANCELLED)) == 60
    assert [token.priority for token in waiting(tokens)] == [0]
