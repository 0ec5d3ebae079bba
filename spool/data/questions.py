"""Which rows of a dataset a job of kind generate asks: runs/ID/prompts.json, each with the answer that the row holds.

Of the dataset that the job's own training learned from, rows are asked that were kept for evaluation: what was learned
by heart shows nothing.
"""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spool.data import prepared
from spool.data.judging import arrow_rows
from spool.data.judging.chat import Encoder
from spool.data.prepare import Task, prepare
from spool.data.prepared import Prepared
from spool.protocol import durable
from spool.protocol.errors import DataError, FinetunerError
from spool.protocol.home import Run
from spool.protocol.resolve import Places
from spool.protocol.spec import GenerateSpec, JobSpec, load

Say = Callable[[str], None]


@dataclass(frozen=True)
class Question:
    """A conversation that ends with a question, and the answer that the dataset has for it."""

    messages: list[dict[str, Any]]
    reference: str | None = None

    @property
    def prompt(self) -> str:
        return str(self.messages[-1]["content"])


def of_spec(spec: GenerateSpec, run: Run, places: Places, encoder: Encoder, say: Say) -> list[Question]:
    """What the job asks, from its dataset or as its spec lists it, with the spec's `system` before each.

    What was chosen from a dataset is kept in runs/ID/prompts.json, so that every attempt asks the same.

    Raises:
        DataError: the dataset cannot be read, or has no row with a question and an answer.
    """
    if spec.prompts is not None:
        questions = [Question([{"role": "user", "content": prompt}]) for prompt in spec.prompts]
    else:
        questions = _kept(run.prompts) or _chosen(spec, run, places, encoder, say)
    if spec.system is None:
        return questions
    system = {"role": "system", "content": spec.system}
    return [Question([system, *each.messages], each.reference) for each in questions]


def choose(path: Path, rows: int, encoder: Encoder, count: int, seed: int | None) -> list[Question]:
    """So many of a file's tokenised rows, in their order; plain text asks nothing and is passed over.

    Args:
        rows: how many the file holds.
        seed: chooses; None takes rows at equal distances.
    """
    if seed is None:
        places = {round(i * (rows - 1) / max(1, count - 1)) for i in range(min(count, rows))}
    else:
        places = set(random.Random(seed).sample(range(rows), min(count, rows)))
    found = []
    for i, row in enumerate(arrow_rows.read(path)):
        if i in places and (conversation := encoder.conversation(row.input_ids.tolist())):
            found.append(Question(*conversation))
    return found


def _chosen(spec: GenerateSpec, run: Run, places: Places, encoder: Encoder, say: Say) -> list[Question]:
    data = _rows_of_own_training(spec, run, places, encoder, say) or _rows_of_any(spec, run, places, encoder, say)
    path, rows = (data.eval, data.eval_rows) if data.eval else (data.train, data.train_rows)
    questions = choose(path, rows, encoder, spec.rows, spec.seed)
    if not questions:
        message = f"{Path(str(spec.dataset)).name} has no row with a question and an answer."
        raise DataError(message, "Name a dataset with both, or list the prompts.", "data_blocked")
    durable.write_json(run.prompts, {"v": 1, "questions": [asdict(each) for each in questions]})
    say(f"{len(questions):,} questions are chosen")
    return questions


def _rows_of_own_training(spec: GenerateSpec, run: Run, places: Places, encoder: Encoder, say: Say) -> Prepared | None:
    """The rows of the job's training where it learned from this dataset: as it left them, else made once more."""
    if spec.job is None:
        return None
    training = places.home.run(spec.job)
    its = load(durable.read_json(training.spec))
    assert isinstance(its, JobSpec)
    if not _same_dataset(str(spec.dataset), its.dataset, places):
        return None
    data = prepared.load(training.data)
    if data is None or data.tokenizer_sha256 != encoder.identity:
        data = prepare(Task.of(its, places, encoder), run.data, say)
    if data.eval is None:
        say("the training kept no rows for evaluation: rows are asked that it learned from")
    return data


def _same_dataset(one: str, other: str, places: Places) -> bool:
    try:
        return one == other or places.dataset(one) == places.dataset(other)
    except FinetunerError:
        return False


def _rows_of_any(spec: GenerateSpec, run: Run, places: Places, encoder: Encoder, say: Say) -> Prepared:
    """All rows of the dataset that ask something; nothing blocks, for nothing is learned."""
    document = {
        "schema": 1,
        "model": "any",
        "dataset": spec.dataset,
        "data": {"eval_fraction": 0},
        "limits": {"max_problem_fraction": 1, "max_fraction": {"one_label": 1}},
    }
    return prepare(Task.of(JobSpec.model_validate(document), places, encoder), run.data, say)


def _kept(path: Path) -> list[Question]:
    try:
        document = durable.read_json(path) or {}
        return [Question(each["messages"], each["reference"]) for each in document.get("questions", [])]
    except (ValueError, TypeError, KeyError):
        return []
