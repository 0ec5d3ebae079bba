"""The recipe of a report, top to bottom: rows, both models asked, scores, the document, the page and its first page.

Bounded in time: what could not be asked in time is said to be missing. Nothing of it changes the training, and it can
be made again at any time for as long as adapter and base are there.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runner import bases
from runner.exports import sources
from runner.exports.sources import Source
from runner.job import Attempt
from runner.report import ask, benchmarks, document, first_page, general, page, rows
from runner.report.ask import Part
from runner.report.document import Story
from runner.report.rows import Chosen, Row, Said
from spool.data.prepared import Prepared
from spool.protocol import durable, settings
from spool.protocol.jobs import now_iso

FINISH_S = 12.0
"""Of the time that there is, what scoring, drawing and writing take on two slow cores."""


ROWS_SHARE = 0.5
"""Of the time, what rows and general set may take where there are benchmarks; those may take all that is left then."""


@dataclass(frozen=True)
class Bounds:
    """How much is asked."""

    seconds: float = 240.0
    rows: int = rows.MOST_ROWS
    general: bool = True
    began: float | None = None
    """By time.monotonic, since when the time counts; None: when the report is begun."""


@dataclass(frozen=True)
class Others:
    """Rows of another dataset than the training kept rows of."""

    reference: str
    data: Prepared
    learned: bool
    """Whether the training was made with this very dataset."""


def report(
    source: Source,
    attempt: Attempt,
    bounds: Bounds | None = None,
    others: Others | None = None,
    chosen_benchmarks: benchmarks.Ready | None = None,
) -> dict[str, Any]:
    """Writes report.json, report.html and report.pdf into the folder of the attempt's job; gives what its result tells.

    Args:
        others: what is asked; None: the rows that the training kept.

    Raises:
        FinetunerError: the base or the adapter cannot be loaded.
    """
    bounds = bounds or Bounds()
    began = time.monotonic() if bounds.began is None else bounds.began
    attempt.phase("making the report")
    data = others.data if others else sources.rows(source, attempt)
    chosen = rows.of_training(data, source.encoder, bounds.rows)
    deadline = began + bounds.seconds - FINISH_S
    now = time.monotonic()
    share = now + max(0.0, deadline - now) * ROWS_SHARE if chosen_benchmarks else deadline
    heard = _heard(source, attempt, chosen, data, bounds, share)
    measured = benchmarks.measure(chosen_benchmarks, source, attempt, deadline) if chosen_benchmarks else None
    asked_s = time.monotonic() - began
    told = heard.get("data")
    way = next((way for way in general.WAYS if way in heard), None)
    story = Story(
        rows=_answered(chosen, told.answers if told else []),
        of=chosen.of,
        chosen=len(chosen.rows),
        chosen_sha256=rows.fingerprint(chosen.rows),
        held_out=None if others else chosen.held_out,
        learned=others.learned if others else not chosen.held_out,
        source=others.reference if others else data.dataset["reference"] if data else "",
        answer_tokens=rows.answer_tokens(chosen.rows),
        general=general.judge(heard[way].answers, way) if way else None,
        benchmarks=measured,
        base_cached=sum(each.cached for each in heard.values()),
        seconds={"asked": round(asked_s, 1), "all": round(time.monotonic() - began, 1)},
    )
    return _write(story, source, attempt)


def _heard(
    source: Source, attempt: Attempt, chosen: Chosen, data: Prepared | None, bounds: Bounds, deadline: float
) -> dict[str, ask.Heard]:
    """Part -> what both have said."""
    sha256 = bases.sha256(attempt.home, source.base.folder, attempt.pulse)
    versions = {"data": data.dataset["sha256"] if data else ""}
    parts = [Part("data", chosen.rows, rows.answer_tokens(chosen.rows))]
    if bounds.general:
        parts += [Part(way, general.asked(source.encoder, way), general.ANSWER_TOKENS) for way in general.WAYS]
        versions |= {way: f"{general.version()} {way}" for way in general.WAYS}
    memories = {
        part.name: ask.memory(attempt.home, sha256, source.encoder, versions[part.name], part.answer_tokens)
        for part in parts
    }
    return ask.ask(
        source.base.folder,
        source.training.adapter,
        source.encoder,
        [part for part in parts if part.rows],
        memories,
        deadline,
        attempt.pulse,
        worth=_worth,
        told=lambda done, of: attempt.phase(f"making the report, {done} of {of} answers"),
    )


def _worth(said: dict[str, list[Said]]) -> list[str]:
    """The data, and the general set in the way that suits the base."""
    ways = {way: answers for way, answers in said.items() if way in general.WAYS}
    return [name for name in said if name not in ways] + ([general.best_way(ways)] if ways else [])


def _answered(chosen: Chosen, answers: Sequence[tuple[Said, Said]]) -> list[Row]:
    return [
        Row(asked.prompt, asked.expected, base, tuned, asked.messages)
        for asked, (base, tuned) in zip(chosen.rows, answers, strict=False)
    ]


def _write(story: Story, source: Source, attempt: Attempt) -> dict[str, Any]:
    """The data first, the page that links to nothing last: who sees the page has all of it."""
    job_id = source.training.job_id or attempt.job_id
    chosen = settings.load(attempt.home)
    made = document.build(
        story,
        attempt.home.run(job_id),
        source.training.name,
        job_id,
        chosen.price_per_kwh,
        chosen.currency,
        now_iso(),
    )
    durable.write_json(attempt.run.report_json, made)
    durable.write_atomic(attempt.run.report_pdf, first_page.render(made))
    durable.write_atomic(attempt.run.report, page.render(made).encode())
    return {"report": attempt.home.relative(attempt.run.report), **document.told(made)}
