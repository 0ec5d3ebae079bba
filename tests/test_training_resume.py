"""A training that is stopped, killed or damaged at any point ends as the undisturbed one, bit for bit (CPU)."""

import json
import os
import pickle
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from trainer_process import TrainerProcess

from runner import checkpoint
from spool.protocol import durable, metrics
from spool.protocol.home import Home

pytestmark = pytest.mark.training

SPEC: dict[str, Any] = {
    "lora": {"dropout": 0.1},  # so that the random state counts
    "train": {"max_steps": 8, "save_steps": 3, "effective_batch": 4, "batch_size": 2},
    "data": {"eval_fraction": 0.02},
    "eval": {"every_steps": 2},
    "limits": {"min_free_gb": 0},
}


@pytest.fixture(scope="module")
def trainer(tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainerProcess]:
    process = TrainerProcess(Home(tmp_path_factory.mktemp("home")).create(), tiny_gemma)
    yield process
    process.end()


@pytest.fixture(scope="module")
def straight(trainer: TrainerProcess) -> tuple[str, dict[str, Any]]:
    """(id, answer) of a job that nothing disturbed."""
    job_id = trainer.job(**SPEC)
    answer = trainer.attempt(job_id)
    assert answer["outcome"] == "finished", answer
    return job_id, answer


def fresh(trainer: TrainerProcess, straight: tuple[str, dict[str, Any]]) -> str:
    """The same job with its data prepared, before its first attempt."""
    job_id = trainer.copy(straight[0])
    run = trainer.home.run(job_id)
    shutil.rmtree(run.checkpoints)
    shutil.rmtree(run.exports)
    run.metrics.unlink()
    run.events.unlink()
    return job_id


@pytest.fixture(scope="module")
def broken_off(trainer: TrainerProcess, straight: tuple[str, dict[str, Any]]) -> str:
    """A job that was killed after step 7, with the checkpoints of steps 4 and 6 (and that of 3 rotated away)."""
    job_id = fresh(trainer, straight)
    assert trainer.attempt(job_id, kill_after=7)["outcome"] == "killed"
    assert [path.name for path in checkpoint.listed(trainer.home.run(job_id).checkpoints)][-1] == "checkpoint-6"
    return job_id


def same(trainer: TrainerProcess, job_id: str, straight: tuple[str, dict[str, Any]], answer: dict[str, Any]) -> None:
    assert answer["outcome"] == "finished", answer
    assert trainer.learned(job_id) == trainer.learned(straight[0])
    for name in ("steps", "tokens", "final_loss", "eval_loss", "best_step", "ended_early"):
        assert answer["result"][name] == straight[1]["result"][name], name


def nan(path: Path) -> None:
    """Every number of the adapter becomes NaN."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[:start] + b"\xff" * (len(data) - start))


SEVEN = (
    "adapter_model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "adapter_config.json",
    "training_args.bin",
)
HOW: dict[str, Callable[[Path], Any]] = {
    "missing": lambda path: path.unlink(),
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "zero length": lambda path: os.truncate(path, 0),
    "NUL-filled": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def sentinel(folder: Path) -> None:
    (folder / "checkpoint-is-incomplete.txt").touch()  # what transformers' own just-in-time checkpoint leaves
    (folder / "optimizer.pt").unlink()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    **{f"{name} {how}": lambda f, n=name, d=do: d(f / n) for name in SEVEN for how, do in HOW.items()},
    "empty folder": empty,
    "sentinel and no optimizer": sentinel,
    "adapter all NaN": lambda folder: nan(folder / SEVEN[0]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(
    trainer: TrainerProcess, straight: tuple[str, dict[str, Any]], broken_off: str, damage: str
) -> None:
    job_id = trainer.copy(broken_off)
    folder = trainer.home.run(job_id).checkpoints
    newest = checkpoint.listed(folder)[-1]
    DAMAGES[damage](newest)
    same(trainer, job_id, straight, trainer.attempt(job_id, 2))
    assert len(list(folder.glob(f"{newest.name}.incomplete-*"))) == 1
    assert f"{newest.name} is not resumed from" in trainer.notes(job_id)[0]
    shutil.rmtree(trainer.home.run(job_id).root)


def test_an_intact_one_is_used(trainer: TrainerProcess, straight: tuple[str, dict[str, Any]], broken_off: str) -> None:
    job_id = trainer.copy(broken_off)
    step = checkpoint.newest_step(trainer.home.run(job_id).checkpoints)
    same(trainer, job_id, straight, trainer.attempt(job_id, 2))
    phases = [row.get("phase") for row in metrics.read(trainer.home.run(job_id).events)]
    assert f"training, from step {step}" in phases
    assert trainer.notes(job_id) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_five_interruptions_at_random_change_nothing(
    trainer: TrainerProcess, straight: tuple[str, dict[str, Any]], seed: int
) -> None:
    rng = random.Random(seed)
    job_id = fresh(trainer, straight)
    outcomes = []
    for number in range(1, 6):
        order = {rng.choice(["stop_at", "stop_at", "kill_at"]): rng.randint(1, straight[1]["pulses"] // 3)}
        outcomes.append(trainer.attempt(job_id, number, **order)["outcome"])
    assert set(outcomes) <= {"stopped", "killed"}, outcomes
    same(trainer, job_id, straight, trainer.attempt(job_id, 6))
    shutil.rmtree(trainer.home.run(job_id).root)


SAMPLED = {**SPEC, "eval": {"every_steps": 2, "sample_prompts": ["Where is my order?", "Hello"]}}


def sampled(trainer: TrainerProcess, job_id: str) -> list[tuple[int, int, str, str]]:
    rows = metrics.read(trainer.home.run(job_id).samples)
    return [(row["step"], row["prompt_index"], row["answer"], row["base"]) for row in rows]


@pytest.fixture(scope="module")
def with_samples(trainer: TrainerProcess, straight: tuple[str, dict[str, Any]]) -> str:
    """The undisturbed job, with sample answers at each evaluation."""
    job_id = trainer.job(**SAMPLED)
    same(trainer, job_id, straight, trainer.attempt(job_id))
    return job_id


def test_sample_answers_change_nothing_that_is_learned(trainer: TrainerProcess, with_samples: str) -> None:
    rows = sampled(trainer, with_samples)
    assert [row[:2] for row in rows] == [(step, i) for step in (0, 2, 4, 6, 8) for i in (0, 1)]
    assert all(answer == base for step, _, answer, base in rows if step == 0)
    assert {base for _, i, _, base in rows if i == 0} == {rows[0][3]}
    assert any(answer != base for step, _, answer, base in rows if step == 8)
    assert trainer.notes(with_samples) == []


@pytest.mark.parametrize("seed", [3, 4])
def test_interrupted_with_sample_answers_nothing_changes_and_the_base_is_asked_once(
    trainer: TrainerProcess, straight: tuple[str, dict[str, Any]], with_samples: str, seed: int
) -> None:
    rng, job_id = random.Random(seed), trainer.job(**SAMPLED)
    for number in range(1, 5):
        order = {rng.choice(["stop_at", "kill_at"]): rng.randint(30, 500)}
        trainer.attempt(job_id, number, **order)
    same(trainer, job_id, straight, trainer.attempt(job_id, 5))
    rows, undisturbed = sampled(trainer, job_id), sampled(trainer, with_samples)
    assert len({row[:2] for row in rows}) == len(rows)
    assert set(rows) <= set(undisturbed), "an answer of a resumed training differs"
    assert [row[:2] for row in rows[:2]] == [(0, 0), (0, 1)]


def test_what_fails_in_sampling_is_told_once_and_fails_nothing(
    trainer: TrainerProcess, straight: tuple[str, dict[str, Any]]
) -> None:
    job_id = trainer.job(**SAMPLED)
    trainer.home.run(job_id).samples.mkdir()  # nothing can be written there
    same(trainer, job_id, straight, trainer.attempt(job_id))
    (note,) = trainer.notes(job_id)
    assert note.startswith("no more sample answers are made: IsADirectoryError")


def test_a_stop_at_each_kind_of_point_is_interrupted_and_resumes(
    trainer: TrainerProcess, straight: tuple[str, dict[str, Any]]
) -> None:
    """Every seventh sign of life: load, first step, inside an accumulated step, between steps, evaluation, export."""
    stopped = 0
    for pulse in range(2, straight[1]["pulses"] + 1, 7):
        job_id = fresh(trainer, straight)
        first = trainer.attempt(job_id, 1, stop_at=pulse)
        if first["outcome"] == "finished" and first["pulses"] < pulse:
            break  # the undisturbed job prepared its data too, and so gave more signs
        assert first["outcome"] == "stopped", (pulse, first)
        same(trainer, job_id, straight, trainer.attempt(job_id, 2))
        shutil.rmtree(trainer.home.run(job_id).root)
        stopped += 1
    assert stopped >= 7


def test_where_the_card_is_too_small_the_same_rows_come_in_smaller_parts(trainer: TrainerProcess) -> None:
    """In mid-run: the same job goes on from its newest checkpoint, and learns nearly the same."""
    spec = {**SPEC, "lora": {}, "train": {**SPEC["train"], "effective_batch": 4, "batch_size": 4}}
    undisturbed, job_id = trainer.job(**spec), trainer.job(**spec)
    assert trainer.attempt(undisturbed)["outcome"] == "finished"
    assert trainer.attempt(job_id, small_from=6)["outcome"] == "begun anew"
    answer = trainer.attempt(job_id, small_from=1)
    assert answer["outcome"] == "finished", answer
    train = durable.read_json(trainer.home.run(job_id).spec)["train"]
    assert [train[name] for name in ("effective_batch", "batch_size", "gradient_accumulation")] == [4, 2, 2]
    (note,) = trainer.notes(job_id)
    assert note.startswith("the memory ran out with rows by 4 on the card: from now on they come by 2.")
    curves = [trainer.learned(each)[1] for each in (undisturbed, job_id)]
    assert curves[0].keys() == curves[1].keys()
    assert curves[1] == pytest.approx(curves[0], abs=0.01)


def test_another_spec_starts_anew_and_says_so(trainer: TrainerProcess, broken_off: str) -> None:
    job_id = trainer.copy(broken_off)
    run = trainer.home.run(job_id)
    spec = durable.read_json(run.spec)
    durable.write_json(run.spec, {**spec, "train": {**spec["train"], "seed": 43}})
    first = len(metrics.read(run.metrics))
    answer = trainer.attempt(job_id, 2)
    assert answer["outcome"] == "finished", answer
    assert [row["step"] for row in metrics.read(run.metrics)[first:] if "loss" in row] == list(range(1, 9))
    assert all("it belongs to another spec or other data" in words for words in trainer.notes(job_id))
    assert len(trainer.notes(job_id)) == len(list(run.checkpoints.glob("*.incomplete-*"))) >= 2


def test_nothing_of_a_checkpoint_is_loaded_that_does_not_verify(
    trainer: TrainerProcess, straight: tuple[str, dict[str, Any]], broken_off: str, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"

    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.system, (f"touch {canary}",))

    job_id = trainer.copy(broken_off)
    for folder in checkpoint.listed(trainer.home.run(job_id).checkpoints):
        for name in ("optimizer.pt", "rng_state.pth", "scheduler.pt", "training_args.bin"):
            (folder / name).write_bytes(pickle.dumps(Malicious()))
    same(trainer, job_id, straight, trainer.attempt(job_id, 2))
    # and where the manifest was made to fit: torch's weights_only refuses it, and the job says so
    job_id = trainer.copy(broken_off)
    newest = checkpoint.listed(trainer.home.run(job_id).checkpoints)[-1]
    (newest / "optimizer.pt").write_bytes(pickle.dumps(Malicious()))
    spec_hash = json.loads((newest / "COMPLETE.json").read_text())["spec_sha256"]
    checkpoint.complete(newest, spec_hash)
    answer = trainer.attempt(job_id, 2)
    assert answer["outcome"] == "failed"
    assert not canary.exists()


def test_a_disk_that_fills_in_a_checkpoint_leaves_the_last_good_one(
    trainer: TrainerProcess, straight: tuple[str, dict[str, Any]]
) -> None:
    job_id = fresh(trainer, straight)
    folder = trainer.home.run(job_id).checkpoints
    folder.mkdir()
    size = sum(p.stat().st_size for p in checkpoint.listed(trainer.home.run(straight[0]).checkpoints)[-1].iterdir())
    command = ["mount", "-t", "tmpfs", "-o", f"size={int(size * 1.6) // 4096 * 4096}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        answer = trainer.attempt(job_id)
        assert answer["outcome"] == "failed"
        assert answer["error"]["code"] == "disk_full"
        assert "for the checkpoint of step" in answer["error"]["message"]
        good = checkpoint.listed(folder)
        assert len(good) == 1
        spec_hash = json.loads((good[0] / "COMPLETE.json").read_text())["spec_sha256"]
        assert checkpoint.problem(good[0], spec_hash) is None
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        same(trainer, job_id, straight, trainer.attempt(job_id, 2))
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_loss_that_is_no_number_ends_as_diverged_and_keeps_the_last_finite_checkpoint(
    trainer: TrainerProcess, straight: tuple[str, dict[str, Any]]
) -> None:
    job_id = fresh(trainer, straight)
    answer = trainer.attempt(job_id, nan_from=10)  # two batches a step, and evaluations between
    assert (answer["outcome"], answer["error"]["code"]) == ("failed", "diverged")
    run = trainer.home.run(job_id)
    row = metrics.read(run.metrics)[-1]
    assert row["loss"] is None
    assert row["nonfinite"]["loss"] == "nan"
    kept = checkpoint.listed(run.checkpoints)
    assert kept
    assert all(checkpoint.not_finite(folder / checkpoint.ADAPTER) is None for folder in kept)
    same(trainer, job_id, straight, trainer.attempt(job_id, 2))


def test_the_time_limit_counts_all_attempts_and_keeps_what_was_learned(trainer: TrainerProcess) -> None:
    job_id = trainer.job(**{**SPEC, "limits": {"min_free_gb": 0, "max_hours": 1e-6}})
    answer = trainer.attempt(job_id)
    assert answer["outcome"] == "finished", answer
    result = answer["result"]
    assert (result["steps"], result["ended_early"]) == (1, "the limit of 1e-06 hours is reached")
    assert result["eval_loss"] is not None
    assert (trainer.home.run(job_id).exports / "adapter" / "adapter_model.safetensors").exists()
    assert checkpoint.newest_step(trainer.home.run(job_id).checkpoints) == 1


def test_early_stopping_takes_its_patience_and_its_best_over_a_resume(trainer: TrainerProcess) -> None:
    spec = {
        **SPEC,
        "train": {**SPEC["train"], "max_steps": 60, "save_steps": 4},
        "limits": {"min_free_gb": 0, "early_stopping": {"patience": 3, "min_delta": 1.0}},
    }
    job_id = trainer.job(**spec)
    straight = (job_id, trainer.attempt(job_id))
    result = straight[1]["result"]
    assert (result["steps"], result["best_step"]) == (8, 2)
    assert result["ended_early"] == "the eval loss has not fallen for 3 evaluations"
    best = trainer.home.run(job_id).checkpoints / "checkpoint-2" / "adapter_model.safetensors"
    assert best.exists(), "rotation took the best"
    assert trainer.learned(job_id)[0] == best.read_bytes(), "the result is not the best"
    for stop in (straight[1]["pulses"] // 2, straight[1]["pulses"] - 6):
        again = fresh(trainer, straight)
        assert trainer.attempt(again, 1, stop_at=stop)["outcome"] == "stopped"
        same(trainer, again, straight, trainer.attempt(again, 2))


def test_a_best_checkpoint_that_was_lost_is_said_and_does_not_end_the_job(
    trainer: TrainerProcess, straight: tuple[str, dict[str, Any]], broken_off: str
) -> None:
    job_id = trainer.copy(broken_off)
    newest = checkpoint.listed(trainer.home.run(job_id).checkpoints)[-1]
    progress = json.loads((newest / "progress.json").read_text())
    progress["best"] = [0.5, 1]  # a checkpoint that is not there
    (newest / "progress.json").write_text(json.dumps(progress))
    checkpoint.complete(newest, json.loads((newest / "COMPLETE.json").read_text())["spec_sha256"])
    answer = trainer.attempt(job_id, 2)
    assert answer["outcome"] == "finished", answer
    assert answer["result"]["best_step"] == 8
    assert "the best checkpoint so far (checkpoint-1) is lost: it was never finished" in trainer.notes(job_id)[0]


def test_a_job_does_not_start_on_a_disk_that_is_nearly_full(trainer: TrainerProcess) -> None:
    answer = trainer.attempt(trainer.job(**{**SPEC, "limits": {"min_free_gb": 99_999}}))
    assert (answer["outcome"], answer["error"]["code"]) == ("failed", "disk_full")
    assert "limits.min_free_gb is 99999" in answer["error"]["message"]


def test_a_sign_of_life_costs_one_touch_a_second(trainer: TrainerProcess, straight: tuple[str, dict[str, Any]]) -> None:
    pulse = trainer.home.run(straight[0]).pulse
    assert pulse.exists()
    assert straight[1]["pulses"] > 8 * 3
