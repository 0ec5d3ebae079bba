"""Sample answers of a run: the same few prompts, answered at each evaluation, from samples.jsonl."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

LONGEST_TEXT = 4000


@dataclass(frozen=True)
class Answer:
    """What the model said at a step; `cut` where it was stopped by the limit of its length."""

    text: str
    cut: bool = False
    tokens: int | None = None


@dataclass
class Prompt:
    """One of the fixed prompts with its answers by step. `reference` is what its row of the data says, if any."""

    index: int
    text: str
    reference: str | None = None
    base: str | None = None
    by_step: dict[int, Answer] = field(default_factory=dict)

    def at(self, step: int) -> tuple[int, Answer] | None:
        """The newest answer at a step or before it."""
        before = [each for each in self.by_step if each <= step]
        return (max(before), self.by_step[max(before)]) if before else None


def collect(rows: Iterable[dict[str, Any]]) -> list[Prompt]:
    """The prompts in their order. Of a step that two attempts did, the later one's answer stands.

    Rows that are not as runner/samples.py writes them are passed over. A row without an answer tells the base's only.
    """
    found: dict[int, Prompt] = {}
    for row in rows:
        index, step, prompt = row.get("prompt_index"), row.get("step"), row.get("prompt")
        if not isinstance(index, int) or not isinstance(step, int) or prompt is None:
            continue
        known = found.setdefault(index, Prompt(index, _text(prompt)))
        known.reference = _text(row["reference"]) if row.get("reference") is not None else known.reference
        known.base = _text(row["base"]) if row.get("base") is not None else known.base
        if row.get("answer") is not None:
            tokens = row.get("tokens")
            cut = row.get("ended_by") == "length"
            known.by_step[step] = Answer(_text(row["answer"]), cut, tokens if isinstance(tokens, int) else None)
    return [found[index] for index in sorted(found)]


def steps(prompts: Iterable[Prompt]) -> list[int]:
    """At which steps something was answered."""
    return sorted({step for prompt in prompts for step in prompt.by_step})


def _text(value: object) -> str:
    """A prompt may be a text or a list of turns, of which the last one is shown."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    said = value if isinstance(value, str) else str(value or "")
    return said if len(said) <= LONGEST_TEXT else said[:LONGEST_TEXT] + " …"
