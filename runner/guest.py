"""How an interactive job makes room: it is asked to, and ended where it does not.

The asking is a file, runs/ID/make_room, that its child looks for between two questions and while it answers.
"""

import logging
import time
from collections.abc import Callable

from runner.stall import Watched
from spool.protocol.home import Run

log = logging.getLogger("runner")

LEAVE_S = 18.0
GRACE_S = 8.0
"""Together with a look every 2 s: gone within 30 s."""


class Guest:
    """One attempt at a session.

    Args:
        wanted: whether another job waits for the card.
        clock: monotonic seconds.
    """

    def __init__(
        self, run: Run, child: Watched, wanted: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.run = run
        self.child = child
        self.wanted = wanted
        self.clock = clock
        self.asked_at: float | None = None

    def look(self) -> None:
        """Asks the session to end once another job waits, and then goes on until it has. Called at every tick."""
        if self.asked_at is None:
            if self.wanted():
                log.info("%s makes room: another job waits", self.run.root.name)
                self.run.make_room.touch()
                self.asked_at = self.clock()
        elif self.clock() - self.asked_at >= LEAVE_S:
            self.child.terminate(GRACE_S)
