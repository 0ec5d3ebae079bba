"""Stored datasets: content-addressed, untouched bytes, no path from a user's text, nothing left of a failed add."""

import gzip
import hashlib
import io
import multiprocessing
import os
import threading
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool.data.keeping import forget, keep
from spool.protocol import durable
from spool.protocol.errors import DataError, NotFound
from spool.protocol.home import Home

CSV = b"\xef\xbb\xbfprompt;completion\r\na;b\r\nc;\r\n"


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("../../evil.csv", "question,answer\na,b\n")
        archive.writestr("b.csv", "question,answer\nc,d\n")
    return out.getvalue()


ZIPPED = zipped()


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


def test_a_file_name_that_is_no_text(home: Home) -> None:
    assert keep.add(home, "tickets", "b\udcffd.csv", CSV).original_name == "b?d.csv"


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


def test_the_newest_version_is_the_last_one_whatever_the_clock_says(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two in the same millisecond; then a clock that goes back."""
    for moment in ("2026-11-23T10:00:00.999Z", "2026-11-23T10:00:00.999Z", "2020-01-01T00:00:00.000Z"):
        monkeypatch.setattr(keep, "now_iso", lambda moment=moment: moment)
        for row in ("d;e", "f;g", "h;i"):
            added = keep.add(home, "tickets", "a.csv", CSV + f"{row}\r\n".encode())
            assert keep.find(home, "tickets") == added


@pytest.mark.parametrize(
    ("filename", "data", "file"),
    [
        ("x.jsonl", b'{"text": "a"}\n{"text": "b"}\n', "data.jsonl"),
        ("x.csv", b'{"text": "a"}\n{"text": "b"}\n', "data.jsonl"),
        ("x", b"just a line\nand one more\n", "data.txt"),
        ("x.exe", b'[{"text": "a"}]', "data.json"),
        ("x.tsv", b"question\tanswer\na\tb\n", "data.tsv"),
        ("x.csv", b"Frage,Antwort\na,b\n", "data.csv"),
        ("x.jsonl.gz", gzip.compress(b'{"text": "a"}\n{"text": "b"}\n', mtime=0), "data.jsonl.gz"),
        ("x.jsonl", gzip.compress(b"question,answer\na,b\n", mtime=0), "data.csv.gz"),
        ("x.zip", ZIPPED, "data.zip"),
    ],
)
def test_file_names_come_from_a_list(home: Home, filename: str, data: bytes, file: str) -> None:
    stored = keep.add(home, "a", filename, data)
    assert stored.path.name == file
    assert stored.path.read_bytes() == data


@pytest.mark.parametrize("damage", [b"", b"\0" * 100])
def test_a_damaged_version_is_whole_again_when_its_bytes_come_again(home: Home, damage: bytes) -> None:
    first = keep.add(home, "tickets", "a.csv", CSV)
    (first.path.parent / keep.RECORD).write_bytes(damage)
    assert keep.list_datasets(home) == []
    again = keep.add(home, "tickets", "a.csv", CSV)
    assert again.path.read_bytes() == CSV
    assert [stored.version for stored in keep.list_datasets(home)] == [first.version]
    assert len([name for name in os.listdir(home.datasets / "tickets") if name.startswith(".damaged-")]) == 1


def test_an_unrecognised_layout_is_kept_for_a_mapping(home: Home) -> None:
    stored = keep.add(home, "a", "x.csv", b"alpha,beta\na,b\n")
    assert stored.format is None
    assert stored.report is not None
    assert "not recognised" in stored.report["error"]["message"]


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "a b", "ä", "a@b", "x" * 81, "a\n", "-x"])
def test_names_that_cannot_be(home: Home, name: str) -> None:
    with pytest.raises(DataError, match="cannot be a dataset's name"):
        keep.add(home, name, "a.csv", CSV)
    assert tree(home) == []


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\x01\x02" * 100, b"[]", gzip.compress(b"0" * 20_000_000), ZIPPED[:-30]],
    ids=["nothing", "no text", "no rows", "a bomb", "half a zip"],
)
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


def test_streams_are_kept_and_a_broken_one_leaves_nothing(home: Home) -> None:
    assert keep.add(home, "tickets", "a.csv", io.BytesIO(CSV)).path.read_bytes() == CSV

    class Stops(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise ConnectionResetError("the upload stopped")
            return super().read(10)

    with pytest.raises(ConnectionResetError):
        keep.add(home, "other", "a.csv", Stops(CSV))
    assert [each.name for each in home.datasets.iterdir()] == ["tickets"]


def test_a_large_stream_never_lies_in_memory_as_a_whole(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "_judged", lambda path, filename, limits: ("jsonl", 1, None, {}))
    asked: list[int] = []

    class Zeros(io.RawIOBase):
        left = 300

        def read(self, size: int = -1) -> bytes:
            asked.append(size)
            self.left -= 1
            return b"0" * size if self.left >= 0 else b""

    tracemalloc.start()
    stored = keep.add(home, "large", "a.jsonl", Zeros())  # type: ignore[arg-type]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stored.size_bytes == stored.path.stat().st_size == 300 * max(asked)
    assert stored.size_bytes > 10 * peak_bytes


def test_file_names_of_packed_data(tmp_path: Path) -> None:
    for container, data, name in (
        ("jsonl", gzip.compress(b"{}"), "data.jsonl.gz"),
        ("csv", b"PK\x03\x04rest", "data.zip"),
        ("parquet", b"PAR1", "data.parquet"),
        ("parquet", gzip.compress(b"PAR1"), "data.parquet.gz"),
        ("txt", b"", "data.txt"),
    ):
        (tmp_path / "x").write_bytes(data)
        assert keep._file_name(container, tmp_path / "x") == name
        assert name in keep.FILES


def test_adding_again_heals_damaged_bytes(home: Home) -> None:
    stored = keep.add(home, "tickets", "a.csv", CSV)
    for damage in (lambda: stored.path.write_bytes(CSV[:-1]), stored.path.unlink):
        damage()
        with pytest.raises(DataError, match=r"changed on the disk|cannot be read") as error:
            keep.verified(home, "tickets")
        assert error.value.code == "dataset_changed"
        keep.add(home, "tickets", "a.csv", CSV)
        assert keep.verified(home, "tickets").path.read_bytes() == CSV


def test_only_abandoned_drafts_are_swept(home: Home) -> None:
    old = home.create().datasets / ".adding-1-abc"
    old.mkdir()
    (old / "data.csv").write_bytes(CSV)
    with keep.drafting(home) as mine:
        os.utime(mine, (0, 0))
        os.utime(old, (0, 0))
        keep.add(home, "tickets", "a.csv", CSV)
        assert mine.is_dir(), "its process lives, however long it takes"
        assert not old.exists()
    assert not mine.exists()


def _add(task: tuple[str, int]) -> str:
    root, number = task
    return keep.add(Home(Path(root)), "tickets", "a.csv", CSV + b"x;y\n" * (number % 4)).version


def test_ten_processes_at_once(home: Home) -> None:
    with multiprocessing.get_context("fork").Pool(10) as pool:
        versions = pool.map(_add, [(str(home.root), number) for number in range(40)], chunksize=1)
    assert len(set(versions)) == 4
    assert {each.version for each in keep.list_datasets(home)} == set(versions)
    assert all(keep.verified(home, each.reference) == each for each in keep.list_datasets(home))
    assert len(tree(home)) == 8
    assert not list(home.datasets.rglob(".*"))


def test_adding_and_deleting_at_once_never_leaves_a_version_without_bytes(home: Home) -> None:
    keep.add(home, "tickets", "a.csv", CSV)
    strange: list[BaseException] = []

    def work(number: int) -> None:
        try:
            if number % 2:
                keep.add(home, "tickets", "a.csv", CSV)
            else:
                forget.delete(home, "tickets")
        except NotFound:  # another one deleted it first
            pass
        except BaseException as error:
            strange.append(error)

    for _ in range(10):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for each in keep.list_datasets(home):
            keep.verify(each)
        for each in keep.versions(home, "tickets", deleted=True):
            assert not each.path.exists()
    assert not strange


@given(st.text(max_size=120))
def test_a_proposed_name_is_always_good(filename: str) -> None:
    keep.check_name(keep.clean_name(filename))


def test_proposed_names() -> None:
    assert keep.clean_name("Übersicht (2024).csv") == "Ubersicht-2024"
    assert keep.clean_name("C:\\Users\\me\\tickets.jsonl") == "tickets"
    assert keep.clean_name("日本語.json") == "dataset"
    assert keep.clean_name("v1.2 data.tar.gz") == "v1.2-data"
