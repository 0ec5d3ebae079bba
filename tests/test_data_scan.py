"""The passes of the data doctor: on all cores as on one, rows against each other, the rules, tokens kept once."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_data_chat import folder
from test_data_prepare import findings, kept, made, pairs, spec

from spool.data.judging import repeats, scan, tokens
from spool.data.judging.chat import Encoder
from spool.data.judging.check import Model, check
from spool.data.judging.examples import Example
from spool.data.judging.rules import Rules
from spool.data.prepare import Task, prepare
from spool.data.reading.limits import Limits as ReadingLimits
from spool.protocol.errors import DataError
from spool.protocol.spec import JobSpec
from spool.protocol.training import Data, Eval, Limits


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.for_model(folder(tmp_path_factory.mktemp("model"), max_position_embeddings=4096))


LONG = (
    "My order of the seventh of May arrived with a broken lid, and the shop around the corner would not take it back,"
)
LONG += " although the person at the counter had told me on the phone the day before that they do this for everybody."


def mixed(path: Path, count: int, seed: int = 0) -> Path:
    """Good rows, broken ones, duplicates and contradictions, with blank lines between."""
    draw = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        for n in range(count):
            kind = draw.random()
            row = json.dumps({"prompt": f"frage {n % 900} für", "completion": f"antwort {n % 700}"}, ensure_ascii=False)
            if kind < 0.05:
                row = row[:-3]
            elif kind < 0.1:
                row = json.dumps({"prompt": f"leer {n}", "completion": ""})
            elif kind < 0.15:
                row = json.dumps({"prompt": f"mail {n}", "completion": f"write to person{n}@web.de"})
            file.write(row + "\n" + "\n" * (kind > 0.98))
    return path


def state(found: scan.Scan) -> Any:
    tally = found.tally
    arrays = [
        getattr(tally, name).tolist() for name in ("lines", "bytes", "characters", "answers", "questions", "prompts")
    ]
    flagged = {code: rows.tolist() for code, rows in tally.flagged.items()}
    return (
        tally.rows,
        arrays,
        bytes(tally.examples),
        flagged,
        dict(tally.turns),
        tally.findings.to_json(),
        found.columns,
    )


def test_many_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mixed(tmp_path / "rows.jsonl", 3000)
    alone = scan.scan(path)
    monkeypatch.setattr(scan, "PARALLEL_FROM_BYTES", 1000)
    monkeypatch.setattr(scan, "RANGE_BYTES", 7001)
    together = scan.scan(path)
    for found in (alone, together):
        repeats.compare(found)
    assert state(alone) == state(together)
    assert alone.tally.rows == alone.usable + alone.tally.findings.rows_dropped
    raw = path.read_bytes()
    for line, byte in zip(alone.tally.lines, alone.tally.bytes, strict=True):
        assert raw[:byte].count(b"\n") == line - 1


def test_rows_against_each_other(tmp_path: Path) -> None:
    rows = [("a", "1"), ("b", "2"), ("a", "1"), ("a", "3"), ("b", "2"), (LONG, "yes")]
    rows += [(LONG + " now", "yes")]
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"id": n, "prompt": p, "completion": c}) + "\n" for n, (p, c) in enumerate(rows))
    )
    report = check(path)
    told = [(p.line, p.code, p.action) for p in report.problems]
    assert (3, "duplicate", "kept") in told, "another id does not make another row"
    assert (5, "duplicate", "kept") in told
    assert (4, "conflicting_answers", "kept") in told
    assert (7, "near_duplicate", "kept") in told
    assert (report.duplicates, report.near_duplicates, report.usable_rows) == (2, 1, 7)
    assert report.statistics["top_duplicates"][0] == {"line": 1, "times": 2, "text": "a → 1"}


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"review number {n},{'good' if n % 3 else 'bad'}\n" for n in range(30)))
    assert check(path).statistics["labels"] == [["good", 20], ["bad", 10]]
    path.write_text("text,label\n" + "".join(f"review number {n},good\n" for n in range(30)))
    report = check(path)
    assert report.blocked
    assert "same label" in report.blocked["message"]
    assert check(path, rules=Rules(max_fraction={"one_label": 1})).blocked is None


def test_repairs_are_made_and_said(tmp_path: Path, encoder: Encoder) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Wo ist das fÃ¼nfte Zimmer {n}?", "completion": "Da\u200b hinten."} for n in range(4)]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    report = check(path)
    assert report.problem_counts == {"mojibake": 4, "control_characters": 4}
    assert {problem.action for problem in report.problems} == {"repaired"}
    text = encoder.decode(kept(made(path, encoder).train)[0]["input_ids"])
    assert "das fünfte Zimmer" in text
    assert "Da hinten." in text


def test_rows_with_a_finding_are_left_out_on_request(tmp_path: Path, encoder: Encoder) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"q{n % 8}", "completion": f"a{n % 8}"} for n in range(10)]
    rows[4]["completion"] = "my key is hf_" + "aB3dE6gH" * 4
    rows[5]["completion"] = "word " * 60
    path.write_text("\n".join(map(json.dumps, rows)))
    everything = made(path, encoder, Data(max_length=48))
    assert (everything.train_rows, everything.counts["left_out"]) == (10, 0)
    fewer = made(path, encoder, Data(max_length=48, drop=["duplicate", "secret", "over_long"]))
    assert [row["line"] for row in kept(fewer.train)] == [1, 2, 3, 4, 7, 8]
    assert (fewer.counts["left_out"], fewer.counts["usable"]) == (4, 10)


def test_a_job_is_blocked_by_the_rules_of_its_spec(tmp_path: Path, encoder: Encoder) -> None:
    path = pairs(tmp_path / "rows.jsonl", 20)
    job = spec().model_copy(update={"limits": Limits(max_fraction={"one_answer": 0})})
    task = Task(job, path, Model(encoder, "t"), tmp_path / "tokens")
    with pytest.raises(DataError, match=r"1 of 20 rows \(5%\) have one_answer, more than the 0% allowed") as error:
        prepare(task, tmp_path / "data")
    assert error.value.code == "data_blocked"
    assert findings(path)["blocked"]["code"] == "data_blocked"


def test_what_asks_the_same_stays_on_one_side(tmp_path: Path, encoder: Encoder) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"question {n % 40}", "completion": f"answer {n}"} for n in range(400)]
    made_rows = [
        {"prompt": f"QUESTION {n}", "completion": "x", "augmented": "noise", "augmented_of": f"{tokens_of(n):016x}"}
        for n in range(40)
    ]
    path.write_text("\n".join(map(json.dumps, rows + made_rows)))
    found = made(path, encoder, Data(eval_fraction=0.2))
    train, evaluation = ([row["line"] - 1 for row in kept(side)] for side in (found.train, found.eval))
    assert 60 <= len(evaluation) <= 88
    assert not {n % 40 for n in train if n < 400} & {n % 40 for n in evaluation}
    assert all(n < 400 for n in evaluation), "what was made is never evaluated on"
    held_out = {n % 40 for n in evaluation}
    assert not held_out & {n - 400 for n in train if n >= 400}, "nor trained on where its original is"


def test_what_says_that_it_was_made_is_never_evaluated_on(tmp_path: Path, encoder: Encoder) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"question {n}", "completion": "x"} for n in range(40)]
    for n in range(20):
        rows[n] |= {"augmented": "noise", "augmented_of": ["0" * 16, "-1", "ffz", 7, None][n % 5]}
        rows[n + 20] |= {"augmented": "by hand", "augmented_of": "0" * 16}
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    evaluation = kept(made(path, encoder, Data(eval_fraction=0.5)).eval)
    assert evaluation
    assert all(row["line"] > 20 for row in evaluation), "also where it does not say from which row"


def tokens_of(n: int) -> int:
    from spool.data.judging.examples import question_number

    return question_number(f"question {n}")


def test_an_evaluation_dataset_of_its_own(tmp_path: Path, encoder: Encoder) -> None:
    path, other = pairs(tmp_path / "rows.jsonl", 150), tmp_path / "other.csv"
    other.write_text("prompt,completion\n" + "".join(f"question {n},Paris\n" for n in range(140, 170)))
    job = JobSpec.model_validate({"schema": 1, "model": "m", "dataset": "a", "eval": Eval(dataset="other.csv")})
    done = prepare(Task(job, path, Model(encoder, "t"), tmp_path / "tokens", other), tmp_path / "data")
    assert (done.train_rows, done.eval_rows, done.eval_fraction) == (150, 20, 0.0)
    assert findings(path)["problem_counts"]["eval_overlap"] == 10
    assert done.dataset["eval_reference"] == "other.csv"
    other.write_text("prompt,completion\n" + "".join(f"question {n},Paris\n" for n in range(20)))
    with pytest.raises(DataError, match="trained on as well"):
        prepare(Task(job, path, Model(encoder, "t"), tmp_path / "tokens", other), tmp_path / "data")


def test_an_evaluation_dataset_is_laid_out_like_the_training_data(tmp_path: Path, encoder: Encoder) -> None:
    path, other = tmp_path / "rows.jsonl", tmp_path / "other.jsonl"
    for file, word in ((path, "train"), (other, "eval")):
        rows = [{"ask": f"{word} {n}", "say": f"right {n}", "prompt": "no", "completion": "wrong"} for n in range(9)]
        file.write_text("\n".join(map(json.dumps, rows)))
    data = Data(format="question_answer", mapping={"question": "ask", "answer": "say"})
    job = spec(data).model_copy(update={"eval": Eval(dataset="other.jsonl")})
    done = prepare(Task(job, path, Model(encoder, "t"), tmp_path / "tokens", other), tmp_path / "data")
    assert done.eval_rows == 9
    assert "eval 3" in encoder.decode(kept(done.eval)[3]["input_ids"])
    assert "right 3" in encoder.decode(kept(done.eval)[3]["input_ids"])
    other.write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(DataError, match=r"other\.jsonl"):
        prepare(Task(job, path, Model(encoder, "t"), tmp_path / "tokens", other), tmp_path / "data")


def test_tokens_are_counted_once(tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pairs(tmp_path / "rows.jsonl", 50)
    found = scan.scan(path)
    first = tokens.tokenise(found, encoder, "responses", tmp_path / "tokens" / "k")
    monkeypatch.setattr(Encoder, "encode_all", None)
    again = tokens.tokenise(found, encoder, "responses", tmp_path / "tokens" / "k")
    assert (first.lengths == again.lengths).all()
    assert [row.input_ids.tolist() for row in first.read()] == [row.input_ids.tolist() for row in again.read()]
    (tmp_path / "tokens" / "k" / "rows.arrow").write_bytes(b"cut short")
    assert tokens.load(tmp_path / "tokens" / "k") is None


def test_tokens_are_kept_by_what_was_read(tmp_path: Path, encoder: Encoder) -> None:
    path = pairs(tmp_path / "rows.jsonl", 50)
    asked = [("a", "b", "all"), ("a", "c", "all"), ("x", "b", "all"), ("a", "b", "responses"), ("a", "b", "all", 9)]
    keys = {tokens.key(scan.scan(path), *parts) for parts in asked}
    assert len(keys) == len(asked)
    assert tokens.key(scan.scan(path), "a", "b", "all") in keys, "the same reading finds its tokens again"

    text = "text\nWhere is the key?\n\n\nUnder the mat, as ever.\n"
    readings = []
    for name in ("same.txt", "same.csv"):
        (tmp_path / name).write_text(text)
        readings.append(scan.scan(tmp_path / name, "text"))
    plain, table = readings
    assert (plain.layout.format, plain.layout.roles) == (table.layout.format, table.layout.roles)
    assert tokens.key(plain, "a", "b", "all") != tokens.key(table, "a", "b", "all")

    path.write_text(path.read_text().replace("Paris", "Paris" * 20, 1))
    limited = scan.scan(path, limits=ReadingLimits(max_row_mb=0.000_1))
    assert limited.usable == 49
    assert tokens.key(limited, "a", "b", "all") != tokens.key(scan.scan(path), "a", "b", "all")


def test_a_long_file_says_how_far_it_is(tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    rows = ({"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(2 * scan.TELL_EVERY_ROWS + 5))
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scan.scan(path, say=lambda done, total: said.append((done, total)))
    assert said == [(scan.TELL_EVERY_ROWS, 0), (2 * scan.TELL_EVERY_ROWS, 0)]


def test_a_sample_says_so(tmp_path: Path) -> None:
    path = pairs(tmp_path / "rows.jsonl", 300)
    model = folder(tmp_path)
    report = check(path, model_folder=model, sample=100)
    assert report.statistics["sampled_rows"] == 100
    assert report.rows == 300
    assert sum(report.statistics["lengths"]["counts"]) == 100
    assert check(path, model_folder=model).statistics["sampled_rows"] is None


@pytest.mark.parametrize("kind", ["gemma", "gemma2", "gemma3_text"])
def test_both_ways_to_find_the_answers_agree(tmp_path: Path, kind: str) -> None:
    encoder = Encoder.for_model(folder(tmp_path, model_type=kind))
    draw = random.Random(3)
    parts = ["word", " ", "\n", "\n\n", "model", "user", "\nmodel\n", "é😀", "<", "end_of_turn", ">", "  "]
    for _ in range(300):
        texts = ["x" + "".join(draw.choices(parts, k=draw.randint(0, 9))) + "y" for _ in range(2 * draw.randint(1, 3))]
        turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
        example = Example(1, turns, None)
        text = encoder._rendered(example)
        if not isinstance(text, str):  # the parts have made a control token
            continue
        ids = encoder._plain_ids(text)
        assert encoder._spans(ids) == encoder._spans_by_text(text)
        encoded = encoder.encode(example)
        assert np.count_nonzero(np.array(encoded.labels) != -100) > 0
