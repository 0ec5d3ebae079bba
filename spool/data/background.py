"""A report on a file, made in a process of its own: first from a sample, then whole, with its progress in a file.

Run as: python -m spool.data.background --home DIR --lock FD KEY     (pages do, through `ask`)

HOME/cache/reports/KEY/ has request.json, state.json (stage, done, total, complete, error), report.json, rows.npy (where
rows start, once for all models and formats), and lock. Who asks takes the lock and hands it to the process that it
starts: nobody has to guess whether one works, and there are never two. At most two work at once; the others wait.
"""

import argparse
import copy
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from spool.data.reading.source import signature
from spool.protocol import durable, settings
from spool.protocol.errors import DataError, FinetunerError
from spool.protocol.home import Home
from spool.protocol.process import search_path, step_back

if TYPE_CHECKING:
    from spool.data.judging.scan import Scan

SAMPLE_ROWS = 2_000
AT_ONCE = 2
TRIES = 2
TRIES_COUNT_S = 3600
"""A try that ended without a result counts so long: what killed it may be gone."""
TELL_EVERY_S = 0.5
STARTING, WAITING = "starting", "waiting for other files to be checked"
KEPT_REPORTS, KEPT_S = 200, 30 * 86_400


@dataclass(frozen=True)
class Request:
    """What is asked about a file; equal requests about unchanged files are one report."""

    path: str
    format: str = "auto"
    mapping: tuple[tuple[str, str], ...] = ()
    encoding: str = "auto"
    delimiter: str = "auto"
    header: bool | None = None
    model_folder: str | None = None
    max_length: int | None = None

    def folder(self, home: Home) -> Path:
        """Where its report is made. Raises DataError where there is no such file."""
        limits = settings.load(home).data_limits.model_dump()
        parts = [asdict(self), signature(Path(self.path)), _changed(self.model_folder), limits, _rules()]
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
        return home.cache / "reports" / key

    def places(self, home: Home) -> Path:
        """The file with where its rows start, which neither the model nor the format changes."""
        return replace(self, format="auto", mapping=(), model_folder=None, max_length=None).folder(home) / "rows.npy"


@cache
def _rules() -> str:
    """What reads and judges, as one hash: after an update the same bytes may be found to be something else."""
    here = Path(__file__).parent
    modules = sorted(path for part in ("reading", "judging") for path in (here / part).glob("*.py"))
    return hashlib.sha256(b"".join(map(Path.read_bytes, modules))).hexdigest()


@dataclass(frozen=True)
class Progress:
    """How far a report is."""

    report: dict[str, Any] | None
    """The report so far: of the whole file when `complete`, else of its first rows, or None."""
    complete: bool
    stage: str
    done: int
    total: int
    error: dict[str, Any] | None


def ask(home: Home, request: Request) -> Progress:
    """What is known; starts the work where nobody does it. Cheap enough to ask each second.

    Raises:
        DataError: there is no such file.
    """
    folder = request.folder(home)
    known = _read(folder)
    if known.complete or known.error:
        return known
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "ab") as lock:
        if not _locks(lock):
            return known
        known = _read(folder)  # it may have ended between the two looks
        if known.complete or known.error:
            return known
        return _tried_again(home, folder, request, lock, known)


def rows(home: Home, request: Request) -> np.ndarray | None:
    """Where the rows of a file start, in reading order; None before it is known.

    An array of (number of the file, line, byte offset or -1), the dropped rows among them (of each reason, 10,000).
    """
    try:
        found: np.ndarray = np.load(request.places(home), mmap_mode="r")
    except (OSError, ValueError):
        return None
    return found


def _tried_again(home: Home, folder: Path, request: Request, lock: BinaryIO, known: Progress) -> Progress:
    tries = [path for path in folder.glob("try-*") if time.time() - path.stat().st_mtime < TRIES_COUNT_S]
    if len(tries) >= TRIES:
        hint = f"It may need more memory than there is. Why it ended may stand in {folder / 'log.txt'}."
        error = DataError("the check ended without a result, twice.", hint, "check_crashed")
        return Progress(None, False, "", 0, 0, error.to_json())
    durable.write_json(folder / "request.json", asdict(request))
    (folder / f"try-{time.time_ns()}").touch()
    _start(home, folder, lock)
    return Progress(known.report, False, STARTING, 0, 0, None)


def _changed(model_folder: str | None) -> list[Any]:
    return signature(Path(model_folder) / "tokenizer.json") if model_folder else []


def _start(home: Home, folder: Path, lock: BinaryIO) -> None:
    command = [sys.executable, "-m", "spool.data.background", "--home", str(home.root)]
    with open(folder / "log.txt", "ab") as log:
        process = subprocess.Popen(
            [*command, "--lock", str(lock.fileno()), folder.name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": search_path()},
            pass_fds=[lock.fileno()],
            start_new_session=True,
        )
    threading.Thread(target=process.wait, daemon=True).start()  # else a zombie of it stays as long as who asked lives


def _read(folder: Path) -> Progress:
    state: dict[str, Any] = {}
    report = None
    with suppress(ValueError, OSError):
        state = durable.read_json(folder / "state.json") or {}
        report = durable.read_json(folder / "report.json")
    numbers = (int(state.get("done", 0)), int(state.get("total", 0)))
    complete = bool(state.get("complete")) and report is not None
    return Progress(report, complete, str(state.get("stage", "")), *numbers, state.get("error"))


class _Teller:
    """Writes state.json, not too often."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        if time.monotonic() - self.last > TELL_EVERY_S:
            self.last = time.monotonic()
            self.tell(stage=stage, done=done, total=total)

    def tell(self, **state: Any) -> None:
        temporary = self.folder / ".state.json.tmp"
        temporary.write_bytes(durable.to_bytes({"v": 1, "complete": False, "error": None, **state}))
        os.rename(temporary, self.folder / "state.json")


def work(home: Home, folder: Path) -> None:
    """Makes the report that request.json asks for."""
    from spool.data.judging.chat import Encoder
    from spool.data.judging.check import Look, Model, examine, report, structure
    from spool.data.judging.rules import Rules
    from spool.data.reading.read import Dialect

    teller = _Teller(folder)
    asked = durable.read_json(folder / "request.json") or {}
    asked["mapping"] = tuple((role, column) for role, column in asked["mapping"])
    request = Request(**asked)
    path = Path(request.path)
    try:
        places = request.places(home)
        dialect = Dialect(request.encoding, request.delimiter, request.header)
        limits = settings.load(home).data_limits
        mapping = dict(request.mapping)
        look = Look(request.format, mapping, dialect, limits, "auto", request.max_length, SAMPLE_ROWS)
        scanned = structure(path, look, teller)
        _save_places(places, scanned)
        model = None
        if request.model_folder:
            encoder = Encoder.for_model(Path(request.model_folder))
            model = Model(encoder, encoder.identity)
        sampled = scanned.usable > SAMPLE_ROWS
        if sampled:
            first = examine(path, look, model, home.tokens, teller, copy.deepcopy(scanned))
            durable.write_json(folder / "report.json", report(first, Rules()).to_json())
            look = Look(request.format, mapping, dialect, limits, "auto", request.max_length)
        done = examine(path, look, model, home.tokens, teller, scanned)
        durable.write_json(folder / "report.json", report(done, Rules()).to_json())
        teller.tell(stage="done", done=scanned.usable, total=scanned.usable, complete=True)
    except FinetunerError as error:
        teller.tell(stage="failed", done=0, total=0, error=error.to_json())


def _save_places(path: Path, scanned: "Scan") -> None:
    tally, numbers = scanned.tally, {name: number for number, name in enumerate(scanned.file_names)}
    usable = np.column_stack([np.asarray(each, np.int64) for each in (tally.files, tally.lines, tally.bytes)])
    dropped = [
        (numbers[problem.file], problem.line, -1 if problem.byte is None else problem.byte)
        for problem in tally.findings.sorted()
        if problem.action == "dropped" and problem.line
    ]
    found = np.concatenate([usable, np.array(dropped, np.int64).reshape(-1, 3)])
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".rows.npy.{os.getpid()}.tmp")  # a page may have the old ones mapped into its memory
    with open(temporary, "wb") as file:
        np.save(file, found[np.lexsort(found.T[::-1])])
    os.rename(temporary, path)


@contextmanager
def _slot(home: Home, wait: Callable[[], None]) -> Iterator[None]:
    """One of the places to work in; waits for it, and says so."""
    slots = [open(home.cache / "reports" / f"slot-{n}", "wb") for n in range(AT_ONCE)]  # noqa: SIM115
    try:
        while True:
            if any(map(_locks, slots)):
                yield
                return
            wait()
            time.sleep(0.1)
    finally:
        for slot in slots:
            slot.close()


def _locks(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def prune(home: Home) -> None:
    """Deletes reports that are old, or that many newer ones follow; never one that is being made."""
    ages = {}
    for folder in (home.cache / "reports").iterdir():
        with suppress(FileNotFoundError):
            ages[folder] = time.time() - folder.stat().st_mtime if folder.is_dir() else 0.0
    folders = sorted((folder for folder in ages if folder.is_dir()), key=lambda folder: ages[folder])
    for number, folder in enumerate(folders):
        if number < KEPT_REPORTS and ages[folder] < KEPT_S:
            continue
        with suppress(FileNotFoundError), open(folder / "lock", "ab") as lock:
            if _locks(lock):
                shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m spool.data.background")
    parser.add_argument("--home", required=True)
    parser.add_argument("--lock", required=True, type=int, help="descriptor of the locked file")
    parser.add_argument("key")
    arguments = parser.parse_args()
    home = Home.at(arguments.home)
    folder = home.cache / "reports" / arguments.key
    os.set_inheritable(arguments.lock, False)  # it is let go when this process ends, however that happens
    step_back(oom_score=600, niceness=10)
    prune(home)
    teller = _Teller(folder)
    with _slot(home, lambda: teller(WAITING, 0, 0)):
        work(home, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
