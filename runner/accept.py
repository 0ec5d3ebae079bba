"""The intake: from files dropped into incoming/ to tokens in checking/, or to rejected/ with the reasons.

A drop is taken by one rename to accepting/ID.json and committed by one rename of its token into checking/; whatever
a crash leaves between the two is finished at the next start, under the same id.
"""

import logging
import os
import pwd
import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spool.protocol import durable, parse, resolve
from spool.protocol.errors import Problem, SpecError
from spool.protocol.home import Home, State
from spool.protocol.jobs import now_iso
from spool.protocol.spec import JobSpec
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import is_ulid, mint

log = logging.getLogger("runner")

LITTER = re.compile(r"\..*|.*~|#.*#|4913|.*\.(part|filepart|swp|swx|tmp|crdownload)")
"""What editors, browsers and copy programs leave behind on their way: never taken, never rejected."""

BATCH = 250
FIRST_SEQUENCE = 1_000_000  # leaves room below for jobs that are moved to the top


@dataclass
class Seen:
    """A file in incoming/ since it last changed (monotonic seconds)."""

    signature: tuple[int, int, int]
    since: float


class Intake:
    """Takes drops; only the daemon's main thread calls it."""

    def __init__(
        self,
        home: Home,
        places: resolve.Places,
        settle_s: float,
        unreadable_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.home = home
        self.places = places
        self.settle_s = settle_s
        self.unreadable_s = unreadable_s
        self.clock = clock
        self.tokens = Tokens(home)
        self.sequence = max(self.tokens.last_sequence(), FIRST_SEQUENCE)
        self._seen: dict[str, Seen] = {}
        self._skipped: set[str] = set()

    def recover(self) -> None:
        """Finishes what an earlier runner had taken, and purges its half-written temporary files."""
        for path in self.home.tmp.iterdir():
            path.unlink()
        for folder in self.home.rejected.iterdir():
            discard_uncommitted(folder)
        taken = [path.stem for path in self.home.accepting.glob("*.json") if is_ulid(path.stem)]
        self._commit(sorted(taken))
        for path in self.home.accepting.glob("*.from"):
            path.unlink()

    def scan(self) -> float | None:
        """Takes every settled drop; gives the seconds until a file that is still young may be ready."""
        now = self.clock()
        entries = {e.name: e for e in os.scandir(self.home.incoming) if not LITTER.fullmatch(e.name)}
        self._seen = {name: seen for name, seen in self._seen.items() if name in entries}
        waits: list[float] = []
        ready: list[tuple[float, int, str, bytes]] = []
        for name, entry in entries.items():
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            signature = (info.st_ino, info.st_size, info.st_mtime_ns)
            seen = self._seen.get(name)
            if seen is None or seen.signature != signature:
                seen = self._seen[name] = Seen(signature, now)
            age = now - seen.since
            if age < self.settle_s:
                waits.append(self.settle_s - age)
                continue
            data = self._look(entry, info, age)
            if data is not None:
                ready.append((seen.since, info.st_mtime_ns, name, data))
        ready.sort()
        for start in range(0, len(ready), BATCH):
            self._take([(name, data) for _, _, name, data in ready[start : start + BATCH]])
        return min(waits, default=None)

    def _look(self, entry: os.DirEntry[str], info: os.stat_result, age: float) -> bytes | None:
        """The bytes of a drop that is ready to be taken; rejects what never will be."""
        path = Path(entry.path)
        if not stat.S_ISREG(info.st_mode):
            if not stat.S_ISDIR(info.st_mode) or age >= self.unreadable_s:
                what = "a folder" if stat.S_ISDIR(info.st_mode) else "not a regular file (a link, pipe or device)"
                self._turn_away(path, Problem("not_a_file", f"this is {what}.", "Drop the job spec itself."))
            return None
        if info.st_size > parse.MAX_BYTES:
            message = f"{info.st_size:,} bytes; a job spec has at most {parse.MAX_BYTES:,}."
            self._turn_away(path, Problem("too_large", message, "Data files go elsewhere: see dataset."))
            return None
        try:
            data = read_regular(path)
            parse.parse_json(data)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._skip_once(path, f"cannot read it: {error.strerror}")
            return None
        except SpecError as error:
            if age >= self.unreadable_s:
                self._turn_away(path, *error.problems)
            return None
        return data

    def _take(self, drops: list[tuple[str, bytes]]) -> None:
        taken = []
        for name, data in drops:
            job_id = self._id_for(name)
            if self._rename_in(self.home.incoming / name, job_id):
                try:
                    same = read_regular(self.home.accepting / f"{job_id}.json") == data
                except OSError:
                    same = False
                if same:
                    taken.append(job_id)
                else:  # written to between our look and our rename: it is a new drop
                    os.rename(self.home.accepting / f"{job_id}.json", self.home.incoming / f"{job_id}.json")
        if drops:
            durable.sync_all([self.home.incoming, self.home.accepting])
        self._commit(taken)

    def _rename_in(self, path: Path, job_id: str) -> bool:
        try:
            info = path.lstat()
            note = {"dropped_name": os.fsencode(path.name).decode("utf-8", "backslashreplace"), "uid": info.st_uid}
            (self.home.accepting / f"{job_id}.from").write_bytes(durable.to_bytes(note))
            os.rename(path, self.home.accepting / f"{job_id}.json")
        except FileNotFoundError:
            return False
        except OSError as error:
            self._skip_once(path, f"cannot take it: {error.strerror}")
            return False
        self._seen.pop(path.name, None)
        return True

    def _commit(self, job_ids: list[str]) -> None:
        """Judges taken drops; the accepted ones become tokens in checking/. All fsyncs come before the renames."""
        if not job_ids:
            return
        known = {token.job_id for state in State for token in self.tokens.list(state)}
        accepted = [self._judge(job_id) for job_id in job_ids if job_id not in known]
        tokens = [token for token in accepted if token]
        runs = [self.home.run(token.job_id) for token in tokens]
        written = [path for run in runs for path in (run.spec_orig, run.spec, run.root)]
        written += [self.home.tmp / token.filename for token in tokens]
        durable.sync_all([*written, self.home.runs, self.home.tmp])
        for token in tokens:
            os.rename(self.home.tmp / token.filename, self.tokens.path(State.CHECKING, token))
        durable.sync_all([self.home.tmp, self.home.state(State.CHECKING)])
        for job_id in job_ids:
            (self.home.accepting / f"{job_id}.json").unlink(missing_ok=True)
            (self.home.accepting / f"{job_id}.from").unlink(missing_ok=True)

    def _judge(self, job_id: str) -> Token | None:
        """Writes the run folder and the token (in tmp/, unsynced) of a good spec; moves a bad one to rejected/."""
        path = self.home.accepting / f"{job_id}.json"
        note = durable.read_json(path.with_suffix(".from")) or {}
        data = path.read_bytes()
        try:
            spec = parse.parse_spec(data)
            unresolved = resolve.problems(spec, self.places)
            if unresolved:
                text = parse.decode(data)
                raise SpecError(parse.placed(unresolved, text))
            self._claim_submission(spec, job_id)
        except SpecError as error:
            self._reject(path, job_id, note, error.problems)
            return None
        run = self.home.run(job_id)
        run.root.mkdir(exist_ok=True)
        named = spec.name or default_name(spec)
        durable.write_unsynced(run.spec_orig, data)
        durable.write_unsynced(run.spec, durable.to_bytes({**spec.to_json(), "name": named}))
        self.sequence += 1
        token = Token(spec.priority, self.sequence, job_id)
        body = {
            "id": job_id,
            "name": named,
            "kind": spec.kind,
            "model": spec.model,
            "dataset": spec.dataset,
            "submitted_at": now_iso(),
            "submitted_by": user_name(note.get("uid")),
            "dropped_name": note.get("dropped_name"),
            "retry_of": spec.retry_of,
        }
        durable.write_unsynced(self.home.tmp / token.filename, durable.to_bytes(body))
        log.info("accepted %s %r", job_id, named)
        return token

    def _claim_submission(self, spec: JobSpec, job_id: str) -> None:
        if spec.submission_id is None:
            return
        marker = self.home.submission(spec.submission_id)
        try:
            first = marker.read_text().strip()
        except FileNotFoundError:
            durable.write_atomic(marker, job_id.encode() + b"\n")
            return
        if first != job_id:
            message = f"the same submission_id is job {first} already."
            problem = Problem("duplicate_submission", message, "Nothing is lost: look at that job.", "/submission_id")
            raise SpecError([problem])

    def _turn_away(self, path: Path, *problems: Problem) -> None:
        """Rejects something that is not taken through accepting/: it never could be a spec."""
        job_id = self._id_for(path.name)
        note = {"dropped_name": os.fsencode(path.name).decode("utf-8", "backslashreplace")}
        try:
            note["uid"] = path.lstat().st_uid  # type: ignore[assignment]
            self._reject(path, job_id, note, list(problems))
        except FileNotFoundError:
            pass
        except OSError as error:
            self._skip_once(path, f"cannot reject it: {error.strerror}")

    def _reject(self, path: Path, job_id: str, note: dict[str, Any], problems: list[Problem]) -> None:
        """The reasons are written first; moving the dropped bytes beside them commits the rejection."""
        folder = self.home.rejected / job_id
        folder.mkdir(exist_ok=True)
        dropped_name = note.get("dropped_name") or path.name
        first = problems[0]
        reason = {
            **first.to_json(),
            "dropped_name": dropped_name,
            "rejected_at": now_iso(),
            "submitted_by": user_name(note.get("uid")),
            "errors": [problem.to_json() for problem in problems],
        }
        lines = [f"{dropped_name} was not accepted as a job:", *(f"- {problem}" for problem in problems)]
        try:
            durable.write_new(folder / "reason.txt", ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))
            durable.write_new(folder / "reason.json", durable.to_bytes(reason))
            durable.sync(folder, self.home.rejected)
            durable.move(path, folder / "dropped.json")
        except OSError:
            discard_uncommitted(folder)
            raise
        log.info("rejected %s %r: %s", job_id, dropped_name, first)

    def _id_for(self, name: str) -> str:
        """The id that a submitter minted, while it is free; else a fresh one."""
        stem = name.removesuffix(".json")
        known = is_ulid(stem) and (self.home.run(stem).root.exists() or (self.home.rejected / stem).exists())
        return stem if is_ulid(stem) and not known else mint()

    def _skip_once(self, path: Path, why: str) -> None:
        if path.name not in self._skipped:
            self._skipped.add(path.name)
            log.warning("%r in incoming/: %s", path.name, why)


def read_regular(path: Path) -> bytes:
    """The bytes of a small regular file; never follows a link, never blocks on a pipe."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{path} is not a regular file")
        return os.read(fd, parse.MAX_BYTES + 1)
    finally:
        os.close(fd)


def discard_uncommitted(rejection: Path) -> None:
    """Removes the reasons of a rejection whose drop was never moved beside them: it is judged again, perhaps by another
    id, and must not be listed twice."""
    if not os.path.lexists(rejection / "dropped.json"):
        for name in ("reason.txt", "reason.json"):
            (rejection / name).unlink(missing_ok=True)
        rejection.rmdir()


def default_name(spec: JobSpec) -> str:
    dataset = Path(spec.dataset.partition("@")[0]).name
    return f"{Path(spec.model).name} on {dataset.partition('.')[0] or dataset}"[:120]


def user_name(uid: int | None) -> str | None:
    if uid is None:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
