"""Sessions as pages see them: what may be asked, what the child takes, how answers are put together, what is swept."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from spool.protocol import asks, durable, jobs
from spool.protocol.asks import Answers
from spool.protocol.errors import FinetunerError, NotFound, SpecError
from spool.protocol.home import Home, State
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import mint

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def session(home: Home) -> str:
    return asks.open_session(home, {"model": "gemma-3-270m"})


def listed(home: Home) -> list[str]:
    return sorted(path.name for path in home.asks.iterdir())


def problem(**changed: Any) -> tuple[str, str]:
    document = {"messages": HELLO, "who": ["base"], **changed}
    with pytest.raises(SpecError) as caught:
        asks.parse_ask(json.dumps(document).encode())
    assert str(caught.value)
    return caught.value.problems[0].code, caught.value.problems[0].pointer


def test_a_session_is_a_job_that_can_be_asked_before_it_runs(home: Home, session: str) -> None:
    assert json.loads((home.incoming / f"{session}.json").read_bytes())["interactive"] is True
    ask = asks.ask(home, session, HELLO, ["base"], temperature=0.5, max_new_tokens=8)
    assert listed(home) == [f"{session}-{ask}.json"]
    assert asks.pending(home, session) == [ask]
    assert asks.pending(home, mint()) == []
    taken = asks.take(home, session, ask)
    assert (taken.turns, taken.who, taken.temperature, taken.max_new_tokens, taken.seed) == (
        HELLO,
        ["base"],
        0.5,
        8,
        42,
    )
    assert listed(home) == []
    with pytest.raises(FileNotFoundError):
        asks.take(home, session, ask)


def test_a_wrong_session_is_not_dropped(home: Home) -> None:
    for wrong in ({}, {"model": "m", "prompts": ["x"]}, {"model": "m", "interactive": False, "prompts": ["x"]}):
        with pytest.raises(SpecError):
            asks.open_session(home, wrong)
    assert list(home.incoming.iterdir()) == []


def test_questions_are_taken_in_their_order(home: Home, session: str) -> None:
    asked = []
    for _ in range(5):
        asked.append(asks.ask(home, session, HELLO, ["base"]))
        time.sleep(0.002)
    assert asks.pending(home, session) == asked


def test_a_stop_is_seen_until_it_is_forgotten(home: Home, session: str) -> None:
    ask = asks.ask(home, session, HELLO, ["base"])
    assert not asks.stopped(home, session, ask)
    asks.stop(home, session, ask)
    assert asks.stopped(home, session, ask)
    assert asks.pending(home, session) == [ask]
    asks.forget(home, session, ask)
    assert listed(home) == []
    asks.stop(home, session, "../../state/x")
    assert listed(home) == []


def test_what_cannot_be_asked_is_refused_before_it_is_written(home: Home, session: str) -> None:
    with pytest.raises(SpecError):
        asks.ask(home, session, HELLO, ["base"], temperature=9)
    with pytest.raises(SpecError):
        asks.ask(home, session, [], ["base"])
    with pytest.raises(NotFound):
        asks.ask(home, mint(), HELLO, ["base"])
    with pytest.raises(NotFound):
        asks.ask(home, "../../../x", HELLO, ["base"])
    assert listed(home) == []


def test_an_ask_is_strict_and_bounded() -> None:
    user, answer = HELLO[0], {"role": "assistant", "content": "Hi"}
    system = {"role": "system", "content": "Be short."}
    for good in ([user], [system, user], [user, answer, user], [system, user, answer, user]):
        assert asks.parse_ask(json.dumps({"messages": good, "who": ["base", mint()]}).encode()).turns == good
    for bad in ([user, user], [answer], [user, answer], [system], [user, system, user], [system, system, user]):
        assert problem(messages=bad) == ("bad_turns", "/messages")
    assert problem(messages=[{"role": "tool", "content": "x"}]) == ("bad_ask", "/messages/0/role")
    assert problem(messages=[{"role": "user", "content": ""}]) == ("bad_ask", "/messages/0/content")
    assert problem(messages=[{**user, "name": "x"}]) == ("bad_ask", "/messages/0/name")
    assert problem(messages=[user, answer] * 32 + [user]) == ("bad_ask", "/messages")
    assert problem(who=[]) == ("bad_ask", "/who")
    assert problem(who=["somebody"])[0] == "bad_ask"
    assert problem(who=["base", "base"]) == ("bad_value", "/who")
    assert problem(temperature=2.5) == ("bad_ask", "/temperature")
    assert problem(top_p=0) == ("bad_ask", "/top_p")
    assert problem(seed="1") == ("bad_ask", "/seed")
    assert problem(more=1) == ("bad_ask", "/more")
    assert problem(messages=[{"role": "user", "content": "x" * 65_537}])[0] == "too_long_text"
    long = [{"role": "user", "content": "x" * 60_000}, answer] * 5
    assert problem(messages=[*long, user])[0] == "too_large"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"v": 1, "v": 1}', b"[" * 4000, b"x" * 300_000])
def test_rubbish_in_the_folder_is_an_error_and_goes(home: Home, session: str, data: bytes) -> None:
    ask = mint()
    (home.asks / f"{session}-{ask}.json").write_bytes(data)
    with pytest.raises(SpecError):
        asks.take(home, session, ask)
    assert listed(home) == []


def test_what_is_no_file_is_an_error_and_holds_nobody_up(home: Home, session: str, tmp_path: Path) -> None:
    pipe, link = mint(), mint()
    os.mkfifo(home.asks / f"{session}-{pipe}.json")
    (tmp_path / "elsewhere").write_bytes(durable.to_bytes({"messages": HELLO, "who": ["base"]}))
    (home.asks / f"{session}-{link}.json").symlink_to(tmp_path / "elsewhere")
    for ask in (pipe, link):
        with pytest.raises(SpecError) as caught:
            asks.take(home, session, ask)
        assert caught.value.code == "not_readable"
    assert listed(home) == []
    assert (tmp_path / "elsewhere").exists()


def test_answers_are_put_together_as_they_come(home: Home) -> None:
    job = mint()
    run = home.run(job)
    run.root.mkdir()
    answers = Answers(home, job)
    assert answers.read() is False
    assert (answers.ready, answers.who) == (False, [])
    asks.write_row(run.answers, ready=True, who=["base", job])
    asks.write_row(run.answers, ask="A", who="base", delta="Hel")
    assert answers.read() is True
    assert (answers.ready, answers.who) == (True, ["base", job])
    assert [(each.text, each.done) for each in answers.of("A")] == [("Hel", False)]
    asks.write_row(run.answers, ask="A", who="base", delta="lo ")
    asks.write_row(run.answers, ask="A", who=job, delta="Gu")
    with open(run.answers, "ab") as file:
        file.write(b'{"v":1,"ask":"A","who":"base","delta":"half a li')
    answers.read()
    assert [(each.who, each.text) for each in answers.of("A")] == [("base", "Hello "), (job, "Gu")]
    assert not answers.finished("A", ["base"])
    asks.write_row(
        run.answers, ask="A", who="base", done=True, text="Hello", tokens=2, seconds=0.5, ended_by="stop"
    )  # cuts the half line off first
    answers.read()
    assert answers.finished("A", ["base"])
    assert not answers.finished("A", ["base", job])
    first = answers.of("A")[0]
    assert (first.text, first.done, first.tokens, first.seconds, first.ended_by) == ("Hello", True, 2, 0.5, "stop")
    asks.write_row(run.answers, ask="B", error={"code": "too_long", "message": "m", "hint": "h"})
    answers.read()
    assert answers.errors["B"]["code"] == "too_long"
    assert answers.finished("B", ["base"])
    assert answers.of("B") == []
    assert answers.read() is False


def test_answers_to_a_list_of_prompts_are_read_in_the_same_way(home: Home) -> None:
    job = mint()
    home.run(job).root.mkdir()
    asks.write_row(
        home.run(job).answers,
        ask=0, who=job, prompt="2+2?", reference="4", text="4", tokens=1, seconds=0.1, ended_by="stop",
    )  # fmt: skip
    answers = Answers(home, job)
    answers.read()
    (only,) = answers.of(0)
    assert (only.prompt, only.reference, only.text, only.done) == ("2+2?", "4", "4", True)


def test_rows_of_other_releases_are_passed_over(home: Home) -> None:
    job = mint()
    home.run(job).root.mkdir()
    for row in ({"ask": None}, {"ask": "A"}, {"ask": "A", "who": 3}, {"ask": ["A"], "who": "base", "delta": "x"}, {}):
        asks.write_row(home.run(job).answers, **row)
    answers = Answers(home, job)
    assert answers.read() is True
    assert (answers.by_ask, answers.errors) == ({}, {})


def token(home: Home, state: State) -> str:
    job = mint()
    Tokens(home).create(state, Token(5, 1, job), {"id": job})
    return job


def test_what_was_asked_of_an_ended_job_is_swept(home: Home) -> None:
    running, done, unknown = token(home, State.RUNNING), token(home, State.DONE), mint()
    for job in (running, done, unknown):
        (home.asks / f"{job}-{mint()}.json").touch()
        (home.asks / f"{job}-{mint()}.stop").touch()
    (home.asks / "litter").touch()
    (home.asks / "a folder").mkdir()
    assert asks.sweep(home) == 2
    assert not [name for name in listed(home) if name.startswith(done)]
    assert asks.sweep(home, time.time() + asks.UNKNOWN_S + 60) == 3
    assert {name.partition("-")[0] for name in listed(home)} == {running, "a folder"}
    with pytest.raises(FinetunerError) as caught:
        asks.ask(home, done, HELLO, ["base"])
    assert caught.value.code == "session_ended"
    assert jobs.get_job(home, done).ended


def test_which_jobs_are_sessions(home: Home) -> None:
    for spec, expected in (
        ({"kind": "generate", "interactive": True}, True),
        ({"kind": "generate", "interactive": False}, False),
        ({"kind": "train"}, False),
        ([], False),
    ):
        job = mint()
        home.run(job).root.mkdir()
        durable.write_json(home.run(job).spec, spec)
        assert asks.is_session(home, job) is expected
    assert asks.is_session(home, mint()) is False
