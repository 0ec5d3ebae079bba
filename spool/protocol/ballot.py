"""What people vote on: pairs of answers to the same prompts, from runs/ID/report.json or a job of kind generate.

`ballot` in a report is {"same": how many rows both answered alike, "rows": [...]}; a row has `prompt`, `messages`
(empty where a text is to be continued), `expected`, and under the name of each side {"text", "stopped"}. Which names
these are the document says; the side that the other is held against comes first. Of a job that has asked two models the
same prompts it is the first of them in answers.jsonl (asks.py).
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from spool.protocol import durable
from spool.protocol.asks import Answers
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.ulid import is_ulid

FILE_BYTES = 16 * 1024 * 1024
MOST_SAMPLES = 200
ANSWERED = 20
"""Of a list of prompts; as many as a report has."""
LONGEST_SIDE = 200


@dataclass(frozen=True)
class Said:
    """One answer, and whether it ended by itself."""

    text: str
    stopped: bool


@dataclass(frozen=True)
class Sample:
    """One prompt with the answers of both sides."""

    prompt: str
    messages: tuple[dict[str, str], ...]
    expected: str
    answers: Mapping[str, Said]

    @cached_property
    def key(self) -> str:
        """Another one as soon as a letter of the prompt or of an answer is another: votes stand for what was read."""
        texts = {side: said.text for side, said in self.answers.items()}
        content = orjson.dumps([self.prompt, list(self.messages), texts], option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(content).hexdigest()[:32]


@dataclass(frozen=True)
class Ballot:
    """The pairs of one job's report."""

    job_id: str
    sides: tuple[str, str]
    """The side that the other is held against, and the other."""
    samples: Mapping[str, Sample]
    """By key."""
    same: int = 0
    """Rows that both answered alike, of which nobody is asked."""
    held_out: bool | None = None
    """Whether the training never saw these prompts; None where that is not known."""


def read(home: Home, job_id: str) -> Ballot | None:
    """The pairs of a job's report or answers; None where it has neither, or nothing to vote on.

    Raises:
        FinetunerError: its report.json is damaged.
    """
    if not is_ulid(job_id):
        return None
    path = home.run(job_id).report_json
    if not os.path.lexists(path):
        return _of_answers(home, job_id)
    try:
        document = orjson.loads(durable.first_bytes(path, FILE_BYTES))
    except ValueError:
        message = f"the report of job {job_id} cannot be read: its report.json is damaged."
        raise FinetunerError(message, "Make the report again.", "report_damaged") from None
    return _of_report(job_id, document) if isinstance(document, dict) else None


def _of_report(job_id: str, document: dict[str, Any]) -> Ballot | None:
    ballot, asked = document.get("ballot"), document.get("asked")
    rows = ballot.get("rows") if isinstance(ballot, dict) else None
    if not isinstance(ballot, dict) or not isinstance(rows, list):
        return None
    samples = [sample for row in rows[:MOST_SAMPLES] if (sample := _sample(row))]
    same, held_out = ballot.get("same"), asked.get("held_out") if isinstance(asked, dict) else None
    return of_samples(
        job_id,
        samples,
        same if isinstance(same, int) else 0,
        held_out if isinstance(held_out, bool) else None,
    )


def _of_answers(home: Home, job_id: str) -> Ballot | None:
    """The first prompts of a list to which exactly two have given answers that differ."""
    told = Answers(home, job_id)
    told.read()
    asked = _asked(home, job_id)
    samples: list[Sample] = []
    same = 0
    for place in sorted(key for key in told.by_ask if isinstance(key, int)):
        answers = sorted(told.of(place), key=lambda each: (each.who != "base", each.who))
        if len(answers) != 2 or len(samples) == ANSWERED or not answers[0].prompt:
            continue
        if answers[0].text.strip() == answers[1].text.strip():
            same += 1
            continue
        said = {each.who: Said(each.text, each.ended_by == "stop") for each in answers}
        prompt, reference = answers[0].prompt, answers[0].reference
        samples.append(Sample(prompt, asked(place, prompt), reference or "", said))
    return of_samples(job_id, samples, same)


def _asked(home: Home, job_id: str) -> Callable[[int, str], tuple[dict[str, str], ...]]:
    """The whole conversation of a prompt in the list: answers.jsonl has its end only."""
    run = home.run(job_id)
    spec, chosen = (_document(path) for path in (run.spec, run.prompts))
    before = ({"role": "system", "content": str(spec["system"])},) if spec.get("system") else ()
    questions = chosen.get("questions")

    def messages(place: int, prompt: str) -> tuple[dict[str, str], ...]:
        rows = questions if isinstance(questions, list) else []
        row = rows[place] if place < len(rows) and isinstance(rows[place], dict) else {}
        return (*before, *(_turns(row.get("messages")) or ({"role": "user", "content": prompt},)))

    return messages


def _document(path: Path) -> dict[str, Any]:
    try:
        found = orjson.loads(durable.first_bytes(path, FILE_BYTES) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def of_samples(job_id: str, samples: list[Sample], same: int = 0, held_out: bool | None = None) -> Ballot | None:
    """A ballot of the pairs that have the two sides of the first one; None where there is none."""
    sides = tuple(samples[0].answers) if samples else ()
    if len(sides) != 2:
        return None
    kept = {sample.key: sample for sample in samples if set(sample.answers) == set(sides)}
    return Ballot(job_id, (sides[0], sides[1]), kept, same, held_out)


def _sample(row: Any) -> Sample | None:
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        return None
    answers = {
        str(side): Said(said["text"], said.get("stopped") is not False)
        for side, said in row.items()
        if isinstance(said, dict) and isinstance(said.get("text"), str) and len(side) <= LONGEST_SIDE
    }
    expected = row.get("expected")
    return Sample(row["prompt"], _turns(row.get("messages")), expected if isinstance(expected, str) else "", answers)


def _turns(told: Any) -> tuple[dict[str, str], ...]:
    return tuple(
        {"role": str(turn["role"]), "content": str(turn["content"])}
        for turn in (told if isinstance(told, list) else [])
        if isinstance(turn, dict) and "role" in turn and "content" in turn
    )
