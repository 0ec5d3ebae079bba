"""The verdict on every row, in one place for training and for checking: read, laid out, encoded, cut to length."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from spool.data.chat import NOT_TRAINED, Encoded, Encoder
from spool.data.examples import Example, to_example
from spool.data.formats import Layout, recognise
from spool.data.read import read
from spool.data.table import Problem, Table
from spool.protocol.errors import DataError

AUTO_MAX_TOKENS = 2048
SHORTEST_MAX_TOKENS = 16


@dataclass
class Judged:
    """A file's rows as examples; `problems` holds every finding so far, by line."""

    table: Table
    layout: Layout
    examples: list[Example]
    problems: list[Problem]


@dataclass
class Tokenised:
    """The rows that can be trained on, cut to `max_length`; `lengths` are those before the cut."""

    rows: list[Encoded]
    lengths: list[int]
    max_length: int
    over_limit: int
    problems: list[Problem]


def judge(path: Path, format: str = "auto", mapping: Mapping[str, str] | None = None) -> Judged:
    """Reads a file and turns its rows into examples. Needs no model.

    Raises:
        DataError: the file cannot be read, or its layout is not recognised.
    """
    table = read(path)
    layout = recognise(table, format, mapping)
    examples, problems = [], list(table.problems)
    for record in table.records:
        found = to_example(record, layout)
        if isinstance(found, Example):
            examples.append(found)
        else:
            problems.append(found)
    return Judged(table, layout, examples, sorted(problems, key=lambda problem: problem.line))


def resolve_train_on(train_on: str, layout: Layout) -> str:
    """ "responses" or "all".

    Raises:
        DataError: responses are asked of plain text, which has none.
    """
    if layout.format != "text":
        return "responses" if train_on == "auto" else train_on
    if train_on == "responses":
        message = "plain text has no answers, so training on responses only would train on nothing."
        raise DataError(message, "Set data.train_on to auto or all.")
    return "all"


def tokenise(judged: Judged, encoder: Encoder, train_on: str, max_length: int | None) -> Tokenised:
    """Encodes the examples and cuts them; None means the longest row, at most 2048 and what the model can.

    Raises:
        DataError: more tokens are asked for than the model can take.
    """
    if max_length is not None and max_length > encoder.context_length:
        message = f"data.max_length is {max_length:,}, but the model takes at most {encoder.context_length:,} tokens."
        raise DataError(message, "Set data.max_length to auto or to a smaller number.")
    whole: list[Encoded] = []
    problems: list[Problem] = []
    for found in encoder.encode_all(judged.examples, train_on):
        if isinstance(found, Problem):
            problems.append(found)
        else:
            whole.append(found)
    lengths = [len(row.input_ids) for row in whole]
    if max_length is None:
        longest = min(max(lengths, default=0), AUTO_MAX_TOKENS, encoder.context_length)
        max_length = max(longest, SHORTEST_MAX_TOKENS)
    rows = []
    for row in whole:
        kept, problem = _cut(row, max_length)
        if problem:
            problems.append(problem)
        if kept:
            rows.append(kept)
    over_limit = sum(length > max_length for length in lengths)
    return Tokenised(rows, lengths, max_length, over_limit, sorted(problems, key=lambda problem: problem.line))


def _cut(row: Encoded, max_length: int) -> tuple[Encoded | None, Problem | None]:
    if not row.trained_tokens:
        return None, Problem(row.line, "no_trainable_tokens", "nothing in the row would be trained on.")
    length = len(row.input_ids)
    if length <= max_length:
        return row, None
    lost = f"{length - max_length:,} of {length:,} tokens are lost beyond data.max_length ({max_length:,})"
    kept = replace(row, input_ids=row.input_ids[:max_length], labels=row.labels[:max_length])
    if not kept.trained_tokens:
        message = f"{lost}, the whole answer among them: nothing is left to train on."
        return None, Problem(row.line, "no_trainable_tokens", message)
    gone = sum(label != NOT_TRAINED for label in row.labels[max_length:])
    what = (
        f"{gone:,} tokens of the answer are among them, its end too" if gone else "no token of an answer is among them"
    )
    if NOT_TRAINED not in row.labels:
        what = "the row's end is not learned"
    return kept, Problem(row.line, "over_long", f"{lost}; {what}.", "cut")
