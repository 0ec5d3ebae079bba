"""What to change so that a failed job may go through: the smallest change, told field by field, as a spec to drop.

For memory: what its check has found to fit, where it foresaw that the job would not; else fewer rows at once with the
same effective batch, then activations computed twice where that was switched off, then shorter rows, then a 4-bit base.
For divergence: a third of the learning rate. Where the cause lay outside of the job (disk, network, card, a stall) the
same spec is offered again. What must be corrected by hand (data, model, spec) gets no suggestion. A changed spec that
one of the jobs before it had already is never offered.
"""

import json
import math
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any

from spool.protocol import dropbox, durable, jobs, metrics
from spool.protocol.dropbox import dropped_spec
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.jobs import Job
from spool.protocol.spec import load
from spool.protocol.training import Train, batches
from spool.protocol.ulid import derived, mint

SHORTEST_TOKENS = 256
"""Below this a cut row mostly loses its answer."""

LOWEST_RATE = 1e-6
USUAL_RATE = 2e-4
USUAL_TOKENS = 2048
"""What `auto` stands for where the job ended before it was written down."""

FORESEEN = "Its check foresaw that the memory would not do, and that it would with this."

ANCESTORS = 50

AS_IT_IS = {
    "disk_full": "Nothing in the job needs to change: free some space first.",
    "disk_read_only": "Nothing in the job needs to change: the disk must be writable first.",
    "disk_error": "Nothing in the job needs to change: the disk must be in order first.",
    "no_network": "Nothing in the job needs to change: it needs the network.",
    "hub_busy": "Nothing in the job needs to change: the hub was busy.",
    "token_rejected": "Nothing in the job needs to change: the runner needs a valid HF_TOKEN first.",
    "no_token": "Nothing in the job needs to change: the runner needs an HF_TOKEN that may write first.",
    "model_gated": "Nothing in the job needs to change: the model's terms must be accepted first.",
    "certificate_refused": "Nothing in the job needs to change: the runner must know the proxy's certificates first.",
    "shared_memory": "Nothing in the job needs to change: /dev/shm must be larger first.",
    "gpu_lost": "Nothing in the job needs to change: the card must be back first.",
    "gpu_busy": "Nothing in the job needs to change: the card must be free first.",
    "no_gpu": "Nothing in the job needs to change: the card must be seen first.",
    "driver_changed": "Nothing in the job needs to change: the machine must be rebooted first.",
    "driver_too_old": "Nothing in the job needs to change: the driver must be updated first.",
    "permission_denied": "Nothing in the job needs to change: the permissions must be corrected first.",
    "too_many_open_files": "Nothing in the job needs to change: the limit must be raised first.",
    "no_compiler": "Nothing in the job needs to change: a C compiler must be installed first.",
}
"""The cause lies outside of the job and is cured there: the same spec is offered each time."""

ONCE_MORE = {
    "stalled": "A stall is often an accident of the moment: the same job once more.",
    "gpu_fault": "A fault of the card is often an accident of the moment: the same job once more.",
    "version_mismatch": "A new job begins at step 0 with the versions that are installed now.",
    "checkpoint_damaged": "A new job begins at step 0 and does not need the damaged checkpoint.",
}
"""The same spec is offered once: a second time it would only repeat itself."""


@dataclass(frozen=True)
class Change:
    """One field that differs: `before` is what it was in that run, with every auto resolved."""

    pointer: str
    before: Any
    after: Any
    why: str


@dataclass(frozen=True)
class Suggestion:
    """A spec as a person would drop it, what differs from the failed job's, and why in a sentence."""

    spec: dict[str, Any]
    sentence: str
    changes: list[Change] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def suggest(
    spec: Mapping[str, Any],
    error: Mapping[str, Any],
    resolved: Mapping[str, Any] | None = None,
    tokens: Mapping[str, Any] | None = None,
    tried: Iterable[Mapping[str, Any]] = (),
    fits_with: Mapping[str, Any] | None = None,
) -> Suggestion | None:
    """The next thing to try, or None where nothing smaller is left or the job must be corrected by hand.

    Args:
        spec: as it was dropped; its `retry_of` is that of the job before, and the caller sets the new one.
        error: what ended the job; its code decides.
        resolved: runs/ID/spec.json, with what each auto became.
        tokens: lengths of the job's rows (p95, max), where its data was read.
        tried: the dropped specs of the jobs that this one repeats.
        fits_with: JSON pointer -> value with which it would fit by the forecast, where that said it would not.
    """
    code = str(error.get("code") or "")
    dropped = _plain(spec)
    if code in AS_IT_IS:
        return Suggestion(dropped, AS_IT_IS[code])
    before = [_same(each) for each in tried]
    if code in ONCE_MORE:
        return None if _same(dropped) in before else Suggestion(dropped, ONCE_MORE[code])
    rungs = {"out_of_memory": _less_memory, "diverged": _lower_rate}.get(code)
    if rungs is None or dropped.get("kind") == "export":
        return None  # an export has no setting that makes it smaller
    if dropped.get("kind") == "generate":
        rungs = _smaller_base
    settings = _settings(dropped, resolved)
    changed: dict[str, Change] = {}
    foreseen = [
        Change(pointer, _at(settings, pointer), value, FORESEEN)
        for pointer, value in (fits_with or {}).items()
        if _at(settings, pointer) not in (None, value)
    ]
    for _ in range(64):
        changes, foreseen = foreseen or rungs(settings, tokens or {}), []
        if not changes:
            return None
        for change in changes:
            first = changed.get(change.pointer)
            changed[change.pointer] = Change(
                change.pointer, first.before if first else change.before, change.after, change.why
            )
            _put(settings, change.pointer, change.after)
            _put(dropped, change.pointer, change.after)
        if _same(dropped) not in before:
            return Suggestion(dropped, _sentence(list(changed.values())), list(changed.values()))
    return None


def suggestion(home: Home, job: Job) -> Suggestion | None:
    """The same for a job of a data home; `retry_of` is set in its spec."""
    if job.state != "failed" or not job.error or (job.error.get("code") == "out_of_memory" and not job.attempts):
        return None  # the check of the data ran out of memory: no setting of the training helps
    try:
        spec = dropped_spec(home, job.id)
    except FinetunerError:
        return None
    run = home.run(job.id)
    tokens = _read(run.data / "check.json").get("tokens")
    tokens = tokens if isinstance(tokens, dict) else {}
    try:
        foreseen = unfit(home, job.id) if job.error.get("code") == "out_of_memory" else []
        fits_with = {pointer: value for each in foreseen for pointer, value in each["fits_with"].items()}
        found = suggest(spec, job.error, _read(run.spec), tokens, _ancestors(home, spec), fits_with)
    except ValueError:  # a spec of another release
        return None
    return None if found is None else Suggestion({**found.spec, "retry_of": job.id}, found.sentence, found.changes)


def unfit(home: Home, job_id: str) -> list[dict[str, Any]]:
    """What a job's check has foreseen not to fit this machine: `words`, and `fits_with` (runner/checking.py)."""
    rows = metrics.read(home.run(job_id).events)
    return [row for row in rows if row.get("event") == "unfit" and isinstance(row.get("fits_with"), dict)]


def submission_id(job_id: str) -> str:
    """Under which a job's suggestion is submitted: a second click, window or call is the same job."""
    return f"suggested-for-{job_id}"


def submit(home: Home, job_id: str, made: Suggestion) -> str:
    """Drops the suggestion for a job as a new job and gives its id; what was dropped before is not dropped again.

    The id follows from the failed job's, so that this holds before the runner has taken the drop, and without one.
    """
    fresh = submitted(home, job_id)
    if fresh is None:
        fresh = mint() if (home.rejected / _next_id(job_id)).exists() else _next_id(job_id)
        dropbox.submit(home, {**made.spec, "submission_id": submission_id(job_id)}, fresh)
    return fresh


def submitted(home: Home, job_id: str) -> str | None:
    """The job that a job's suggestion became, or None where it was not submitted, or not accepted."""
    for fresh in (dropbox.submitted(home, submission_id(job_id)), _next_id(job_id)):
        try:
            if fresh and jobs.get_job(home, fresh).state != "rejected":
                return fresh
        except FinetunerError:
            continue
    return None


def _next_id(job_id: str) -> str:
    return derived(job_id, submission_id(job_id))


def _less_memory(settings: dict[str, Any], tokens: Mapping[str, Any]) -> list[Change]:
    """One rung down: the cheapest of what still can shrink."""
    train, data = settings["train"], settings["data"]
    size, accumulation = train["batch_size"], train["gradient_accumulation"]
    if size > 1 and not train.get("packed"):
        rows = size * accumulation
        smaller = max(each for each in range(1, size // 2 + 1) if rows % each == 0)
        why = f"Fewer rows at once need less memory; each step still learns from {rows} rows."
        return [
            Change("/train/batch_size", size, smaller, why),
            Change("/train/gradient_accumulation", accumulation, rows // smaller, "Keeps the rows a step the same."),
        ]
    if train["gradient_checkpointing"] is False and train.get("asked_off"):
        why = "Computes activations twice instead of keeping them; what is learned is the same."
        return [Change("/train/gradient_checkpointing", False, True, why)]
    shorter = _shorter(data["max_length"], tokens)
    if shorter is not None:
        why = f"Shorter rows need less memory; what is beyond {shorter} tokens of a row is cut."
        return [Change("/data/max_length", data["max_length"], shorter, why)]
    if settings["precision"] != "4bit":
        why = "The base takes a quarter of the memory; training is slower and very slightly less exact."
        return [Change("/precision", settings["precision"], "4bit", why)]
    return []


def _smaller_base(settings: dict[str, Any], tokens: Mapping[str, Any]) -> list[Change]:
    """What is left where a model only answers: batches grow smaller by themselves."""
    if settings["precision"] == "4bit":
        return []
    why = "The base takes a quarter of the memory; answers are slower and very slightly less exact."
    return [Change("/precision", settings["precision"], "4bit", why)]


def _shorter(limit: int, tokens: Mapping[str, Any]) -> int | None:
    """The next shorter limit in tokens, or None at the floor. Where few rows are long, only those are cut."""
    longest, p95 = tokens.get("max"), tokens.get("p95")
    now = min(limit, longest) if isinstance(longest, int) and longest > 0 else limit
    half = max(SHORTEST_TOKENS, now // 2)
    if isinstance(p95, int | float) and half < p95 < now * 0.75:
        half = math.ceil(p95 / 8) * 8
    return half if half < now else None


def _lower_rate(settings: dict[str, Any], tokens: Mapping[str, Any]) -> list[Change]:
    rate = settings["train"]["learning_rate"]
    lower = float(f"{rate / 3:.1e}")
    if lower < LOWEST_RATE:
        return []
    why = "Smaller steps do not overshoot; a run that diverged at one rate is mostly stable at a third of it."
    return [Change("/train/learning_rate", rate, lower, why)]


def _settings(dropped: dict[str, Any], resolved: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings that a rung may change as they were in that run; an auto that never became one by what it may be."""
    parsed = load(dropped).to_json()
    document = dict(resolved or {})
    if parsed["kind"] == "generate":
        return {"precision": document.get("precision") or parsed["precision"]}
    train = {**parsed["train"], **(document.get("train") or {})}
    data = {**parsed["data"], **(document.get("data") or {})}
    names = ("effective_batch", "batch_size", "gradient_accumulation")
    size, accumulation = batches(Train(**{name: train[name] for name in names}))
    off = (dropped.get("train") or {}).get("gradient_checkpointing") is False
    return {
        "precision": document.get("precision") or parsed["precision"],
        "train": {
            "batch_size": size,
            "gradient_accumulation": accumulation,
            "gradient_checkpointing": train["gradient_checkpointing"],
            "asked_off": off,
            "packed": train["packing"] is True,  # such rows came one by one already
            "learning_rate": USUAL_RATE if train["learning_rate"] == "auto" else train["learning_rate"],
        },
        "data": {"max_length": USUAL_TOKENS if data["max_length"] == "auto" else data["max_length"]},
    }


def _sentence(changes: list[Change]) -> str:
    said = ", ".join(f"{change.pointer[1:].replace('/', '.')} {_value(change.after)}" for change in changes)
    return f"Retry with {said}. {changes[0].why}"


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that can be dropped anew."""
    return deepcopy({name: value for name, value in spec.items() if name not in ("submission_id", "retry_of")})


def _same(spec: Mapping[str, Any]) -> str:
    """What two specs have in common that would do the same, whoever dropped them and however they were written."""
    try:
        document = load(_plain(spec)).to_json()
    except ValueError:
        document = _plain(spec)
    for name in ("name", "priority", "submission_id", "retry_of"):
        document.pop(name, None)
    return json.dumps(document, sort_keys=True, default=str)


def _at(settings: Mapping[str, Any], pointer: str) -> Any:
    found: Any = settings
    for name in pointer.split("/")[1:]:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _put(document: dict[str, Any], pointer: str, value: Any) -> None:
    *parents, leaf = pointer.split("/")[1:]
    for parent in parents:
        document = document.setdefault(parent, {})
    document[leaf] = value


def _ancestors(home: Home, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The dropped specs of the jobs that this one repeats, newest first."""
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    job_id = spec.get("retry_of")
    while isinstance(job_id, str) and job_id not in seen and len(found) < ANCESTORS:
        seen.add(job_id)
        try:
            found.append(dropped_spec(home, job_id))
        except FinetunerError:
            break
        job_id = found[-1].get("retry_of")
    return found


def _read(path: Any) -> dict[str, Any]:
    try:
        document = durable.read_json(path)
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
