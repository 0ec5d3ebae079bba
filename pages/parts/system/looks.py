"""The doctor's look at this machine: with the runner's eyes where it is alive, else by a process of the web app's own.

A web app in its sandbox sees neither the card nor the runner's process, and finds folders read-only that are not so
for the runner. It is asked through control/look and answers in spool/doctor.json (runner/doctor.py).
"""

import getpass
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

from spool.health import heartbeat
from spool.protocol import dropbox, durable
from spool.protocol.home import Home
from spool.protocol.process import search_path

PATIENCE_S = 60.0
"""A disk that hangs must not keep a process for ever; the doctor itself takes three seconds."""
ANSWER_S = 30.0
"""A runner that has not answered by then is too old to know the question, or busy: the web app looks by itself."""
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
    account: str = ""
    """Who looked."""

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
    now = clock()
    alive = heartbeat.read(home, now).alive
    with _lock:
        own, asked = _kept.get(str(home.root), Seen()), _asked.get(str(home.root), 0.0)
    told = _told(home) if alive else Seen()
    seen = told if (told.at_s or 0) >= (own.at_s or 0) and told.report else own
    waits = (told.at_s or 0) < asked and now - asked < ANSWER_S
    old = seen.at_s is None or now - seen.at_s > STALE_S
    if waits or own.working:
        return replace(seen, working=True)
    if not (old or again):
        return seen
    silent = (told.at_s or 0) < asked and now - asked < STALE_S
    if alive and not silent and _ask_runner(home, now):
        return replace(seen, working=True)
    with _lock:
        _kept[str(home.root)] = replace(own, working=True)
    threading.Thread(target=_look, args=(home, clock), name="doctor", daemon=True).start()
    return replace(seen, working=True)


def account() -> str:
    """Whose eyes the web app's own look has."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _ask_runner(home: Home, now: float) -> bool:
    try:
        dropbox.look(home)
    except OSError:
        return False
    with _lock:
        _asked[str(home.root)] = now
        while len(_asked) > 8:
            del _asked[next(iter(_asked))]
    return True


def _told(home: Home) -> Seen:
    """What the runner's look said last."""
    try:
        found = durable.read_json(home.doctor_json)
    except (OSError, ValueError):
        return Seen()
    if not isinstance(found, dict) or not isinstance(found.get("at"), int | float):
        return Seen()
    return Seen(found, float(found["at"]), account=str(found.get("account") or ""))


def _look(home: Home, clock: Callable[[], float]) -> None:
    report, problem = None, ""
    try:
        report = examine(home)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        problem = type(error).__name__
    with _lock:
        before = _kept.get(str(home.root), Seen())
        _kept[str(home.root)] = Seen(report or before.report, clock(), False, problem, account())
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
_asked: dict[str, float] = {}
_lock = threading.Lock()
