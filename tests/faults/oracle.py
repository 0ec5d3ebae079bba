"""The oracle: knows what was acknowledged and what the trainers told, and says which promises do not hold."""

import json
import os
from pathlib import Path
from typing import Any

from runner.accept import LITTER
from spool.protocol import jobs
from spool.protocol.home import FINAL
from spool.protocol.states import Token
from tests.faults import trainer
from tests.faults.box import Box

CRASHES = 3


class Oracle:
    """Looked at after each death of a daemon (`observe`) and when all is quiet (`verdict`)."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.ended: dict[str, tuple[str, bytes]] = {}
        self.outcomes: dict[tuple[str, str], str] = {}
        self.wrong: list[str] = []

    def observe(self) -> None:
        """What has ended stays as it ended; how an attempt went is never told differently later."""
        for state in FINAL:
            for name in os.listdir(self.box.home.state(state)):
                token = Token.parse(name)
                if token is None:
                    continue
                now = (f"{state}/{name}", _bytes(self.box.home.run(token.job_id).outcome))
                before = self.ended.setdefault(token.job_id, now)
                if before != now:
                    self._say(f"I2: {token.job_id} had ended as {before[0]} and is {now[0]} now")
        for path in self.box.home.runs.glob("*/attempts/[0-9]*.json"):
            outcome = _json(path).get("outcome")
            key = (path.parent.parent.name, path.stem)
            if outcome and self.outcomes.setdefault(key, outcome) != outcome:
                self._say(f"attempt {key[1]} of {key[0]} was {self.outcomes[key]} and is {outcome} now")

    def verdict(self) -> list[str]:
        """Everything that is wrong; empty when all promises hold."""
        self.observe()
        tokens = self.box.tokens()
        for job_id, (data, must_end) in self.box.dropped.items():
            states = [str(state) for state in tokens.get(job_id, [])]
            if not states:
                self._say(f"I1: {job_id} was acknowledged and is lost")
            elif len(states) > 1:
                self._say(f"I2: {job_id} is in {' and '.join(sorted(states))}")
            elif states[0] != must_end:
                error = _json(self.box.home.run(job_id).outcome).get("error")
                self._say(f"{job_id} is {states[0]}, not {must_end} ({error})")
            if _bytes(self.box.home.run(job_id).spec_orig) != data:
                self._say(f"I1: the spec of {job_id} is not what was dropped")
        for job_id in set(tokens) - set(self.box.dropped):
            self._say(f"I1: a job that nobody dropped: {job_id}")
        self._rejections()
        self._trainers()
        self._attempts()
        self._readable()
        return self.wrong

    def _say(self, words: str) -> None:
        if words not in self.wrong:
            self.wrong.append(words)

    def _rejections(self) -> None:
        found = sorted(_bytes(folder / "dropped.json") for folder in self.box.home.rejected.iterdir())
        if found != sorted(self.box.refused):
            self._say(f"I2: {len(self.box.refused)} drops were to be rejected, rejected/ has {len(found)}")
        for folder in self.box.home.rejected.iterdir():
            if not _json(folder / "reason.json").get("code") or not _bytes(folder / "reason.txt"):
                self._say(f"I4: rejected/{folder.name} gives no reasons")

    def _trainers(self) -> None:
        finished: set[str] = set()
        for word, job_id, attempt, _ in self.box.said():
            if word == "overlap":
                self._say(f"I3: two trainers lived at once (the second: attempt {attempt} of {job_id})")
            elif word == "start" and job_id in finished:
                self._say(f"{job_id} was begun again (attempt {attempt}) after it had left its result")
            elif word == "result":
                finished.add(job_id)
            if word == "start" and not (self.box.home.run(job_id).attempts / f"{int(attempt):04d}.json").exists():
                self._say(f"attempt {attempt} of {job_id} has no record")
        for job_id, (data, must_end) in self.box.dropped.items():
            name = json.loads(data)["name"]
            if must_end == "done" and name.startswith("ok"):
                result = _json(self.box.home.run(job_id).result).get("result") or {}
                if result.get("adapter") != trainer.digest(int(name.split()[1])):
                    self._say(f"{job_id} did not end where an undisturbed run ends")

    def _attempts(self) -> None:
        crashes = [words[1] for words in self.box.said() if words[0] == "crash"]
        for job_id, (data, must_end) in self.box.dropped.items():
            records = [_json(path) for path in sorted(self.box.home.run(job_id).attempts.glob("[0-9]*.json"))]
            outcomes = [record.get("outcome") for record in records]
            if must_end in ("done", "failed") and None in outcomes:
                self._say(f"{job_id} has ended and an attempt of it has not: {outcomes}")
            if outcomes.count("crashed") > crashes.count(job_id):
                self._say(f"{job_id} crashed {crashes.count(job_id)} times by itself, counted were {outcomes}")
            if json.loads(data)["name"] == "crash" and outcomes.count("crashed") != CRASHES:
                self._say(f"{job_id} was to end after {CRASHES} crashes of its own: {outcomes}")

    def _readable(self) -> None:
        home = self.box.home
        files = [*home.states.glob("*/*.json"), *home.runs.glob("*/*.json"), *home.runs.glob("*/attempts/*.json")]
        for path in files:
            if not path.name.startswith(".") and not _json(path):
                self._say(f"I4: {path.relative_to(home.root)} cannot be read")
        left = [name for name in os.listdir(home.incoming) if not LITTER.fullmatch(name)]
        left += os.listdir(home.accepting)
        if left:
            self._say(f"I5: left in incoming/ or accepting/: {left}")
        seen = {job.id: job.state for job in jobs.list_jobs(home)}
        for job_id, states in self.box.tokens().items():
            if seen.get(job_id) != states[0]:
                self._say(f"I4: `finetuner jobs` shows {job_id} as {seen.get(job_id)}, it is {states[0]}")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
