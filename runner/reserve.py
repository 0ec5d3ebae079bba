"""The reserve: a file of disk kept back, given up when the disk is full so that what has happened can be written down.

A queue whose disk is full must still be able to say so: to end a job, to write why, to rename a token. The file holds
real blocks (never a hole), so that removing it really frees them.
"""

import errno
import logging
import os
import shutil

from spool.protocol import durable
from spool.protocol.home import Home

log = logging.getLogger("runner")

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CHUNK_BYTES = 1 << 20


class Reserve:
    """The daemon makes one, `Reserve(home, options.reserve_mb * 1_000_000)`, and calls:

    - `ensure()` at its start and every minute or so (cheap where the file is whole);
    - `release()` in `_halt` when `reserve.helps(error)`; where it gives True, the write that failed is worth
      another try at once;
    - while `whole` is False no job is claimed: there is too little disk to begin something.

    Args:
        bytes_: its size; 0 keeps nothing back, and such a reserve is always whole.
    """

    def __init__(self, home: Home, bytes_: int) -> None:
        self.path = home.reserve
        self.bytes = bytes_

    @staticmethod
    def helps(error: OSError) -> bool:
        """Whether an error of the file system is one that free disk cures."""
        return error.errno in FULL

    @property
    def whole(self) -> bool:
        """Whether the blocks are really there: a copy of the data home may have brought a file full of holes."""
        try:
            info = self.path.lstat()
        except OSError:
            return self.bytes == 0
        return info.st_size >= self.bytes and info.st_blocks * 512 >= self.bytes

    def release(self) -> bool:
        """Gives the disk up; True where there was something to give. Never raises: it is called when writing fails."""
        try:
            had = self.path.lstat().st_blocks > 0
            os.truncate(self.path, 0)  # some file systems need room for an unlink, and get it from this
            self.path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            log.warning("the reserve %s cannot be given up: %s", self.path, error.strerror)
            return False
        if had:
            log.warning("the disk is full: the reserve of %.0f MB is given up", self.bytes / 1e6)
        return had

    def ensure(self) -> bool:
        """Takes the disk back once twice the reserve is free; True where the reserve is whole afterwards.

        Raises:
            OSError: anything but a full disk, such as a file system that has become read-only.
        """
        if self.whole:
            return True
        if shutil.disk_usage(self.path.parent).free < 2 * self.bytes:
            return False
        try:
            self._fill()
        except OSError as error:
            self.path.unlink(missing_ok=True)
            if self.helps(error):  # a quota, or somebody was faster
                return False
            raise
        durable.sync(self.path.parent)
        return self.whole

    def _fill(self) -> None:
        self.path.unlink(missing_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            try:
                os.posix_fallocate(fd, 0, self.bytes)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                    raise
            os.fsync(fd)
            if os.fstat(fd).st_blocks * 512 < self.bytes:  # not supported, or a file system that packs zeros away
                self._write(fd)
                os.fsync(fd)
        finally:
            os.close(fd)

    def _write(self, fd: int) -> None:
        for offset in range(0, self.bytes, _CHUNK_BYTES):
            view = memoryview(os.urandom(min(_CHUNK_BYTES, self.bytes - offset)))
            while view:
                written = os.pwrite(fd, view, offset)
                offset, view = offset + written, view[written:]
