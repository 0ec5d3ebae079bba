"""What is exported and reported on: an adapter on its base, found again; and the rows that it was trained with."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from runner import bases
from runner.bases import Base
from runner.job import Attempt
from spool.data import prepared
from spool.data.judging.chat import Encoder
from spool.data.prepare import Task, prepare
from spool.data.prepared import Prepared
from spool.protocol import durable, formats, resolve
from spool.protocol.errors import FinetunerError
from spool.protocol.resolve import Trained
from spool.protocol.spec import JobSpec, load


@dataclass(frozen=True)
class Source:
    """An adapter on its base, and where its exports go."""

    training: Trained
    base: Base
    exports: Path
    facts: dict[str, Any]
    """For lineage and model card: `job`, `name`, `base`, and of a training here its result and `settings`."""

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder.for_model(self.base.folder)

    @property
    def name(self) -> str:
        return formats.plain_name(self.training.name)


def of_result(spec: JobSpec, attempt: Attempt, result: dict[str, Any]) -> Source:
    """The training that has just come to this result."""
    known = result["base"]
    base = bases.at(known["reference"], attempt.home.root / known["folder"], known["revision"])
    name, folder = spec.name or attempt.job_id, attempt.home.root / result["adapter"]
    training = Trained(attempt.job_id, name, folder, base.folder, base.reference, base.revision)
    facts = {"job": attempt.job_id, "name": name, "settings": spec.to_json(), **result}
    return Source(training, base, attempt.run.exports, facts)


def find(job_id: str | None, adapter: str | None, attempt: Attempt) -> Source:
    """Of a finished training, or of the folder of an adapter.

    Raises:
        FinetunerError: the adapter or its base is gone, or the base is another one.
    """
    if job_id is None:
        training = attempt.places.adapter(str(adapter))
        base = bases.of_training(training, attempt)
        known = {"reference": base.reference, "revision": base.revision}
        return Source(training, base, attempt.run.exports, {"name": training.name, "base": known})
    training = resolve.trained(attempt.home, job_id)
    run = attempt.home.run(job_id)
    result = (durable.read_json(run.result) or {}).get("result") or {}
    base = bases.of_training(training, attempt)
    bases.check_unchanged(base, result.get("base") or {}, attempt)
    facts = {"job": job_id, "name": training.name, "settings": durable.read_json(run.spec) or {}, **result}
    return Source(training, base, run.exports, facts)


def rows(source: Source, attempt: Attempt) -> Prepared | None:
    """The training's rows, split as it split them: as it left them, else made once more; None where that cannot be."""
    if not source.training.job_id:
        return None
    run = attempt.home.run(source.training.job_id)
    if (data := prepared.load(run.data)) is not None:
        return data
    try:
        its = load(durable.read_json(run.spec))
        assert isinstance(its, JobSpec)
        return prepare(Task.of(its, attempt.places, source.encoder), attempt.run.data, attempt.phase)
    except (FinetunerError, OSError, ValueError) as error:
        attempt.note(f"the training's rows are gone ({error}).")
        return None
