"""metrics.jsonl: written a row at a time, read while it grows, through every accident."""

import math
import os
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool.protocol import metrics
from spool.protocol.metrics import Reader, Writer, finite, last, one_line, read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_writer_numbers_its_rows(path: Path) -> None:
    for attempt in (1, 2):
        writer = Writer(path, attempt)
        writer.write(step=1, loss=2.5)
        writer.write(step=2, loss=float("nan"))
    rows = read(path)
    assert [(row["v"], row["attempt"], row["seq"]) for row in rows] == [(1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 2, 2)]
    assert rows[1]["loss"] is None
    assert rows[1]["nonfinite"] == {"loss": "nan"}
    assert "nonfinite" not in rows[0]


@given(st.dictionaries(st.text(), st.floats() | st.integers() | st.none() | st.text()))
def test_finite_rows_are_json_and_lose_nothing(values: dict[str, object]) -> None:
    values.pop("nonfinite", None)
    row = finite(values)
    bad = {k for k, v in values.items() if isinstance(v, float) and not math.isfinite(v)}
    assert set(row.get("nonfinite", {})) == bad
    assert set(row.get("nonfinite", {}).values()) <= {"nan", "inf", "-inf"}
    assert all(row[k] is None if k in bad else row[k] == v for k, v in values.items())


def test_reader_gives_what_is_new(path: Path) -> None:
    reader = Reader(path)
    assert reader.read_new() == []
    writer = Writer(path, 1)
    for step in range(5):
        writer.write(step=step)
        assert [row["step"] for row in reader.read_new()] == [step]
        assert reader.read_new() == []
    assert not reader.restarted


@given(st.lists(st.integers(1, 60), max_size=40))
def test_reader_sees_each_row_once_however_the_bytes_come(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[int]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "metrics.jsonl"
    data = b"".join(orjson.dumps({"step": step, "text": "é\r\u2028"}) + b"\n" for step in range(12))
    reader = Reader(path)
    steps: list[int] = []
    with open(path, "wb") as file:
        for piece in [*pieces, len(data)]:
            part, data = data[:piece], data[piece:]
            file.write(part)
            file.flush()
            steps += [row["step"] for row in reader.read_new()]
    assert steps == list(range(12))
    assert reader.broken == 0


def test_a_torn_tail_waits_until_it_is_whole(path: Path) -> None:
    path.write_bytes(b'{"step":1}\n{"step":2')
    reader = Reader(path)
    assert reader.read_new() == [{"step": 1}]
    with open(path, "ab") as file:
        file.write(b"}\n")
    assert reader.read_new() == [{"step": 2}]


def test_a_torn_tail_that_the_next_writer_cuts_off(path: Path) -> None:
    path.write_bytes(b'{"step":1}\n{"step":2')
    reader = Reader(path)
    reader.read_new()
    Writer(path, 2).write(step=2)
    assert [row["step"] for row in reader.read_new()] == [2]
    assert not reader.restarted


def test_a_broken_middle_line_is_counted_and_passed_over(path: Path) -> None:
    path.write_bytes(b'{"step":1}\n{"st\xff\x00p":2}\n[1]\n\n{"step":3}\n')
    reader = Reader(path)
    assert reader.read_new() == [{"step": 1}, {"step": 3}]
    assert reader.broken == 2


def test_a_shorter_file_is_read_again(path: Path) -> None:
    path.write_bytes(b'{"step":1}\n{"step":2}\n')
    reader = Reader(path)
    reader.read_new()
    path.write_bytes(b'{"step":9}\n')
    assert reader.read_new() == [{"step": 9}]
    assert reader.restarted
    assert reader.read_new() == []
    assert not reader.restarted


def test_a_replaced_file_is_read_again(path: Path) -> None:
    path.write_bytes(b'{"step":1}\n')
    reader = Reader(path)
    reader.read_new()
    fresh = path.with_name("fresh")
    fresh.write_bytes(b'{"step":8}\n{"step":9}\n')
    os.rename(fresh, path)
    assert reader.read_new() == [{"step": 8}, {"step": 9}]
    assert reader.restarted


def test_a_file_rewritten_longer_under_the_same_inode_is_read_again(path: Path) -> None:
    path.write_bytes(b'{"step":1}\n')
    reader = Reader(path)
    reader.read_new()
    with open(path, "r+b") as file:
        file.write(b'{"step":7}\n{"step":8}\n')
    assert reader.read_new() == [{"step": 7}, {"step": 8}]
    assert reader.restarted


def test_a_deleted_file_gives_nothing_and_its_successor_everything(path: Path) -> None:
    path.write_bytes(b'{"step":1}\n')
    reader = Reader(path)
    reader.read_new()
    path.unlink()
    assert reader.read_new() == []
    path.write_bytes(b'{"step":5}\n{"step":6}\n')
    assert reader.read_new() == [{"step": 5}, {"step": 6}]


def test_what_is_no_file_gives_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path) == []
    assert last(tmp_path) is None
    assert last(tmp_path / "none") is None


def test_last_is_the_last_whole_row(path: Path) -> None:
    path.write_bytes(b"")
    assert last(path) is None
    writer = Writer(path, 1)
    for step in range(3000):
        writer.write(step=step, filling="x" * 50)
    assert (last(path) or {})["step"] == 2999
    with open(path, "ab") as file:
        file.write(b"rubbish\n{torn")
    assert (last(path) or {})["step"] == 2999


def test_last_reads_only_the_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(path, "wb") as file:
        file.truncate(10 << 30)
        file.seek(10 << 30)
        file.write(b'\n{"step":1}\n')
    assert last(path) == {"step": 1}


def test_one_line_keeps_the_last_attempt_s_rows() -> None:
    rows = [{"attempt": 1, "step": step, "loss": 1.0} for step in range(1, 6)]
    rows += [{"attempt": 1, "step": 4, "eval_loss": 0.9}]
    rows += [{"attempt": 2, "step": step, "loss": 2.0} for step in range(4, 9)]
    rows += [{"attempt": 2, "step": 4, "eval_loss": 0.8}]
    line = one_line(rows)
    losses = [(row["step"], row["attempt"]) for row in line if "loss" in row]
    assert losses == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2), (7, 2), (8, 2)]
    assert [row["eval_loss"] for row in line if "eval_loss" in row] == [0.8]
    assert [row["step"] for row in line] == sorted(row["step"] for row in line)


def test_one_line_of_nothing() -> None:
    assert one_line([]) == []
    assert metrics.one_line([{"event": "x"}]) == [{"event": "x"}]
