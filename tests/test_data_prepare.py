"""From file to training rows: the auto rules of the spec, the cut, the split, what blocks a job, and what is left."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from test_data_chat import folder

from spool.data import prepared
from spool.data.judging import arrow_rows
from spool.data.judging.chat import NOT_TRAINED, Encoder
from spool.data.judging.check import Model
from spool.data.prepare import Task, eval_rows, prepare
from spool.data.prepared import Prepared
from spool.protocol import durable
from spool.protocol.errors import DataError
from spool.protocol.spec import JobSpec
from spool.protocol.training import Data, Limits, Train


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.for_model(folder(tmp_path_factory.mktemp("model"), max_position_embeddings=4096))


def spec(data: Data | None = None, seed: int = 1, allowed: float = 0.1) -> JobSpec:
    limits = Limits(max_problem_fraction=allowed)
    named = {"schema": 1, "model": "m", "dataset": "a.jsonl", "train": Train(seed=seed), "limits": limits}
    return JobSpec.model_validate({**named, "data": data or Data()})


def made(path: Path, encoder: Encoder, *more: Any, **named: Any) -> Prepared:
    model = Model(encoder, "t")
    return prepare(Task(spec(*more, **named), path, model, path.parent / "tokens"), path.parent / "data")


def kept(path: Path | None) -> list[dict[str, Any]]:
    if path is None:
        return []
    return [
        {**row._asdict(), "input_ids": list(row.input_ids), "labels": list(row.labels)} for row in arrow_rows.read(path)
    ]


def findings(path: Path) -> dict[str, Any]:
    return dict(durable.read_json(path.parent / "data" / "check.json"))


def pairs(path: Path, count: int, bad: int = 0, answer: str = "Paris") -> Path:
    rows = [{"prompt": f"question {n}", "completion": answer if n >= bad else ""} for n in range(count)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_autos(tmp_path: Path, encoder: Encoder) -> None:
    path = pairs(tmp_path / "a.jsonl", 400)
    found = made(path, encoder, seed=42)
    assert (found.format, found.train_on) == ("prompt_completion", "responses")
    assert (found.train_rows, found.eval_rows, found.eval_fraction) == (380, 20, 0.05)
    train, evaluation = kept(found.train), kept(found.eval)
    assert (len(train), len(evaluation)) == (380, 20)
    assert found.max_length == max(len(row["input_ids"]) for row in train + evaluation)
    assert found.counts["rows"] == found.counts["usable"] == 400
    assert found.counts["tokens"] == sum(len(row["input_ids"]) for row in train + evaluation)
    assert [problem["code"] for problem in findings(path)["problems"]] == ["one_answer"]
    resolved = Data(
        format=found.format, train_on="responses", max_length=found.max_length, eval_fraction=found.eval_fraction
    )
    again = made(path, encoder, resolved, seed=42)
    assert (kept(again.train), kept(again.eval)) == (train, evaluation), "a resumed job must see the same rows"
    assert again.files == found.files


def test_split_follows_the_seed(tmp_path: Path, encoder: Encoder) -> None:
    path = pairs(tmp_path / "a.jsonl", 200)
    lines = []
    for seed in (1, 1, 2):
        found = made(path, encoder, seed=seed)
        lines.append([[row["line"] for row in kept(each)] for each in (found.train, found.eval)])
    (train, evaluation), same, other = lines
    assert [train, evaluation] == same
    assert evaluation != other[1]
    assert not set(evaluation) & set(train)
    assert train == sorted(train)


@pytest.mark.parametrize(
    ("usable", "fraction", "count"),
    [(99, "auto", 0), (100, "auto", 5), (10_000, "auto", 200), (10, 0.0, 0), (10, 0.01, 1), (1, 0.5, 0), (3, 0.5, 2)],
)
def test_eval_rows(usable: int, fraction: float | str, count: int) -> None:
    assert eval_rows(usable, fraction) == count


def test_a_split_that_keeps_no_row_says_why(tmp_path: Path, encoder: Encoder) -> None:
    path = tmp_path / "a.jsonl"

    def notices(questions: int, rows: int, fraction: float | str) -> list[str]:
        asked = [{"prompt": f"question {n % questions}", "completion": f"answer {n}"} for n in range(rows)]
        path.write_text("\n".join(map(json.dumps, asked)))
        done = made(path, encoder, Data(eval_fraction=fraction))
        assert done.eval_rows == 0 or not findings(path)["notices"]
        return list(findings(path)["notices"])

    (says,) = notices(1, 20, 0.1)
    assert says.startswith("No row is kept for evaluation, although 2 should be")
    assert "all rows ask the same question" in says
    assert "eval.dataset" in says
    assert "all rows ask the same question" in notices(1, 120, "auto")[0]
    assert "each of the 2 questions has more rows" in notices(2, 20, 0.1)[0]
    assert notices(1, 20, 0.0) == notices(1, 20, "auto") == notices(20, 20, 0.1) == []


def test_plain_text(tmp_path: Path, encoder: Encoder) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one line\nanother line\n")
    found = made(path, encoder)
    assert (found.format, found.train_on) == ("text", "all")
    assert found.eval is None
    assert all(NOT_TRAINED not in row["labels"] for row in kept(found.train))
    with pytest.raises(DataError, match="no answers"):
        made(path, encoder, Data(train_on="responses"))


def test_long_rows_are_cut_and_said(tmp_path: Path, encoder: Encoder) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"prompt": "short", "completion": "x"},
        {"prompt": "short", "completion": "word " * 60},
        {"prompt": "word " * 60, "completion": "x"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = made(path, encoder, Data(max_length=48), allowed=0.5)
    assert [row["line"] for row in kept(found.train)] == [1, 2]
    assert [len(row["input_ids"]) for row in kept(found.train)][1] == 48
    cut, dropped = (each for each in findings(path)["problems"] if each["code"] != "conflicting_answers")
    assert (cut["line"], cut["code"], cut["action"]) == (2, "over_long", "cut")
    assert "tokens of the answer are among them" in cut["message"]
    assert (dropped["line"], dropped["code"], dropped["action"]) == (3, "no_trainable_tokens", "dropped")
    assert found.counts["over_long"] == 2


def test_max_length(tmp_path: Path, encoder: Encoder) -> None:
    path = pairs(tmp_path / "a.jsonl", 3, answer="word " * 3000)
    assert made(path, encoder).max_length == 2048
    assert made(path, encoder, Data(max_length=4096)).max_length == 4096
    with pytest.raises(DataError, match="at most 4,096"):
        made(path, encoder, Data(max_length=5000))


def test_blocked(tmp_path: Path, encoder: Encoder) -> None:
    path = pairs(tmp_path / "a.jsonl", 20, bad=2)
    assert made(path, encoder).train_rows == 18
    with pytest.raises(DataError) as error:
        made(pairs(path, 20, bad=3), encoder)
    assert error.value.code == "data_blocked"
    assert "3 of 20 rows (15%)" in error.value.message
    assert "empty_field 3" in error.value.message
    assert "Line 1: the field 'completion' is empty." in error.value.message
    assert made(path, encoder, allowed=0.2).train_rows == 17
    with pytest.raises(DataError, match="none of the 20 rows") as error:
        made(pairs(path, 20, bad=20), encoder, allowed=1.0)
    assert error.value.code == "data_blocked"
    with pytest.raises(DataError, match="only row cannot be trained on"):
        made(pairs(path, 1, bad=1), encoder)


def test_a_blocked_check_leaves_its_findings_and_nothing_to_train_on(tmp_path: Path, encoder: Encoder) -> None:
    path = pairs(tmp_path / "a.jsonl", 20)
    assert prepared.load(made(path, encoder).folder) is not None
    with pytest.raises(DataError) as error:
        made(pairs(path, 20, bad=3), encoder)
    told = findings(path)
    assert told["blocked"] == error.value.to_json()
    assert (told["rows"], told["usable_rows"], told["problem_counts"]) == (20, 17, {"empty_field": 3, "one_answer": 1})
    assert [problem["line"] for problem in told["problems"]] == [0, 1, 2, 3]
    assert [each.name for each in (tmp_path / "data").iterdir()] == ["check.json"]
    path.write_bytes(b"\x00\xff" * 100)
    with pytest.raises(DataError):
        made(path, encoder)
    assert findings(path)["blocked"]["message"]


def test_what_is_prepared_is_found_again_with_the_version_of_its_data(tmp_path: Path, encoder: Encoder) -> None:
    path = pairs(tmp_path / "a.jsonl", 2500)
    done = made(path, encoder)
    assert prepared.load(done.folder) == done
    sha256 = prepared.sha256(path)
    assert done.dataset == {"reference": "a.jsonl", "sha256": sha256, "version": sha256[:12]}
    with pyarrow.ipc.open_stream(str(done.train)) as reader:
        assert reader.schema.names == ["row", "line", "byte", "input_ids", "labels"]
        assert [batch.num_rows for batch in reader] == [1000, 1000, 375]


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: spoil(f / "train.arrow"),
        lambda f: spoil(f / "eval.arrow"),
        lambda f: (f / "eval.arrow").unlink(),
        lambda f: (f / "prepared.json").unlink(),
        lambda f: (f / "prepared.json").write_text('{"v": 1'),
        lambda f: (f / "prepared.json").write_text('{"v": 3}'),
        lambda f: (f / "prepared.json").write_text('{"v": 2}'),
        lambda f: (f / "train.arrow").write_bytes(b""),
    ],
)
def test_what_is_not_whole_does_not_count(tmp_path: Path, encoder: Encoder, damage: Any) -> None:
    done = made(pairs(tmp_path / "a.jsonl", 200), encoder)
    damage(done.folder)
    assert prepared.load(done.folder) is None


def test_rows_are_written_as_they_come_and_read_back_the_same(tmp_path: Path) -> None:
    written = [
        arrow_rows.TokenRow(n, n + 1, n * 7, np.arange(n % 50, dtype=np.int32), np.full(n % 50, NOT_TRAINED, np.int32))
        for n in range(2345)
    ]
    facts, trained = prepared.write_rows(tmp_path / "train.arrow", written)
    assert (facts["rows"], facts["tokens"], trained) == (2345, sum(n % 50 for n in range(2345)), 0)
    for row, back in zip(written, arrow_rows.read(tmp_path / "train.arrow"), strict=True):
        assert row[:3] == back[:3]
        assert (row.input_ids == back.input_ids).all()
        assert (row.labels == back.labels).all()


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, encoder: Encoder) -> None:
    path = pairs(tmp_path / "a.jsonl", 20)

    def meddle(words: str) -> None:
        if words.startswith("counting"):
            pairs(path, 21)

    with pytest.raises(DataError, match="was changed while it was read") as error:
        prepare(Task(spec(), path, Model(encoder, "t"), tmp_path / "tokens"), tmp_path / "data", meddle)
    assert error.value.code == "data_changed"
    assert prepared.load(tmp_path / "data") is None


def test_the_identity_of_a_tokenizer_is_its_file_and_its_template(tmp_path: Path) -> None:
    found = set()
    for name, template in (("a", None), ("b", None), ("c", "template"), ("d", "other tokenizer")):
        (tmp_path / name).mkdir()
        model = folder(tmp_path / name)
        if template == "template":
            own = Encoder.for_model(model).template + " "
            (model / "chat_template.jinja").write_text(own)
        elif template:
            text = (model / "tokenizer.json").read_text()
            (model / "tokenizer.json").write_text(text + " ")
        found.add(Encoder.for_model(model).identity)
    assert len(found) == 3
