"""Votes as a preference dataset: which rows come of them, and that the house reads and judges them as preferences."""

from typing import Any

import orjson
import pytest
from test_protocol_jobs import accept

from pages.parts.vote import preferences
from pages.parts.vote.course import END, Course
from spool.data.judging.check import check
from spool.data.keeping import keep
from spool.protocol import ballot, tally, votes
from spool.protocol.ballot import Ballot, Said, Sample
from spool.protocol.errors import DataError
from spool.protocol.home import Home, State


def pair(number: int, tuned: Said | None = None, earlier: tuple[str, ...] = (), whole: bool = False) -> Sample:
    turns = [*earlier, f"Question {number}?"]
    messages = tuple({"role": "assistant" if i % 2 else "user", "content": said} for i, said in enumerate(turns))
    answers = {"base": Said(f"a long base answer {number}", whole), "tuned": tuned or Said(f"short {number}", True)}
    return Sample(turns[-1], messages, "", answers)


def one(home: Home, *samples: Sample) -> Ballot:
    found = ballot.of_samples(accept(home, State.DONE), list(samples))
    assert found
    return found


def counted(asked: Ballot, *better: Any) -> tally.Tally:
    """Each a side, None for a tie, or several votes on one pair."""
    cast = []
    for key, said in zip(asked.samples, better, strict=False):
        for i, side in enumerate(said if isinstance(said, tuple) else (said,)):
            cast.append(votes.Vote(sample=key, who=f"person {i}", better=[side] if side else [], at=""))
    return tally.count(asked, cast)


def lines(stored: keep.Stored) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in stored.path.read_bytes().splitlines()]


def test_a_pair_with_a_winner_is_a_row_and_the_data_check_takes_it(home: Home) -> None:
    asked = one(home, *(pair(i) for i in range(12)))
    found = preferences.made(asked, counted(asked, *["tuned"] * 10, None, ("tuned", "tuned", "base")))
    assert (len(found.rows), found.ties, found.cut) == (11, 1, 0)
    assert found.rows[0] == {
        "prompt": "Question 0?",
        "chosen": "short 0",
        "rejected": "a long base answer 0",
        "chosen_model": "tuned",
        "rejected_model": "base",
        "votes": "1/1",
        "voted_on": asked.job_id,
    }
    assert found.rows[-1]["votes"] == "2/3"
    saved = preferences.save(home, "tickets-preferences", found.rows)
    assert (saved.added, saved.replaced, saved.stored.format, saved.stored.rows) == (11, 0, "preference", 11)
    assert (saved.stored.report or {})["mapping"] == {name: name for name in preferences.ROLES}
    report = check(saved.stored.path).to_json()
    assert (report["format"], report["rows"], report["usable_rows"]) == ("preference", 11, 11)
    assert report["problems"] == []


def test_a_better_answer_that_was_cut_off_teaches_nothing(home: Home) -> None:
    asked = one(home, pair(0), pair(1, Said("  ", True)), pair(2))
    found = preferences.made(asked, counted(asked, "base", "tuned", "tuned"))
    assert ([row["prompt"] for row in found.rows], found.cut) == (["Question 2?"], 2)


def test_where_one_prompt_is_a_conversation_all_are(home: Home) -> None:
    asked = one(home, pair(0), pair(1, earlier=("Hello", "Hi.")))
    found = preferences.made(asked, counted(asked, "tuned", "tuned"))
    assert found.rows[0]["prompt"] == [{"role": "user", "content": "Question 0?"}]
    assert [turn["role"] for turn in found.rows[1]["prompt"]] == ["user", "assistant", "user"]
    stored = preferences.save(home, "chats", found.rows).stored
    report = check(stored.path).to_json()
    assert (report["format"], report["usable_rows"], report["problems"]) == ("preference", 2, [])


def test_a_system_text_goes_along(home: Home) -> None:
    system = ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Question?"})
    asked = one(home, Sample("Question?", system, "", {"base": Said("no", True), "tuned": Said("yes, dear", True)}))
    stored = preferences.save(home, "kind", preferences.made(asked, counted(asked, "tuned")).rows).stored
    assert lines(stored)[0]["prompt"] == list(system)
    report = check(stored.path).to_json()
    assert (report["format"], report["usable_rows"], report["problems"]) == ("preference", 1, [])


def test_a_later_save_adds_what_is_new_and_turns_what_was_turned(home: Home) -> None:
    again = one(home, *(pair(i, whole=True) for i in range(4)))
    first = preferences.save(home, "p", preferences.made(again, counted(again, "tuned", "tuned")).rows)
    same = preferences.save(home, "p", preferences.made(again, counted(again, "tuned", "tuned")).rows)
    assert (same.stored.version, same.added, same.replaced) == (first.stored.version, 0, 0)
    rows = preferences.made(again, counted(again, "tuned", "base", "tuned")).rows
    second = preferences.save(home, "p", rows)
    assert (second.added, second.replaced) == (1, 1)
    assert [row["chosen"] for row in lines(second.stored)] == ["short 0", "a long base answer 1", "short 2"]
    assert second.stored.parents[0] == first.stored.reference
    assert len(keep.versions(home, "p")) == 2


def test_the_columns_of_the_dataset_that_is_there_are_kept(home: Home) -> None:
    keep.add(home, "old", "x.jsonl", b'{"question": "q", "preferred": "a", "rejected_response": "b", "note": "n"}\n')
    asked = one(home, pair(0))
    saved = preferences.save(home, "old", preferences.made(asked, counted(asked, "tuned")).rows)
    assert lines(saved.stored)[1]["question"] == "Question 0?"
    assert lines(saved.stored)[1]["preferred"] == "short 0"
    assert saved.stored.rows == 2


def test_what_cannot_be_saved_is_refused(home: Home) -> None:
    asked = one(home, pair(0))
    rows = preferences.made(asked, counted(asked, "tuned")).rows
    keep.add(home, "faq", "faq.csv", b"question,answer\nWhy?,So.\n")
    for name, given, code in (("faq", rows, "does_not_fit"), ("p", [], "nothing_left"), ("../x", rows, "bad_name")):
        with pytest.raises(DataError) as refused:
            preferences.save(home, name, given)
        assert refused.value.code == code
    assert preferences.offered(home) == {}
    preferences.save(home, "p", rows)
    assert list(preferences.offered(home)) == ["p"]


def test_the_way_through_the_pairs() -> None:
    fresh = Course(list("abcd"), ())
    assert (fresh.at(None), fresh.at("c"), fresh.at("gone"), fresh.at(END)) == ("a", "c", "a", END)
    begun = Course(list("abcd"), {"a", "c"})
    assert begun.at(None) == "b"
    assert (begun.after("b"), begun.after("d")) == ("d", "b"), "behind the last comes what was skipped"
    assert (begun.before("b"), begun.before("a"), begun.before(END)) == ("a", None, "d")
    assert Course(list("abcd"), {"a", "b", "c"}).after("d") == END
    assert Course(list("abcd"), set("abcd")).at(None) == END
    assert Course(["a"], ()).after("a") == END
