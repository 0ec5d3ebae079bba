"""From file to training rows: the auto rules of the spec, the cut, the split, and what blocks a job."""

import json
from pathlib import Path

import pytest
from test_data_chat import folder

from spool.data.chat import NOT_TRAINED, Encoder
from spool.data.prepare import eval_rows, prepare
from spool.protocol.errors import DataError
from spool.protocol.spec import Data


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.for_model(folder(tmp_path_factory.mktemp("model"), max_position_embeddings=4096))


def pairs(path: Path, count: int, bad: int = 0, answer: str = "Paris") -> Path:
    rows = [{"prompt": f"question {n}", "completion": answer if n >= bad else ""} for n in range(count)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_autos(tmp_path: Path, encoder: Encoder) -> None:
    found = prepare(pairs(tmp_path / "a.jsonl", 400), Data(), encoder, 42)
    assert (found.layout.format, found.train_on) == ("prompt_completion", "responses")
    assert (len(found.train), len(found.eval), found.eval_fraction) == (380, 20, 0.05)
    assert found.max_length == max(len(row.input_ids) for row in found.train + found.eval)
    assert found.counts["rows"] == found.counts["usable"] == 400
    assert not found.problems
    resolved = Data(
        format=found.layout.format, train_on="responses", max_length=found.max_length, eval_fraction=found.eval_fraction
    )
    again = prepare(tmp_path / "a.jsonl", resolved, encoder, 42)
    assert (again.train, again.eval) == (found.train, found.eval), "a resumed job must see the same rows"


def test_split_follows_the_seed(tmp_path: Path, encoder: Encoder) -> None:
    path = pairs(tmp_path / "a.jsonl", 200)
    first, same, other = (prepare(path, Data(), encoder, seed) for seed in (1, 1, 2))
    assert [row.line for row in first.eval] == [row.line for row in same.eval]
    assert [row.line for row in first.eval] != [row.line for row in other.eval]
    assert not {row.line for row in first.eval} & {row.line for row in first.train}
    assert [row.line for row in first.train] == sorted(row.line for row in first.train)


@pytest.mark.parametrize(
    ("usable", "fraction", "count"),
    [(99, "auto", 0), (100, "auto", 5), (10_000, "auto", 200), (10, 0.0, 0), (10, 0.01, 1), (1, 0.5, 0), (3, 0.5, 2)],
)
def test_eval_rows(usable: int, fraction: float | str, count: int) -> None:
    assert eval_rows(usable, fraction) == count


def test_plain_text(tmp_path: Path, encoder: Encoder) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one line\nanother line\n")
    found = prepare(path, Data(), encoder, 1)
    assert (found.layout.format, found.train_on) == ("text", "all")
    assert all(NOT_TRAINED not in row.labels for row in found.train)
    with pytest.raises(DataError, match="no answers"):
        prepare(path, Data(train_on="responses"), encoder, 1)


def test_long_rows_are_cut_and_said(tmp_path: Path, encoder: Encoder) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"prompt": "short", "completion": "x"},
        {"prompt": "short", "completion": "word " * 60},
        {"prompt": "word " * 60, "completion": "x"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = prepare(path, Data(max_length=48), encoder, 1, max_problem_fraction=0.5)
    assert [row.line for row in found.train] == [1, 2]
    assert [len(row.input_ids) for row in found.train][1] == 48
    cut, dropped = found.problems
    assert (cut.line, cut.code, cut.action) == (2, "over_long", "cut")
    assert "tokens of the answer are among them" in cut.message
    assert (dropped.line, dropped.code, dropped.action) == (3, "no_trainable_tokens", "dropped")
    assert found.counts["over_long"] == 2


def test_max_length(tmp_path: Path, encoder: Encoder) -> None:
    path = pairs(tmp_path / "a.jsonl", 3, answer="word " * 3000)
    assert prepare(path, Data(), encoder, 1).max_length == 2048
    assert prepare(path, Data(max_length=4096), encoder, 1).max_length == 4096
    with pytest.raises(DataError, match="at most 4,096"):
        prepare(path, Data(max_length=5000), encoder, 1)


def test_blocked(tmp_path: Path, encoder: Encoder) -> None:
    path = pairs(tmp_path / "a.jsonl", 20, bad=2)
    assert len(prepare(path, Data(), encoder, 1).train) == 18
    with pytest.raises(DataError) as error:
        prepare(pairs(path, 20, bad=3), Data(), encoder, 1)
    assert error.value.code == "data_blocked"
    assert "3 of 20 rows (15%)" in error.value.message
    assert "empty_field 3" in error.value.message
    assert "Line 1: the field 'completion' is empty." in error.value.message
    assert len(prepare(path, Data(), encoder, 1, max_problem_fraction=0.2).train) == 17
    with pytest.raises(DataError, match="none of the 20 rows") as error:
        prepare(pairs(path, 20, bad=20), Data(), encoder, 1, max_problem_fraction=1)
    assert error.value.code == "data_blocked"
    with pytest.raises(DataError, match="only row cannot be trained on"):
        prepare(pairs(path, 1, bad=1), Data(), encoder, 1)
