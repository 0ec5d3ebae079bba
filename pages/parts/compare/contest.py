"""Which of several runs came out best, in a sentence, by stated rules.

Only finished runs with an eval loss take part, and only the loss of the adapter that was kept counts. Losses less than
LEVEL apart are called level: another seed moves them by as much. Where the rows that judged them differ (other data,
another split), the sentence says so: such losses cannot be compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pages.parts.compare import dossier
from pages.parts.compare.dossier import Dossier, Value

LEVEL = 0.01
"""Share of the higher loss."""
NAMED = 3
"""So many differing settings are named; more of them explain nothing."""


@dataclass(frozen=True)
class Verdict:
    """`kind` is none (too few to tell), level or ahead."""

    kind: str
    best: Dossier | None = None
    second: Dossier | None = None
    lead: float = 0.0
    """How far the best lies below the second, as a share of the second's loss."""
    changed: tuple[tuple[str, Value, Value], ...] = ()
    """(JSON pointer, value of the best, value of the second), at most NAMED."""
    more_changed: int = 0
    other_judge: bool = False
    other_data: bool = False
    """They were trained on different rows."""


def judge(dossiers: Sequence[Dossier]) -> Verdict:
    ranked = [each for each in dossier.by_eval(dossiers) if each.eval_loss is not None]
    if len(ranked) < 2:
        return Verdict("none")
    best, second = ranked[0], ranked[1]
    low, high = best.eval_loss or 0.0, second.eval_loss or 0.0
    lead = (high - low) / high if high > 0 else 0.0
    rows = dossier.differing([best, second], "settings")
    changed = tuple((name, values[0], values[1]) for name, values in rows)
    return Verdict(
        "level" if lead < LEVEL else "ahead",
        best,
        second,
        lead,
        changed[:NAMED],
        max(0, len(changed) - NAMED),
        not dossier.same_judge(ranked),
        best.data.get("version") != second.data.get("version"),
    )
