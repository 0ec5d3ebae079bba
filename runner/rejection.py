"""What becomes of a drop that is no job: rejected/ID with its bytes untouched and the reasons."""

import functools
import logging
import os
import pwd
from pathlib import Path
from typing import Any

from runner import taking
from spool.protocol import durable
from spool.protocol.errors import Problem
from spool.protocol.home import Home
from spool.protocol.jobs import now_iso

log = logging.getLogger("runner")


NEXT = "The file lies beside this as dropped.json, untouched. Corrected, it may be dropped again."


def reject(home: Home, path: Path, job_id: str, note: dict[str, Any], problems: list[Problem]) -> None:
    """The reasons are written first; moving the dropped bytes beside them commits the rejection.

    Raises:
        OSError: it cannot be moved; no trace of the rejection is left then.
    """
    folder = home.rejected / job_id
    folder.mkdir(exist_ok=True)
    dropped_name = note.get("dropped_name") or taking.shown(path.name)
    reason = {
        **problems[0].to_json(),
        "dropped_name": dropped_name,
        "submission_id": note.get("submission_id"),
        "rejected_at": now_iso(),
        "submitted_by": note.get("submitted_by") or user_name(note.get("uid")),
        "account": user_name(note.get("uid")),
        "uid": note.get("uid"),
        "errors": [problem.to_json() for problem in problems],
    }
    lines = [f"{dropped_name} was not accepted as a job:", *(f"- {problem}" for problem in problems), NEXT]
    try:
        durable.write_new(folder / "reason.txt", ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))
        durable.write_new(folder / "reason.json", durable.to_bytes(reason))
        durable.sync(folder, home.rejected)
        where = taking.move_away(path, folder / "dropped.json")
    except OSError:
        undo(home, job_id)
        raise
    if where.parent != folder:
        durable.write_json(folder / "reason.json", {**reason, "kept_at": str(where)})
    log.info("rejected %s %r: %s", job_id, dropped_name, problems[0])


def undo(home: Home, job_id: str) -> None:
    """Takes back reasons whose drop was never moved away: it is judged again, perhaps by another id, and must not be
    listed twice. Does nothing where it was."""
    folder = home.rejected / job_id
    moved = [folder / "dropped.json", home.incoming / f"{taking.REJECTED}{job_id}"]
    if folder.is_dir() and not any(map(os.path.lexists, moved)):
        for name in ("reason.txt", "reason.json"):
            (folder / name).unlink(missing_ok=True)
        try:
            folder.rmdir()
        except OSError:
            pass  # somebody put a file there


@functools.lru_cache(maxsize=1000)
def user_name(uid: int | None) -> str | None:
    """The account of a user id, asked for once: behind a directory service that takes time."""
    if uid is None:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
