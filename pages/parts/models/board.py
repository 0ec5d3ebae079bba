"""The leaderboard: reports of models that were asked the same rows, the newest of each, best first, by stated rules.

Models stand on one board where asked.sha256 of their reports is the same. They are placed by what counts most for the
task (HEADLINES); equal values share a place. A model that has learned from the rows gets a place only where all have,
and bases never do: they stand between the models for comparison. CLOSE marks a model whose value lies within the 95%
interval of the best one.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import orjson

from pages.parts.models.told import HEADLINES, USUAL, Report, Side, read
from spool.protocol.home import Home
from spool.protocol.jobs import DROP_BYTES, Job

CLOSE, LEARNED, CUT = "close", "learned", "cut"
"""What a line can be marked with."""


@dataclass(frozen=True)
class Line:
    """One model of a board, or a base: then `report` is the one that has asked it most, and `model` is its name."""

    report: Report
    model: str
    """What it is called."""
    opens: Job | None
    """The training, or the job that has asked a foreign adapter; None of a base."""
    place: int | None = None
    marks: tuple[str, ...] = ()

    @property
    def is_base(self) -> bool:
        return self.opens is None

    def side(self, name: str) -> Side | None:
        """Its value of a measure."""
        found = self.report.measures.get(name)
        return None if found is None else found.base if self.is_base else found.tuned


@dataclass(frozen=True)
class Group:
    """Everybody who was asked the same rows."""

    sha256: str
    source: str
    rows: int
    """How many were to be asked."""
    headline: str
    lines: tuple[Line, ...]
    all_learned: bool
    marks: frozenset[str] = field(default=frozenset())

    @property
    def models(self) -> int:
        return sum(not line.is_base for line in self.lines)


def groups(home: Home, jobs: Iterable[Job]) -> list[Group]:
    """Every board, the one with most models first, then the one with the newest report."""
    known = {job.id: job for job in jobs}
    newest: dict[tuple[str, str], Report] = {}
    told = [report for report in map(read, known.values()) if report and report.sha256 and report.measures]
    for report in sorted(told, key=_when):
        newest[report.sha256, _who(home, report)] = report
    asked: dict[str, list[Report]] = {}
    for (sha256, _), report in newest.items():
        asked.setdefault(sha256, []).append(report)
    order = sorted(asked.values(), key=lambda each: (len(each), max(map(_when, each))), reverse=True)
    return [_group(reports, known) for reports in order]


# ---- one board


def _group(reports: Sequence[Report], known: Mapping[str, Job]) -> Group:
    tasks = Counter(report.task for report in sorted(reports, key=lambda each: -each.rows))
    headline = HEADLINES.get(tasks.most_common(1)[0][0], USUAL)
    all_learned = all(report.learned for report in reports)
    ranked = sorted(reports, key=_when, reverse=True)
    ranked.sort(key=lambda each: (_rank(each, headline), _rank(each, "loss")))
    lines = _placed([_model(each, known) for each in ranked], headline, all_learned) + _bases(ranked)
    lines.sort(key=lambda line: _worse(line, headline))
    first = max(reports, key=lambda each: (each.chosen, _when(each)))
    marks = frozenset(mark for line in lines for mark in line.marks)
    return Group(first.sha256, first.source, first.chosen, headline, tuple(lines), all_learned, marks)


def _model(report: Report, known: Mapping[str, Job]) -> Line:
    opens = known.get(report.of or "", report.job)
    return Line(report, opens.name, opens)


def _placed(lines: Sequence[Line], headline: str, all_learned: bool) -> list[Line]:
    """With their places and marks; they come best first."""
    best: Side | None = None
    last, place, placed = None, 0, 0
    found = []
    for line in lines:
        side, given = line.side(headline), None
        if side is not None and (all_learned or not line.report.learned):
            placed += 1
            best, place = best or side, place if side.value == last else placed
            last, given = side.value, place
        marks = _marks(line, given, side, best, all_learned)
        found.append(Line(line.report, line.model, line.opens, given, marks))
    return found


def _marks(line: Line, place: int | None, side: Side | None, best: Side | None, all_learned: bool) -> tuple[str, ...]:
    marks = []
    if place and place > 1 and side and best and best.interval and best.interval[0] <= side.value <= best.interval[1]:
        marks.append(CLOSE)
    if line.report.learned and not all_learned:
        marks.append(LEARNED)
    return tuple(marks + [CUT] * line.report.cut)


def _bases(reports: Sequence[Report]) -> list[Line]:
    """Each base once, as the report tells of it that has asked it most; of several the newest."""
    fullest: dict[str, Report] = {}
    for report in sorted(reports, key=lambda each: (each.rows, each.general is not None, _when(each))):
        fullest[report.base] = report
    return [Line(report, base, None, None, (CUT,) * report.cut) for base, report in sorted(fullest.items())]


def _worse(line: Line, headline: str) -> float:
    side, measure = line.side(headline), line.report.measures.get(headline)
    return math.inf if side is None or measure is None else -side.value if measure.higher_is_better else side.value


def _rank(report: Report, name: str) -> float:
    measure = report.measures.get(name)
    return math.inf if measure is None else -measure.tuned.value if measure.higher_is_better else measure.tuned.value


def _when(report: Report) -> str:
    return report.job.ended_at or ""


def _who(home: Home, report: Report) -> str:
    """The same for the same model: its training, or the folder of a foreign adapter."""
    return report.of or _adapter(home, report.job) or report.job.id


def _adapter(home: Home, job: Job) -> str | None:
    path = home.run(job.id).spec
    try:
        return _named(path, path.stat().st_mtime_ns)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=1024)
def _named(path: Path, changed_ns: int) -> str | None:
    with open(path, "rb") as file:
        spec = orjson.loads(file.read(DROP_BYTES))
    adapter = spec.get("adapter") if isinstance(spec, dict) else None
    return f"adapter {adapter}" if isinstance(adapter, str) else None
