"""The rules by which data blocks a job: stated in the job's spec, applied the same way by every check."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from spool.data.judging.findings import Findings
from spool.data.reading.table import in_words
from spool.protocol.errors import DataError


@dataclass(frozen=True)
class Rules:
    """What limits.max_problem_fraction and limits.max_fraction say."""

    max_problem_fraction: float = 0.1
    """Share of the rows that may be dropped."""
    max_fraction: Mapping[str, float] = field(default_factory=dict)
    """Code -> share of the rows that may have this finding. 1 allows what would block by itself."""


def refuse(name: str, rows: int, findings: Findings, rules: Rules) -> DataError | None:
    """The error of a job that must not train on these rows, or None."""
    dropped = findings.rows_dropped
    if dropped >= rows:
        return _error(name, f"{_none_of(rows)} ({_causes(findings)}). {in_words(findings.sorted())}", False)
    if dropped > rules.max_problem_fraction * rows:
        limit = f"{rules.max_problem_fraction:.0%}" if rules.max_problem_fraction else "0"
        words = (
            f"{dropped:,} of {rows:,} rows ({dropped / rows:.0%}) cannot be trained on, more than the {limit} allowed "
            f"({_causes(findings)}). {in_words(findings.sorted())}"
        )
        return _error(name, words, True)
    for problem in findings.blocking:
        if rules.max_fraction.get(problem.code, 0) < 1:
            where = f"line {problem.line:,}: " if problem.line else ""
            hint = f'Correct it, or allow it with limits.max_fraction {{"{problem.code}": 1}}.'
            return DataError(f"{name}: {where}{problem.message}", hint, "data_blocked")
    for code, share in rules.max_fraction.items():
        count = findings.counts[code]
        if count > share * rows:
            hint = f"`finetuner check {name}` lists them. Correct them, or raise limits.max_fraction."
            have = f"{count:,} of {rows:,} rows ({count / rows:.0%}) have {code}, more than the {share:.0%} allowed."
            return DataError(f"{name}: {have}", hint, "data_blocked")
    return None


def _none_of(rows: int) -> str:
    return "the only row cannot be trained on" if rows == 1 else f"none of the {rows:,} rows can be trained on"


def _causes(findings: Findings) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in findings.dropped.most_common(5))


def _error(name: str, words: str, some: bool) -> DataError:
    other = "raise limits.max_problem_fraction" if some else "name the columns with data.mapping"
    hint = f"`finetuner check {name}` lists every row. Correct them, or {other}."
    return DataError(f"{name}: {words}", hint, "data_blocked")
