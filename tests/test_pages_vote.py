"""The page Vote, run by AppTest: blind until the end, one vote a person and pair, the result, and the dataset of it."""

from typing import Any

import orjson
import pytest
from streamlit.testing.v1 import AppTest
from test_pages_app import NASTY, World, said, visit, world  # noqa: F401

from pages.parts.ui import frame
from runner.report import document
from runner.report.document import Story
from runner.report.rows import Row, Said
from spool.data.keeping import keep
from spool.protocol import ballot, durable, votes
from spool.protocol.ballot import Ballot
from spool.protocol.home import State


def row(number: int, base: str = "A long and winding answer {}", tuned: str = "Short {}") -> Row:
    asked = f"Question {number}?"
    answers = Said(base.format(number), False, 9, 3.0), Said(tuned.format(number), True, 4, 0.1)
    return Row(asked, f"Expected {number}", *answers, ({"role": "user", "content": asked},))


def reported(world: World, *rows: Row) -> Ballot:  # noqa: F811
    """A finished training with its report, as the runner writes it."""
    job_id = world.job(State.DONE, "support tickets", steps=5)
    run = world.home.run(job_id)
    told = Story(list(rows) or [row(i) for i in range(6)], 99, 6, True, "tickets.jsonl", 36)
    made = document.build(told, run, "Tickets", job_id, None, "EUR", "2026-11-23")
    durable.write_json(run.report_json, made)
    result = durable.read_json(run.result)
    durable.write_json(run.result, {**result, "result": {**result["result"], "report": document.told(made)}})
    found = ballot.read(world.home, job_id)
    assert found is not None
    return found


def button(app: AppTest, start: str) -> Any:
    """The one whose key begins so."""
    (found,) = [each for each in app.button if (each.key or "").startswith(start)]
    return found


def shown(app: AppTest) -> tuple[str, str]:
    """The texts under A and B."""
    return tuple(each.value for each in app.text if each.value.startswith(("A long", "Short")))  # type: ignore[return-value]


def vote(app: AppTest, name: str) -> AppTest:
    button(app, f"vote-{name}-").click().run()
    assert not app.exception, app.exception
    return app


def test_without_a_report_it_says_what_comes_here(world: World) -> None:  # noqa: F811
    job_id = world.job(State.DONE, steps=5)
    assert "Nothing to vote on yet" in said(visit("vote"))
    assert "nothing to vote on here" in said(visit("vote", job=job_id))
    assert "nothing to vote on here" in said(visit("vote", job="../../etc/passwd"))


def test_all_pairs_from_the_first_vote_to_the_dataset(world: World) -> None:  # noqa: F811
    asked = reported(world)
    app = visit("vote", job=asked.job_id)
    for number in range(6):
        assert f"{number} of 6 pairs" in app.get("progress")[0].proto.text
        first, _ = shown(app)
        vote(app, "a" if (first.startswith("Short")) == (number < 5) else "b")
    assert "every pair" in said(app)
    assert not app.metric, "the result waits"
    button(app, "vote-result").click().run()
    assert [each.value for each in app.metric] == ["5", "1", "0", "83 %"]
    text = said(app)
    assert "No clear winner: this could be chance" in text
    assert "Tuned model: 5 wins in 6 pairs" in text
    assert "between 44 % and 97 %" in text
    assert "in 21.9 % of cases" in text
    assert "5 pairs with a winner become rows" in text
    assert "was cut off" in text, "the base's answer was"
    assert "kept away from the training" in text
    assert app.dataframe[0].value["winner"].value_counts().to_dict() == {"Tuned model": 5, "Base model": 1}
    button(app, "vote-save").click().run()
    assert not app.exception, app.exception
    (stored,) = keep.list_datasets(world.home)
    assert (stored.name, stored.format, stored.rows) == ("support-tickets-preferences", "preference", 5)
    rows = [orjson.loads(line) for line in stored.path.read_bytes().splitlines()]
    assert all(each["chosen"].startswith("Short") and each["rejected"].startswith("A long") for each in rows)
    assert "5 new rows" in said(app)
    button(app, "vote-save").click().run()
    assert "has all of these rows already" in said(app)
    assert len(keep.list_datasets(world.home)) == 1


def test_nothing_tells_which_is_which_and_a_reload_changes_nothing(world: World) -> None:  # noqa: F811
    asked = reported(world)
    app = visit("vote", job=asked.job_id)
    words = said(app) + "".join(each.label for each in (*app.button, *app.expander))
    for word in ("Base", "Tuned", "base", "tuned", "gemma"):
        assert word not in words.replace("support tickets", "")
    assert not any("base" in (each.key or "") or "tuned" in (each.key or "") for each in app.button)
    assert shown(visit("vote", job=asked.job_id)) == shown(app)
    sides = [votes.placed("", pair, asked.sides) for pair in asked.samples]
    first = votes.ordered("", asked.samples)[0]
    wanted = tuple(asked.samples[first].answers[side].text for side in votes.placed("", first, asked.sides))
    assert shown(app) == wanted
    assert len(set(sides)) == 2


def test_a_vote_can_be_changed_until_the_result_was_seen(world: World) -> None:  # noqa: F811
    asked = reported(world)
    app = visit("vote", job=asked.job_id)
    first = votes.ordered("", asked.samples)[0]
    vote(app, "good")
    button(app, "vote-back").click().run()
    assert button(app, "vote-good-").icon == ":material/check:", "said by more than its colour"
    vote(app, "neither")
    assert votes.read(world.home, asked.job_id).votes[("", first)].better == []
    button(app, "vote-result").click().run()
    assert not [each for each in app.button if (each.key or "").startswith("vote-a-")]
    assert "No pair has a winner" in said(app)
    assert "5 pairs have no vote" in said(app)
    assert button(app, "vote-save").disabled
    assert "No pair has a winner" in said(visit("vote", job=asked.job_id)), "also after a reload"


def test_skipped_pairs_come_again(world: World) -> None:  # noqa: F811
    asked = reported(world, row(0), row(1))
    app = visit("vote", job=asked.job_id)
    begun = shown(app)
    button(app, "vote-skip").click().run()
    assert shown(app) != begun
    vote(app, "b")
    assert shown(app) == begun
    assert button(app, "vote-skip").disabled is False
    button(app, "vote-skip").click().run()
    assert "One pair is left" in said(app)
    button(app, "vote-again").click().run()
    assert button(app, "vote-back").disabled


def test_each_person_votes_for_themselves(world: World) -> None:  # noqa: F811
    asked = reported(world)
    pairs = list(asked.samples)
    for who, better in (("ann", ["tuned"]), ("ben", ["tuned"]), ("cem", ["base"])):
        votes.cast(world.home, asked, who, pairs[0], better)
    votes.cast(world.home, asked, "ann", pairs[1], ["base"])
    app = visit("vote", job=asked.job_id, **{"as": "ann"})
    assert "2 of 6 pairs" in app.get("progress")[0].proto.text
    assert "0 of 6 pairs" in visit("vote", job=asked.job_id).get("progress")[0].proto.text
    votes.close(world.home, asked.job_id, "ann")
    text = said(visit("vote", job=asked.job_id, **{"as": "ann"}))
    assert "People who voted: 3; votes: 4" in text
    assert "33 % chose the same (3 comparisons)" in text
    assert "0 of 6 pairs" in visit("vote", job=asked.job_id, **{"as": "dan"}).get("progress")[0].proto.text
    listed = said(visit("vote", **{"as": "ben"}))
    assert "6 pairs · 3 people have voted · you: 1 of 6" in listed


def test_who_is_signed_in_is_who_votes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    asked = reported(world)
    monkeypatch.setattr(frame, "user", lambda: "ann@example.org")
    app = visit("vote", job=asked.job_id, **{"as": "somebody else"})
    assert not app.text_input
    vote(app, "a")
    assert {who for who, _ in votes.read(world.home, asked.job_id).votes} == {"ann@example.org"}


def test_what_models_and_people_write_stays_text(world: World) -> None:  # noqa: F811
    asked = reported(world, *(row(i, "A long " + NASTY + " {}", "Short " + NASTY + " {}") for i in range(2)))
    votes.cast(world.home, asked, NASTY, next(iter(asked.samples)), ["tuned"])
    (world.home.votes / f"{asked.job_id}.damaged-1.json").write_text("{")
    for query in ({"as": NASTY}, {}):
        app = visit("vote", job=asked.job_id, **query)
        assert NASTY in "".join(each.value for each in app.text), "in a literal block"
        vote(app, "a")
        button(app, "vote-result").click().run()
        assert not app.exception, app.exception
        for raw in ("<img", "[x](", "![](", "**b**", "$x$", ":material/home:"):
            assert raw not in said(app).replace(r"\<img", "").replace(r"\[x\]", "")


def test_damaged_files_are_said(world: World) -> None:  # noqa: F811
    asked = reported(world)
    path = world.home.votes / f"{asked.job_id}.json"
    path.write_text("{")
    app = visit("vote", job=asked.job_id)
    assert f"votes/{asked.job_id}" in app.warning[0].value.replace("\\", "")
    vote(app, "a")
    assert "damaged" in app.warning[0].value
    assert "1 of 6 pairs" in app.get("progress")[0].proto.text
    world.home.run(asked.job_id).report_json.write_text("{")
    assert "damaged" in visit("vote", job=asked.job_id).error[0].value


def test_a_full_disk_loses_no_vote_silently(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    asked = reported(world)
    app = visit("vote", job=asked.job_id)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "write_json", full)
    vote(app, "a")
    assert "No space left" in app.error[0].value
    assert "0 of 6 pairs" in app.get("progress")[0].proto.text


def test_a_models_page_leads_to_its_pairs(world: World) -> None:  # noqa: F811
    asked = reported(world)
    text = said(visit("models", model=asked.job_id))
    assert "Which answers do people prefer?" in text
    assert "6 pairs · nobody has voted yet" in text
    assert "Which answers" not in said(visit("models", model=world.job(State.DONE, steps=5)))
