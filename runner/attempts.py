"""One try at a job: runs/ID/attempts/0001.json ..., and what its end means for the job."""

import os
import platform
import signal
from pathlib import Path
from typing import Any

from runner import checkpoint
from spool.health import failure
from spool.protocol import durable, metrics
from spool.protocol.home import Home
from spool.protocol.jobs import attempt_files, now_iso

POISON = 3
"""So many attempts in a row that crashed by themselves without a newer checkpoint end the job."""

MEMORY_POISON = 2
"""A kill for memory is tried once more: another program may have taken the memory. Then the job ends."""


def begin(home: Home, job_id: str) -> int:
    """Writes the record of a new attempt and gives its number, from 1."""
    run = home.run(job_id)
    run.attempts.mkdir(exist_ok=True)
    durable.sync(run.root)
    number = len(attempt_files(home, job_id)) + 1
    record = {
        "attempt": number,
        "started_at": now_iso(),
        "ended_at": None,
        "outcome": None,
        "resume_step": checkpoint.newest_step(run.checkpoints),
        "log_from_bytes": run.log.stat().st_size if run.log.exists() else 0,
        "boot_id": _boot_id(),
        "versions": {"python": platform.python_version(), "kernel": os.uname().release, **checkpoint.versions()},
    }
    durable.write_json(_path(home, job_id, number), record)
    return number


def end(home: Home, job_id: str, number: int, outcome: str, **details: Any) -> None:
    """Completes the record: finished, failed, cancelled, interrupted or crashed.

    An outcome once told stays: a runner that died before it had moved the token, or that had claimed the job anew and
    not begun, leaves it to the next one, which knows less.
    """
    path = _path(home, job_id, number)
    try:
        record = durable.read_json(path) or {"attempt": number}
    except ValueError:
        record = {"attempt": number}
    if record.get("outcome"):
        return
    begun_at = _begun_at(home, job_id, number)
    if begun_at is not None:  # at its begin nobody had verified the newest checkpoint
        record["resume_step"] = begun_at or None
    step = checkpoint.newest_step(home.run(job_id).checkpoints)
    record |= {"ended_at": now_iso(), "outcome": outcome, "checkpoint_step": step, **details}
    durable.write_json(path, record)


def _begun_at(home: Home, job_id: str, number: int) -> int | None:
    """The step that the attempt really went on from, as its trainer told; None where it did not get so far."""
    rows = metrics.read(home.run(job_id).events)
    return next((row["step"] for row in rows if row.get("attempt") == number and row.get("event") == "begun"), None)


def outcome(home: Home, job_id: str, number: int) -> str | None:
    """How the attempt ended, as far as it has been told."""
    try:
        return (durable.read_json(_path(home, job_id, number)) or {}).get("outcome")
    except ValueError:
        return None


def result_of(home: Home, job_id: str, number: int) -> dict[str, Any] | None:
    """The child's own last word, if it is about this attempt."""
    try:
        result = durable.read_json(home.run(job_id).result)
    except ValueError:
        return None
    return result if isinstance(result, dict) and result.get("attempt") == number else None


def how_it_ended(
    returncode: int | None, killed_for_memory: bool, what: str = "the job", stalled: bool = False
) -> tuple[str, str]:
    """(outcome, words) of a child that left no result. A stop from outside is no fault of the job's.

    Args:
        stalled: the daemon ended it because it gave no sign of life; the outcome is `stalled`.
    """
    if returncode == checkpoint.EXIT_INTERRUPTED and not stalled:
        return "interrupted", f"{what} was asked to stop"
    told = failure.explain_end(returncode, killed_for_memory, stalled, what=what)
    outcome = {"stalled": "stalled", "killed": "interrupted", "runner_ended": "interrupted"}.get(
        told["code"], "crashed"
    )
    return outcome, told["message"].rstrip(".")


def poison(home: Home, job_id: str) -> dict[str, Any] | None:
    """The error of a job that ended by its own fault POISON times in a row without a newer checkpoint, or None.

    Crashes, stalls and kills for memory are its own fault; a kill for memory is tried once more only. An attempt that
    was interrupted counts neither way, unless it got further.
    """
    records = _records(home, job_id)
    furthest, in_a_row = 0, list[dict[str, Any]]()
    for record in records:
        step = record.get("checkpoint_step") or 0
        if step > furthest:
            furthest, in_a_row = step, []
        elif record.get("outcome") in ("crashed", "stalled"):
            in_a_row.append(record)
        elif record.get("outcome") != "interrupted":
            in_a_row = []
    for_memory = [record for record in in_a_row if _killed_for_memory(record)]
    if len(in_a_row) < POISON and not (len(for_memory) == len(in_a_row) >= MEMORY_POISON):
        return None
    return _why_poison(home, job_id, in_a_row, furthest)


def _why_poison(home: Home, job_id: str, in_a_row: list[dict[str, Any]], step: int) -> dict[str, Any]:
    """Named by its cause where the last attempt's words show one, else by what was repeated."""
    last = in_a_row[-1]
    error = failure.explain_end(
        last.get("exit"),
        _killed_for_memory(last),
        last["outcome"] == "stalled",
        home.run(job_id).log,
        last.get("log_from_bytes") or 0,
    )
    ways = list(dict.fromkeys(str(record.get("why") or "the job crashed") for record in in_a_row))
    said = "; ".join(ways) if error["code"] in ("crashed", "stalled") or len(ways) > 1 else error["message"].rstrip(".")
    after = f"after the checkpoint of step {step}" if step else "before its first checkpoint"
    error["message"] = f"{said}, {len(in_a_row)} times in a row {after}."
    if error["code"] == "crashed":
        error["code"] = "crash_loop"
    return error


def _killed_for_memory(record: dict[str, Any]) -> bool:
    """Any other SIGKILL comes from outside and makes the outcome `interrupted`."""
    return record.get("outcome") == "crashed" and record.get("exit") == -signal.SIGKILL


def _records(home: Home, job_id: str) -> list[dict[str, Any]]:
    found = []
    for path in attempt_files(home, job_id):
        try:
            record = durable.read_json(path)
        except ValueError:
            record = None
        found.append(record if isinstance(record, dict) else {})
    return found


def _path(home: Home, job_id: str, number: int) -> Path:
    return home.run(job_id).attempts / f"{number:04d}.json"


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
