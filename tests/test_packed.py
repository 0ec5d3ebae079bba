"""Packed rows learn what padded rows learn: the same losses and gradients, and no row sees another."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tiny import build
from torch import Tensor
from trainer_process import TrainerProcess
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

from runner import lasting, probe, train
from runner.answer import Row, answer
from runner.bases import Base
from runner.packed import ATTENTION, attention, engine
from runner.packed.batch import Packed, Rows, Size, pack, spans
from runner.packed.lean import make_lean
from runner.packed.loss import linear_cross_entropy
from runner.packed.step import Step, memory_ran_out
from runner.samples import undisturbed
from spool.data.judging.chat import NOT_TRAINED, Encoder
from spool.forecast.costs import rounded
from spool.protocol import durable, metrics
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.spec import JobSpec, Sampling
from spool.protocol.training import LINEAR_LAYERS

LENGTHS = [5, 130, 1, 64, 90]
"""Gemma's tiny sister sees 64 tokens at once in half of its layers."""


def row(length: int, seed: int) -> dict[str, Any]:
    """Random tokens; those of the second half are learned."""
    ids = torch.randint(10, 350, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    half = length // 2
    return {"input_ids": ids, "labels": [NOT_TRAINED] * half + ids[half:]}


ROWS = [row(length, seed) for seed, length in enumerate(LENGTHS)]
TRAINED = Rows(ROWS).trained_tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tiny") / "gemma")


NF4 = engine.nf4(torch.float32)


def adapted(folder: Path, attend: str, packed_weights: BitsAndBytesConfig | None = None) -> Any:
    """The same adapter each time, and one that does something: LoRA's second matrix begins at 0."""
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attend, quantization_config=packed_weights
    )
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))
    for name, each in model.named_parameters():
        if "lora_B" in name:
            each.data.normal_(std=0.05)
    return model


def gradients(model: Any) -> dict[str, Tensor]:
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.requires_grad}


@pytest.fixture(scope="module")
def alone(folder: Path) -> tuple[list[float], dict[str, Tensor]]:
    """(summed loss of each row, gradients of the mean over all tokens): each row by itself, by transformers alone."""
    return learned_alone(adapted(folder, "sdpa"))


def learned_alone(model: Any) -> tuple[list[float], dict[str, Tensor]]:
    losses = []
    for each in ROWS:
        ids, labels = torch.tensor([each["input_ids"]]), torch.tensor(each["labels"])
        logits = model(input_ids=ids).logits[0]
        loss = F.cross_entropy(logits[:-1], labels[1:], ignore_index=NOT_TRAINED, reduction="sum")
        (loss / TRAINED).backward()
        losses.append(loss.item())
    return losses, gradients(model)


@pytest.mark.parametrize("most_tokens", [10_000, 150, 1])
def test_a_batch_learns_what_its_rows_learn_alone(
    folder: Path, alone: tuple[list[float], dict[str, Tensor]], most_tokens: int
) -> None:
    """However many parts it is computed in."""
    model = adapted(folder, ATTENTION)
    step = Step(model, len(ROWS), max(LENGTHS), most_tokens, 0)
    loss = step.learn(Rows(ROWS), TRAINED)
    losses, expected = alone
    assert loss.item() == pytest.approx(sum(losses) / TRAINED, rel=1e-5)
    for name, found in gradients(model).items():
        torch.testing.assert_close(found, expected[name], rtol=2e-4, atol=1e-6)
    step.forget()
    assert not any(found.any() for found in gradients(model).values())


@pytest.mark.parametrize(("weights", "recomputed"), [(None, True), (NF4, False), (NF4, True)])
def test_with_little_memory_the_same_is_learned(
    folder: Path, weights: BitsAndBytesConfig | None, recomputed: bool
) -> None:
    """With a base in 4 bit, as transformers and PEFT have it, and with activations that are computed twice."""
    losses, expected = learned_alone(adapted(folder, "sdpa", weights).train())  # bitsandbytes has it so on a CPU
    model, passes = adapted(folder, ATTENTION, weights).train(), []
    model.get_base_model().model.layers[0].mlp.register_forward_hook(lambda *_: passes.append(1))
    step = Step(model, len(ROWS), max(LENGTHS), 10_000, 0)
    if recomputed:
        step.recompute()
    loss = step.learn(Rows(ROWS), TRAINED)
    assert len(passes) == 1 + recomputed
    assert loss.item() == pytest.approx(sum(losses) / TRAINED, rel=1e-5)
    for name, found in gradients(model).items():
        torch.testing.assert_close(found, expected[name], rtol=2e-4, atol=1e-6)
    assert step.loss(Rows(ROWS)).item() == pytest.approx(loss.item(), rel=1e-5)


def test_of_a_base_in_4_bit_nothing_is_kept_in_more(folder: Path) -> None:
    """What waits for the backward pass holds no matrix of a layer."""
    model, kept = adapted(folder, ATTENTION, NF4), set()
    step = Step(model, len(ROWS), max(LENGTHS), 10_000, 0)

    def seen(tensor: Tensor) -> Tensor:
        kept.add(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        loss = step._loss(pack(Rows(ROWS)), step._scale(TRAINED), max(LENGTHS))
    assert loss.requires_grad
    assert kept
    assert not kept & {(128, 64), (64, 128), (64, 64), (16, 64), (64, 16)}


def test_dropout_draws_the_same_when_it_is_computed_again(folder: Path) -> None:
    found = []
    for recomputed in (False, True):
        model = adapted(folder, ATTENTION).train()
        for each in model.modules():
            if isinstance(each, torch.nn.Dropout | torch.nn.Identity):
                each.__class__ = torch.nn.Dropout
                each.p, each.inplace = 0.2, False
        step = Step(model, len(ROWS), max(LENGTHS), 10_000, 5_000)
        if recomputed:
            step.recompute()
            assert step.most_recorded == 0, "a random generator that is set back cannot be recorded"
        torch.manual_seed(3)
        step.learn(Rows(ROWS), TRAINED)
        found.append(step.gradients)
    assert torch.equal(*found)


def test_no_row_sees_another(folder: Path, alone: tuple[list[float], dict[str, Tensor]]) -> None:
    """What one row says changes nothing of the others' losses, whatever their order."""
    step = Step(adapted(folder, ATTENTION), len(ROWS), max(LENGTHS), 10_000, 0)
    losses, _ = alone
    for order in ([1, 3], [3, 1], [4, 0, 1, 2]):
        some = Rows([ROWS[i] for i in order])
        assert step.loss(some).item() * some.trained_tokens == pytest.approx(sum(losses[i] for i in order), rel=1e-5)


def test_what_a_length_is_filled_up_with_changes_nothing(
    folder: Path, alone: tuple[list[float], dict[str, Tensor]]
) -> None:
    """A CUDA graph computes a row of padding beside the others: the same here without the graph."""
    rows = Rows(ROWS)
    size = Size.of(rows, most_rows=len(ROWS) + 3, longest=max(LENGTHS))
    packed = pack(rows, size)
    assert packed.input_ids.shape == packed.position_ids.shape == (1, size.tokens)
    assert packed.places.shape == packed.targets.shape == (size.learned,)
    assert packed.starts.shape == (size.rows + 1,)
    assert size.tokens > rows.tokens
    assert size.learned > rows.trained_tokens
    assert max(end - start for start, end in spans(packed.starts)) <= size.longest
    step = Step(adapted(folder, ATTENTION), len(ROWS), max(LENGTHS), 10_000, 0)
    loss = step._loss(packed, step._scale(TRAINED), size.longest)
    assert loss.item() == pytest.approx(sum(alone[0]) / TRAINED, rel=1e-5)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=20), st.integers(1, 5000))
def test_parts_are_all_rows_in_their_order(lengths: list[int], most: int) -> None:
    rows = Rows([{"input_ids": [i] * length, "labels": [i] * length} for i, length in enumerate(lengths)])
    parts = list(rows.parts(most))
    assert [int(ids[0]) for part in parts for ids in part.ids] == list(range(len(lengths)))
    assert all(part.tokens <= most or len(part) == 1 for part in parts)
    assert sum(part.trained_tokens for part in parts) == rows.trained_tokens == sum(lengths) - len(lengths)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=20))
def test_what_fills_a_length_up_is_no_longer_than_the_longest_row(lengths: list[int]) -> None:
    """Attention computes so many tokens of each row; what it left out would be whatever lay in the memory."""
    rows = Rows([{"input_ids": [7] * length, "labels": [7] * length} for length in lengths])
    size = Size.of(rows, len(lengths), max(lengths))
    packed = pack(rows, size)
    assert sum(end - start for start, end in spans(packed.starts)) == size.tokens
    assert max(end - start for start, end in spans(packed.starts)) <= size.longest
    assert (packed.targets >= 0).sum() == rows.trained_tokens <= size.learned


def test_a_few_lengths_hold_all() -> None:
    found = {rounded(count) for count in range(1, 16_385)}
    assert len(found) <= 32
    assert all(count <= rounded(count) <= max(64, 1.25 * count + 63) for count in range(1, 16_385))


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 1, 7])
def test_attention_is_that_of_each_row_with_a_mask(window: int | None, softcap: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, sum(LENGTHS), 16, generator=generator)
    key, value = (torch.randn(1, 2, sum(LENGTHS), 16, generator=generator) for _ in range(2))
    starts = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int32)
    module = torch.nn.Module()
    found, _ = attention.attend(
        module,
        query,
        key,
        value,
        None,
        0.25,
        starts=starts,
        longest=max(LENGTHS),
        sliding_window=window,
        softcap=softcap,
    )
    whose = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    place = torch.arange(sum(LENGTHS))
    seen = (whose[:, None] == whose) & (place <= place[:, None])
    if window:
        seen &= place > place[:, None] - window
    scores = 0.25 * query @ key.repeat_interleave(2, 1).mT
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    plain = scores.masked_fill(~seen, -torch.inf).softmax(3) @ value.repeat_interleave(2, 1)
    torch.testing.assert_close(found, plain.transpose(1, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("chunk_bytes", [1 << 30, 4 * 50 * 3])
def test_the_loss_is_that_of_all_logits(
    monkeypatch: pytest.MonkeyPatch, chunk_bytes: int, softcap: float | None
) -> None:
    monkeypatch.setattr("runner.packed.loss.CHUNK_BYTES", chunk_bytes)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 8, generator=generator, requires_grad=True)
    weight, targets = torch.randn(50, 8, generator=generator), torch.randint(0, 50, (11,), generator=generator)
    targets[3] = NOT_TRAINED
    loss = linear_cross_entropy(hidden, weight, targets, torch.tensor(0.1), softcap)
    (gradient,) = torch.autograd.grad(3 * loss, hidden)
    logits = hidden @ weight.t()
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    plain = 0.1 * F.cross_entropy(logits, targets, ignore_index=NOT_TRAINED, reduction="sum")
    (expected,) = torch.autograd.grad(3 * plain, hidden)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(gradient, expected)


def test_where_memory_runs_out_the_same_is_computed_in_smaller_parts(
    folder: Path, alone: tuple[list[float], dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is learned or evaluated."""
    model, notes = adapted(folder, ATTENTION), []
    step = Step(model, 2 * len(ROWS), max(LENGTHS), 300, 0, notes.append)
    plain, tried = step._loss, []

    def small_card(packed: Packed, *more: Any) -> Tensor:
        tried.append(packed.input_ids.shape[1])
        if tried[-1] > 160:
            raise torch.OutOfMemoryError
        return plain(packed, *more)

    monkeypatch.setattr(step, "_loss", small_card)
    for _ in range(2):
        loss = step.learn(Rows(ROWS + ROWS), 2 * TRAINED)
        assert loss.item() == pytest.approx(sum(alone[0]) / TRAINED, rel=1e-5)
        for name, found in gradients(model).items():
            torch.testing.assert_close(found, alone[1][name], rtol=2e-4, atol=1e-6)
        step.forget()
    words = "the memory ran out with 295 tokens at once: from now on there are at most 147. What is learned stays the"
    assert notes == [f"{words} same."], "once for all"
    assert [each for each in tried if each > 160] == [295]
    step.most_tokens = 300
    assert step.loss(Rows(ROWS)).item() == pytest.approx(sum(alone[0]) / TRAINED, rel=1e-5)
    assert len(notes) == 2
    monkeypatch.setattr(step, "_loss", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    for compute in (step.loss, lambda rows: step.learn(rows, TRAINED)):
        with pytest.raises(torch.OutOfMemoryError):
            compute(Rows(ROWS))


def ended_badly(inside: Exception, end: Exception) -> Exception:
    """As torch.cuda.graph ends where what it records has failed."""
    try:
        try:
            raise inside
        finally:
            raise end
    except Exception as error:
        return error


def on_card(code: int) -> Exception:
    error = torch.AcceleratorError("CUDA error")
    error.error_code = code  # type: ignore[attr-defined]
    return error


def test_a_recording_that_ran_out_of_memory_is_told_from_a_faulty_one() -> None:
    memory, not_permitted, invalidated = torch.OutOfMemoryError(), on_card(900), on_card(901)
    assert memory_ran_out(ended_badly(memory, invalidated))
    assert memory_ran_out(ended_badly(torch.OutOfMemoryError(), RuntimeError("Invalid capture.")))
    assert memory_ran_out(on_card(2))
    assert memory_ran_out(on_card(901))
    assert not memory_ran_out(ended_badly(not_permitted, on_card(901)))
    assert not memory_ran_out(on_card(700))
    assert not memory_ran_out(RuntimeError("shapes do not fit"))


def test_a_lean_model_answers_as_before(folder: Path) -> None:
    """In 16 bit and outside of autocast, as samples are made on a GPU."""
    answers = []
    for lean in (False, True):
        model = adapted(folder, ATTENTION).to(torch.bfloat16)
        for name, each in model.named_parameters():
            each.data = each.data.float() if "lora_" in name else each.data
        if lean:
            make_lean(model)
        with undisturbed(model):
            row = Row("default", ROWS[1]["input_ids"])
            encoder = Encoder.for_model(folder)
            answers.append(answer(model, encoder, [row], Sampling(max_new_tokens=4))[0].ids)
            with model.disable_adapter():
                answers.append(answer(model, encoder, [row], Sampling(max_new_tokens=4))[0].ids)
    assert answers[:2] == answers[2:]
    assert model.get_base_model().config._attn_implementation == ATTENTION


# The trainer


def wanted(**train: Any) -> JobSpec:
    given = {"batch_size": 2, "gradient_accumulation": 2, "optimizer": "adamw_torch", "learning_rate": 1e-2}
    document = {"schema": 1, "model": "m", "dataset": "d", "eval": {"every_steps": 2}, "data": {"max_length": 130}}
    return JobSpec.model_validate({**document, "train": {"save_steps": 100, "epochs": 2, **given, **train}})


def made(folder: Path, spec: JobSpec) -> engine.PackedTrainer:
    attempt: Any = SimpleNamespace(run=SimpleNamespace(checkpoints=folder / "checkpoints"), note=print)
    rows = Dataset.from_list(ROWS)
    return engine.trainer(spec, attempt, adapted(folder, ATTENTION), rows, rows, 10_000, 10_000)


def padded(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    longest = max(len(each["input_ids"]) for each in rows)
    return {
        name: torch.tensor([each[name] + [fill] * (longest - len(each[name])) for each in rows])
        for name, fill in (("input_ids", 0), ("labels", NOT_TRAINED), ("attention_mask", 0))
    }


@pytest.mark.parametrize("given", [{}, {"scheduler": "linear", "weight_decay": 0.5, "optimizer": "adafactor"}])
def test_a_packed_training_is_that_of_transformers(
    folder: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step beside its own Trainer, which pads. Each epoch ends with a step of one row."""
    monkeypatch.setattr(engine, "PackedTrainer", engine.Packing)
    spec = wanted(**given)
    packed = made(folder, spec)
    rows = Dataset.from_list([{**each, "attention_mask": [1] * len(each["input_ids"])} for each in ROWS])
    attempt: Any = SimpleNamespace(run=SimpleNamespace(checkpoints=folder / "checkpoints"))
    arguments = TrainingArguments(**lasting.arguments(spec, attempt, True), per_device_eval_batch_size=2)
    plain = Trainer(adapted(folder, "sdpa"), arguments, padded, rows, rows)
    curves, weights = [], []
    for each in (packed, plain):
        each.train()
        told = ("loss", "eval_loss", "grad_norm", "learning_rate", "step")
        curves.append([{name: row[name] for name in told if name in row} for row in each.state.log_history])
        weights.append(torch.cat([p.detach().flatten() for p in each.model.parameters() if p.requires_grad]))
    assert len(curves[0]) == 4 + 2 + 1, "steps, evaluations, the whole"
    for found, expected in zip(*curves, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert (weights[0] - weights[1]).norm() < 1e-4 * weights[1].norm()


def test_a_server_with_several_cards_learns_from_as_many_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the first card alone."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    trainer = made(folder, wanted())
    assert (trainer.args.train_batch_size, trainer.args.eval_batch_size) == (2, 2)
    assert trainer._wrap_model(trainer.model) is trainer.model


@pytest.mark.parametrize(("ratio", "steps"), [(0, 0), (0.03, 1), (0.25, 3), (1, 10)])
def test_the_learning_rate_rises_for_a_share_of_the_steps(folder: Path, ratio: float, steps: int) -> None:
    assert made(folder, wanted(warmup_ratio=ratio)).args.get_warmup_steps(10) == steps


# The probe


@given(st.lists(st.integers(1, 900), min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 40))
def test_the_probe_draws_batches_as_a_training_does(lengths: list[int], rows: int, steps: int) -> None:
    tokens = np.array(lengths)
    largest, usual = probe.drawn(tokens, rows, steps, seed=0)
    for batch in (largest, usual):
        assert 1 <= len(batch) <= rows
        assert len(set(batch.tolist())) == len(batch)
    assert tokens[usual].sum() <= tokens[largest].sum() <= np.sort(tokens)[-rows:].sum()


def test_the_probe_learns_nothing_and_draws_nothing(folder: Path) -> None:
    step = Step(adapted(folder, ATTENTION), len(ROWS), max(LENGTHS), 10_000, 0)
    before = torch.get_rng_state()
    measured = probe.measure(step, Rows(ROWS), Rows(ROWS[:2]), accumulation=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert not step.gradients.any()
    assert measured.room_tokens == 10_000
    assert measured.step_s == pytest.approx(3 * sum(LENGTHS[:2]) / measured.tokens_per_s, rel=0.01)
    assert 0 < measured.took_s < 60


def test_the_probe_finds_the_room_before_the_first_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(adapted(folder, ATTENTION), len(ROWS), max(LENGTHS), 10_000, 0)
    computed = step._computed

    def small_card(rows: Rows, trained_tokens: int) -> Tensor:
        if rows.tokens > 160:
            raise torch.OutOfMemoryError
        return computed(rows, trained_tokens)

    monkeypatch.setattr(step, "_computed", small_card)
    assert probe.measure(step, Rows(ROWS), Rows(ROWS)).room_tokens == sum(LENGTHS) // 2
    monkeypatch.setattr(step, "_computed", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        probe.measure(step, Rows(ROWS), Rows(ROWS))


# Jobs

SPEC: dict[str, Any] = {
    "lora": {"dropout": 0.1},  # so that the random state counts
    "train": {"max_steps": 8, "save_steps": 3, "effective_batch": 4, "packing": True},
    "data": {"eval_fraction": 0.02},
    "eval": {"every_steps": 2, "sample_prompts": ["Where is my order?"]},
    "limits": {"min_free_gb": 0},
}


@pytest.fixture(scope="module")
def trainer(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainerProcess]:
    process = TrainerProcess(Home(tmp_path_factory.mktemp("home")).create(), folder)
    yield process
    process.end()


@pytest.fixture(scope="module")
def packed_job(trainer: TrainerProcess) -> str:
    job_id = trainer.job(**SPEC)
    answer = trainer.attempt(job_id)
    assert answer["outcome"] == "finished", answer
    assert answer["result"]["measured"]["took_s"] > 0
    assert trainer.notes(job_id) == []
    return job_id


@pytest.mark.training
def test_a_packed_job_says_what_its_plan_became(trainer: TrainerProcess, packed_job: str) -> None:
    run = trainer.home.run(packed_job)
    spec = durable.read_json(run.spec)
    found = {name: spec["train"][name] for name in ("packing", "batch_size", "gradient_accumulation", "optimizer")}
    assert found == {"packing": True, "batch_size": 4, "gradient_accumulation": 1, "optimizer": "adamw_torch"}
    losses = [row["loss"] for row in metrics.read(run.metrics) if "loss" in row]
    assert len(losses) == 8
    assert losses[-1] < losses[0]
    assert {row["step"] for row in metrics.read(run.samples)} == {0, 2, 4, 6, 8}
    said = [row["words"] for row in metrics.read(run.events) if row.get("event") == "measured"]
    assert len(said) == 1
    assert said[0].startswith("measured on this machine: ")
    assert " for all 8 steps" in said[0]
    adapter = durable.read_json(run.exports / "adapter" / "adapter_config.json")
    assert sorted(adapter["target_modules"]) == sorted(LINEAR_LAYERS)


@pytest.mark.training
@pytest.mark.parametrize("order", [{"stop_at": 17}, {"kill_after": 5}])
def test_an_interrupted_packed_job_ends_as_an_undisturbed_one(
    trainer: TrainerProcess, packed_job: str, order: dict[str, int]
) -> None:
    job_id = trainer.job(**SPEC)
    assert trainer.attempt(job_id, 1, **order)["outcome"] in ("stopped", "killed")
    answer = trainer.attempt(job_id, 2)
    assert answer["outcome"] == "finished"
    assert answer["result"]["measured"]["took_s"] == 0, "the job before was alike"
    assert trainer.learned(job_id) == trainer.learned(packed_job)


def test_what_cannot_be_packed_says_why(folder: Path) -> None:
    spec = JobSpec.model_validate({"schema": 1, "model": "m", "dataset": "d.jsonl", "train": {"packing": True}})
    data: Any = SimpleNamespace(files={"train.arrow": {"tokens": 80}}, train_rows=8, max_length=10)
    with pytest.raises(FinetunerError, match=r"^/train: packing is not built for models of the kind unknown"):
        train._resolve(spec, Base("m", folder, None, 1000, 2000), data, train.Room(None, None))


@pytest.mark.training
def test_a_packed_job_with_little_memory_learns_and_resumes(trainer: TrainerProcess) -> None:
    spec = {**SPEC, "precision": "4bit", "train": {**SPEC["train"], "gradient_checkpointing": True}}
    straight, broken_off = trainer.job(**spec), trainer.job(**spec)
    assert trainer.attempt(straight)["outcome"] == "finished"
    losses = [row["loss"] for row in metrics.read(trainer.home.run(straight).metrics) if "loss" in row]
    assert losses[-1] < losses[0]
    assert trainer.attempt(broken_off, 1, kill_after=5)["outcome"] == "killed"
    assert trainer.attempt(broken_off, 2)["outcome"] == "finished"
    assert trainer.learned(broken_off) == trainer.learned(straight)


@pytest.mark.training
def test_where_one_row_is_too_much_its_activations_are_computed_twice(trainer: TrainerProcess, packed_job: str) -> None:
    """From the newest checkpoint on, and nothing else is learned than without."""
    job_id = trainer.job(**SPEC)
    assert trainer.attempt(job_id, full_from=6)["outcome"] == "begun anew"
    answer = trainer.attempt(job_id, full_from=1)
    assert answer["outcome"] == "finished", answer
    assert durable.read_json(trainer.home.run(job_id).spec)["train"]["gradient_checkpointing"] is True
    assert "with one row at once: from now on activations are computed twice." in trainer.notes(job_id)[-1]
    assert trainer.learned(job_id) == trainer.learned(packed_job)


@pytest.mark.training
def test_where_nothing_less_can_be_held_it_says_what_needs_less(trainer: TrainerProcess) -> None:
    """Rows came one by one already, and their activations were computed twice: fewer rows would be no cure."""
    job_id = trainer.job(**{**SPEC, "train": {**SPEC["train"], "gradient_checkpointing": True}})
    answer = trainer.attempt(job_id, full_from=1, for_all=True)
    assert answer["outcome"] == "failed"
    assert answer["error"]["code"] == "out_of_memory"
    assert answer["error"]["message"] == "the memory ran out with one row at once."
    assert "the base in 4 bit (precision)" in answer["error"]["hint"]
    assert "OutOfMemoryError" in answer["error"]["evidence"]
    notes = [row for row in metrics.read(trainer.home.run(job_id).events) if row["event"] == "note"]
    assert notes
    assert all(row["phase"] for row in notes), "what is being done stays told"


@pytest.mark.training
def test_unsloth_is_never_loaded_behind_the_libraries_it_patches(trainer: TrainerProcess, packed_job: str) -> None:
    """A process may have loaded them ahead, for packed rows: a padded job has it begun anew."""
    job_id = trainer.job(**{**SPEC, "train": {"max_steps": 2, "packing": False}})
    assert trainer.attempt(job_id)["outcome"] == "begun anew"


@pytest.mark.training
def test_packed_and_padded_jobs_learn_alike(trainer: TrainerProcess, folder: Path, tmp_path: Path) -> None:
    """The same rows in each step, weighed alike. Unsloth computes in other types, so the curves differ a little."""
    same = {**SPEC, "lora": {}, "train": {**SPEC["train"], "learning_rate": 1e-3}}
    unsloths = TrainerProcess(Home(tmp_path / "home").create(), folder)
    found = {}
    for process, packing in ((trainer, True), (unsloths, False)):
        job_id = process.job(**{**same, "train": {**same["train"], "packing": packing}})
        assert process.attempt(job_id)["outcome"] == "finished"
        rows = metrics.read(process.home.run(job_id).metrics)
        found[packing] = [row.get("loss", row.get("eval_loss")) for row in rows]
    unsloths.end()
    assert found[True] == pytest.approx(found[False], abs=0.02)
