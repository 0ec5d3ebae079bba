"""Writing so that a crash leaves the old file or the new one."""

import os
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool.protocol import durable


def test_write_json_replaces_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    durable.write_json(path, {"a": 1})
    inode = path.stat().st_ino
    durable.write_json(path, {"a": 2})
    assert durable.read_json(path) == {"a": 2}
    assert path.stat().st_ino != inode
    assert path.read_bytes().endswith(b"}\n")
    assert os.listdir(tmp_path) == ["x.json"]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failed_write_keeps_the_old_file_and_is_not_retried(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    durable.write_json(path, {"a": 1})
    calls = []

    def broken(*arguments: Any) -> None:
        calls.append(arguments)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, call, broken)
    with pytest.raises(OSError, match="Input/output"):
        durable.write_json(path, {"a": 2})
    monkeypatch.undo()
    assert len(calls) == 1
    assert durable.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.json"]


def test_everything_is_synced_before_and_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1])
    monkeypatch.setattr(os, "rename", lambda a, b: (order.append("rename"), rename(a, b))[1])
    durable.write_atomic(tmp_path / "x", b"1")
    assert len(order) == 3
    assert ".x." in order[0]
    assert order[1:] == ["rename", str(tmp_path)]
    order.clear()
    (tmp_path / "to").mkdir()
    durable.move(tmp_path / "x", tmp_path / "to" / "x")
    assert order[0] == "rename"
    assert set(order[1:]) == {str(tmp_path), str(tmp_path / "to")}


def test_many_threads_replacing_one_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"

    def write(number: int) -> None:
        for _ in range(20):
            durable.write_json(path, {"writer": number, "filling": "x" * 5000})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(durable.read_json(path)["filling"]) == 5000
    assert os.listdir(tmp_path) == ["x.json"]


def test_read_json(tmp_path: Path) -> None:
    assert durable.read_json(tmp_path / "none") is None
    (tmp_path / "bad").write_text("{")
    with pytest.raises(ValueError, match=r".*"):
        durable.read_json(tmp_path / "bad")


def lines(path: Path) -> list[Any]:
    data = path.read_bytes()
    assert data.endswith(b"\n")
    return [orjson.loads(line) for line in data.splitlines()]


@given(tail=st.binary(max_size=300).filter(lambda data: b"\n" not in data), rows=st.integers(0, 5))
def test_a_torn_tail_is_cut_off_before_the_next_row(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, rows: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "rows.jsonl"
    for number in range(rows):
        durable.append_line(path, {"row": number})
    with open(path, "ab") as file:
        file.write(tail)
    durable.append_line(path, {"row": "new"})
    assert lines(path) == [{"row": number} for number in range(rows)] + [{"row": "new"}]


def test_one_row_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (written.append(data), write(fd, data))[1])
    durable.append_line(tmp_path / "x", {"a": "line\nbreak"})
    assert written == [b'{"a":"line\\nbreak"}\n']
