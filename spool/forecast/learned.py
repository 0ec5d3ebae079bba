"""How far the formulas are off on this server: the ratio of what was seen to what they say, of the jobs most alike."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from spool.forecast import costs
from spool.forecast.costs import Plan
from spool.forecast.history import Past
from spool.forecast.shapes import Shape

NEAREST = 8
FAR = 4.0
"""Jobs farther than this teach nothing: another size by a factor of fifty."""
GUESS_SPREAD = 3.0
"""Without a job to learn from the truth may lie so many times higher or lower."""


@dataclass(frozen=True)
class Factor:
    """What a formula is to be multiplied with, and the range that it was seen in, over so many jobs."""

    middle: float = 1.0
    low: float = 1 / GUESS_SPREAD
    high: float = GUESS_SPREAD
    jobs: int = 0


def distance(shape: Shape, plan: Plan, past: Past) -> float:
    """How unlike two jobs are, 0 being alike: in natural logarithms of their sizes."""
    apart = abs(math.log(shape.parameters / past.shape.parameters))
    apart += 0.5 * abs(math.log(plan.batch_tokens / past.plan.batch_tokens))
    apart += 0.5 * abs(math.log(plan.batch / past.plan.batch))
    apart += 0.5 * (plan.precision != past.plan.precision) + 0.4 * (plan.checkpointing != past.plan.checkpointing)
    return apart + 0.1 * abs(math.log(plan.rank / past.plan.rank))


def step(shape: Shape, plan: Plan, past: Iterable[Past], device: str, cores: int) -> Factor:
    """Of `costs.step_s`, from jobs on the same device."""

    def ratio(each: Past) -> float | None:
        said = costs.step_s(each.shape, each.plan, device, cores)
        return each.step_s / said if each.step_s else None

    return _factor(shape, plan, past, device, ratio)


def peak(shape: Shape, plan: Plan, past: Iterable[Past], device: str) -> Factor:
    """Of `costs.peak_bytes`."""

    def ratio(each: Past) -> float | None:
        seen = each.peak_gpu_bytes if plan.on_gpu else each.memory_bytes
        return seen / costs.peak_bytes(each.shape, each.plan) if seen else None

    return _factor(shape, plan, past, device, ratio, guess=1.35)


def overhead(shape: Shape, plan: Plan, past: Iterable[Past], device: str, cores: int) -> Factor:
    """Of `costs.overhead_s`: what was neither a step nor an evaluation."""

    def ratio(each: Past) -> float | None:
        if each.wall_s is None or not each.step_s:
            return None
        slower = each.step_s / costs.step_s(each.shape, each.plan, device, cores)
        busy = each.plan.steps * each.step_s
        busy += slower * costs.evaluations_s(each.shape, each.plan, device, cores)
        return max(0.05, (each.wall_s - busy) / costs.overhead_s(each.shape, each.plan))

    return _factor(shape, plan, past, device, ratio, guess=2.0)


def _factor(
    shape: Shape,
    plan: Plan,
    past: Iterable[Past],
    device: str,
    ratio: Callable[[Past], float | None],
    guess: float = GUESS_SPREAD,
) -> Factor:
    """The weighted median of the ratios of the nearest jobs, with a range that is wider where there are few, or far."""
    alike = sorted(
        (
            (distance(shape, plan, each), number, seen)
            for number, each in enumerate(past)
            if each.device == device and (seen := ratio(each)) is not None
        )
    )
    nearest = [(apart, seen) for apart, _, seen in alike[:NEAREST] if apart <= FAR]
    if not nearest:
        return Factor(1.0, 1 / guess, guess)
    weighted = sorted((seen, 1 / (0.25 + apart) ** 2) for apart, seen in nearest)
    least = 1.1 + 0.5 / len(nearest) + 0.25 * min(1.0, nearest[0][0])
    middle = _quantile(weighted, 0.5)
    low, high = min(_quantile(weighted, 0.1), middle / least), max(_quantile(weighted, 0.9), middle * least)
    return Factor(middle, low, high, len(nearest))


def _quantile(weighted: list[tuple[float, float]], share: float) -> float:
    """The value below which a share of the weight lies; the values are sorted."""
    goal, passed = share * sum(weight for _, weight in weighted), 0.0
    for value, weight in weighted:
        passed += weight
        if passed >= goal:
            return value
    return weighted[-1][0]
