"""What may start now, and in words why nothing does."""

import shutil
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path

from runner import waits
from runner.orders import Orders
from spool.forecast.hours import is_open
from spool.protocol import asks
from spool.protocol.home import Home, State
from spool.protocol.settings import Settings
from spool.protocol.states import Token, Tokens


class Schedule:
    """Only the daemon's main thread calls it.

    Args:
        clock: UTC epoch seconds; the window is in this machine's local time.
    """

    def __init__(self, home: Home, options: Settings, orders: Orders, clock: Callable[[], float] = time.time) -> None:
        self.home = home
        self.options = options
        self.orders = orders
        self.clock = clock
        self.tokens = Tokens(home)
        self.is_session = lru_cache(20_000)(partial(asks.is_session, home))
        """Whether a job is an interactive one: what its spec says never changes."""

    def queue(self) -> str:
        """open, held, draining or closed (outside of the window)."""
        if self.orders.held:
            return "held"
        if self.orders.draining:
            return "draining"
        return "open" if self._in_window() else "closed"

    def why_not(self) -> str | None:
        """Why no job may start, whichever it is."""
        match self.queue():
            case "held":
                return f"the queue is held{self._by(self.home.hold)}, until somebody releases it"
            case "draining":
                return (
                    f"the runner drains{self._by(self.home.drain)}: it starts no job until it is restarted or released"
                )
            case "closed":
                assert self.options.window is not None
                return f"jobs start between {self.options.window.start} and {self.options.window.end} only"
        free = shutil.disk_usage(self.home.root).free
        if free < self.options.min_free_gb * 1e9:
            limit = f"{self.options.min_free_gb:g}"
            return f"{free / 1e9:.2f} GB of disk are free, and no job starts below {limit} (settings: min_free_gb)"
        return None

    def next(self) -> Token | None:
        """The first job in the queue that need not wait for its own reasons; a session only where no other waits."""
        session = None
        for token in self.tokens.list(State.QUEUED):
            if waits.may_start(self.home, token.job_id, self.clock):
                if not self.is_session(token.job_id):
                    return token
                session = session or token
        return None if session and self._is_wanted(State.CHECKING) else session

    def wants_room(self) -> bool:
        """Whether a job waits that would start if no session ran."""
        return self.why_not() is None and (self._is_wanted(State.QUEUED) or self._is_wanted(State.CHECKING))

    def _is_wanted(self, state: State) -> bool:
        """Whether a job that is no session gets on in this state."""
        return any(
            not self.is_session(token.job_id) and waits.may_start(self.home, token.job_id, self.clock)
            for token in self.tokens.list(state)
        )

    def must_stop(self) -> bool:
        """Whether the window has closed over a running job and it shall make room."""
        window = self.options.window
        return window is not None and window.at_end == "interrupt" and not self._in_window()

    def _by(self, order: Path) -> str:
        name = self.orders.submitters.of(order)
        return f" by {name}" if name else ""

    def _in_window(self) -> bool:
        window = self.options.window
        return window is None or is_open(window, datetime.fromtimestamp(self.clock()))
