"""The metrics files of all runs that are being looked at: each read once for all sessions, within a bound of memory.

A file of ordinary size is read at once. Of a very large one a first look reads a sample at spread places, and a thread
reads the rest; what is too large for the memory is drawn from samples for good, and says so.
"""

import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from pages.parts.run.bulk import BLOCK_BYTES, parse
from pages.parts.run.columns import Columns, Growing

AT_ONCE_BYTES = 24_000_000
"""Takes about a fifth of a second; what is more would keep a page waiting."""

TOO_LARGE_BYTES = 1_500_000_000
"""About four million rows, which as columns take some 300 MB."""

LIMIT_BYTES = 320_000_000
SAMPLE_PLACES, SAMPLE_PLACE_BYTES = 600, 4096
END_BYTES = 65_536
SAMPLE_AGAIN_S = 10.0
TAIL_BYTES = 200
LONG_ROWS, NEWS, NEWS_S = 100_000, 0.0005, 10.0

_one_reader = threading.Semaphore(1)


@dataclass(frozen=True)
class Look:
    """What is known of a run's numbers at this moment."""

    columns: Columns
    broken: int = 0
    """Lines that could not be read and are passed over."""
    sample: bool = False
    """The columns hold some rows from all over the file, while the rest is read or because it is too large."""
    read: float = 1.0
    """How much of the file has been read, 0 to 1."""

    @property
    def reading(self) -> bool:
        """A thread reads on: look again soon."""
        return 0 < self.read < 1


class Followed:
    """One file, read on from where the last look ended. Safe to be asked by many threads.

    An unterminated last line waits until it is whole. A file that was replaced or cut short is read again from its
    start: the bytes before the offset are compared too, as a new file may get the old one's inode number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._closed = False
        self._begin(0)

    def _begin(self, inode: int) -> None:
        self._inode, self._offset, self._tail, self._broken = inode, 0, b"", 0
        self._endless = False
        """The offset is inside of a line that is longer than a block: it is passed over."""
        self._growing = Growing()
        self._seen, self._seen_at = Columns(), 0.0
        self._sample: Columns | None = None
        self._sampled = (0, 0.0)
        self._reader: threading.Thread | None = None

    @property
    def nbytes(self) -> int:
        return self._growing.nbytes

    def close(self) -> None:
        """Ends a thread that reads on."""
        self._closed = True

    def look(self) -> Look:
        """What is there now; nothing of a file that does not exist yet."""
        with self._lock:
            try:
                with open(self.path, "rb") as file:
                    size = self._check(file.fileno())
                    if size > TOO_LARGE_BYTES:
                        return self._from_sample(file.fileno(), size)
                    unread = size - self._offset
                    if unread > AT_ONCE_BYTES or self._reader:
                        return self._meanwhile(file.fileno(), size)
                    while unread > 0 and self._read_block(file.fileno()):
                        pass
            except OSError:
                return Look(Columns())
            return Look(self._published(), self._broken)

    def _published(self) -> Columns:
        """The newest rows. Of a very long run not at each look: a few more of a million change nothing drawn."""
        rows, seen = self._growing.size, self._seen
        much = rows - seen.size > NEWS * rows or time.monotonic() - self._seen_at > NEWS_S
        if seen.size > rows or rows < LONG_ROWS or much:
            self._seen, self._seen_at = self._growing.snapshot(), time.monotonic()
        return self._seen

    def _check(self, fd: int) -> int:
        """The size of the file, begun anew where it is another one."""
        stat = os.fstat(fd)
        if stat.st_ino != self._inode or os.pread(fd, len(self._tail), self._offset - len(self._tail)) != self._tail:
            self._begin(stat.st_ino)
        return stat.st_size

    def _read_block(self, fd: int) -> bool:
        """Appends the next whole lines; False where there are none."""
        data = os.pread(fd, BLOCK_BYTES, self._offset)
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and len(data) == BLOCK_BYTES:
            self._offset, self._tail = self._offset + len(data), data[-TAIL_BYTES:]
            self._endless = True
            return True
        if whole:
            self._offset += len(whole)
            self._tail = (self._tail + whole)[-TAIL_BYTES:]
            block = parse(whole.partition(b"\n")[2] if self._endless else whole)
            self._broken += block.broken + self._endless
            self._endless = False
            self._growing.append(block)
        return bool(whole)

    def _meanwhile(self, fd: int, size: int) -> Look:
        """The best that can be shown while a thread reads on."""
        if self._reader is None:
            self._reader = threading.Thread(target=self._read_on, args=(self._inode,), daemon=True)
            self._reader.start()
        read = min(0.999, max(0.001, self._offset / size))
        if self._growing.size and self._sample is None and self._offset > size / 2:
            return Look(self._growing.snapshot(), self._broken, read=read)
        return Look(self._sampled_columns(fd, size), self._broken, sample=True, read=read)

    def _read_on(self, inode: int) -> None:
        """The thread: block after block, letting those who look in between them."""
        with _one_reader:
            more = True
            while more and not self._closed:
                with self._lock:
                    if self._inode != inode or self._reader is not threading.current_thread():
                        return
                    try:
                        with open(self.path, "rb") as file:
                            self._check(file.fileno())
                            more = self._inode == inode and self._read_block(file.fileno())
                    except OSError:
                        more = False
                time.sleep(0)
        with self._lock:
            if self._reader is threading.current_thread():
                self._reader, self._sample = None, None

    def _from_sample(self, fd: int, size: int) -> Look:
        return Look(self._sampled_columns(fd, size), sample=True, read=1.0)

    def _sampled_columns(self, fd: int, size: int) -> Columns:
        seen_bytes, seen_at = self._sampled
        if self._sample is None or (size != seen_bytes and time.monotonic() - seen_at > SAMPLE_AGAIN_S):
            self._sample = sample(fd, size)
            self._sampled = (size, time.monotonic())
        return self._sample


def sample(fd: int, size: int) -> Columns:
    """Rows from SAMPLE_PLACES places spread over a file, its start, and its end."""
    growing = Growing()
    last = max(0, size - END_BYTES)
    places = [(last * place // SAMPLE_PLACES, SAMPLE_PLACE_BYTES) for place in range(SAMPLE_PLACES)]
    pieces = []
    for offset, length in [*places, (last, END_BYTES)]:
        data = os.pread(fd, length, offset)
        start = data.find(b"\n") + 1 if offset else 0
        pieces.append(data[start : data.rfind(b"\n") + 1])
    growing.append(parse(b"".join(pieces)))
    return growing.snapshot()


class Store:
    """The files that are being looked at; those that nobody has asked for longest go when memory is short."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES, most: int = 256) -> None:
        self.limit_bytes, self.most = limit_bytes, most
        self._lock = threading.Lock()
        self._files: OrderedDict[Path, Followed] = OrderedDict()

    def look(self, path: Path) -> Look:
        """What a run's metrics.jsonl holds. Costs next to nothing where nothing was added."""
        with self._lock:
            followed = self._files.pop(path, None) or Followed(path)
            self._files[path] = followed
        found = followed.look()
        with self._lock:
            used = sum(each.nbytes for each in self._files.values())
            while len(self._files) > 1 and (used > self.limit_bytes or len(self._files) > self.most):
                _, oldest = self._files.popitem(last=False)
                oldest.close()
                used -= oldest.nbytes
        return found

    @property
    def nbytes(self) -> int:
        with self._lock:
            return sum(each.nbytes for each in self._files.values())


_store = Store()


def look(path: Path) -> Look:
    """What a run's metrics.jsonl holds, from the store that all sessions of this process share."""
    return _store.look(path)
