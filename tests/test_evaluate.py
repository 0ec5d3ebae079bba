"""Reports through a real daemon, with a tiny Gemma: at the end of a training, and by jobs of kind evaluate."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Runner

from spool.protocol import dropbox, durable, resolve
from spool.protocol.home import Home
from spool.protocol.jobs import Job

pytestmark = pytest.mark.training

DATA = "examples/support_tickets.jsonl"
OTHERS = "examples/support_tickets.heldout.jsonl"


@pytest.fixture
def reporting(home: Home, tiny_gemma: Path, make_runner: Callable[..., Runner]) -> Runner:
    """A runner whose trainings end with a report."""
    shutil.copytree(tiny_gemma, home.models / "tiny")
    home.settings.write_text('{"report_s": 600, "price_per_kwh": 0.31, "warm": false}')
    return make_runner(home)


def train(home: Home, **more: Any) -> str:
    spec = {"schema": 1, "model": "tiny", "dataset": DATA, "train": {"max_steps": 4}, "data": {"eval_fraction": 0.05}}
    return dropbox.submit(home, {**spec, **more})


def evaluate(home: Home, **more: Any) -> str:
    return dropbox.submit(home, {"schema": 1, "kind": "evaluate", **more})


def ended(daemon: Runner, job_id: str) -> Job:
    job = daemon.wait(job_id, "done", "failed", "cancelled", "rejected", timeout_s=240)
    assert job.state == "done", job.error
    assert job.result is not None
    return job


def test_a_training_ends_with_its_report_and_evaluations_follow(home: Home, reporting: Runner, tmp_path: Path) -> None:
    trained = train(home)
    own = ended(reporting, trained).result["report"]
    run = home.run(trained)
    assert own["asked"] | {"sha256": ""} == {
        "rows": 20, "chosen": 20, "of": 20, "held_out": True, "learned": False, "sha256": "", "source": DATA,
        "answer_tokens": own["asked"]["answer_tokens"], "cut": False, "base_cached": 0,
    }  # fmt: skip
    assert own["general"]["of"] == 40
    assert run.report.read_text().startswith("<!doctype html>")
    assert run.log.read_text().count("-- making the report\n") == 1
    assert "training the adapter" not in run.log.read_text().partition("-- making the report")[2]

    # the same rows by a job: the base is asked nothing; another file, with rows that the training never saw
    again, others = evaluate(home, job=trained), evaluate(home, job=trained, dataset=OTHERS, rows=9, general=False)
    same = ended(reporting, again).result["report"]
    assert same["asked"]["sha256"] == own["asked"]["sha256"]
    assert same["asked"]["base_cached"] == 60
    assert same["measures"] == own["measures"]
    told = ended(reporting, others).result
    assert told["of"] == trained
    assert told["report"]["general"] is None
    assert told["report"]["asked"]["sha256"] != own["asked"]["sha256"]
    assert {name: told["report"]["asked"][name] for name in ("rows", "of", "held_out", "learned", "source")} == {
        "rows": 9, "of": 80, "held_out": None, "learned": False, "source": OTHERS,
    }  # fmt: skip
    assert home.run(others).report.exists()
    learned = ended(reporting, evaluate(home, job=trained, dataset=DATA, rows=3, general=False)).result["report"]
    assert learned["asked"]["learned"] is True

    copy = tmp_path / "an adapter"
    shutil.copytree(resolve.trained(home, trained).adapter, copy)
    config = copy / "adapter_config.json"
    durable.write_json(config, {**json.loads(config.read_text()), "base_model_name_or_path": "tiny"})
    foreign = ended(reporting, evaluate(home, adapter=str(copy), dataset=OTHERS, rows=9, general=False)).result
    assert foreign["of"] is None
    assert foreign["report"]["measures"] == told["report"]["measures"], "the same rows, the same adapter"


def test_what_keeps_a_report_from_being_made_takes_nothing_from_the_training(
    home: Home, reporting: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = ended(reporting, train(home, report=False)).result
    assert "report" not in without
    moved = home.models / "gone"
    waiting = evaluate(home, job="0" * 26)
    assert reporting.wait(waiting, "rejected").error["code"] == "job_missing"
    (home.models / "tiny").rename(moved)
    trained = next(job.name for job in home.runs.iterdir() if (job / "exports" / "adapter").is_dir())
    failed = reporting.wait(evaluate(home, job=trained), "failed", "done", timeout_s=120)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["code"] == "base_missing" or "tiny" in failed.error["message"]
