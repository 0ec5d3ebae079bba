"""The GPU before a job: whether the card that was here is lost, and whether others hold its memory."""

import errno
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spool.health import processes, xid
from spool.health.gpu import Gpu, Values
from spool.protocol import durable
from spool.protocol.home import Home

log = logging.getLogger("runner")

TIMEOUT_S = 5.0
FRESH_S = 1.0
"""`busy` right after `fault` looks at the same answer."""

NO_CARD_HERE = ("Driver Not Loaded", "Shared Library Not Found", "Not Found", "No module named")
"""What a machine says that never had a card. From one that had, it is a fault."""

CURES = (
    ("is lost", "It fell off the bus: reboot the machine."),
    ("requires restart", "Reset it (`nvidia-smi --gpu-reset`) or reboot the machine."),
    ("mismatch", "The driver was upgraded while it was loaded: reboot the machine."),
    ("Driver Not Loaded", "See `nvidia-smi` and `dmesg`; reboot, or install the driver for this kernel."),
    ("Not Found", "See `nvidia-smi`; install the driver, or give the container the card (--gpus all)."),
)


@dataclass(frozen=True)
class _Answer:
    at: float
    values: Values
    error: str | None


class Card:
    """The daemon makes one, `Card(home, Gpu(), options.gpu_foreign_gb)`, and asks before every claim, in this order:

    - `fault()`: not None means halted (code `gpu_lost`): the queue is held, the words are the reason, and the next
      scan asks again, so that it goes on by itself after a reset. After a child has ended with a CUDA error it is worth
      asking too.
    - `busy()`: not None means waiting (`waiting_for`): nothing is claimed, the next scan asks again.

    What was seen is kept in spool/state/card.json, so that a card that does not come back with a reboot is missed. A
    card that was taken out for good is forgiven by deleting that file. Where there never was a card there is no fault.

    Raises OSError where card.json cannot be written; everything that NVML may do is caught. NVML is asked in a thread:
    a driver that hangs holds up the daemon for `timeout_s` once, and is then a fault until it answers.
    """

    def __init__(
        self,
        home: Home,
        gpu: Gpu,
        foreign_gb: float = 2.0,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.home = home
        self.gpu = gpu
        self.foreign_gb = foreign_gb
        self.timeout_s = timeout_s
        self.clock = clock
        self._asking: threading.Thread | None = None
        self._answer: _Answer | None = None

    def fault(self) -> str | None:
        """Why no job can run on the card that was here, with what to do; None where all is well."""
        seen = self._seen()
        answer = self._ask()
        name = f"the GPU {seen['name']} ({seen['uuid']})" if seen else "the GPU"
        if answer is None:
            cure = "See `dmesg` for Xid; reboot the machine."
            return f"{name} does not answer: the driver hangs (no word in {self.timeout_s:g} s){_xid()}. {cure}"
        if answer.error is not None:
            if seen is None and any(words in answer.error for words in NO_CARD_HERE):
                return None
            return f"{name} cannot be used: {answer.error}{_xid()}. {_cure(answer.error)}"
        return self._missing(seen, answer.values, name)

    def busy(self) -> str | None:
        """Who else holds so much of the card's memory that a job had better wait; None where nobody does."""
        answer = self._answer
        if answer is None or self.clock() - answer.at > FRESH_S:
            answer = self._ask()
        if answer is None or answer.error is not None:
            return None
        found = [
            (processes.look(self.home, each["pid"]), each["mem_bytes"]) for each in answer.values.get("processes", [])
        ]
        foreign = [(process, used or 0) for process, used in found if process.ours is not True]
        total = sum(used for _, used in foreign)
        if total > self.foreign_gb * 1e9:
            foreign.sort(key=lambda each: -each[1])
            named = [f"{process} holds {used / 1e9:.1f} GB" for process, used in foreign[:3]]
            more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
            return f"the GPU is in use by others: {', '.join(named)}{more}"
        unseen = answer.values.get("mem_used_bytes", 0) - sum(used or 0 for _, used in found)
        if unseen > self.foreign_gb * 1e9 and not any(process.ours for process, _ in found):
            return f"{unseen / 1e9:.1f} GB of the GPU are held by what cannot be seen from here (another container?)"
        return None

    def present(self) -> bool:
        """Whether the last answer of `fault` or `busy` was that of a card that CUDA is shown."""
        return self._answer is not None and "uuid" in self._answer.values

    def _missing(self, seen: Values | None, now: Values, name: str) -> str | None:
        """Compares what there is with what there was, and remembers it where nothing is missed."""
        forgive = f"If it was taken out for good, delete {self.home.card_json}."
        if seen and now["count"] < seen["count"]:
            where = f"{now['count']} of {seen['count']} cards are left"
            return f"a GPU is gone: {where}{_xid()}. See `nvidia-smi` and `dmesg`; reboot the machine. {forgive}"
        if "uuid" not in now:
            hidden = (self.gpu.visible or "").partition(",")[0].strip()
            if seen is None or (self.gpu.visible is not None and hidden in ("", "-1", "none", "NoDevFiles")):
                return None  # there never was one, or it is hidden on purpose
            return f"{name} is not to be seen: {self.gpu.problem or 'no card'}. Correct CUDA_VISIBLE_DEVICES. {forgive}"
        kept: Values = {"v": 1, "uuid": now["uuid"], "name": now.get("name", ""), "count": now["count"]}
        # for pages, which may not see the card themselves
        kept |= {"mem_total_bytes": now["mem_total_bytes"], "capability": list(now.get("capability", ())) or None}
        if seen != kept:
            durable.write_json(self.home.card_json, kept)
            log.info("the GPU is %s (%s), one of %d", kept["name"] or "a card", kept["uuid"], kept["count"])
        return None

    def _seen(self) -> Values | None:
        try:
            found = durable.read_json(self.home.card_json)
        except ValueError:
            return None
        whole = isinstance(found, dict) and isinstance(found.get("count"), int) and {"uuid", "name"} <= found.keys()
        return found if whole else None

    def _ask(self) -> _Answer | None:
        """A fresh answer, or None where there is none in time; while an earlier question hangs no other is asked."""
        if self._asking is not None:
            if self._asking.is_alive():
                return None
            self._asking = None
        box: list[_Answer] = []
        thread = threading.Thread(target=self._ask_nvml, args=(box,), name="nvml", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise OSError(errno.EAGAIN, "no thread can be started") from None
        thread.join(self.timeout_s)
        if thread.is_alive():
            self._asking, self._answer = thread, None
            return None
        self._answer = box[0]
        return self._answer

    def _ask_nvml(self, box: list[_Answer]) -> None:
        values: Values = {}
        error: Any = None
        try:
            values = self.gpu.ask()
        except Exception as raised:  # NVMLError, a missing library, a driver that is being replaced ...
            error = str(raised) or type(raised).__name__
        box.append(_Answer(self.clock(), values, error))


def _cure(error: str) -> str:
    return next((cure for words, cure in CURES if words in error), "See `nvidia-smi` and `dmesg`; reboot the machine.")


def _xid() -> str:
    """The kernel's word on it, where it may be read."""
    severe = [each for each in xid.read() if each.severe]
    return f" ({severe[-1]})" if severe else ""
