"""The words of an export's certificate.json, which the runner writes and the pages read."""

from dataclasses import dataclass

READY, SUSPECT = "ready", "suspect"
"""Verdicts: it answers like its adapter, or it failed a check."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool
    says: str
    measured: float | None = None
    limit: float | None = None
