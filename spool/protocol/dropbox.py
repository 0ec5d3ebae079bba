"""The two doors into the runner: specs into incoming/, orders into control/. Works with no runner alive."""

import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from spool.protocol import durable, jobs
from spool.protocol.errors import FinetunerError, NotFound
from spool.protocol.home import Home
from spool.protocol.ulid import is_ulid, mint

VERBS = {
    "cancel": ("checking", "queued", "held", "running"),
    "hold": ("checking", "queued"),
    "release": ("held",),
    "top": ("checking", "queued"),
    "up": ("checking", "queued"),
    "down": ("checking", "queued"),
    "priority": ("checking", "queued", "held"),
}
"""Which job may be asked what. The runner does it as soon as it has accepted the job; only hold waits for its check."""

WHOLE = ("hold", "drain", "release", "look")
"""Orders that name no job."""

PRIORITIES = range(10)

_ORDER = re.compile(r"([a-z]+)([0-9]?)-([0-7][0-9A-HJKMNP-TV-Z]{25})")


class Order(NamedTuple):
    """A file in control/. Orders to the whole queue have no `job_id`; `level` is the priority that is asked for."""

    name: str
    verb: str
    job_id: str = ""
    level: int | None = None


_asked_by: Callable[[], str | None] = lambda: None  # noqa: E731


def asked_by(who: Callable[[], str | None]) -> None:
    """Says who asks, in a process that serves people who have signed in: asked for each drop and each order."""
    global _asked_by
    _asked_by = who


def submit(home: Home, spec: bytes | dict[str, Any], job_id: str | None = None) -> str:
    """Drops a spec as ID.json and gives the id. Handing in the same `job_id` again drops nothing new.

    The runner judges the spec: a wrong one is found in rejected/ID with its reasons. Who asks stands in it as
    `submitted_by`, in place of what a spec of another job says; bytes are dropped as they are.
    """
    if not isinstance(spec, bytes):
        spec = {name: value for name, value in spec.items() if name != "submitted_by"}
        by = _asked_by()
        spec |= {"submitted_by": by} if by else {}
    home.create()
    job_id = job_id or mint()
    try:
        jobs.get_job(home, job_id)
    except NotFound:
        data = spec if isinstance(spec, bytes) else durable.to_bytes(spec)
        durable.write_atomic(home.incoming / f"{job_id}.json", data)
    return job_id


def submitted(home: Home, submission_id: str) -> str | None:
    """The id of the job that a submission_id became, if it did."""
    try:
        return home.submission(submission_id).read_text().strip()
    except (OSError, ValueError):
        return None


def control(home: Home, verb: str, job_id: str, level: int | None = None) -> None:
    """Asks the runner for one of VERBS; `level` is the priority, 0 (first) to 9, that a job shall have.

    Raises:
        NotFound: no such job.
        FinetunerError: the job has ended, or nothing can come of it in the job's state.
    """
    if (verb == "priority") != (level in PRIORITIES):
        raise FinetunerError(f"{level} is no priority.", "It is a whole number from 0 (first) to 9.", "bad_value")
    job = jobs.get_job(home, job_id)
    if job.ended:
        raise FinetunerError(f"job {job_id} has ended ({job.state}).", "Nothing is left to do.", "already_ended")
    if job.state not in VERBS[verb]:
        hint = f"Only a {' or '.join(VERBS[verb])} job can be asked that."
        raise FinetunerError(f"cannot {verb} job {job_id}: it is {job.state}.", hint, "wrong_state")
    home.create()
    _order(home, f"{verb}{'' if level is None else level}-{job_id}")


def queue(home: Home, verb: str) -> None:
    """Asks the runner to hold the whole queue, to drain (finish the job, start no other), or to release both."""
    home.create()
    _order(home, verb)


def orders(home: Home) -> list[Order]:
    """What has been asked of the runner and not been carried out yet, in the order in which it was asked."""
    found = []
    try:
        for name in os.listdir(home.control):
            match = _ORDER.fullmatch(name)
            level = int(match[2]) if match and match[2] else None
            order = Order(name, match[1], match[3], level) if match else Order(name, name)
            found.append((_given_at(home.control / name), order))
    except FileNotFoundError:
        return []
    return [order for _, order in sorted(found)]


def is_order(name: str) -> bool:
    """Whether the runner does something about a file of that name in control/."""
    match = _ORDER.fullmatch(name)
    if match is None:
        return name in WHOLE
    return match[1] in (*VERBS, "delete") and (match[1] == "priority") == bool(match[2])


def _given_at(path: Path) -> int:
    try:
        return path.lstat().st_mtime_ns
    except FileNotFoundError:  # just carried out
        return 0


def _order(home: Home, name: str) -> None:
    by, path = _asked_by(), home.control / name
    if path.exists():
        path.touch()  # the last time counts
    else:
        if by:
            durable.write_json(path, {"by": by})
        else:
            path.touch()
        with suppress(OSError):  # orders are carried out by their times, and the file system's clock is coarse
            os.utime(path, ns=(time.time_ns(),) * 2)
    durable.sync(home.control)  # a queue that was held stays held, also over a power cut


def look(home: Home) -> None:
    """Asks the runner to let the doctor look; what it says lies in spool/doctor.json some seconds later.

    Raises:
        OSError: control/ cannot be written to.
    """
    home.look.touch()


def cancel(home: Home, job_id: str) -> None:
    control(home, "cancel", job_id)


def retry(home: Home, job_id: str) -> str:
    """Drops a new job with the same spec and `retry_of`; gives the new id.

    Raises:
        NotFound: no such job.
        FinetunerError: the job still waits or runs, or was rejected.
    """
    job = jobs.get_job(home, job_id)
    if job.state == "rejected":
        raise FinetunerError(f"job {job_id} was rejected: its spec is wrong.", "Correct it and submit it.", "rejected")
    if not job.ended:
        raise FinetunerError(f"job {job_id} is {job.state}.", "Retry it after it has ended.", "not_ended")
    spec = dropped_spec(home, job_id)
    spec.pop("submission_id", None)
    return submit(home, {**spec, "retry_of": job_id})


def dropped_spec(home: Home, job_id: str) -> dict[str, Any]:
    """The spec of an accepted job as somebody dropped it, without what it says to editors: only what differs from
    the defaults, mostly.

    Raises:
        FinetunerError: it cannot be read any more.
    """
    if not is_ulid(job_id):
        raise FinetunerError(f"{job_id!r} is no job's id.", "`finetuner jobs` lists them.", "lost")
    try:
        spec = json.loads(home.run(job_id).spec_orig.read_bytes().decode("utf-8-sig"))
        if not isinstance(spec, dict):
            raise ValueError("it is no JSON object")
        spec.pop("$schema", None)
    except (OSError, ValueError) as error:
        raise FinetunerError(f"the spec of job {job_id} cannot be read: {error}", "Submit it anew.", "lost") from None
    return spec
