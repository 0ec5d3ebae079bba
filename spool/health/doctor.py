"""The doctor: examines this machine and a data home; every finding comes with its cure."""

import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from spool.health import environment, heartbeat
from spool.health.finding import Finding, Level
from spool.health.gpu import Gpu
from spool.protocol import settings
from spool.protocol.errors import SettingsError
from spool.protocol.home import FINAL, Home, State
from spool.protocol.spec import Limits
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import is_ulid

START = "Start it: `make up` (with the web app), `finetuner-runner`, or `systemctl start` where it is a service."
DEFAULT_MODEL = "gemma-3-270m"
LOW_GB = 10.0
PATIENCE_S = 60.0
"""Younger things may still be on their way: a file being copied, a job being accepted."""


def examine(home: Home, gpu: Gpu | None = None) -> list[Finding]:
    """Everything worth saying about this machine and the data home; changes nothing."""
    job_runs = heartbeat.read(home).current_job is not None
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("environment", lambda: environment.examine(gpu or Gpu(), job_runs)),
        ("settings", lambda: _settings(home)),
        ("home", lambda: _folders(home)),
        ("disk", lambda: _disk(home)),
        ("locks", lambda: _locks(home)),
        ("runner", lambda: _runner(home)),
        ("model", lambda: _model(home)),
        ("queue", lambda: _queue(home)),
        ("incoming", lambda: _incoming(home)),
    ]
    findings = []
    for area, check in checks:
        try:
            findings += check()
        except OSError as error:
            message = f"{error.filename or home.root} cannot be examined: {error.strerror or error}."
            findings.append(Finding(area, "warn", message, "Run doctor as the user that the runner runs as."))
    return findings


def _settings(home: Home) -> list[Finding]:
    try:
        settings.load(home)
    except SettingsError as error:
        return [Finding("settings", "fail", f"{error.message} The runner will not start.", error.hint)]
    return []


def _folders(home: Home) -> list[Finding]:
    if not home.spool.is_dir():
        message = f"there is no data home at {home.root} yet."
        return [Finding("home", "warn", message, "The first job or `make up` makes it; else give --home DIR.")]
    findings = []
    for folder in (home.incoming, home.control):
        if not os.access(folder, os.W_OK | os.X_OK):
            message = f"you cannot write to {folder}: no job can be {_door(folder)}."
            findings.append(
                Finding("home", "fail", message, f"As its owner: `chmod g+rwxs {folder}`, or join its group.")
            )
    for folder in (home.tmp, home.accepting, *(home.state(state) for state in State)):
        info = folder.stat() if folder.exists() else None
        if info is None:
            continue
        if info.st_uid == os.geteuid() and not os.access(folder, os.W_OK | os.X_OK):
            findings.append(
                Finding("home", "fail", f"the runner cannot write to {folder}.", f"`chmod u+rwx {folder}`.")
            )
        if info.st_mode & stat.S_IWOTH:
            message = f"everybody on this machine can move jobs: {folder} is writable to all."
            findings.append(Finding("home", "warn", message, f"`chmod o-w {folder}`."))
    return findings or [Finding("home", "ok", f"{home.root} has its folders, and you can drop jobs.")]


def _door(folder: Path) -> str:
    return "submitted" if folder.name == "incoming" else "cancelled, held, released or moved up"


def _disk(home: Home) -> list[Finding]:
    place = next(folder for folder in (home.root, *home.root.parents) if folder.exists())
    usage = shutil.disk_usage(place)
    free_gb = usage.free / 1e9
    deadline = time.monotonic() + 3
    parts = [
        f"{folder.name} {_size(folder, deadline)}" for folder in (home.models, home.runs, home.datasets, home.cache)
    ]
    message = f"{free_gb:,.1f} of {usage.total / 1e9:,.1f} GB free; {', '.join(parts)}."
    level: Level = "ok"
    if free_gb < LOW_GB:
        level = "fail" if free_gb < Limits().min_free_gb else "warn"
        message += " Jobs may not start." if level == "fail" else " That is little: checkpoints and exports need room."
    cure = (
        "" if level == "ok" else f"Delete checkpoints of ended jobs ({home.runs}/*/checkpoints) or move the data home."
    )
    return [Finding("disk", level, message, cure)]


def _size(folder: Path, deadline: float) -> str:
    """What a folder takes on disk, as far as it can be counted before the deadline."""
    total = 0
    for root, _, names in os.walk(folder):
        if time.monotonic() > deadline:
            return f"over {total / 1e9:.1f} GB"
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
            except OSError:
                continue
    return f"{total / 1e9:.1f} GB"


def _locks(home: Home) -> list[Finding]:
    if not home.tmp.is_dir() or not os.access(home.tmp, os.W_OK):
        return []
    cure = "Put the data home on a local disk; datasets and models may lie elsewhere."
    try:
        with tempfile.TemporaryFile(dir=home.tmp) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return [Finding("locks", "fail", f"files in {home.states} cannot be locked: {error.strerror}.", cure)]
    if settings.is_network_mount(home.states):
        message = f"{home.states} is on a network mount: its locks may not keep a second runner out."
        return [Finding("locks", "warn", message, cure)]
    return [Finding("locks", "ok", "locks lie on a local file system.")]


def _runner(home: Home) -> list[Finding]:
    beat = heartbeat.read(home)
    waiting = len(Tokens(home).list(State.QUEUED)) + len(list(home.incoming.glob("*.json")))
    jobs = f" {waiting} job(s) wait for it." if waiting else ""
    if beat.alive:
        if beat.halted:
            return [
                Finding(
                    "runner", "fail", f"the runner holds the queue: {beat.halted}.", "Cure that; it goes on by itself."
                )
            ]
        if beat.waiting_for:
            return [
                Finding("runner", "warn", f"the runner waits: {beat.waiting_for}.", "It goes on when that has ended.")
            ]
        doing = f"runs {beat.current_job}" if beat.current_job else "idle"
        return [Finding("runner", "ok", f"alive (pid {beat.pid}, since {beat.started_at}), {doing}.")]
    level: Level = "fail" if waiting else "warn"
    if beat.age_s is None:
        return [Finding("runner", level, f"no runner was ever started here.{jobs}", START)]
    if beat.stopped:
        return [Finding("runner", level, f"the runner was stopped {_ago(beat.age_s)}.{jobs}", START)]
    message = f"the runner's last sign of life came {_ago(beat.age_s)}: it died or hangs.{jobs}"
    return [Finding("runner", "fail", message, START)]


def _ago(seconds: float) -> str:
    for size, word in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word} ago"
    return f"{seconds:.0f} seconds ago"


def _model(home: Home) -> list[Finding]:
    folder = home.models / DEFAULT_MODEL
    missing = [name for name in ("model.safetensors", "config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not missing:
        return [Finding("model", "ok", f"the embedded model {DEFAULT_MODEL} is there.")]
    what = "is not there" if not folder.exists() else f"lacks {', '.join(missing)}"
    return [Finding("model", "warn", f"the embedded model {DEFAULT_MODEL} {what}.", "`make setup` makes it.")]


def _queue(home: Home) -> list[Finding]:
    """Every job has exactly one token and a run folder."""
    places = _places(home)
    known = Counter(token.job_id for _, token in places)
    again = Counter(token.job_id for _, token in _places(home))
    findings = []
    # A job that moves while its folders are read is seen twice or not at all, but not so in two looks.
    twice = sorted(job_id for job_id, count in known.items() if count > 1 and again[job_id] > 1)
    if twice:
        message = f"{_some(twice)}: more than one token under {home.states}."
        findings.append(Finding("queue", "fail", message, "Stop the runner and keep the newest token of each."))
    lost = sorted(t.job_id for state, t in places if not _whole(home, state, t.job_id))
    if lost:
        cure = "Restore runs/ID from a backup; or stop the runner, remove the token and submit the job anew."
        findings.append(Finding("queue", "fail", f"{_some(lost)}: a token without runs/ID/spec.json.", cure))
    strays = [entry.name for state in State for entry in _strays(home, state)]
    if strays:
        cure = "Only the runner writes there; move them elsewhere."
        findings.append(Finding("queue", "warn", f"no tokens, but in {home.states}: {_some(strays)}.", cure))
    runs = [entry for entry in _entries(home.runs) if is_ulid(entry.name) and entry.name not in known | again]
    orphans = sorted(entry.name for entry in runs if _age_s(entry) > PATIENCE_S)
    if orphans:
        cure = "Submit runs/ID/spec.orig.json anew, or remove the folder."
        findings.append(Finding("queue", "warn", f"{_some(orphans)}: a run folder without a token.", cure))
    return findings or [Finding("queue", "ok", f"{len(known)} jobs, each with one token and its run folder.")]


def _places(home: Home) -> list[tuple[State, Token]]:
    return [(state, token) for state in State for token in Tokens(home).list(state)]


def _whole(home: Home, state: State, job_id: str) -> bool:
    run = home.run(job_id)
    return run.root.is_dir() if state in FINAL else run.spec.is_file()


def _strays(home: Home, state: State) -> list[os.DirEntry[str]]:
    good = {token.filename for token in Tokens(home).list(state)}
    entries = _entries(home.state(state))
    return [e for e in entries if e.name not in good and not e.name.startswith(".") and _age_s(e) > PATIENCE_S]


def _incoming(home: Home) -> list[Finding]:
    findings = []
    alive = heartbeat.read(home).alive
    litter = re.compile(r"\..*|.*~|#.*#|.*\.(part|filepart|swp|tmp|crdownload)")
    for entry in _entries(home.incoming):
        if litter.fullmatch(entry.name) or _age_s(entry) < PATIENCE_S:
            continue
        if entry.is_file(follow_symlinks=False) and not os.access(entry.path, os.R_OK):
            info = entry.stat(follow_symlinks=False)
            message = (
                f"{entry.name!r} in incoming cannot be read (owner {info.st_uid}, mode {info.st_mode & 0o777:03o})."
            )
            findings.append(Finding("incoming", "warn", message, "As its owner: `chmod a+r` it, or remove it."))
        elif alive:
            message = (
                f"{entry.name!r} lies in incoming for {_ago(_age_s(entry)).removesuffix(' ago')} and is not taken."
            )
            findings.append(Finding("incoming", "warn", message, "See the runner's log; or remove the file."))
    return findings[:20]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def _age_s(entry: os.DirEntry[str]) -> float:
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return 0.0


def _some(names: list[str], limit: int = 5) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
