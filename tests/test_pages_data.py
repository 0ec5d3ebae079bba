"""What the Data page is made of: verdicts, tables, edits, the token view and the charts, all without a browser."""

import csv
import io
import json
from itertools import pairwise
from typing import Any

import altair as alt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pages.parts.data import changes, data_charts, editing, findings, preview, reading, token_view
from spool.data.keeping.diff import Change, Diff
from spool.data.keeping.keep import Stored
from spool.data.reading.table import Record
from spool.protocol.errors import DataError


def report(**told: Any) -> dict[str, Any]:
    return {
        "rows": 100,
        "usable_rows": 100,
        "problems": [],
        "problem_counts": {},
        "blocked": None,
        "format": "question_answer",
        "confidence": 0.98,
        "container": "csv",
        "reading": "semicolon-separated",
        "encoding": "utf-8",
        "columns": ["question", "answer"],
        "mapping": {"question": "question", "answer": "answer"},
    } | told


def problem(line: int, code: str = "empty_field", action: str = "dropped", **more: Any) -> dict[str, Any]:
    return {"line": line, "code": code, "message": "the field 'a' is empty.", "action": action, "byte": None, **more}


@pytest.mark.parametrize(
    ("told", "color", "says"),
    [
        ({}, "green", "each of the 100 rows"),
        ({"problem_counts": {"duplicate": 3}}, "yellow", "All 100 rows can be trained on. Look at the 3"),
        ({"problem_counts": {"duplicate": 1}}, "yellow", "Look at the one finding first"),
        ({"problem_counts": {"empty_field": 1}, "usable_rows": 99}, "yellow", "99 of 100 rows can be trained on; 1"),
        ({"problem_counts": {"empty_field": 7}, "usable_rows": 93}, "yellow", "7 rows (7 %) are left out"),
        (
            {"problem_counts": {"x": 20}, "usable_rows": 80, "blocked": {"code": "b", "message": "m.", "hint": "h"}},
            "red",
            "20 of 100 rows (20 %) cannot be trained on",
        ),
        (
            {"problems": [problem(0, "one_label", "blocks")], "blocked": {"message": "One label only."}},
            "red",
            "One label only.",
        ),
    ],
)  # fmt: skip
def test_the_verdict_is_one_sentence(told: dict[str, Any], color: str, says: str) -> None:
    found = findings.verdict(report(**told))
    assert found.color == color
    assert says in found.says


def test_findings_are_counted_filtered_and_tabled() -> None:
    told = report(
        problems=[problem(3), problem(4, "duplicate", "kept"), problem(0, "one_label", "kept")],
        problem_counts={"duplicate": 1, "empty_field": 7, "one_label": 1},
    )
    assert list(findings.counts(told)) == ["empty_field", "duplicate", "one_label"]
    assert [each["line"] for each in findings.chosen(told, ["duplicate"])] == [4]
    table = findings.table(findings.chosen(told, []))
    assert table["kind"].tolist() == ["Empty field", "Repeated row", "One label only"]
    assert table["done"].tolist() == ["left out", "kept", "kept"]
    assert table["line"].isna().tolist() == [False, False, True]
    assert "file" not in table
    assert findings.table([problem(3, file="a/b.csv")])["file"].tolist() == ["a/b.csv"]
    assert len(findings.table([problem(i) for i in range(1, 2000)])) == findings.SHOWN


def test_findings_as_csv_hold_no_formula() -> None:
    nasty = problem(3, message="=HYPERLINK(1)", file="@a.csv")
    rows = list(csv.reader(io.StringIO(findings.as_csv([nasty, problem(4)]).decode("utf-8-sig"))))
    assert rows[1] == ["3", "'@a.csv", "empty_field", "'=HYPERLINK(1)", "left out"]
    assert rows[2][0] == "4"


def test_the_headline_says_what_was_recognised_and_how_surely() -> None:
    plain = preview.headline(report()).replace("\\", "")
    assert plain.startswith("CSV · semicolon-separated · utf-8 · Question and answer, 98 % sure")
    assert "a guess" not in plain
    assert "a guess, look at the columns" in preview.headline(report(confidence=0.45))


# ---- correcting in place


def test_places_name_each_row_once() -> None:
    found = [problem(3, byte=20), problem(3, "duplicate", byte=20), problem(0), problem(5, file="b.csv")]
    assert editing.places(found) == [{"line": 3, "byte": 20}, {"line": 5, "file": "b.csv"}]


def test_a_row_of_many_on_one_line_is_found_by_its_byte() -> None:
    rows = [Record(1, {"a": "x"}, 0), Record(1, {"a": "y"}, 9)]
    assert editing.record_of({"line": 1, "byte": 9}, rows) is rows[1]
    assert editing.record_of({"line": 1, "byte": 5}, rows) is None
    assert editing.record_of({"line": 1}, rows) is rows[0]


def test_an_unreadable_row_can_be_written_anew() -> None:
    rows = [Record(2, {"q": "Where?", "a": None}), None]
    table = editing.table(rows, ["q", "a"])
    assert table.values.tolist() == [["Where?", ""], ["", ""]]
    where = [{"line": 2}, {"line": 7}]
    made = editing.edits({1: {"q": "How?", "a": "So."}, 0: {"a": "Here."}}, where, rows)
    assert made == [{"line": 2, "values": {"a": "Here."}}, {"line": 7, "values": {"q": "How?", "a": "So."}}]


def test_a_cell_that_held_json_holds_json_again() -> None:
    row = Record(4, {"messages": [{"role": "user", "content": "x"}], "n": 3})
    edited = '[{"role": "user", "content": "y"}]'
    made = editing.edits({0: {"messages": edited, "n": "4"}}, [{"line": 4}], [row])
    assert made[0]["values"] == {"messages": [{"role": "user", "content": "y"}], "n": 4}
    with pytest.raises(DataError, match="line 4: the cell 'messages'"):
        editing.edits({0: {"messages": "[oops"}}, [{"line": 4}], [row])


# ---- how it is read


def test_a_reading_goes_to_train_and_comes_back() -> None:
    said = reading.Reading("alpaca", {"instruction": "Frage = x"}, "windows-1252", "\t", False, 512)
    assert reading.from_query(said.query()["set"]) == said.values()
    assert reading.Reading().query() == {}


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "{", "null", '{"/data/format": "x"}', '{"/data/mapping": {"a": 1}}', '{"/data/max_length": -1}'),
        *('{"/data/max_length": true}', '{"/data/format": []}', '{"/train/epochs": 5}', '{"/data/encoding": {"a": 1}}'),
    ],
)
def test_a_typed_address_sets_nothing_it_should_not(text: str) -> None:
    assert reading.from_query(text) == {}


def test_a_mapping_says_only_what_differs() -> None:
    chosen = {"prompt": "Frage", "completion": "Antwort", "system": None}
    assert reading.differing(chosen, {"prompt": "Frage"}) == {"completion": "Antwort"}
    assert reading.roles("auto", "alpaca")[:2] == ("instruction", "output")
    assert "prompt" in reading.roles("auto", None)


# ---- the token view


def token(text: str, number: int = 9, special: bool = False, trained: bool = False) -> dict[str, Any]:
    return {"id": number, "text": text, "special": special, "trained": trained}


def view(*tokens: dict[str, Any], limit: int | None = None) -> dict[str, Any]:
    return {"tokens": list(tokens), "limit": limit}


def test_chips_tell_trained_read_and_special_apart() -> None:
    seen = token_view.drawn(
        view(token("<bos>", special=True), token("Hi"), token("\n", trained=True), token("<eos>", 1, True, True))
    )
    assert [(chip["kind"], chip["trained"]) for chip in seen["chips"]] == [
        ("special", False), ("read", False), ("trained", True), ("special", True),
    ]  # fmt: skip
    assert (seen["tokens"], seen["trained"], seen["limit"], seen["lost"]) == (4, 2, None, 0)
    assert token_view.in_words(seen) == "4 tokens, 2 of them learned from."


def test_what_lies_behind_the_limit_is_cut() -> None:
    seen = token_view.drawn(view(token("a"), token("b", trained=True), token("c", trained=True), limit=2))
    assert [chip["cut"] for chip in seen["chips"]] == [False, False, True]
    assert (seen["lost"], seen["lost_trained"]) == (1, 1)
    assert "1 are lost behind the limit of 2, 1 of the answer among them" in token_view.in_words(seen)
    assert token_view.drawn(view(token("a"), limit=2))["limit"] is None


def bytes_of(text: str, trained: bool = False) -> list[dict[str, Any]]:
    return [token(f"<0x{byte:02X}>", byte, trained=trained) for byte in text.encode()]


def test_bytes_of_one_character_are_one_chip() -> None:
    seen = token_view.drawn(view(*bytes_of("🦄"), *bytes_of("é"), token(" ok")))
    assert [chip["text"] for chip in seen["chips"]] == ["🦄", "é", " ok"]
    assert [chip["from"] for chip in seen["chips"]] == [0, 4, 6]
    assert len(seen["chips"][0]["ids"]) == 4
    halved = token_view.drawn(view(*bytes_of("🦄"), limit=2))
    assert [len(chip["ids"]) for chip in halved["chips"]] == [2, 1, 1]


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", " b", "\n", "<0xF0>", "<0x9F>", "<0x41>", "<0xC3>"]), st.booleans()),
        max_size=40,
    ),
    st.none() | st.integers(1, 40),
)
def test_no_token_is_lost_or_shown_twice(pieces: list[tuple[str, bool]], limit: int | None) -> None:
    tokens = [token(text, number, trained=trained) for number, (text, trained) in enumerate(pieces)]
    seen = token_view.drawn(view(*tokens, limit=limit))
    assert [number for chip in seen["chips"] for number in chip["ids"]] == list(range(len(tokens)))
    kept = sum(len(chip["ids"]) for chip in seen["chips"] if not chip["cut"])
    assert kept == min(len(tokens), limit or len(tokens))
    for chip in seen["chips"]:
        assert {tokens[number]["trained"] for number in chip["ids"]} == {chip["trained"]}
    json.dumps(seen, ensure_ascii=False).encode()


def test_a_very_long_row_is_not_sent_whole() -> None:
    seen = token_view.drawn(view(*[token("a")] * (token_view.MOST_TOKENS + 5)))
    assert len(seen["chips"]) == token_view.MOST_TOKENS
    assert seen["hidden"] == 5


# ---- statistics


def lengths(**told: Any) -> dict[str, Any]:
    return {"unit": "tokens", "edges": [0, 10, 20, 30], "counts": [5, 3, 2], "limit": 20, "suggested": 32} | told


TOKENS = {"p50": 8, "p95": 25, "max": 29, "over_limit": 2}


@pytest.mark.parametrize(
    ("found", "tokens", "says"),
    [
        (lengths(), TOKENS, "2 rows (20 %) are longer than 20 tokens and lose their end: set “Longest row” to 32"),
        (lengths(suggested=None), TOKENS, "shorten or split them"),
        (lengths(limit=64), TOKENS | {"over_limit": 0}, "A limit of 32 would cut 1 %"),
        (lengths(limit=32), TOKENS | {"over_limit": 0}, "Nothing to do"),
        (lengths(unit="characters"), None, "Choose a base model"),
    ],
)
def test_lengths_in_a_sentence(found: dict[str, Any], tokens: dict[str, int] | None, says: str) -> None:
    assert says in data_charts.lengths_say(found, tokens, 10)


def drawn(chart: alt.LayerChart | alt.Chart) -> dict[str, Any]:
    spec = chart.to_dict()
    assert "NaN" not in json.dumps(spec)
    return spec


def test_the_length_chart_draws_the_limit_and_what_it_cuts() -> None:
    spec = drawn(data_charts.lengths(lengths(limit=15)))
    bars = next(rows for rows in spec["datasets"].values() if "rows" in rows[0])
    assert [(row["start"], row["series"]) for row in bars] == [(0, "fits"), (10, "fits"), (20, "is cut")]
    assert not [row for row in bars if row["rows"] < 0]
    words = [row["says"] for rows in spec["datasets"].values() for row in rows if "says" in row]
    assert words == ["limit 15", "suggested 32"]
    far = drawn(data_charts.lengths(lengths(limit=2048, suggested=None)))
    assert not [row for rows in far["datasets"].values() for row in rows if "says" in row], "off the chart"


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([[2, 10]], "one question and one answer"),
        ([[2, 5], [3, 5]], "Most rows have 2 turns, the longest 3"),
        ([[1, 5], [2, 5]], "system turn"),
    ],
)
def test_turns_in_a_sentence(found: list[list[int]], says: str) -> None:
    assert says in data_charts.turns_say(found)
    drawn(data_charts.turns(found))


def english(code: str) -> str:
    return {"en": "English", "de": "German"}.get(code, code)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([["en", 10], ["und", 2]], "All rows whose language can be told are in English"),
        ([["en", 10]], "All rows are in English"),
        ([["und", 10], ["en", 2]], "too short"),
        ([["en", 95], ["de", 5]], "Mostly English; the other 5 %"),
        ([["en", 50], ["de", 50]], "Several languages"),
    ],
)
def test_languages_in_a_sentence(found: list[list[Any]], says: str) -> None:
    assert says in data_charts.languages_say(found, english)
    drawn(data_charts.languages(found, english))


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([["refund", 10]], "nothing to tell apart"),
        ([["refund", 90], ["other", 9]], "“refund” has 10 times the rows of “other”"),
        ([["refund", 10], ["other", 9]], "balanced well enough"),
    ],
)
def test_labels_in_a_sentence(found: list[list[Any]], says: str) -> None:
    assert says in data_charts.labels_say(found)


def test_many_labels_end_in_one_bar_and_none_is_in_the_spec() -> None:
    found = [[f"<img src=x> label {i}", 40 - i] for i in range(20)]
    spec = drawn(data_charts.labels(found))
    data = spec.pop("datasets")
    rows = next(iter(data.values()))
    assert len(rows) == data_charts.MOST_BARS + 1
    assert rows[-1]["name"] == "8 more"
    assert sum(row["rows"] for row in rows) == sum(count for _, count in found)
    assert "label 3" not in json.dumps(spec)


@pytest.mark.parametrize(("share", "says"), [(0.4, "40 % of"), (0.01, "Only 1 %"), (1.0, "all of the text")])
def test_the_supervised_share_in_a_sentence(share: float, says: str) -> None:
    assert says in data_charts.supervised_say(share)
    drawn(data_charts.supervised(share))


def test_duplicates_as_a_table_and_a_sentence() -> None:
    found = [{"line": 3, "times": 9, "text": "a\nb\ud800"}, {"line": 4, "times": 2, "text": "c"}]
    assert data_charts.duplicates(found)["text"].tolist() == ["a b?", "c"]
    assert "9 times" in data_charts.duplicates_say(found)
    assert "little harm" in data_charts.duplicates_say(found[1:])


def test_a_sample_says_how_sure_it_is() -> None:
    assert data_charts.sample_note(None) == ""
    assert data_charts.sample_note(2000) == "From the first 2,000 rows; shares are right to within ± 2 points."
    widths = [data_charts.margin(0.5, rows) for rows in (100, 400, 1600)]
    assert all(abs(wide / narrow - 2) < 1e-9 for wide, narrow in pairwise(widths))


# ---- changes


def stored(**told: Any) -> Stored:
    return Stored(
        **{"name": "faq", "version": "0" * 12, "path": None, "rows": 3, "format": None, "added_at": ""} | told
    )


def test_where_a_version_comes_from_in_words() -> None:
    assert changes.origin(stored(original_name="a\nb.csv")) == "uploaded as a b.csv"
    made = stored(recipe=[{"step": "dedupe"}, {"step": "cap", "rows": 5}], parents=["faq@abc"])
    assert changes.origin(made) == "repeated rows dropped, then the first 5 rows kept · from faq@abc"
    assert changes.origin(stored(recipe=[{"step": "mask"}], left_out={"bad_json": 2})).endswith(
        "left out: 2 × Not valid JSON"
    )


def test_variants_are_shown_beside_their_rows() -> None:
    row = {"q": "Where?", "a": "Here."}
    pairs = [(row, {"q": "where??", "a": "Here.", "augmented": "noise", "augmented_from": 2}), (row, dict(row))]
    assert changes.compared(pairs).values.tolist() == [["q", "Where?", "where??"], ["q", "Where?", "Where?"]]


def test_differences_of_two_versions_as_a_table() -> None:
    found = Diff(1, 1, 1, 0)
    found.changed_rows = [Change(2, 2, {"q": "a", "a": "x"}, {"q": "a", "a": "y"})]
    found.added_rows = [Change(None, 5, None, {"q": "n", "x": 3})]
    found.removed_rows = [Change(7, None, {"q": "o"}, None)]
    assert changes.differing(found, 10).values.tolist() == [
        ["changed", 2, "a", "x", "y"], ["added", 5, "", "", "n · 3"], ["removed", 7, "", "o", ""],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("org/name", "hf:org/name"),
        (" hf:org/name:config:split ", "hf:org/name:config:split"),
        ("https://hub.example/datasets/org/name/", "hf:org/name"),
        ("datasets/org/name", "hf:org/name"),
        ("", None),
        ("org/name/tree/main", None),
        ("../../etc/passwd", None),
        ("<b>", None),
    ],
)
def test_what_is_typed_for_the_hub(typed: str, meant: str | None) -> None:
    assert reading.hub_reference(typed) == meant


def test_roles_that_count_for_nothing_are_said() -> None:
    half = reading.Reading(mapping={"prompt": "frage"})
    assert "read as Plain text" in reading.half_mapped(half, "text")
    assert reading.half_mapped(half, "prompt_completion") == reading.half_mapped(half, None) == ""


def test_before_the_end_nothing_is_called_good() -> None:
    assert "so far" in findings.verdict(report(), complete=False).says
    assert "so far" not in findings.verdict(report()).says


def test_what_is_gravest_comes_first() -> None:
    found = [problem(line, action=action) for line, action in enumerate(("kept", "cut", "dropped", "blocks"))]
    assert [each["line"] for each in findings.gravest(found, 3)] == [3, 2, 1]
