"""What the folders of the spool hold: every job has one token and one run folder, and nothing is stuck."""

import os
import re
import time
from collections import Counter
from pathlib import Path

from spool.health.finding import Finding
from spool.health.heartbeat import Heartbeat
from spool.health.words import ago, some
from spool.protocol import dropbox
from spool.protocol.home import FINAL, Home, State
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import is_ulid

PATIENCE_S = 60.0
"""Younger things may still be on their way: a file being copied, a job being accepted."""


def examine(home: Home) -> list[Finding]:
    """Every job has exactly one token and a run folder."""
    places = _places(home)
    known = Counter(token.job_id for _, token in places)
    again = Counter(token.job_id for _, token in _places(home))
    findings = []
    # A job that moves while its folders are read is seen twice or not at all, but not so in two looks.
    twice = sorted(job_id for job_id, count in known.items() if count > 1 and again[job_id] > 1)
    if twice:
        message = f"{some(twice)}: more than one token under {home.states}."
        findings.append(Finding("queue", "fail", message, "Stop the runner and keep the newest token of each."))
    lost = sorted(t.job_id for state, t in places if not _whole(home, state, t.job_id))
    if lost:
        cure = "Restore runs/ID from a backup; or stop the runner, remove the token and submit the job anew."
        findings.append(Finding("queue", "fail", f"{some(lost)}: a token without runs/ID/spec.json.", cure))
    strays = [entry.name for state in State for entry in _strays(home, state)]
    if strays:
        cure = "Only the runner writes there; move them elsewhere."
        findings.append(Finding("queue", "warn", f"no tokens, but in {home.states}: {some(strays)}.", cure))
    unread = [
        each.name for each in _entries(home.control) if not dropbox.is_order(each.name) and _age_s(each) > PATIENCE_S
    ]
    if unread:
        cure = "Remove them. An order is an empty file named VERB-ID, such as cancel-ID, or hold, drain or release."
        findings.append(Finding("queue", "warn", f"no orders, but in {home.control}: {some(unread)}.", cure))
    have_one = known.keys() | again.keys()
    runs = [entry for entry in _entries(home.runs) if is_ulid(entry.name) and entry.name not in have_one]
    orphans = sorted(entry.name for entry in runs if _age_s(entry) > PATIENCE_S)
    if orphans:
        cure = "Submit runs/ID/spec.orig.json anew, or remove the folder."
        findings.append(Finding("queue", "warn", f"{some(orphans)}: a run folder without a token.", cure))
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


def incoming(home: Home, beat: Heartbeat) -> list[Finding]:
    findings = []
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
        elif beat.alive:
            message = f"{entry.name!r} lies in incoming for {ago(_age_s(entry)).removesuffix(' ago')} and is not taken."
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
