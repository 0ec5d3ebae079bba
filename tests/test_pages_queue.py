"""The Queue page: its order, its filters, the orders that are given on it and what they leave behind."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from test_pages_app import World, full, order, said, visit, world  # noqa: F401

from spool.protocol import dropbox, durable, metrics, notes
from spool.protocol.home import State
from spool.protocol.states import Tokens

WAITING, ENDED = 0, 1


def names(app: AppTest, table: int) -> list[str]:
    return list(app.dataframe[table].value["name"])


def asked(world: World) -> list[str]:  # noqa: F811
    return [entry.name for entry in dropbox.orders(world.home)]


def select(app: AppTest, name: str, *rows: int) -> AppTest:
    """Selects rows of a table as the browser does."""
    key = next(each for each in app.session_state if each.startswith(f"{name}-") and "Wish" in each)
    app.session_state[key] = {"selection": {"rows": list(rows), "columns": [], "cells": []}}
    return app.run()


def press(app: AppTest, key: str) -> AppTest:
    app.button(key=key).click()
    return app.run()


def test_every_state_is_listed_and_what_waits_stands_in_its_order(world: World) -> None:  # noqa: F811
    ids = full(world)
    later = world.job(State.QUEUED, "came last")
    tokens = Tokens(world.home)
    found = tokens.find(later)
    assert found is not None
    tokens.reorder(found[1], State.QUEUED, 0, 7)
    app = visit("queue")
    assert names(app, WAITING) == ["came last", "FAQ answers", "just came", "overnight"]
    waiting = app.dataframe[WAITING].value
    assert [state[0] for state in waiting["state"]] == ["Waiting", "Waiting", "Checking", "On hold"]
    assert waiting["place"].tolist()[:3] == [1, 2, 3]
    assert waiting["priority"].tolist() == [0, 5, 5, 5]
    ended = app.dataframe[ENDED].value
    assert sorted(state[0] for state in ended["state"]) == ["Cancelled", "Done", "Failed", "Not accepted"]
    assert "There is no field 'epoch'." in ended["note"].tolist()
    assert (app.progress[0].value, app.progress[0].text) == (60, "Step 72 of 120")
    assert "Waiting · 4" in said(app)
    assert "Finished · 4" in said(app)
    assert any(ids["running"] in link.proto.query_string for link in app.get("page_link"))


def test_expected_starts_follow_from_what_runs(world: World) -> None:  # noqa: F811
    running = full(world)["running"]
    metrics.Writer(world.home.run(running).metrics, 1).write(step=73, total_steps=120, eta_s=5400.0)
    app = visit("queue")
    assert "done at about" in said(app)
    table = app.dataframe[WAITING].value
    starts = dict(zip(table["name"], table["starts"], strict=True))
    assert starts["FAQ answers"] != "–"
    assert starts["overnight"] == "–"
    (world.home.hold).touch()
    table = visit("queue").dataframe[WAITING].value
    assert table["starts"].tolist() == ["–"] * 3
    assert table["note"].tolist()[0] == "The queue is held"


@pytest.mark.parametrize(
    ("query", "waiting", "ended"),
    [
        ({"q": "faq"}, ["FAQ answers"], []),
        ({"q": "GEMMA tone"}, [], ["tone"]),
        ({"q": "nightshift"}, ["overnight"], []),
        ({"state": "failed"}, None, ["tone"]),
        ({"state": "held"}, ["overnight"], None),
        ({"by": "jonas"}, [], ["night run.json"]),
        ({"q": "no such thing"}, [], []),
    ],
)
def test_filters_come_from_the_address(
    world: World,  # noqa: F811
    query: dict[str, str],
    waiting: list[str] | None,
    ended: list[str] | None,
) -> None:
    notes.write(world.home, full(world)["held"], "", ["nightshift"])
    app = visit("queue", **query)
    listed = [list(table.value["name"]) for table in app.dataframe]
    assert listed == [table for table in (waiting, ended) if table]
    if waiting == [] or ended == []:
        assert "No job fits the search" in said(app)


def test_the_states_that_are_shown_follow_the_address_back(world: World) -> None:  # noqa: F811
    full(world)
    app = visit("queue", state="failed")
    box = app.multiselect(key="choice-state")
    assert box.value == ["failed"]
    box.set_value(["failed", "done"]).run()
    assert app.query_params["state"] == ["failed", "done"]
    app.query_params["state"] = ["failed"]  # Back
    assert app.run().multiselect(key="choice-state").value == ["failed"]
    app.multiselect(key="choice-state").set_value([]).run()
    assert "state" not in app.query_params


def test_an_address_that_asks_for_nonsense_shows_everything(world: World) -> None:  # noqa: F811
    full(world)
    app = visit("queue", state="<b>", by="nobody", q="")
    assert not app.exception
    assert len(app.dataframe) == 2


def test_a_long_list_is_shown_by_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for number in range(7):
        world.job(State.QUEUED, f"job {number}")
    monkeypatch.setattr("pages.parts.queue.board.page.__defaults__", (3,))
    assert names(visit("queue"), WAITING) == ["job 0", "job 1", "job 2"]
    app = visit("queue", **{"waiting-page": "3"})
    assert names(app, WAITING) == ["job 6"]
    assert app.dataframe[WAITING].value["place"].tolist() == [7]


# ---- orders


@pytest.mark.parametrize(
    ("name", "row", "verb"),
    [("FAQ answers", 0, "top"), ("FAQ answers", 0, "down"), ("FAQ answers", 0, "hold"), ("overnight", 2, "release")],
)
def test_orders_are_dropped_for_the_runner_and_stand_at_the_job(world: World, name: str, row: int, verb: str) -> None:  # noqa: F811
    full(world)
    app = select(visit("queue"), "waiting", row)
    assert "one selected" in said(app)
    app = press(app, f"waiting-do-{verb}")
    assert [order.partition("-")[0] for order in asked(world)] == [verb]
    assert name in app.toast[0].value
    assert "selected" not in said(app)
    pending = {"top": "Moving to the top …", "down": "Moving down …", "hold": "Being held …",
               "release": "Being released …"}[verb]  # fmt: skip
    table = visit("queue").dataframe[WAITING].value
    assert dict(zip(table["name"], table["note"], strict=True))[name] == pending, "somebody else sees it too"


def test_several_at_once_keep_their_order(world: World) -> None:  # noqa: F811
    ids = [world.job(State.QUEUED, f"job {number}") for number in range(4)]
    app = press(select(visit("queue"), "waiting", 3, 1, 2), "waiting-do-top")
    assert asked(world) == [f"top-{ids[each]}" for each in (3, 2, 1)]
    assert "3 jobs go to the top" in app.toast[0].value


def test_cancelling_asks_once_for_all_and_says_what_is_lost(world: World) -> None:  # noqa: F811
    full(world)
    app = press(select(visit("queue"), "waiting", 0, 1, 2), "waiting-do-cancel")
    assert asked(world) == []
    assert "FAQ answers" in said(app)
    assert "Nothing of it has been trained yet" in said(app)
    app = press(app, "ask-yes")
    assert len(asked(world)) == 3
    assert "3 jobs are being cancelled" in app.toast[0].value


def test_cancelling_the_running_job_says_that_no_adapter_comes_of_it(world: World) -> None:  # noqa: F811
    ids = full(world)
    app = order(visit("queue"), f"orders-queue-{ids['running']}", "cancel")
    assert "no adapter comes of it" in said(app)
    press(app, "ask-yes")
    assert asked(world) == [f"cancel-{ids['running']}"]


def test_a_priority_is_chosen_for_all_selected(world: World) -> None:  # noqa: F811
    full(world)
    app = press(select(visit("queue"), "waiting", 0, 2), "waiting-do-priority")
    app.number_input(key="ask-level").set_value(2)
    press(app, "ask-yes")
    assert [name[:10] for name in asked(world)] == ["priority2-"] * 2


def test_an_order_to_a_job_that_has_just_ended_is_answered_in_words(world: World) -> None:  # noqa: F811
    ids = full(world)
    app = order(visit("queue"), f"orders-queue-{ids['running']}", "cancel")
    tokens = Tokens(world.home)
    _, token = tokens.find(ids["running"]) or pytest.fail("no token")
    tokens.move(token, State.RUNNING, State.DONE)
    app = press(app, "ask-yes")
    assert "has ended" in app.toast[0].value
    assert asked(world) == []


def test_rows_stand_still_while_some_are_selected(world: World) -> None:  # noqa: F811
    ids = [world.job(State.QUEUED, f"job {number}") for number in range(3)]
    app = select(visit("queue"), "waiting", 1)
    tokens = Tokens(world.home)
    _, token = tokens.find(ids[0]) or pytest.fail("no token")
    tokens.move(token, State.QUEUED, State.RUNNING)
    app.run()
    assert names(app, WAITING) == ["job 0", "job 1", "job 2"]
    assert [state[0] for state in app.dataframe[WAITING].value["state"]] == ["Running", "Waiting", "Waiting"]
    press(app, "waiting-do-hold")
    assert asked(world) == [f"hold-{ids[1]}"]


def test_ended_jobs_run_again_as_they_are_or_with_the_suggested_change(world: World) -> None:  # noqa: F811
    error = {"code": "out_of_memory", "message": "no memory.", "hint": "Less."}
    failed = world.job(State.FAILED, "too large", steps=3, error=error)
    world.job(State.DONE, "fine", steps=3, ago_s=60)
    app = press(select(visit("queue"), "ended", 0, 1), "ended-do-retry")
    assert "new job with the same settings" in said(app)
    press(app, "ask-yes")
    dropped = [json.loads(path.read_bytes()) for path in world.home.incoming.glob("*.json")]
    assert sorted(spec["name"] for spec in dropped) == ["fine", "too large"]
    app = press(select(visit("queue"), "ended", 1), "ended-do-suggested")
    assert "batch_size 4" in said(app).replace("\\", "")
    press(app, "ask-yes")
    fresh = [path for path in world.home.incoming.glob("*.json") if "batch_size" in path.read_text()]
    assert len(fresh) == 1
    assert json.loads(fresh[0].read_bytes())["retry_of"] == failed
    again = press(select(visit("queue"), "ended", 1), "ended-do-suggested")
    press(again, "ask-yes")
    assert len(list(world.home.incoming.glob("*.json"))) == 3, "it is one job whatever one clicks"


def test_orders_that_cannot_be_written_are_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    full(world)

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    app = select(visit("queue"), "waiting", 0)
    monkeypatch.setattr(dropbox, "control", full_disk)
    app = press(app, "waiting-do-top")
    assert "No space left on device" in app.toast[0].value


def test_the_page_speaks_german(world: World) -> None:  # noqa: F811
    full(world)
    app = visit("queue", lang="de")
    assert "Warteschlange" in app.title[0].value
    assert next(state[0] for state in app.dataframe[WAITING].value["state"]) == "Wartet"
    assert "Schritt 72 von 120" in app.progress[0].text


def test_files_of_the_page_are_made_by_nobody(world: World) -> None:  # noqa: F811
    full(world)
    before = sorted(os.walk(world.home.root))
    visit("queue", q="faq")
    after = sorted(os.walk(world.home.root))
    assert [each for each in after if "cache" not in each[0]] == [each for each in before if "cache" not in each[0]]
    assert durable.read_json(world.home.runner_json)
    assert Path(world.home.control).is_dir()
