"""The probe before a training of packed rows: what it looks at, for how long, and for whom its answer counts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset

from runner import probe
from runner.bases import Base
from runner.job import Attempt, StopRequest
from runner.packed.batch import Rows
from spool.protocol import metrics
from spool.protocol.home import Home
from spool.protocol.spec import JobSpec

JOB = "01K00000010123456789ABCDEF"


class Counting:
    """In the place of a Step: it notes how many tokens it was given at once, and learns nothing."""

    on_gpu = False

    def __init__(self, most_tokens: float = 10_000) -> None:
        self.most_tokens = most_tokens
        self.learned: list[int] = []
        self.parameters = [torch.zeros(1000)]

    def learn(self, rows: Rows, trained_tokens: int) -> None:
        self.learned.append(rows.tokens)

    def forget(self) -> None:
        pass


def row(length: int) -> dict[str, list[int]]:
    return {"input_ids": [7] * length, "labels": [7] * length}


def looked(
    home: Home, lengths: list[int], reference: str = "gemma-3-270m", precision: str = "16bit", **train: Any
) -> Counting:
    """One look before a training on rows of so many tokens, four a step; gives what it was made of."""
    run = home.run(JOB)
    run.root.mkdir(exist_ok=True)
    (home.root / "settings.json").write_text("{}")
    train = {"batch_size": 4, "gradient_accumulation": 1, "optimizer": "adamw_torch", "packing": True, **train}
    train |= {"gradient_checkpointing": False, "save_steps": 10}
    spec = JobSpec.model_validate(
        {"schema": 1, "model": "m", "dataset": "d.jsonl", "precision": precision, "train": train}
    )
    step = Counting()
    rows = Dataset.from_list([row(length) for length in lengths]).with_format("numpy")
    attempt = Attempt(home, JOB, 1, StopRequest(home, JOB))
    base = Base(reference, home.models / "m", None, 1000, 2000)
    probe.look(spec, attempt, base, SimpleNamespace(step=step, train_dataset=rows, eval_dataset=None))
    return step


LENGTHS = [100, 90, 120, 80, 110, 95, 105, 85]


def test_a_training_alike_needs_no_look_of_its_own(home: Home) -> None:
    assert looked(home, LENGTHS).learned
    assert not looked(home, LENGTHS).learned
    said = [row["words"] for row in metrics.read(home.run(JOB).events) if row["event"] == "measured"]
    assert len(said) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"gradient_accumulation": 4},
        {"batch_size": 2},
        {"optimizer": "adafactor"},
        {"precision": "4bit"},
        {"reference": "gemma-3-1b-it"},
        {"lengths": [3 * length for length in LENGTHS]},
        {"version": "another torch"},
        {"engine": "another engine"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_one_that_is_not_alike_is_looked_at(
    home: Home, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looked(home, LENGTHS)
    if version := other.pop("version", None):
        monkeypatch.setattr(probe.metadata, "version", lambda name: version)
    if engine := other.pop("engine", None):
        (tmp_path / "step.py").write_text(engine)
        monkeypatch.setattr(probe, "ENGINE", tmp_path)
    assert looked(home, **{"lengths": LENGTHS, **other}).learned


def test_of_rows_that_come_in_parts_the_largest_part_is_tried() -> None:
    """The first one may be a short row before a long one."""
    step = Counting(most_tokens=160)
    rows = Rows([row(20), row(150), row(60), row(40)])
    probe.measure(step, rows, rows)  # type: ignore[arg-type]
    assert set(step.learned) == {150}


def test_after_enough_time_nothing_is_tried_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, patient, hasty = Rows([row(20)]), Counting(), Counting()
    probe.measure(patient, rows, rows)  # type: ignore[arg-type]
    monkeypatch.setattr(probe, "ENOUGH_S", 0.0)
    probe.measure(hasty, rows, rows)  # type: ignore[arg-type]
    assert (len(patient.learned), len(hasty.learned)) == (5, 2)


def test_it_says_what_the_whole_will_take(home: Home) -> None:
    looked(home, LENGTHS)
    (said,) = [row["words"] for row in metrics.read(home.run(JOB).events) if row["event"] == "measured"]
    assert said.endswith(" s for all 6 steps; at most 0.1 GB of disk")
