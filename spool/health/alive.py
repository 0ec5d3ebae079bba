"""The runner: alive, frozen, hung or gone; what it waits for, what holds the queue, and whether its code is this."""

import os
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path

from spool.health import processes
from spool.health.finding import Finding, Level
from spool.health.heartbeat import Heartbeat
from spool.health.words import ago
from spool.protocol.home import Home, State
from spool.protocol.process import ROOMS
from spool.protocol.states import Tokens

START = "Start it: `systemctl start finetuner-runner` where it is a service, else `make up` (with the web app)."
RESTART = "Restart it; a job that runs goes on from its newest checkpoint."


def examine(home: Home, beat: Heartbeat, runner_pid: int | None) -> list[Finding]:
    return [_alive(home, beat, runner_pid), *_held(home), *_settings(home, beat), *_versions(beat, runner_pid)]


def _alive(home: Home, beat: Heartbeat, runner_pid: int | None) -> Finding:
    waiting = len(Tokens(home).list(State.QUEUED)) + len(list(home.incoming.glob("*.json")))
    jobs = f" {waiting} job(s) wait for it." if waiting else ""
    if runner_pid and processes.state(runner_pid) in ("T", "t"):
        message = f"the runner (pid {runner_pid}) is frozen: somebody stopped it with SIGSTOP.{jobs}"
        return Finding("runner", "fail", message, f"`kill -CONT {runner_pid}`.")
    if beat.alive:
        return _doing(beat)
    level: Level = "fail" if waiting else "warn"
    if runner_pid:
        state = " (it waits for a disk or a driver)" if processes.state(runner_pid) == "D" else ""
        since = "never came" if beat.age_s is None else f"came {ago(beat.age_s)}"
        message = (
            f"the runner (pid {runner_pid}) lives and holds its lock, but hangs{state}: its sign of life {since}.{jobs}"
        )
        return Finding("runner", "fail", message, f"See its log and `dmesg`. {RESTART}")
    if beat.age_s is None:
        return Finding("runner", level, f"no runner was ever started here.{jobs}", START)
    if beat.stopped:
        return Finding("runner", level, f"the runner was stopped {ago(beat.age_s)}.{jobs}", START)
    if beat.age_s < 0:
        message = (
            f"the runner's last sign of life is dated ahead of the clock: the clock was set back, or it died.{jobs}"
        )
        return Finding("runner", "fail", message, START)
    message = f"the runner's last sign of life came {ago(beat.age_s)}: it died or hangs.{jobs}"
    return Finding("runner", "fail", message, START)


def _doing(beat: Heartbeat) -> Finding:
    if beat.halted:
        return Finding(
            "runner", "fail", f"the runner holds the queue: {beat.halted}.", "Cure that; it goes on by itself."
        )
    if beat.waiting_for:
        return Finding("runner", "warn", f"the runner waits: {beat.waiting_for}.", "It goes on when that has ended.")
    doing = f"runs {beat.current_job}" if beat.current_job else "idle"
    since = f"since {beat.started_at}, last sign of life {ago(max(0.0, beat.age_s or 0.0))}"
    return Finding("runner", "ok", f"alive (pid {beat.pid}, {since}), {doing}.")


def _held(home: Home) -> list[Finding]:
    """Orders that stand until they are taken back."""
    findings = []
    if os.path.lexists(home.hold):
        message = "the queue is held: no job is started until somebody releases it."
        findings.append(Finding("runner", "warn", message, "`finetuner release` (without an id) lets it go on."))
    if os.path.lexists(home.drain):
        message = "the runner drains: it finishes the job that runs and takes no new one."
        findings.append(Finding("runner", "warn", message, "`finetuner release` (without an id) takes that back."))
    return findings


def _settings(home: Home, beat: Heartbeat) -> list[Finding]:
    """Settings count from the runner's next start."""
    started = _epoch(beat.started_at)
    try:
        changed = home.settings.stat().st_mtime
    except OSError:
        return []
    if not beat.alive or started is None or changed <= started:
        return []
    message = f"{home.settings.name} was changed after the runner's start: what it says now is not in force yet."
    return [Finding("settings", "warn", message, RESTART)]


def _versions(beat: Heartbeat, runner_pid: int | None) -> list[Finding]:
    """Whether the runner is what is installed here: its version, its environment, and the age of its code."""
    if not beat.alive:
        return []
    try:
        here = metadata.version("gemma-finetuner")
    except metadata.PackageNotFoundError:
        here = None
    if here and beat.version and beat.version != here:
        message = f"the runner is version {beat.version}, installed is {here}."
        return [Finding("version", "warn", message, RESTART)]
    words = processes.command(runner_pid) if runner_pid else []
    if words and words[0].startswith("/") and Path(words[0]).parent.parent != Path(sys.prefix):
        message = f"the runner uses the Python of {Path(words[0]).parent.parent}, this is that of {sys.prefix}."
        cure = "What is said here about packages is true of this one: run doctor from there."
        return [Finding("version", "warn", message, cure)]
    started, changed = _epoch(beat.started_at), _newest_code()
    if started is not None and changed > started + 1:
        message = "the code was changed after the runner had started: it still runs the old one."
        return [Finding("version", "warn", message, RESTART)]
    return []


def _newest_code() -> float:
    try:
        files = [path for room in ("spool", "runner") for path in (ROOMS / room).rglob("*.py")]
        return max((path.stat().st_mtime for path in files), default=0.0)
    except OSError:
        return 0.0


def _epoch(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except ValueError:
        return None
