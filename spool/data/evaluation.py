"""The rows of a job that evaluates: read and tokenised as a training's are, none of them kept away or dropped."""

from spool.data.judging.chat import Encoder
from spool.data.prepare import Task
from spool.protocol import durable
from spool.protocol.errors import FinetunerError
from spool.protocol.resolve import Places
from spool.protocol.spec import SCHEMA_VERSION, EvaluateSpec, JobSpec, load
from spool.protocol.training import Data, Limits

ONE_LABEL = {"one_label": 1.0}
"""Rows of one kind teach nothing; asking them is sensible."""


def task_of(spec: EvaluateSpec, model: str, places: Places, encoder: Encoder) -> Task:
    """What the rows of spec.dataset are made by, for the base `model`.

    Raises:
        FinetunerError: there is no such dataset.
    """
    assert spec.dataset is not None
    data = spec.data or _of_training(spec.job, places) or Data()
    asked = JobSpec(
        schema=SCHEMA_VERSION,  # type: ignore[call-arg]
        model=model,
        dataset=spec.dataset,
        data=data.model_copy(update={"eval_fraction": 0, "drop": [], "max_length": "auto"}),
        limits=Limits(max_fraction=ONE_LABEL),
    )
    return Task.of(asked, places, encoder)


def _of_training(job_id: str | None, places: Places) -> Data | None:
    """How a training has read its rows."""
    if job_id is None:
        return None
    try:
        known = load(durable.read_json(places.home.run(job_id).spec) or {})
    except (FinetunerError, OSError, ValueError):
        return None
    return known.data if isinstance(known, JobSpec) else None
