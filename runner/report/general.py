"""What was forgotten: a small set of general questions that ships with the project, judged by plain rules.

general.jsonl has a question a line: kind, language, ask, and one of
    contains    any of these texts stands in the answer, as whole words, whatever their case
    exact       the answer is one of these, but for case, space and a full stop
    matches     the answer matches this pattern from its beginning to its end
and, of these, `without`: texts that must not stand in it. Only the answer's first paragraph counts for `exact` and
`matches`, so that a base that goes on talking is judged by what it said first.

Each is asked in two ways: as a conversation, and as plain text behind two examples, for a base that was only pretrained
has never seen a conversation and would seem to know nothing. What counts is the way in which the base knows more.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from runner.report.rows import Asked, Said
from runner.report.scores import changed_by_chance, wilson
from spool.data.judging.chat import Encoder

ANSWER_TOKENS = 32
WAYS = ("as a conversation", "as plain text")
EXAMPLES = (
    "Question: What colour is a ripe banana?\nAnswer: Yellow.\n\n"
    "Frage: Wie viele Tage hat eine Woche?\nAntwort: Sieben.\n\n"
)
HEADS = {"en": ("Question", "Answer"), "de": ("Frage", "Antwort")}
MOST_TOLD = 12


@dataclass(frozen=True)
class Question:
    kind: str
    language: str
    ask: str
    contains: list[str] = field(default_factory=list)
    exact: list[str] = field(default_factory=list)
    matches: str | None = None
    without: list[str] = field(default_factory=list)


def _file() -> bytes:
    return resources.files("runner.report").joinpath("general.jsonl").read_bytes()


def version() -> str:
    """What the set is known by: another question, another version."""
    return hashlib.sha256(_file()).hexdigest()[:12]


def questions() -> list[Question]:
    """In an order of which each beginning holds some of every kind."""
    found = [Question(**json.loads(line)) for line in _file().splitlines()]
    places: dict[str, int] = {}
    ranks = []
    for question in found:
        places[question.kind] = places.get(question.kind, 0) + 1
        ranks.append(places[question.kind])
    return [found[i] for i in sorted(range(len(found)), key=lambda i: ranks[i])]


def asked(encoder: Encoder, way: str) -> list[Asked]:
    """The questions as they are asked of a model."""
    return [Asked(each.ask, _ids(each, encoder, way), "", []) for each in questions()]


def _ids(question: Question, encoder: Encoder, way: str) -> list[int]:
    if way == WAYS[0]:
        return encoder.generation_ids([{"role": "user", "content": question.ask}])
    ask, answer = HEADS[question.language]
    return encoder.text_ids(f"{EXAMPLES}{ask}: {question.ask}\n{answer}:")


def right(question: Question, text: str) -> bool:
    """Whether an answer keeps to what the question demands; saying the question again is no answer."""
    text = text.replace(question.ask, " ")
    first = _plain(text.strip().split("\n\n")[0])
    if any(_stands(each, text) for each in question.without):
        return False
    if question.contains:
        return any(_stands(each, text) for each in question.contains)
    if question.exact:
        return first in [_plain(each) for each in question.exact]
    return re.fullmatch(question.matches or "", text.strip().split("\n\n")[0].strip(), re.DOTALL) is not None


def best_way(said: Mapping[str, Sequence[Said]]) -> str:
    """The way of asking in which the base knows the larger share: the one in which forgetting can show."""

    def share(way: str) -> float:
        known = [right(each, _heard(answer, way)) for each, answer in zip(questions(), said[way], strict=False)]
        return sum(known) / max(1, len(known))

    return max(said, key=share)


def judge(answers: Sequence[tuple[Said, Said]], way: str = WAYS[0]) -> dict[str, Any]:
    """What both know of the first so many questions, by kind; what was lost and gained; whether that says much."""
    known: list[tuple[Question, bool, bool, str, str]] = []
    for each, both in zip(questions(), answers, strict=False):
        first, then = (_heard(said, way) for said in both)
        known.append((each, right(each, first), right(each, then), first, then))
    of = len(known)
    base, tuned = sum(each[1] for each in known), sum(each[2] for each in known)
    kinds = {}
    for kind in dict.fromkeys(line[0].kind for line in known):
        those = [line for line in known if line[0].kind == kind]
        kinds[kind] = {"of": len(those), "base": sum(e[1] for e in those), "tuned": sum(e[2] for e in those)}
    lost = [each for each in known if each[1] and not each[2]]
    gained = sum(each[2] and not each[1] for each in known)
    return {
        "version": version(),
        "way": way,
        "of": of,
        "base": base,
        "tuned": tuned,
        "intervals": {"base": wilson(base, of), "tuned": wilson(tuned, of)} if of else None,
        "kinds": kinds,
        "lost": len(lost),
        "gained": gained,
        "chance": round(changed_by_chance(gained, len(lost)), 4),
        "told": [{"ask": e[0].ask, "base": e[3], "tuned": e[4]} for e in lost[:MOST_TOLD]],
    }


def _heard(said: Said, way: str) -> str:
    """What counts of an answer. Of plain text the answer alone: a model goes on with a question of its own."""
    text = said.text
    return text if way == WAYS[0] else re.split(r"\n\s*\n|\n\s*(?:Question|Frage|Answer|Antwort):", text.strip())[0]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".! ")


def _stands(wanted: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text, re.IGNORECASE) is not None
