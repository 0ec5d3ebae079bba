"""The doctor's look at this machine: made by a process of its own, kept for everybody, renewed when it is asked for."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spool.protocol.home import Home
from spool.protocol.process import search_path

PATIENCE_S = 60.0
"""A disk that hangs must not keep a process for ever; the doctor itself takes three seconds."""
STALE_S = 300.0
"""An older look is renewed when somebody comes by."""


@dataclass(frozen=True)
class Seen:
    """What `finetuner doctor --json` printed, and when. `report` is None before the first look, or where it failed."""

    report: dict[str, Any] | None = None
    at_s: float | None = None
    """UTC epoch seconds; None before the first look."""
    working: bool = False
    problem: str = ""

    @property
    def findings(self) -> list[dict[str, Any]]:
        return list((self.report or {}).get("findings") or [])

    def worth(self, *levels: str) -> list[dict[str, Any]]:
        """The findings of some levels, the gravest first."""
        order = {"fail": 0, "warn": 1, "ok": 2}
        kept = [finding for finding in self.findings if finding.get("level") in levels]
        return sorted(kept, key=lambda finding: order.get(finding.get("level", ""), 3))

    @property
    def disk(self) -> dict[str, Any] | None:
        return (self.report or {}).get("disk")


def ask(home: Home, again: bool = False, clock: Callable[[], float] = time.time) -> Seen:
    """What was seen last; begins a new look where there is none, it is old, or `again` is asked for. Never waits."""
    key = str(home.root)
    with _lock:
        seen = _kept.get(key, Seen())
        old = seen.at_s is None or clock() - seen.at_s > STALE_S
        if seen.working or not (old or again):
            return seen
        _kept[key] = seen = replace(seen, working=True)
    threading.Thread(target=_look, args=(home, clock), name="doctor", daemon=True).start()
    return seen


def _look(home: Home, clock: Callable[[], float]) -> None:
    report, problem = None, ""
    try:
        report = examine(home)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        problem = type(error).__name__
    with _lock:
        before = _kept.get(str(home.root), Seen())
        _kept[str(home.root)] = Seen(report or before.report, clock(), False, problem)
        while len(_kept) > 8:
            del _kept[next(iter(_kept))]


def examine(home: Home) -> dict[str, Any]:
    """Asks the doctor, in a process: neither a driver nor a disk that hangs may take the web app with it.

    Raises:
        OSError, ValueError, subprocess.SubprocessError: it could not be asked, or said nothing sensible in a minute.
    """
    done = subprocess.run(
        [sys.executable, "-m", "spool.cli.main", "doctor", "--json", "--home", str(home.root)],
        capture_output=True,
        timeout=PATIENCE_S,
        stdin=subprocess.DEVNULL,
        cwd=Path.cwd(),
        env={**os.environ, "PYTHONPATH": search_path()},
        check=False,
    )
    found = json.loads(done.stdout)
    if not isinstance(found, dict):
        raise ValueError("no report")
    return found


_kept: dict[str, Seen] = {}
_lock = threading.Lock()
