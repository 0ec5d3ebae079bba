"""Whether a job fits this machine, and what would: computed by the formulas, never canned."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from spool.forecast import costs, exports, learned
from spool.forecast.costs import Plan
from spool.forecast.history import Past
from spool.forecast.machine import Machine
from spool.forecast.shapes import Shape
from spool.protocol.errors import Problem

SHORTEST_TOKENS = 256
SYSTEM_BYTES = 1_000_000_000
"""Memory that the machine's other programs need."""


@dataclass(frozen=True)
class Need:
    """Bytes that a training needs: of the card (None on a CPU), and of memory."""

    gpu_bytes: int | None
    memory_bytes: int

    @classmethod
    def of(cls, shape: Shape, plan: Plan, past: list[Past], device: str) -> "Need":
        peak = costs.peak_bytes(shape, plan) * learned.peak(shape, plan, past, device).middle
        if not plan.on_gpu:
            return cls(None, int(peak))
        beside = costs.LIBRARIES_GPU_BYTES + shape.parameters * 2 * 0.5
        return cls(int(peak * 1.05) + costs.CONTEXT_BYTES, int(beside))


def judge(
    shape: Shape, plan: Plan, past: list[Past], here: Machine, disk_bytes: int, min_free_gb: float
) -> tuple[list[Problem], dict[str, Any]]:
    """(what does not fit, JSON pointer -> value with which memory would suffice)."""
    problems: list[Problem] = []
    changed: dict[str, Any] = {}
    room, kind = _room(plan, here)
    needed = _needed(Need.of(shape, plan, past, here.device))
    if room is not None and needed > room:
        says, changed = _smaller(shape, plan, past, here.device, room)
        what = f"the GPU ({here.gpu})" if plan.on_gpu else "this machine's memory"
        message = f"it needs about {_gb(needed)}, and {what} has {_gb(room)}."
        problems.append(Problem(kind, message, says, next(iter(changed), "/model")))
    free = here.disk_free_bytes
    if free is not None and disk_bytes + min_free_gb * 1e9 > free:
        message = (
            f"it needs about {_gb(disk_bytes)} of disk beside the {min_free_gb:g} GB kept free, and {_gb(free)} are."
        )
        hint = "Delete checkpoints or exports that nobody needs (System page, Models page)."
        if plan.merged:
            lean = int(disk_bytes - exports.disk_bytes(plan.exports, shape.parameters * 2))
            hint = f"With the adapter alone it needs {_gb(lean)}. {hint}"
        problems.append(Problem("too_little_disk", message, hint, "/export" if plan.merged else ""))
    return problems, changed


def _room(plan: Plan, here: Machine) -> tuple[int | None, str]:
    if plan.on_gpu:
        return here.gpu_bytes, "too_little_gpu_memory"
    return (here.memory_bytes - SYSTEM_BYTES if here.memory_bytes else None), "too_little_memory"


def _needed(need: Need) -> int:
    return need.memory_bytes if need.gpu_bytes is None else need.gpu_bytes


def _smaller(shape: Shape, plan: Plan, past: list[Past], device: str, room: int) -> tuple[str, dict[str, Any]]:
    """(a sentence, the changes) of the gentlest way to fit."""
    for other in _gentler(plan):
        needed = _needed(Need.of(shape, other, past, device))
        if needed <= room:
            return f"It fits with {_words(plan, other)}: about {_gb(needed)}.", _changes(plan, other)
    return "Nothing makes it fit: choose a smaller base model.", {}


def _gentler(plan: Plan) -> Iterator[Plan]:
    """Other ways to the same end, the one that changes least first: what comes later includes what came before."""
    for start in _with_precisions(plan):
        yield start
        for batch in (d for d in range(plan.batch - 1, 0, -1) if plan.batch % d == 0):
            yield start.with_batch(batch)
        small = start.with_batch(1)
        tokens = plan.longest_tokens / 2
        while tokens >= SHORTEST_TOKENS:
            yield replace(small, longest_tokens=tokens, mean_tokens=min(small.mean_tokens, tokens))
            tokens /= 2


def _with_precisions(plan: Plan) -> Iterator[Plan]:
    yield plan
    if not plan.checkpointing:
        plan = replace(plan, checkpointing=True)
        yield plan
    if plan.on_gpu and plan.precision != "4bit":
        yield replace(plan, precision="4bit")


def _changes(plan: Plan, other: Plan) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    if other.precision != plan.precision:
        changed["/precision"] = other.precision
    if other.checkpointing != plan.checkpointing:
        changed["/train/gradient_checkpointing"] = True
    if other.batch != plan.batch:
        changed |= {"/train/batch_size": other.batch, "/train/gradient_accumulation": other.accumulation}
    if other.longest_tokens != plan.longest_tokens:
        changed["/data/max_length"] = int(other.longest_tokens)
    return changed


def _words(plan: Plan, other: Plan) -> str:
    said = []
    if other.precision != plan.precision:
        said.append("the base in 4 bit (very slightly less exact)")
    if other.checkpointing != plan.checkpointing:
        said.append("gradient checkpointing (slower, the same result)")
    if other.batch != plan.batch:
        rows = "1 row" if other.batch == 1 else f"{other.batch} rows"
        said.append(f"{rows} at once instead of {plan.batch} (the same result, only slower)")
    if other.longest_tokens != plan.longest_tokens:
        said.append(f"rows cut at {int(other.longest_tokens):,} tokens")
    return ", ".join(said)


def _gb(count: float) -> str:
    return f"{count / 1e9:,.1f} GB"
