"""Right answers that people write in the Playground, kept as rows of a dataset to train on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from spool.data.judging.examples import Example, to_example
from spool.data.judging.formats import Layout
from spool.data.keeping import keep, recipe
from spool.data.keeping.keep import Stored
from spool.data.keeping.rows import StoredRecords, dump
from spool.data.reading.table import Record
from spool.protocol import settings
from spool.protocol.errors import DataError
from spool.protocol.home import Home
from spool.protocol.process import locked

BY, OF = "corrected_by", "corrected_model"
"""Columns of a corrected row that nobody trains on: who wrote it, and whose answer (a job's id, or `base`) it mends."""
LONGEST = 32_000
SINGLE = {
    "question_answer": ("question", "answer"),
    "prompt_completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
    "label": ("text", "label"),
    "preference": ("prompt", "chosen"),
}
"""Formats of one question and one answer, with the roles of both."""

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Correction:
    """What was asked (ending with a user turn), what the model said, and what it should have said."""

    messages: tuple[dict[str, str], ...]
    wrong: str
    right: str
    model: str
    by: str

    @property
    def marks(self) -> dict[str, str]:
        return {BY: self.by, OF: self.model}


@dataclass(frozen=True)
class Saved:
    """`how` is added, replaced (that question stood there with another answer) or known (nothing was to be done)."""

    stored: Stored
    how: str


def fits(stored: Stored, messages: Messages) -> bool:
    """Whether a conversation can become a row of a dataset as that is laid out."""
    roles = ((stored.report or {}).get("mapping") or {}).keys()
    if stored.format in ("messages", "sharegpt"):
        return True
    if stored.format not in SINGLE or not set(SINGLE[stored.format]) <= set(roles):
        return False
    kinds = [message["role"] for message in messages]
    return kinds == ["user"] or (kinds == ["system", "user"] and "system" in roles)


def offered(home: Home, messages: Messages) -> list[Stored]:
    """The newest version of each dataset that such a row can be added to, by name."""
    newest: dict[str, Stored] = {}
    for stored in keep.list_datasets(home):
        newest.setdefault(stored.name, stored)
    return [stored for stored in newest.values() if fits(stored, messages)]


def takes(home: Home, dataset: str, messages: Messages) -> bool:
    """Whether the dataset that a job names by `dataset` is stored here and takes such a row."""
    return any(stored.name == dataset.partition("@")[0] for stored in offered(home, messages))


def save(home: Home, name: str, made: Correction) -> Saved:
    """Keeps a correction as a row of `name`: of a new dataset, or in a new version of the one that is there.

    A row that asks the same gets the new answer; one that also answers the same is left alone.

    Raises:
        DataError: the name cannot be used, the answer is empty or too long, or the row does not fit that dataset.
        OSError: the disk.
    """
    keep.check_name(name)
    if not made.right.strip():
        raise DataError("the right answer is empty.", "Write what the model should have said.", "empty_field")
    if len(made.right) > LONGEST:
        raise DataError(f"the right answer is longer than {LONGEST:,} characters.", "Shorten it.", "too_long_text")
    home.create()
    folder = home.datasets / name
    folder.mkdir(exist_ok=True)
    with locked(folder):  # two people may correct at the same time: neither row may get lost
        known = keep.versions(home, name)
        if not known:
            row = {"messages": [*made.messages, {"role": "assistant", "content": made.right}], **made.marks}
            return Saved(keep.add(home, name, "corrections.jsonl", dump(row) + b"\n"), "added")
        return _into(home, known[0], made)


def _into(home: Home, stored: Stored, made: Correction) -> Saved:
    if not fits(stored, made.messages):
        message = f"this conversation is no row of {stored.name}: that holds {stored.format or 'an unknown layout'}."
        raise DataError(message, "Choose another dataset, or type the name of a new one.", "does_not_fit")
    roles = dict((stored.report or {})["mapping"])
    place = None
    for record in StoredRecords(stored.path, settings.load(home).data_limits)():
        found = to_example(record, Layout(str(stored.format), roles, 1.0))
        if isinstance(found, Example) and found.messages and _asks(found.messages) == _asks(made.messages):
            if found.messages[-1]["content"].strip() == made.right.strip():
                return Saved(stored, "known")
            place = record
    row: dict[str, Any] = _row(stored.format or "", roles, made)
    return Saved(put(home, stored, [(row, place)]), "added" if place is None else "replaced")


def put(home: Home, stored: Stored, rows: Sequence[tuple[dict[str, Any], Record | None]]) -> Stored:
    """A new version with these rows: each in the place of the one that it comes with, whose other columns stay."""
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "corrections.jsonl"
        path.write_bytes(b"".join(dump(_placed(row, place)) + b"\n" for row, place in rows))
        return recipe.add_rows(home, stored.reference, path)


def _placed(row: dict[str, Any], place: Record | None) -> dict[str, Any]:
    if place is None:
        return row
    where = {"line": place.line, "byte": place.byte, "file": place.file}
    kept = {name: value for name, value in where.items() if value not in (None, "")}
    return {**kept, "code": "", "row": {**place.value, **row}}


def _row(format: str, roles: dict[str, str], made: Correction) -> dict[str, Any]:
    """The correction as that dataset writes its rows."""
    told = [*made.messages, {"role": "assistant", "content": made.right}]
    if format == "messages":
        return {roles["messages"]: told, **made.marks}
    if format == "sharegpt":
        names = {"user": "human", "assistant": "gpt", "system": "system"}
        return {
            roles["conversations"]: [{"from": names[m["role"]], "value": m["content"]} for m in told],
            **made.marks,
        }
    asking, answering = SINGLE[format]
    row: dict[str, Any] = {roles[asking]: made.messages[-1]["content"], roles[answering]: made.right}
    if format == "preference":
        row[roles["rejected"]] = made.wrong
    if made.messages[0]["role"] == "system":
        row[roles["system"]] = made.messages[0]["content"]
    return {**row, **made.marks}


def _asks(messages: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """What a conversation asks: all turns but the last answer."""
    turns = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    return [(str(turn["role"]), str(turn["content"]).strip()) for turn in turns]
