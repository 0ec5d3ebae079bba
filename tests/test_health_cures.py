"""The next thing to try after a failure: the smallest change, never the same twice, always a spec that is accepted."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from test_protocol_jobs import accept

from spool.health import cures
from spool.health.failure_codes import MEANINGS
from spool.protocol import durable, jobs, metrics
from spool.protocol.home import Home, State
from spool.protocol.parse import parse_spec
from spool.protocol.spec import JobSpec
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import is_ulid, mint

BASE = {"schema": 1, "model": "gemma-3-270m", "dataset": "support_tickets"}
OOM = {"code": "out_of_memory"}


def resolved(spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    """As the run's spec.json has it after training began."""
    document = JobSpec.model_validate(spec).to_json()
    size, accumulation = cures.batches(JobSpec.model_validate(spec).train)
    document["train"] |= {"batch_size": size, "gradient_accumulation": accumulation}
    if document["train"]["learning_rate"] == "auto":
        document["train"]["learning_rate"] = 5e-4
    if document["train"]["gradient_checkpointing"] == "auto":
        document["train"]["gradient_checkpointing"] = True
    if document["data"]["max_length"] == "auto":
        document["data"]["max_length"] = more.get("max_length", 1024)
    if document["precision"] == "auto":
        document["precision"] = "16bit"
    return document


def ladder(
    spec: dict[str, Any], code: str, tokens: dict[str, Any] | None = None, most: int = 40
) -> list[cures.Suggestion]:
    """What is suggested when each suggestion is tried and fails for the same reason."""
    tried: list[dict[str, Any]] = []
    found: list[cures.Suggestion] = []
    while len(found) < most:
        made = cures.suggest(spec, {"code": code}, resolved(spec), tokens, tried)
        if made is None:
            return found
        parse_spec(json.dumps(made.spec).encode())
        found.append(made)
        tried.insert(0, spec)
        spec = made.spec
    raise AssertionError("the ladder has no end")


def test_memory_goes_down_rung_by_rung() -> None:
    steps = ladder(dict(BASE), "out_of_memory")
    said = [{change.pointer: (change.before, change.after) for change in step.changes} for step in steps]
    assert said == [
        {"/train/batch_size": (8, 4), "/train/gradient_accumulation": (1, 2)},
        {"/train/batch_size": (4, 2), "/train/gradient_accumulation": (2, 4)},
        {"/train/batch_size": (2, 1), "/train/gradient_accumulation": (4, 8)},
        {"/data/max_length": (1024, 512)},
        {"/data/max_length": (512, 256)},
        {"/precision": ("16bit", "4bit")},
    ]
    assert steps[0].spec == {**BASE, "train": {"batch_size": 4, "gradient_accumulation": 2}}, "only what differs"
    assert steps[-1].spec == {
        **BASE,
        "train": {"batch_size": 1, "gradient_accumulation": 8},
        "data": {"max_length": 256},
        "precision": "4bit",
    }
    assert steps[0].sentence.startswith("Retry with train.batch_size 4, train.gradient_accumulation 2. ")


@pytest.mark.parametrize("train", [
    {"effective_batch": 12}, {"effective_batch": 7}, {"effective_batch": 1},
    {"batch_size": 32, "gradient_accumulation": 3},
    {"batch_size": 6, "effective_batch": 12}, {"gradient_accumulation": 4, "effective_batch": 12},
    {"batch_size": 5, "gradient_accumulation": 5, "effective_batch": 8},
])  # fmt: skip
def test_the_effective_batch_stays_the_same(train: dict[str, int]) -> None:
    spec = {**BASE, "train": train}
    size, accumulation = cures.batches(JobSpec.model_validate(spec).train)
    for step in ladder(spec, "out_of_memory"):
        now = cures.batches(JobSpec.model_validate(step.spec).train)
        assert now[0] * now[1] == size * accumulation
        if step.changes[0].pointer == "/train/batch_size":
            assert now[0] <= step.changes[0].before // 2


@pytest.mark.parametrize(
    ("limit", "tokens", "shorter"),
    [
        (2048, {}, 1024),
        (2048, {"p95": 300, "max": 2000}, 1000),
        (2048, {"p95": 1200, "max": 2000}, 1200),
        (2048, {"p95": 1201, "max": 2000}, 1208),
        (2048, {"p95": 1990, "max": 2000}, 1000),
        (4096, {"p95": 100, "max": 300}, 256),
        (4096, {"p95": 100, "max": 200}, None),
        (256, {}, None),
        (16, {"p95": None, "max": None}, None),
    ],
)
def test_rows_are_cut_where_few_are_long(limit: int, tokens: dict[str, Any], shorter: int | None) -> None:
    assert cures._shorter(limit, tokens) == shorter


def test_checkpointing_that_was_switched_off_comes_before_shorter_rows() -> None:
    spec = {**BASE, "train": {"batch_size": 1, "gradient_accumulation": 8, "gradient_checkpointing": False}}
    pointers = [[change.pointer for change in step.changes] for step in ladder(spec, "out_of_memory")]
    assert pointers[:2] == [["/train/gradient_checkpointing"], ["/data/max_length"]]


def test_packed_rows_came_one_by_one_already() -> None:
    document = resolved(BASE)
    document["train"]["packing"] = True
    made = cures.suggest(BASE, OOM, document, {"p95": 300, "max": 1000}, [])
    assert made is not None
    assert [change.pointer for change in made.changes] == ["/data/max_length"]


def test_a_diverged_job_gets_a_third_of_the_rate_until_it_would_learn_nothing() -> None:
    steps = ladder(dict(BASE), "diverged")
    rates = [step.spec["train"]["learning_rate"] for step in steps]
    assert rates[:3] == [1.7e-4, 5.7e-5, 1.9e-5]
    assert rates[-1] >= cures.LOWEST_RATE
    assert steps[0].changes[0].before == 5e-4


@pytest.mark.parametrize("code", ["data_blocked", "crash_loop", "bad_spec", "model_missing", "unexpected", "", None])
def test_what_must_be_corrected_by_hand_gets_no_suggestion(code: str | None) -> None:
    assert cures.suggest(BASE, {"code": code}) is None


def test_every_code_with_a_suggestion_is_explained() -> None:
    assert set(cures.AS_IT_IS) | set(cures.ONCE_MORE) <= set(MEANINGS)


def test_a_cause_outside_of_the_job_offers_it_as_it_is() -> None:
    spec = {**BASE, "submission_id": "mine", "retry_of": mint(), "name": "n"}
    made = cures.suggest(spec, {"code": "disk_full"}, tried=[spec])
    assert made is not None
    assert (made.spec, made.changes) == ({**BASE, "name": "n"}, [])
    made = cures.suggest(spec, {"code": "stalled"})
    assert made is not None
    assert made.changes == []
    assert cures.suggest(spec, {"code": "stalled"}, tried=[{**BASE, "name": "other"}]) is None


def test_nothing_is_suggested_twice_and_every_spec_is_accepted() -> None:
    rng = random.Random(4)
    for _ in range(60):
        spec: dict[str, Any] = dict(BASE)
        train = {
            "effective_batch": rng.choice([1, 2, 6, 8, 15, 64, 100]),
            "learning_rate": rng.choice(["auto", 1e-3, 2e-4, 1.0]),
            "gradient_checkpointing": rng.choice(["auto", True, False]),
        }
        spec["train"] = {name: value for name, value in train.items() if rng.random() < 0.6}
        if rng.random() < 0.5:
            spec["data"] = {"max_length": rng.choice([16, 300, 4096])}
        if rng.random() < 0.5:
            spec["precision"] = rng.choice(["4bit", "8bit", "16bit"])
        tokens = rng.choice([None, {"p95": 900, "max": 1500}])
        for code in ("out_of_memory", "diverged"):
            steps = ladder(spec, code, tokens)
            seen = [cures._same(each) for each in (spec, *(step.spec for step in steps))]
            assert len(set(seen)) == len(seen)


def test_a_spec_that_was_tried_by_hand_is_passed_over() -> None:
    tried = [{**BASE, "train": {"batch_size": 4, "gradient_accumulation": 2, "effective_batch": 8}, "name": "by hand"}]
    made = cures.suggest(BASE, OOM, resolved(BASE), None, tried)
    assert made is not None
    assert [(change.pointer, change.before, change.after) for change in made.changes] == [
        ("/train/batch_size", 8, 2),
        ("/train/gradient_accumulation", 1, 4),
    ]


# --- of a job in a data home


def failed(home: Home, spec: dict[str, Any], error: dict[str, Any], attempts: int = 1) -> str:
    job_id = mint()
    run = home.run(job_id)
    run.attempts.mkdir(parents=True)
    run.data.mkdir()
    durable.write_json(run.spec_orig, spec)
    durable.write_json(run.spec, resolved(spec))
    for number in range(1, attempts + 1):
        durable.write_json(run.attempts / f"{number:04d}.json", {"attempt": number})
    Tokens(home).create(State.FAILED, Token(5, Tokens(home).last_sequence() + 1, job_id), {"name": "a"})
    durable.write_json(run.outcome, {"state": "failed", "ended_at": jobs.now_iso(), "error": error})
    return job_id


def of(home: Home, job_id: str) -> cures.Suggestion | None:
    return cures.suggestion(home, jobs.get_job(home, job_id))


def test_a_retry_of_a_retry_steps_further_down(home: Home) -> None:
    job_id = failed(home, dict(BASE), OOM)
    (home.run(job_id).data / "check.json").write_text('{"tokens": {"p95": 700, "max": 900}}')
    seen = []
    for _ in range(20):
        made = of(home, job_id)
        if made is None:
            break
        assert made.spec["retry_of"] == job_id
        seen.append([change.after for change in made.changes])
        job_id = failed(home, made.spec, OOM)
        (home.run(job_id).data / "check.json").write_text('{"tokens": {"p95": 700, "max": 900}}')
    assert seen == [[4, 2], [2, 4], [1, 8], [450], [256], ["4bit"]]


def test_a_job_with_damaged_files_gets_none_and_no_error(home: Home) -> None:
    job_id = failed(home, dict(BASE), OOM)
    run = home.run(job_id)
    run.spec.write_text("{")
    (run.data / "check.json").write_text('{"tokens": 7}')
    assert of(home, job_id) is not None
    run.spec_orig.write_text("[]")
    assert of(home, job_id) is None
    run.spec_orig.write_text('{"schema": 9, "model": 3}')
    assert of(home, job_id) is None


def test_a_chain_of_retries_that_bites_its_tail_ends(home: Home) -> None:
    first, second = failed(home, dict(BASE), OOM), failed(home, dict(BASE), OOM)
    durable.write_json(home.run(first).spec_orig, {**BASE, "retry_of": second})
    durable.write_json(home.run(second).spec_orig, {**BASE, "retry_of": first})
    made = of(home, first)
    assert made is not None
    assert made.changes[0].after == 4
    durable.write_json(home.run(first).spec_orig, {**BASE, "retry_of": "../../../etc"})
    assert of(home, first) is not None


def test_an_export_has_no_setting_that_helps() -> None:
    spec = {"schema": 1, "kind": "export", "job": "01K00001ABCDEFGHJKMNPQRSTV", "export": ["merged"]}
    for code in ("out_of_memory", "diverged"):
        assert cures.suggest(spec, {"code": code}, spec) is None
    full = cures.suggest(spec, {"code": "disk_full"})
    assert full is not None
    assert full.spec == spec


def test_a_check_that_ran_out_of_memory_is_not_helped_by_the_training(home: Home) -> None:
    assert of(home, failed(home, dict(BASE), OOM, attempts=0)) is None


def test_only_failed_jobs_get_one(home: Home, tmp_path: Path) -> None:
    job_id = accept(home, State.QUEUED)
    assert of(home, job_id) is None
    job_id = accept(home, State.DONE)
    assert of(home, job_id) is None


def test_submitting_a_suggestion_twice_is_one_job(home: Home) -> None:
    job_id = failed(home, dict(BASE), OOM)
    made = of(home, job_id)
    assert made is not None
    first = cures.submit(home, job_id, made)
    dropped = json.loads((home.incoming / f"{first}.json").read_bytes())
    assert dropped == made.spec | {"submission_id": cures.submission_id(job_id)}
    assert is_ulid(first)
    assert cures.submit(home, job_id, made) == first, "the runner has not taken it yet"
    assert cures.submitted(home, job_id) == first
    assert len(list(home.incoming.iterdir())) == 1
    other = accept(home, State.QUEUED)  # dropped by a script under the same submission_id
    home.submission(cures.submission_id(job_id)).write_text(other + "\n")
    assert cures.submit(home, job_id, made) == other


def test_a_suggestion_that_was_not_accepted_can_be_submitted_again(home: Home) -> None:
    job_id = failed(home, dict(BASE), OOM)
    made = of(home, job_id)
    assert made is not None
    first = cures.submit(home, job_id, made)
    (home.incoming / f"{first}.json").unlink()
    (home.rejected / first).mkdir()
    durable.write_json(home.rejected / first / "reason.json", {"code": "queue_full"})
    assert cures.submitted(home, job_id) is None
    assert cures.submit(home, job_id, made) != first


# --- on the command line


def finetuner(home: Home, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "spool.cli.main", "--home", str(home.root), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_what_its_check_foresaw_is_suggested_before_anything_else(home: Home) -> None:
    waiting, ended = accept(home, State.QUEUED), failed(home, BASE, OOM | {"message": "it ran out.", "hint": ""})
    words = "it needs about 9.1 GB, and the GPU has 6.0 GB. It fits with the base in 4 bit: about 5.0 GB."
    fits_with = {"/precision": "4bit", "/train/gradient_checkpointing": True}
    for job_id in (waiting, ended):
        metrics.Writer(home.run(job_id).events, attempt=0).write(event="unfit", words=words, fits_with=fits_with)
    assert f"too large   {words}\n" in finetuner(home, "show", waiting)[1]
    made = of(home, ended)
    assert made is not None
    assert [change.pointer for change in made.changes] == ["/precision"], "checkpointing was on already"
    again = cures.suggest(BASE, OOM, resolved(BASE), tried=[made.spec], fits_with=fits_with)
    assert again is not None
    assert again.spec["precision"] == "4bit"
    assert again.changes[-1].pointer == "/train/gradient_accumulation"


def test_show_tells_error_evidence_and_the_suggested_change(home: Home) -> None:
    error = OOM | {"message": "the card's memory ran out.", "hint": "Retry."}
    error["evidence"] = "torch.OutOfMemoryError: \x1b[31mx"
    job_id = failed(home, dict(BASE), error)
    _, text, _ = finetuner(home, "show", job_id)
    assert "error       the card's memory ran out. Retry." in text
    assert "evidence    torch.OutOfMemoryError: \\x1b[31mx" in text
    assert "suggested   Retry with train.batch_size 4, train.gradient_accumulation 2." in text
    assert "train.batch_size: 8 -> 4" in text
    shown = json.loads(finetuner(home, "show", job_id, "--json")[1])
    assert shown["error"]["evidence"].startswith("torch.OutOfMemoryError")
    assert shown["suggestion"]["changes"][0] | {"why": ""} == {
        "pointer": "/train/batch_size", "before": 8, "after": 4, "why": ""
    }  # fmt: skip
    assert shown["suggestion"]["spec"]["retry_of"] == job_id


def test_retry_suggested_prints_the_difference_and_drops_it_once(home: Home) -> None:
    job_id = failed(home, dict(BASE), OOM)
    code, out, said = finetuner(home, "retry", job_id, "--suggested")
    assert code == 0
    assert "train.batch_size: 8 -> 4" in said
    dropped = json.loads((home.incoming / f"{out.strip()}.json").read_bytes())
    assert dropped["train"] == {"batch_size": 4, "gradient_accumulation": 2}
    home.submission(cures.submission_id(job_id)).write_text(out)
    assert finetuner(home, "retry", job_id, "--suggested")[1] == out
    same = finetuner(home, "retry", job_id)[1].strip()
    assert "train" not in json.loads((home.incoming / f"{same}.json").read_bytes())


def test_retry_suggested_where_there_is_nothing_to_suggest(home: Home) -> None:
    hint = "Correct the rows."
    blocked = failed(home, dict(BASE), {"code": "data_blocked", "message": "bad.", "hint": hint})
    for job_id, cure in ((blocked, hint), (accept(home, State.QUEUED), "finetuner retry")):
        code, out, said = finetuner(home, "retry", job_id, "--suggested")
        assert (code, out) == (1, "")
        assert "no change to suggest" in said
        assert cure in said
    assert list(home.incoming.iterdir()) == []
    assert json.loads(finetuner(home, "show", blocked, "--json")[1])["suggestion"] is None
