"""The recipe of evaluating, top to bottom: benchmarks fetched, the adapter found, the rows to ask, then the report
(runner/report)."""

import time
from typing import Any

from runner.exports import sources
from runner.exports.sources import Source
from runner.job import Attempt
from runner.report import benchmarks, make
from runner.report.make import Bounds, Others
from spool.data import prepared
from spool.data.evaluation import task_of
from spool.data.prepare import prepare
from spool.protocol.spec import EvaluateSpec

_BEGAN = time.monotonic()


def evaluate(spec: EvaluateSpec, attempt: Attempt) -> dict[str, Any]:
    """Asks base and tuned model, and gives the job's `result`.

    Raises:
        FinetunerError: with a code, in words a person can act on.
        Stopped: on request.
    """
    chosen = None
    if spec.benchmarks:
        chosen = benchmarks.ready(spec.benchmarks, spec.benchmark_rows, spec.benchmark_chat, attempt)
    source = sources.find(spec.job, spec.adapter, attempt)
    others = _others(spec, source, attempt)
    bounds = Bounds(spec.max_minutes * 60, spec.rows, spec.general, _BEGAN)
    base = {"reference": source.base.reference, "folder": attempt.home.relative(source.base.folder)}
    told = make.report(source, attempt, bounds, others, chosen)
    return {
        "report": told,
        "of": source.training.job_id or None,
        "base": {**base, "revision": source.base.revision},
        "seconds": told["seconds"],
    }


def _others(spec: EvaluateSpec, source: Source, attempt: Attempt) -> Others | None:
    """The rows of the dataset that the spec names, as the job's check has left them."""
    if spec.dataset is None:
        return None
    data = prepared.load(attempt.run.data)
    if data is None:
        task = task_of(spec, source.base.reference, attempt.places, source.encoder)
        data = prepare(task, attempt.run.data, attempt.phase)
    trained_on = (source.facts.get("dataset") or {}).get("sha256")
    return Others(spec.dataset, data, data.dataset["sha256"] == trained_on)
