"""Energy that the card has used, from its power over time as metrics.jsonl has it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

LONGEST_GAP_S = 120.0
"""Between two rows; what is more is no training but a stop, an evaluation or a night."""

Numbers = np.ndarray[Any, Any] | Sequence[float]


def used_wh(t: Numbers, watts: Numbers, attempt: Numbers) -> float:
    """Trapezia between rows of one attempt; gaps longer than LONGEST_GAP_S count nothing, as nothing is known.

    Args:
        t: seconds; the three of equal length, in the order in which they were written.
    """
    took, power = np.diff(np.asarray(t, "f8")), np.asarray(watts, "f8")
    counts = (np.diff(attempt) == 0) & (took > 0) & (took <= LONGEST_GAP_S)
    return float(np.sum(np.where(counts, took * (power[1:] + power[:-1]) / 2, 0.0)) / 3600)


def of_rows(rows: Sequence[dict[str, Any]]) -> float | None:
    """The same of rows of metrics.jsonl, every attempt's; None without a reading."""
    known = [row for row in rows if row.get("gpu_power_w") is not None and row.get("t") is not None]
    if not known:
        return None
    return used_wh(*([row[name] for row in known] for name in ("t", "gpu_power_w", "attempt")))
