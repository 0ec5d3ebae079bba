"""Moving a drop out of incoming/: one rename, or across file systems a copy that no crash makes two jobs of.

Where incoming/ lies on another file system rename(2) answers EXDEV. The drop is then renamed inside incoming/ to
.taking-ID first: this name is the record of the taking. It is copied from there, the copy is fsynced and renamed, and
only then the original goes. Whoever finds .taking-ID later copies it again unless job ID exists, and removes it.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Any

from spool.protocol import durable, strict
from spool.protocol.home import Home
from spool.protocol.ulid import is_ulid, mint

TAKING = ".taking-"
REJECTED = ".rejected-"
ABOUT_THE_FILE = frozenset({errno.EACCES, errno.EPERM, errno.EBUSY, errno.ELOOP, errno.ENXIO, errno.EISDIR})
"""Errors that say something about one drop. All others (ENOSPC, EROFS, EIO ...) are the file system's: they halt."""


def take(home: Home, path: Path, job_id: str, looked_at: bytes, order: int = 0) -> bool:
    """Moves a drop to accepting/ID.json; False where it has gone, or holds by now other bytes than were looked at.
    `order` is its place among those that are taken together.

    Raises:
        OSError: it cannot be taken; `errno` in ABOUT_THE_FILE: and others can.
    """
    try:
        info = path.lstat()
        note = {"dropped_name": shown(path.name), "uid": info.st_uid, "order": order}
        durable.write_unsynced(home.accepting / f"{job_id}.from", durable.to_bytes(note))
        source = home.accepting / f"{job_id}.json"
        try:
            os.rename(path, source)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            source = home.incoming / f"{TAKING}{job_id}"
            os.rename(path, source)
    except FileNotFoundError:
        return False
    try:
        same = read_regular(source) == looked_at
    except OSError:
        same = False
    if not same:  # written to between our look and our rename: it is a new drop
        put_back(source, path)
        return False
    if source.parent == home.incoming:
        durable.sync(home.incoming)
        return finish(home, source)
    return True


def finish(home: Home, hidden: Path) -> bool:
    """Copies incoming/.taking-ID to accepting/ID.json and removes it; True when there is something to accept."""
    job_id = hidden.name.removeprefix(TAKING)
    if not is_ulid(job_id):
        return False
    target = home.accepting / f"{job_id}.json"
    known = target.exists() or home.run(job_id).root.exists() or (home.rejected / job_id).exists()
    try:
        if not known:
            data = read_regular(hidden)
            temporary = home.accepting / f".{job_id}.copy"
            durable.write_new(temporary, data)
            os.rename(temporary, target)
            durable.sync(home.accepting)
        hidden.unlink()
    except OSError as error:
        if error.errno in ABOUT_THE_FILE or isinstance(error, NotADropError):
            return False
        raise
    durable.sync(home.incoming)
    return not known


def put_back(source: Path, path: Path) -> None:
    """Gives a drop its name back; another one where somebody has dropped a new file of that name since."""
    try:
        os.link(source, path, follow_symlinks=False)
        source.unlink()
    except FileExistsError:
        os.rename(source, path.with_name(f"{mint()}.json"))
    except OSError:  # a folder, or a file system without hard links
        os.rename(source, path if not os.path.lexists(path) else path.with_name(f"{mint()}.json"))


def move_away(path: Path, target: Path) -> Path:
    """Moves whatever was dropped to `target`, and gives where it is: what cannot be copied to another file system
    (a folder, a pipe, gigabytes) is hidden inside incoming/ instead."""
    try:
        durable.move(path, target)
        return target
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    try:
        data = read_regular(path)
    except OSError:
        data = b""
    if not data or len(data) > strict.MAX_BYTES:
        hidden = path.with_name(f"{REJECTED}{target.parent.name}")
        durable.move(path, hidden)
        return hidden
    durable.write_new(target, data)
    durable.sync(target.parent)
    path.unlink(missing_ok=True)
    durable.sync(path.parent)
    return target


class NotADropError(OSError):
    """A link, pipe, folder or device."""


def read_regular(path: Path) -> bytes:
    """The bytes of a small regular file, or its first MAX_BYTES + 1; never follows a link, never blocks on a pipe."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise NotADropError(errno.EINVAL, "not a regular file", str(path)) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotADropError(errno.EINVAL, "not a regular file", str(path))
        data = b""
        while len(data) <= strict.MAX_BYTES and (more := os.read(fd, strict.MAX_BYTES + 1 - len(data))):
            data += more
        return data
    finally:
        os.close(fd)


def shown(name: str) -> str:
    """A dropped name as UTF-8 can hold it: its other bytes as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def note_of(home: Home, job_id: str) -> dict[str, Any]:
    """Who dropped it and under which name; empty where a power cut took the note."""
    try:
        note = durable.read_json(home.accepting / f"{job_id}.from")
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}
