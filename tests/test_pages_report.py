"""A report as Monitor and a model's page show it: verdict, figures, what they rest on, samples and files."""

from dataclasses import replace
from typing import Any

import pytest
from test_pages_app import NASTY, World, said, visit, world  # noqa: F401
from test_pages_vote import row

from pages.parts.models import told
from runner.report import document
from runner.report.document import Story
from spool.protocol import durable, jobs
from spool.protocol.home import State

GENERAL = {
    "version": "1", "way": "as a conversation",
    "of": 40, "base": 15, "tuned": 2, "lost": 14, "gained": 1, "chance": 0.01,
    "kinds": {}, "told": [], "base_interval": [0.1, 0.2], "tuned_interval": [0.1, 0.2],
}  # fmt: skip
TICKETS = Story([row(i, '{{"a": {}', '{{"a": {}}}') for i in range(40)], 80, 60, True, "tickets@1", 36, general=GENERAL)


def right(story: Story) -> Story:
    """The tuned model's answers are the expected ones."""
    rows = [replace(each, expected=each.tuned.text) for each in story.rows]
    return replace(story, rows=rows)


def reported(world: World, story: Story, kind: str = "train", **result: Any) -> str:  # noqa: F811
    job_id = world.job(State.DONE, "support tickets", steps=5)
    run = world.home.run(job_id)
    made = document.build(story, run, "Tickets", job_id, None, "EUR", "2026-11-23")
    durable.write_json(run.report_json, made)
    run.report.write_text("<!doctype html>")
    run.report_pdf.write_bytes(b"%PDF-1.4")
    before = durable.read_json(run.result)
    durable.write_json(run.result, {**before, "result": {**before["result"], "report": document.told(made), **result}})
    return job_id


def figures(app: Any) -> dict[str, tuple[str, str]]:
    return {each.label: (each.value, each.delta) for each in app.metric if str(each.delta).startswith("base ")}


@pytest.mark.parametrize(("page", "name"), [("monitor", "job"), ("models", "model")])
def test_the_report_stands_with_the_job_and_with_the_model(world: World, page: str, name: str) -> None:  # noqa: F811
    job_id = reported(world, right(TICKETS))
    app = visit(page, **{name: job_id})
    text = said(app)
    assert "Better than its base" in text
    assert "Measured on 40 rows that it never learned from." in text
    assert "The time was over before all of them could be asked." in text
    assert "between 91 % and 100 %" in text
    assert "Of 15 general questions that its base knows it has lost 14." in text
    assert figures(app) == {
        "The same JSON": ("100 %", "base 0 %"),
        "Exactly right": ("100 %", "base 0 %"),
        "Ended by itself": ("100 %", "base 0 %"),
        "Loss on the answers": ("0.1", "base 3"),
        "General questions": ("2 of 40", "base 15 of 40"),
    }
    assert [each.label for each in app.get("download_button") if "report" in (each.proto.id or "")] == [
        "Report",
        "First page",
    ]
    button = next(each for each in app.button if (each.key or "").startswith("report-samples-"))
    button.click().run()
    assert not app.exception
    assert "Question 1?" in "".join(each.value for each in app.code)
    assert "20 rows that both have answered" in said(app)


def test_what_was_learned_by_heart_and_other_data_are_told_apart(world: World) -> None:  # noqa: F811
    learned = replace(TICKETS, held_out=False, learned=True)
    assert "rows that it has learned from" in said(visit("monitor", job=reported(world, learned)))
    other = replace(TICKETS, held_out=None, source=NASTY)
    app = visit("monitor", job=reported(world, other))
    assert "Measured on 40 rows of" in said(app)
    assert not app.exception


def test_a_report_that_could_not_be_made_says_why_and_the_training_stands(world: World) -> None:  # noqa: F811
    job_id = world.job(State.DONE, "support tickets", steps=5)
    run = world.home.run(job_id)
    before = durable.read_json(run.result)
    error = {"code": "out_of_memory", "message": "the card is too small.", "hint": "Free it."}
    durable.write_json(run.result, {**before, "result": {**before["result"], "report": {"error": error}}})
    text = said(visit("monitor", job=job_id))
    assert "There is no report." in text
    assert "the card is too small" in text
    assert "adapter is ready" in text


@pytest.mark.parametrize("damage", [[], {}, {"verdict": "better"}, {"verdict": 3, "asked": [], "measures": 1}, "x", 7])
def test_a_damaged_result_shows_no_report_and_breaks_nothing(world: World, damage: Any) -> None:  # noqa: F811
    job_id = reported(world, TICKETS, report=damage)
    assert told.read(jobs.get_job(world.home, job_id)) is None
    assert not visit("monitor", job=job_id).exception
