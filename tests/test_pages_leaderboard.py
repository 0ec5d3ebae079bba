"""The leaderboard on Models: who stands on which board, in which order, with which marks; and asking for reports."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from test_pages_app import NASTY, World, said, visit
from test_pages_app import world as world

from pages.parts import words
from pages.parts.models import asking, board
from pages.parts.models import told as reading
from pages.parts.models.asking import Wanted
from pages.parts.models.board import CLOSE, CUT, LEARNED, Group
from pages.parts.ui import jobs as shown_jobs
from pages.parts.ui.models import board as shown
from spool.data.keeping import keep
from spool.protocol import durable, jobs
from spool.protocol.home import Home, State
from spool.protocol.jobs import Job
from spool.protocol.parse import parse_spec
from spool.protocol.spec import EvaluateSpec
from spool.protocol.states import Tokens
from spool.protocol.ulid import mint
from tests import showcase

HOME = Home(Path("/nowhere"))
BASE = 0.1


def measure(name: str, tuned: float | None, base: float | None = BASE, **more: Any) -> dict[str, Any]:
    found = {"name": name, "title": name, "unit": "share", "base": base, "tuned": tuned, "higher_is_better": True}
    return found | {"of": 40, "base_interval": [0.04, 0.23], "tuned_interval": None} | more


def told(
    value: float, interval: tuple[float, float] | None = None, loss: float = 0.5, sha: str = "a" * 32, **more: Any
) -> dict[str, Any]:
    """What a result says of its report, as runner/report/document.py has it."""
    first = measure("same_object", value, tuned_interval=list(interval) if interval else None)
    asked = {"rows": 40, "chosen": 40, "of": 80, "held_out": True, "learned": False, "cut": False}
    report = {
        "report": "runs/X/report.html",
        "verdict": "better",
        "task": "json",
        "measures": [first, measure("exact", value / 2), measure("stopped", 1.0)],
        "general": {"of": 40, "base": 30, "tuned": 29, "lost": 3, "gained": 2},
        "asked": asked | {"sha256": sha, "source": "tickets@0123456789ab"} | more.pop("asked", {}),
    }
    report["measures"].append(measure("loss", loss, 3.0, unit="nats", higher_is_better=False, base_interval=None))
    return report | more


def job(name: str, report: Any, kind: str = "train", ended: str = "2026-11-22T10:00:00Z", **result: Any) -> Job:
    base = {"base": {"reference": "gemma-3-270m"}}
    return Job(mint(), name, kind, "done", ended_at=ended, result={"report": report, **base, **result})


def lines(group: Group) -> list[tuple[int | None, str, tuple[str, ...]]]:
    return [(line.place, line.model, line.marks) for line in group.lines]


def groups(*given: Job) -> list[Group]:
    return board.groups(HOME, given)


# ---- who stands where


def test_the_best_comes_first_equal_values_share_a_place_and_the_base_has_none() -> None:
    (found,) = groups(
        job("third", told(0.6)),
        job("first", told(0.9, (0.7, 0.97), loss=0.2)),
        job("first too", told(0.9, loss=0.1)),
        job("hopeless", told(0.05)),
        job("second", told(0.7)),
    )
    assert lines(found) == [
        (1, "first too", ()),
        (1, "first", ()),
        (3, "second", ()),
        (4, "third", ()),
        (None, "gemma-3-270m", ()),
        (5, "hopeless", ()),
    ]
    assert (found.headline, found.rows, found.models, found.all_learned) == ("same_object", 40, 5, False)
    assert [line.side("exact").value for line in found.lines if line.side("exact")] == [
        0.45, 0.45, 0.35, 0.3, BASE, 0.025,
    ]  # fmt: skip


def test_close_is_what_lies_within_the_interval_of_the_best() -> None:
    (found,) = groups(
        job("best", told(0.9, (0.7, 0.97))), job("at its edge", told(0.7, (0.5, 0.8))), job("below", told(0.69))
    )
    assert lines(found)[:3] == [(1, "best", ()), (2, "at its edge", (CLOSE,)), (3, "below", ())]
    (found,) = groups(job("best", told(0.9)), job("next", told(0.89)))
    assert lines(found)[:2] == [(1, "best", ()), (2, "next", ())], "without an interval nothing is close"


def test_what_has_learned_the_rows_gets_a_place_only_where_all_have() -> None:
    heart, fair = told(1.0, (0.9, 1.0), asked={"learned": True}), told(0.95)
    (found,) = groups(job("by heart", heart), job("fair", fair))
    assert lines(found)[:2] == [(None, "by heart", (LEARNED,)), (1, "fair", ())]
    (found,) = groups(job("by heart", heart), job("also", told(0.95, asked={"learned": True})))
    assert lines(found)[:2] == [(1, "by heart", ()), (2, "also", (CLOSE,))]
    assert found.all_learned


def test_the_newest_report_of_a_model_counts() -> None:
    training = job("tickets", told(0.5), ended="2026-11-20T10:00:00Z")
    again = job("asked again", told(0.8), "evaluate", "2026-11-21T10:00:00Z", of=training.id)
    older = job("long ago", told(0.9), "evaluate", "2026-11-19T10:00:00Z", of=training.id)
    (found,) = groups(again, training, older)
    first = found.lines[0]
    assert (first.model, first.side("same_object"), first.opens) == ("tickets", reading.Side(0.8), training)
    assert found.models == 1


def test_reports_stand_together_only_where_the_same_rows_were_asked() -> None:
    one, two = job("one", told(0.5)), job("two", told(0.6))
    both = job("one again", told(0.7, sha="b" * 32), "evaluate", of=one.id)
    assert [(group.sha256[0], group.models) for group in groups(one, both, two)] == [("a", 2), ("b", 1)]
    newest = job("late", told(0.1, sha="c" * 32), ended="2026-11-23T10:00:00Z")
    assert [group.sha256[0] for group in groups(one, both, two, newest)] == ["a", "c", "b"]


def test_each_base_stands_once_as_it_was_asked_most() -> None:
    cut = told(0.5, asked={"rows": 9, "cut": True})
    cut["measures"][0]["base"] = 0.33
    other = job("other", told(0.7), base={"reference": "gemma-3-4b-it"})
    (found,) = groups(job("cut", cut, ended="2026-11-23T10:00:00Z"), job("whole", told(0.6)), other)
    assert lines(found) == [
        (1, "other", ()), (2, "whole", ()), (3, "cut", (CUT,)), (None, "gemma-3-270m", ()),
        (None, "gemma-3-4b-it", ()),
    ]  # fmt: skip
    assert [line.side("same_object") for line in found.lines[3:]] == [reading.Side(BASE, (0.04, 0.23))] * 2


def test_a_foreign_adapter_stands_by_its_jobs_name_and_once(world: World) -> None:
    found = []
    for name, adapter in (("old", "adapters/a"), ("again", "adapters/a"), ("other", "adapters/b")):
        each = job(name, told(0.5), "evaluate", f"2026-11-22T1{len(found)}:00:00Z", of=None)
        world.home.run(each.id).root.mkdir(parents=True)
        durable.write_json(world.home.run(each.id).spec, {"kind": "evaluate", "adapter": adapter})
        found.append(each)
    (group,) = board.groups(world.home, found)
    assert [(line.model, line.opens) for line in group.lines[:2]] == [("other", found[2]), ("again", found[1])]


@pytest.mark.parametrize(
    "report",
    [
        None, 7, {}, {"error": {"message": "no memory."}}, told(0.5) | {"asked": None}, told(0.5) | {"measures": 7},
        told(0.5) | {"measures": [{"name": "exact", "base": "x", "tuned": float("nan")}]},
        told(0.5, asked={"rows": "many"}), told(0.5) | {"general": {"of": 3}},
    ],
)  # fmt: skip
def test_what_is_no_report_stands_nowhere(report: Any) -> None:
    assert groups(job("odd", report)) == []
    assert reading.says(job("odd", report)) == ""


def test_a_report_that_does_not_say_what_was_asked_is_compared_with_none() -> None:
    assert groups(job("odd", told(0.5, sha=""))) == []


def test_a_job_that_has_not_ended_well_has_no_report() -> None:
    failed = job("x", told(0.5))
    failed.state = "failed"
    assert groups(failed) == []


def test_texts_are_placed_by_likeness_and_other_tasks_by_what_is_exactly_right() -> None:
    text = [measure("chrf", 0.81234, unit="score", base_interval=None), measure("exact", 0.0)]
    (found,) = groups(job("letters", told(0.5, task="text", measures=text)))
    assert found.headline == "chrf"
    assert reading.says(job("letters", told(0.5, task="text", measures=text))) == "chrF: 0.812, base 0.1"
    assert reading.says(job("tickets", told(0.937))) == "The same JSON: 93.7 %, base 10 %"
    assert "no interval" in " ".join(shown.rules(found))
    (found,) = groups(job("odd", told(0.5, task="nothing")))
    assert found.headline == "exact"


def test_the_rules_say_only_what_the_board_has() -> None:
    (plain,) = groups(job("best", told(0.9, (0.7, 0.97))))
    assert len(shown.rules(plain)) == 2
    (full,) = groups(
        job("best", told(0.9, (0.7, 0.97))),
        job("near", told(0.8, asked={"rows": 12})),
        job("heart", told(1.0, asked={"learned": True})),
    )
    rules = " ".join(shown.rules(full))
    assert all(words in rules for words in ("Close to the best", "Has learned them", "the time was over"))
    assert [shown.marks(line) for line in full.lines[:3]] == [
        "has learned them", "", "close to the best, 12 of 40 rows",
    ]  # fmt: skip


def test_the_table_to_take_along_is_harmless_and_whole() -> None:
    (found,) = groups(job("=cmd()", told(0.9, (0.7, 0.97), loss=0.25)), job("next", told(0.5) | {"general": None}))
    rows = list(csv.reader(io.StringIO(shown.table_csv(found).decode("utf-8-sig"))))
    assert len({len(row) for row in rows}) == 1
    told_of = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert [(row["place"], row["model"]) for row in told_of] == [
        ("1", "'=cmd()"), ("2", "next"), ("", "gemma-3-270m"),
    ]  # fmt: skip
    names = ("same_object", "same_object_low", "same_object_high", "exact", "loss", "general_kept", "general_known")
    assert [told_of[0][name] for name in names] == ["0.9", "0.7", "0.97", "0.45", "0.25", "27", "30"]
    assert [told_of[2][name] for name in (*names[:4], "verdict", "job")] == ["0.1", "0.04", "0.23", "0.1", "", ""]


# ---- on the page


def reported(world: World, name: str, report: dict[str, Any], **result: Any) -> str:
    job_id = world.job(State.DONE, name)
    run = world.home.run(job_id)
    before = durable.read_json(run.result) or {}
    more = {"report": report, "base": {"reference": "gemma-3-270m", "folder": "models/gemma-3-270m"}, **result}
    durable.write_json(run.result, {**before, "result": {**before["result"], **more}})
    return job_id


def table(app: AppTest) -> Any:
    return next(each.value for each in app.dataframe if "place" in each.value)


def test_models_shows_the_board_with_most_models_and_the_address_another(world: World) -> None:
    reported(world, "rank 8", told(0.8, (0.65, 0.9)))
    reported(world, NASTY, told(0.9, (0.76, 0.97)))
    reported(world, "letters", told(0.4, sha="b" * 32, asked={"source": NASTY}))
    app = visit("models")
    assert "Leaderboard" in [each.value for each in app.subheader]
    found = table(app)
    assert found["place"].tolist()[:2] == [1, 2]
    assert found["model"].tolist()[1:] == ["rank 8", "Base: gemma-3-270m"]
    assert found["value"].tolist() == [90.0, 80.0, 10.0]
    assert found["interval"].tolist() == ["76 to 97 %", "65 to 90 %", "4 to 23 %"]
    assert found["kept"].tolist() == ["27 of 30", "27 of 30", "30 of 40"]
    assert found["marks"].tolist() == ["", "close to the best", ""]
    assert found["verdict"].map(list).tolist() == [["better"], ["better"], []]
    options = app.selectbox(key="choice-board").options
    assert options[0] == "tickets@012345 · 40 rows · 2 models"
    assert len(options) == 2
    app = visit("models", board="b" * 12)
    assert table(app)["model"].tolist() == ["letters", "Base: gemma-3-270m"]
    assert table(visit("models", board="nonsense"))["model"].tolist()[1] == "rank 8"


def test_without_a_report_there_is_no_board(world: World) -> None:
    world.job(State.DONE)
    assert "Leaderboard" not in [each.value for each in visit("models").subheader]
    reported(world, "rank 8", told(0.8))
    app = visit("models")
    assert "Leaderboard" in [each.value for each in app.subheader]
    assert "the same 40 rows of tickets" in said(app).replace("\\", "")


# ---- asking


def dropped(world: World) -> list[EvaluateSpec]:
    found = [parse_spec(path.read_bytes()) for path in sorted(world.home.incoming.glob("*.json"))]
    return [spec for spec in found if isinstance(spec, EvaluateSpec)]


def test_two_clicks_ask_once_and_another_question_is_another_job(world: World) -> None:
    model = jobs.get_job(world.home, world.job(State.DONE))
    first = asking.submit(world.home, model, Wanted(), "x", [])
    assert asking.submit(world.home, model, Wanted(), "x", []) == first
    others = [
        asking.submit(world.home, model, wanted, "x", [])
        for wanted in (Wanted("tickets@0123456789ab"), Wanted(rows=50), Wanted(general=False))
    ]
    assert len({first, *others}) == 4
    ended = [Job("a", "a", "evaluate", "done")]
    again = asking.submit(world.home, model, Wanted(), "x", ended)
    assert again not in (first, *others)
    (world.home.rejected / again).mkdir()
    assert asking.submit(world.home, model, Wanted(), "x", ended) not in (first, again, *others)
    spec = parse_spec((world.home.incoming / f"{others[0]}.json").read_bytes())
    assert isinstance(spec, EvaluateSpec)
    assert (spec.job, spec.dataset, spec.rows, spec.general) == (model.id, "tickets@0123456789ab", 120, True)
    assert asking.of(world.home, jobs.list_jobs(world.home)).keys() == {model.id}


def press(app: AppTest, *opened_by: str) -> AppTest:
    """A click inside a dialog. AppTest runs no dialog by itself: what opened it is clicked each time."""
    for key in opened_by:
        app.button(key=key).click()
    app = app.run()
    assert not app.exception
    return app


def test_a_models_page_asks_for_one_report(world: World) -> None:
    world.runner()
    stored = keep.add(world.home, "faq", "faq.jsonl", b'{"question": "a?", "answer": "b"}\n' * 3)
    job_id = world.job(State.DONE, "tickets")
    app = press(visit("models", model=job_id), "model-evaluate")
    assert "tickets" in said(app)
    assert app.selectbox(key="evaluate-dataset").options[0] == "Those that its training kept for evaluation"
    assert "faq" in app.selectbox(key="evaluate-dataset").options[1]
    app.button(key="model-evaluate").click()
    app.selectbox(key="evaluate-dataset").set_value(stored.reference)
    app.number_input(key="evaluate-rows").set_value(50)
    app.toggle(key="evaluate-general").set_value(False)
    app = press(app, "evaluate-go")
    (spec,) = dropped(world)
    assert (spec.job, spec.dataset, spec.rows, spec.general) == (job_id, stored.reference, 50, False)
    assert spec.name == "tickets: report on faq"
    assert spec.priority == 5


def test_ticked_models_are_asked_together_and_one_without_files_is_named(world: World) -> None:
    world.runner()
    ids = [world.job(State.DONE, name) for name in ("one", "two", "gone")]
    exports = world.home.run(ids[2]).exports
    exports.rename(exports.with_name("away"))
    app = visit("models")
    names = app.dataframe[0].value["name"].tolist()
    app.session_state["models"] = {"selection": {"rows": [0, 1, 2], "columns": [], "cells": []}}
    app = app.run()
    app = press(app, "models-evaluate")
    assert "Not asked, because its files were removed: gone" in said(app)
    app = press(app, "models-evaluate", "evaluate-go")
    assert {spec.job for spec in dropped(world)} == set(ids[:2])
    app.session_state["models"] = {"selection": {"rows": [names.index("gone")], "columns": [], "cells": []}}
    app = app.run()
    assert app.button(key="models-evaluate").disabled
    assert "files were removed" in app.button(key="models-evaluate").help


def test_a_page_of_a_model_whose_files_are_gone_does_not_offer_it(world: World) -> None:
    job_id = world.job(State.DONE)
    exports = world.home.run(job_id).exports
    exports.rename(exports.with_name("away"))
    assert "model-evaluate" not in [each.key for each in visit("models", model=job_id).button]


# ---- words, and the showcase


def test_the_kind_has_its_words(world: World) -> None:
    assert words.kind("evaluate") == "Report"
    evaluated = job("x", told(0.937), "evaluate")
    assert shown_jobs.made(evaluated) == "The same JSON: 93.7 %, base 10 %"
    assert shown_jobs.about(evaluated).startswith("Report")
    asked = asking.submit(world.home, jobs.get_job(world.home, world.job(State.DONE)), Wanted(), "how good", [])
    path = world.home.incoming / f"{asked}.json"
    world.runner(current_job=asked)
    assert path.exists()
    assert "Runner is making a report" in "".join(each.value for each in visit("home").sidebar.caption)


def test_the_showcase_has_boards_with_everything_on_them(tmp_path: Path) -> None:
    home = showcase.build(tmp_path / "home")
    found = board.groups(home, jobs.list_jobs(home))
    assert [(group.rows, group.models, group.headline) for group in found] == [
        (16, 3, "same_object"), (120, 2, "same_object"), (8, 1, "chrf"),
    ]  # fmt: skip
    assert found[0].marks | found[1].marks == {CLOSE, LEARNED, CUT}
    assert [line.model for line in found[1].lines if line.opens and line.opens.kind == "evaluate"] == [
        "last year's adapter"
    ]
    assert len(showcase.jobs(home, State.DONE, "evaluate")) == 2
    assert all(Tokens(home).find(job_id) for job_id in showcase.jobs(home, State.QUEUED, "evaluate"))
