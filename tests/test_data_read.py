"""Reading: every container, encoding and broken row; no bytes whatever raise anything but DataError."""

import json
import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spool.data.judging.check import check
from spool.data.reading.read import read
from spool.data.reading.table import Table, count_dropped
from spool.protocol.errors import DataError

FILES = Path(__file__).parent / "data"


def codes(table: Table) -> list[tuple[int, str]]:
    return [(problem.line, problem.code) for problem in table.problems]


@pytest.mark.parametrize(
    ("name", "container", "encoding", "lines", "problems"),
    [
        ("excel_semicolon_bom.csv", "csv", "utf-8 with BOM", [2, 4, 5], []),
        ("excel_utf16.tsv", "tsv", "utf-16", [2, 3, 4], []),
        (
            "ragged.csv",
            "csv",
            "utf-8",
            [2, 4, 6, 10, 12],
            [(3, "ragged_row"), (5, "ragged_row"), (8, "empty_row"), (9, "bad_quotes"), (11, "bad_quotes")],
        ),
        (
            "broken_line.jsonl",
            "jsonl",
            "utf-8",
            [1, 4, 5, 6, 7, 9, 10, 11],
            [(2, "bad_json"), (8, "wrong_type")],
        ),
        ("sharegpt.json", "json", "utf-8", [2, 27, 40, 53, 62, 66, 83], []),
        ("alpaca.json", "json", "utf-8", [2, 3, 4, 6, 7], [(5, "bad_json")]),
        ("cut_short.json", "json", "utf-8", [1, 1], [(1, "bad_json")]),
        ("concatenated.json", "json", "utf-8", [1, 5], []),
        ("pandas.json", "json", "utf-8", [1, 1], []),
        ("labels_numeric.json", "json", "utf-8", [1, 1, 1], []),
        ("wrapped_rows.json", "json", "utf-8", [4, 18], []),
        ("lines.txt", "txt", "utf-8", [1, 2, 4], []),
        ("paragraphs.txt", "txt", "utf-8", [1, 4, 7], []),
        ("windows1252.csv", "csv", "windows-1252", [2, 3], []),
        ("damaged_utf8.jsonl", "jsonl", "utf-8 with 1 unreadable bytes", [1, 2, 3], []),
        ("csv_in_disguise.jsonl", "csv", "utf-8", [2, 3], []),
        ("jsonl_in_disguise.csv", "jsonl", "utf-8", [1, 2], []),
    ],
)
def test_awkward_files(
    name: str, container: str, encoding: str, lines: list[int], problems: list[tuple[int, str]]
) -> None:
    table = read(FILES / name)
    assert (table.container, table.encoding) == (container, encoding)
    assert [record.line for record in table.records] == lines
    assert codes(table) == problems
    assert table.rows == len(lines) + len(problems)


def test_cells_keep_newlines_and_quotes() -> None:
    table = read(FILES / "excel_semicolon_bom.csv")
    assert table.columns == ["Prompt", "Completion"]
    assert table.records[0].value["Prompt"] == "Wo ist meine Bestellung?\nIch warte; seit Montag."
    assert table.records[1].value["Prompt"] == 'Sagt sie "danke"?'
    assert table.records[2].value["Completion"] == "Erledigt:\n- Konto\n- Karte"
    assert read(FILES / "windows1252.csv").records[0].value["Antwort"] == "5 € für alles"


@pytest.mark.parametrize(
    ("text", "columns", "first"),
    [
        ("sep=;\na;b\n1;2\n", ["a", "b"], {"a": "1", "b": "2"}),
        ("a|b\n1|2\n", ["a", "b"], {"a": "1", "b": "2"}),
        ("a\tb\n1,5\t2\n", ["a", "b"], {"a": "1,5", "b": "2"}),
        ('a, b\n"x, y", "z, z"\n', ["a", "b"], {"a": "x, y", "b": "z, z"}),
        ("text\nHello, world\n", ["text"], {"text": "Hello, world"}),
        ("a,a,\n1,2,\n", ["a", "a (2)"], {"a": "1", "a (2)": "2"}),
        ("a,,b\n1,2,3\n", ["a", "column 2", "b"], {"a": "1", "column 2": "2", "b": "3"}),
        ("a,b\r1,2\r", ["a", "b"], {"a": "1", "b": "2"}),
        ('a\tb\n"quoted" word\t2\n5" disk\t3\n', ["a", "b"], {"a": '"quoted" word', "b": "2"}),
    ],
)
def test_delimiters(tmp_path: Path, text: str, columns: list[str], first: dict[str, str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(text.encode())
    table = read(path)
    assert table.columns == columns
    assert table.records[0].value == first
    assert not table.problems


def test_a_cell_may_be_longer_than_the_csv_module_likes(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text(f"prompt,completion\n{'x' * 300_000},y\n")
    assert len(read(path).records[0].value["prompt"]) == 300_000


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('{"text": "one"}', [{"text": "one"}]),
        ('["one", "two"]', [{"text": "one"}, {"text": "two"}]),
        ('{"prompt": ["a", "b"], "completion": ["c", "d"]}', [{"prompt": "a", "completion": "c"}, 0]),
        ('{"rows": [{"a": 1}, {"a": 2}]}', [{"a": 1}, {"a": 2}]),
        ('{"messages": [{"role": "user", "content": "x"}]}', [{"messages": [{"role": "user", "content": "x"}]}]),
        ('[[{"role": "user", "content": "x"}]]', [{"messages": [{"role": "user", "content": "x"}]}]),
        ('{"a": "\u2028"}\n{"a": "\x85"}\n', [{"a": "\u2028"}, {"a": "\x85"}]),
        ('{"a": 123456789012345678901234567890}\n', [{"a": 123456789012345678901234567890}]),
    ],
)
def test_shapes_of_json(tmp_path: Path, text: str, rows: list) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    found = [record.value for record in read(path).records]
    assert len(found) == len(rows)
    assert [f for f, r in zip(found, rows, strict=True) if r] == [r for r in rows if r]


def test_one_broken_element_costs_only_itself(tmp_path: Path) -> None:
    rows = [json.dumps({"prompt": f"{n}", "meta": [{"prompt_id": n}], "completion": "x"}) for n in range(20)]
    rows[7] = rows[7].replace('"completion"', "completion")
    for text in ("[" + ", ".join(rows) + "]", "[\n" + ",\n".join(rows) + "\n]"):
        (tmp_path / "rows.json").write_text(text)
        table = read(tmp_path / "rows.json")
        assert [record.value["prompt"] for record in table.records] == [str(n) for n in range(20) if n != 7]
        assert [problem.code for problem in table.problems] == ["bad_json"]


def test_what_was_not_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"train": [{"text": "a"}],\n"data": [{"text": "b"}]}')
    assert [(p.line, p.code, p.action) for p in read(path).problems] == [(2, "not_read", "kept")]
    path.write_text('[{"text": "a"}]\n[{"text": "b"}\n]')
    assert codes(read(path)) == [(2, "bad_json")]
    path.write_text('[{"text": "a"},\n')
    assert [(p.line, p.action) for p in read(path).problems] == [(1, "kept")]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"\xff\xfe", "empty"),
        (b"\x1f\x8b\x08rest", "cannot be unpacked"),
        (b"PK\x03\x04rest", "zip"),
        (b"PAR1rest", "Parquet"),
        (bytes(range(256)) * 8, "not text"),
        (b"prompt,completion\n", "no rows"),
        (b"[]", "no rows"),
        (b"[1, 2, 3]", "none of the 3 rows"),
        (b'{"a": [1], "b": [1, 2]}', "different lengths"),
        (b"[" * 100_000, "none of the"),
    ],
)
def test_nothing_usable_is_a_clear_error(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=words):
        read(path)


def test_messages_can_always_be_printed(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes('{"é": [1], "b'.encode() + b'\xff": [1, 2]}')
    with pytest.raises(DataError) as error:
        read(path)
    assert "b?: 2" in error.value.message


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file") as error:
        read(tmp_path / "none.csv")
    assert error.value.code == "dataset_missing"
    with pytest.raises(DataError, match="folder without a data file"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="not a regular file"):
        read(tmp_path / "pipe.csv")


@pytest.mark.parametrize("row", ['a",b,"c', '"x', '""",', 'x,"y""', '"'])
def test_hostile_quotes_take_no_time(tmp_path: Path, row: str) -> None:
    path = tmp_path / "hostile.csv"
    path.write_text("a,b\n1,2\n" + f"{row}\n" * 50_000)
    started = time.monotonic()
    table = read(path)
    assert time.monotonic() - started < 10
    assert table.rows == len(table.records) + count_dropped(table.problems)


ENDINGS = st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".txt", ".md", ""])
TEXTS = st.text(st.sampled_from('{}[]",:;|\t\n\r\\ab1.- é€"'), max_size=200)
SOUP = st.one_of(st.binary(max_size=300), TEXTS.map(str.encode), TEXTS.map(lambda t: t.encode("utf-16")))
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(SOUP, ENDINGS)
def test_any_bytes_are_rows_or_a_data_error(tmp_path: Path, data: bytes, ending: str) -> None:
    path = tmp_path / f"soup{ending}"
    path.write_bytes(data)
    try:
        table = read(path)
    except DataError as error:
        words = (error.message, error.hint)
    else:
        words = ("", "")
    if any(words):
        assert all(words)
        return
    assert table.records
    assert table.rows == len(table.records) + count_dropped(table.problems)
    try:
        report = check(path)
    except DataError as error:
        assert "recognised" in error.message or "column names" in error.message  # noqa: PT017
    else:
        assert report.rows == table.rows == report.usable_rows + count_dropped(report.problems)
        json.dumps(report.to_json()).encode()
    lines = data.count(b"\n") + data.count(b"\r") + 1
    assert all(1 <= place.line <= lines for place in [*table.records, *table.problems])


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00", exclude_categories=("Cs", "Cc")), max_size=30)
GOOD = st.lists(st.fixed_dictionaries({"prompt": CELL, "completion": CELL}), min_size=1, max_size=12)


@FUZZ
@given(
    GOOD, st.lists(st.sampled_from(['{"prompt": "a"', "{'a': 1}", "[1", "null", '"x', "3"]), max_size=6), st.randoms()
)
def test_no_json_line_is_lost(tmp_path: Path, rows: list, broken: list, order: random.Random) -> None:
    lines = [json.dumps(row) for row in rows] + broken
    order.shuffle(lines)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    table = read(path)
    assert table.rows == len(lines)
    dropped = [problem for problem in table.problems if problem.action == "dropped"]
    assert sorted(place.line for place in [*table.records, *dropped]) == list(range(1, len(lines) + 1))


@FUZZ
@given(GOOD, st.sampled_from(",;\t|"), st.booleans())
def test_csv_written_by_python_comes_back(tmp_path: Path, rows: list, delimiter: str, quoted: bool) -> None:
    import csv

    path = tmp_path / "rows.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
        writer = csv.DictWriter(file, ["prompt", "completion"], delimiter=delimiter, quoting=quoting)
        writer.writeheader()
        writer.writerows(rows)
    filled = [row for row in rows if row["prompt"].strip() or row["completion"].strip()]
    if not filled:
        with pytest.raises(DataError):
            read(path)
        return
    table = read(path)
    assert [record.value for record in table.records] == filled
    assert table.rows == len(rows)
