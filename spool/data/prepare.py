"""From a dataset to the rows of a training: the same check that everybody sees, the spec's rules, the split, the files.

`prepare` is what a check does before a job is queued. It leaves a folder in the form of spool/data/prepared.py.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spool.data import prepared
from spool.data.judging import repeats, tokens
from spool.data.judging.arrow_rows import TokenRow
from spool.data.judging.chat import Encoder
from spool.data.judging.check import Examined, Look, Model, examine, report
from spool.data.judging.rules import Rules
from spool.data.judging.scan import Scan
from spool.data.keeping import keep
from spool.data.prepared import Prepared
from spool.data.reading.limits import DEFAULT, Limits
from spool.data.reading.read import Dialect
from spool.data.reading.source import signature
from spool.data.reading.table import Problem
from spool.protocol import durable, settings
from spool.protocol.errors import DataError, FinetunerError
from spool.protocol.resolve import STORED, Places
from spool.protocol.spec import JobSpec

AUTO_EVAL_FRACTION = 0.05
AUTO_EVAL_MOST_ROWS = 200
AUTO_EVAL_FROM_ROWS = 100


@dataclass(frozen=True)
class Task:
    """What of a job its data depends on."""

    spec: JobSpec
    path: Path
    """What spec.dataset names."""
    model: Model
    cache: Path
    """HOME/cache/tokens."""
    eval_path: Path | None = None
    """What spec.eval.dataset names."""
    limits: Limits = field(default_factory=lambda: DEFAULT)

    @classmethod
    def of(cls, spec: JobSpec, places: Places, encoder: Encoder) -> "Task":
        """Finds what the spec names; what lies on the hub is fetched.

        Raises:
            FinetunerError: there is no such dataset, or a stored version has other bytes than it had.
        """
        other = spec.eval.dataset
        return cls(
            spec,
            locate(spec.dataset, places),
            Model(encoder, encoder.identity),
            places.home.tokens,
            locate(other, places) if other else None,
            settings.load(places.home).data_limits,
        )

    @property
    def look(self) -> Look:
        data = self.spec.data
        return Look(
            format=data.format,
            mapping=data.mapping,
            dialect=Dialect(data.encoding, data.delimiter or "auto", None if data.header == "auto" else data.header),
            limits=self.limits,
            train_on=data.train_on,
            max_length=None if data.max_length == "auto" else data.max_length,
        )

    @property
    def rules(self) -> Rules:
        return Rules(self.spec.limits.max_problem_fraction, self.spec.limits.max_fraction)


def locate(reference: str, places: Places) -> Path:
    """The file or folder that a spec's dataset names.

    Raises:
        FinetunerError: there is none; or the bytes of a stored version are no longer those that named it.
    """
    if reference.startswith("hf:"):
        from spool.data.reading import hub

        return hub.fetch(places.home, reference)
    path = places.dataset(reference)
    if path.is_relative_to(places.home.datasets) and STORED.fullmatch(reference):
        keep.verified(places.home, reference)
    return path


def prepare(task: Task, folder: Path, say: Callable[[str], None] = lambda words: None) -> Prepared:
    """Judges, tokenises, splits and writes a job's rows. The same files, spec and model give the same rows.

    Args:
        folder: runs/ID/data; what lies in it is replaced.
        say: told what is being done, in words.

    Raises:
        DataError: a file cannot be read, changes meanwhile, or its rows must not be trained on (`data_blocked`).
            check.json says so too.
    """
    prepared.clear(folder)
    findings: dict[str, Any] = {"v": 1, "blocked": None}
    try:
        done = _prepare(task, folder, say, findings)
    except FinetunerError as error:
        durable.write_json(folder / "check.json", findings | {"blocked": error.to_json()})
        raise
    durable.write_json(folder / "check.json", findings)
    return prepared.save(done)


def _prepare(task: Task, folder: Path, say: Callable[[str], None], findings: dict[str, Any]) -> Prepared:
    """Does all but the last words; `findings` grows as it goes, so that an error leaves what was found before it."""
    before = signature(task.path)
    say("checking the data")
    found = examine(task.path, task.look, task.model, task.cache, _steps(say))
    train, held_out, left_out = _sides(task, found, findings, say)
    if signature(task.path) != before:
        hint = "Retry when nothing writes to it any more."
        raise DataError(f"{task.path.name} was changed while it was read.", hint, "data_changed")
    if not train.any():
        raise DataError(f"{task.path.name}: no row is left to train on.", "Drop fewer rows.", "data_blocked")
    say(f"writing {int(train.sum()):,} rows")
    files, trained = _write(folder, found, train, held_out)
    done = replace(_facts(task, found, held_out, files, trained, left_out), folder=folder)
    findings["counts"] = done.counts
    return done


def _steps(say: Callable[[str], None]) -> Callable[[str, int, int], None]:
    """Says each stage once; how far it is goes nowhere, for a log is no progress bar."""
    said: set[str] = set()

    def step(stage: str, done: int, total: int) -> None:
        if stage not in said:
            said.add(stage)
            say(stage)

    return step


def _sides(
    task: Task, found: Examined, findings: dict[str, Any], say: Callable[[str], None]
) -> tuple[np.ndarray, "HeldOut", int]:
    """(mask of the usable rows to train on, those to evaluate on, how many were left out on request).

    Raises:
        DataError: the rules block the job.
    """
    keep = _trainable(found)
    usable = int(keep.sum())
    for code in task.spec.data.drop:
        keep[found.scan.rows_with(code)] = False
    if "over_long" in task.spec.data.drop:
        assert found.tokens is not None
        keep[found.tokens.rows[found.tokens.lengths > found.max_length]] = False
    left_out = usable - int(keep.sum())
    if task.eval_path is not None:
        held_out = _other_file(task, found, say)
        findings |= report(found, task.rules, with_statistics=False).to_json()
        _raise_blocked(findings)
        return keep, held_out, left_out
    findings |= report(found, task.rules, with_statistics=False).to_json()
    _raise_blocked(findings)
    made = np.zeros(found.scan.usable, bool)
    made[np.frombuffer(found.scan.tally.made, np.int64)] = True
    chosen = split(found.scan, keep, made, task.spec.data.eval_fraction, task.spec.train.seed)
    held_out = HeldOut(found, chosen & keep & ~made)
    wanted = eval_rows(int(keep.sum()), task.spec.data.eval_fraction)
    if wanted and not held_out.rows.any():
        findings["notices"] = [*findings["notices"], _none_held_out(found.scan, keep & ~made, wanted)]
    return keep & ~chosen, held_out, left_out


def _none_held_out(scan: Scan, keep: np.ndarray, wanted: int) -> str:
    """Why a split that was asked for keeps no row away from training."""
    questions = np.unique(np.frombuffer(scan.tally.questions, np.uint64)[keep])
    why = f"each of the {len(questions):,} questions has more rows. Set data.eval_fraction higher."
    if len(questions) < 2:
        why = "all rows ask the same question. Name a file for evaluation in eval.dataset."
    kept = "rows that ask the same stay together"
    return f"No row is kept for evaluation, although {wanted:,} should be: {kept}, and {why}"


def _raise_blocked(findings: dict[str, Any]) -> None:
    if findings["blocked"]:
        raise DataError(**findings["blocked"])


def _trainable(found: Examined) -> np.ndarray:
    """The usable rows of the scan of which at least one token is trained on."""
    assert found.tokens is not None
    keep = np.zeros(found.scan.usable, bool)
    keep[found.tokens.rows] = True
    keep[list(found.unlearnable)] = False
    return keep


def _other_file(task: Task, training: Examined, say: Callable[[str], None]) -> "HeldOut":
    """The rows of spec.eval.dataset, laid out like the training data, without those that are trained on as well.

    Findings go to the training's.

    Raises:
        DataError: the file cannot be read, or no row of it is left.
    """
    assert task.eval_path is not None
    say("checking the evaluation data")
    look = replace(task.look, max_length=training.max_length)
    found = examine(task.eval_path, look, task.model, task.cache)
    keep = _trainable(found)
    for row in repeats.overlap(training.scan, found.scan).tolist():
        keep[row] = False
        place = found.scan.place(row)
        words = f"row {place['line']:,} of {task.eval_path.name} asks what is trained on too: it is not evaluated on."
        training.scan.tally.findings.add(Problem(0, "eval_overlap", words, "kept"))
    if not keep.any():
        message = f"no row of {task.eval_path.name} can be used to evaluate: all are broken, or trained on as well."
        raise DataError(message, "Choose rows that the training data does not have.", "data_blocked")
    return HeldOut(found, keep)


@dataclass
class HeldOut:
    """Rows to evaluate on: of the training file, or of another one."""

    found: Examined
    rows: np.ndarray
    """A mask of the usable rows of its scan."""


def split(scan: Scan, keep: np.ndarray, made: np.ndarray, fraction: float | str, seed: int) -> np.ndarray:
    """Mask of the usable rows that are not trained on, so that whole questions are known to one side only.

    Args:
        keep: mask of the rows that can be trained on.
        made: mask of the rows that were made from others; these are never evaluated on, and not trained on either
            where their original is held out.
    """
    questions = np.frombuffer(scan.tally.questions, np.uint64)
    wanted = eval_rows(int(keep.sum()), fraction)
    groups, sizes = np.unique(questions[keep & ~made], return_counts=True)
    order = list(range(len(groups)))
    random.Random(seed).shuffle(order)
    chosen: list[int] = []
    left = wanted if len(groups) > 1 else 0
    for place in order:
        if not left or len(chosen) == len(groups) - 1:
            break
        if sizes[place] <= left:
            chosen.append(groups[place])
            left -= int(sizes[place])
    return np.isin(questions, np.array(chosen, np.uint64)) & keep


def eval_rows(usable: int, fraction: float | str) -> int:
    """How many rows are kept away from training; at least one stays in it."""
    if fraction == "auto":
        if usable < AUTO_EVAL_FROM_ROWS:
            return 0
        return min(AUTO_EVAL_MOST_ROWS, round(AUTO_EVAL_FRACTION * usable))
    assert not isinstance(fraction, str)
    wanted = max(1, round(fraction * usable)) if fraction else 0
    return max(0, min(wanted, usable - 1))


def _write(
    folder: Path, found: Examined, train: np.ndarray, held_out: HeldOut
) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """(facts of the files, trained tokens of each)."""
    files: dict[str, dict[str, Any]] = {}
    trained: dict[str, int] = {}
    for name, source, rows in (("train.arrow", found, train), ("eval.arrow", held_out.found, held_out.rows)):
        if rows.any():
            files[name], trained[name] = prepared.write_rows(folder / name, _cut(source, rows))
    return files, trained


def _cut(source: Examined, rows: np.ndarray) -> Iterator[TokenRow]:
    """These rows, as they are trained on."""
    assert source.tokens is not None
    assert source.max_length is not None
    for row in source.tokens.read():
        if rows[row.row]:
            kept, _ = tokens.cut(row, source.max_length, {"line": row.line})
            assert kept is not None
            yield kept


def _facts(
    task: Task, found: Examined, held_out: HeldOut, files: dict[str, Any], trained: dict[str, int], left_out: int
) -> Prepared:
    assert found.max_length is not None
    scan, evaluated = found.scan, files.get("eval.arrow", {"rows": 0})["rows"]
    usable = scan.tally.rows - scan.tally.findings.rows_dropped
    counts = {
        "rows": scan.tally.rows,
        "usable": usable,
        "dropped": scan.tally.rows - usable,
        "left_out": left_out,
        "over_long": found.over_limit,
        "train": files["train.arrow"]["rows"],
        "eval": evaluated,
        "tokens": sum(file["tokens"] for file in files.values()),
        "trained_tokens": sum(trained.values()),
    }
    dataset = {"reference": task.spec.dataset, "sha256": found.sha256, "version": found.sha256[:12]}
    fraction = task.spec.data.eval_fraction
    if task.eval_path is not None:
        dataset |= {"eval_reference": str(task.spec.eval.dataset), "eval_sha256": held_out.found.sha256}
        fraction = 0.0
    return Prepared(
        folder=Path(),
        format=scan.layout.format,
        roles=dict(scan.layout.roles),
        dialect={
            "encoding": scan.found.encoding,
            "delimiter": scan.found.delimiter or None,
            "header": scan.found.header,
        },
        train_on=found.train_on,
        max_length=found.max_length,
        eval_fraction=evaluated / usable if fraction == "auto" else fraction,
        counts=counts,
        dataset=dataset,
        tokenizer_sha256=task.model.sha256,
        files=files,
    )
