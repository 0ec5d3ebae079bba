"""Jobs as everybody sees them: read from the folders at each call, never from an index."""

import os
import re
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from spool.protocol import metrics
from spool.protocol.errors import NotFound
from spool.protocol.home import Home, State
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import is_ulid

DROP_BYTES = 256 * 1024
KINDS = ("train", "generate", "export", "evaluate")
"""Those of spool.protocol.spec, which takes long to load; what a drop says may be anything."""
SMALL_BYTES = 64 * 1024
_ATTEMPT = re.compile(r"[0-9]{4}\.json")


@dataclass
class Job:
    """One job, as `finetuner show --json` prints it. Times are UTC in ISO 8601."""

    id: str
    name: str
    kind: str
    state: str
    submitted_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    progress: dict[str, Any] = field(default_factory=lambda: {"step": 0, "total_steps": None, "eta_s": None})
    attempts: int = 0
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    priority: int | None = None
    sequence: int | None = None
    """With the priority before it: the place in the queue."""
    submitted_by: str | None = None
    """Who asked for it: the address that signed in to the web app, else the account that dropped the file."""
    account: str | None = None
    """The account that owned the dropped file."""
    model: str | None = None
    dataset: str | None = None
    retry_of: str | None = None
    submission_id: str | None = None
    dropped_name: str | None = None
    """What the dropped file was called."""
    phase: str | None = None
    waits: dict[str, Any] | None = None
    """Of a job that is tried again by itself: `why`, and `not_before` (ISO 8601)."""

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed", "cancelled", "rejected")


def now_iso() -> str:
    return iso(datetime.now(UTC).timestamp())


def iso(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def get_job(home: Home, job_id: str) -> Job:
    """One job by its id.

    Raises:
        NotFound: there is none.
    """
    for _ in range(2 if is_ulid(job_id) else 0):  # it may go to where was looked already
        found = Tokens(home).find(job_id)
        if found:
            return from_token(home, *found, Folders(home))
        if (home.rejected / job_id / "reason.json").exists():
            return from_rejected(home, job_id)
        for folder in (home.incoming, home.accepting):
            if os.path.lexists(folder / f"{job_id}.json"):
                return from_drop(folder / f"{job_id}.json", job_id)
    raise NotFound(f"there is no job {job_id!r}.", "`finetuner jobs` lists them.")


def list_jobs(home: Home, state: str | None = None) -> list[Job]:
    """All jobs, oldest first, or those in one state (a State, or "rejected")."""
    waiting: dict[str, Path] = {}
    placed: dict[str, tuple[State, Token]] = {}
    refused: list[str] = []
    # In the order in which jobs travel, and the queue once more (interrupted and released jobs go back to it), so that
    # none slips past; where one is seen twice, the later look counts.
    if state in (None, State.CHECKING.value):
        for folder in (home.incoming, home.accepting):
            waiting |= {path.stem: path for path in folder.glob("*.json") if is_ulid(path.stem)}
    for each in (*State, State.QUEUED):
        if state in (None, each.value):
            placed |= {token.job_id: (each, token) for token in Tokens(home).list(each)}
    if state in (None, "rejected") and home.rejected.exists():
        refused = [n for n in os.listdir(home.rejected) if is_ulid(n) and (home.rejected / n / "reason.json").exists()]
    jobs = {job_id: from_drop(path, job_id) for job_id, path in waiting.items() if job_id not in placed}
    jobs |= {job_id: from_rejected(home, job_id) for job_id in refused}
    folders = Folders(home)
    jobs |= {job_id: from_token(home, *where, folders) for job_id, where in placed.items()}
    return sorted(jobs.values(), key=lambda job: (job.submitted_at or "", job.id))


def job_ids(home: Home) -> set[str]:
    """The ids of all jobs, without opening a file."""
    ids = {token.job_id for state in State for token in Tokens(home).list(state)}
    ids |= {path.stem for folder in (home.incoming, home.accepting) for path in folder.glob("*.json")}
    ids |= {path.name for path in home.rejected.glob("*")}
    return {job_id for job_id in ids if is_ulid(job_id)}


def attempt_files(home: Home, job_id: str) -> list[Path]:
    folder = home.run(job_id).attempts
    return [folder / name for name in _attempts(str(folder))]


def _attempts(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if _ATTEMPT.fullmatch(name))
    except (FileNotFoundError, NotADirectoryError):
        return []


class Folders:
    """The folders of tokens and runs as texts: making a Path for each of 10,000 jobs would take a second."""

    def __init__(self, home: Home) -> None:
        self.runs = str(home.runs)
        self.states = {state: str(home.state(state)) for state in State}


def from_token(home: Home, state: State, token: Token, folders: Folders) -> Job:
    body = _read(f"{folders.states[state]}/{token.filename}")
    if not body:  # it may have moved since it was listed
        state, token = Tokens(home).find(token.job_id) or (state, token)
        body = _read(f"{folders.states[state]}/{token.filename}")
    job = Job(token.job_id, body.get("name") or token.job_id, body.get("kind") or "train", state.value)
    job.submitted_at = body.get("submitted_at")
    job.submitted_by, job.account = body.get("submitted_by"), body.get("account")
    job.model, job.dataset, job.retry_of = body.get("model"), body.get("dataset"), body.get("retry_of")
    job.submission_id, job.dropped_name = body.get("submission_id"), body.get("dropped_name")
    job.priority, job.sequence = token.priority, token.sequence
    attempts = _attempts(f"{folders.runs}/{token.job_id}/attempts")
    if state in (State.QUEUED, State.HELD) and not attempts:
        return job
    run = home.run(token.job_id)
    job.attempts = len(attempts)
    if attempts:
        job.started_at = _read(run.attempts / attempts[0]).get("started_at")
        row = metrics.last(run.metrics) or {}
        job.progress = {name: row.get(name) for name in ("step", "total_steps", "eta_s")}
        job.progress["step"] = row.get("step") or 0
    if state in (State.CHECKING, State.QUEUED):
        wait = _read(run.wait)
        job.waits = {"why": wait.get("why"), "not_before": iso(wait.get("not_before") or 0)} if wait else None
    if state in (State.CHECKING, State.RUNNING):
        event = metrics.last(run.events) or {}
        of_the_check = event.get("attempt") == 0
        job.phase = event.get("phase") if of_the_check == (state is State.CHECKING) else None
    if job.ended:
        outcome = _read(run.outcome)
        job.ended_at = outcome.get("ended_at")
        job.error = outcome.get("error") if state is State.FAILED else None
        job.progress["eta_s"] = None
        if state is State.DONE:
            job.result = _at_home(home, _read(run.result).get("result"))
    return job


def _at_home(home: Home, result: Any) -> dict[str, Any] | None:
    """The result with absolute folders; they are stored relative to the home, which may be restored elsewhere."""
    if not isinstance(result, dict):
        return None
    folders: dict[str, Any] = {
        name: str(home.root / result[name]) for name in ("adapter", "merged") if result.get(name)
    }
    base = result.get("base")
    if isinstance(base, dict) and base.get("folder"):
        folders["base"] = {**base, "folder": str(home.root / base["folder"])}
    made = result.get("exports")
    if isinstance(made, dict):
        folders["exports"] = {
            name: {**each, "folder": str(home.root / each["folder"])} if each.get("folder") else each
            for name, each in made.items()
            if isinstance(each, dict)
        }
    told = result.get("report")
    if isinstance(told, dict) and isinstance(told.get("report"), str):
        folders["report"] = {**told, "report": str(home.root / told["report"])}
    return {**result, **folders}


def from_rejected(home: Home, job_id: str) -> Job:
    reason = _read(home.rejected / job_id / "reason.json")
    job = Job(job_id, reason.get("name") or reason.get("dropped_name") or job_id, "train", "rejected")
    job.submitted_at = job.ended_at = reason.get("rejected_at")
    job.submitted_by, job.account = reason.get("submitted_by"), reason.get("account")
    job.submission_id, job.dropped_name = reason.get("submission_id"), reason.get("dropped_name")
    job.error = {key: reason.get(key) for key in ("code", "message", "hint")} | {"errors": reason.get("errors", [])}
    return job


def from_drop(path: Path, job_id: str) -> Job:
    """Dropped, not yet taken: it counts as being checked."""
    job = Job(job_id, job_id, "train", State.CHECKING.value, dropped_name=path.name)
    try:
        # What lies there may be anything: a pipe that never answers, a link, gigabytes.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            info = os.fstat(fd)
            job.submitted_at = iso(info.st_mtime)
            spec = orjson.loads(os.read(fd, DROP_BYTES)) if stat.S_ISREG(info.st_mode) else {}
        finally:
            os.close(fd)
        job.name = str(spec.get("name") or job_id)[:120]
        job.kind = next((kind for kind in KINDS if kind == spec.get("kind")), "train")
    except (OSError, ValueError, AttributeError):
        pass
    return job


def _read(path: str | Path) -> dict[str, Any]:
    """A JSON object, or an empty one: a damaged or unreadable file must not take the whole list down."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, SMALL_BYTES)
            while len(data) % SMALL_BYTES == 0 and (more := os.read(fd, SMALL_BYTES)):
                data += more
        finally:
            os.close(fd)
        document = orjson.loads(data)
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
