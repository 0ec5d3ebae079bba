"""Reports of the showcase: answers made up, everything else computed and written by runner/report itself."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from spool.protocol import durable
from spool.protocol.home import Home, State
from spool.protocol.jobs import iso
from spool.protocol.spec import EvaluateSpec
from spool.protocol.states import Token, Tokens

ROOT = Path(__file__).resolve().parent.parent
BASE_RIGHT = {"gemma-3-270m": 0.0, "gemma-3-4b-it": 0.2}
"""The share of tickets that a base answers rightly by itself."""


@dataclass(frozen=True)
class Asked:
    """How a made-up model does: the share of rows that it answers rightly, and how many general questions it loses."""

    right: float
    lost: int = 1
    data: str = "tickets"
    rows: int = 16
    chosen: int = 16
    held_out: bool | None = True
    learned: bool = False


def write(home: Home, job_id: str, of: str, title: str, model: str, source: str, asked: Asked, at: float) -> Any:
    """Writes the report of a job about the training `of`; gives what its result tells of it."""
    from runner.report import document, first_page, page
    from runner.report.document import Story

    rows = _rows(title, model, asked)
    story = Story(
        rows=rows,
        of=max(asked.chosen, asked.rows),
        chosen=asked.chosen,
        held_out=asked.held_out,
        source=source,
        answer_tokens=48,
        chosen_sha256=_fingerprint(asked, source),
        learned=asked.learned,
        general=_general(model, asked.lost),
        seconds={"asked": 61.0, "all": 74.5},
    )
    made = document.build(story, home.run(of), title, of, 0.31, "EUR", iso(at))
    run = home.run(job_id)
    durable.write_json(run.report_json, made)
    durable.write_atomic(run.report, page.render(made).encode())
    durable.write_atomic(run.report_pdf, first_page.render(made))
    return {"report": home.relative(run.report), **document.told(made)}


@dataclass(frozen=True)
class Evaluation:
    """One job of kind evaluate, of a training by its name or of a foreign adapter's folder; of one that waits no more
    than what it is to ask is known."""

    state: State
    name: str
    ago_h: float
    of: str = ""
    adapter: str = ""
    asked: Asked = Asked(0.8)


EVALUATIONS = (
    Evaluation(State.DONE, "rank 16 on all tickets", 3.5, of="support tickets, rank 16",
               asked=Asked(0.97, 2, rows=120, chosen=120, held_out=None, learned=True)),
    Evaluation(State.DONE, "last year's adapter", 3.2, adapter="adapters/tickets-2025",
               asked=Asked(0.86, 6, rows=97, chosen=120, held_out=None)),
    Evaluation(State.QUEUED, "first try on all tickets", 0.012, of="support tickets, first try"),
)  # fmt: skip


def evaluate(home: Home, number: int, job_id: str, submitted: float, told: Evaluation, dataset: str) -> None:
    """A job of kind evaluate, which asks rows of a dataset."""
    done = (Tokens(home).body(State.DONE, token) for token in Tokens(home).list(State.DONE))
    of = next((body["id"] for body in done if told.of and body["name"] == told.of), None)
    dropped = {"schema": 1, "kind": "evaluate", "name": told.name, "dataset": dataset}
    dropped |= {"job": of} if of else {"adapter": told.adapter}
    run = home.run(job_id)
    run.attempts.mkdir(parents=True)
    durable.write_json(run.spec_orig, dropped)
    durable.write_json(run.spec, EvaluateSpec.model_validate(dropped).to_json())
    model = "gemma-3-4b-it"
    body = {"id": job_id, "kind": "evaluate", "name": told.name, "model": model if of else None, "dataset": dataset}
    body |= {"submitted_at": iso(submitted), "submitted_by": "ada"}
    Tokens(home).create(told.state, Token(5, number, job_id), body)
    if told.state is State.QUEUED:
        return
    times = {"started_at": iso(submitted + 9), "ended_at": iso(submitted + 90)}
    durable.write_json(run.attempts / "0001.json", {"attempt": 1, **times, "outcome": "finished"})
    durable.write_json(run.outcome, {"state": "done", "ended_at": times["ended_at"], "error": None})
    run.log.write_text("-- making the report\n")
    report = write(home, job_id, of or job_id, told.name, model, dataset, told.asked, submitted + 90)
    base = {"reference": model, "folder": f"models/{model}", "revision": None}
    result = {"report": report, "of": of, "base": base, "seconds": report["seconds"]}
    durable.write_json(run.result, {"v": 1, "attempt": 1, "outcome": "finished", "result": result})


def _rows(title: str, model: str, asked: Asked) -> list[Any]:
    from runner.report.rows import Row, Said

    noise, of_base = random.Random(f"{title} {asked.data}"), random.Random(f"{model} {asked.data}")
    base, found = BASE_RIGHT[model], []
    for place, (prompt, expected) in enumerate(_questions(asked.data)[: asked.rows]):
        knows = place < base * asked.rows
        right = place >= asked.rows * (1 - asked.right)
        first = Said(expected if knows else "Thank you for your message. " * 3, knows, 40, 2.4 + of_base.random())
        then = Said(expected if right else _nearly(expected), True, 24, (0.05 if right else 0.5) + noise.random() / 10)
        found.append(Row(prompt, expected, first, then, ({"role": "user", "content": prompt},)))
    return found


def _nearly(expected: str) -> str:
    """Wrong in one place."""
    try:
        fields = json.loads(expected)
    except ValueError:
        return expected[: 2 * len(expected) // 3]
    return json.dumps({**fields, next(reversed(fields)): None})


@cache
def _questions(data: str) -> Sequence[tuple[str, str]]:
    if data == "faq":
        return [
            (f"Wie bestelle ich Artikel {i}?", f"Artikel {i} liegt im Katalog auf Seite {i // 3 + 1}.")
            for i in range(20, 60)
        ]
    lines = (ROOT / "examples" / "support_tickets.jsonl").read_text("utf-8").splitlines()
    told = [json.loads(line) for line in lines]
    keys = list(told[0])
    return [(str(row[keys[0]]), _text(row[keys[-1]])) for row in told]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _fingerprint(asked: Asked, source: str) -> str:
    """The same for the same rows asked, of another dataset another one."""
    return hashlib.sha256(f"{source} {asked.data} {asked.chosen} {asked.held_out}".encode()).hexdigest()[:32]


def _general(model: str, lost: int) -> dict[str, Any]:
    from runner.report import general
    from runner.report.rows import Said

    questions = general.questions()
    known = 9 if model == "gemma-3-270m" else 33
    told = [(each.contains or each.exact or ("?",))[0] for each in questions]
    return general.judge(
        [
            (Said(text if i < known else "", True, 3, None), Said(text if lost <= i < known else "", True, 3, None))
            for i, text in enumerate(told)
        ]
    )
