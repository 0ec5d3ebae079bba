"""The machine around the runner: clocks, inotify, memory, shared memory, open files, the kernel's GPU errors."""

import json
import resource
import shutil
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from spool.health import processes, xid
from spool.health.finding import Finding
from spool.health.heartbeat import Heartbeat
from spool.health.locks import OpenFiles
from spool.health.words import span
from spool.protocol import durable
from spool.protocol.home import Home, State

AHEAD_S = 60.0
JUMP_S = 60.0
LOW_FILES = 1024
SMALL_SHM_BYTES = 64 << 20
"""What Docker gives where nothing else is asked for."""


def examine(home: Home, beat: Heartbeat, runner_pid: int | None, files: OpenFiles) -> list[Finding]:
    return [*clocks(home, beat, runner_pid), *inotify(home, files), *_memory(), *_files(runner_pid), *_xids()]


def clocks(home: Home, beat: Heartbeat, runner_pid: int | None) -> list[Finding]:
    """The wall clock against the newest file, against the runner's own start, and against the network's time."""
    findings = []
    ahead = max((_mtime(path) for path in _lately_written(home)), default=0.0) - time.time()
    if ahead > AHEAD_S:
        message = f"the clock is behind: files here were written {span(ahead)} from now."
        findings.append(
            Finding("clock", "warn", message, "Set the clock (`timedatectl set-ntp true`); nothing is lost.")
        )
    jump = jump_s(home, runner_pid) if beat.alive and runner_pid else None
    if jump is not None and abs(jump) > JUMP_S:
        message = f"the clock was set {'ahead' if jump > 0 else 'back'} by {span(abs(jump))} since the runner started."
        cure = "Nothing needs doing: order and time-outs do not go by it; times shown for older jobs may be off."
        findings.append(Finding("clock", "warn", message, cure))
    if _synchronised() is False:
        message = "the clock is not kept right by the network (NTP)."
        findings.append(Finding("clock", "warn", message, "`timedatectl set-ntp true`, or install chrony."))
    return findings or [Finding("clock", "ok", "the clock is not behind the files here.")]


def jump_s(home: Home, runner_pid: int) -> float | None:
    """How far the wall clock was set since the runner's start: what runner.json says of it against the kernel's count
    of seconds since the boot, which nobody can set."""
    began = processes.started(runner_pid)
    try:
        told = durable.read_json(home.runner_json) or {}
        started_at = datetime.fromisoformat(told["started_at"]).timestamp()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if began is None:
        return None
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - began) - started_at


def inotify(home: Home, files: OpenFiles) -> list[Finding]:
    """Whether events can be had, and how near the limits of the runner's user are."""
    try:
        told: Any = durable.read_json(home.runner_json)
        owner = home.states.stat().st_uid
    except (OSError, ValueError):
        return []
    problem = told.get("file_events") if isinstance(told, dict) else None
    limits = {name: _number(Path(f"/proc/sys/fs/inotify/max_user_{name}")) for name in ("instances", "watches")}
    mine = files.inotify.get(owner, [])
    used = {"instances": len(mine), "watches": sum(mine)}
    told_of = ", ".join(f"{used[name]:,} of {limits[name]:,} {name}" for name in limits if limits[name])
    cure = "As root: `sysctl fs.inotify.max_user_instances=1024 fs.inotify.max_user_watches=524288`."
    if problem not in (None, "ok"):
        message = f"the runner gets no file events ({problem}; {told_of} in use): regular scans go on alone."
        return [Finding("inotify", "warn", message, f"{cure} It tries again at each scan.")]
    short = [name for name, limit in limits.items() if limit and used[name] > 0.9 * limit]
    if short:
        message = f"inotify's {' and '.join(short)} are nearly used up by {processes.name_of(owner)} ({told_of})."
        return [Finding("inotify", "warn", message, cure)]
    return [Finding("inotify", "ok", f"file events: {told_of} in use.")] if told_of else []


def available_bytes() -> int:
    """Memory that can be had without taking it from anybody; 0 where nobody can tell."""
    return _meminfo().get("MemAvailable", 0)


def _meminfo() -> dict[str, int]:
    values = {}
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            values[name] = int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return {}
    return values


def _memory() -> list[Finding]:
    values = _meminfo()
    if not values:
        return []
    total, free, swap = (values.get(name, 0) for name in ("MemTotal", "MemAvailable", "SwapTotal"))
    limit = _number(Path("/sys/fs/cgroup/memory.max"))
    if limit and limit < total:
        total = limit
    message = f"{free / 1e9:,.1f} of {total / 1e9:,.1f} GB of memory available, {swap / 1e9:,.1f} GB of swap."
    findings = [Finding("memory", "ok", message)]
    if free < 0.05 * total:
        cure = (
            "End other programs; when memory runs out the kernel takes the trainer first, and the job is tried again."
        )
        findings = [Finding("memory", "warn", message, cure)]
    if _number(Path("/proc/sys/vm/overcommit_memory")) == 2:
        message = "the kernel promises no memory that it has not got (vm.overcommit_memory=2): CUDA may fail to start."
        findings.append(Finding("memory", "warn", message, "As root: `sysctl vm.overcommit_memory=0`."))
    try:
        shared = shutil.disk_usage("/dev/shm").total
    except OSError:
        return findings
    if shared <= SMALL_SHM_BYTES:
        message = f"/dev/shm has {shared / 1e6:.0f} MB: programs that share tensors between processes fail."
        findings.append(Finding("memory", "warn", message, "Start the container with --shm-size=1g."))
    return findings


def _files(runner_pid: int | None) -> list[Finding]:
    """How many files the runner (else this process) may have open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        if runner_pid:
            soft = resource.prlimit(runner_pid, resource.RLIMIT_NOFILE)[0]
    except (OSError, PermissionError):
        return []
    if soft in (-1, resource.RLIM_INFINITY) or soft >= LOW_FILES:
        return []
    message = f"{'the runner' if runner_pid else 'this shell'} may have only {soft} files open."
    return [Finding("memory", "warn", message, "`ulimit -n 4096` before its start, or LimitNOFILE= in its unit.")]


def _xids() -> list[Finding]:
    severe = [each for each in xid.read() if each.severe]
    if not severe:
        return []
    ago = span(time.clock_gettime(time.CLOCK_BOOTTIME) - severe[-1].at_s)
    message = f"the kernel told of {severe[-1]}, {ago} ago."
    return [Finding("gpu", "warn", message, "If jobs fail on the GPU since then: reset the card or reboot.")]


def _lately_written(home: Home) -> list[Path]:
    return [home.runner_json, home.runs, *(home.state(state) for state in State)]


def _synchronised() -> bool | None:
    """What systemd says of NTP; None where nobody can say."""
    if not Path("/run/systemd/system").is_dir() or not (program := shutil.which("timedatectl")):
        return None
    try:
        told = subprocess.run(
            [program, "show", "-p", "NTPSynchronized", "--value"], capture_output=True, text=True, timeout=0.5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(told.stdout.strip())


def _number(path: Path) -> int | None:
    try:
        return int(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
