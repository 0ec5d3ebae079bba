"""What each step does to the rows: pure functions from streams to streams, the same rows and settings, the same result.

`Records` can be walked any number of times and are the same each time, so that a step may look at all rows before it
lets the first one pass, without holding them.
"""

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from typing import Any

import orjson

from spool.data.judging.examples import MADE, MADE_OF, Example, original_question, question, question_number, to_example
from spool.data.judging.formats import SAMPLE_ROWS, Layout, recognise
from spool.data.keeping.steps import AddRows, Cap, Dedupe, Drop, Edit, KeepUsable, Mask, Place, RowEdit, WithLayout
from spool.data.reading.limits import Limits
from spool.data.reading.read import AS_FOUND, Dialect, iterate
from spool.data.reading.table import Problem, Record, Table
from spool.protocol.errors import DataError

Records = Callable[[], Iterator[Record]]

NEAR_BATCH_ROWS = 1024
NEAR_MARGIN = 0.1
"""How far below the threshold an estimated similarity is looked at: 1.6 standard errors of spool.data.judging.near."""

MARKS = (MADE, "augmented_from", MADE_OF)
"""The columns of a row that was made from another: how, from which line, and `question_key` of that row."""


class StoredRecords:
    """The rows of a stored file.

    Args:
        limits: what reading it refuses (`data_limits` of the settings).
        dialect: how the file is read, where that is not found rightly.
        named: rows that a step edits, drops or replaces: where such a row cannot be read, an empty one stands for it.
    """

    def __init__(self, path: Path, limits: Limits, dialect: Dialect = AS_FOUND, named: Iterable[Place] = ()) -> None:
        self.path = path
        self.limits = limits
        self.dialect = dialect
        self.left_out: Counter[str] = Counter()
        """Rows that could not be read on the last walk, and files that could not, by the problem's code."""
        self._named: dict[int, list[Place]] = {}
        for place in named:
            self._named.setdefault(place.line, []).append(place)

    def __call__(self) -> Iterator[Record]:
        self.left_out.clear()
        for item in iterate(self.path, self.dialect, self.limits):
            if isinstance(item, Record):
                yield item
            elif item.action == "dropped":
                if any(_is_at(place, item) for place in self._named.get(item.line, ())):
                    yield Record(item.line, {}, item.byte, item.file)
                else:
                    self.left_out[item.code] += 1
            elif item.action == "blocks":
                self.left_out[item.code] += 1


def layout_of(stream: Records, reading: WithLayout, name: str = "the data") -> Layout:
    """How rows are laid out, by the first of them.

    Raises:
        DataError: no format fits, or the step's mapping names a column that is not there.
    """
    first = list(islice(stream(), SAMPLE_ROWS))
    columns = list(dict.fromkeys(chain.from_iterable(record.value for record in first)))
    table = Table(Path(name), "jsonl", "utf-8", "", [c for c in columns if c not in MARKS], first)
    return recognise(table, reading.format, reading.mapping)


def dump(value: Any, line: int = 0) -> bytes:
    """A row as one line of JSON; its keys keep their order.

    Raises:
        DataError: it holds what JSON has no word for, such as the bytes of a picture in a Parquet file.
    """
    try:
        return orjson.dumps(value, default=_plain)
    except TypeError:  # lone surrogates, integers over 64 bits, or none of JSON's types
        try:
            return json.dumps(value, separators=(",", ":"), default=_plain).encode()
        except TypeError as error:
            message = f"line {line}: the row cannot be written as JSON ({error})."
            raise DataError(message, "Leave that column out of the file.", "wrong_type") from None


def _plain(value: Any) -> str:
    if isinstance(value, Decimal | timedelta):
        return str(value)
    raise TypeError(f"there is {type(value).__name__} in it")


def key_of(value: Any) -> bytes:
    """16 bytes that stand for a value's content: equal for equal values, whatever the order of their keys."""
    try:
        content = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        content = json.dumps(value, sort_keys=True, default=repr).encode()
    return hashlib.blake2b(content, digest_size=16).digest()


def rank(seed: int, *parts: bytes | int) -> int:
    """A number below 2**64 that is random in its arguments and the same in every process and version of Python."""
    words = b"".join(p if isinstance(p, bytes) else p.to_bytes(8, "little") for p in (seed, *parts))
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little")


def question_key(record: Record, layout: Layout) -> str | None:
    """What rows with the same first question share, 16 hexadecimal digits; None for a row that cannot be used.

    The question of a chat is its first user turn, that of plain text the text. A row made from another has its
    question's key.
    """
    number = original_question(record)
    if number is None:
        example = to_example(record, layout)
        if isinstance(example, Problem):
            return None
        number = question_number(question(example))
    return f"{number:016x}"


def edit(stream: Records, step: Edit) -> Records:
    """Sets columns of single rows.

    Raises (when walked to the end):
        DataError: there is no such row, or several stand on its line.
    """

    def walk() -> Iterator[Record]:
        places = _Places(step.edits)
        for record in stream():
            for change in places.at(record):
                assert isinstance(change, RowEdit)
                record = Record(record.line, {**record.value, **change.values}, record.byte, record.file)
            yield record
        places.check()

    return walk


def drop(stream: Records, step: Drop) -> Records:
    """Leaves single rows out.

    Raises (when walked to the end):
        DataError: there is no such row, or several stand on its line.
    """

    def walk() -> Iterator[Record]:
        places = _Places(step.places)
        for record in stream():
            if not places.at(record):
                yield record
        places.check()

    return walk


def keep_usable(stream: Records, step: KeepUsable) -> Records:
    """Leaves out the rows of which no example can be made."""

    def walk() -> Iterator[Record]:
        layout = layout_of(stream, step)
        for record in stream():
            if isinstance(to_example(record, layout), Example):
                yield record

    return walk


def dedupe(stream: Records, step: Dedupe) -> Records:
    """Keeps the first of the rows that teach the same; other columns, such as a number, do not count.

    Holds a hash of 16 bytes a row; with `near` also a signature of 256, and the texts that others are like.
    """

    def walk() -> Iterator[Record]:
        layout = layout_of(stream, step)
        repeated = _near_repeats(stream, layout, step.threshold) if step.near else set()
        seen = set()
        for number, record in enumerate(stream()):
            key = _taught(record, layout)
            if key not in seen and number not in repeated:
                yield record
            seen.add(key)

    return walk


def cap(stream: Records, step: Cap) -> Records:
    """Keeps at most so many rows, in their order. A random choice holds one number for each row that it keeps."""
    if step.seed is None:
        return lambda: islice(stream(), step.rows)
    seed = step.seed

    def walk() -> Iterator[Record]:
        numbers = ((rank(seed, number), number) for number, _ in enumerate(stream()))
        chosen = {number for _, number in heapq.nsmallest(step.rows, numbers)}
        return (record for number, record in enumerate(stream()) if number in chosen)

    return walk


def mask(stream: Records, step: Mask) -> Records:
    """Puts placeholders such as [EMAIL] for secrets and personal data, in every text of a row."""

    def walk() -> Iterator[Record]:
        from spool.data.judging import content

        what = tuple(step.what)

        def masked(value: Any) -> Any:
            if isinstance(value, str):
                return content.mask(value, what)
            if isinstance(value, list):
                return [masked(each) for each in value]
            return {key: masked(each) for key, each in value.items()} if isinstance(value, dict) else value

        for record in stream():
            yield Record(record.line, masked(record.value), record.byte, record.file)

    return walk


def add_rows(stream: Records, corrected: Records, step: AddRows) -> Records:
    """Puts corrected rows in the places that they name, the others behind the last row.

    Holds the corrected rows. One is a plain row, or as `rejects.jsonl` has it: {"line", "code", "message", "row"}.
    A row that cannot be read keeps its line, so give `StoredRecords` the `places` of the corrected ones.
    """

    def walk() -> Iterator[Record]:
        columns = next((list(record.value) for record in stream() if record.value), [])
        waiting: dict[int, list[tuple[Place, dict[str, Any]]]] = {}
        behind = []
        for record in corrected():
            place, value = unwrap(record, columns)
            if place is None:
                behind.append(value)
            else:
                waiting.setdefault(place.line, []).append((place, value))
        number = 0
        for record in stream():
            found = next((each for each in waiting.get(record.line, ()) if _is_at(each[0], record)), None)
            if found:
                waiting[record.line].remove(found)
            number += 1
            yield Record(number, found[1] if found else record.value)
        left = (value for several in waiting.values() for _, value in several)
        for further, value in enumerate(chain(left, behind), number + 1):
            yield Record(further, value)

    return walk


def unwrap(record: Record, columns: Sequence[str]) -> tuple[Place | None, dict[str, Any]]:
    """(which row a corrected row replaces, its values). The row may still be text: JSON, or delimited like its file.

    Raises:
        DataError: `bad_correction`, the text is no row with these columns.
    """
    place, row = wrapped(record)
    if isinstance(row, dict):
        return place, row
    try:
        value = orjson.loads(str(row))
    except ValueError:
        value = next((dict(zip(columns, c, strict=True)) for c in _cells(str(row)) if len(c) == len(columns)), None)
    if not isinstance(value, dict) or not value:
        shown = ", ".join(columns[:8])
        message = f"line {record.line} of the corrected rows is still text and no row with the columns {shown}."
        hint = 'Write "row" as an object, for example {"prompt": "…", "completion": "…"}, or leave the line out.'
        raise DataError(message, hint, "bad_correction")
    return place, value


def wrapped(record: Record) -> tuple[Place | None, Any]:
    """(place, row) of a line in `rejects.jsonl`; a plain row has no place."""
    value = record.value
    if "row" not in value or not {"line", "code"} & set(value):
        return None, value
    line, byte, file = value.get("line"), value.get("byte"), value.get("file")
    if not isinstance(line, int) or line < 1:
        return None, value["row"]
    return Place(line=line, byte=byte if isinstance(byte, int) else None, file=file or None), value["row"]


def _cells(text: str) -> Iterator[list[str]]:
    import csv

    for delimiter in ",;\t|":
        yield next(csv.reader([text], delimiter=delimiter), [])


def _taught(record: Record, layout: Layout) -> bytes:
    example = to_example(record, layout)
    if isinstance(example, Problem):
        return key_of(record.value)
    rejected = record.value.get(layout.roles.get("rejected", ""))
    return key_of([example.messages, example.text, rejected])


def _near_repeats(stream: Records, layout: Layout, threshold: float) -> set[int]:
    """The numbers (from 0) of rows that are nearly an earlier one, which is not nearly another itself."""
    from spool.data.judging import near

    found = near.Near()
    texts = (_as_text(record, layout) for record in stream())
    while batch := list(islice(texts, NEAR_BATCH_ROWS)):
        found.add(near.signatures(batch))
    # the estimate finds, the exact similarity decides
    pairs = {row: first for first, row, _ in found.groups(threshold - NEAR_MARGIN)}
    firsts = dict.fromkeys(pairs.values(), "")
    repeated = set()
    for number, record in enumerate(stream()):
        if number in firsts:
            firsts[number] = _as_text(record, layout)
        elif number in pairs and near.jaccard(firsts[pairs[number]], _as_text(record, layout)) >= threshold:
            repeated.add(number)
    return repeated


def _as_text(record: Record, layout: Layout) -> str:
    example = to_example(record, layout)
    if isinstance(example, Problem):
        return dump(record.value, record.line).decode()
    return example.text or "\n".join(message["content"] for message in example.messages or [])


def _is_at(place: Place, item: Record | Problem) -> bool:
    return (
        place.line == item.line and place.byte in (None, item.byte) and (place.file is None or place.file == item.file)
    )


class _Places:
    """Finds the rows that were named, and knows in the end which were not found."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._by_line: dict[int, list[Place]] = {}
        for place in places:
            self._by_line.setdefault(place.line, []).append(place)
        self._found: dict[int, int] = {id(place): 0 for place in places}

    def at(self, record: Record) -> list[Place]:
        named = [place for place in self._by_line.get(record.line, ()) if _is_at(place, record)]
        for place in named:
            self._found[id(place)] += 1
        return named

    def check(self) -> None:
        """Raises DataError where a place was no row, or several."""
        for place in chain.from_iterable(self._by_line.values()):
            times = self._found[id(place)]
            if times > 1:
                message = f"{times:,} rows start on line {place.line:,}, so it does not say which is meant."
                raise DataError(message, "Name the row's byte (and file) too.", "ambiguous_row")
            if not times:
                message = f"there is no row on line {place.line:,}{f' of {place.file}' if place.file else ''}."
                raise DataError(message, "Lines are those of the version that the recipe starts from.", "no_such_row")
