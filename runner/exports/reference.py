"""What the adapter itself says, on its 16-bit base: what every export of it is held against.

32 prompts, of the rows that were kept for evaluation where there are any, of those that were learned from where none
were kept, and general ones where the rows are gone. To each the adapter answers greedily; beside the tokens stand the
probabilities of the likeliest at each place. Asked again it says the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from runner.exports.readers import Weights, read
from spool.data.judging import arrow_rows
from spool.data.judging.chat import Encoder
from spool.data.prepared import Prepared
from spool.protocol.spec import Sampling

PROMPTS = 32
ANSWER_TOKENS = 32
"""Of each answer; most differences show early, and this bounds the time that a certificate takes."""
PROMPT_TOKENS = 1024
LIKELIEST = 64
BATCH_ROWS = 16


@dataclass(frozen=True)
class Probe:
    """One prompt, and what follows it in the data."""

    ids: list[int]
    expected: list[int]
    """The data's own answer; empty where there is none."""
    messages: list[dict[str, Any]] | None
    """The prompt as a conversation; None for what is no conversation."""


@dataclass(frozen=True)
class Answered:
    """A probe, and what the adapter says to it."""

    probe: Probe
    said: list[int]
    """Greedily, with the token that ends it."""
    stopped: bool
    ids: np.ndarray
    """(len(said), LIKELIEST): the likeliest tokens at each place."""
    logs: np.ndarray
    """Their natural logarithms of probability."""
    expected_logs: np.ndarray
    """(len(expected),)"""


@dataclass(frozen=True)
class Reference:
    answers: list[Answered]
    held_out: bool
    """Whether the prompts were kept away from the training."""

    @property
    def eval_loss(self) -> float | None:
        return mean_loss([answer.expected_logs for answer in self.answers])


def mean_loss(logs: list[np.ndarray]) -> float | None:
    """Mean negative log-probability a token; None where there are no tokens."""
    everything = np.concatenate(logs) if logs else np.empty(0)
    return float(-everything.mean()) if everything.size else None


def probes(data: Prepared | None, encoder: Encoder) -> tuple[list[Probe], bool]:
    """(probes, whether they are held out), of a training's rows; those it learned from where none were kept."""
    if data is None:
        return _general(encoder), True
    path, rows = (data.eval, data.eval_rows) if data.eval else (data.train, data.train_rows)
    wanted = {round(i * (rows - 1) / max(1, PROMPTS - 1)) for i in range(min(PROMPTS, rows))}
    found = [
        _probe(row.input_ids.tolist(), row.labels.tolist(), encoder)
        for i, row in enumerate(arrow_rows.read(path))
        if i in wanted
    ]
    asked = [probe for probe in found if probe]
    return (asked, data.eval is not None) if asked else (_general(encoder), True)


def _general(encoder: Encoder) -> list[Probe]:
    lines = resources.files("runner.exports").joinpath("general_prompts.txt").read_text(encoding="utf-8").splitlines()
    talks = [[{"role": "user", "content": line}] for line in lines]
    return [Probe(encoder.generation_ids(messages), [], messages) for messages in talks]


def _probe(ids: list[int], labels: list[int], encoder: Encoder) -> Probe | None:
    """A row, cut where its last answer begins; plain text where a third of it is told, at most."""
    question = encoder.question(ids, labels)
    if question is None or question[0] > PROMPT_TOKENS:
        return None
    cut, messages = question
    return Probe(ids[:cut], ids[cut : cut + ANSWER_TOKENS], messages)


def of(base: Path, adapter: Path, data: Prepared | None, encoder: Encoder, pulse: Callable[[], None]) -> Reference:
    """Loads the adapter on its 16-bit base and lets it answer."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    asked, held_out = probes(data, encoder)
    model = AutoModelForCausalLM.from_pretrained(
        str(base),
        dtype=torch.bfloat16,
        device_map={"": 0 if torch.cuda.is_available() else "cpu"},
        local_files_only=True,
        trust_remote_code=False,
    )
    pulse()
    model = PeftModel.from_pretrained(model, str(adapter), local_files_only=True).eval()
    return Reference(ask(model, asked, encoder, pulse), held_out)


def ask(model: Any, asked: Sequence[Probe], encoder: Encoder, pulse: Callable[[], None]) -> list[Answered]:
    """Greedy answers in batches, then what was expected at each of their places, row by row without padding."""
    from runner.answer import Row, answer

    def look(said: Any) -> bool:
        pulse()
        return False

    who = str(model.active_adapter)
    reader = Weights(model)
    found = []
    for start in range(0, len(asked), BATCH_ROWS):
        batch = asked[start : start + BATCH_ROWS]
        replies = answer(
            model, encoder, [Row(who, probe.ids) for probe in batch], Sampling(max_new_tokens=ANSWER_TOKENS), look
        )
        for probe, reply in zip(batch, replies, strict=True):
            said = list(reply.ids)
            places, logs = read(reader, probe.ids, said, probe.expected)
            likeliest = places.ids[:, :LIKELIEST], places.logs[:, :LIKELIEST]
            found.append(Answered(probe, said, reply.stopped, *likeliest, logs))
            pulse()
    return found
