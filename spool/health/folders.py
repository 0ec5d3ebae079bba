"""The data home's folders: who may write where, and what kind of file system they are on."""

import grp
import os
import pwd
import stat
from pathlib import Path

from spool.health.finding import Finding
from spool.health.processes import name_of
from spool.protocol import settings
from spool.protocol.home import Home, State

NO_EVENTS = frozenset({"virtiofs", "vboxsf", "prl_fs", "drvfs", "9p", "overlay", "aufs"})
"""Beside network mounts and FUSE: what is written from the other side (the host, a lower layer) gives no event here."""


def examine(home: Home) -> list[Finding]:
    if not home.spool.is_dir():
        message = f"there is no data home at {home.root} yet."
        return [Finding("home", "warn", message, "The first job or `make up` makes it; else give --home DIR.")]
    findings = [*_doors(home), *_inside(home), *_settings_file(home)]
    return [*(findings or [_fine(home)]), *_mounts(home)]


def _fine(home: Home) -> Finding:
    info = home.incoming.stat()
    who = f"{name_of(info.st_uid)}:{_group(info.st_gid)}, mode {stat.S_IMODE(info.st_mode):o}"
    return Finding("home", "ok", f"{home.root} has its folders, and you can drop jobs (incoming is {who}).")


def _doors(home: Home) -> list[Finding]:
    """incoming/, control/ and asks/: people write there, and the runner takes away what they wrote."""
    findings = []
    runner = home.states.stat().st_uid
    for folder in (home.incoming, home.control, home.asks):
        if not folder.is_dir():
            message = f"{folder} is not there: {_door(folder)}."
            findings.append(Finding("home", "fail", message, "A running runner makes it anew at its next scan."))
            continue
        info = folder.stat()
        group = _group(info.st_gid)
        if not os.access(folder, os.W_OK | os.X_OK):
            message = f"you cannot write to {folder}: {_door(folder)}."
            cure = f"As its owner: `chmod g+rwxs {folder}`, or join its group ({group})."
            findings.append(Finding("home", "fail", message, cure))
        if info.st_uid != runner and info.st_mode & stat.S_ISVTX:
            message = f"{folder} is sticky and not the runner's own: it cannot take away what others drop."
            findings.append(Finding("home", "fail", message, f"As root: `chown {name_of(runner)} {folder}`."))
        if info.st_mode & stat.S_IWOTH:
            message = f"everybody on this machine can write to {folder}."
            findings.append(Finding("home", "warn", message, f"`chmod o-w {folder}`, and a group for those who may."))
        elif (
            info.st_mode & stat.S_IWGRP
            and not info.st_mode & stat.S_ISGID
            and info.st_gid not in (0, _own_group(runner))
        ):
            message = f"{folder} is shared by the group {group}, but what is made in it does not get that group."
            findings.append(Finding("home", "warn", message, f"`chmod g+s {folder}`."))
    return findings


def _inside(home: Home) -> list[Finding]:
    """What only the runner writes."""
    findings = []
    folders = [home.states, home.tmp, home.accepting, home.submissions, *(home.state(state) for state in State)]
    for folder in [*folders, home.rejected, home.runs]:
        info = folder.stat() if folder.exists() else None
        if info is None:
            continue
        if info.st_uid == os.geteuid() and not os.access(folder, os.W_OK | os.X_OK):
            cure = f"`chmod u+rwx {folder}`."
            findings.append(Finding("home", "fail", f"the runner cannot write to {folder}.", cure))
        if info.st_uid != home.states.stat().st_uid:
            message = f"{folder} belongs to {name_of(info.st_uid)}, the folders beside it to the runner's user."
            cure = f"As root: `chown {name_of(home.states.stat().st_uid)} {folder}`."
            findings.append(Finding("home", "warn", message, cure))
        what = "change results" if folder == home.runs else "move jobs"
        if info.st_mode & stat.S_IWOTH:
            message = f"everybody on this machine can {what}: {folder} is writable to all."
            findings.append(Finding("home", "warn", message, f"`chmod o-w {folder}`."))
    return findings


def _settings_file(home: Home) -> list[Finding]:
    try:
        mode = home.settings.stat().st_mode
    except OSError:
        return []
    if not mode & stat.S_IWOTH:
        return []
    message = f"everybody on this machine can change {home.settings}, and with it what jobs may read."
    return [Finding("home", "warn", message, f"`chmod o-w {home.settings}`.")]


def _mounts(home: Home) -> list[Finding]:
    """Where events cannot be had, or a drop cannot be taken by a rename."""
    findings = []
    kind = settings.filesystem(home.incoming)
    if kind in settings.NETWORK_FILESYSTEMS or kind.startswith("fuse") or kind in NO_EVENTS - {"overlay", "aufs"}:
        message = f"{home.incoming} is on {kind}, which gives no events for what other machines write."
        cure = "Nothing is lost, a drop is taken a few seconds later; a local disk is faster."
        findings.append(Finding("mounts", "warn", message, cure))
    elif kind in NO_EVENTS:
        message = (
            f"{home.incoming} is on {kind}: what is written outside of this container gives no event, scans find it."
        )
        findings.append(Finding("mounts", "ok", message))
    if home.incoming.is_dir() and home.incoming.stat().st_dev != home.states.stat().st_dev:
        message = f"{home.incoming} is another file system than {home.states}: drops are copied instead of renamed."
        findings.append(Finding("mounts", "ok", message))
    read_only = [folder for folder in (home.states, home.runs) if folder.exists() and _read_only(folder)]
    if read_only:
        message = f"{read_only[0]} is on a file system that is mounted read-only."
        cure = "See `dmesg`: after a disk error the kernel does that. Check the disk, then `mount -o remount,rw`."
        findings.append(Finding("mounts", "fail", message, cure))
    return findings


def _read_only(folder: Path) -> bool:
    """Whether its file system is, for everybody: a service's sandbox and a container's `:ro` close it to some only."""
    if not os.statvfs(folder).f_flag & os.ST_RDONLY:
        return False
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()]
    except OSError:
        mounts = []
    of_it = [fields[-1].split(",") for fields in mounts if fields[2] == number]
    return all("ro" in options for options in of_it)


def _own_group(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return -1


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"gid {gid}"


def _door(folder: Path) -> str:
    """What its absence keeps people from."""
    doors = {"incoming": "no job can be submitted", "asks": "no session can be asked"}
    return doors.get(folder.name, "no job can be cancelled, held, released or moved up")
