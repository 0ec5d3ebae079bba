"""Home: what goes on, what comes next, what has ended since the last visit, and the newcomer's walk."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from test_pages_app import World, full, said, visit, world  # noqa: F401

from pages.parts.queue import seen, strip, walk
from pages.parts.ui import jobs
from spool.protocol import durable, metrics
from spool.protocol.home import Home, State
from spool.protocol.jobs import Job, get_job, iso
from spool.protocol.states import Tokens

# ruff: noqa: F811  (`world` is a fixture of another module)


def links(app: Any) -> list[str]:
    return [link.proto.query_string for link in app.get("page_link") if link.proto.query_string]


def test_what_runs_what_comes_next_and_what_has_ended(world: World) -> None:
    ids = full(world)
    metrics.Writer(world.home.run(ids["running"]).metrics, 1).write(step=73, total_steps=120, eta_s=3600.0)
    app = visit("home")
    text = said(app).replace("\\", "")
    assert "done at about" in text
    assert "Next · 2" in text
    assert "starts " in text
    assert "In the last 24 hours · 4" in text
    assert "loss 0.1312" in text
    assert "No memory. :gray[→] Less." in text
    assert links(app)[:3] == [f"job={ids[name]}" for name in ("running", "queued", "checking")]
    assert not app.warning


def test_what_ended_earlier_is_no_news(world: World) -> None:
    job_id = world.job(State.DONE, "long ago", steps=3)
    durable.write_json(world.home.run(job_id).outcome, {"state": "done", "ended_at": iso(time.time() - 90_000)})
    text = said(visit("home"))
    assert "long ago" not in text
    assert "Nothing has finished." in text
    assert "the machine is yours" in text


def test_a_held_queue_tells_no_times(world: World) -> None:
    world.runner(queue="held", state="waiting", waiting_for="the queue is held by ann")
    world.home.hold.touch()
    world.job(State.QUEUED, "waits")
    assert "the queue is held" in said(visit("home"))


# ---- the newcomer's walk


def test_a_newcomer_without_the_model_is_told_what_to_do(world: World) -> None:
    app = visit("home")
    assert "three steps" in said(app)
    assert app.button(key="walk-begin").disabled
    assert "`make setup`" in said(app)


def test_one_button_trains_the_example_once_and_walks_through_it(world: World) -> None:
    world.base()
    world.runner()
    app = visit("home")
    app.button(key="walk-begin").click().run()
    assert not app.exception
    (dropped,) = world.home.incoming.glob("*.json")
    assert json.loads(dropped.read_bytes()) == walk.recipe()
    assert app.query_params["guide"] == dropped.stem
    assert "Your first training" in said(app)
    assert "Every row is read before anything is trained." in said(app)
    app.button(key="walk-close").click().run()
    assert "Your first training" not in said(app)
    assert "guide" not in app.query_params


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (State.CHECKING, "Every row is read before anything is trained."),
        (State.QUEUED, "It waits for its turn."),
        (State.RUNNING, "that is what learning looks like"),
        (State.DONE, "The adapter is ready."),
        (State.CANCELLED, "It was cancelled here."),
    ],
)
def test_the_walk_follows_the_job(world: World, state: State, says: str) -> None:
    world.runner()
    world.home.hold.touch()
    job_id = world.job(state, steps=30 if state in (State.RUNNING, State.DONE) else 0)
    app = visit("home")
    app.query_params["guide"] = job_id
    app = app.run()
    assert not app.exception
    assert says in said(app)
    if state is State.DONE:
        assert {f"with={job_id}", f"job={job_id}"} <= set(links(app))


def test_the_walk_says_why_it_stopped(world: World) -> None:
    job_id = world.job(State.FAILED, error={"code": "x", "message": "no memory.", "hint": "Use less."})
    app = visit("home")
    app.query_params["guide"] = job_id
    app = app.run()
    assert "No memory" in app.error[0].value
    assert "Use less" in app.error[0].value


@pytest.mark.parametrize("guide", ["", "<b>", "../../etc/passwd", "01K99999ABCDEFGHJKMNPQRSTV"])
def test_a_walk_through_nothing_is_no_walk(world: World, guide: str) -> None:
    full(world)
    app = visit("home")
    app.query_params["guide"] = guide
    assert "Your first training" not in said(app.run())


@pytest.mark.parametrize(
    ("state", "attempts", "moods"),
    [
        ("checking", 0, "done now todo todo"),
        ("queued", 0, "done done now todo"),
        ("running", 1, "done done now todo"),
        ("done", 1, "done done done done"),
        ("failed", 0, "done wrong todo todo"),
        ("failed", 2, "done done wrong todo"),
        ("cancelled", 1, "done done wrong todo"),
        ("rejected", 0, "wrong todo todo todo"),
    ],
)
def test_steps_of_the_walk(state: str, attempts: int, moods: str) -> None:
    assert [step.mood for step in walk.steps(Job("x", "x", "train", state, attempts=attempts))] == moods.split()


def test_losses_are_those_that_can_be_read(world: World) -> None:
    run = world.home.run(world.job(State.RUNNING, steps=3))
    run.metrics.write_text('{"loss": 2.5}\n{"eval_loss": 1}\n[]\nnonsense\n{"loss": null}\n{"loss": 1.5}\n')
    assert walk.losses(run) == [2.5, 1.5]
    run.metrics.unlink()
    assert walk.losses(run) == []
    assert walk.rows(run) is None


# ---- the last visit


HOUR = 3600.0


def test_a_visit_ends_after_a_while_and_the_next_one_shows_what_came_since(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    start = 1_800_000_000.0
    assert seen.since(home, "ann@example.org", start) == start - 24 * HOUR
    assert seen.since(home, "ann@example.org", start + 600) == start - 24 * HOUR
    later = start + 600 + 5 * HOUR
    assert seen.since(home, "ann@example.org", later) == start + 600
    assert seen.since(home, "ann@example.org", later + 300) == start + 600, "a reload is the same visit"
    assert seen.since(home, "bob@example.org", later) == later - 24 * HOUR
    assert "ann" not in " ".join(path.name for path in home.seen.iterdir())


def test_without_a_name_nothing_is_written_and_a_day_counts(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    assert seen.since(home, None, 1e9) == 1e9 - 24 * HOUR
    assert not home.seen.exists()


def test_a_home_that_cannot_be_written_or_read_is_no_fault(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    home.cache.mkdir()
    home.seen.write_text("a file where the folder should be")
    assert seen.since(home, "ann", 1e9) == 1e9 - 24 * HOUR
    home.seen.unlink()
    seen.since(home, "ann", 1e9)
    (path,) = home.seen.iterdir()
    for damaged in ("{", "[]", '{"active": "x"}', '{"active": 1e12, "since": 1}'):
        path.write_text(damaged)
        assert seen.since(home, "ann", 1e9) == 1e9 - 24 * HOUR


def test_the_files_of_visits_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home").create()
    monkeypatch.setattr(seen, "PEOPLE", 3)
    for number in range(9):
        seen.since(home, f"person {number}", 1e9 + number)
    assert len(list(home.seen.iterdir())) == 3


# ---- the machine in one line


def test_the_machine_in_one_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [sign.icon for sign in strip.signs(world.home, None)] == ["hard_drive"], (
        "no runner has looked for a card yet"
    )
    running = get_job(world.home, full(world)["running"])
    assert strip.signs(world.home, None)[0].says == "No GPU: jobs train on the processor"
    card = {"v": 1, "uuid": "GPU-1", "name": "NVIDIA H100", "count": 1, "mem_total_bytes": 80_000_000_000}
    durable.write_json(world.home.card_json, card)
    assert strip.signs(world.home, None)[0].says == "NVIDIA H100"
    row = {"gpu_mem_bytes": 5_200_000_000, "gpu_temp_c": 61}
    metrics.Writer(world.home.run(running.id).metrics, 1).write(step=99, **row)
    assert strip.signs(world.home, running)[0].says == "NVIDIA H100 · 5.2 GB of 80 GB · 61 °C"
    monkeypatch.setattr(strip.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3_000_000_000})())
    low = strip.signs(world.home, running)[1]
    assert (low.says, low.warns) == ("Only 3 GB of disk free", True)


def test_the_page_speaks_german(world: World) -> None:
    full(world)
    app = visit("home")
    app.query_params["lang"] = "de"
    text = said(app.run())
    assert "Als Nächstes · 2" in text
    assert "In den letzten 24 Stunden · 4" in text
    back = app.sidebar.button(key="speak-en").click().run()
    assert "Next · 2" in said(back)
    back.switch_page("pages/watch/queue.py").run()
    assert back.title[0].value == "Queue", "the choice goes along"
    assert Tokens(world.home).list(State.RUNNING)


def test_what_a_job_does_is_said_in_the_words_of_the_pages() -> None:
    chat = Job("x", "x", "generate", "running", progress={"step": 2}, phase="ready")
    assert jobs.progress_text(chat) == "Step 2 · Ready for questions"
