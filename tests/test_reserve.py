"""The reserve on a small disk of its own: full, given up, written to, taken back."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.reserve import Reserve
from spool.protocol import durable
from spool.protocol.home import Home

MB = 1_000_000


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Home]:
    """A data home on a disk of 16 MB."""
    point = tmp_path / "disk"
    point.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(point)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield Home(point / "home").create()
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


def fill(home: Home) -> Path:
    path = home.models / "big"
    with open(path, "ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 65_536)
        except OSError as error:
            if not Reserve.helps(error):
                raise
    return path


def test_a_full_disk_can_still_be_written_to(small: Home) -> None:
    reserve = Reserve(small, 4 * MB)
    assert reserve.ensure()
    assert small.reserve.stat().st_blocks * 512 >= 4 * MB
    big = fill(small)
    with pytest.raises(OSError, match="No space left") as caught:
        durable.write_json(small.runs / "outcome.json", {"state": "failed", "error": "x" * 10_000})
    assert reserve.helps(caught.value)
    assert reserve.release()
    assert not reserve.whole
    durable.write_json(small.runs / "outcome.json", {"state": "failed", "error": "x" * 10_000})
    assert not reserve.ensure()  # there is no room for it yet
    assert not small.reserve.exists()
    os.truncate(big, 0)
    assert reserve.ensure()
    assert reserve.whole


def test_it_wants_twice_its_size(small: Home) -> None:
    reserve = Reserve(small, 9 * MB)
    assert not reserve.ensure()
    assert Reserve(small, 7 * MB).ensure()


def test_it_is_given_up_once(home: Home) -> None:
    reserve = Reserve(home, 2 * MB)
    assert reserve.ensure()
    assert (reserve.release(), reserve.release()) == (True, False)


def test_ensure_costs_nothing_when_it_is_there(home: Home) -> None:
    reserve = Reserve(home, 2 * MB)
    reserve.ensure()
    before = home.reserve.stat()
    assert reserve.ensure()
    assert home.reserve.stat() == before


@pytest.mark.parametrize("damage", ["hole", "short", "empty"])
def test_what_holds_no_blocks_is_made_anew(damage: str, home: Home) -> None:
    reserve = Reserve(home, 2 * MB)
    with open(home.reserve, "wb") as file:
        if damage == "hole":
            file.truncate(2 * MB)
        elif damage == "short":
            file.write(b"x" * MB)
    assert not reserve.whole
    assert reserve.ensure()
    assert home.reserve.stat().st_blocks * 512 >= 2 * MB
    assert home.reserve.stat().st_mode & 0o777 == 0o600


def test_where_fallocate_is_not_to_be_had(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    reserve = Reserve(home, 2 * MB + 5)
    assert reserve.ensure()
    assert home.reserve.stat().st_size == 2 * MB + 5


@pytest.mark.parametrize(("number", "raised"), [(errno.EDQUOT, False), (errno.ENOSPC, False), (errno.EROFS, True)])
def test_errors_on_the_way(number: int, raised: bool, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    reserve = Reserve(home, 2 * MB)
    if raised:
        with pytest.raises(OSError, match="Read-only"):
            reserve.ensure()
    else:
        assert not reserve.ensure()
    assert not home.reserve.exists()


def test_release_never_raises(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = Reserve(home, 2 * MB)
    reserve.ensure()

    def refuse(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "truncate", refuse)
    assert not reserve.release()


def test_none_is_wanted(home: Home) -> None:
    reserve = Reserve(home, 0)
    assert reserve.whole
    assert reserve.ensure()
    assert not home.reserve.exists()
    assert not reserve.release()
