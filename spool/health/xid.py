"""What the NVIDIA driver has told the kernel's log: Xid errors (https://docs.nvidia.com/deploy/xid-errors/)."""

import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path

KMSG = Path("/dev/kmsg")
MEANINGS = {
    48: "a memory error that could not be corrected",
    62: "the card's own controller halted",
    64: "bad memory could not be mapped away",
    74: "an NVLink fault",
    79: "the card has fallen off the bus",
    95: "a memory error that may have reached every program",
    119: "the card's firmware does not answer",
    120: "the card's firmware failed",
    140: "a memory error that could not be corrected",
    143: "the card could not be initialised",
}
"""After these the card needs a reset or the machine a reboot; the others (13, 31, 43 ...) are a program's fault."""

_LINE = re.compile(r"\d+,\d+,(?P<us>\d+)[^;]*;NVRM: Xid \((?P<bus>[^)]*)\): (?P<number>\d+)")
_RECORD_BYTES = 8192


@dataclass(frozen=True)
class Xid:
    at_s: float
    """Seconds since the boot."""
    bus: str
    number: int

    @property
    def severe(self) -> bool:
        return self.number in MEANINGS

    def __str__(self) -> str:
        meaning = f": {MEANINGS[self.number]}" if self.severe else ""
        return f"Xid {self.number}{meaning} ({self.bus})"


def read(path: Path | None = None, budget_s: float = 0.2) -> list[Xid]:
    """Every Xid that the kernel's log still holds, oldest first; none where it cannot be read."""
    try:
        fd = os.open(path or KMSG, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []
    end = time.monotonic() + budget_s
    text = []
    try:
        whole = stat.S_ISREG(os.fstat(fd).st_mode)
        while time.monotonic() < end:
            try:
                record = os.read(fd, 1 << 20 if whole else _RECORD_BYTES)  # the device gives one record a read
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue  # a record was overwritten before it was read
            if not record:
                break
            text.append(record.decode(errors="replace"))
    except OSError:
        pass
    finally:
        os.close(fd)
    found = (_LINE.match(line) for line in "".join(text).splitlines())
    return [Xid(int(match["us"]) / 1e6, match["bus"], int(match["number"])) for match in found if match]
