"""An intake with a clock that tests turn, over a fresh home: drops are taken in milliseconds."""

import json
import os
from pathlib import Path
from typing import Any

from conftest import ROOT

from runner.accept import Intake
from runner.room import Room
from spool.protocol import jobs
from spool.protocol.home import Home, State
from spool.protocol.resolve import Places
from spool.protocol.states import Token, Tokens


def text(name: str = "ok", **more: Any) -> bytes:
    """A good spec; the model is the one that `Box` makes."""
    return json.dumps({"schema": 1, "name": name, "model": "m", "dataset": "README.md", **more}).encode()


class Box:
    """The drop box with its intake; `wait` lets time pass and scans."""

    def __init__(self, home: Home, most: int | None = None, most_per_user: int | None = None) -> None:
        self.home = home
        (home.models / "m").mkdir(exist_ok=True)
        (home.models / "m" / "config.json").write_text("{}")
        self.now = 1000.0
        self.places = Places(home, ROOT, [ROOT, home.root])
        self.intake = Intake(home, self.places, 0.5, 60.0, lambda: self.now, Room(home, most, most_per_user))

    def restarted(self) -> "Box":
        """The same home under a new runner, which has recovered."""
        fresh = Box(self.home, self.intake.room.most, self.intake.room.most_per_user)
        fresh.intake.recover()
        return fresh

    def drop(self, name: str, data: bytes | None = None) -> Path:
        path = self.home.incoming / name
        path.write_bytes(text() if data is None else data)
        return path

    def wait(self, seconds: float = 0.6) -> float | None:
        """Scans, lets so much time pass, and scans again."""
        self.intake.scan()
        self.now += seconds
        return self.intake.scan()

    @property
    def accepted(self) -> list[Token]:
        return Tokens(self.home).list(State.CHECKING)

    @property
    def names(self) -> list[str]:
        """The names of the accepted jobs, in the order of the queue."""
        return [Tokens(self.home).body(State.CHECKING, token)["name"] for token in self.accepted]

    @property
    def rejected(self) -> dict[str, str]:
        """Dropped name -> code."""
        found = [json.loads(path.read_bytes()) for path in self.home.rejected.glob("*/reason.json")]
        return {reason["dropped_name"]: reason["code"] for reason in found}

    def reason(self, dropped_name: str) -> dict[str, Any]:
        found = [json.loads(path.read_bytes()) for path in self.home.rejected.glob("*/reason.json")]
        return next(reason for reason in found if reason["dropped_name"] == dropped_name)

    def bytes_of(self, code: str) -> Path:
        """What was dropped and rejected with that code."""
        reason = next(p for p in self.home.rejected.glob("*/reason.json") if json.loads(p.read_bytes())["code"] == code)
        return reason.parent / "dropped.json"

    def clean(self) -> bool:
        """Nothing is left between the folders."""
        between = (self.home.incoming, self.home.accepting, self.home.tmp)
        return [name for folder in between for name in os.listdir(folder)] == []

    def one_place_each(self) -> None:
        """Each id has one token or one rejection, never both."""
        tokens = [token.job_id for state in State for token in Tokens(self.home).list(state)]
        refused = [path.parent.name for path in self.home.rejected.glob("*/reason.json")]
        assert len(set(tokens) | set(refused)) == len(tokens) + len(refused)
        assert {job.id for job in jobs.list_jobs(self.home)} >= set(tokens) | set(refused)
