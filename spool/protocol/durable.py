"""Writing so that a power cut leaves the old file or the new one, never a half: write, fsync, rename, fsync folders.

A failed fsync is raised and never retried: after it the kernel may have dropped the pages
(https://wiki.postgresql.org/wiki/Fsync_Errors).
"""

import errno
import os
import stat
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson


def to_bytes(document: Any) -> bytes:
    """A JSON document as people read it with cat: two spaces, a newline at the end."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def sync(*paths: Path) -> None:
    """Fsyncs files or folders, in order."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def sync_all(paths: Iterable[Path]) -> None:
    """Fsyncs many at once: side by side they share journal commits and take a tenth of the time."""
    try:
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(sync, paths))
    except RuntimeError:
        raise OSError(errno.EAGAIN, "no thread can be started") from None


def write_unsynced(path: Path, data: bytes) -> Path:
    """Writes a file whose durability the caller sees to (`sync_all`) before anything relies on it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
    return path


def write_new(path: Path, data: bytes) -> None:
    """Writes and fsyncs a file; the caller commits it (with a rename, or by fsyncing the folder)."""
    sync(write_unsynced(path, data))


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces `path` as a whole. The temporary name starts with a dot, which every scan of the spool passes over."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        write_new(temporary, data)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_json(path: Path, document: Any) -> None:
    write_atomic(path, to_bytes(document))


def move(source: Path, target: Path) -> None:
    """One rename(2), then both folders are fsynced."""
    os.rename(source, target)
    sync(*{target.parent, source.parent})


def make_dirs(folders: Iterable[Path]) -> None:
    """Makes folders and those above them; the name of each new one is safe before anything is put into it."""
    for folder in folders:
        if not folder.is_dir():
            make_dirs([folder.parent])
            folder.mkdir(exist_ok=True)
            sync(folder.parent)


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Appends one JSON object as one line with one write(2); a torn tail of an earlier crash is cut off first.

    A file has one writer at a time: another's row that is just being written would look like a torn tail.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            whole = os.pread(fd, min(size, 1 << 20), max(0, size - (1 << 20)))
            os.ftruncate(fd, size - len(whole) + whole.rfind(b"\n") + 1)
        os.write(fd, orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    finally:
        os.close(fd)


def read_json(path: Path) -> Any:
    """The document, or None where there is no file. Raises ValueError for bytes that are not JSON."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def first_bytes(path: Path, most_bytes: int) -> bytes:
    """The start of what people put there: it may be anything, a pipe or gigabytes, and it may be gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, most_bytes) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)
