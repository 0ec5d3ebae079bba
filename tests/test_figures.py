"""What a form knows of its data: at once what was noted when it was added, then what the doctor says."""

import time
from pathlib import Path
from typing import Any

import pytest

from pages.parts.train import figures
from pages.parts.train.presets import Size
from spool.data import inspect
from spool.data.inspect import Inspection
from spool.data.keeping import keep
from spool.protocol.home import Home

FAQ = b"question,answer\n" + b"".join(b"How much is %d?,It costs %d euros.\n" % (i, i) for i in range(60)) + b"Why?,\n"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home").create()
    keep.add(made, "faq", "faq.csv", FAQ)
    return made


@pytest.mark.alone
def test_a_stored_dataset_is_known_at_once_and_better_a_little_later(home: Home, tmp_path: Path) -> None:
    begun = time.monotonic()
    seen = figures.look(home, tmp_path, "faq", None, {})
    assert time.monotonic() - begun < 1.0
    assert (seen.state, seen.complete, seen.rows, seen.tokens) == ("reading", False, 60, None)
    while not seen.complete:
        assert time.monotonic() - begun < 60
        time.sleep(0.1)
        seen = figures.look(home, tmp_path, "faq", None, {})
    assert (seen.state, seen.rows, seen.findings, seen.format) == ("known", 60, 1, "question_answer")
    assert seen.size == Size(60, None)


@pytest.mark.parametrize("dataset", ["hf:org/rows", "nothing", "../../etc/passwd", "", None, "x" * 5000, "a\0b"])
def test_what_cannot_be_looked_at_is_not_known(dataset: str | None, home: Home, tmp_path: Path) -> None:
    assert figures.look(home, tmp_path, dataset, None, {}).state == ("none" if not dataset else "unknown")


def test_how_the_form_reads_a_file_is_asked_for(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def look(*_: Any, **how: Any) -> Inspection:
        asked.update(how)
        return Inspection(None, False, None)

    monkeypatch.setattr(inspect, "look", look)
    told = {"/data/mapping": {"prompt": "question"}, "/data/delimiter": ";", "/data/max_length": 64}
    assert figures.look(home, tmp_path, "faq", "no-such-model", told).rows is None, (
        "read otherwise than when it was added"
    )
    assert (asked["mapping"], asked["max_length"], asked["model_folder"]) == ({"prompt": "question"}, 64, None)
    assert asked["dialect"].delimiter == ";"
    nonsense = {"/data/mapping": "nonsense", "/data/delimiter": None, "/data/max_length": "auto"}
    assert figures.look(home, tmp_path, "faq", "../faq", nonsense).rows == 60
    assert (asked["mapping"], asked["max_length"], asked["dialect"].delimiter) == ({}, None, "auto")


def test_what_an_inspection_says() -> None:
    report = {"usable_rows": 10, "rows": 12, "problem_counts": {"duplicate": 2, "secret": 1}, "blocked": None}
    report |= {"tokens": {"p50": 40, "max": 90}, "format": "text"}
    seen = figures.of(Inspection(report, True, None))
    assert (seen.state, seen.rows, seen.tokens, seen.longest, seen.findings) == ("known", 10, 400, 90, 3)
    blocked = figures.of(Inspection(report | {"blocked": {"message": "no.", "code": "x"}}, True, None))
    assert (blocked.state, blocked.problem, blocked.hint) == ("blocked", "no.", "")
    wrong = figures.of(Inspection(None, True, {"message": "no.", "hint": "why"}))
    assert (wrong.state, wrong.rows, wrong.problem, wrong.hint) == ("unreadable", None, "no.", "why")
