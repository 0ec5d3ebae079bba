"""Votes as a preference dataset: a row a pair that has a winner, kept as a version of a dataset like any other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pages.parts.play import corrections
from spool.data.keeping import keep
from spool.data.keeping.keep import Stored
from spool.data.keeping.rows import StoredRecords, dump, key_of
from spool.data.reading.table import Record
from spool.protocol import settings
from spool.protocol.ballot import Ballot, Sample
from spool.protocol.errors import DataError
from spool.protocol.home import Home
from spool.protocol.process import locked
from spool.protocol.tally import Tally

ROLES = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Made:
    """The rows, and how many pairs with votes gave none."""

    rows: list[dict[str, Any]]
    ties: int
    cut: int
    """Their better answer was cut off or empty: who learns from it would learn to stop there."""


@dataclass(frozen=True)
class Saved:
    stored: Stored
    added: int
    replaced: int
    """Rows that preferred the other answer."""


def made(ballot: Ballot, tally: Tally) -> Made:
    """The pairs that more than half of their voters decided, with who said what and how many voted so.

    Nobody trains on those further columns. Where one prompt is a conversation, all are written as one.
    """
    found = [(sample, tally.outcomes[key]) for key, sample in ballot.samples.items() if key in tally.outcomes]
    decided = [(sample, outcome, outcome.winner) for sample, outcome in found if outcome.winner]
    talks = any(len(sample.messages) > 1 for sample, _, _ in decided)
    rows = []
    for sample, outcome, winner in decided:
        loser = next(side for side in ballot.sides if side != winner)
        chosen = sample.answers[winner]
        if chosen.stopped and chosen.text.strip():
            row = {"prompt": _prompt(sample, talks), "chosen": chosen.text, "rejected": sample.answers[loser].text}
            in_favour = outcome.first if winner == ballot.sides[0] else outcome.second
            marks = {"chosen_model": winner, "rejected_model": loser, "votes": f"{in_favour}/{outcome.of}"}
            rows.append({**row, **marks, "voted_on": ballot.job_id})
    return Made(rows, len(found) - len(decided), len(decided) - len(rows))


def _prompt(sample: Sample, talks: bool) -> str | list[dict[str, str]]:
    if talks:
        return list(sample.messages) or [{"role": "user", "content": sample.prompt}]
    return sample.messages[0]["content"] if sample.messages else sample.prompt


def fits(stored: Stored) -> bool:
    """Whether such rows can be added to a dataset."""
    return stored.format == "preference" and set(ROLES) <= set((stored.report or {}).get("mapping") or {})


def offered(home: Home) -> dict[str, Stored]:
    """The newest version of each dataset that such rows can be added to, by name."""
    newest: dict[str, Stored] = {}
    for stored in keep.list_datasets(home):
        newest.setdefault(stored.name, stored)
    return {name: stored for name, stored in newest.items() if fits(stored)}


def save(home: Home, name: str, rows: Sequence[dict[str, Any]]) -> Saved:
    """Keeps rows of `made` as a new dataset, or in a new version of the one of that name.

    A row that stands there is left alone; one that preferred the other answer is replaced.

    Raises:
        DataError: there are no rows, the name cannot be used, or that dataset holds something else.
        OSError: the disk.
    """
    keep.check_name(name)
    if not rows:
        raise DataError("no pair has a winner yet.", "Vote on some more.", "nothing_left")
    home.create()
    folder = home.datasets / name
    folder.mkdir(exist_ok=True)
    with locked(folder):  # two people may save at the same time: neither's rows may get lost
        known = keep.versions(home, name)
        if not known:
            stored = keep.add(home, name, "preferences.jsonl", b"".join(dump(row) + b"\n" for row in rows))
            return Saved(stored, len(rows), 0)
        return _into(home, known[0], rows)


def _into(home: Home, stored: Stored, rows: Sequence[dict[str, Any]]) -> Saved:
    if not fits(stored):
        message = f"{stored.name} holds no preferences: its rows are {stored.format or 'of an unknown layout'}."
        raise DataError(message, "Choose another dataset, or type the name of a new one.", "does_not_fit")
    roles = (stored.report or {})["mapping"]
    there: dict[bytes, Record] = {}
    for record in StoredRecords(stored.path, settings.load(home).data_limits)():
        there[_pair({role: record.value.get(roles[role]) for role in ROLES})] = record
    new = []
    for row in rows:
        place = there.get(_pair(row))
        if place is None or place.value.get(roles["chosen"]) != row["chosen"]:
            new.append(({roles.get(name, name): value for name, value in row.items()}, place))
    if not new:
        return Saved(stored, 0, 0)
    replaced = sum(place is not None for _, place in new)
    return Saved(corrections.put(home, stored, new), len(new) - replaced, replaced)


def _pair(row: dict[str, Any]) -> bytes:
    """The same for the same prompt with the same two answers, whichever was preferred."""
    return key_of([row["prompt"], *sorted([str(row["chosen"]), str(row["rejected"])])])
