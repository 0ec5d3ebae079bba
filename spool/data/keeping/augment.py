"""More rows from those that are there, honestly: offline, repeatable by a seed, marked, and never in an evaluation.

A row that was made from another stands right behind it and says so in three columns: "augmented" (wrap, noise, reword
or balance), "augmented_from" (the line of the row that it was made from, in the version the step was applied to) and
"augmented_of" (that row's question as a hash; splitting.py keeps both on one side by it). Answers are never changed,
and nothing is made from a row that was itself made from another, nor from plain text, which has no question.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from spool.data.judging.examples import PAIRS, Example, is_made, to_example
from spool.data.judging.formats import Layout
from spool.data.judging.turns import CONTENT_KEYS, ROLE_KEYS, ROLES, as_turns
from spool.data.keeping import variants
from spool.data.keeping.rows import Records, key_of, layout_of, question_key, rank
from spool.data.keeping.steps import Balance, Noise, Reword, Wrap, parse
from spool.data.reading.table import Record
from spool.protocol.errors import DataError

Change = Callable[[str, str], str | None]
"""(text, seed) -> another text, or None where there is none."""

ASKING = {format: asking for format, (asking, _) in PAIRS.items()} | {"preference": "prompt"}


def augment(stream: Records, step: Wrap | Noise | Reword | Balance) -> Records:
    """Every row, each followed by the rows that were made from it. `balance` holds one number a label.

    Raises (when walked):
        DataError: `cannot_augment`, the layout has nothing that this kind could change.
    """

    def walk() -> Iterator[Record]:
        for record, made in _made(stream, step):
            yield record
            for value in made:
                yield Record(record.line, value, record.byte, record.file)

    return walk


def preview(rows: Sequence[Record], step: dict[str, Any], n: int = 5) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The first `n` made rows of a sample, each as (the row it was made from, the made one).

    Raises:
        DataError: `bad_recipe`, or `cannot_augment`.
    """
    parsed = parse(step)
    if not isinstance(parsed, Wrap | Noise | Reword | Balance):
        raise DataError("only augmentations have a preview.", 'Give a step {"step": "augment", …}.', "bad_recipe")
    pairs = ((record.value, made[0]) for record, made in _made(lambda: iter(rows), parsed) if made)
    return [pair for pair, _ in zip(pairs, range(n), strict=False)]


def _made(stream: Records, step: Wrap | Noise | Reword | Balance) -> Iterator[tuple[Record, list[dict[str, Any]]]]:
    layout = layout_of(stream, step)
    if isinstance(step, Balance):
        return _balanced(stream, step, layout)
    return _varied(stream, step, layout)


def _varied(
    stream: Records, step: Wrap | Noise | Reword, layout: Layout
) -> Iterator[tuple[Record, list[dict[str, Any]]]]:
    change = _change(step, layout)
    for record in stream():
        made = []
        if _is_original(record, layout):
            key = key_of(record.value)
            seed = f"{step.seed} {key.hex()}"
            if rank(step.seed, key) < step.share * 2**64 and (value := _asked_otherwise(record, layout, change, seed)):
                made = [_marked(value, record, step.kind, layout)]
        yield record, made


def _change(step: Wrap | Noise | Reword, layout: Layout) -> Change:
    if isinstance(step, Wrap):
        if layout.format not in variants.FRAMES:
            formats = ", ".join(variants.FRAMES)
            raise _nothing_to_change(layout, f"Sentence frames exist for {formats}; noise and reword serve chats too.")
        return lambda text, seed: variants.wrap(text, layout.format, seed)
    if layout.format == "text":
        raise _nothing_to_change(layout, "Plain text has no question, and what is learned is never changed.")
    if isinstance(step, Noise):
        typos = step.typos
        return lambda text, seed: variants.noise(text, typos, seed)
    return variants.reword


def _nothing_to_change(layout: Layout, hint: str) -> DataError:
    return DataError(f"rows of the format {layout.format} cannot be augmented in this way.", hint, "cannot_augment")


def _asked_otherwise(record: Record, layout: Layout, change: Change, seed: str) -> dict[str, Any] | None:
    """The row with its question changed; of a chat every user turn that can be."""
    column = layout.roles.get(ASKING.get(layout.format, layout.format if layout.format == "messages" else ""))
    if layout.format == "sharegpt":
        column = layout.roles["conversations"]
    if column is None:
        return None
    value = record.value[column]
    turns = as_turns(value)
    if turns is not None:
        changed = [_turn(turn, change, f"{seed} {number}") for number, turn in enumerate(turns)]
        if changed == turns:
            return None
        return {**record.value, column: json.dumps(changed, ensure_ascii=False) if isinstance(value, str) else changed}
    text = change(value, seed) if isinstance(value, str) else None
    return None if text is None or text == value else {**record.value, column: text}


def _turn(turn: dict[str, Any], change: Change, seed: str) -> dict[str, Any]:
    role = next((turn[key] for key in ROLE_KEYS if key in turn), None)
    key = next((key for key in CONTENT_KEYS if key in turn), "")
    if not isinstance(role, str) or ROLES.get(role.strip().lower()) != "user" or not isinstance(turn.get(key), str):
        return turn
    return {**turn, key: change(turn[key], seed) or turn[key]}


def _balanced(stream: Records, step: Balance, layout: Layout) -> Iterator[tuple[Record, list[dict[str, Any]]]]:
    column = step.by or layout.roles.get("label")
    if column is None:
        message = f"rows of the format {layout.format} have no label to balance."
        raise DataError(message, "Name the column with by.", "cannot_augment")
    counts: dict[bytes, int] = {}
    for record in stream():
        if _is_original(record, layout):
            label = key_of(record.value.get(column))
            counts[label] = counts.get(label, 0) + 1
    goal = round(step.up_to * max(counts.values(), default=0))
    extra = {label: min(max(0, goal - count), step.most * count) for label, count in counts.items()}
    passed = dict.fromkeys(counts, 0)
    for record in stream():
        made = []
        if _is_original(record, layout):
            label = key_of(record.value.get(column))
            before, count = passed[label], counts[label]
            passed[label] += 1
            # spread evenly over the label's rows
            times = (before + 1) * extra[label] // count - before * extra[label] // count
            made = [_marked(record.value, record, step.kind, layout)] * times
        yield record, made


def _is_original(record: Record, layout: Layout) -> bool:
    return not is_made(record) and isinstance(to_example(record, layout), Example)


def _marked(value: dict[str, Any], record: Record, kind: str, layout: Layout) -> dict[str, Any]:
    marks = {"augmented": kind, "augmented_from": record.line, "augmented_of": question_key(record, layout)}
    return {**value, **marks}
