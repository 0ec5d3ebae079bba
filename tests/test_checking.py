"""The checking child as the daemon starts it: real data and a real tokenizer; and what training makes of its work."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, wait_for
from test_data_chat import folder
from test_data_prepare import kept, pairs, spoil

from runner import train
from runner.job import Attempt, StopRequest
from spool.data import prepared
from spool.data.judging.chat import Encoder
from spool.forecast import shapes
from spool.health import cures
from spool.protocol import durable, jobs, metrics
from spool.protocol.home import Home, State
from spool.protocol.spec import JobSpec
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import mint


@pytest.fixture(autouse=True)
def model(home: Home) -> None:
    (home.models / "m").mkdir()
    folder(home.models / "m")


def job(home: Home, dataset: Path, state: State = State.CHECKING, **more: object) -> str:
    job_id = mint()
    run = home.run(job_id)
    run.root.mkdir()
    spec = JobSpec.model_validate({"schema": 1, "model": "m", "dataset": str(dataset), **more})
    durable.write_json(run.spec, spec.to_json())
    tokens = Tokens(home)
    tokens.create(state, Token(5, tokens.last_sequence() + 1, job_id), {"name": "x"})
    return job_id


def command(home: Home, *job_ids: str) -> list[str]:
    return [sys.executable, "-m", "runner.checking", "--home", str(home.root), *job_ids]


def check(home: Home, *job_ids: str) -> list[dict[str, object] | None]:
    """Runs the child to its end and gives its word on each job."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # as the daemon has it
    words = command(home, *job_ids)
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [durable.read_json(home.run(job_id).checked) for job_id in job_ids]


def test_what_passes_is_ready_to_train_on(home: Home, tmp_path: Path) -> None:
    first, second = job(home, pairs(tmp_path / "a.jsonl", 200)), job(home, ROOT / "examples" / "support_tickets.jsonl")
    assert check(home, first, second) == [{"v": 1, "outcome": "passed", "error": None}] * 2
    data = prepared.load(home.run(first).data)
    assert data is not None
    assert (data.train_rows, data.eval_rows, len(kept(data.train))) == (190, 10, 190)
    assert data.dataset["reference"] == str(tmp_path / "a.jsonl")
    phases = [row["phase"] for row in metrics.read(home.run(first).events)]
    assert phases == [
        "loading the tokenizer",
        "checking the data",
        "comparing rows",
        "counting tokens",
        "writing 190 rows",
        "the data is good: 190 rows to train on, 10 to evaluate on",
    ]
    assert {row["attempt"] for row in metrics.read(home.run(first).events)} == {0}
    assert "loading the tokenizer" not in home.run(second).check_log.read_text()
    shown = jobs.get_job(home, first)
    assert (shown.state, shown.phase, shown.attempts) == ("checking", phases[-1], 0)


def test_what_will_not_fit_is_told_what_would_and_queued(home: Home, tmp_path: Path) -> None:
    """Its memory by the forecast: a base as large as Gemma 2B, in 16 bit, on a card of 6 GB."""
    shape = shapes.named("gemma-2b")
    assert shape is not None
    config = {theirs: getattr(shape, ours) for ours, theirs in shapes.FIELDS.items()}
    (home.models / "m" / "config.json").write_text(json.dumps({"model_type": "gemma", **config}))
    card = {"v": 1, "uuid": "GPU-1", "name": "NVIDIA L4", "count": 1, "mem_total_bytes": 6_000_000_000}
    durable.write_json(home.card_json, card)
    large, small = (job(home, pairs(tmp_path / "a.jsonl", 200), precision=each) for each in ("16bit", "4bit"))
    words = check(home, large, small)
    assert [word and word["outcome"] for word in words] == ["passed", "passed"]
    (said,) = cures.unfit(home, large)
    assert said["fits_with"] == {"/precision": "4bit"}
    assert said["words"].startswith("it needs about ")
    assert "It fits with the base in 4 bit" in said["words"]
    assert said["words"] in home.run(large).check_log.read_text()
    assert jobs.get_job(home, large).phase == "the data is good: 190 rows to train on, 10 to evaluate on"
    assert cures.unfit(home, small) == []


def test_what_must_not_train_fails_with_its_reason(home: Home, tmp_path: Path) -> None:
    empty = job(home, pairs(tmp_path / "a.jsonl", 20, bad=20))
    gone, no_model, outside = job(home, tmp_path / "b.jsonl"), job(home, tmp_path / "a.jsonl", model="n"), None
    outside = job(home, Path("/etc/hostname"))
    good = job(home, pairs(tmp_path / "c.jsonl", 20))
    words = check(home, empty, gone, no_model, outside, good)
    assert [word and word["outcome"] for word in words] == ["failed"] * 4 + ["passed"]
    codes = [word["error"]["code"] for word in words[:4]]  # type: ignore[index]
    assert codes == ["data_blocked", "dataset_missing", "model_missing", "outside_roots"]
    error = words[0]["error"]  # type: ignore[index]
    assert "none of the 20 rows can be trained on" in error["message"]  # type: ignore[index]
    assert durable.read_json(home.run(empty).data / "check.json")["blocked"].items() <= error.items()
    assert prepared.load(home.run(empty).data) is None
    log = home.run(empty).check_log.read_text()
    assert "none of the 20 rows" in log
    assert "Traceback" not in log


def test_what_nobody_foresaw_is_told_in_words_and_logged(home: Home, tmp_path: Path) -> None:
    path = pairs(tmp_path / "a.jsonl", 20)
    broken, good = job(home, path), job(home, path)
    home.run(broken).data.write_text("in the way")
    words = check(home, broken, good)
    assert words[0] is not None
    assert words[0]["error"]["code"] == "check_failed"  # type: ignore[index]
    assert "broke off" in words[0]["error"]["message"]  # type: ignore[index]
    assert "Traceback" in home.run(broken).check_log.read_text()
    assert words[1] == {"v": 1, "outcome": "passed", "error": None}


def test_jobs_that_left_are_passed_over(home: Home, tmp_path: Path) -> None:
    path = pairs(tmp_path / "a.jsonl", 20)
    cancelled, good = job(home, path, State.CANCELLED), job(home, path)
    assert check(home, cancelled, good)[0] is None
    assert not home.run(cancelled).data.exists()
    assert home.run(good).checked.exists()


def test_two_children_never_write_one_job(home: Home, tmp_path: Path) -> None:
    job_id = job(home, pairs(tmp_path / "a.jsonl", 20))
    run = home.run(job_id)
    fd = os.open(run.root, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    process = subprocess.Popen(command(home, job_id), cwd=ROOT)
    try:
        wait_for(run.check_log.exists)
        nice = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[16])
        assert nice == min(19, os.nice(0) + 10)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        word = {"v": 1, "outcome": "failed", "error": {"code": "other", "message": "the other child's.", "hint": ""}}
        durable.write_json(run.checked, word)
        os.close(fd)
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert durable.read_json(run.checked) == word
    assert not run.data.exists()


def test_the_child_never_loads_torch(home: Home, tmp_path: Path) -> None:
    job_id = job(home, pairs(tmp_path / "a.jsonl", 200))
    code = (
        "import sys; from runner import checking; checking.main(sys.argv[1:]);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    arguments = [sys.executable, "-c", code, "--home", str(home.root), job_id]
    subprocess.run(arguments, cwd=ROOT, check=True, timeout=60)
    assert durable.read_json(home.run(job_id).checked)["outcome"] == "passed"
    loaded = set(home.run(job_id).check_log.read_text().splitlines()[-1].split())
    assert {"pyarrow", "tokenizers"} <= loaded
    assert not loaded & {"torch", "transformers", "datasets", "unsloth", "pandas"}


def found_by_training(home: Home, job_id: str) -> prepared.Prepared:
    attempt = Attempt(home, job_id, 1, StopRequest(home, job_id))
    spec = JobSpec.model_validate(durable.read_json(attempt.run.spec))
    base = train.Base("m", home.models / "m", None, 0, 0)
    return train._find_data(spec, attempt, base, Encoder.for_model(base.folder))


def test_training_uses_what_was_checked_also_when_the_file_is_another_one_now(home: Home, tmp_path: Path) -> None:
    path = pairs(tmp_path / "a.jsonl", 200)
    job_id = job(home, path)
    check(home, job_id)
    left = prepared.load(home.run(job_id).data)
    pairs(path, 10)
    assert found_by_training(home, job_id) == left
    path.unlink()
    assert found_by_training(home, job_id) == left


def test_damaged_or_missing_rows_are_prepared_anew(home: Home, tmp_path: Path) -> None:
    job_id = job(home, pairs(tmp_path / "a.jsonl", 200))
    check(home, job_id)
    left = prepared.load(home.run(job_id).data)
    assert left is not None
    rows = kept(left.train)
    spoil(left.train)
    assert found_by_training(home, job_id) == left
    assert kept(left.train) == rows
    (left.folder / "prepared.json").unlink()
    assert found_by_training(home, job_id) == left


def test_rows_for_another_tokenizer_are_prepared_anew(home: Home, tmp_path: Path) -> None:
    job_id = job(home, pairs(tmp_path / "a.jsonl", 20))
    check(home, job_id)
    left = prepared.load(home.run(job_id).data)
    assert left is not None
    template = Encoder.for_model(home.models / "m").template.replace("role + '\\n'", "role + '\\n! '")
    (home.models / "m" / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    anew = found_by_training(home, job_id)
    assert anew.tokenizer_sha256 != left.tokenizer_sha256
    assert anew.files != left.files
