"""Outcomes that a training can aim at: which settings each one fills in, by the size of the data, and why.

A preset is a file under pages/presets: numbers and rules; its words are texts (`presets.NAME.title`, `presets.why.*`).
To add one: copy a file, change the numbers, say where they come from, and write its words in pages/texts.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pages.parts import quantities
from pages.parts.texts import t
from spool.data.prepare import eval_rows

FOLDER = Path(__file__).resolve().parents[2] / "presets"
FIRST = "format"
OWN = "own"
"""Presets nothing: for those who know what they do, and for forms that were filled in from a spec."""

EPOCHS, BATCH, SHARE = "/train/epochs", "/train/effective_batch", "/data/eval_fraction"
USUAL_BATCH = 8


@dataclass(frozen=True)
class Preset:
    """`rules` has a table for each setting, by its JSON pointer; `suits` are the formats of data it is made for."""

    name: str
    icon: str
    suits: tuple[str, ...]
    rules: dict[str, dict[str, Any]]

    @property
    def title(self) -> str:
        return t(f"presets.{self.name}.title")

    @property
    def says(self) -> str:
        """What it is for, in a sentence or two."""
        return t(f"presets.{self.name}.says")

    @property
    def example(self) -> str:
        return t(f"presets.{self.name}.example")


@dataclass(frozen=True)
class Size:
    """Of the data: rows that can be trained on, and about how many tokens they have; None where not known (yet)."""

    rows: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Choice:
    """A value as the job spec takes it, and one sentence on why it is that."""

    value: Any
    why: str


@cache
def all_presets() -> dict[str, Preset]:
    """By name, in the order in which they are offered."""
    found = [(tomllib.loads(path.read_text("utf-8")), path.stem) for path in FOLDER.glob("*.toml")]
    found.sort(key=lambda each: each[0]["order"])
    return {
        name: Preset(name, f":material/{told['icon']}:", tuple(told["suits"]), _rules(told)) for told, name in found
    }


def _rules(told: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {pointer: rule for pointer, rule in told.items() if pointer.startswith("/")}


def choose(preset: Preset, size: Size, said: Mapping[str, Any] | None = None) -> dict[str, Choice]:
    """What a preset fills in for data of a size, by JSON pointer.

    Args:
        said: what somebody has set by hand; what depends on it follows (epochs on the rows a step, for one).
    """
    chosen: dict[str, Choice] = {}
    for pointer, rule in preset.rules.items():
        if "value" in rule:
            chosen[pointer] = Choice(rule["value"], _why(rule["why"], rule["value"], size))
        elif rule["rule"] == "by_size":
            found = _by_size(rule, size)
            if found:
                chosen[pointer] = found
    if EPOCHS in preset.rules:
        settled = {pointer: choice.value for pointer, choice in chosen.items()} | dict(said or {})
        chosen[EPOCHS] = _epochs(preset.rules[EPOCHS], size, settled)
    return chosen


def steps_of(rows: int, batch: int, epochs: float) -> int:
    """Steps of a training on so many rows."""
    return max(1, int(math.ceil(rows / batch) * epochs))


def _by_size(rule: Mapping[str, Any], size: Size) -> Choice | None:
    """The value of the first size that is not exceeded, or None where the size is not known."""
    measured = getattr(size, rule["by"])
    if measured is None:
        return None
    place = sum(measured > limit for limit in rule["up_to"])
    value = rule["values"][place]
    return Choice(value, _why(rule["why"][place], value, size))


def _epochs(rule: Mapping[str, Any], size: Size, settled: Mapping[str, Any]) -> Choice:
    """As many passes as give about `steps`, from `fewest` to `most`; fewer than `fewest` beyond `enough_steps`."""
    if not size.rows:
        return Choice(3, t("presets.why.epochs_unknown"))
    batch = int(settled.get(BATCH, USUAL_BATCH))
    rows = max(1, size.rows - eval_rows(size.rows, settled.get(SHARE, "auto")))
    per_epoch = math.ceil(rows / batch)
    wanted = max(1, math.floor(rule["steps"] / per_epoch + 0.5))
    epochs, case = min(max(wanted, rule["fewest"]), rule["most"]), "epochs"
    if wanted > rule["most"]:
        case = "epochs_most"
    elif wanted < epochs and epochs * per_epoch > rule["enough_steps"]:
        epochs, case = max(1, rule["enough_steps"] // per_epoch), "epochs_many"
    counted = quantities.count
    steps = counted(steps_of(rows, batch, epochs))
    return Choice(epochs, t(f"presets.why.{case}", count=epochs, rows=counted(rows), steps=steps))


def _why(key: str, value: Any, size: Size) -> str:
    return t(f"presets.why.{key}", value=value, rows=quantities.count(size.rows), tokens=quantities.count(size.tokens))
