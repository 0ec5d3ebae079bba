"""The failure card on Monitor, and the way from it: a retry in one click, or the form filled in for it."""

import json
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from test_pages_app import NASTY, World, said, visit, world  # noqa: F401

from spool.health import cures
from spool.protocol import durable
from spool.protocol.home import State
from spool.protocol.spec import JobSpec

OOM = {
    "code": "out_of_memory",
    "message": "the card's memory ran out: 2.25 GiB more were asked for, and 1.56 GiB of its 79.11 GiB were free.",
    "hint": "Retry with fewer rows on the card at once (train.batch_size); what is learned stays the same.",
    "evidence": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.25 GiB.",
}


def failed(world: World, error: dict[str, Any] = OOM, **spec: Any) -> str:  # noqa: F811
    job_id = world.job(State.FAILED, "tone", steps=30, error=error)
    run = world.home.run(job_id)
    dropped = durable.read_json(run.spec_orig) | spec
    durable.write_json(run.spec_orig, dropped)
    durable.write_json(run.spec, JobSpec.model_validate(dropped).to_json())
    return job_id


def button(app: AppTest, label: str) -> Any:
    return next((each for each in app.button if each.label == label), None)


def test_the_card_says_what_happened_with_its_evidence_and_the_cure(world: World) -> None:  # noqa: F811
    app = visit("monitor", job=failed(world))
    assert "memory ran out\\: 2\\.25 GiB" in said(app)
    assert OOM["evidence"] in [code.value for code in app.code]
    shown = next(table.value for table in app.dataframe if "setting" in table.value)
    assert shown[["was", "new"]].values.tolist() == [["8", "4"], ["1", "2"]]
    assert button(app, "Retry with this change") is not None


def test_one_click_submits_the_change_once(world: World) -> None:  # noqa: F811
    job_id = failed(world)
    app = visit("monitor", job=job_id)
    button(app, "Retry with this change").click().run()
    (drop,) = world.home.incoming.glob("*.json")
    spec = json.loads(drop.read_bytes())
    assert spec["train"] == {"batch_size": 4, "gradient_accumulation": 2}
    assert (spec["retry_of"], spec["submission_id"]) == (job_id, cures.submission_id(job_id))
    again = visit("monitor", job=job_id)
    assert button(again, "Retry with this change") is None, "another person's window: it was tried already"
    assert len(list(world.home.incoming.glob("*.json"))) == 1


def test_a_cause_outside_of_the_job_offers_it_as_it_is(world: World) -> None:  # noqa: F811
    error = {"code": "disk_full", "message": "the disk is full.", "hint": "Free some.", "evidence": ""}
    app = visit("monitor", job=failed(world, error))
    assert button(app, "Retry as it is") is not None
    assert "free some space first" in said(app)


@pytest.mark.parametrize("code", ["data_blocked", "crash_loop", "unexpected"])
def test_what_must_be_corrected_by_hand_has_no_button(world: World, code: str) -> None:  # noqa: F811
    app = visit("monitor", job=failed(world, {"code": code, "message": "it broke.", "hint": "Mend it."}))
    assert "**It broke" in said(app)
    assert not [each for each in app.button if each.label.startswith("Retry")]


def test_what_libraries_said_is_shown_as_text(world: World) -> None:  # noqa: F811
    app = visit("monitor", job=failed(world, dict.fromkeys(("message", "hint", "evidence"), NASTY) | {"code": "x"}))
    assert "](javascript:" not in "".join(str(each.value) for each in (*app.markdown, *app.caption, *app.error))
    assert NASTY in [code.value for code in app.code]


def test_a_card_over_broken_files_has_no_button_and_no_error(world: World) -> None:  # noqa: F811
    job_id = failed(world)
    world.home.run(job_id).spec_orig.write_bytes(b"\xff{")
    app = visit("monitor", job=job_id)
    assert "memory ran out" in said(app)


def spec_beside(app: AppTest) -> dict[str, Any]:
    return next(json.loads(code.value) for code in app.code if code.value.startswith("{"))


def test_the_form_is_filled_in_for_the_retry(world: World) -> None:  # noqa: F811
    world.base()
    given = {
        "export": ["adapter", "merged"],
        "lora": {"rank": 32, "target_modules": ["q_proj", "v_proj"]},
        "train": {"effective_batch": 16, "learning_rate": 3e-4, "gradient_checkpointing": True},
        "data": {"mapping": {"prompt": "Frage"}, "drop": ["duplicate"]},
        "limits": {"early_stopping": {"patience": 2}, "max_fraction": {"secret": 0.0}},
    }
    job_id = failed(world, **given)
    app = visit("train", retry=job_id, data="support_tickets")
    made = spec_beside(app)
    expected = durable.read_json(world.home.run(job_id).spec_orig) | given | {"retry_of": job_id}
    expected["train"] = given["train"] | {"batch_size": 4, "gradient_accumulation": 4}
    assert made == expected
    assert "Filled in from the job that failed" in said(app)


def test_a_form_that_was_filled_in_for_a_retry_is_empty_for_the_next_job(world: World) -> None:  # noqa: F811
    world.base()
    job_id = failed(world, lora={"rank": 32})
    app = visit("train", retry=job_id, data="support_tickets")
    assert "retry_of" in spec_beside(app)
    del app.query_params["retry"]
    app = app.run()
    assert set(spec_beside(app)) == {"schema", "model", "dataset"}


@pytest.mark.parametrize("job_id", ["x", "../../etc", "01M81ZAFFVD06P58V95ESN865K"])
def test_a_retry_of_nothing_is_an_empty_form(world: World, job_id: str) -> None:  # noqa: F811
    world.base()
    app = visit("train", retry=job_id)
    assert "retry_of" not in spec_beside(app)
