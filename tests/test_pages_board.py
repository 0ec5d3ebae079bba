"""The queue's order, its filters and pages, and expected times in words: exact."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from pages.parts.queue import board, expected
from pages.parts.queue.board import Board, Wish
from spool.forecast import queue
from spool.forecast.queue import Span
from spool.protocol.dropbox import Order
from spool.protocol.jobs import Job

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 23, 14, 30, tzinfo=UTC)  # a Monday, 15:30 in Berlin


def job(name: str, state: str = "queued", priority: int | None = 5, sequence: int | None = 1, **more: str) -> Job:
    made = Job(name, name, "train", state, priority=priority, sequence=sequence)
    for key, value in more.items():
        setattr(made, key, value)
    return made


def names(jobs: list[Job]) -> list[str]:
    return [each.id for each in jobs]


def test_what_waits_stands_in_the_order_of_the_tokens_and_fresh_drops_at_the_end() -> None:
    drop = job("drop", "checking", None, None)
    made = Board.of([drop, job("c", "checking", 5, 9), job("a", sequence=8), job("b", priority=0, sequence=99)])
    assert names(made.waiting) == ["b", "a", "c", "drop"]
    assert made.place == {"b": 1, "a": 2, "c": 3, "drop": 4}
    ended = Board.of([job("old", "done", ended_at="2026-11-22"), job("new", "failed", ended_at="2026-11-23")])
    assert names(ended.ended) == ["new", "old"]
    assert not Board.of([])


@pytest.mark.parametrize(
    ("words", "found"),
    [("", "ab"), ("TICKETS", "a"), ("tickets gemma", "a"), ("tickets mistral", ""), ("night", "b"), ("FAQ", "b")],
)
def test_each_word_must_be_somewhere(words: str, found: str) -> None:
    jobs = [job("a", model="gemma-3", dataset="tickets"), job("b", model="gemma-3", dataset="faq")]
    assert "".join(names(Wish(words).keep(jobs, {"b": ("Night",)}))) == found


def test_people_are_exact() -> None:
    jobs = [job("a", submitted_by="ann"), job("b", submitted_by="anna"), job("c")]
    assert names(Wish(people=("ann",)).keep(jobs, {})) == ["a"]


@pytest.mark.parametrize(
    ("number", "shown"), [(1, ([0, 1], 1, 3)), (3, ([4], 3, 3)), (99, ([4], 3, 3)), (-4, ([0, 1], 1, 3))]
)
def test_pages(number: int, shown: tuple[list[int], int, int]) -> None:
    assert board.page(list(range(5)), number, 2) == shown


def test_no_rows_are_one_empty_page() -> None:
    assert board.page([], 1, 2) == ([], 1, 1)


def test_the_last_word_stands_but_a_cancel_is_final() -> None:
    given = [Order("hold", "hold"), Order("x", "top", "a"), Order("x", "hold", "a"), Order("x", "cancel", "b"),
             Order("x", "top", "b")]  # fmt: skip
    assert {job_id: order.verb for job_id, order in board.pending(given).items()} == {"a": "hold", "b": "cancel"}


def test_several_are_asked_for_so_that_they_keep_their_order() -> None:
    jobs = [job("b", sequence=2), job("a", sequence=1), job("c", sequence=3)]
    assert names(board.in_order_of_giving("up", jobs)) == ["a", "b", "c"]
    assert names(board.in_order_of_giving("top", jobs)) == ["c", "b", "a"]
    assert names(board.in_order_of_giving("down", jobs)) == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (timedelta(minutes=12), "15:42"),
        (timedelta(hours=9), "tomorrow 00:30"),
        (timedelta(days=-1), "yesterday 15:30"),
        (timedelta(days=2), "Wed 15:30"),
        (timedelta(days=10), "3 Dec 15:30"),
    ],
)
def test_times_are_told_as_the_reader_lives(later: timedelta, said: str) -> None:
    assert expected.hour(NOW + later, NOW, BERLIN) == said


def test_a_start_that_is_near_unknown_or_held_up() -> None:
    assert expected.start(Span(NOW + timedelta(seconds=40), None), NOW, UTC) == "soon"
    assert expected.start(Span(None, None, queue.HELD), NOW, UTC) == "–"
    assert expected.start(None, NOW, UTC) == "–"
    assert expected.end(Span(NOW, NOW + timedelta(hours=1)), NOW, UTC) == "15:30"
    assert expected.why(Span(None, None, queue.HELD)) == "the queue is held"
    assert expected.why(Span(NOW, None, "jobs start between 20:00 and 07:00 only")).endswith("only")
    assert expected.why(Span(NOW, NOW)) == expected.why(None) == ""
