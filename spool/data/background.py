"""A report on a file, made in a process of its own: first from a sample, then whole, with its progress in a file.

Run as: python -m spool.data.background --home DIR KEY     (pages do, through `ask`)

HOME/cache/reports/KEY/ has request.json, state.json (stage, done, total, complete, error), report.json, lines.npy
(where rows start), and lock, which the process holds while it works: nobody has to guess whether it still lives. At
most two work at once.
"""

import argparse
import copy
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spool.data.source import signature
from spool.protocol import durable
from spool.protocol.errors import DataError, FinetunerError
from spool.protocol.home import Home

SAMPLE_ROWS = 2_000
AT_ONCE = 2
TRIES = 2
TELL_EVERY_S = 0.5
STARTING = "starting"


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

    @property
    def key(self) -> str:
        """Raises DataError where there is no such file."""
        parts = [asdict(self), signature(Path(self.path)), _changed(self.model_folder)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


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
    folder = home.cache / "reports" / request.key
    known = _read(folder)
    if known.complete or known.error:
        return known
    if _somebody_works(folder):
        return known
    known = _read(folder)  # it may have ended between the two looks
    if known.complete or known.error:
        return known
    tries = len(list(folder.glob("try-*")))
    if tries >= TRIES:
        error = DataError(
            "the check ended without a result, twice.", "Its log.txt is in cache/reports.", "check_crashed"
        )
        return Progress(None, False, "", 0, 0, error.to_json())
    folder.mkdir(parents=True, exist_ok=True)
    durable.write_json(folder / "request.json", asdict(request))
    (folder / f"try-{tries + 1}").touch()
    _start(home, folder)
    return Progress(known.report, False, STARTING, 0, 0, None)


def lines(home: Home, request: Request) -> np.ndarray | None:
    """The lines on which the rows of a file start, in their order; None before they are known."""
    try:
        return np.load(home.cache / "reports" / request.key / "lines.npy", mmap_mode="r")
    except (OSError, ValueError):
        return None


def _changed(model_folder: str | None) -> list[Any]:
    return signature(Path(model_folder) / "tokenizer.json") if model_folder else []


def _start(home: Home, folder: Path) -> None:
    command = [sys.executable, "-m", "spool.data.background", "--home", str(home.root), folder.name]
    root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with open(folder / "log.txt", "ab") as log:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": search},
            start_new_session=True,
        )


def _read(folder: Path) -> Progress:
    state: dict[str, Any] = {}
    report = None
    with suppress(ValueError, OSError):
        state = durable.read_json(folder / "state.json") or {}
        report = durable.read_json(folder / "report.json")
    numbers = (int(state.get("done", 0)), int(state.get("total", 0)))
    complete = bool(state.get("complete")) and report is not None
    return Progress(report, complete, str(state.get("stage", "")), *numbers, state.get("error"))


def _somebody_works(folder: Path) -> bool:
    """Whether a process holds the lock, or was started so short ago that it could not take it yet."""
    try:
        with open(folder / "lock", "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except FileNotFoundError:
        pass
    newest = max((path.stat().st_mtime for path in folder.glob("try-*")), default=0.0)
    return time.time() - newest < 10 and not (folder / "lock").exists()


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
    from spool.data.chat import Encoder
    from spool.data.check import Look, Model, examine, report, structure
    from spool.data.read import Dialect
    from spool.data.rules import Rules
    from spool.protocol import settings

    teller = _Teller(folder)
    asked = durable.read_json(folder / "request.json") or {}
    asked["mapping"] = tuple((role, column) for role, column in asked["mapping"])
    request = Request(**asked)
    path = Path(request.path)
    try:
        dialect = Dialect(request.encoding, request.delimiter, request.header)
        limits = settings.load(home).data_limits
        mapping = dict(request.mapping)
        look = Look(request.format, mapping, dialect, limits, "auto", request.max_length, SAMPLE_ROWS)
        scanned = structure(path, look, teller)
        found = [problem.line for problem in scanned.tally.findings.sorted() if problem.action == "dropped"]
        np.save(folder / "lines.npy", np.sort(np.concatenate([scanned.tally.lines, found]).astype(np.int64)))
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


@contextmanager
def _slot(home: Home) -> Iterator[None]:
    """One of the places to work in; waits for it."""
    slots = [open(home.cache / "reports" / f"slot-{n}", "wb") for n in range(AT_ONCE)]  # noqa: SIM115
    try:
        while True:
            for slot in slots:
                with suppress(BlockingIOError):
                    fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield
                    return
            time.sleep(0.1)
    finally:
        for slot in slots:
            slot.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m spool.data.background")
    parser.add_argument("--home", required=True)
    parser.add_argument("key")
    arguments = parser.parse_args()
    home = Home.at(arguments.home)
    folder = home.cache / "reports" / arguments.key
    os.nice(10)
    with suppress(OSError):  # when memory runs out, this goes before the web app and the runner do
        Path("/proc/self/oom_score_adj").write_text("600")
    with open(folder / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who asks holds it for a moment; another worker, until the report is there
        if _read(folder).complete:
            return 0
        with _slot(home):
            work(home, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
