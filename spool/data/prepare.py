"""From a file to the rows of a training: the spec's auto rules, the split, and the rule that blocks a job."""

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from spool.data.chat import Encoded, Encoder
from spool.data.formats import Layout
from spool.data.judge import judge, resolve_train_on, tokenise
from spool.data.table import Problem, count_dropped, in_words
from spool.protocol.errors import DataError
from spool.protocol.spec import Data

AUTO_EVAL_FRACTION = 0.05
AUTO_EVAL_MOST_ROWS = 200
AUTO_EVAL_FROM_ROWS = 100


@dataclass
class Prepared:
    """What a training needs of its data, with every auto resolved."""

    train: list[Encoded]
    eval: list[Encoded]
    layout: Layout
    problems: list[Problem]
    train_on: str
    max_length: int
    eval_fraction: float
    counts: dict[str, int]
    """rows, usable, dropped, over_long, train, eval, tokens, trained_tokens."""


def prepare(path: Path, data: Data, encoder: Encoder, seed: int, max_problem_fraction: float = 0.1) -> Prepared:
    """The rows to train and to evaluate on. The same file, settings and seed give the same split.

    Raises:
        DataError: the file cannot be read, or too many of its rows cannot be trained on (`data_blocked`).
    """
    judged = judge(path, data.format, data.mapping)
    train_on = resolve_train_on(data.train_on, judged.layout)
    max_length = None if data.max_length == "auto" else data.max_length
    tokens = tokenise(judged, encoder, train_on, max_length)
    problems = sorted(judged.problems + tokens.problems, key=lambda problem: problem.line)
    refuse_bad_data(judged.table.path.name, judged.table.rows, problems, max_problem_fraction)

    usable = len(tokens.rows)
    held_out = eval_rows(usable, data.eval_fraction)
    chosen = set(random.Random(seed).sample(range(usable), held_out))
    train = [row for index, row in enumerate(tokens.rows) if index not in chosen]
    evaluation = [row for index, row in enumerate(tokens.rows) if index in chosen]
    counts = {
        "rows": judged.table.rows,
        "usable": usable,
        "dropped": count_dropped(problems),
        "over_long": tokens.over_limit,
        "train": len(train),
        "eval": len(evaluation),
        "tokens": sum(len(row.input_ids) for row in tokens.rows),
        "trained_tokens": sum(row.trained_tokens for row in tokens.rows),
    }
    fraction = held_out / usable if data.eval_fraction == "auto" else data.eval_fraction
    return Prepared(train, evaluation, judged.layout, problems, train_on, tokens.max_length, fraction, counts)


def refuse_bad_data(name: str, rows: int, problems: list[Problem], max_problem_fraction: float) -> None:
    """Blocks what must not train.

    Raises:
        DataError: no row, or more than `max_problem_fraction` of them, cannot be trained on.
    """
    dropped = count_dropped(problems)
    if dropped < rows and dropped <= max_problem_fraction * rows:
        return
    causes = Counter(problem.code for problem in problems if problem.action == "dropped")
    counted = ", ".join(f"{code} {count:,}" for code, count in causes.most_common(5))
    if dropped == rows:
        which = f"none of the {rows:,} rows" if rows != 1 else "the only row"
        verb = "can be trained on" if rows != 1 else "cannot be trained on"
        message = f"{name}: {which} {verb} ({counted}). {in_words(problems)}"
    else:
        limit = f"{max_problem_fraction:.0%}" if max_problem_fraction else "0"
        message = (
            f"{name}: {dropped:,} of {rows:,} rows ({dropped / rows:.0%}) cannot be trained on, more than the "
            f"{limit} allowed ({counted}). {in_words(problems)}"
        )
    hint = f"`finetuner check {name}` lists every row. Correct them"
    hint += ", or raise limits.max_problem_fraction." if dropped < rows else ", or name the columns with data.mapping."
    raise DataError(message, hint, "data_blocked")


def eval_rows(usable: int, fraction: float | str) -> int:
    """How many rows are kept away from training; at least one stays in it."""
    if fraction == "auto":
        if usable < AUTO_EVAL_FROM_ROWS:
            return 0
        return min(AUTO_EVAL_MOST_ROWS, round(AUTO_EVAL_FRACTION * usable))
    assert not isinstance(fraction, str)
    wanted = max(1, round(fraction * usable)) if fraction else 0
    return min(wanted, usable - 1)
