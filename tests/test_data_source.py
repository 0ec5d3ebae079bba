"""Where rows come from: every container, packed and unpacked, folders and archives; and what hostile ones cannot do."""

import csv
import gzip
import io
import json
import os
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from spool.data.judging.check import check
from spool.data.reading.limits import Limits
from spool.data.reading.read import Dialect, Reading, read
from spool.data.reading.table import Record
from spool.protocol.errors import DataError

ROWS = [
    {"prompt": "Wo ist “Grün”?", "completion": "Da drüben,\n\tlinks: 5 €"},
    {"prompt": 'He said "no", twice', "completion": "ok"},
    {"prompt": "日本語 😀", "completion": "a;b,c|d"},
    {"prompt": " spaces  stay ", "completion": "fin"},
]


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "csv": as_csv,
    "tsv": lambda rows: as_csv(rows, "\t"),
    "json": lambda rows: json.dumps(rows, indent=1).encode(),
    "columns.json": lambda rows: json.dumps({name: [row[name] for row in rows] for name in rows[0]}).encode(),
    "wrapped.json": lambda rows: json.dumps({"version": 1, "data": rows}, ensure_ascii=False).encode(),
    "jsonl": lambda rows: b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows),
    "parquet": as_parquet,
}


def values(path: Path) -> list[dict[str, Any]]:
    table = read(path)
    assert not table.problems
    return [record.value for record in table.records]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("packed", ["plain", "gzip", "zip", "zip of gzip", "folder"])
def test_every_container_comes_back_whole(tmp_path: Path, kind: str, packed: str) -> None:
    data, name = WRITERS[kind](ROWS), f"rows.{kind}"
    path = tmp_path / name
    if packed == "gzip":
        path = tmp_path / f"{name}.gz"
        path.write_bytes(gzip.compress(data))
    elif packed.startswith("zip"):
        path = tmp_path / "rows.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("readme.md", "about")
            archive.writestr(
                f"deep/{name}" + packed[3:].replace(" of gzip", ".gz"), gzip.compress(data) if "of" in packed else data
            )
    elif packed == "folder":
        path = tmp_path / "rows"
        path.mkdir()
        (path / "notes.md").write_text("about")
        (path / name).write_bytes(data)
    else:
        path.write_bytes(data)
    assert values(path) == ROWS
    report = check(path)
    assert (report.format, report.rows, report.usable_rows) == ("prompt_completion", 4, 4)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
def test_unicode_encodings(tmp_path: Path, encoding: str, kind: str) -> None:
    text = WRITERS[kind](ROWS).decode()
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(text.encode(encoding))
    assert values(path) == ROWS
    shown = {"utf-8-sig": "utf-8 with BOM"}.get(encoding, encoding[:6].rstrip("-"))
    assert read(path).encoding == shown


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "txt"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_byte_offsets_point_at_the_rows(tmp_path: Path, kind: str, encoding: str, newline: str) -> None:
    rows = [{"prompt": f"Frage {n} über Äpfel", "completion": f"Antwort {'ü' * n}"} for n in range(9)]
    if kind == "txt":
        text = "\n".join(f"Zeile {n} über Äpfel" for n in range(9))
    else:
        text = (
            b"\n".join(json.dumps(r, ensure_ascii=False).encode() for r in rows)
            if kind == "jsonl"
            else WRITERS[kind](rows)
        ).decode()
        text = json.dumps(rows, ensure_ascii=False, indent=2) if kind == "json" else text
    text = text.replace("\r\n", "\n").replace("\n", newline)
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(text.encode(encoding))
    raw = path.read_bytes()
    found = [item for item in Reading(path) if isinstance(item, Record)]
    assert len(found) == 9
    for number, record in enumerate(found):
        assert record.byte is not None
        codec = "utf-16-le" if encoding == "utf-16" else encoding
        here = raw[record.byte :].decode(codec)
        assert str(number) in here[:40], (record, here[:40])
        before = raw[: record.byte].decode(codec).lstrip("\ufeff")
        assert record.line == before.replace("\r\n", "\n").count("\n") + 1


def test_what_is_no_utf8_is_said(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("Frage;Antwort\nWo?;für 5 €\n".encode("cp1252"))
    reading = Reading(path)
    assert reading.encoding == "windows-1252"
    assert "Windows-1252" in reading.notices[0]
    russian = "вопрос,ответ\n" + "где мой заказ который я оплатил вчера,он уже в пути к вам домой\n" * 20
    path.write_bytes(russian.encode("cp1251"))
    reading = Reading(path)
    assert reading.encoding == "windows-1251", reading.notices
    assert next(r.value["ответ"] for r in reading.sample().records).startswith("он уже")
    path.write_bytes(russian.encode("koi8_r"))
    assert Reading(path, Dialect(encoding="koi8-r")).sample().columns == ["вопрос", "ответ"]
    with pytest.raises(DataError, match="no encoding 'klingon'"):
        Reading(path, Dialect(encoding="klingon"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^", "~", "\x01", "§", ":"])
def test_any_delimiter(tmp_path: Path, delimiter: str) -> None:
    rows = [{"prompt": f"row {n}", "completion": f"answer {n}"} for n in range(5)]
    path = tmp_path / "rows.csv"
    path.write_bytes(
        as_csv(rows, delimiter) if len(delimiter.encode()) == 1 else as_csv(rows, "^").replace(b"^", delimiter.encode())
    )
    assert values(path) == rows
    path.write_text("x y\n1 2\n3 4\n")
    assert [r.value for r in read(path, Dialect(delimiter=" ")).records] == [{"x": "1", "y": "2"}, {"x": "3", "y": "4"}]


def test_a_table_without_header(tmp_path: Path) -> None:
    path = tmp_path / "sms.tsv"
    path.write_text("".join(f"{'spam' if n % 3 else 'ham'}\tmessage number {n}, ok?\n" for n in range(30)))
    report = check(path)
    assert (report.format, report.rows, report.mapping) == ("label", 30, {"text": "column 2", "label": "column 1"})
    path.write_text("one,two\nthree,four\n")
    assert read(path, Dialect(header=False)).rows == 2
    assert read(path, Dialect(header=True)).rows == 1


def test_files_of_an_archive_say_where_a_row_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/train-1.jsonl", '{"prompt": "a", "completion": "b"}\n{"broken\n')
        archive.writestr("a/train-2.csv", "prompt,completion\nc,d\n")
        archive.writestr("a/test.jsonl", '{"prompt": "secret", "completion": "test"}\n')
        archive.writestr("__MACOSX/a/._train-1.jsonl", "junk")
    report = check(path)
    assert (report.rows, report.usable_rows) == (3, 2)
    assert [(p.file, p.line, p.code) for p in report.problems] == [("a/train-1.jsonl", 2, "bad_json")]
    assert "a/test.jsonl" in report.notices[0]


def test_parquet_of_the_hub_has_its_labels_names(tmp_path: Path) -> None:
    table = pa.table({"text": ["good", "bad", "fine"] * 4, "label": [1, 0, 1] * 4})
    features = {"label": {"names": ["negative", "positive"], "_type": "ClassLabel"}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    report = check(path)
    assert (report.format, report.statistics["labels"]) == ("label", [["positive", 8], ["negative", 4]])
    chats = [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}
        for n in range(3)
    ]
    path.write_bytes(as_parquet(chats))
    assert check(path).format == "messages"


def refused(path: Path, words: str, limits: Limits | None = None, seconds: float = 1.0) -> DataError:
    started = time.process_time()
    with pytest.raises(DataError, match=words) as error:
        check(path, limits=limits or Limits())
    assert time.process_time() - started < seconds
    assert error.value.hint
    return error.value


def test_a_gzip_of_zeros(tmp_path: Path) -> None:
    path = tmp_path / "zeros.jsonl.gz"
    with gzip.open(path, "wb", 9) as file:
        for _ in range(300):
            file.write(bytes(1_000_000))
    refused(path, "control bytes")
    with gzip.open(path, "wb", 9) as file:
        for _ in range(300):
            file.write(b" " * 1_000_000)
    assert refused(path, "unpacks to more than 100 times").code == "unpacks_too_far"
    line = b'{"text": "' + b"a" * 100_000 + b'"}\n'
    with gzip.open(path, "wb", 9) as file:
        for _ in range(1000):
            file.write(line)
    refused(path, "unpacks to more than 100 times", seconds=3)


def test_zip_bombs(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    packing = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9)
    with packing as archive, archive.open("rows.csv", "w", force_zip64=True) as file:
        for _ in range(300):
            file.write(b"a,b\n" * 250_000)
    assert refused(path, "zip bomb|unpacks to more").code == "unpacks_too_far"
    inner = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner.zip", inner)
    refused(path, "without a data file")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rows.csv", inner)
    refused(path, "archive inside an archive")
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(1001):
            archive.writestr(f"{number}.csv", "a,b\n1,2\n")
    assert refused(path, "more than 1,000 files").code == "too_many_files"


def test_links_in_archives_and_folders(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("prompt,completion\na,b\n")
    path = tmp_path / "links.zip"
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("rows.csv")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, str(secret))
    assert refused(path, "holds a link").code == "bad_archive"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "rows.csv").symlink_to(secret)
    assert refused(folder, "leads out of the folder").code == "bad_link"


@pytest.mark.parametrize("name", ["../../evil.csv", "/etc/evil.csv", "C:\\evil.csv", "x\n\x1b[31m.csv", "😀.csv"])
def test_names_in_archives_are_only_shown(tmp_path: Path, name: str) -> None:
    path = tmp_path / "names.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "prompt,completion\na,b\nc\n")
    before = sorted(tmp_path.rglob("*"))
    report = check(path)
    assert report.usable_rows == 1
    assert report.problems[0].file.isprintable()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("rows.csv", b"PK\x03\x04 not really", "damaged zip"),
        ("rows.jsonl", b"\x89PNG\r\n\x1a\n....", "picture"),
        ("rows.json", b"%PDF-1.7 ...", "PDF"),
        ("rows.parquet", b"PAR1" + bytes(100) + b"PAR1", "cannot be read as Parquet"),
        ("rows.parquet", b"PAR1" + b"\xff" * 200 + b"\xff\xff\xff\x7fPAR1", "cannot be read as Parquet"),
        ("rows.csv", b"\x7fELF" + bytes(200), "program"),
        ("rows.gz", b"\x1f\x8b\x08\x00" + b"\xff" * 50, "unpacked"),
    ],
)
def test_the_wrong_kind_with_the_right_ending(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    refused(path, words)


def test_an_office_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
    refused(path, "Excel workbook")


def test_an_upload_that_stopped_half_way(tmp_path: Path) -> None:
    rows = b"".join(
        json.dumps({"prompt": f"q{os.urandom(20).hex()}", "completion": f"a{n}"}).encode() + b"\n" for n in range(5000)
    )
    path = tmp_path / "rows.jsonl.gz"
    whole = gzip.compress(rows)
    path.write_bytes(whole[: len(whole) // 2])
    report = check(path)
    assert report.blocked
    assert "not whole" in report.blocked["message"]
    assert report.problem_counts["truncated"] == 1
    path = tmp_path / "rows.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.jsonl", rows)
    path.write_bytes(path.read_bytes()[:-4000])
    refused(path, "damaged zip")
    path = tmp_path / "rows.parquet"
    path.write_bytes(as_parquet(ROWS)[:-100])
    refused(path, "cannot be read as Parquet")


def test_a_billion_columns_and_endless_lines(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_bytes(b"a," * 3_000_000 + b"\n" + b"1," * 3_000_000 + b"\n")
    assert refused(path, "columns", seconds=6).code == "too_many_columns"
    small = Limits(max_row_mb=0.01)
    path.write_bytes(b"prompt,completion\nx," + b"y" * 50_000 + b"\na,b\n")
    report = check(path, limits=small)
    assert (report.rows, report.usable_rows, report.problems[0].line) == (2, 1, 2)
    for kind, text in (
        ("jsonl", b'{"prompt": "' + b"y" * 50_000 + b'", "completion": "z"}\n{"prompt": "a", "completion": "b"}\n'),
        ("json", b'[{"prompt": "' + b"y" * 3_000_000 + b'", "completion": "z"},\n{"prompt": "a", "completion": "b"}]'),
        ("txt", b"y" * 50_000 + b"\nshort\n"),
    ):
        path = tmp_path / f"long.{kind}"
        path.write_bytes(text)
        report = check(path, limits=small)
        assert report.usable_rows >= 1, kind


def test_deep_json(tmp_path: Path) -> None:
    path = tmp_path / "deep.jsonl"
    deep = '{"prompt": ' + "[" * 5000 + "]" * 5000 + ', "completion": "b"}'
    path.write_text(f'{deep}\n{{"prompt": "a", "completion": "b"}}\n')
    report = check(path)
    assert (report.rows, report.usable_rows) == (2, 1)
    path = tmp_path / "deep.json"
    path.write_text(f'[{deep}, {{"prompt": "a", "completion": "b"}}]')
    assert read(path).rows >= 1


MEMORY = """
import sys
from pathlib import Path
from spool.data.judging.check import check
if __name__ == "__main__":
    report = check(Path(sys.argv[1]))
    # ru_maxrss would count what the test's own process had when it started this one
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(report.rows, report.usable_rows, int(status["VmHWM"].split()[0]))
"""


@pytest.mark.parametrize("kind", ["json", "csv", "txt", "parquet"])
def test_memory_stays_flat(tmp_path: Path, kind: str) -> None:
    """A file of 150 MB takes hardly more memory than one of 1 kB."""
    rows = [{"prompt": f"{n} " + "lange Frage " * 60, "completion": f"{n} " + "Antwort " * 90} for n in range(1000)]
    path = tmp_path / f"big.{kind}"
    if kind == "parquet":
        with pq.ParquetWriter(path, pa.schema([("prompt", pa.string()), ("completion", pa.string())])) as writer:
            for block in range(100):
                writer.write_table(pa.Table.from_pylist([{k: f"{block} {v}" for k, v in row.items()} for row in rows]))
    else:
        with open(path, "wb") as file:
            file.write({"json": b"[", "csv": b"prompt,completion\n", "txt": b""}[kind])
            for block in range(100):
                for row in rows:
                    text = {k: f"{block} {v}" for k, v in row.items()}
                    if kind == "json":
                        file.write((b"" if file.tell() == 1 else b",\n") + json.dumps(text).encode())
                    else:
                        file.write(",".join(text.values()).encode() + b"\n")
            file.write(b"]" if kind == "json" else b"")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counted, usable, memory_kb = map(int, done.stdout.split())
    assert counted == usable == 100_000
    assert memory_kb < 420_000, f"{memory_kb / 1000:.0f} MB"


def test_no_file_handles_are_left_open(tmp_path: Path) -> None:
    path = tmp_path / "rows.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rows.jsonl", '{"prompt": "a", "completion": "b"}\n')
    for _ in range(3):
        check(path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        check(path)
    assert len(os.listdir("/proc/self/fd")) <= before + 3
