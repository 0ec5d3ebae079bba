"""Real training of a tiny Gemma through a real daemon: interruptions, exports, limits, checked data."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Runner, wait_for
from test_scripts import named

from spool.data import prepared
from spool.protocol import dropbox, durable, metrics
from spool.protocol.home import FINAL, Home

pytestmark = pytest.mark.training


@pytest.fixture
def model(home: Home, tiny_gemma: Path) -> str:
    shutil.copytree(tiny_gemma, home.models / "tiny")
    return "tiny"


def drop(home: Home, **more: Any) -> str:
    train = {"max_steps": 24, "save_steps": 6, **more.pop("train", {})}
    spec = {"schema": 1, "model": "tiny", "dataset": "examples/support_tickets.jsonl", "train": train, **more}
    return dropbox.submit(home, spec)


def tensors(folder: str) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(Path(folder) / "adapter_model.safetensors")


def at_step(runner: Runner, job_id: str, step: int) -> None:
    wait_for(lambda: runner.job(job_id).progress["step"] >= step or runner.job(job_id).ended, 120)


def test_an_interrupted_job_ends_as_an_undisturbed_one(home: Home, model: str, make_runner: Callable[..., Any]) -> None:
    runner = make_runner(home)
    more = {"data": {"eval_fraction": 0.1}, "export": ["adapter", "merged"]}
    straight = drop(home, **more)
    undisturbed = runner.wait(straight, "done", "failed", timeout_s=180)
    assert undisturbed.state == "done", undisturbed.error
    the_fields_that_scripts_may_read(home, straight)

    disturbed = drop(home, train={"max_steps": 24, "save_steps": 6}, data={"eval_fraction": 0.1})
    at_step(runner, disturbed, 8)
    assert runner.stop() == 0  # SIGTERM: a checkpoint, then back into the queue, never "done"
    assert runner.job(disturbed).state == "queued"
    first = durable.read_json(home.run(disturbed).attempts / "0001.json")
    assert first["outcome"] == "interrupted"
    assert first["checkpoint_step"] >= 8
    assert not home.run(disturbed).result.exists()
    runner.start()
    at_step(runner, disturbed, 16)
    os.kill(runner.child_pid(), signal.SIGKILL)
    job = runner.wait(disturbed, "done", "failed", timeout_s=180)
    assert job.state == "done", job.error
    assert job.attempts == 3

    rows = metrics.read(home.run(disturbed).metrics)
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    expected = {r["step"]: r["loss"] for r in metrics.read(home.run(straight).metrics) if "loss" in r}
    assert losses == expected
    assert sorted({row["attempt"] for row in rows}) == [1, 2, 3]
    ours, theirs = tensors(job.result["adapter"]), tensors(undisturbed.result["adapter"])
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    merged_answers_like_the_adapter(home, undisturbed.result)


def the_fields_that_scripts_may_read(home: Home, job_id: str) -> None:
    run = home.run(job_id)
    assert named("runs/ID/outcome.json") - set(FINAL) == set(durable.read_json(run.outcome))
    result = durable.read_json(run.result)["result"]
    table = (ROOT / "docs" / "scripts.md").read_text().partition("`result` has for a training:")[2].partition("##")[0]
    fields = re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.M)))
    assert len(fields) > 10
    assert set(fields) == (set(result) | {"report"}) - {"trained_s"}  # tests/test_evaluate.py has one with its report
    rows = metrics.read(run.metrics)
    assert named("runs/ID/metrics.jsonl") <= {name for row in rows for name in row}
    events = {event["event"] for event in metrics.read(run.events)}
    assert events <= named("runs/ID/events.jsonl")


def merged_answers_like_the_adapter(home: Home, result: dict[str, Any]) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = AutoModelForCausalLM.from_pretrained(result["merged"], dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(home.models / "tiny", dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(home.models / "tiny", dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, result["adapter"])
    tokenizer = AutoTokenizer.from_pretrained(result["merged"])
    chat = [{"role": "user", "content": "Where is my order?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        a, b, c = (m(**ids).logits for m in (merged, tuned, plain))
    assert (a - b).abs().max() < 0.1 * (c - b).abs().max()
    assert merged.generation_config.eos_token_id == [1, 5]
    for folder in (result["merged"], result["adapter"]):
        manifest = json.loads((Path(folder) / "manifest.json").read_text())
        assert manifest["lineage"]["steps"] == 24
        names = {p.name for p in Path(folder).iterdir()}
        assert set(manifest["files"]) == names - {"manifest.json", "certificate.json"}
        assert not names & {"training_args.bin", "optimizer.pt", "rng_state.pth"}


def test_a_job_is_cancelled_while_it_trains_and_early_stopping_ends_one(home: Home, model: str, daemon: Runner) -> None:
    endless = drop(home, train={"max_steps": 100_000})
    stopping = drop(
        home,
        train={"max_steps": 400, "learning_rate": 1e-9},
        data={"eval_fraction": 0.1},
        eval={"every_steps": 3},
        limits={"early_stopping": {"patience": 2, "min_delta": 1.0}},
    )
    at_step(daemon, endless, 3)
    dropbox.cancel(home, endless)
    job = daemon.wait(endless, "cancelled", timeout_s=60)
    assert job.result is None
    job = daemon.wait(stopping, "done", "failed", timeout_s=180)
    assert job.state == "done", job.error
    assert job.result is not None
    assert "not fallen" in job.result["ended_early"]
    assert job.result["steps"] < 20


def test_what_must_not_train_fails_while_another_job_trains(
    home: Home, model: str, daemon: Runner, tmp_path: Path
) -> None:
    training = drop(home, train={"max_steps": 100_000})
    at_step(daemon, training, 1)
    nothing = tmp_path / "nothing.jsonl"
    nothing.write_text('{"prompt": "Hello", "completion": ""}\n' * 20)
    job = daemon.wait(drop(home, dataset=str(nothing)), "failed", timeout_s=60)
    assert job.error is not None
    assert job.error["code"] == "data_blocked"
    assert "none of the 20 rows" in job.error["message"]
    assert job.attempts == 0
    assert "Traceback" not in home.run(job.id).check_log.read_text()
    assert not home.run(job.id).log.exists()
    assert daemon.job(training).state == "running"
    dropbox.cancel(home, training)
    daemon.wait(training, "cancelled")


def test_what_was_checked_is_trained_on_though_the_file_is_gone(
    home: Home, model: str, daemon: Runner, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = (ROOT / "examples" / "support_tickets.jsonl").read_text().splitlines()[:40]
    rows.write_text("\n".join(lines))
    holding = drop(home, train={"max_steps": 100_000})
    job_id = drop(home, dataset=str(rows), train={"max_steps": 3})
    daemon.wait(job_id, "queued", timeout_s=60)
    sha256 = prepared.sha256(rows)
    rows.unlink()
    dropbox.cancel(home, holding)
    job = daemon.wait(job_id, "done", "failed", timeout_s=180)
    assert job.state == "done", job.error
    assert job.result is not None
    assert job.result["dataset"] == {"reference": str(rows), "sha256": sha256, "version": sha256[:12]}
    names = {path.name for path in home.run(job_id).data.iterdir()}
    assert names == {"train.arrow", "check.json", "prepared.json"}


def test_the_smallest_spec_resolves_every_auto(home: Home, model: str, daemon: Runner, tmp_path: Path) -> None:
    rows = (ROOT / "examples" / "support_tickets.jsonl").read_text().splitlines()[:40]
    (tmp_path / "few.jsonl").write_text("\n".join(rows))
    job_id = dropbox.submit(home, {"schema": 1, "model": "tiny", "dataset": str(tmp_path / "few.jsonl")})
    job = daemon.wait(job_id, "done", "failed", timeout_s=120)
    assert job.state == "done", job.error
    assert job.result is not None
    assert job.result["steps"] == 15
    spec = durable.read_json(home.run(job_id).spec)
    assert "auto" not in json.dumps({k: v for k, v in spec.items() if k != "lora"})
    assert (spec["precision"], spec["train"]["learning_rate"], spec["train"]["batch_size"]) == ("16bit", 5e-4, 8)
    assert spec["data"]["format"] == "prompt_completion"
    row = metrics.read(home.run(job_id).metrics)[0]
    assert {"v", "attempt", "seq", "t", "step", "loss", "learning_rate", "grad_norm", "tokens_per_s", "eta_s"} <= set(
        row
    )
