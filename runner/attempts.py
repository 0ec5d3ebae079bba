"""One try at a job: runs/ID/attempts/0001.json ..., and what its end means for the job."""

import functools
import os
import platform
import signal
from importlib import metadata
from pathlib import Path
from typing import Any

from runner import checkpoint
from spool.protocol import durable
from spool.protocol.home import Home
from spool.protocol.jobs import attempt_files, now_iso

POISON = 3
"""So many attempts in a row that crashed by themselves without a newer checkpoint end the job."""

PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "unsloth", "unsloth_zoo", "bitsandbytes")


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
        "boot_id": _boot_id(),
        "versions": _versions(),
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
    step = checkpoint.newest_step(home.run(job_id).checkpoints)
    record |= {"ended_at": now_iso(), "outcome": outcome, "checkpoint_step": step, **details}
    durable.write_json(path, record)


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


def how_it_ended(returncode: int | None, killed_for_memory: bool, what: str = "the job") -> tuple[str, str]:
    """(outcome, words) of a child that left no result. A stop from outside is no fault of the job's."""
    if returncode is None:
        return "interrupted", f"the runner ended before {what} did"
    if killed_for_memory:
        return "crashed", f"the machine ran out of memory and the kernel killed {what}"
    if returncode in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP):
        return "interrupted", f"{what} was ended from outside ({signal.Signals(-returncode).name})"
    if returncode == checkpoint.EXIT_INTERRUPTED:
        return "interrupted", f"{what} was asked to stop"
    if returncode < 0:
        return "crashed", f"{what} crashed ({signal.Signals(-returncode).name})"
    return "crashed", f"{what} ended without a result (exit code {returncode})"


def poison(home: Home, job_id: str) -> dict[str, str] | None:
    """The error of a job that crashed by itself POISON times in a row without a newer checkpoint."""
    records: list[dict[str, Any]] = []
    for path in attempt_files(home, job_id):
        try:
            records.append(durable.read_json(path) or {})
        except ValueError:
            records.append({})
    crashed: list[dict[str, Any]] = []
    for record in reversed(records):
        if record.get("outcome") == "interrupted":
            continue
        if record.get("outcome") != "crashed" or (
            crashed and record.get("checkpoint_step") != crashed[0].get("checkpoint_step")
        ):
            break
        crashed.append(record)
    if len(crashed) < POISON:
        return None
    step = crashed[0].get("checkpoint_step") or 0
    return {
        "code": "crash_loop",
        "message": f"{crashed[0].get('why', 'the job crashed')}, {len(crashed)} times in a row after step {step}.",
        "hint": "Its log holds the last words. Other jobs go on.",
    }


def _path(home: Home, job_id: str, number: int) -> Path:
    return home.run(job_id).attempts / f"{number:04d}.json"


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


@functools.cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "kernel": os.uname().release}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return versions
