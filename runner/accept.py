"""The intake: from files dropped into incoming/ to tokens in checking/, or to rejected/ with the reasons.

What has no data to check goes to queued/ at once. A drop is taken by one rename to accepting/ID.json and committed by
one rename of its token; whatever a crash leaves between the two is finished at the next start, under the same id.
"""

import errno
import hashlib
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from runner import rejection, taking
from runner.rejection import user_name
from runner.room import Room
from runner.submitters import Submitters, claim
from spool.protocol import durable, parse, resolve
from spool.protocol.errors import FinetunerError, Problem, SpecError
from spool.protocol.home import FINAL, Home, State
from spool.protocol.jobs import now_iso
from spool.protocol.spec import EvaluateSpec, ExportSpec, GenerateSpec, Spec
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import is_ulid, mint

__all__ = ["Intake", "user_name"]

log = logging.getLogger("runner")

LITTER = re.compile(
    r"\..*|.*~|~\$.*|#.*#|4913|.*\.(part|filepart|partial|swp|swx|tmp|crdownload|download)|.*___jb_(tmp|old)___"
    r"|desktop\.ini|Thumbs\.db",
    re.DOTALL,
)
"""What editors, browsers and copy programs leave behind on their way: never taken, never rejected."""

BATCH = 250
SCAN_S = 1.0
"""After so long a scan lets the rest of a flood wait for the next one: orders, heartbeat and jobs go on between."""
FAULTS_OF_ALL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ENOTCONN})
"""Errors of a read that are not the file's own: they halt. A bad sector under one drop does not."""
HOPELESS = frozenset({"not_a_file", "too_large"})
"""What no further byte would make a job spec of: rejected at once. The rest may still be on its way."""
FIRST_SEQUENCE = 1_000_000  # leaves room below for jobs that are moved to the top


@dataclass
class Seen:
    """A file in incoming/ since it last changed (monotonic seconds), and what is wrong with it as it stands."""

    signature: tuple[int, int, int, int]
    since: float
    problems: list[Problem] = field(default_factory=list)


class Intake:
    """Takes drops; only the daemon's main thread calls it.

    Args:
        room: how many jobs may wait; what is dropped beyond that is rejected as `queue_full`.
        submitters: whose drops may say who submitted them.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        home: Home,
        places: resolve.Places,
        settle_s: float,
        unreadable_s: float,
        clock: Callable[[], float] = time.monotonic,
        room: Room | None = None,
        submitters: Submitters | None = None,
    ) -> None:
        self.home = home
        self.places = places
        self.settle_s = settle_s
        self.unreadable_s = unreadable_s
        self.clock = clock
        self.room = room or Room(home, None, None)
        self.submitters = submitters or Submitters()
        self.tokens = Tokens(home)
        self.sequence = FIRST_SEQUENCE  # what `recover` finds is higher
        self.left: dict[str, str] = {}
        """What lies in incoming/ and can be neither taken nor moved away, with the reason. Told once, tried again."""
        self._seen: dict[str, Seen] = {}

    def recover(self) -> None:
        """Finishes what an earlier runner had taken, and purges its half-written temporary files."""
        self.sequence = max(self.sequence, self.tokens.last_sequence())
        for path in self.home.tmp.iterdir():
            path.unlink()
        for folder in self.home.rejected.iterdir():
            rejection.undo(self.home, folder.name)
        self._finish_copies(path for path in self.home.incoming.glob(f"{taking.TAKING}*"))
        taken = [path for path in self.home.accepting.glob("*.json") if is_ulid(path.stem)]
        taken.sort(key=lambda path: (taking.note_of(self.home, path.stem).get("order", 0), path.stem))
        known = {token.job_id for state in State for token in self.tokens.list(state)}
        for path in taken:
            if path.stem in known:
                path.unlink()
        fresh = [path.stem for path in taken if path.stem not in known]
        for start in range(0, len(fresh), BATCH):
            self._commit(fresh[start : start + BATCH])
        for path in [*self.home.accepting.glob("*.from"), *self.home.accepting.glob(".*.copy")]:
            path.unlink()

    def scan(self) -> float | None:
        """Takes every settled drop; gives the seconds until there may be more to do."""
        now = self.clock()
        settled, wait = self._settled(now)
        ready: list[tuple[str, bytes]] = []
        for path, info in settled:
            data = self._look(path, info, now)
            if data is not None:
                ready.append((path.name, data))
            if len(ready) == BATCH:
                self._take(ready)
                ready = []
            if self.clock() - now > SCAN_S:
                wait = 0.0
                break
        self._take(ready)
        return wait

    def _settled(self, now: float) -> tuple[list[tuple[Path, os.stat_result]], float | None]:
        """What has not changed for long enough, in the order of arrival, and when the youngest other will be ready."""
        found: dict[str, Seen] = {}
        settled: list[tuple[float, int, str, os.stat_result]] = []
        waits: list[float] = []
        copies: list[Path] = []
        for entry in os.scandir(self.home.incoming):
            if LITTER.fullmatch(entry.name):
                if entry.name.startswith(taking.TAKING):
                    copies.append(Path(entry.path))
                continue
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            signature = (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
            seen = self._seen.get(entry.name)
            if seen is None or seen.signature != signature:
                seen = Seen(signature, now)
            found[entry.name] = seen
            age = now - seen.since
            if age < self.settle_s:
                waits.append(self.settle_s - age)
            else:
                settled.append((seen.since, info.st_mtime_ns, entry.name, info))
        self._seen = found
        self.left = {name: why for name, why in self.left.items() if name in found}
        self._finish_copies(copies)
        settled.sort(key=lambda each: each[:3])
        return [(self.home.incoming / name, info) for *_, name, info in settled], min(waits, default=None)

    def _finish_copies(self, hidden: Iterable[Path]) -> None:
        """What a crash, or an incoming/ that was unmounted at that moment, left half taken."""
        done = [path.name.removeprefix(taking.TAKING) for path in hidden if taking.finish(self.home, path)]
        self._commit(done)

    def _look(self, path: Path, info: os.stat_result, now: float) -> bytes | None:
        """The bytes of a drop that is ready to be taken; rejects what never will be."""
        seen = self._seen[path.name]
        if not seen.problems:
            try:
                data = self._read(path, info)
                parse.parse_json(data)
                return data
            except FileNotFoundError:
                return None
            except SpecError as error:
                seen.problems = error.problems
            except OSError as error:
                if error.errno in FAULTS_OF_ALL:
                    raise
                self._leave(path, "read it", error)
                return None
        if now - seen.since >= (0 if seen.problems[0].code in HOPELESS else self.unreadable_s):
            self._turn_away(path, info, seen.problems)
        return None

    def _read(self, path: Path, info: os.stat_result) -> bytes:
        """Raises SpecError for what cannot be a spec, whatever its bytes."""
        if stat.S_ISDIR(info.st_mode):  # it may be on its way in
            raise SpecError([Problem("is_a_folder", "this is a folder.", "Drop the job spec itself.")])
        if not stat.S_ISREG(info.st_mode):
            message = "this is not a regular file (a link, pipe, socket or device)."
            raise SpecError([Problem("not_a_file", message, "Drop the job spec itself.")])
        if info.st_size > parse.MAX_BYTES:
            message = f"{info.st_size:,} bytes; a job spec has at most {parse.MAX_BYTES:,}."
            raise SpecError([Problem("too_large", message, "Data files go elsewhere: see dataset.")])
        try:
            data = taking.read_regular(path)
        except PermissionError:
            mode = stat.S_IMODE(info.st_mode)
            message = f"the runner may not read it: it belongs to {user_name(info.st_uid)} and has mode {mode:03o}."
            hint = "Make it readable (chmod a+r) and drop it again."
            raise SpecError([Problem("no_permission", message, hint)]) from None
        if len(data) != info.st_size:
            raise FileNotFoundError(f"{path} changes just now; the next scan sees that")
        return data

    def _take(self, drops: list[tuple[str, bytes]]) -> None:
        taken = []
        for order, (name, data) in enumerate(drops):
            path = self.home.incoming / name
            job_id = self._id_for(name)
            try:
                if taking.take(self.home, path, job_id, data, order):
                    taken.append(job_id)
                    self._seen.pop(name, None)
                    continue
            except OSError as error:
                if error.errno not in taking.ABOUT_THE_FILE:
                    raise
                self._leave(path, "take it", error)
            (self.home.accepting / f"{job_id}.from").unlink(missing_ok=True)
        if drops:
            # cp syncs nothing: from here on a drop's bytes are ours to keep, also those of one that is rejected
            bytes_of = [self.home.accepting / f"{job_id}.json" for job_id in taken]
            durable.sync_all([*bytes_of, self.home.incoming, self.home.accepting])
        self._commit(taken)

    def _commit(self, job_ids: list[str]) -> None:
        """Judges taken drops; the accepted ones become tokens in checking/. All fsyncs come before the renames."""
        if not job_ids:
            return
        self.room.look()
        claims: dict[Path, str] = {}
        judged = [found for job_id in job_ids if (found := self._judge(job_id, claims))]
        tokens = [token for token, _ in judged]
        runs = [self.home.run(token.job_id) for token in tokens]
        written = [path for run in runs for path in (run.spec_orig, run.spec, run.root)]
        written += [self.home.tmp / token.filename for token in tokens]
        for marker, job_id in claims.items():
            written.append(durable.write_unsynced(self.home.tmp / marker.name, job_id.encode() + b"\n"))
        durable.sync_all([*written, self.home.runs, self.home.tmp])
        for marker in claims:
            os.rename(self.home.tmp / marker.name, marker)
        if claims:
            durable.sync(self.home.submissions)
        for token, state in judged:
            os.rename(self.home.tmp / token.filename, self.tokens.path(state, token))
        durable.sync_all([self.home.tmp, self.home.state(State.CHECKING), self.home.state(State.QUEUED)])
        for job_id in job_ids:
            (self.home.accepting / f"{job_id}.json").unlink(missing_ok=True)
            (self.home.accepting / f"{job_id}.from").unlink(missing_ok=True)

    def _judge(self, job_id: str, claims: dict[Path, str]) -> tuple[Token, State] | None:
        """Writes the run folder and the token (in tmp/, unsynced) of a good spec; moves a bad one to rejected/.
        Gives the token and where it goes: what has no data to check waits for no check.

        `claims` collects the markers of submission ids that are written with the batch."""
        path = self.home.accepting / f"{job_id}.json"
        note = taking.note_of(self.home, job_id)
        note.setdefault("uid", path.lstat().st_uid)
        try:
            data = taking.read_regular(path)
            user, ignored = self.submitters.who(note["uid"], data)
            note["submitted_by"] = user
            spec = self._valid(data)
            markers = self._unclaimed(spec, job_id, claims)
            if problem := self.room.problem(user):
                raise SpecError([problem])
        except taking.NotADropError:
            rejection.reject(self.home, path, job_id, note, [Problem("not_a_file", "this is not a regular file.")])
            return None
        except SpecError as error:
            note["submission_id"] = claim(data, "submission_id")
            rejection.reject(self.home, path, job_id, note, error.problems)
            return None
        claims |= dict.fromkeys(markers, job_id)
        self.room.took(job_id, user)
        run = self.home.run(job_id)
        run.root.mkdir(exist_ok=True)
        named, model = spec.name or default_name(spec, self.home), spec.model
        settled: dict[str, str | None] = {}
        if model is not None:
            model = settled["model"] = self._repository(model)
        if spec.jobs:
            model = resolve.trained(self.home, spec.jobs[0]).reference
        durable.write_unsynced(run.spec_orig, data)
        settled |= {"name": named, "submitted_by": user}
        durable.write_unsynced(run.spec, durable.to_bytes({**spec.to_json(), **settled}))
        self.sequence += 1
        token = Token(spec.priority, self.sequence, job_id)
        body = {
            "id": job_id,
            "name": named,
            "kind": spec.kind,
            "model": model,
            "dataset": spec.dataset,
            "submitted_at": now_iso(),
            "submitted_by": user,
            "account": user_name(note["uid"]),
            "claimed_by": ignored,
            "uid": note["uid"],
            "spec_sha256": hashlib.sha256(data).hexdigest(),
            "dropped_name": note.get("dropped_name"),
            "submission_id": spec.submission_id,
            "retry_of": spec.retry_of,
        }
        durable.write_unsynced(self.home.tmp / token.filename, durable.to_bytes(body))
        if ignored:
            log.warning("%s says it was submitted by %r: an account that web_accounts does not name", job_id, ignored)
        log.info("accepted %s %r", job_id, named)
        return token, State.CHECKING if spec.dataset else State.QUEUED

    def _valid(self, data: bytes) -> Spec:
        spec = parse.parse_spec(data)
        unresolved = resolve.problems(spec, self.places)
        if unresolved:
            raise SpecError(parse.placed(unresolved, parse.decode(data)))
        return spec

    def _repository(self, model: str) -> str:
        """What a name of the catalogue stands for; any other reference as it is."""
        try:
            return self.places.model(model).reference
        except (FinetunerError, OSError):  # gone since it was judged: the job's check will say so
            return model

    def _unclaimed(self, spec: Spec, job_id: str, claims: dict[Path, str]) -> list[Path]:
        """The markers to write for the job. Raises SpecError where another job has its submission_id, or makes the same
        export just now."""
        markers = []
        if spec.submission_id is not None:
            markers.append(self.home.submission(spec.submission_id))
            if first := self._claimed(markers[0], job_id, claims):
                message = f"the same submission_id is job {first} already."
                hint = "Nothing is lost: look at that job."
                raise SpecError([Problem("duplicate_submission", message, hint, "/submission_id")])
        if isinstance(spec, ExportSpec):
            where = ["to", spec.push.repo] if spec.push else []
            what = " ".join(["export", spec.job or str(spec.adapter), *sorted(spec.export), *where])
            markers.append(self.home.submission(what))
            first = self._claimed(markers[-1], job_id, claims)
            if first and (first in claims.values() or self._lives(first)):
                message = f"job {first} makes the same export already."
                raise SpecError([Problem("duplicate_export", message, "Nothing is lost: look at that job.", "/export")])
        return markers

    def _claimed(self, marker: Path, job_id: str, claims: dict[Path, str]) -> str | None:
        """The other job that a marker names."""
        first = claims.get(marker)
        if first is None:
            try:
                first = marker.read_text(errors="replace").strip()
            except FileNotFoundError:
                first = ""
        # A marker whose job never came to be (a power cut, a folder that was removed) holds nobody up.
        known = first != job_id and is_ulid(first) and (marker in claims or self.home.run(first).root.exists())
        return first if known else None

    def _lives(self, job_id: str) -> bool:
        found = self.tokens.find(job_id)
        return found is not None and found[0] not in FINAL

    def _turn_away(self, path: Path, info: os.stat_result, problems: list[Problem]) -> None:
        """Rejects something that is not taken through accepting/: it never could be a spec."""
        note = {"dropped_name": taking.shown(path.name), "uid": info.st_uid}
        try:
            rejection.reject(self.home, path, self._id_for(path.name), note, problems)
            self._seen.pop(path.name, None)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in taking.ABOUT_THE_FILE:
                raise
            self._leave(path, f"move it away ({problems[0].message})", error)

    def _leave(self, path: Path, what: str, error: OSError) -> None:
        if path.name not in self.left:
            self.left[path.name] = f"cannot {what}: {error.strerror}"
            log.warning("%r in incoming/ stays there: %s", path.name, self.left[path.name])

    def _id_for(self, name: str) -> str:
        """The id that a submitter minted, while it is free; else a fresh one."""
        stem = name.removesuffix(".json")
        if stem == name or not is_ulid(stem):
            return mint()
        used = [self.home.run(stem).root, self.home.rejected / stem, self.home.accepting / f"{stem}.json"]
        return mint() if any(os.path.lexists(path) for path in used) else stem


def default_name(spec: Spec, home: Home) -> str:
    """Made from what the spec names, for people."""
    if isinstance(spec, GenerateSpec):
        who = resolve.trained(home, spec.job).name if spec.job else Path(spec.model or "").name
        return f"{'Chat with' if spec.interactive else 'Answers of'} {who}"[:120]
    if isinstance(spec, ExportSpec):
        whose = resolve.trained(home, spec.job).name if spec.job else Path(str(spec.adapter)).name
        where = f" to {spec.push.repo}" if spec.push else ""
        return f"{', '.join(spec.export)} of {whose}{where}"[:120]
    if isinstance(spec, EvaluateSpec):
        whose = resolve.trained(home, spec.job).name if spec.job else Path(str(spec.adapter)).name
        on = f" on {_plain(spec.dataset)}" if spec.dataset else ""
        return f"Report of {whose}{on}"[:120]
    return f"{Path(spec.model).name} on {_plain(spec.dataset)}"[:120]


def _plain(dataset: str) -> str:
    name = Path(dataset.partition("@")[0]).name
    return name.partition(".")[0] or name
