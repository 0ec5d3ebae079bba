"""What a job will take: formulas against measured runs, learning from finished jobs, problems with computed cures."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spool.data.background import Request
from spool.data.keeping import keep
from spool.forecast import costs, history, machine, shapes, steps
from spool.forecast.costs import Plan
from spool.forecast.estimate import REPORT_MINUTES, Estimate, estimate
from spool.forecast.machine import Machine
from spool.health.gpu import Gpu
from spool.protocol import durable
from spool.protocol.home import Home, State
from spool.protocol.spec import EvaluateSpec, JobSpec
from spool.protocol.states import Token, Tokens
from spool.protocol.training import Eval, Lora, Train

GB = 10**9
H100 = Machine("NVIDIA H100 80GB HBM3", 85 * GB, 100 * GB, 1000 * GB, 16)
SMALL_CARD = replace(H100, gpu="NVIDIA L4", gpu_bytes=6 * GB)
CPU = Machine(None, None, 24 * GB, 100 * GB, 2)
TICKETS = "examples/support_tickets.jsonl"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.chdir(Path(__file__).resolve().parent.parent)
    return Home(tmp_path / "home").create()


def base(home: Home, name: str = "gemma-3-270m", **config: Any) -> None:
    shape = shapes.named(name)
    assert shape is not None
    known = {theirs: getattr(shape, ours) for ours, theirs in shapes.FIELDS.items()}
    folder = home.models / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(known | config))


def finished(home: Home, number: int, step_s: float = 1.5, **result: Any) -> str:
    """A finished training of the embedded model on 380 rows, as the runner leaves it; `result` overrides."""
    job_id = f"01K{number:05d}ABCDEFGHJKMNPQRSTV"
    run = home.run(job_id)
    run.attempts.mkdir(parents=True)
    spec = JobSpec.model_validate({"schema": 1, "model": "gemma-3-270m", "dataset": TICKETS}).to_json()
    spec["precision"] = "16bit"
    spec["train"] |= {"batch_size": 8, "gradient_accumulation": 1, "gradient_checkpointing": False}
    spec["train"] |= {"optimizer": "adamw_torch"}
    spec["data"] |= {"max_length": 90}
    spec["eval"] |= {"every_steps": 28}
    durable.write_json(run.spec, spec)
    told = {"steps": 144, "tokens": 64_500, "train_rows": 380, "eval_rows": 20, "device": "cpu"}
    told |= {"peak_gpu_mem_bytes": None, "base": {"reference": "gemma-3-270m", "folder": "models/gemma-3-270m"}}
    durable.write_json(run.result, {"outcome": "finished", "result": told | result})
    took = 144 * step_s + 30
    ended = f"2026-11-22T10:{int(took // 60):02d}:{took % 60:06.3f}+00:00"
    durable.write_json(run.attempts / "0001.json", {"started_at": "2026-11-22T10:00:00.000Z", "ended_at": ended})
    for step in range(1, 145):
        row = {"step": step, "step_time_s": 9.0 if step < 3 else step_s, "host_mem_bytes": 2_400_000_000}
        durable.append_line(run.metrics, row)
    Tokens(home).create(State.DONE, Token(5, number, job_id), {"kind": "train"})
    return job_id


def ask(home: Home, here: Machine = CPU, **spec: Any) -> Estimate:
    return estimate(home, {"schema": 1, "model": "gemma-3-270m", "dataset": TICKETS} | spec, machine=here)


@pytest.mark.parametrize(
    ("train", "rows", "expected"),
    [
        ({}, 380, 144),
        ({"epochs": 1}, 8, 1),
        ({"epochs": 1}, 9, 2),
        ({"epochs": 0.1}, 8, 1),
        ({"epochs": 2.5}, 56, 18),
        ({"max_steps": 30}, 380, 30),
    ],
)
def test_steps_are_those_of_the_trainer(train: dict[str, Any], rows: int, expected: int) -> None:
    assert steps.total(Train.model_validate(train), rows, 4, 2) == expected


def test_what_auto_becomes() -> None:
    assert [steps.save_every(Train(), total) for total in (30, 144, 100_000)] == [10, 14, 500]
    assert [steps.evaluate_every(Eval(), total) for total in (3, 144)] == [1, 28]
    assert steps.precision("auto", 2 * GB, True, 9 * GB) == "16bit"
    assert steps.precision("auto", 2 * GB, True, 8 * GB) == "4bit"
    assert steps.precision("auto", 70 * GB, False, 0) == "16bit"
    assert steps.precision("8bit", 70 * GB, False, 0) == "8bit"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gemma-2b", 2.51e9),
        ("gemma-7b", 8.54e9),
        ("gemma-2-9b", 9.24e9),
        ("gemma-3-270m", 0.268e9),
        ("gemma-3-1b", 1e9),
    ],
)
def test_the_catalogue_adds_up_to_the_published_sizes(name: str, parameters: float) -> None:
    shape = shapes.named(f"google/{name}-it")
    assert shape is not None
    assert shape.parameters == pytest.approx(parameters, rel=0.005)


def test_a_name_takes_the_longest_match() -> None:
    assert shapes.named("unsloth/gemma-2-2b-it-bnb-4bit") == shapes.named("gemma-2-2b")
    assert shapes.named("google/gemma-2b") != shapes.named("google/gemma-2-2b")
    assert shapes.named("mistralai/Mistral-7B") is None


def test_an_adapter_has_the_size_that_was_seen() -> None:
    shape = shapes.named("gemma-3-270m")
    assert shape is not None
    assert shape.lora_parameters(16, "all-linear") * 4 == pytest.approx(
        15_220_968, rel=0.003
    )  # adapter_model.safetensors
    assert shape.lora_parameters(16, ["q_proj"]) == 18 * 16 * (640 + 1024)


H100_PEAKS = [
    # shape, batch, mean and longest row, precision, checkpointing, measured GB (bench/results and docs/measured.md)
    ("gemma-2b", 4, 1024, 1024, "4bit", True, 3.08),
    ("gemma-7b", 2, 1024, 1024, "4bit", True, 6.94),
    ("gemma-2b", 2, 165, 1024, "4bit", True, 3.0),
    ("gemma-2b", 8, 165, 1024, "4bit", True, 2.9),
    ("gemma-2b", 8, 165, 1024, "16bit", False, 10.2),
    ("gemma-2b", 64, 165, 1024, "16bit", False, 27.2),
    ("gemma-2b", 16, 1024, 1024, "16bit", False, 35.5),
    ("gemma-3-270m", 8, 56, 89, "4bit", True, 0.721),
    ("gemma-3-270m", 8, 64, 89, "16bit", True, 0.869),
    ("gemma-3-270m", 128, 2048, 2048, "4bit", True, 8.09),
]


@pytest.mark.parametrize(("name", "batch", "mean", "longest", "precision", "checkpointing", "measured_gb"), H100_PEAKS)
def test_memory_is_near_what_was_measured(
    name: str, batch: int, mean: int, longest: int, precision: str, checkpointing: bool, measured_gb: float
) -> None:
    shape = shapes.named(name)
    assert shape is not None
    plan = Plan(10, batch, 1, mean, longest, 16, "all-linear", precision, checkpointing, "adamw_8bit", True)
    said_gb = costs.peak_bytes(shape, plan) / GB
    assert 0.9 * measured_gb < said_gb < 1.2 * measured_gb


H100_PACKED = [
    # shape, precision, checkpointing, tokens a row, steps, measured GB: 8 rows a step (bench/results/2026-11-23-h100-*)
    ("gemma-3-270m", "16bit", False, 256, 20, 2.28),
    ("gemma-3-270m", "16bit", False, 1024, 4, 6.24),
    ("gemma-3-270m", "4bit", False, 256, 20, 2.12),
    ("gemma-3-270m", "4bit", False, 1024, 4, 6.09),
    ("gemma-3-1b", "16bit", False, 256, 20, 6.61),
    ("gemma-3-1b", "16bit", False, 1024, 4, 18.55),
    ("gemma-3-1b", "4bit", False, 256, 20, 5.56),
    ("gemma-3-1b", "4bit", False, 1024, 4, 17.52),
    ("gemma-2b", "16bit", False, 256, 20, 10.48),
    ("gemma-2b", "16bit", False, 1024, 16, 25.46),
    ("gemma-2b", "16bit", False, 175, 100, 13.39),  # of natural length, the longest 1,024
    ("gemma-2b", "16bit", False, 170, 1200, 16.38),
    ("gemma-2b", "4bit", False, 256, 20, 7.54),
    ("gemma-2b", "4bit", True, 1024, 16, 4.77),
    ("gemma-2-2b", "16bit", False, 256, 20, 11.93),
    ("gemma-2-2b", "4bit", False, 256, 20, 8.94),
    ("gemma-7b", "16bit", False, 256, 20, 30.45),
    ("gemma-7b", "4bit", False, 256, 20, 18.95),
    ("gemma-7b", "4bit", True, 1024, 16, 10.31),
]


@pytest.mark.parametrize(("name", "precision", "checkpointing", "tokens", "steps", "measured_gb"), H100_PACKED)
def test_memory_of_packed_rows_is_near_what_was_measured(
    name: str, precision: str, checkpointing: bool, tokens: int, steps: int, measured_gb: float
) -> None:
    shape, longest = shapes.named(name), tokens if tokens in (256, 1024) else 1024
    assert shape is not None
    plan = Plan(
        steps, 8, 1, tokens, longest, 16, "all-linear", precision, checkpointing, "adamw_torch", True, packing=True
    )
    assert costs.peak_bytes(shape, plan) / GB == pytest.approx(measured_gb, rel=0.1)


def ways(name: str, gb: float | None, precision: str = "auto", packs: bool = True, **train: Any) -> steps.Way:
    """Of 8 rows of 1,024 tokens, on a card with so much free; None: on a CPU."""
    shape, free_bytes = shapes.named(name), None if gb is None else int(gb * GB)
    longest = train.pop("longest", 1024)
    return steps.way(Train(**train), Lora(), precision, shape, shape.parameters if shape else 0, free_bytes, longest,
                     1024, packs)  # fmt: skip


def test_what_is_quickest_of_what_fits() -> None:
    """Each time with less memory."""
    found = {gb: ways("gemma-2b", gb) for gb in (80, 16, 8, 6)}
    assert [(way.precision, way.checkpointing, way.optimizer) for way in found.values()] == [
        ("16bit", False, "adamw_torch"),
        ("16bit", True, "adamw_torch"),
        ("16bit", True, "adamw_torch"),
        ("4bit", True, "adamw_torch"),
    ]
    assert all(way.packed and way.room_tokens >= 2048 for way in found.values())
    assert ways("gemma-7b", 11).precision == "4bit"
    assert ways("gemma-7b", 10).optimizer == "adamw_torch", "room for one row"
    tight = ways("gemma-7b", 8.7)
    assert (tight.packed, tight.precision, tight.checkpointing, tight.optimizer) == (True, "4bit", True, "adamw_8bit")
    assert tight.room_tokens >= 1024
    assert not ways("gemma-7b", 7).packed


def test_what_is_asked_for_stays() -> None:
    assert ways("gemma-2b", 80, "4bit").precision == "4bit"
    assert ways("gemma-2b", 80, "4bit").packed
    assert not ways("gemma-2b", 80, "4bit").checkpointing
    assert ways("gemma-2b", 80, gradient_checkpointing=True).checkpointing
    assert not ways("gemma-2b", 80, packing=False).packed
    assert ways("gemma-2b", 6, "16bit") == steps.Way("16bit", False, True, "adamw_8bit"), "no room: as it was asked"
    assert not ways("gemma-2b", 6, gradient_checkpointing=False).packed
    assert ways("gemma-2b", 80, optimizer="adafactor").optimizer == "adafactor"


def test_where_rows_are_packed() -> None:
    shape = shapes.named("gemma-2b")
    assert shape is not None
    assert 12_000 < ways("gemma-2b", 84).room_tokens < 16_000
    assert costs.room_tokens(shape, 16, "all-linear", 6 * GB) == 0
    assert not ways("gemma-2b", None).packed, "on a CPU padded rows are the default"
    assert not ways("gemma-2b", 84, "8bit").packed
    assert not ways("gemma-2b", 84, packs=False).packed
    assert not ways("mistral", 84).packed
    assert not ways("gemma-2b", 84, longest=200_000).packed, "a row is never split"
    assert ways("gemma-3-1b", None, packing=True) == steps.Way("16bit", True, False, "adamw_torch")
    assert ways("gemma-3-1b", None, "4bit", packing=True, gradient_checkpointing=True).checkpointing
    with pytest.raises(ValueError, match="not built for models of the kind unknown"):
        ways("mistral", 84, packing=True)
    with pytest.raises(ValueError, match="does not go with a base in 8 bit"):
        ways("gemma-2b", 84, "8bit", packing=True)
    with pytest.raises(ValueError, match="no room"):
        ways("gemma-2b", 84, packing=True, longest=200_000)
    assert steps.parts(Train(effective_batch=48), packed=True) == (48, 1)
    assert steps.parts(Train(effective_batch=48, batch_size=12), packed=True) == (12, 4)
    assert steps.parts(Train(effective_batch=48), packed=False) == (8, 6)


def test_a_base_that_lies_there_in_4_bit_is_trained_so(home: Home) -> None:
    """As the copies whose names end in -bnb-4bit do."""
    base(home, "gemma-2b", model_type="gemma", quantization_config={"load_in_4bit": True, "load_in_8bit": False})
    stored, plain = shapes.of(home, "gemma-2b", home.models / "gemma-2b"), shapes.named("gemma-2b")
    assert plain is not None
    assert stored == replace(plain, stored="4bit")
    fits = {"model": "gemma-2b", "train": {"max_steps": 3}}
    assert ask(home, H100, **fits).gpu_bytes == ask(home, H100, precision="4bit", **fits).gpu_bytes
    (problem,) = ask(home, H100, precision="16bit", **fits).problems
    assert problem.message == "the base lies there in 4bit and cannot be loaded in 16bit."


def test_experts_are_packed_in_16_bit_alone() -> None:
    """transformers' loader makes them no smaller; Unsloth does, and its rows are padded."""
    large = ways("gemma-4-26b", 84)
    assert (large.precision, large.packed, large.checkpointing) == ("16bit", True, True)
    small = ways("gemma-4-26b", 48)
    assert (small.precision, small.packed) == ("4bit", False)
    assert not ways("gemma-4-26b", 84, "4bit").packed
    with pytest.raises(ValueError, match="a base in 4 bit that has experts"):
        ways("gemma-4-26b", 84, "4bit", packing=True)
    shape = shapes.named("gemma-4-26b")
    assert shape is not None
    held = [costs.weights_bytes(shape, precision) / GB for precision in ("4bit", "8bit", "16bit")]
    assert held == pytest.approx([14.2, 48.9, 50.5], abs=0.1)
    assert costs.weights_bytes(shape, "4bit", on_gpu=False) > 48 * GB


def test_nothing_chosen_says_nothing_and_why(home: Home) -> None:
    said = estimate(home, {}, machine=CPU)
    assert (said.seconds, said.steps, said.memory_bytes, said.problems) == (None, None, None, ())
    assert said.reasons == ("no base model is chosen.", "no dataset is chosen.")


def test_half_a_spec_and_a_wrong_one_are_answered_as_far_as_they_go(home: Home) -> None:
    base(home)
    assert ask(home, model="").steps == 144
    wrong = {"train": {"epochs": "many", "effective_batch": 4}, "lora": 7, "precision": [], "export": "x", "odd": {}}
    assert ask(home, **wrong).steps == 285
    for spec in ({"model": 3, "dataset": []}, {"kind": 7}, {"train": {"batch_size": 3}}, {"dataset": "\0"}):
        assert isinstance(ask(home, **spec), Estimate)
    (problem,) = ask(home, train={"batch_size": 3}).problems
    assert problem.message == "3 does not divide the effective batch of 8."


def test_a_card_that_packs_nothing_is_told_what_padded_rows_take(home: Home) -> None:
    """As the trainer will decide; a web app that cannot see the card goes by what the runner has noted of it."""
    old, new = (replace(H100, capability=each) for each in ((7, 5), (8, 0)))
    padded = ask(home, new, model="google/gemma-2b", train={"packing": False})
    assert ask(home, old, model="google/gemma-2b") == padded
    assert ask(home, new, model="google/gemma-2b") != padded
    (problem,) = ask(home, old, model="google/gemma-2b", train={"packing": True}).problems
    assert problem.message == "the card has no room for packed rows, or is older than Ampere."
    noted = {"v": 1, "uuid": "GPU-1", "name": "Tesla T4", "count": 1, "mem_total_bytes": 15 * GB, "capability": [7, 5]}
    durable.write_json(home.card_json, noted)
    assert machine.look(home, Gpu("")).capability == (7, 5)


def test_a_guess_is_said_to_be_one_and_is_wide(home: Home) -> None:
    base(home)
    said = ask(home)
    assert said.learned_from == 0
    assert said.seconds
    assert said.low_s
    assert said.high_s
    assert said.high_s / said.low_s > 5
    assert any("guess" in reason for reason in said.reasons)


def test_finished_jobs_teach(home: Home) -> None:
    base(home)
    guess = ask(home, report=False)
    for number in range(3):
        finished(home, number, step_s=1.5)
    said = ask(home, report=False)
    assert said.learned_from == 3
    assert said.seconds == pytest.approx(144 * 1.5 + 30, rel=0.1)  # as these took
    assert said.low_s
    assert said.high_s
    assert guess.low_s
    assert guess.high_s
    assert said.low_s < said.seconds < said.high_s
    assert said.high_s / said.low_s < guess.high_s / guess.low_s
    assert said.memory_bytes == pytest.approx(2.4 * GB, rel=0.05)


def test_a_report_at_the_end_comes_on_top_as_long_as_it_may_take(home: Home) -> None:
    base(home)
    for number in range(3):
        finished(home, number, step_s=1.5)
    without, with_it = ask(home, report=False).seconds, ask(home).seconds
    assert without
    assert with_it
    assert 40 < with_it - without < 110
    home.settings.write_text('{"report_s": 0}')
    assert ask(home).seconds == without


def test_a_broken_result_is_passed_over(home: Home) -> None:
    base(home)
    finished(home, 1)
    broken = home.run(finished(home, 2))
    broken.result.write_bytes(b'{"result": {"steps": "nine"')
    home.run(finished(home, 3)).spec.unlink()
    assert [past.job_id for past in history.of(home)] == ["01K00001ABCDEFGHJKMNPQRSTV"]


def test_another_device_teaches_nothing(home: Home) -> None:
    base(home)
    finished(home, 1)
    assert ask(home, H100).learned_from == 0


def test_what_does_not_fit_comes_with_what_would(home: Home) -> None:
    said = ask(home, SMALL_CARD, model="google/gemma-2b", precision="16bit")
    assert [problem.code for problem in said.problems] == ["too_little_gpu_memory"]
    assert said.fits_with == {"/precision": "4bit"}
    assert "4 bit" in said.problems[0].hint
    large = {"effective_batch": 64, "batch_size": 64, "gradient_checkpointing": False}
    said = ask(home, replace(H100, gpu_bytes=16 * GB), model="google/gemma-2b", precision="4bit", train=large)
    assert set(said.fits_with) <= {"/train/batch_size", "/train/gradient_accumulation", "/train/gradient_checkpointing"}
    changed = dict(large)
    changed |= {pointer.rpartition("/")[2]: value for pointer, value in said.fits_with.items()}
    again = ask(home, replace(H100, gpu_bytes=16 * GB), model="google/gemma-2b", precision="4bit", train=changed)
    assert again.problems == ()
    assert again.steps == said.steps


def test_a_model_that_fits_in_no_way_is_said_to_be_too_large(home: Home) -> None:
    said = ask(home, SMALL_CARD, model="google/gemma-3-27b-it")
    assert said.fits_with == {}
    assert "smaller base" in said.problems[0].hint


def test_a_disk_that_is_too_small(home: Home) -> None:
    base(home)
    said = ask(home, replace(CPU, disk_free_bytes=int(1.6 * GB)), export=["adapter", "merged"])
    (problem,) = said.problems
    assert (problem.code, problem.pointer) == ("too_little_disk", "/export")
    assert ask(home, replace(CPU, disk_free_bytes=int(1.6 * GB))).problems == ()


def test_every_export_is_counted_on_the_disk(home: Home) -> None:
    base(home)
    bare, two = ask(home, CPU).disk_bytes, ask(home, CPU, export=["adapter", "gguf:q8_0"]).disk_bytes
    assert two
    assert bare
    assert two - bare == pytest.approx(536_000_000 * (1 + 8.5 / 16), rel=0.05), "the file, and the merged weights"
    (problem,) = ask(home, replace(CPU, disk_free_bytes=int(1.6 * GB)), export=["gguf:q8_0"]).problems
    assert "With the adapter alone it needs" in problem.hint


def test_an_export_takes_as_long_as_one_did_and_before_that_a_guess(home: Home) -> None:
    base(home)
    job_id = "01K00009ABCDEFGHJKMNPQRSTV"
    home.run(job_id).root.mkdir(parents=True)
    durable.write_json(home.run(job_id).spec, {"schema": 1, "model": "gemma-3-270m", "dataset": "gone.jsonl"})
    spec = {"schema": 1, "kind": "export", "job": job_id, "export": ["merged", "gguf:bf16", "gguf:q4_k_m"]}
    found = estimate(home, spec, machine=CPU)
    assert found.seconds is not None
    assert 60 < found.seconds < 240, "105 s were measured, on 2 cores"
    assert (estimate(home, spec, machine=replace(CPU, cores=16)).seconds or 0) < found.seconds
    assert found.disk_bytes == pytest.approx(536_000_000 * (2 + 1 + 4.9 / 16), rel=0.05)
    assert "guess" in found.reasons[0]
    assert estimate(home, {**spec, "job": "../x"}, machine=CPU).seconds is None
    assert estimate(home, {**spec, "export": 7}, machine=CPU).seconds is None


def test_an_evaluation_takes_as_long_as_such_did_and_no_longer_than_it_may(home: Home) -> None:
    base(home)
    of = "01K00009ABCDEFGHJKMNPQRSTV"
    home.run(of).root.mkdir(parents=True)
    durable.write_json(home.run(of).spec, {"schema": 1, "model": "gemma-3-270m", "dataset": "gone.jsonl"})
    spec = {"schema": 1, "kind": "evaluate", "job": of}
    guess = estimate(home, spec, machine=CPU)
    assert guess.seconds == pytest.approx(83, abs=0.1)
    assert guess.high_s == 600
    assert "guess" in guess.reasons[0]
    assert estimate(home, {**spec, "max_minutes": 1}, machine=CPU).seconds == 60
    assert estimate(home, {"kind": "evaluate", "adapter": "x", "dataset": "y"}, machine=CPU).seconds == 75
    assert EvaluateSpec.model_fields["max_minutes"].default == REPORT_MINUTES
    for number, took_s in ((11, 40), (12, 50), (13, 200)):
        job_id = f"01K{number:05d}ABCDEFGHJKMNPQRSTV"
        home.run(job_id).attempts.mkdir(parents=True)
        ended = f"2026-11-22T10:{took_s // 60:02d}:{took_s % 60:02d}Z"
        times = {"started_at": "2026-11-22T10:00:00Z", "ended_at": ended}
        durable.write_json(home.run(job_id).attempts / "0001.json", times)
        Tokens(home).create(State.DONE, Token(5, number, job_id), {"kind": "evaluate"})
    known = estimate(home, spec, machine=CPU)
    assert (known.seconds, known.high_s, known.reasons) == (50, 600, ())
    assert estimate(home, {**spec, "max_minutes": 0.5}, machine=CPU).seconds == 30


def test_a_base_that_must_be_fetched_is_counted_on_the_disk(home: Home) -> None:
    base(home, "gemma-2-2b", model_type="gemma2")
    here, away = ask(home, H100, model="gemma-2-2b"), ask(home, H100, model="google/gemma-2-2b")
    assert here.disk_bytes
    assert away.disk_bytes
    assert away.disk_bytes - here.disk_bytes == pytest.approx(5.23 * GB, rel=0.01)
    assert any("not on this server" in reason for reason in away.reasons)


def test_a_job_that_was_checked_is_counted_by_its_own_rows(home: Home) -> None:
    base(home)
    run = home.run("01K00009ABCDEFGHJKMNPQRSTV")
    run.data.mkdir(parents=True)
    files = {"train.arrow": {"rows": 1000, "tokens": 50_000}, "eval.arrow": {"rows": 50, "tokens": 2500}}
    durable.write_json(run.data / "prepared.json", {"v": 2, "max_length": 64, "files": files})
    spec = {"schema": 1, "model": "gemma-3-270m", "dataset": "gone.jsonl"}
    assert estimate(home, spec, machine=CPU, run=run.root).steps == 375
    assert estimate(home, spec, machine=CPU).steps is None


def test_a_stored_dataset_has_as_many_rows_as_were_counted(home: Home) -> None:
    base(home)
    told = b"question,answer\n" + b'"Where\nis it?","On the\nshelf."\n' * 200
    keep.add(home, "faq", "faq.csv", told)
    assert ask(home, dataset="faq", data={"eval_fraction": 0.0}, train={"epochs": 1}).steps == 25
    listed = json.dumps([{"prompt": "a", "completion": "b"}] * 80).encode()
    keep.add(home, "listed", "listed.json", listed)
    assert ask(home, dataset="listed", train={"epochs": 1}).steps == 10


def test_what_the_data_page_counted_is_used(home: Home) -> None:
    base(home)
    path = home.root / "a.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n' * 7)
    folder = Request(str(path)).folder(home)
    folder.mkdir(parents=True)
    lengths = {"unit": "tokens", "edges": [0, 10, 20], "counts": [60, 20]}
    report = {"usable_rows": 80, "tokens": {"max": 19}, "statistics": {"lengths": lengths}}
    durable.write_json(folder / "report.json", report)
    said = ask(home, dataset=str(path), train={"epochs": 1})
    assert said.steps == 10
    assert not any("guessed" in reason for reason in said.reasons)


def test_the_limit_of_hours_bounds_the_time(home: Home) -> None:
    base(home)
    said = ask(home, train={"max_steps": 10_000_000}, limits={"max_hours": 2})
    assert said.seconds == 7200
    assert any("2 hours" in reason for reason in said.reasons)
