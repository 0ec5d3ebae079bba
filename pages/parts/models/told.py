"""What the result of a job tells of its report: base against tuned, in numbers. The report itself is a file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pages.parts import quantities
from pages.parts.escape import one_line
from pages.parts.texts import t
from spool.protocol import durable
from spool.protocol.home import Home
from spool.protocol.jobs import Job
from spool.protocol.ulid import is_ulid

HEADLINES = {"json": "same_object", "label": "accuracy", "text": "chrf"}
"""What counts most, by the task that was recognised; of any other, how many answers are exactly right."""
USUAL = "exact"
VERDICTS = BETTER, SAME, WORSE, NOTHING = ("better", "same", "worse", "nothing")
MOST_SAMPLES = 40


@dataclass(frozen=True)
class Side:
    """A measure of one of both: a share or score from 0 to 1, or a loss; the 95% interval where it has one."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Measure:
    """One number of base and tuned model."""

    base: Side
    tuned: Side
    higher_is_better: bool = True
    share: bool = False
    """Whether it counts answers; else it is a score from 0 to 1, or a loss."""


@dataclass(frozen=True)
class General:
    """Of the general questions: how many were asked, known by each, and how many the base knew and the model lost."""

    of: int
    base: int
    tuned: int
    lost: int

    @property
    def kept(self) -> int:
        return self.base - self.lost


@dataclass(frozen=True)
class Report:
    """What a finished job says of its report; `measures` is empty where nothing was compared."""

    job: Job
    of: str | None
    """The training whose adapter was asked; None of a foreign one."""
    base: str
    task: str
    verdict: str
    measures: Mapping[str, Measure]
    general: General | None
    sha256: str
    """The same where the same rows were asked."""
    source: str
    rows: int
    chosen: int
    held_out: bool
    learned: bool

    @property
    def cut(self) -> bool:
        return self.rows < self.chosen

    @property
    def headline(self) -> str:
        """The measure that counts most."""
        wanted = HEADLINES.get(self.task, USUAL)
        return wanted if wanted in self.measures else USUAL


def read(job: Job) -> Report | None:
    """The report that a finished job has made; None where there is none, or what is told of it cannot be read."""
    told = (job.result or {}).get("report") if job.state == "done" else None
    try:
        return _read(job, told) if isinstance(told, dict) and "error" not in told else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def problem(job: Job) -> Mapping[str, Any] | None:
    """Why a done job has no report although one was to be made."""
    told = (job.result or {}).get("report")
    error = told.get("error") if isinstance(told, dict) else None
    return error if isinstance(error, dict) else None


def says(job: Job) -> str:
    """`The same JSON: 93.7 %, base 2.5 %`: what came of a job's report in a few words; empty where there is none."""
    report = read(job)
    measure = report.measures.get(report.headline) if report else None
    if report is None or measure is None:
        return ""
    tuned, base = figure(measure.tuned, measure.share), figure(measure.base, measure.share)
    return t("models.board.made", what=t(f"report.measure.{report.headline}"), tuned=tuned, base=base)


def figure(side: Side, share: bool) -> str:
    """`93.7 %`, of a score or a loss `0.87`."""
    return quantities.agreement(side.value) if share else quantities.small(side.value)


def _read(job: Job, told: Mapping[str, Any]) -> Report:
    """Raises KeyError, TypeError, ValueError or AttributeError where it is not as the runner writes it."""
    asked, result = told["asked"], job.result or {}
    of, verdict = job.id if job.kind == "train" else result.get("of"), str(told["verdict"])
    return Report(
        job=job,
        of=of if isinstance(of, str) and is_ulid(of) else None,
        base=str((result.get("base") or {}).get("reference") or job.model or ""),
        task=str(told["task"]),
        verdict=verdict if verdict in VERDICTS else NOTHING,
        measures={str(each["name"]): found for each in told["measures"] if (found := _measure(each)) is not None},
        general=_general(told.get("general")),
        sha256=str(asked["sha256"]),
        source=one_line(asked["source"], 200),
        rows=int(asked["rows"]),
        chosen=int(asked["chosen"]),
        held_out=asked.get("held_out") is True,
        learned=asked.get("learned") is True,
    )


def _measure(told: Mapping[str, Any]) -> Measure | None:
    base, tuned = (_side(told.get(who), told.get(f"{who}_interval")) for who in ("base", "tuned"))
    if base is None or tuned is None:
        return None
    return Measure(base, tuned, told.get("higher_is_better") is not False, told.get("unit") == "share")


def _side(value: Any, interval: Any) -> Side | None:
    ends = [float(each) for each in interval if _number(each)] if isinstance(interval, list | tuple) else []
    return Side(float(value), (ends[0], ends[1]) if len(ends) == 2 else None) if _number(value) else None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _general(told: Any) -> General | None:
    found = General(*(int(told[name]) for name in ("of", "base", "tuned", "lost"))) if isinstance(told, dict) else None
    return found if found and found.of else None


# ---- answers side by side


@dataclass(frozen=True)
class Sample:
    """One row that both have answered; `gain` above 0: the tuned model answered better."""

    prompt: str
    expected: str
    base: str
    tuned: str
    gain: float


def samples(home: Home, job: Job) -> list[Sample]:
    """Rows with the largest gains, then those with the largest losses; nothing where the report is gone or damaged."""
    try:
        document = durable.read_json(home.run(job.id).report_json)
        return [
            Sample(
                str(each["prompt"]),
                str(each["expected"]),
                str(each["base"]["text"]),
                str(each["tuned"]["text"]),
                float(each["gain"] or 0.0),
            )
            for each in document["samples"][:MOST_SAMPLES]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
