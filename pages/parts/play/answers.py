"""The answers of a batch as rows to compare: with the reference, with each other, as a table and as files."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pandas as pd

from pages.parts.data import preview
from spool.data.keeping.export import harmless
from spool.protocol.asks import Answer, Answers

LONGEST_CELL = 2000


@dataclass
class Row:
    """One prompt of a batch with what each model answered."""

    prompt: str
    reference: str | None = None
    answers: dict[str, Answer] = field(default_factory=dict)

    def right(self, who: str) -> bool | None:
        """Whether a model gave the reference; None where there is nothing to compare."""
        if self.reference is None or who not in self.answers:
            return None
        return same(self.answers[who].text, self.reference)

    @property
    def agree(self) -> bool:
        """Whether all models said the same."""
        texts = [answer.text for answer in self.answers.values()]
        return all(same(text, texts[0]) for text in texts[1:])


def same(said: str, expected: str) -> bool:
    """The same text but for spaces around it; where both are JSON, the same value whatever its spaces and order."""
    if said.strip() == expected.strip():
        return True
    if said.lstrip()[:1] not in ("{", "[") or expected.lstrip()[:1] not in ("{", "["):
        return False
    try:
        return bool(orjson.loads(said) == orjson.loads(expected))
    except ValueError:
        return False


def rows(found: Answers) -> list[Row]:
    """The prompts of a batch that were answered so far, in the order in which they were asked."""
    made = []
    for place in sorted(place for place in found.by_ask if isinstance(place, int)):
        said = [answer for answer in found.of(place) if answer.done]
        if said:
            first = said[0]
            made.append(Row(str(first.prompt or ""), first.reference, {answer.who: answer for answer in said}))
    return made


def score(rows: Sequence[Row], who: str) -> tuple[int, int]:
    """(answers like the reference, answers that can be compared)."""
    known = [right for row in rows if (right := row.right(who)) is not None]
    return sum(known), len(known)


def kept(rows: Sequence[Row], which: str, who: Sequence[str]) -> list[Row]:
    """The rows that a filter lets through: all, differs (one of `who` is not the reference), matches, apart."""
    match which:
        case "differs":
            return [row for row in rows if any(row.right(each) is False for each in who)]
        case "matches":
            return [row for row in rows if who and all(row.right(each) for each in who)]
        case "apart":
            return [row for row in rows if len(row.answers) > 1 and not row.agree]
        case _:
            return list(rows)


def table(rows: Sequence[Row], who: Sequence[str], right: str, wrong: str) -> pd.DataFrame:
    """prompt, reference, and for each model its answer and in words whether that is the reference."""
    columns: dict[str, Any] = {"prompt": [preview.cell(row.prompt, LONGEST_CELL) for row in rows]}
    if any(row.reference is not None for row in rows):
        columns["reference"] = [preview.cell(row.reference, LONGEST_CELL) for row in rows]
    for each in who:
        said = [row.answers[each].text if each in row.answers else "" for row in rows]
        columns[f"answer {each}"] = [preview.cell(text, LONGEST_CELL) for text in said]
        if "reference" in columns:
            marks = [row.right(each) for row in rows]
            columns[f"right {each}"] = ["" if mark is None else right if mark else wrong for mark in marks]
    return pd.DataFrame(columns)


def to_jsonl(rows: Sequence[Row], names: Mapping[str, str]) -> bytes:
    """One JSON object a prompt; `names` says what each model is called."""
    return b"".join(orjson.dumps(_flat(row, names)) + b"\n" for row in rows)


def to_csv(rows: Sequence[Row], names: Mapping[str, str]) -> bytes:
    """The same for a spreadsheet: UTF-8 with a mark, and no cell that one would run."""
    flat = [_flat(row, names) for row in rows]
    columns = list(dict.fromkeys(name for each in flat for name in each))
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow([harmless(name) for name in columns])
    for each in flat:
        writer.writerow([_cell(each.get(name)) for name in columns])
    return text.getvalue().encode("utf-8-sig", "replace")


def _flat(row: Row, names: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {"prompt": row.prompt, "reference": row.reference}
    for who, name in names.items():
        answer = row.answers.get(who)
        if answer:
            found |= {name: answer.text, f"{name}: equal": row.right(who), f"{name}: tokens": answer.tokens}
            found |= {f"{name}: ended by": answer.ended_by}
    return found


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return harmless(value) if isinstance(value, str) else value
