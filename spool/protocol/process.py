"""What processes of ours have in common: where they find our packages, how they step back, how they lock a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOMS = Path(__file__).resolve().parents[2]


def search_path() -> str:
    """PYTHONPATH for a process that runs one of our modules, wherever it is started."""
    return os.pathsep.join(filter(None, [str(ROOMS), os.environ.get("PYTHONPATH")]))


def step_back(oom_score: int, niceness: int = 0) -> None:
    """Lets this process be the one that the kernel takes when memory runs out, and lets others have the CPU first.

    Args:
        oom_score: 0 to 1000 (oom_score_adj of proc(5)); the daemon and the web app have 0.
        niceness: 0 to 19; Linux derives a process's disk priority from it too.
    """
    with suppress(OSError):  # the web app's sandbox forbids it
        os.nice(niceness)
    try:
        Path("/proc/self/oom_score_adj").write_text(str(oom_score))
    except OSError:
        pass


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder against others that would change what lies in it; a lock on the folder leaves no file behind.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
