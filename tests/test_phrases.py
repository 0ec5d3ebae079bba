"""What spool and runner say is known in each language of the pages, and read back from a sentence as it was said."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pages.parts import phrases, texts
from pages.parts.phrases import translated
from spool.health.failure import explain_exception
from tests.sayings import ROOT, finding_codes, templates

OTHERS = [name for name in texts.LANGUAGES if name != texts.ENGLISH]
ASIDE = {"column {}"}
"""Also what a column without a name is called, by which a mapping names it."""


@pytest.fixture(autouse=True)
def spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_asked", lambda: "de")


@cache
def said_by_the_code() -> dict[str, str]:
    return templates()


def filled(template: str) -> tuple[str, list[str]]:
    """A sentence that the template makes, and what stands in its places."""
    values = [f"«{number}»" for number in range(template.count("{}"))]
    return template.format(*values), values


@pytest.mark.parametrize("language", OTHERS)
def test_each_sentence_of_the_code_is_known_in_each_language(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_asked", lambda: language)
    same = {english for english, words in phrases.phrases(language) if english == words}
    missing = []
    for template, where in said_by_the_code().items():
        english, values = filled(template)
        words = translated(english)
        if template not in same | ASIDE and (words == english or not all(value in words for value in values)):
            missing.append(f"{where}: {template!r} -> {words!r}")
    assert len(said_by_the_code()) > 800  # nothing is found by a reader that reads nothing
    assert missing == []


def test_each_kind_of_finding_is_named_in_each_language() -> None:
    codes = finding_codes()
    assert {"bad_json", "duplicate", "secret", "over_long"} <= codes
    for language in texts.LANGUAGES:
        named = tomllib.loads((texts.FOLDER / language / "data.toml").read_text("utf-8"))["code"]
        assert codes - set(named) == set()


@pytest.mark.parametrize("language", OTHERS)
def test_each_phrase_has_the_places_of_its_english(language: str) -> None:
    for english, words in phrases.phrases(language):
        _, values = filled(english)
        assert sorted(re.findall("«.»", words.format(*values))) == values, english


@pytest.mark.parametrize("language", OTHERS)
def test_no_phrase_outlives_the_sentence_that_it_stands_for(language: str) -> None:
    """What it says between its places stands in the code, or it is a special case of a sentence of the code."""
    code = "\0".join(literals())
    general = [re.compile(re.escape(each).replace(r"\{\}", "(.*?)")) for each in said_by_the_code()]
    dead = [
        english
        for english, _ in phrases.phrases(language)
        if english not in FOREIGN
        and not all(part.strip(" .") in code for part in english.split("{}"))
        and not any(each.fullmatch(english) for each in general)
    ]
    assert dead == []


FOREIGN = {
    "expecting value", "expecting property name enclosed in double quotes", "expecting ',' delimiter",
    "expecting ':' delimiter", "extra data", "unterminated string starting at", "invalid control character at",
    "Is a directory", "No such file or directory", "Permission denied", "No space left on device",
    "Read-only file system", "Input/output error", "Disk quota exceeded",
}  # fmt: skip
"""What the operating system and Python's json say."""


def literals() -> Iterator[str]:
    """Every text in spool and runner, places left empty."""
    for folder in ("spool", "runner"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value.replace("{", "{{").replace("}", "}}")


def test_a_failure_is_told_in_german() -> None:
    for line in (Path(__file__).parent / "failure_messages.jsonl").read_text("utf-8").splitlines():
        error = explain_exception(RuntimeError(json.loads(line)["error"]))
        if error["code"] != "unexpected":
            assert translated(error["message"]) != error["message"], error
            assert translated(error["hint"]) != error["hint"], error


@pytest.mark.parametrize(
    ("english", "german"),
    [
        ("the field 'output' is empty.", "Das Feld 'output' ist leer."),
        ("the same as line 1,204 of b.csv.", "Gleich mit Zeile 1.204 von b.csv."),
        (
            "not valid JSON at column 4: expecting ',' delimiter.",
            "Kein gültiges JSON bei Spalte 4: erwartet wird ein Komma.",
        ),
        (
            "a.json: 2 of 6 rows (33%) cannot be trained on, more than the 10% allowed (bad_quotes 1, empty_field 1). "
            "Line 5: 1 cell where the header has 2. Is a cell missing? Line 6: the field 'output' is empty. "
            "(and 4 more)",
            "a.json: 2 von 6 Zeilen (33 %) sind nicht zum Training brauchbar, erlaubt sind 10 % (bad_quotes 1, "
            "empty_field 1). Zeile 5: 1 Zelle, die Kopfzeile hat 2. Fehlt eine Zelle? Zeile 6: Das Feld 'output' ist "
            "leer. (und 4 weitere)",
        ),
        (
            "the card's memory ran out: 2.25 GiB more were asked for, and 1.56 GiB of its 79.11 GiB were free.",
            "Der Speicher der Karte reichte nicht: 2,25 GiB mehr waren nötig, und von ihren 79,11 GiB waren 1,56 GiB "
            "frei.",
        ),
        (
            "the job crashed (SIGSEGV), 3 times in a row before its first checkpoint.",
            "der Auftrag stürzte ab (SIGSEGV), 3-mal hintereinander vor seinem ersten Checkpoint.",
        ),
        (
            "the queue is held by Anna Muster, until somebody releases it",
            "die Warteschlange ist angehalten von Anna Muster, bis jemand sie freigibt",
        ),
        (
            'Expected "auto" or a whole number from 1 to 64.',
            'Erwartet wird "auto" oder eine ganze Zahl von 1 bis 64.',
        ),
    ],
)  # fmt: skip
def test_a_sentence_is_translated_with_its_values_and_parts(english: str, german: str) -> None:
    assert translated(english) == german


@pytest.mark.parametrize(
    "text", ["x or y", "red or blue or green", "Blue 3 cars", "notes and 3 more ideas", "", "column 1"]
)
def test_what_people_wrote_stays(text: str) -> None:
    assert translated(text) == text


def test_english_is_shown_as_it_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_asked", lambda: "en")
    assert translated("the field 'x' is empty.") == "the field 'x' is empty."
