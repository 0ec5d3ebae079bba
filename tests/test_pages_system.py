"""The System page: each section over homes that are new, full and broken; its parts with exact expectations."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from test_pages_app import NASTY, World, full, said, world  # noqa: F401  (a fixture)

from pages.parts import texts
from pages.parts.system import card_history, drop_box, in_force, looks, machine_charts
from pages.parts.system.looks import Seen
from pages.parts.ui.system.health import with_commands
from spool.protocol import durable
from spool.protocol.home import Home, State
from spool.protocol.jobs import iso

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = ["health", "gpu", "disk", "drop", "settings", "about"]
REPORT: dict[str, Any] = {
    "ok": False,
    "findings": [
        {"area": "python", "level": "ok", "message": "Python 3.11.7.", "cure": ""},
        {"area": "disk", "level": "warn", "message": "little is left.", "cure": "Run `df -h`, then tidy."},
        {"area": "locks", "level": "fail", "message": NASTY, "cure": ""},
    ],
    "disk": {
        "free_bytes": 300 * 10**9,
        "total_bytes": 1000 * 10**9,
        "uses": {"checkpoints": 40 * 10**9, "models": 10 * 10**9, "oddity": 5, "spool": 0},
        "complete": False,
        "retention": {"in_7_days_bytes": 2 * 10**9},
    },
}


@pytest.fixture(autouse=True)
def _seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor has looked a minute ago."""
    monkeypatch.setattr(looks, "_kept", {})
    monkeypatch.setattr(looks, "ask", lambda home, again=False: Seen(REPORT, time.time() - 60))


def visit(**query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=30).run()
    app = app.switch_page("pages/care/system.py")
    for name, value in query.items():
        app.query_params[name] = value
    app = app.run()
    assert not app.exception, app.exception
    return app


@pytest.mark.parametrize("language", list(texts.LANGUAGES))
@pytest.mark.parametrize("section", SECTIONS)
def test_each_section_opens_by_its_address_in_each_language(section: str, language: str, world: World) -> None:  # noqa: F811
    full(world)
    app = visit(section=section, lang=language)
    assert app.segmented_control(key="system-section").value == section
    assert "{" not in said(app).replace("{\n", "")


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_of_a_home_that_does_not_exist_yet_changes_nothing(section: str, world: World) -> None:  # noqa: F811
    shutil.rmtree(world.home.root)
    visit(section=section)
    assert not world.home.root.exists()


def test_an_unknown_section_is_the_first(world: World) -> None:  # noqa: F811
    assert visit(section="nonsense").segmented_control(key="system-section").value == "health"


def test_choosing_a_section_puts_it_into_the_address(world: World) -> None:  # noqa: F811
    app = visit(section="about")
    app.segmented_control(key="system-section").set_value("drop").run()
    assert app.query_params["section"] in ("drop", ["drop"])
    assert "A job is a file" in said(app)


def test_findings_come_with_their_cures_the_gravest_first(world: World) -> None:  # noqa: F811
    text = said(visit(section="health"))
    assert "2 things want attention" in text
    assert text.index("**Locks**") < text.index("**Disk**")
    assert "Run `df -h`\\, then tidy" in text
    assert "[x](javascript" not in text


def test_a_first_look_is_announced_and_a_failed_one_told(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(looks, "ask", lambda home, again=False: Seen(working=True))
    assert "It takes a few seconds" in said(visit(section="health"))
    assert "It takes a few seconds" in said(visit(section="disk"))
    monkeypatch.setattr(looks, "ask", lambda home, again=False: Seen(problem="TimeoutExpired"))
    assert "TimeoutExpired" in said(visit(section="health"))


def test_where_the_runner_is_off_its_start_is_told(world: World) -> None:  # noqa: F811
    assert [code.value for code in visit(section="health").code] == ["make up"]
    world.runner(queue="held", started_at="2026-11-23T01:00:00Z")
    app = visit(section="health")
    assert not app.code
    assert "held: no job starts until it is released" in said(app)


def test_the_disk_by_use(world: World) -> None:  # noqa: F811
    app = visit(section="disk")
    table = app.dataframe[0].value
    assert list(table["use"]) == ["Checkpoints", "Base models", "Other caches"]
    assert list(table["size"]) == ["40 GB", "10 GB", "5 bytes"]
    assert "300 GB of 1 TB are free" in said(app)
    assert "lower bounds" in said(app)


def test_without_a_gpu_it_is_said_what_that_means(world: World) -> None:  # noqa: F811
    assert "No GPU is seen" in said(visit(section="gpu"))


def test_the_last_drops_with_their_reasons(world: World) -> None:  # noqa: F811
    full(world)
    table = visit(section="drop").dataframe[0].value
    rejected = table[[list(state) == ["Not accepted"] for state in table["state"]]]
    assert list(rejected["name"]) == ["night run.json"]
    assert "there is no field 'epoch'" in rejected["why"].iloc[0]
    assert rejected["open"].iloc[0].startswith("/monitor?job=01K")


def test_settings_that_were_changed_show_their_default(world: World) -> None:  # noqa: F811
    durable.write_json(world.home.settings, {"min_free_gb": 20, "retention": {"log_mb": None}})
    app = visit(section="settings")
    text = said(app)
    assert "2 differ from their default" in text
    assert "`min_free_gb` = `20` :orange-badge[default 1]" in text
    assert "`retention.log_mb` :gray[not set] :orange-badge[default 20]" in text
    world.home.settings.write_text("{")
    assert [error.value for error in visit(section="settings").error]


# -- the parts


def test_a_settings_file_that_is_newer_than_the_runner(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    durable.write_json(home.settings, {})
    assert in_force.read(home, "2020-01-01T00:00:00Z").newer
    assert not in_force.read(home, iso(time.time() + 60)).newer
    assert not in_force.read(home, None).newer
    assert not any(setting.changed for setting in in_force.read(home, None).settings)


def test_the_examples_are_accepted(tmp_path: Path) -> None:
    from spool.protocol import settings
    from spool.protocol.parse import parse_spec

    for text in (drop_box.example(None, None), drop_box.richer("base", "a b.jsonl")):
        parse_spec(text.encode())
    home = Home(tmp_path).create()
    home.settings.write_text(in_force.example())
    assert settings.load(home).window


def test_paths_with_blanks_are_quoted() -> None:
    home = Home(Path("/srv/my data"))
    assert drop_box.by_hand(home) == (
        "cp job.json '/srv/my data/spool/incoming'/.job.part\n"
        "mv '/srv/my data/spool/incoming'/.job.part '/srv/my data/spool/incoming'/job.json"
    )
    assert drop_box.by_command(home) == "finetuner --home '/srv/my data' submit job.json --wait"


def test_receipts_are_the_newest_whatever_became_of_them(world: World) -> None:  # noqa: F811
    for number in range(30):
        world.job(State.QUEUED, f"job {number}")
    world.rejected()
    found = drop_box.receipts(world.home, most=3)
    assert [(each.name, each.state) for each in found] == [
        ("night run.json", "rejected"),
        ("job 29", "queued"),
        ("job 28", "queued"),
    ]


def test_only_what_stands_between_backticks_is_code() -> None:
    assert with_commands("Run `make setup`, [x](y).") == "Run `make setup`\\, \\[x\\]\\(y\\)\\."
    assert with_commands("a ` b") == "a \\` b"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Home]:
    """Looks of the web app's own, without the autouse stub."""
    monkeypatch.undo()
    monkeypatch.setattr(looks, "_kept", {})
    monkeypatch.setattr(looks, "_asked", {})
    found: list[Home] = []

    def examine(home: Home) -> dict[str, Any]:
        found.append(home)
        return REPORT

    monkeypatch.setattr(looks, "examine", examine)
    monkeypatch.setattr(looks, "account", lambda: "web")
    return found


def settled(ask: Callable[[], Seen]) -> Seen:
    for _ in range(500):
        seen = ask()
        if not seen.working:
            return seen
        time.sleep(0.01)
    raise AssertionError("it still works")


def test_the_doctor_is_asked_once_at_a_time_and_again_when_old(tmp_path: Path, asked: list[Home]) -> None:
    home, now = Home(tmp_path), [1000.0]

    def ask(again: bool = False) -> Seen:
        return looks.ask(home, again, lambda: now[0])

    assert ask().working
    assert settled(ask) == Seen(REPORT, 1000.0, account="web")
    now[0] += looks.STALE_S - 1
    assert not ask().working
    assert len(asked) == 1
    assert ask(again=True).working
    assert settled(ask).at_s == now[0]
    assert len(asked) == 2


def test_a_runner_that_is_alive_is_asked_to_look(tmp_path: Path, asked: list[Home]) -> None:
    home, now = Home(tmp_path).create(), time.time()
    durable.write_json(home.runner_json, {"state": "ready", "heartbeat": now})

    def ask(again: bool = False, later_s: float = 0.0) -> Seen:
        durable.write_json(home.runner_json, {"state": "ready", "heartbeat": now + later_s})
        return looks.ask(home, again, lambda: now + later_s)

    assert ask().working
    assert home.look.exists()
    durable.write_json(home.doctor_json, {"at": now + 2, "account": "finetuner", **REPORT})
    seen = ask(later_s=3)
    assert (seen.account, seen.at_s, seen.working, len(seen.findings)) == ("finetuner", now + 2, False, 3)
    home.look.unlink()
    assert ask(again=True, later_s=4).working
    assert home.look.exists()
    assert asked == []
    assert ask(later_s=4 + looks.ANSWER_S - 1).working  # an old runner says nothing
    assert ask(again=True, later_s=4 + looks.ANSWER_S + 1).working
    assert settled(lambda: ask(later_s=4 + looks.ANSWER_S + 2)).account == "web"


def test_a_damaged_answer_counts_as_none(tmp_path: Path, asked: list[Home]) -> None:
    home = Home(tmp_path).create()
    durable.write_json(home.runner_json, {"state": "ready", "heartbeat": time.time()})
    home.doctor_json.write_text("[1")
    assert looks.ask(home) == Seen(working=True)


def test_the_real_doctor_answers(tmp_path: Path) -> None:
    found = looks.examine(Home(tmp_path).create())
    assert {finding["level"] for finding in found["findings"]} <= {"ok", "warn", "fail"}
    assert found["disk"]["total_bytes"] > 0


def gpu_rows(path: Path, start: float, count: int, every_s: float = 1.0, **values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ({"v": 1, "t": start + every_s * n, "step": n, "gpu_util_pct": 90} | values for n in range(count))
    with open(path, "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    os.utime(path, (start + every_s * count, start + every_s * count))


def test_the_cards_past_is_thinned_and_has_gaps(world: World) -> None:  # noqa: F811
    now = 1_800_000_000.0
    first, second = world.job(State.DONE), world.job(State.RUNNING)
    gpu_rows(world.home.run(first).metrics, now - 3000, 600, gpu_mem_bytes=8e9)
    gpu_rows(world.home.run(second).metrics, now - 600, 600, gpu_mem_bytes=9e9)
    found = card_history.table(world.home, now, 1)
    assert len(found) <= card_history.POINTS
    assert list(found["stretch"].unique()) == [0, 1]
    assert found["gpu_mem_bytes"].max() == 9e9
    assert found["gpu_power_w"].isna().all()
    assert found["t"].is_monotonic_increasing
    assert card_history.table(world.home, now, 0.1)["t"].min() >= now - 360


def test_a_long_run_is_read_in_pieces(world: World) -> None:  # noqa: F811
    now = 1_800_000_000.0
    path = world.home.run(world.job(State.RUNNING)).metrics
    gpu_rows(path, now - 40_000, 40_000)
    assert path.stat().st_size > card_history.WHOLE_BYTES
    rows = card_history._read(path, path.stat().st_size)
    assert 2_000 < len(rows) < card_history.PIECES * card_history.PIECE_BYTES / 30
    assert rows[0][0] < now - 39_900
    assert rows[-1][0] > now - 200


def test_no_card_no_table(world: World) -> None:  # noqa: F811
    world.job(State.RUNNING, steps=20)
    assert card_history.table(world.home, time.time(), 24).empty


def test_the_axis_of_the_past_has_even_labels() -> None:
    assert machine_charts._steps(24) == [-24, -20, -16, -12, -8, -4, 0]
    assert machine_charts._steps(168) == pytest.approx([-168, -144, -120, -96, -72, -48, -24, 0])


def test_a_german_date_begins_no_list(world: World) -> None:  # noqa: F811
    world.runner(queue="open", started_at="2026-11-23T01:00:00Z")
    assert "23\\. Nov" in said(visit(section="health", lang="de"))
