"""The Train page: an outcome fills the form, people change it, and what comes of it is one job."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from test_pages_app import NASTY, World, said, visit, world  # noqa: F401

from pages.parts.ui.train import beside
from spool.data import inspect
from spool.data.inspect import Inspection
from spool.forecast.estimate import Estimate
from spool.protocol import dropbox, formats
from spool.protocol.errors import Problem
from spool.protocol.home import State

EXAMPLE = "examples/support_tickets.jsonl"


def known(rows: int = 320, format: str = "question_answer", **told: Any) -> Inspection:
    """What the doctor would say of some rows."""
    tokens = {"p50": 50, "p95": 80, "max": 90, "over_limit": 0}
    report = {"rows": rows, "usable_rows": rows, "format": format, "problem_counts": {}, "blocked": None}
    return Inspection({**report, "tokens": tokens, **told}, True, None)


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Inspection]:
    """The doctor's report at once, as the page is about what follows from it; a test may put another in its place."""
    found = {"report": known()}
    monkeypatch.setattr(inspect, "look", lambda *_, **__: found["report"])
    return found


@pytest.fixture(autouse=True)
def estimated(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {"is": Estimate(240.0, 180.0, 360.0, 114, None, 2_500_000_000, 355_000_000)}
    monkeypatch.setattr(beside, "estimate", lambda *_, **__: found["is"])
    return found


@pytest.fixture
def here(world: World) -> World:  # noqa: F811
    """A home with a base model and a runner."""
    world.base()
    world.runner()
    return world


def button(app: AppTest, label: str) -> Any:
    return next(each for each in app.button if each.label == label)


def plain(app: AppTest) -> str:
    return said(app).replace("\\", "").replace("\u2060", "")


def start(app: AppTest) -> AppTest:
    return app.button(key="start").click().run()


def spec(app: AppTest) -> dict[str, Any]:
    return json.loads(app.code[0].value)


def dropped(world: World) -> list[Path]:  # noqa: F811
    return sorted(world.home.incoming.glob("*.json"))


def address(app: AppTest) -> dict[str, str]:
    return {name: app.query_params[name] for name in app.query_params}


# ---- outcomes


def test_the_first_outcome_fills_the_form_with_reasons(here: World) -> None:
    app = visit("train")
    assert spec(app) == {"schema": 1, "model": "gemma-3-270m", "dataset": EXAMPLE, "lora": {"alpha": 32}}
    assert app.number_input(key="train/train/epochs").value == 3
    assert "3 epochs: 304 rows give 114 steps." in plain(app)
    assert "No findings" in plain(app)
    assert "320 rows · about 16,000 tokens · longest row 90" in plain(app)


def test_another_outcome_changes_what_nobody_touched(here: World) -> None:
    app = visit("train")
    app.number_input(key="train/train/epochs").set_value(9.0).run()
    app.segmented_control(key="train-preset").set_value("faq").run()
    assert spec(app)["lora"] == {"rank": 32, "alpha": 32}
    assert spec(app)["train"] == {"epochs": 9}
    button(app, "Back to 7").click().run()
    assert spec(app)["train"] == {"epochs": 7}
    app.segmented_control(key="train-preset").set_value("own").run()
    assert "lora" not in spec(app)


def test_what_was_changed_says_so_and_goes_back(here: World) -> None:
    app = visit("train")
    app.number_input(key="train/lora/rank").set_value(64)
    app.number_input(key="train/train/weight_decay").set_value(0.1)
    app.toggle(key="train/limits/early_stopping").set_value(False)
    app.run()
    assert spec(app)["limits"] == {"early_stopping": None}
    assert {"Back to 16", "Back to 0.01", "Reset 3 changes"} <= {each.label.replace("\\", "") for each in app.button}
    assert plain(app).count("1 changed") == 2, "said of each group"
    button(app, "Back to 16").click().run()
    assert spec(app)["lora"] == {"alpha": 32}
    button(app, "Reset 2 changes").click().run()
    assert set(spec(app)) == {"schema", "model", "dataset", "lora"}
    assert not [each for each in app.button if each.label.startswith("Reset")]


def test_the_rows_a_step_count_for_the_epochs(here: World) -> None:
    app = visit("train")
    app.number_input(key="train/train/effective_batch").set_value(32).run()
    assert spec(app)["train"] == {"effective_batch": 32, "epochs": 10}


def test_data_of_another_kind_suggests_its_outcome(here: World, seen: dict[str, Inspection]) -> None:
    seen["report"] = known(format="text")
    app = visit("train")
    assert "Plain text" in plain(app)
    button(app, "Take “Continue text”").click().run()
    assert spec(app)["data"] == {"train_on": "all"}
    assert spec(app)["train"]["learning_rate"] == 1e-4
    assert address(app)["preset"] == "continue"


# ---- states


def test_no_model_and_no_data(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    app = visit("train")
    assert "No model lies on this server yet" in plain(app)
    assert "No dataset yet" in plain(app)
    assert app.button(key="start").disabled
    assert "Base model: choose one." in plain(app)
    assert "Dataset: choose one." in plain(app)


def test_a_published_model_is_chosen_with_what_it_needs_beside_it(here: World) -> None:
    app = visit("train")
    box = app.selectbox(key="train-model")
    assert box.options[0] == "gemma-3-270m", "what lies here comes first, and is not listed twice"
    listed = re.compile(r"gemma-3-4b-it · 8.6 GB · needs [\d.]+ GB")
    assert any(map(listed.fullmatch, box.options))
    assert not [each for each in box.options if each.startswith("gemma-3-270m ·")]
    box.set_value("gemma-3-4b-it").run()
    assert spec(app)["model"] == "gemma-3-4b-it"
    assert "Gemma 3, follows instructions, up to 131,072 tokens a row, [Gemma Terms of Use](https" in plain(app)
    assert "Fetched from unsloth/gemma-3-4b-it when the job starts (8.6 GB)." in plain(app)
    assert "only text is trained. Tested for memory and speed, with random weights." in plain(app)
    assert not app.button(key="start").disabled
    assert "there is no model" not in plain(app)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Inspection(None, True, {"code": "x", "message": "it is a workbook.", "hint": ""}), "It is a workbook."),
        (known(blocked={"code": "x", "message": "half is empty.", "hint": ""}), "Half is empty."),
        (known(problem_counts={"duplicate": 3}), "3 findings"),
        (Inspection(None, False, None, "reading"), "being read"),
    ],
)
def test_the_state_of_the_data_is_said(found: Inspection, says: str, here: World, seen: dict[str, Inspection]) -> None:
    seen["report"] = found
    app = visit("train")
    assert says in plain(app)
    assert not app.button(key="start").disabled, "the job's own check decides"


def test_a_dataset_of_the_hub_is_counted_later(here: World) -> None:
    app = visit("train", data="hf:org/rows", model="google/gemma-3-1b-it")
    assert spec(app)["dataset"] == "hf:org/rows"
    assert "counted when the job is checked" in plain(app)
    assert "fetched when the job starts" in plain(app)
    assert "Until the rows are counted." in plain(app)


def test_a_runner_that_is_off_is_no_hindrance(world: World) -> None:  # noqa: F811
    world.base()
    app = visit("train")
    assert "The runner is off" in plain(app)
    assert not app.button(key="start").disabled


def test_what_does_not_fit_offers_what_would(here: World, estimated: dict[str, Any]) -> None:
    unfit = Problem("too_little_gpu_memory", "it needs about 90 GB, and the GPU has 80 GB.", "It fits with 4 bit.")
    estimated["is"] = Estimate(gpu_bytes=90_000_000_000, problems=(unfit,), fits_with={"/precision": "4bit"})
    app = visit("train")
    assert "It needs about 90 GB" in plain(app)
    assert "Fits this machine" not in plain(app)
    button(app, "Use what fits").click().run()
    assert spec(app)["precision"] == "4bit"


def test_the_estimate_says_where_it_comes_from(here: World, estimated: dict[str, Any]) -> None:
    app = visit("train")
    values = {metric.label: metric.value for metric in app.metric}
    assert values == {"Time": "≈ 4 min", "Steps": "114", "Memory": "2.5 GB", "Disk": "355 MB"}
    assert "Between 3 min and 6 min." in plain(app)
    assert "A first guess" in plain(app)
    estimated["is"] = Estimate(240.0, 180.0, 360.0, 114, 5_000_000_000, 1, 1, learned_from=4)
    app.session_state["train-estimate"] = None
    app.run()
    assert "Learned from 4 finished jobs" in plain(app)
    assert "GPU memory" in [metric.label for metric in app.metric]


# ---- what is set


def test_what_is_set_reaches_the_spec(here: World) -> None:
    app = visit("train", preset="own")
    app.number_input(key="train/train/learning_rate").set_value(2e-4)
    app.number_input(key="train/train/epochs").set_value(5.0)
    app.segmented_control(key="train/data/train_on").set_value("responses")
    app.segmented_control(key="train/train/gradient_checkpointing").set_value(False)
    app.selectbox(key="train/precision").set_value("4bit")
    app.text_input(key="train/lora/target_modules").set_value("q_proj, v_proj")
    app.text_area(key="train/data/mapping").set_value("prompt = Frage")
    app.text_area(key="train/eval/sample_prompts").set_value("Where is it?\nHow long?")
    app.multiselect(key="train/export").set_value(["gguf:q4_k_m", "merged"])
    app.run()
    app.number_input(key="train/limits/early_stopping/limits/early_stopping/patience").set_value(5).run()
    made = spec(app)
    assert made["train"] == {"epochs": 5, "learning_rate": 2e-4, "gradient_checkpointing": False}
    assert made["precision"] == "4bit"
    assert made["lora"] == {"target_modules": ["q_proj", "v_proj"]}
    assert made["data"] == {"mapping": {"prompt": "Frage"}, "train_on": "responses"}
    assert made["limits"] == {"early_stopping": {"patience": 5}}
    assert made["eval"] == {"sample_prompts": ["Where is it?", "How long?"]}
    assert made["export"] == ["adapter", "merged", "gguf:q4_k_m"]
    offered = app.multiselect(key="train/export").options
    assert offered[:2] == ["Merged weights (vLLM, Transformers)", "GGUF Q4_K_M (Ollama, llama.cpp)"]
    assert len(offered) == len(formats.FORMATS) - 1
    assert not app.button(key="start").disabled


def test_rules_for_the_data_reach_the_spec(here: World) -> None:
    app = visit("train", preset="own")
    app.multiselect(key="train/data/drop").set_value(["duplicate", "secret"])
    app.text_area(key="train/limits/max_fraction").set_value("near_duplicate = 0.2\nsecret = 0")
    app.text_input(key="train/data/delimiter").set_value(";")
    app.segmented_control(key="train/data/header").set_value(False)
    app.run()
    made = spec(app)
    assert made["data"] == {"drop": ["duplicate", "secret"], "delimiter": ";", "header": False}
    assert made["limits"] == {"max_fraction": {"near_duplicate": 0.2, "secret": 0}}
    assert not app.button(key="start").disabled
    app.text_area(key="train/limits/max_fraction").set_value("secret = some").run()
    assert app.button(key="start").disabled


def test_a_wrong_setting_is_named_beside_the_form(here: World) -> None:
    app = visit("train")
    app.number_input(key="train/train/batch_size").set_value(3)
    app.text_area(key="train/data/mapping").set_value("nonsense")
    app.run()
    assert app.button(key="start").disabled
    assert "Column mapping: " in plain(app)


def test_the_form_stands_as_it_was_after_another_page(here: World) -> None:
    app = visit("train")
    app.number_input(key="train/lora/rank").set_value(64)
    app.text_input(key="train/name").set_value("night run")
    app.segmented_control(key="train-preset").set_value("tone")
    app.run()
    before, form = spec(app), app.session_state["train-id"]
    app.switch_page("pages/watch/home.py").run()
    app.switch_page("pages/build/train.py").run()
    assert spec(app) == before
    assert before["lora"]["rank"] == 64
    assert app.session_state["train-id"] == form


# ---- the address


def test_a_form_can_be_linked_and_loaded_again(here: World) -> None:
    app = visit("train", preset="faq", data="hf:org/rows")
    app.number_input(key="train/train/epochs").set_value(3.0)
    app.number_input(key="train/lora/rank").set_value(16)
    app.multiselect(key="train/export").set_value(["gguf:q8_0"])
    app.run()
    told = address(app)
    assert told["preset"] == "faq"
    assert json.loads(told["set"]) == {"/lora/rank": 16, "/export": ["adapter", "gguf:q8_0"]}, (
        "3 epochs are preset so far"
    )
    other = visit("train", **told)
    assert spec(other) == spec(app)
    assert address(other) == told
    assert other.session_state["train-id"] == told["form"]


@pytest.mark.parametrize(
    "told",
    [
        {"preset": "../x", "form": "../../x", "set": "{", "from": "nothing"},
        {"preset": "", "form": "01K", "set": '{"/lora/rank": "x", "/no": 1, "/train/epochs": 1e99}', "data": "<b>"},
        {"form": "01K00001ABCDEFGHJKMNPQRSTV", "data": "x", "set": '[1, {"/lora/rank": 3}]'},
        {"retry": "01K00001ABCDEFGHJKMNPQRSTV"},
    ],
)
def test_addresses_that_somebody_typed_do_no_harm(told: dict[str, str], here: World) -> None:
    app = visit("train", **told)
    assert not app.exception
    assert spec(app)["lora"] == {"alpha": 32}
    assert "retry_of" not in spec(app)


# ---- earlier jobs and specs


def test_an_earlier_job_fills_the_form(here: World) -> None:
    job_id = here.job(State.DONE)
    path = here.home.run(job_id).spec_orig
    given = json.loads(path.read_text()) | {"lora": {"rank": 4}, "submission_id": "x", "submitted_by": "ann"}
    path.write_text(json.dumps(given))
    app = visit("train", **{"from": job_id})
    assert spec(app) == {
        "schema": 1,
        "name": "support tickets",
        "model": "gemma-3-270m",
        "dataset": "support_tickets",
        "lora": {"rank": 4},
    }
    assert "Filled in from an earlier job." in plain(app)
    assert address(app)["from"] == job_id
    app.number_input(key="train/lora/rank").set_value(8).run()
    assert spec(app)["lora"] == {"rank": 8}


def test_an_earlier_job_is_picked_from_a_list(here: World) -> None:
    first, second = here.job(State.DONE, "one"), here.job(State.FAILED, "two", error={"code": "x", "message": "m"})
    here.job(State.QUEUED, "three")
    app = visit("train")
    button(app, "Start from an earlier job").click().run()
    box = app.selectbox(key="train-from-job")
    assert len(box.options) == 3
    box.set_value(first)
    app.button(key="from-fill").click().run()
    assert spec(app)["name"] == "one"
    assert address(app)["from"] == first
    assert second != first


def bring(app: AppTest, text: str) -> AppTest:
    """A window is drawn in the run that opens it, and AppTest runs no fragment again."""
    button(app, "Import").click().run()
    app.text_area(key="train-import-text").set_value(text)
    return app.button(key="import-fill").click().run()


def test_a_spec_is_brought_and_nothing_of_it_is_lost(here: World) -> None:
    given = {
        "schema": 1,
        "model": "gemma-3-270m",
        "dataset": EXAMPLE,
        "lora": {"rank": 4, "allpha": 3},
        "train": {"epochs": "many", "packing": "often"},
        "export": ["merged"],
        "epoch": 3,
        "submission_id": "mine",
    }
    app = bring(visit("train"), json.dumps(given))
    made = spec(app)
    assert made == {name: value for name, value in given.items() if name != "submission_id"} | {
        "export": ["adapter", "merged"]
    }
    assert app.button(key="start").disabled
    text = plain(app)
    assert "there is no field 'allpha'. Did you mean 'alpha'?" in text
    assert "Line" in text
    assert 'Epochs: "many" does not fit.' in text
    assert "lora.allpha, train.epochs, train.packing, epoch" in text
    button(app, "Leave them out").click().run()
    assert not app.button(key="start").disabled
    assert spec(app)["lora"] == {"rank": 4}
    assert "train" not in spec(app)


def test_what_is_typed_takes_the_place_of_what_no_input_could_show(here: World) -> None:
    app = bring(visit("train"), '{"schema": 1, "model": "m", "dataset": "d", "train": {"epochs": "many"}}')
    app.number_input(key="train/train/epochs").set_value(4.0).run()
    assert spec(app)["train"] == {"epochs": 4}
    assert not app.button(key="start").disabled


def test_a_text_that_is_no_spec_says_where_it_breaks_off(here: World) -> None:
    app = visit("train")
    before = spec(app)
    for text, says in (
        ('{"schema": 1,\n "model": }', "line 2, column 11"),
        ("[1]", "a job spec is a JSON object"),
        ('{"a": 1, "a": 2}', "more than once"),
        ("", "the file is empty"),
        ("{" * 40, "nested deeper"),
    ):
        bring(app, text)
        (wrong,) = app.session_state["train-import-wrong"]
        assert says in wrong
        assert spec(app) == before
    button(app, "Import").click().run()
    assert not app.error, "what was wrong with another text is not said of the next"


def test_nothing_that_people_wrote_is_rendered(here: World) -> None:
    given = {"schema": 1, "model": NASTY, "dataset": NASTY, "name": NASTY[:110], NASTY: NASTY, "lora": {"rank": NASTY}}
    app = bring(visit("train"), json.dumps(given))
    assert json.loads(app.code[0].value) == given
    text = said(app)
    for raw in ("<img", "[x](", "![](", "**b**", "$x$", ":material/home:"):
        assert raw not in text.replace(r"\<img", "").replace(r"\[x\]", "")
    button(app, "Leave them out").click().run()
    assert not app.exception
    start(app)
    assert not app.exception


def test_it_speaks_german_too(here: World) -> None:
    app = visit("train", lang="de", preset="faq")
    text = plain(app)
    assert "Aus unserer FAQ antworten." in text
    assert "7 Epochen: 304 Zeilen ergeben 266 Schritte." in text
    assert "Passt auf diese Maschine. Startbereit." in text
    sent = visit("train", lang="de", form=here.job(State.QUEUED))
    assert "Er steht in der Warteschlange und beginnt von selbst." in plain(sent)


# ---- one submission, whatever one clicks


def test_a_small_spec_is_dropped_once_whatever_one_clicks(here: World) -> None:
    app = visit("train", data=EXAMPLE)
    told, job_id = address(app), app.session_state["train-id"]
    assert told["form"] == job_id
    other_tab = visit("train", **told)
    start(app)
    (path,) = dropped(here)
    assert path.stem == job_id
    assert json.loads(path.read_bytes()) == {
        "schema": 1,
        "model": "gemma-3-270m",
        "dataset": EXAMPLE,
        "lora": {"alpha": 32},
        "submission_id": job_id,
    }
    assert "Its data is checked first" in plain(app)
    assert address(app) == {"form": job_id}
    start(other_tab)
    assert "Its data is checked first" in plain(other_tab)
    assert not other_tab.warning
    reloaded = visit("train", **address(app))
    assert "Its data is checked first" in plain(reloaded)
    back = visit("train", **told)
    assert "Its data is checked first" in plain(back), "the form of a job leads to the job"
    assert len(dropped(here)) == 1


def test_the_click_counts_with_what_stands_in_the_form(here: World) -> None:
    app = visit("train")
    app.number_input(key="train/lora/rank").set_value(64)
    start(app)
    assert json.loads(dropped(here)[0].read_bytes())["lora"] == {"rank": 64, "alpha": 32}


def test_a_wrong_form_is_not_handed_in_whatever_the_browser_says(here: World) -> None:
    app = visit("train")
    app.number_input(key="train/train/batch_size").set_value(3)
    start(app)
    assert dropped(here) == []
    assert "does not divide" in plain(app)


def test_another_tab_with_other_settings_is_told_and_may_hand_in_its_own(here: World) -> None:
    app = visit("train")
    other_tab = visit("train", **address(app))
    start(app)
    other_tab.number_input(key="train/lora/rank").set_value(64)
    start(other_tab)
    assert "handed in before with other settings" in other_tab.warning[0].value
    assert len(dropped(here)) == 1
    other_tab.button(key="as-its-own").click().run()
    assert not other_tab.warning
    assert sorted(json.loads(path.read_bytes())["lora"].get("rank", 16) for path in dropped(here)) == [16, 64]


def test_another_job_can_follow(here: World) -> None:
    app = visit("train")
    app.text_input(key="train/name").set_value("one")
    app.number_input(key="train/lora/rank").set_value(64)
    start(app.run())
    first = app.session_state["train-sent"]
    assert not app.code, "the form is gone"
    button(app, "Back to the form").click().run()
    assert app.session_state["train-id"] != first
    assert spec(app)["lora"]["rank"] == 64
    assert "name" not in spec(app)
    start(app)
    assert len(dropped(here)) == 2
    app.switch_page("pages/watch/home.py").run()
    del app.query_params["form"]
    app.switch_page("pages/build/train.py").run()
    assert app.code, "who comes back by the menu finds a form for the next job"


def test_a_disk_that_cannot_be_written_is_said(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    app = visit("train")

    def full_disk(*_: Any, **__: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dropbox, "submit", full_disk)
    start(app)
    assert "No space left on device" in app.error[0].value
    assert app.session_state["train-sent"] is None


# ---- after handing in


def test_a_rejected_submission_says_why(here: World) -> None:
    app = start(visit("train"))
    job_id = app.session_state["train-sent"]
    (here.home.incoming / f"{job_id}.json").unlink()
    os.rename(here.home.rejected / here.rejected(), here.home.rejected / job_id)
    app.run()
    assert "It was not accepted." in plain(app)
    assert "Priority" in app.error[1].value


def test_it_says_where_the_job_stands_and_when_it_is_expected(here: World) -> None:
    running = here.job(State.RUNNING, steps=72)
    here.runner(current_job=running)
    here.job(State.QUEUED, "before")
    mine = here.job(State.QUEUED, "mine")
    app = visit("train", form=mine)
    text = plain(app)
    assert "It is in the queue and starts by itself." in text
    assert "2 jobs go before it." in text


def test_it_follows_the_job_through_each_state(here: World) -> None:
    error = {"code": "x", "message": "no memory.", "hint": "Less."}
    app = visit("train")
    for state in ("held", "done", "failed", "cancelled", "running", "checking"):
        app.query_params["form"] = here.job(State(state), steps=20, error=error if state == "failed" else None)
        app.run()
        assert not app.exception
        assert not app.code
        assert "support tickets" in plain(app)
    assert "Its data is checked first" in plain(app)
