"""The doctor's look on request: begun by control/look, written down when it has ended, never waited for."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Runner

from runner import doctor
from runner.doctor import Doctor
from spool.protocol import dropbox, durable
from spool.protocol.home import Home

SAYS = (sys.executable, "-c", """import json; print(json.dumps({"ok": True, "findings": [], "disk": None}))""")
MUMBLES = (sys.executable, "-c", "print('no report')")
HANGS = (sys.executable, "-c", "import time; time.sleep(60)")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_look_is_made_where_one_is_asked_for(home: Home) -> None:
    asked = Doctor(home, SAYS)
    asked.look()
    assert not home.doctor_json.exists()
    dropbox.look(home)
    asked.look()
    assert not home.look.exists()

    def written() -> bool:
        asked.look()
        return home.doctor_json.exists()

    until(written)
    said = durable.read_json(home.doctor_json)
    assert said["ok"] is True
    assert said["account"]
    assert abs(said["at"] - time.time()) < 20


def test_a_doctor_without_a_report_leaves_none(home: Home) -> None:
    asked = Doctor(home, MUMBLES)
    dropbox.look(home)
    asked.look()
    child = asked._child
    assert child is not None
    child.wait()
    asked.look()
    assert asked._child is None
    assert not home.doctor_json.exists()


def test_a_doctor_that_hangs_is_ended(home: Home) -> None:
    now = [0.0]
    asked = Doctor(home, HANGS, lambda: now[0])
    dropbox.look(home)
    asked.look()
    child = asked._child
    assert child is not None
    dropbox.look(home)
    asked.look()
    assert asked._child is child, "one at a time"
    now[0] = doctor.PATIENCE_S + 1
    asked.look()
    assert child.wait() != 0
    asked.look()
    assert asked._child is not child, "the next one was asked for meanwhile"
    assert asked._child is not None
    asked._child.kill()
    asked._child.wait()


def test_the_runner_answers(home: Home, make_runner: Callable[..., Runner]) -> None:
    make_runner(home)
    dropbox.look(home)
    until(home.doctor_json.exists, 60)
    said = durable.read_json(home.doctor_json)
    assert {finding["area"] for finding in said["findings"]} >= {"runner", "disk"}


def test_what_keeps_the_doctor_from_looking_holds_nobody_up(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    asked = Doctor(home, (str(home.root / "gone"),))
    dropbox.look(home)
    asked.look()
    assert asked._child is None
    assert "cannot look" in caplog.text
