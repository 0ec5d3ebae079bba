"""Asking for a report: bounded in time, the base asked once for the same rows, and what a tiny model really answers."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from runner.report import ask, rows
from runner.report.ask import FIRST_ROWS, Memory, Part
from runner.report.rows import Asked, Said
from spool.protocol import ballot, durable
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from tests.test_exports_merge import lora
from tests.trained import ended


def asked(count: int, first: int = 0) -> list[Asked]:
    return [Asked(f"prompt {i}", [2, i], f"answer {i}", [i, 1]) for i in range(first, first + count)]


class Stage:
    """Models that take their time by a clock of their own, and count what they are asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, row_s: float) -> None:
        self.time = 0.0
        self.row_s = row_s
        self.base: list[int] = []
        self.tuned: list[int] = []
        monkeypatch.setattr(ask, "load", lambda base: self)
        monkeypatch.setattr(ask, "tune", lambda model, base, adapter: (model, "tuned"))
        monkeypatch.setattr(ask, "expected_losses", lambda model, rows, pulse: [0.5] * len(rows))
        monkeypatch.setattr("runner.answer.answer", self.answer)

    def now(self) -> float:
        return self.time

    def answer(self, model: Any, encoder: Any, batch: Any, sampling: Any, look: Callable[[Any], bool]) -> list[Any]:
        self.time += self.row_s * len(batch)
        (self.tuned if batch[0].who == "tuned" else self.base).extend(row.ids[1] for row in batch)
        return [SimpleNamespace(text=f"{row.who} {row.ids[1]}", stopped=True, tokens=4) for row in batch]

    def ask(self, parts: list[Part], folder: Path, deadline: float, **more: Any) -> dict[str, ask.Heard]:
        memories = {part.name: Memory(folder / f"{part.name}.json") for part in parts}
        nobody: Any = None
        return ask.ask(folder, folder, nobody, parts, memories, deadline, now=self.now, **more)


def test_everything_is_asked_where_there_is_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = Stage(monkeypatch, 0.1)
    heard = stage.ask([Part("data", asked(100), 20), Part("general", asked(40, 200), 20)], tmp_path, 1000)
    assert [heard[name].cut for name in ("data", "general")] == [False, False]
    assert heard["data"].answers[7] == (Said("base 7", True, 4, 0.5), Said("tuned 7", True, 4, 0.5))
    assert sorted(stage.base) == sorted(stage.tuned) == [*range(100), *range(200, 240)], "each of both, once"


@pytest.mark.parametrize("deadline", [30.0, 40.0, 80.0])
def test_the_deadline_is_kept_and_both_have_answered_the_same_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deadline: float
) -> None:
    stage = Stage(monkeypatch, 0.4)
    heard = stage.ask([Part("data", asked(100), 20), Part("general", asked(40, 200), 20)], tmp_path, deadline)
    assert stage.time <= deadline
    assert stage.time > 0.6 * deadline, "the time that there is is used"
    for name, most in (("data", 100), ("general", 40)):
        assert FIRST_ROWS <= len(heard[name].answers) <= most
    assert heard["data"].cut
    assert heard["data"].asked == 100
    assert len(heard["data"].answers) > len(heard["general"].answers), "time is shared by what there is to say"


def test_a_few_of_everything_are_asked_after_the_time_is_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = Stage(monkeypatch, 10)
    heard = stage.ask([Part("data", asked(100), 20), Part("general", asked(40, 200), 20)], tmp_path, -5)
    assert {name: len(each.answers) for name, each in heard.items()} == {"data": FIRST_ROWS, "general": FIRST_ROWS}


def test_the_tuned_model_is_asked_what_is_worth_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = Stage(monkeypatch, 0.1)
    parts = [Part("data", asked(9), 20), Part("one", asked(9, 50), 20), Part("other", asked(9, 80), 20)]
    heard = stage.ask(
        parts, tmp_path, 1000, worth=lambda said: [name for name in said if said[name][0].text != "base 50"]
    )
    assert sorted(heard) == ["data", "other"]
    assert (len(stage.base), len(stage.tuned)) == (27, 18)


def test_prompts_that_are_about_as_long_are_answered_together() -> None:
    assert ask._alike([30, 500, 90, 10, 620, 31]) == [[3, 0, 5], [2], [1, 4]]


def test_a_second_report_asks_the_base_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    part = Part("data", asked(60), 20)
    first = Stage(monkeypatch, 0.1).ask([part], tmp_path, 1000)["data"]
    again = Stage(monkeypatch, 0.1)
    heard = again.ask([part], tmp_path, 1000)["data"]
    assert again.base == []
    assert (heard.answers, heard.cached, first.cached) == (first.answers, 60, 0)


def test_a_report_that_was_cut_leaves_what_it_knows_to_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    part = Part("data", asked(60), 20)
    assert Stage(monkeypatch, 1).ask([part], tmp_path, 40)["data"].cut
    again = Stage(monkeypatch, 0.01)
    heard = again.ask([part], tmp_path, 1000)["data"]
    assert not heard.cut
    assert 0 < len(again.base) < 60


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"said":{"k":{"words":1}}}', b'{"said":[1]}'])
def test_a_damaged_memory_is_asked_anew(content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_bytes(content)
    stage = Stage(monkeypatch, 0.1)
    assert len(stage.ask([Part("data", asked(9), 20)], tmp_path, 1000)["data"].answers) == 9
    assert len(stage.base) == 9
    assert orjson.loads((tmp_path / "data.json").read_bytes())["v"] == 1


def test_other_rows_or_settings_are_another_memory(tmp_path: Path) -> None:
    home, encoder = Home(tmp_path), SimpleNamespace(identity="gemma")
    known = [("w", "d", 36), ("x", "d", 36), ("w", "e", 36), ("w", "d", 40)]
    paths = {ask.memory(home, weights, encoder, data, tokens).path for weights, data, tokens in known}  # type: ignore[arg-type]
    assert len(paths) == 4
    assert asked(1)[0].key != Asked("", [2, 0, 0], "", [1]).key, "where the answer begins counts"


def test_how_long_an_answer_may_become() -> None:
    assert rows.answer_tokens([]) == 8
    assert rows.answer_tokens([Asked("", [1], "", [1] * 20)]) == 38
    assert rows.answer_tokens([Asked("", [1], "", [1] * 500)]) == 256


def test_a_card_that_is_too_small_is_asked_fewer_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    stage, sizes = Stage(monkeypatch, 0.1), []

    def answer(model: Any, encoder: Any, batch: Any, sampling: Any, look: Any) -> list[Any]:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError
        return stage.answer(model, encoder, batch, sampling, look)

    monkeypatch.setattr("runner.answer.answer", answer)
    assert len(stage.ask([Part("data", asked(20), 20)], tmp_path, 1000)["data"].answers) == 20
    assert sizes[:3] == [8, 4, 2]
    assert max(sizes[3:10]) == 2


# ---- with a tiny model


@pytest.fixture
def training(home: Home, tiny_gemma: Path, tmp_path: Path) -> str:
    """A finished training with rows for evaluation, whose adapter is random."""
    home.create()
    job_id = "01M83T39RSXNMCZHRRM215TC4D"
    run = home.run(job_id)
    shutil.copytree(tiny_gemma, home.models / "tiny-gemma")
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(f'{{"prompt":"Question {i}?","completion":"answer {i % 3}"}}\n' for i in range(40)))
    lora(tiny_gemma, run.exports / "adapter")
    limits = {"max_problem_fraction": 1}
    spec = {"schema": 1, "model": "tiny-gemma", "dataset": str(data), "data": {"eval_fraction": 0.25}, "limits": limits}
    durable.write_json(run.spec, spec)
    result = {
        "adapter": home.relative(run.exports / "adapter"),
        "base": {"reference": "tiny-gemma", "folder": "models/tiny-gemma", "revision": None},
    }
    return ended(home, job_id, result)


@pytest.mark.training
def test_a_report_of_a_real_training_is_made_and_made_again(home: Home, training: str) -> None:
    from runner.exports import sources
    from runner.job import Attempt, StopRequest
    from runner.report import make

    attempt = Attempt(home, training, 1, StopRequest(home, training))
    told = make.report(sources.find(training, None, attempt), attempt)
    assert tuple(told["asked"][name] for name in ("rows", "held_out", "cut")) == (10, True, False), (
        "its rows were made anew"
    )
    made = orjson.loads(attempt.run.report_json.read_bytes())
    assert made["asked"]["base_cached"] == 0
    assert made["scores"]["task"] == "label"
    pairs = ballot.read(home, training)
    assert pairs is not None, "people can vote on its answers"
    assert len(pairs.samples) + pairs.same == 10
    assert all(each.messages == ({"role": "user", "content": each.prompt},) for each in pairs.samples.values())
    assert attempt.run.report.read_text().startswith("<!doctype html>")
    assert attempt.run.report_pdf.read_bytes().startswith(b"%PDF")
    again = make.report(sources.find(training, None, attempt), attempt)
    remade = orjson.loads(attempt.run.report_json.read_bytes())
    assert again["asked"]["rows"] == 10
    assert again["asked"]["sha256"] == told["asked"]["sha256"] != ""
    assert [each["name"] for each in told["measures"]] == ["accuracy", "exact", "stopped", "loss"]
    assert remade["asked"]["base_cached"] == 50, "ten rows and the general set: the base was asked nothing"
    assert remade["scores"] == made["scores"]
    assert not list(attempt.run.root.glob(".report*")), "nothing half-written is left"


@pytest.mark.training
def test_merged_in_memory_it_expects_what_the_adapter_expects(tiny_gemma: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    adapter = lora(tiny_gemma, tmp_path / "adapter")
    row = Asked("", [2, 300, 301, 302], "", [310, 311, 5])
    base = ask.load(tiny_gemma)
    [before] = ask._losses(base, [row])
    with torch.no_grad():
        logs = torch.log_softmax(base(torch.tensor([[*row.ids, 310, 311]])).logits[0, 3:].float(), -1)
    by_hand = -sum(float(logs[i, token]) for i, token in enumerate(row.expected_ids)) / 3
    assert before == pytest.approx(by_hand, abs=1e-3)
    merged, who = ask.tune(base, tiny_gemma, adapter)
    [after] = ask._losses(merged, [row])
    [unmerged] = ask._losses(PeftModel.from_pretrained(ask.load(tiny_gemma), str(adapter)).eval(), [row])
    assert before
    assert after
    assert unmerged
    assert who == "base"
    assert after == pytest.approx(unmerged, abs=0.02)
    assert abs(after - before) > 2 * abs(after - unmerged)


@pytest.mark.training
def test_rows_of_any_length_read_together_have_the_loss_that_each_has_alone(tiny_gemma: Path) -> None:
    base = ask.load(tiny_gemma).float()
    lengths = [(3, 2), (40, 9), (5, 0), (12, 120), *[(7, 60)] * 12]
    rows = [Asked("", list(range(10, 10 + n)), "", list(range(300, 300 + m))) for n, m in lengths]
    together = ask.expected_losses(base, rows)
    alone = [ask._losses(base, [row])[0] for row in rows]
    assert [each is None for each in together] == [m == 0 for _, m in lengths]
    assert [e for e in together if e] == pytest.approx([e for e in alone if e], rel=1e-4)


@pytest.mark.training
def test_an_adapter_of_another_base_is_refused(tiny_gemma: Path, tmp_path: Path) -> None:
    adapter = lora(tiny_gemma, tmp_path / "adapter")
    config = durable.read_json(adapter / "adapter_config.json")
    for settings in (config, {**config, "use_dora": True}):
        durable.write_json(adapter / "adapter_config.json", settings)
        from safetensors.torch import load_file, save_file

        tensors = load_file(adapter / "adapter_model.safetensors")
        renamed = {name.replace("layers.1.", "layers.7."): value for name, value in tensors.items()}
        save_file(renamed, adapter / "adapter_model.safetensors")
        with pytest.raises(FinetunerError) as caught:
            ask.tune(ask.load(tiny_gemma), tiny_gemma, adapter)
        assert caught.value.code == "adapter_mismatch"


@pytest.mark.training
def test_an_adapter_that_is_no_plain_lora_answers_unmerged(tiny_gemma: Path, tmp_path: Path) -> None:
    adapter = lora(tiny_gemma, tmp_path / "adapter", use_dora=True)
    model, who = ask.tune(ask.load(tiny_gemma), tiny_gemma, adapter)
    assert who == "tuned"
    assert hasattr(model, "peft_config")
