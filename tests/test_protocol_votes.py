"""Blind votes: what they stand for, who may give them, that none is lost, and the numbers that come of them."""

import os
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest
from test_protocol_jobs import accept
from test_report_page import build, rows, run, story  # noqa: F401

from spool.protocol import asks, ballot, durable, tally, votes
from spool.protocol.ballot import Ballot, Said, Sample
from spool.protocol.errors import FinetunerError, NotFound
from spool.protocol.home import Home, Run, State
from spool.protocol.ulid import mint


def sample(number: int, **texts: str) -> Sample:
    said = texts or {"base": f"long {number}", "tuned": f"short {number}"}
    return Sample(f"prompt {number}", (), "", {side: Said(text, True) for side, text in said.items()})


def made(job_id: str, count: int = 20) -> Ballot:
    found = ballot.of_samples(job_id, [sample(i) for i in range(count)])
    assert found
    return found


@pytest.fixture
def one(home: Home) -> Ballot:
    return made(accept(home, State.DONE))


def keys(one: Ballot) -> list[str]:
    return list(one.samples)


def test_the_pairs_of_a_report_are_read(home: Home, run: Run) -> None:  # noqa: F811
    job_id = run.root.name
    assert ballot.read(home, job_id) is None
    durable.write_json(run.report_json, build(story(rows(30, 20)), run))
    found = ballot.read(home, job_id)
    assert found is not None
    assert (found.sides, len(found.samples), found.held_out) == (("base", "tuned"), 20, True)
    first = next(iter(found.samples.values()))
    assert (first.prompt, first.answers["base"]) == ("prompt 0", Said("hello", False))
    assert ballot.read(home, "../../etc/passwd") is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[]", b"{}", b'{"ballot": []}', b'{"ballot": {"rows": [1, {"prompt": 2}]}}']
)
def test_a_damaged_report_is_said_and_an_empty_one_has_nothing(content: bytes, home: Home, one: Ballot) -> None:
    path = home.run(one.job_id).report_json
    path.write_bytes(content)
    if content in (b"", b"{", b"\xff"):
        with pytest.raises(FinetunerError, match="damaged"):
            ballot.read(home, one.job_id)
    else:
        assert ballot.read(home, one.job_id) is None


def test_the_sides_are_those_of_the_document(home: Home, one: Ballot) -> None:
    row = {"prompt": "p", "old": {"text": "a"}, "new": {"text": "b", "stopped": False}, "quality": {"old": 1}}
    other = {"prompt": "q", "old": {"text": "a"}, "newer": {"text": "b"}}
    durable.write_json(home.run(one.job_id).report_json, {"ballot": {"rows": [row, other]}})
    found = ballot.read(home, one.job_id)
    assert found is not None
    assert (found.sides, [each.prompt for each in found.samples.values()]) == (("old", "new"), ["p"])
    assert found.held_out is None


def test_two_models_that_answered_the_same_prompts_are_a_ballot(home: Home) -> None:
    job_id, training = accept(home, State.DONE), mint()
    run = home.run(job_id)  # noqa: F811
    durable.write_json(run.spec, {"kind": "generate", "system": "Be kind."})
    durable.write_json(run.prompts, {"questions": [{"messages": [{"role": "user", "content": "Before?"}]}]})

    def answered(place: int, who: str, text: str, ended_by: str = "stop") -> None:
        asks.write_row(run.answers, ask=place, who=who, prompt=f"q{place}", reference="r", text=text, ended_by=ended_by)

    assert ballot.read(home, job_id) is None
    for place in range(30):
        answered(place, training, "the same" if place == 1 else f"tuned {place}", "length")
        answered(place, "base", "the same " if place == 1 else f"base {place}")
    found = ballot.read(home, job_id)
    assert found is not None
    assert (found.sides, len(found.samples), found.same) == (("base", training), 20, 1)
    first, second, *_ = found.samples.values()
    assert [turn["content"] for turn in first.messages] == ["Be kind.", "Before?"]
    assert [turn["content"] for turn in second.messages] == ["Be kind.", "q2"]
    assert first.answers == {"base": Said("base 0", True), training: Said("tuned 0", False)}
    answered(0, mint(), "a third")
    third = ballot.read(home, job_id)
    assert third is not None
    assert next(iter(third.samples.values())).prompt == "q2", "three are no pair"


def test_a_vote_says_who_won_and_the_last_one_of_a_person_counts(home: Home, one: Ballot) -> None:
    first, second, *_ = keys(one)
    votes.cast(home, one, "ann", first, ["tuned"])
    votes.cast(home, one, "ben", first, ["base"])
    votes.cast(home, one, "ann", second, [])
    votes.cast(home, one, "ann", first, ["tuned", "base"])
    votes.cast(home, one, "x" * 900 + "\ud800", second, ["tuned"])
    kept = votes.read(home, one.job_id)
    assert {key: vote.better for key, vote in kept.votes.items()} == {
        ("ann", first): ["base", "tuned"],
        ("ben", first): ["base"],
        ("ann", second): [],
        ("x" * 200, second): ["tuned"],
    }
    assert set(kept.by("ann", one)) == {first, second}
    assert kept.damaged == ()


def test_votes_on_other_answers_do_not_count(home: Home, one: Ballot) -> None:
    votes.cast(home, one, "ann", keys(one)[0], ["tuned"])
    anew = ballot.of_samples(one.job_id, [sample(0, base="long 0", tuned="another"), sample(1)])
    assert anew is not None
    kept = votes.read(home, one.job_id)
    assert len(kept.on(one)) == 1
    assert kept.on(anew) == []
    assert tally.count(anew, kept.votes.values()).votes == 0


def test_who_has_seen_the_result_votes_no_more(home: Home, one: Ballot) -> None:
    votes.cast(home, one, "ann", keys(one)[0], ["tuned"])
    votes.close(home, one.job_id, "ann")
    when = votes.read(home, one.job_id).closed["ann"]
    votes.close(home, one.job_id, "ann")
    with pytest.raises(FinetunerError, match="blind"):
        votes.cast(home, one, "ann", keys(one)[0], ["base"])
    votes.cast(home, one, "ben", keys(one)[0], ["base"])
    kept = votes.read(home, one.job_id)
    assert kept.closed == {"ann": when}
    assert kept.votes[("ann", keys(one)[0])].better == ["tuned"]


def test_what_is_no_vote_is_refused(home: Home, one: Ballot, monkeypatch: pytest.MonkeyPatch) -> None:
    first = keys(one)[0]
    for key, better in (("0" * 32, ["tuned"]), (first, ["best"])):
        with pytest.raises(FinetunerError, match="no such pair"):
            votes.cast(home, one, "ann", key, better)
    with pytest.raises(NotFound):
        votes.cast(home, made(mint()), "ann", first, ["tuned"])
    monkeypatch.setattr(votes, "MOST_VOTES", 1)
    votes.cast(home, one, "ann", first, ["tuned"])
    votes.cast(home, one, "ann", first, ["base"])
    with pytest.raises(FinetunerError, match="do not fit"):
        votes.cast(home, one, "ben", first, ["tuned"])
    assert len(votes.read(home, one.job_id).votes) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b'{"v": 2, "votes": []}', b'{"v": 1, "votes": [{"who": "ann"}]}', b'{"v": 1, "more": 1}',
        b'{"v": 1, "votes": [], "closed": 3}', b" " * (votes.FILE_BYTES + 1),
    ],
    ids=["empty", "cut", "list", "newer", "half", "unknown", "wrong", "huge"],
)  # fmt: skip
def test_a_damaged_file_is_said_and_put_aside_as_it_is(content: bytes, home: Home, one: Ballot) -> None:
    path = home.votes / f"{one.job_id}.json"
    path.write_bytes(content)
    assert votes.read(home, one.job_id).damaged == (path.name,)
    assert path.read_bytes() == content, "looking changes nothing"
    votes.cast(home, one, "ann", keys(one)[0], ["tuned"])
    kept = votes.read(home, one.job_id)
    (aside,) = kept.damaged
    assert (home.votes / aside).read_bytes() == content
    assert len(kept.votes) == 1


def test_a_link_and_a_pipe_are_not_followed(home: Home, one: Ballot, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"v": 1}')
    path = home.votes / f"{one.job_id}.json"
    path.symlink_to(secret)
    assert votes.read(home, one.job_id).damaged
    path.unlink()
    os.mkfifo(path)
    assert votes.read(home, one.job_id).damaged
    assert votes.read(home, "../secret") == votes.Votes()


def test_many_may_vote_at_once(home: Home, one: Ballot) -> None:
    def vote(who: str) -> None:
        for key in keys(one):
            votes.cast(home, one, who, key, ["tuned"])

    people = [threading.Thread(target=vote, args=(f"person {i}",)) for i in range(6)]
    for each in people:
        each.start()
    for each in people:
        each.join()
    assert len(votes.read(home, one.job_id).votes) == 6 * 20
    assert [path.name for path in home.votes.iterdir()] == [f"{one.job_id}.json"]


def test_the_sides_are_shuffled_for_each_person_and_stay_so(one: Ballot) -> None:
    shown = {who: [votes.placed(who, key, one.sides) for key in keys(made("x", 200))] for who in ("ann", "ben", "")}
    for places in shown.values():
        assert 70 < sum(place == ("base", "tuned") for place in places) < 130
        assert all(sorted(place) == ["base", "tuned"] for place in places)
    assert shown["ann"] != shown["ben"]
    assert shown["ann"] == [votes.placed("ann", key, one.sides) for key in keys(made("x", 200))]
    orders = {who: votes.ordered(who, keys(one)) for who in ("ann", "ben")}
    assert orders["ann"] != orders["ben"]
    assert sorted(orders["ann"]) == sorted(keys(one))


def count(one: Ballot, *cast: tuple[str, int, str]) -> tally.Tally:
    """The tally of votes (who, number of the pair, t/b/+/-)."""
    better: dict[str, Any] = {"t": ["tuned"], "b": ["base"], "+": ["base", "tuned"], "-": []}
    found = [votes.Vote(sample=keys(one)[i], who=who, better=better[how], at="") for who, i, how in cast]
    return tally.count(one, found)


def test_the_win_rate_of_one_person_with_its_interval(one: Ballot) -> None:
    """Wilson's interval of 14 of 17 by his formula: (k + z²/2 ± z·sqrt(k(n-k)/n + z²/4)) / (n + z²), z = 1.95996."""
    found = count(one, *(("ann", i, how) for i, how in enumerate("t" * 14 + "bbb" + "++-")))
    assert (found.wins, found.losses, found.ties, found.people, found.votes) == (14, 3, 3, 1, 20)
    assert found.rate == pytest.approx(14 / 17)
    assert found.interval == (pytest.approx(0.589706, abs=1e-6), pytest.approx(0.938089, abs=1e-6))
    assert found.chance == pytest.approx(2 * (1 + 17 + 136 + 680) / 2**17), "the sign test: 3 or fewer, or 14 or more"
    assert found.clear
    assert (found.agreement, found.compared) == (None, 0)


def test_few_or_even_votes_may_be_chance(one: Ballot) -> None:
    assert count(one, *(("ann", i, "t") for i in range(5))).chance == pytest.approx(2 / 2**5)
    assert not count(one, *(("ann", i, "t") for i in range(5))).clear
    assert count(one, *(("ann", i, "t") for i in range(6))).clear
    even = count(one, ("ann", 0, "t"), ("ann", 1, "b"))
    assert (even.rate, even.chance) == (0.5, 1.0)


@pytest.mark.parametrize("cast", [(), (("ann", 0, "+"), ("ann", 1, "-"))])
def test_without_a_winner_there_is_no_rate(cast: Any, one: Ballot) -> None:
    found = count(one, *cast)
    assert (found.wins, found.losses, found.ties) == (0, 0, len(cast))
    assert (found.rate, found.interval, found.chance) == (None, None, 1.0)


def test_a_pair_goes_to_the_side_that_more_than_half_found_better(one: Ballot) -> None:
    found = count(
        one,
        ("ann", 0, "t"), ("ben", 0, "t"), ("cem", 0, "b"),
        ("ann", 1, "t"), ("ben", 1, "+"),
        ("ann", 2, "b"), ("ben", 2, "t"),
        ("ann", 3, "-"), ("ben", 3, "+"),
        ("ann", 4, "b"),
    )  # fmt: skip
    assert (found.wins, found.losses, found.ties, found.people, found.votes) == (1, 1, 3, 3, 10)
    assert [found.outcomes[key].winner for key in keys(one)[:5]] == ["tuned", None, None, None, "base"]
    assert found.outcomes[keys(one)[3]] == tally.Outcome(0, 0, 1, 1, None)
    assert found.outcomes[keys(one)[0]].of == 3


def test_agreement_is_the_share_of_pairs_of_people_who_chose_the_same(one: Ballot) -> None:
    found = count(
        one,
        ("ann", 0, "t"), ("ben", 0, "t"), ("cem", 0, "b"),
        ("ann", 1, "-"), ("ben", 1, "+"),
        ("ann", 2, "t"),
    )  # fmt: skip
    assert found.compared == 4
    assert found.agreement == pytest.approx(2 / 4), "ann and ben twice: a tie is a tie, good or bad"


def test_the_file_is_as_the_module_says(home: Home, one: Ballot) -> None:
    votes.cast(home, one, "", keys(one)[0], ["tuned"])
    votes.close(home, one.job_id, "")
    document = orjson.loads((home.votes / f"{one.job_id}.json").read_bytes())
    at = document["votes"][0].pop("at")
    assert document["votes"] == [{"sample": keys(one)[0], "who": "", "better": ["tuned"]}]
    assert at.endswith("Z")
    assert [each["who"] for each in document["closed"]] == [""]
