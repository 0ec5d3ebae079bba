"""The data doctor: the contract's fields, the same verdict as training, and its speed."""

import json
import time
from pathlib import Path

import pytest
from test_data_chat import folder
from test_data_prepare import spec

from spool.data.judging.chat import Encoder
from spool.data.judging.check import Model, check
from spool.data.prepare import Task, prepare
from spool.data.reading.table import count_dropped
from spool.protocol.errors import DataError

FILES = Path(__file__).parent / "data"
UNREADABLE = ("no_header", "unequal")
READABLE = sorted(path for path in FILES.iterdir() if path.is_file() and path.stem not in UNREADABLE)
CONTRACT = {
    *("format", "rows", "usable_rows", "columns", "problems", "tokens", "duplicates", "supervised_fraction"),
}


@pytest.mark.parametrize("path", READABLE, ids=lambda path: path.name)
def test_every_row_is_usable_or_has_a_reason(path: Path, tmp_path: Path) -> None:
    report = check(path)
    document = report.to_json()
    assert set(document) >= CONTRACT
    json.dumps(document)
    assert report.rows == report.usable_rows + count_dropped(report.problems)
    assert report.tokens is None
    assert report.supervised_fraction is None
    dropped = [problem.line for problem in report.problems if problem.action == "dropped"]
    assert path.suffix == ".json" or len(dropped) == len(set(dropped)), "a row is dropped once"
    model = folder(tmp_path)
    with_model = check(path, model_folder=model)
    assert (with_model.rows, with_model.usable_rows) == (report.rows, report.usable_rows)
    assert with_model.tokens is not None
    assert with_model.tokens["p50"] <= with_model.tokens["p95"] <= with_model.tokens["max"]
    task = Task(spec(allowed=1.0), path, Model(Encoder.for_model(model), "t"), tmp_path / "tokens")
    prepared = prepare(task, tmp_path / "data")
    assert prepared.counts["usable"] == with_model.usable_rows


def test_duplicates_stay() -> None:
    report = check(FILES / "labels.csv")
    assert (report.duplicates, report.usable_rows, report.rows) == (1, 4, 5)
    assert (report.problems[0].line, report.problems[0].code, report.problems[0].action) == (5, "duplicate", "kept")
    assert check(FILES / "openai_messages.jsonl").duplicates == 0


def test_mapping_and_format() -> None:
    with pytest.raises(DataError, match="no line with column names"):
        check(FILES / "no_header.csv")
    assert check(FILES / "windows1252.csv").format == "question_answer"
    report = check(FILES / "windows1252.csv", mapping={"prompt": "Frage", "completion": "Antwort"})
    assert (report.usable_rows, report.encoding) == (2, "windows-1252")
    assert report.mapping == {"prompt": "Frage", "completion": "Antwort"}
    assert check(FILES / "labels.csv", format="text").format == "text"


def test_tokens_of_the_real_model(embedded_model: Path) -> None:
    report = check(FILES / "openai_messages.jsonl", model_folder=embedded_model)
    assert report.tokens == {"p50": 16, "p95": 28, "max": 28, "over_limit": 0}
    assert report.supervised_fraction is not None
    assert 0.1 < report.supervised_fraction < 0.5
    cut = check(FILES / "openai_messages.jsonl", model_folder=embedded_model, max_length=16)
    assert cut.tokens is not None
    assert cut.tokens["over_limit"] == 3


def test_a_hundred_thousand_rows_take_seconds(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    words = "apples and pears are sweet, " * 12
    with open(path, "w") as file:
        for number in range(100_000):
            turns = [{"role": "user", "content": f"{number} {words}"}, {"role": "assistant", "content": words}]
            file.write(json.dumps({"messages": turns}) + "\n")
    started = time.monotonic()
    assert check(path).usable_rows == 100_000
    assert time.monotonic() - started < 15
