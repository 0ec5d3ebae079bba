"""What a training knows of its own course, and carries over a resume: counts, the best evaluation, guards.

It lies in each checkpoint as progress.json, under the manifest's hashes. Without torch, so that its rules are tested
in milliseconds.
"""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spool.protocol import durable
from spool.protocol.training import EarlyStopping

FILE = "progress.json"


@dataclass
class Divergence:
    """Sees that a loss has run away though it is still a number.

    The loss is smoothed over SPAN logged steps and compared with the best it had been: so many times above that, for
    SPAN logged steps in a row, is diverged. Why this does not trip on the noise of tiny datasets: a mean over 50
    rows moves by a tenth of the rows' own spread; a row learnt by heart (0.01) that is missed once (2.0) moves it by
    0.04; and a best below FLOOR (1 nat a token, where the right token has still a chance of 37 %) counts as FLOOR. A
    run must so be worse than 3 nats a token (5 %) for some fifty steps after having been three times better.
    It cannot trip before step 2 x SPAN; shorter runs lose little.
    """

    SPAN = 50
    FLOOR = 1.0

    rows: int = 0
    smoothed: float = 0.0
    best: float | None = None
    above: int = 0

    def add(self, loss: float, factor: float) -> bool:
        """Takes one logged loss; True once the run has diverged."""
        self.rows += 1
        self.smoothed += (loss - self.smoothed) / min(self.rows, self.SPAN)
        if self.rows < self.SPAN:
            return False
        if self.best is None or self.smoothed < self.best:
            self.best = self.smoothed
        self.above = self.above + 1 if self.smoothed > factor * max(self.best, self.FLOOR) else 0
        return self.above >= self.SPAN


@dataclass
class Course:
    """What has been counted and decided so far; `trained_s` and `tokens` are those of all attempts."""

    tokens: int = 0
    trained_s: float = 0.0
    step_s: float | None = None
    """Seconds a step takes, smoothed."""
    best: tuple[float, int] | None = None
    """(eval loss, step) of the best evaluation."""
    bad_evaluations: int = 0
    last_evaluation: tuple[float, int] | None = None
    owes_evaluation: bool = False
    """A stop came when this step's evaluation was due: it is made up for before the next step."""
    ended_early: str | None = None
    divergence: Divergence = field(default_factory=Divergence)

    def evaluated(self, loss: float, step: int, stopping: EarlyStopping | None) -> bool:
        """Takes an evaluation; True where it is the best so far. Sets `ended_early` when patience is at its end."""
        self.owes_evaluation = False
        self.last_evaluation = (loss, step)
        if stopping is None:
            return False
        if math.isfinite(loss) and (self.best is None or loss < self.best[0] - stopping.min_delta):
            self.best, self.bad_evaluations = (loss, step), 0
            return True
        self.bad_evaluations += 1
        if self.bad_evaluations >= stopping.patience:
            self.ended_early = f"the eval loss has not fallen for {stopping.patience} evaluations"
        return False

    def write(self, folder: Path) -> None:
        """Into a checkpoint, before its manifest, which sees to durability."""
        durable.write_unsynced(folder / FILE, durable.to_bytes({"v": 1, **asdict(self)}))

    @classmethod
    def read(cls, folder: Path) -> "Course":
        """Of a checkpoint that has verified. Floats come back as they were, bit for bit."""
        document: dict[str, Any] = durable.read_json(folder / FILE) or {}
        document.pop("v", None)
        for name in ("best", "last_evaluation"):
            document[name] = tuple(document[name]) if document.get(name) else None
        return cls(**{**document, "divergence": Divergence(**document.get("divergence", {}))})
