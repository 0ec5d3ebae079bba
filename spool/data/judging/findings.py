"""What was found in a dataset: every finding is counted, and of each code the first ones are kept with their rows."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from spool.data.reading.table import Problem

KEPT_OF_A_CODE = 10_000


class Findings:
    """Findings in the order of their lines, bounded in memory."""

    def __init__(self, found: Iterable[Problem] = ()) -> None:
        self.counts: Counter[str] = Counter()
        self.actions: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        """How many rows each code dropped."""
        self._kept: dict[str, list[Problem]] = {}
        for problem in found:
            self.add(problem)

    def add(self, problem: Problem) -> None:
        code = problem.code
        self.counts[code] += 1
        self.actions[problem.action] += 1
        if problem.action == "dropped":
            self.dropped[code] += 1
        kept = self._kept.setdefault(code, [])
        if len(kept) < KEPT_OF_A_CODE:
            kept.append(replace(problem, raw="") if problem.raw else problem)

    def add_all(self, found: Iterable[Problem]) -> None:
        for problem in found:
            self.add(problem)

    def merge(self, later: "Findings", lines_before: int) -> None:
        """Takes over what was found in a later range of the file, whose lines were counted from 1."""
        self.counts += later.counts
        self.actions += later.actions
        self.dropped += later.dropped
        for code, problems in later._kept.items():
            kept = self._kept.setdefault(code, [])
            room = KEPT_OF_A_CODE - len(kept)
            kept += [replace(problem, line=problem.line + lines_before) for problem in problems[:room]]

    def sorted(self) -> list[Problem]:
        """The kept ones by file and line."""
        return sorted((p for kept in self._kept.values() for p in kept), key=lambda p: (p.file, p.line, p.code))

    @property
    def rows_dropped(self) -> int:
        return self.actions["dropped"]

    @property
    def blocking(self) -> list[Problem]:
        return [problem for problem in self.sorted() if problem.action == "blocks"]

    def to_json(self) -> list[dict[str, Any]]:
        return [problem.to_json() for problem in self.sorted()]
