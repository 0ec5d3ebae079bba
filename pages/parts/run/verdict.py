"""What a run's curves mean, in one or two plain sentences, by rules that are written down here.

The rules look at the losses of the run so far (of an ended one: of the whole run), in this order; the first that holds
is said. A run that is done is told how much better it ended, before that.

- not_finite: a loss was NaN or infinite. Nothing that follows means anything.
- diverging: the mean of the last DIVERGED_ROWS losses is over DIVERGED times the lowest such mean, and by DIVERGED_BY
  nats. The runner ends a run at 3 times over 50 rows; this says it earlier. DIVERGED_BY keeps a loss near 0 quiet,
  whose ratios mean little.
- early: fewer than EARLY_ROWS losses. Below that the noise of single batches is as large as any trend.
- overfitting: RISES or more evaluations since the best one, and the newest is above it by OVERFIT of it. One or two
  worse evaluations are noise, three are what early stopping waits for; less than a hundredth nobody sees in answers.
- flat: of a stretch of at least FLAT_FROM of the run, up to its end, the second half is not better than the first by
  FLAT of the whole fall so far, or not by twice the standard error of that difference. A trend that the noise hides
  cannot be used either; a quarter of the run is too long for a pause.
- improving: none of these.

The longest flat stretch is said, in steps of FLAT_STEP of the run.
"""

from dataclasses import dataclass, field

import numpy as np

from pages.parts import quantities
from pages.parts.run.bulk import Numbers
from pages.parts.run.columns import Columns
from pages.parts.texts import t

DIVERGED_ROWS, DIVERGED, DIVERGED_BY = 20, 1.5, 0.5
EARLY_ROWS = 20
RISES, OVERFIT = 3, 0.01
FLAT_FROM, FLAT, FLAT_STEP = 0.25, 0.02, 0.05
BLOCKS = 2000
"""Longer runs are judged by the means of so many stretches; their spread tells their error all the same."""


@dataclass(frozen=True)
class Finding:
    """One sentence: `rule` names it in pages/texts/*/verdict.toml; `tone` is good, neutral or bad."""

    rule: str
    tone: str = "neutral"
    values: dict[str, float] = field(default_factory=dict)


def judge(columns: Columns, state: str = "running") -> list[Finding]:
    """The sentences for a run in some state, at most two; none where nothing was measured."""
    losses = columns.at("loss", columns.rows("loss"))
    tested = columns.rows("eval_loss")
    steps, evals = columns.at("step", tested), columns.at("eval_loss", tested)
    bad = [int(columns.columns["step"][row]) for row, name, _ in columns.nonfinite if name in ("loss", "grad_norm")]
    if not losses.size and not bad:
        return []
    found = [_first(losses, steps, evals, bad)]
    if state != "done":
        return found
    if found[0].rule == "early":
        found = []
    elif found[0].rule in ("flat", "improving"):
        found = [Finding(f"{found[0].rule}_done", "neutral", found[0].values)]
    ended = _ended(losses, evals)
    return [*([ended] if ended else []), *found]


def words(found: Finding) -> str:
    """The sentence in the reader's language. Markdown, without anything that people wrote."""
    told = {
        name: quantities.percent(value)
        if name in ("share", "lower")
        else quantities.count(value)
        if name == "step"
        else quantities.loss(value)
        for name, value in found.values.items()
        if name != "count"
    }
    return t(f"verdict.{found.rule}", count=found.values.get("count"), **told)


def _first(losses: Numbers, steps: Numbers, evals: Numbers, bad: list[int]) -> Finding:
    if bad:
        return Finding("not_finite", "bad", {"step": bad[0]})
    diverging = _diverging(losses)
    if diverging:
        return diverging
    if losses.size < EARLY_ROWS:
        return Finding("early")
    overfitting = _overfitting(steps, evals)
    if overfitting:
        return overfitting
    share = flat_share(losses)
    if share:
        return Finding("flat", "neutral", {"share": share})
    quarter = max(1, losses.size // 4)
    before, now = losses[-2 * quarter : -quarter].mean(), losses[-quarter:].mean()
    return Finding("improving", "good", {"before": float(before), "now": float(now)})


def _diverging(losses: Numbers) -> Finding | None:
    if losses.size < 2 * DIVERGED_ROWS:
        return None
    sums = np.cumsum(np.insert(losses, 0, 0.0))
    means = (sums[DIVERGED_ROWS:] - sums[:-DIVERGED_ROWS]) / DIVERGED_ROWS
    lowest, now = float(means.min()), float(means[-1])
    if now > DIVERGED * lowest and now > lowest + DIVERGED_BY:
        return Finding("diverging", "bad", {"best": lowest, "now": now})
    return None


def _overfitting(steps: Numbers, evals: Numbers) -> Finding | None:
    if not evals.size:
        return None
    at = int(evals.argmin())
    since = evals.size - 1 - at
    if since >= RISES and evals[-1] > (1 + OVERFIT) * evals[at]:
        return Finding("overfitting", "bad", {"count": since, "best": float(evals[at]), "step": float(steps[at])})
    return None


def flat_share(losses: Numbers) -> float:
    """How much of the run's end does not fall any more, 0 where it still does or where that cannot be said.

    The fall so far is from the mean of the run's first twentieth to that of its lowest twentieth.
    """
    values = _blocks(losses)
    if values.size < EARLY_ROWS:
        return 0.0
    part = max(2, values.size // 20)
    begins = np.arange(values.size // part) * part
    means = np.add.reduceat(values[: begins.size * part], begins) / part
    fall = float(means[0] - means.min())
    for share in np.arange(1 - FLAT_STEP, FLAT_FROM - 1e-9, -FLAT_STEP):
        stretch = values[-round(float(share) * values.size) :]
        first, second = stretch[: stretch.size // 2], stretch[stretch.size // 2 :]
        error = np.sqrt(first.var(ddof=1) / first.size + second.var(ddof=1) / second.size)
        if first.mean() - second.mean() < max(FLAT * fall, 2 * float(error)):
            return float(round(share, 2))
    return 0.0


def _blocks(values: Numbers) -> Numbers:
    if values.size <= BLOCKS:
        return values
    begins = np.arange(BLOCKS) * values.size // BLOCKS
    means: Numbers = np.add.reduceat(values, begins) / np.diff(np.append(begins, values.size))
    return means


def _ended(losses: Numbers, evals: Numbers) -> Finding | None:
    """How much better it ended than it began: by the evaluations where there are two, else by the training loss."""
    if evals.size >= 2:
        first, last, rule = float(evals[0]), float(evals[-1]), "ended_eval"
    elif losses.size >= EARLY_ROWS:
        part = max(1, losses.size // 20)
        first, last, rule = float(losses[:part].mean()), float(losses[-part:].mean()), "ended_loss"
    else:
        return None
    if last >= first:
        return Finding("ended_worse", "bad", {"first": first, "last": last})
    return Finding(rule, "good", {"first": first, "last": last, "lower": (first - last) / first})
