"""Stored datasets: content-addressed, untouched bytes, no path from a user's text, nothing left of a failed add."""

import hashlib
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool.data import keep
from spool.protocol import durable
from spool.protocol.errors import DataError, NotFound
from spool.protocol.home import Home

CSV = b"\xef\xbb\xbfprompt;completion\r\na;b\r\nc;\r\n"


def tree(home: Home) -> list[str]:
    return sorted(str(path.relative_to(home.datasets)) for path in home.datasets.rglob("*") if path.is_file())


def test_bytes_are_kept_as_they_were(home: Home) -> None:
    stored = keep.add(home, "tickets", "../../evil name.CSV", CSV)
    assert stored.version == hashlib.sha256(CSV).hexdigest()[:12]
    assert stored.path == home.datasets / "tickets" / stored.version / "data.csv"
    assert stored.path.read_bytes() == CSV
    assert (stored.rows, stored.format, stored.original_name) == (2, "prompt_completion", "../../evil name.CSV")
    assert stored.report is not None
    assert stored.report["usable_rows"] == 1
    assert keep.resolve(home, "tickets") == keep.resolve(home, stored.reference) == stored.path
    assert keep.list_datasets(home) == [stored]
    assert tree(home) == [f"tickets/{stored.version}/data.csv", f"tickets/{stored.version}/dataset.json"]


def test_same_bytes_are_one_version_and_the_last_upload_counts(home: Home, tmp_path: Path) -> None:
    first = keep.add(home, "tickets", "a.csv", CSV)
    second = keep.add(home, "tickets", "a.csv", CSV + b"d;e\r\n")
    assert keep.resolve(home, "tickets") == second.path
    (tmp_path / "again.csv").write_bytes(CSV)
    again = keep.add(home, "tickets", "again.csv", tmp_path / "again.csv")
    assert again.path == first.path
    assert keep.resolve(home, "tickets") == first.path
    assert keep.resolve(home, second.reference) == second.path
    assert len(keep.list_datasets(home)) == 2


@pytest.mark.parametrize(
    ("filename", "data", "file"),
    [
        ("x.jsonl", b'{"text": "a"}\n{"text": "b"}\n', "data.jsonl"),
        ("x.csv", b'{"text": "a"}\n{"text": "b"}\n', "data.jsonl"),
        ("x", b"just a line\nand one more\n", "data.txt"),
        ("x.exe", b'[{"text": "a"}]', "data.json"),
        ("x.tsv", b"question\tanswer\na\tb\n", "data.tsv"),
        ("x.csv", b"Frage,Antwort\na,b\n", "data.csv"),
    ],
)
def test_file_names_come_from_a_list(home: Home, filename: str, data: bytes, file: str) -> None:
    stored = keep.add(home, "a", filename, data)
    assert stored.path.name == file
    assert stored.path.read_bytes() == data


def test_an_unrecognised_layout_is_kept_for_a_mapping(home: Home) -> None:
    stored = keep.add(home, "a", "x.csv", b"Frage,Antwort\na,b\n")
    assert stored.format is None
    assert stored.report is not None
    assert "not recognised" in stored.report["error"]["message"]


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "a b", "ä", "a@b", "x" * 81, "a\n", "-x"])
def test_names_that_cannot_be(home: Home, name: str) -> None:
    with pytest.raises(DataError, match="cannot be a dataset's name"):
        keep.add(home, name, "a.csv", CSV)
    assert tree(home) == []


@pytest.mark.parametrize("data", [b"", b"\x00\x01\x02" * 100, b"[]"])
def test_nothing_is_left_of_what_cannot_be_read(home: Home, data: bytes) -> None:
    with pytest.raises(DataError, match=r"upload\.csv"):
        keep.add(home, "a", "upload.csv", data)
    assert list(home.datasets.iterdir()) == []
    with pytest.raises(DataError):
        keep.add(home, "a", "a.csv", home.root / "none.csv")
    assert list(home.datasets.iterdir()) == []


def test_not_found_names_the_nearest(home: Home) -> None:
    with pytest.raises(NotFound) as error:
        keep.resolve(home, "tickets")
    assert "none yet" in error.value.hint
    stored = keep.add(home, "tickets", "a.csv", CSV)
    with pytest.raises(NotFound) as error:
        keep.resolve(home, "ticket")
    assert "tickets" in error.value.hint
    with pytest.raises(NotFound) as error:
        keep.resolve(home, "tickets@000000000000")
    assert stored.version in error.value.hint
    with pytest.raises(NotFound):
        keep.resolve(home, "../tickets")


def test_a_version_without_its_record_was_never_added(home: Home) -> None:
    stored = keep.add(home, "tickets", "a.csv", CSV)
    (stored.path.parent / keep.RECORD).unlink()
    assert keep.list_datasets(home) == []
    durable.write_json(stored.path.parent / keep.RECORD, {"file": "../../../etc/passwd", "rows": 1})
    assert keep.list_datasets(home) == []


def test_ten_at_once(home: Home) -> None:
    errors: list[Exception] = []

    def work(number: int) -> None:
        try:
            keep.add(home, "tickets", "a.csv", CSV + b"x;y\n" * (number % 3))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(keep.list_datasets(home)) == 3
    assert not list(home.datasets.glob(".*"))


@given(st.text(max_size=120))
def test_a_proposed_name_is_always_good(filename: str) -> None:
    keep.check_name(keep.clean_name(filename))


def test_proposed_names() -> None:
    assert keep.clean_name("Übersicht (2024).csv") == "Ubersicht-2024"
    assert keep.clean_name("C:\\Users\\me\\tickets.jsonl") == "tickets"
    assert keep.clean_name("日本語.json") == "dataset"
    assert keep.clean_name("v1.2 data.tar.gz") == "v1.2-data"
