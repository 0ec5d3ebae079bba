"""Waking the daemon: file system events, signals and the end of a child all write to one pipe.

An event is only a hint that a scan may find something: losing events (a full inotify queue, a network mount, a
folder that was replaced) makes the daemon slower, never wrong.
"""

import logging
import os
import select
import signal
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper

log = logging.getLogger("runner")

# watchdog holds back the first half of a rename for 0.5 s to pair it with the second. A hint needs no pairs.
InotifyMoveEventGrouper.delay = 0.0


class Wake:
    """A pipe that ends a wait. Safe from threads and signal handlers."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def on_signals(self) -> None:
        """Every signal with a Python handler ends the wait too."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def set(self) -> None:
        try:
            os.write(self._write, b"x")
        except BlockingIOError:
            pass  # the pipe is full: the wait ends anyway

    def wait(self, timeout_s: float) -> None:
        select.select([self._read], [], [], max(0.0, timeout_s))
        try:
            while os.read(self._read, 4096):
                pass
        except BlockingIOError:
            pass


class _Hint(FileSystemEventHandler):
    def __init__(self, wake: Wake) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in ("opened", "closed_no_write"):
            self._wake.set()


class Watch:
    """A watchdog observer over some folders, started again when it died or a folder was replaced."""

    def __init__(self, wake: Wake, folders: list[Path]) -> None:
        self._wake = wake
        self._folders = folders
        self._observer: object | None = None
        self._inodes: list[tuple[int, int]] = []
        self.problem: str | None = None

    def ensure(self) -> None:
        """Called at each scan. Without a working observer the regular scans go on alone."""
        found = [folder.stat() for folder in self._folders]
        inodes = [(each.st_dev, each.st_ino) for each in found]
        observer = self._observer
        if observer is not None and observer.is_alive() and inodes == self._inodes:  # type: ignore[attr-defined]
            return
        self.stop()
        fresh = None
        try:
            fresh = Observer()
            for folder in self._folders:
                fresh.schedule(_Hint(self._wake), str(folder))
            fresh.start()
        except (OSError, RuntimeError) as error:  # a thread that cannot be started is a RuntimeError
            if self.problem is None:
                log.warning("no file events (%s): the regular scans go on alone", error)
            self.problem = str(error)
            if fresh is not None:  # it holds a thread and an inotify instance
                fresh.stop()
            return
        self._observer, self._inodes, self.problem = fresh, inodes, None

    def stop(self) -> None:
        if self._observer is not None:
            self._observer.stop()  # type: ignore[attr-defined]
            self._observer = None
