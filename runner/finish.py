"""What follows a training, in its process begun anew: further exports, then the report. Neither takes from it."""

import time
import traceback
from typing import Any

from runner.job import Attempt
from spool.health import failure
from spool.protocol import settings
from spool.protocol.redact import redact
from spool.protocol.spec import JobSpec

_BEGAN = time.monotonic()
"""Loading the libraries counts."""

MEMORY_HINT = "Free memory on the machine, then drop a job of kind evaluate."


def wanted(spec: JobSpec, attempt: Attempt) -> bool:
    """Whether anything follows."""
    return spec.export != ["adapter"] or _report_s(spec, attempt) > 0


def finish(spec: JobSpec, attempt: Attempt, result: dict[str, Any]) -> dict[str, Any]:
    """The result of a training, with its exports and its report.

    Raises:
        Stopped: on request; the next attempt goes on with what is missing.
    """
    began = _BEGAN
    if spec.export != ["adapter"]:
        result = {**result, **_exports(spec, attempt, result)}
        began = time.monotonic()
    if seconds := _report_s(spec, attempt):
        result = {**result, "report": _report(spec, attempt, result, seconds, began)}
    return result


def _report_s(spec: JobSpec, attempt: Attempt) -> float:
    return settings.load(attempt.home).report_s if spec.report else 0.0


def _exports(spec: JobSpec, attempt: Attempt, result: dict[str, Any]) -> dict[str, Any]:
    from runner.exports import make, sources

    try:
        made = make.make(sources.of_result(spec, attempt, result), spec.export, attempt)
    except Exception as error:
        if attempt.stop.requested:
            raise
        told = make.explained(error, "exports", attempt)
        made = {each: {"state": "failed", "error": told} for each in spec.export if each != "adapter"}
    merged = {"merged": made["merged"]["folder"]} if made.get("merged", {}).get("folder") else {}
    return {**merged, "exports": made}


def _report(spec: JobSpec, attempt: Attempt, result: dict[str, Any], seconds: float, began: float) -> dict[str, Any]:
    """What the result tells of the report; {"error": ...} where none could be made."""
    from runner.exports import sources
    from runner.report import make

    try:
        return make.report(sources.of_result(spec, attempt, result), attempt, make.Bounds(seconds, began=began))
    except Exception as error:
        if attempt.stop.requested:
            raise
        print(redact(traceback.format_exc()), flush=True)
        told = failure.explain_exception(error, broke_off="the report broke off: ", memory_hint=MEMORY_HINT)
        attempt.note(f"there is no report: {told['message']}")
        return {"error": told}
