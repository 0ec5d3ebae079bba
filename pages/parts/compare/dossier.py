"""What is written down about a run: its settings, data, environment and outcome, each as flat fields; what differs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spool.protocol import durable, notes, removed
from spool.protocol.home import Home
from spool.protocol.jobs import Job, attempt_files
from spool.protocol.notes import Note
from spool.protocol.removed import Removed

Value = str | int | float | bool | None
SECTIONS = ("settings", "data", "environment")
LEFT_OUT = {"schema", "kind", "name", "dataset", "submission_id", "retry_of", "priority"}
"""What says nothing about how the model was made; the dataset stands under `data`."""


@dataclass(frozen=True)
class Dossier:
    """One run. What is not known is not in it: a job that waits has no environment."""

    job: Job
    settings: dict[str, Value] = field(default_factory=dict)
    """By JSON pointer, every auto resolved once the run has begun."""
    data: dict[str, Value] = field(default_factory=dict)
    environment: dict[str, Value] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    note: Note = field(default_factory=Note)
    removed: Removed | None = None
    eval_rows_hash: str | None = None
    """Two runs with the same one were judged by the very same rows."""

    @property
    def eval_loss(self) -> float | None:
        """Of the adapter that was kept."""
        return finite(self.result.get("eval_loss"))

    @property
    def final_loss(self) -> float | None:
        return finite(self.result.get("final_loss"))

    @property
    def tokens_per_s(self) -> float | None:
        tokens, seconds = finite(self.result.get("tokens")), finite(self.result.get("trained_s"))
        return tokens / seconds if tokens and seconds else None


def read(home: Home, job: Job) -> Dossier:
    """Everything about one run; damaged and missing files leave their fields out."""
    run = home.run(job.id)
    prepared = _json(run.data / "prepared.json")
    spec = _json(run.spec) or _json(run.spec_orig)
    result = job.result or {}
    files = prepared.get("files")
    evaluation = files.get("eval.arrow") if isinstance(files, dict) else None
    return Dossier(
        job,
        {name: value for name, value in flat(spec) if name.split("/")[1] not in LEFT_OUT},
        _data(spec, prepared, _json(run.data / "check.json")),
        _environment(home, job, result),
        result,
        notes.read(home, job.id),
        removed.read(run),
        evaluation.get("sha256") if isinstance(evaluation, dict) else None,
    )


def flat(document: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Value]]:
    """(JSON pointer, value) of every leaf; a list counts as a leaf, in words."""
    for name, value in document.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{above}/{name}")
        elif isinstance(value, list):
            yield f"{above}/{name}", ", ".join(str(each) for each in value) or None
        else:
            yield f"{above}/{name}", None if value == {} else value


def differing(dossiers: Sequence[Dossier], section: str, everything: bool = False) -> list[tuple[str, list[Value]]]:
    """(field, its value in each run) of a section: the fields in which two runs differ, or all of them.

    A run that does not know a field (it has not begun) differs from none. 1 and 1.0 are the same number.
    """
    sides: list[dict[str, Value]] = [getattr(each, section) for each in dossiers]
    fields = dict.fromkeys(name for side in sides for name in side)
    kept = []
    for name in fields:
        known = [side[name] for side in sides if name in side]
        if everything or any(value != known[0] for value in known):
            kept.append((name, [side.get(name) for side in sides]))
    return kept


def best(dossiers: Sequence[Dossier]) -> Dossier | None:
    """The finished run with the lowest eval loss; None where fewer than two have one."""
    judged = [each for each in dossiers if each.eval_loss is not None]
    return min(judged, key=lambda each: each.eval_loss or 0.0) if len(judged) > 1 else None


def same_judge(dossiers: Sequence[Dossier]) -> bool:
    """Whether all finished runs that have an eval loss were judged by the same rows, as far as is known."""
    hashes = {each.eval_rows_hash for each in dossiers if each.eval_loss is not None and each.eval_rows_hash}
    return len(hashes) <= 1


def by_eval(dossiers: Sequence[Dossier]) -> list[Dossier]:
    """Best first; those without an eval loss last, in their order."""
    return sorted(dossiers, key=lambda each: math.inf if each.eval_loss is None else each.eval_loss)


def chain(jobs: Mapping[str, Job], job: Job, longest: int = 20) -> list[Job]:
    """The jobs that this one repeats, the first try first; itself left out."""
    found: list[Job] = []
    seen = {job.id}
    above = job.retry_of
    while above and above not in seen and above in jobs and len(found) < longest:
        seen.add(above)
        found.insert(0, jobs[above])
        above = jobs[above].retry_of
    return found


def finite(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def _data(spec: dict[str, Any], prepared: dict[str, Any], checked: dict[str, Any]) -> dict[str, Value]:
    dataset = prepared.get("dataset")
    dataset = dataset if isinstance(dataset, dict) else {}
    counts = prepared.get("counts")
    counts = counts if isinstance(counts, dict) else {}
    found = checked.get("problem_counts")
    said = ", ".join(f"{name} {count}" for name, count in sorted(found.items())) if isinstance(found, dict) else None
    name, _, version = str(dataset.get("reference") or spec.get("dataset") or "").partition("@")
    fields = {
        "dataset": name or None,
        "version": dataset.get("version") or version or None,
        "rows": counts.get("rows"),
        "train": counts.get("train"),
        "eval": counts.get("eval"),
        "eval_dataset": dataset.get("eval_reference"),
        "tokens": counts.get("tokens"),
        "dropped": counts.get("dropped"),
        "over_long": counts.get("over_long"),
        "findings": said or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _environment(home: Home, job: Job, result: dict[str, Any]) -> dict[str, Value]:
    """Of the last attempt; where an earlier one ran elsewhere, the attempts' own records say so."""
    files = attempt_files(home, job.id)
    versions = _json(files[-1]).get("versions") if files else None
    base = result.get("base")
    revision = base.get("revision") if isinstance(base, dict) else None
    fields = {"device": result.get("device"), "revision": revision}
    fields |= {str(name): str(value) for name, value in versions.items()} if isinstance(versions, dict) else {}
    return {name: value for name, value in fields.items() if value is not None}


def _json(path: Any) -> dict[str, Any]:
    try:
        document = durable.read_json(path)
    except (ValueError, OSError):
        return {}
    return document if isinstance(document, dict) else {}
