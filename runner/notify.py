"""Speaks to systemd (sd_notify(3)) where the runner is its service, and to nobody elsewhere.

Only the main loop feeds the watchdog: a loop that hangs is ended and started again. A halted runner is not hung.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

log = logging.getLogger("runner")

MORE_TIME_S = 60.0
"""How much longer systemd is asked to wait, each time, while a trainer writes its checkpoint on a stop."""


class Notify:
    """One service's line to its manager. A message that cannot be sent is dropped: it must never stop the runner.

    Args:
        environment: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, as systemd sets them.
    """

    def __init__(self, environment: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.feed_s = int(environment.get("WATCHDOG_USEC") or 0) / 2e6 if mine else 0.0
        """Time between two feeds of the watchdog, half of what it allows; 0 without one."""
        self._clock = clock
        self._fed_at: float | None = None
        self._said: tuple[bool, str] | None = None

    def tell(self, words: str, stopping: bool) -> None:
        """What `systemctl status` shows; the first call says that the service is ready. Said once a change."""
        if self._said == (stopping, words):
            return
        first, self._said = self._said is None, (stopping, words)
        state = "STOPPING=1" if stopping else "READY=1" if first else ""
        self._send(state, "STATUS=" + " ".join(words.split()))

    def alive(self, stopping: bool) -> None:
        """Called by each round of the main loop: feeds the watchdog when half of its time is over."""
        now = self._clock()
        if self._fed_at is not None and now < self._fed_at + (self.feed_s or MORE_TIME_S / 2):
            return
        self._fed_at = now
        lines = ["WATCHDOG=1"] if self.feed_s else []
        if stopping:
            lines.append(f"EXTEND_TIMEOUT_USEC={MORE_TIME_S * 1e6:.0f}")
        self._send(*lines)

    def _send(self, *lines: str) -> None:
        message = "\n".join(filter(None, lines))
        if not self._address or not message:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.settimeout(1.0)
                line.sendto(message.encode(), self._address)
        except OSError as error:
            log.debug("systemd was not told: %s", error)
