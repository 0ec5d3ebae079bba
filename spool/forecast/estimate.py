"""What a job will take: steps, time, memory and disk, and whether that fits this machine.

Formulas (costs.py) are corrected by what this server's own finished jobs took (history.py, learned.py). Nothing is
loaded, and half a spec is enough to say half of it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from spool.forecast import costs, exports, fitting, history, learned, machine, rows, shapes, steps
from spool.forecast.costs import Plan
from spool.forecast.history import Past
from spool.forecast.machine import Machine
from spool.forecast.rows import Rows
from spool.forecast.shapes import Shape
from spool.protocol import catalogue, durable, formats, settings
from spool.protocol.errors import FinetunerError, Problem
from spool.protocol.home import Home
from spool.protocol.resolve import HUB_ID, Places
from spool.protocol.training import Data, Eval, Group, Limits, Lora, Train
from spool.protocol.ulid import is_ulid

GroupT = TypeVar("GroupT", bound=Group)


@dataclass(frozen=True)
class Estimate:
    """Each number is None where it cannot be told; `reasons` then say why, in words.

    `gpu_bytes` is what the card must have free (None on a CPU), `memory_bytes` the trainer's resident memory,
    `disk_bytes` the most that the job takes at once. `low_s` and `high_s` are the range that the time lies in.
    """

    seconds: float | None = None
    low_s: float | None = None
    high_s: float | None = None
    steps: int | None = None
    gpu_bytes: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    problems: tuple[Problem, ...] = ()
    learned_from: int = 0
    """Finished jobs that the time was learned from; 0 is a guess by formula."""
    reasons: tuple[str, ...] = ()
    fits_with: Mapping[str, Any] = field(default_factory=dict)
    """JSON pointer -> value with which it would fit, where it does not."""
    step_s: float | None = None


def estimate(home: Home, spec: dict[str, Any], *, machine: Machine | None = None, run: Path | None = None) -> Estimate:
    """What the job of a spec will take here. A spec that is half filled in, or wrong, is answered as far as it goes.

    Args:
        run: the job's folder under runs/ where it is accepted already: its check has counted its rows.
    """
    if spec.get("kind") == "export":
        return _export(home, spec, machine)
    if spec.get("kind") == "evaluate":
        return _evaluation(home, spec, machine)
    if spec.get("kind", "train") != "train":
        took = history.wall_s(home, str(spec["kind"])) if isinstance(spec["kind"], str) else None
        return Estimate(took, reasons=() if took else ("how long its answers get is not known before.",))
    asked = Asked.of(spec, _settings(home).report_s)
    here = machine or _look(home)
    places = _places(home)
    shape, folder = _shape(home, places, spec.get("model"))
    counted = _rows(home, places, spec.get("dataset"), asked.data, folder, run)
    reasons = _unknown(spec, shape, counted)
    if counted is None:
        total = asked.train.max_steps
        return Estimate(steps=total, reasons=tuple(reasons))
    try:
        plan = plan_of(asked, counted, shape, here)
    except ValueError as error:
        cannot = Problem("cannot_train", f"{error}.", "Choose another value, or auto.", "/train")
        return Estimate(problems=(cannot,), reasons=tuple(reasons))
    if shape is None:
        return Estimate(steps=plan.steps, reasons=tuple(reasons))
    return _whole(Job(shape, plan, asked, folder is None, here), history.of(home), reasons, counted)


def _export(home: Home, spec: Mapping[str, Any], here: Machine | None) -> Estimate:
    """What a job of kind export takes: as long as such jobs took here, else by what one took elsewhere."""
    took, of, wanted = history.wall_s(home, "export"), spec.get("job"), spec.get("export", ["merged"])
    model = _model_of(home, of) if isinstance(of, str) and is_ulid(of) else None
    shape, _ = _shape(home, _places(home), model)
    if shape is None or not isinstance(wanted, list):
        return Estimate(took, reasons=() if took else ("what it is made of is not known.",))
    names = [each for each in formats.FORMATS if each in wanted]
    disk = exports.disk_bytes(names, 2 * shape.parameters)
    guess = exports.wall_s(names, shape, (here or _look(home)).cores)
    return Estimate(took or guess, disk_bytes=disk, reasons=() if took else (NO_EXPORT_YET,))


def _evaluation(home: Home, spec: Mapping[str, Any], here: Machine | None) -> Estimate:
    """What a job of kind evaluate takes: as long as such jobs took here, else a guess, and no longer than it may."""
    minutes = spec.get("max_minutes")
    most = 60.0 * (minutes if isinstance(minutes, int | float) and 0 < minutes < math.inf else REPORT_MINUTES)
    if took := history.wall_s(home, "evaluate"):
        return Estimate(min(took, most), high_s=most)
    of, here = spec.get("job"), here or _look(home)
    shape, _ = _shape(home, _places(home), _model_of(home, of) if isinstance(of, str) and is_ulid(of) else None)
    if shape is None:
        return Estimate(min(exports.REPORT_S, most), high_s=most, reasons=(NO_REPORT_YET,))
    guess = exports.report_s(shape, here.cores, here.gpu is not None, most)
    return Estimate(guess, high_s=most, reasons=(NO_REPORT_YET,))


REPORT_MINUTES = 10.0
"""The default of max_minutes in spool.protocol.spec, which takes long to load."""
NO_REPORT_YET = "no finished report on this machine to learn from: the time is a guess."
NO_EXPORT_YET = "no finished export on this machine to learn from: the time is a guess."


def _model_of(home: Home, job_id: str) -> Any:
    """The base that a training's spec names."""
    try:
        return (durable.read_json(home.run(job_id).spec) or {}).get("model")
    except (OSError, ValueError, AttributeError):
        return None


@dataclass(frozen=True)
class Asked:
    """The groups of a spec, with the default in place of what is wrong or missing."""

    lora: Lora
    train: Train
    data: Data
    evaluation: Eval
    limits: Limits
    precision: str
    exports: tuple[str, ...]
    report_s: float
    """The most that its report may take."""

    @classmethod
    def of(cls, spec: Mapping[str, Any], report_s: float) -> "Asked":
        precision, export = spec.get("precision", "auto"), spec.get("export")
        return cls(
            _lenient(Lora, spec.get("lora")),
            _lenient(Train, spec.get("train")),
            _lenient(Data, spec.get("data")),
            _lenient(Eval, spec.get("eval")),
            _lenient(Limits, spec.get("limits")),
            precision if precision in ("4bit", "8bit", "16bit") else "auto",
            tuple(each for each in formats.FORMATS if each in export) if isinstance(export, list) else (),
            report_s if spec.get("report", True) is True else 0.0,
        )


@dataclass(frozen=True)
class Job:
    """Everything that decides what a training takes."""

    shape: Shape
    plan: Plan
    asked: Asked
    fetched: bool
    """Its base must come from the hub first."""
    machine: Machine


def plan_of(asked: Asked, counted: Rows, shape: Shape | None, here: Machine) -> Plan:
    """The training with every `auto` decided as the trainer will decide it.

    Raises:
        ValueError: the spec asks for what cannot be, in words.
    """
    on_gpu = here.gpu is not None
    limit = None if asked.data.max_length == "auto" else asked.data.max_length
    cut = counted.cut(limit)
    free = (here.gpu_bytes - costs.CONTEXT_BYTES if here.gpu_bytes is not None else 1 << 62) if on_gpu else None
    way = steps.way(
        asked.train,
        asked.lora,
        asked.precision,
        shape,
        shape.parameters if shape else 0,
        free,
        cut.longest_tokens,
        cut.mean_tokens,
        here.capability is None or here.capability >= steps.AMPERE,
    )
    batch, accumulation = steps.parts(asked.train, way.packed)
    total = steps.total(asked.train, counted.train, batch, accumulation)
    every = steps.evaluate_every(asked.evaluation, total)
    return Plan(
        total,
        batch,
        accumulation,
        cut.mean_tokens,
        cut.longest_tokens,
        asked.lora.rank,
        asked.lora.target_modules,
        way.precision,
        way.checkpointing,
        way.optimizer,
        on_gpu,
        counted.train,
        counted.evaluated,
        total // every if counted.evaluated else 0,
        asked.exports,
        exports.report_s(shape, here.cores, on_gpu, asked.report_s) if shape else 0.0,
        way.packed,
        way.room_tokens,
    )


def _whole(job: Job, past: list[Past], reasons: list[str], counted: Rows) -> Estimate:
    shape, plan, here = job.shape, job.plan, job.machine
    device, cores = here.device, here.cores
    a_step, around = (
        learned.step(shape, plan, past, device, cores),
        learned.overhead(shape, plan, past, device, cores),
    )
    step_s = costs.step_s(shape, plan, device, cores)
    busy = plan.steps * step_s + costs.evaluations_s(shape, plan, device, cores)
    beside = costs.overhead_s(shape, plan)
    seconds, low, high = (
        busy * getattr(a_step, name) + beside * getattr(around, name) for name in ("middle", "low", "high")
    )
    vague = {"prepared": 1.0, "counted": 1.0, "characters": 1.3, "size": 1.8}[counted.known]
    low, high = low / vague, high * vague
    most = job.asked.limits.max_hours
    if most and seconds > most * 3600:
        reasons.append(f"limits.max_hours ends it after {most:g} hours.")
        seconds, high = most * 3600, min(high, most * 3600 * 1.05)
        low = min(low, seconds)
    if a_step.jobs == 0:
        reasons.append("no finished job on this machine to learn from: the time is a guess.")
    if counted.known in ("characters", "size"):
        reasons.append("the rows' tokens are guessed from the file: open it on the Data page to count them.")
    needed = fitting.Need.of(shape, plan, past, device)
    disk = int(costs.disk_bytes(shape, plan, max(1, plan.steps // steps.save_every(job.asked.train, plan.steps))))
    if job.fetched:
        disk += shape.parameters * 2
        reasons.append("the base is not on this server: fetching it comes on top, by the speed of the network.")
    problems, fits_with = fitting.judge(shape, plan, past, here, disk, job.asked.limits.min_free_gb)
    return Estimate(
        round(seconds, 1),
        round(low, 1),
        round(high, 1),
        plan.steps,
        needed.gpu_bytes,
        needed.memory_bytes,
        disk,
        tuple(problems),
        a_step.jobs,
        tuple(reasons),
        fits_with,
        step_s * a_step.middle,
    )


def _lenient(group: type[GroupT], values: Any) -> GroupT:
    """The group with those of its values that can be used."""
    if not isinstance(values, dict):
        return group()
    known = {name: value for name, value in values.items() if name in group.model_fields}
    try:
        return group.model_validate(known)
    except ValidationError as error:
        wrong = {each["loc"][0] for each in error.errors(include_url=False)}
        return group.model_validate({name: value for name, value in known.items() if name not in wrong})


def _look(home: Home) -> Machine:
    return machine.look(home)


def _places(home: Home) -> Places:
    started_in = Path.cwd()
    return Places(home, started_in, settings.roots(_settings(home), home, started_in))


def _settings(home: Home) -> settings.Settings:
    try:
        return settings.load(home)
    except FinetunerError:
        return settings.Settings()


def _shape(home: Home, places: Places, model: Any) -> tuple[Shape | None, Path | None]:
    """(its shape, its folder); no folder where it must be fetched, or nobody knows it."""
    if not isinstance(model, str) or not model:
        return None, None
    try:
        found = places.model(model)
    except (FinetunerError, OSError):
        return None, None
    folder = found.folder or shapes.fetched(home, found.reference)
    return shapes.of(home, found.reference, folder), folder


def _rows(
    home: Home, places: Places, dataset: Any, data: Data, model_folder: Path | None, run: Path | None
) -> Rows | None:
    found = rows.prepared(run / "data") if run else None
    if found is None and isinstance(dataset, str) and dataset:
        found = rows.of(home, places, dataset, data, model_folder)
    return found


def _unknown(spec: Mapping[str, Any], shape: Shape | None, counted: Rows | None) -> list[str]:
    """What cannot be told, in words."""
    said = []
    model, dataset = spec.get("model"), spec.get("dataset")
    if not model:
        said.append("no base model is chosen.")
    elif shape is None:
        away = isinstance(model, str) and bool(HUB_ID.fullmatch(model) or catalogue.find(model))
        said.append(
            "this base is not on this server, and its size is not known by its name."
            if away
            else "the base model's config.json cannot be found or read."
        )
    if not dataset:
        said.append("no dataset is chosen.")
    elif counted is None:
        away = isinstance(dataset, str) and dataset.startswith("hf:")
        said.append(
            "the dataset is on the hub: its rows are counted when the job is checked."
            if away
            else "nothing is known of the dataset's rows yet: open it on the Data page."
        )
    return said
