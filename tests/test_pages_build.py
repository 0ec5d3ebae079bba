"""The pages that build something: uploads become datasets, forms become job specs."""

import io
import json
import os
import zipfile
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from test_pages_app import World, said, visit, world  # noqa: F401

from spool.data.keeping import keep
from spool.protocol import dropbox

CSV = b"question,answer\nWhere is it?,In the box.\nHow long?,\n"


def test_an_upload_is_kept_and_judged(world: World) -> None:  # noqa: F811
    app = visit("data")
    app.file_uploader[0].upload("FAQ (new).csv", CSV)
    app.run()
    assert not app.exception
    assert [each.name for each in keep.list_datasets(world.home)] == ["FAQ-new"]
    assert {m.label: m.value for m in app.metric} == {"Rows": "2", "Usable": "1", "Repeated": "0", "Longest row": "–"}
    assert "Columns: question, answer" in said(app).replace("\\", "").replace("\u2060", "")
    assert app.dataframe[0].value["line"].tolist() == [3]
    button(app, "Train on this").click().run()
    assert app.query_params["data"] == "FAQ-new"
    assert '"dataset": "FAQ-new"' in app.code[0].value


def test_an_upload_that_is_no_data_is_refused_in_words(world: World) -> None:  # noqa: F811
    app = visit("data")
    workbook = io.BytesIO()
    with zipfile.ZipFile(workbook, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
    app.file_uploader[0].upload("Mappe1.xlsx", workbook.getvalue())
    app.run()
    assert "Excel workbook" in app.error[0].value
    assert keep.list_datasets(world.home) == []
    assert not any(world.home.datasets.iterdir()), "nothing is left behind"


def test_an_unrecognised_layout_is_shown_with_its_rows(world: World) -> None:  # noqa: F811
    app = visit("data")
    app.file_uploader[0].upload("odd.csv", b"alpha,beta,gamma\n1,2,3\n4,5,6\n")
    app.run()
    assert app.error
    assert app.dataframe[-1].value["beta"].tolist() == ["2", "5"]


def button(app: AppTest, label: str) -> Any:
    return next(each for each in app.button if each.label == label)


def start(app: AppTest) -> AppTest:
    return app.button(key="start").click().run()


def test_a_small_spec_is_dropped_once_whatever_one_clicks(world: World) -> None:  # noqa: F811
    world.base()
    app = visit("train", data="examples/support_tickets.jsonl")
    job_id = app.session_state["train-id"]
    start(app)
    dropped = world.home.incoming / f"{job_id}.json"
    assert json.loads(dropped.read_bytes()) == {
        "schema": 1,
        "model": "gemma-3-270m",
        "dataset": "examples/support_tickets.jsonl",
        "submission_id": job_id,
    }
    assert "Its data is checked first" in app.info[0].value
    other_tab = visit("train")
    other_tab.session_state["train-id"] = job_id
    start(other_tab.run())
    assert len(list(world.home.incoming.iterdir())) == 1


def test_another_job_can_follow(world: World) -> None:  # noqa: F811
    world.base()
    app = start(visit("train"))
    first = app.session_state["train-sent"]
    assert not app.code, "the form is gone"
    button(app, "Back to the form").click().run()
    assert app.session_state["train-id"] != first
    start(app)
    assert len(list(world.home.incoming.iterdir())) == 2


def test_the_form_keeps_what_was_set_but_not_the_name(world: World) -> None:  # noqa: F811
    world.base()
    app = visit("train")
    app.text_input(key="train/name").set_value("one")
    app.number_input(key="train/lora/rank").set_value(64)
    start(app.run())
    button(app, "Back to the form").click().run()
    assert json.loads(app.code[0].value)["lora"] == {"rank": 64}
    assert "name" not in json.loads(app.code[0].value)


def test_a_rejected_submission_says_why(world: World) -> None:  # noqa: F811
    world.base()
    app = start(visit("train"))
    job_id = app.session_state["train-sent"]
    (world.home.incoming / f"{job_id}.json").unlink()
    os.rename(world.home.rejected / world.rejected(), world.home.rejected / job_id)
    app.run()
    assert "Priority" in app.error[1].value
    assert not app.success


def test_what_is_set_reaches_the_spec(world: World) -> None:  # noqa: F811
    world.base()
    app = visit("train")
    app.number_input(key="train/train/learning_rate").set_value(2e-4)
    app.number_input(key="train/train/epochs").set_value(5.0)
    app.segmented_control(key="train/data/train_on").set_value("responses")
    app.segmented_control(key="train/train/gradient_checkpointing").set_value(False)
    app.selectbox(key="train/precision").set_value("4bit")
    app.text_input(key="train/lora/target_modules").set_value("q_proj, v_proj")
    app.text_area(key="train/data/mapping").set_value("prompt = Frage")
    app.toggle(key="train/export").set_value(True)
    app.toggle(key="train/limits/early_stopping").set_value(True)
    app.run()
    app.number_input(key="train/limits/early_stopping/limits/early_stopping/patience").set_value(5).run()
    spec = json.loads(app.code[0].value)
    assert spec["train"] == {"epochs": 5, "learning_rate": 2e-4, "gradient_checkpointing": False}
    assert spec["precision"] == "4bit"
    assert spec["lora"] == {"target_modules": ["q_proj", "v_proj"]}
    assert spec["data"] == {"mapping": {"prompt": "Frage"}, "train_on": "responses"}
    assert spec["limits"] == {"early_stopping": {"patience": 5}}
    assert spec["export"] == ["adapter", "merged"]
    assert not app.button(key="start").disabled


def test_rules_for_the_data_reach_the_spec(world: World) -> None:  # noqa: F811
    world.base()
    app = visit("train")
    app.multiselect(key="train/data/drop").set_value(["duplicate", "secret"])
    app.text_area(key="train/limits/max_fraction").set_value("near_duplicate = 0.2\nsecret = 0")
    app.text_input(key="train/data/delimiter").set_value(";")
    app.segmented_control(key="train/data/header").set_value(False)
    app.run()
    spec = json.loads(app.code[0].value)
    assert spec["data"] == {"drop": ["duplicate", "secret"], "delimiter": ";", "header": False}
    assert spec["limits"] == {"max_fraction": {"near_duplicate": 0.2, "secret": 0}}
    assert not app.button(key="start").disabled
    app.text_area(key="train/limits/max_fraction").set_value("secret = some").run()
    assert app.button(key="start").disabled


def test_a_wrong_setting_is_named_beside_the_form(world: World) -> None:  # noqa: F811
    world.base()
    app = visit("train")
    app.number_input(key="train/train/batch_size").set_value(3)
    app.text_area(key="train/data/mapping").set_value("nonsense")
    app.run()
    assert app.button(key="start").disabled
    assert "Column mapping" in said(app)


def test_a_disk_that_cannot_be_written_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    world.base()
    app = visit("train")

    def full_disk(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dropbox, "submit", full_disk)
    start(app)
    assert "No space left on device" in app.error[0].value
    assert app.session_state["train-sent"] is None
