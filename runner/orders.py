"""Orders that people leave in control/: files named for what they ask, which hold who asks or nothing.

cancel-ID, hold-ID, release-ID, top-ID, up-ID, down-ID and priorityN-ID (N from 0 to 9) are carried out in the order in
which they were given, and removed; delete-ID too (runner/removal.py). `hold` and `drain` are themselves the state:
while one lies there no job starts. `release` takes both away; a drain also ends with the runner that drained, as what
is started again is meant to work.
"""

import logging
from collections.abc import Callable

from runner import place
from runner.removal import Removal
from runner.submitters import Submitters
from spool.protocol import dropbox, metrics
from spool.protocol.home import Home, State
from spool.protocol.states import Token, Tokens, is_final

log = logging.getLogger("runner")

MANY = 8
"""From so many orders on the folders are listed once for all of them."""

MOVES = {"top": place.top, "up": place.up, "down": place.down}


class Orders:
    """Only the daemon's main thread calls it.

    Args:
        cancel: ends a job that has not ended; True once it has.
        submitters: whose orders may say who gave them.
    """

    def __init__(
        self, home: Home, cancel: Callable[[State, Token], bool], submitters: Submitters | None = None
    ) -> None:
        self.home = home
        self.tokens = Tokens(home)
        self.cancel = cancel
        self.submitters = submitters or Submitters()
        self.removal = Removal(home, submitters=self.submitters)
        self.held = False
        self.draining = False
        self._told: set[str] = set()
        self._at: dict[str, tuple[State, Token]] = {}

    def begin(self) -> None:
        """Once, at the runner's start."""
        self.home.drain.unlink(missing_ok=True)

    def look(self) -> None:
        """Carries out what can be. An order that must wait (its job is being accepted or checked) stays."""
        given = dropbox.orders(self.home)
        names = {order.name for order in given}
        if "release" in names:
            for path in (self.home.hold, self.home.drain, self.home.control / "release"):
                path.unlink(missing_ok=True)
            names -= {"hold", "drain"}
        self.held, self.draining = "hold" in names, "drain" in names
        removed = self.removal.look(names)
        concerned = [order for order in given if order.job_id and order.name not in removed]
        self._at = self._everywhere() if len(concerned) > MANY else {}
        self._told &= names
        for order in concerned:
            self._tell(order)
            if self._obey(order.verb, order.job_id, order.level):
                (self.home.control / order.name).unlink(missing_ok=True)

    def _everywhere(self) -> dict[str, tuple[State, Token]]:
        return {token.job_id: (state, token) for state in State for token in self.tokens.list(state)}

    def _find(self, job_id: str) -> tuple[State, Token] | None:
        known = self._at.get(job_id)
        return known if known and self.tokens.path(*known).exists() else self.tokens.find(job_id)

    def _tell(self, order: dropbox.Order) -> None:
        """Once, among the job's events: what was asked, and by whom."""
        found = self._find(order.job_id)
        if order.name in self._told or found is None or is_final(found[0]):
            return
        self._told.add(order.name)
        level = "" if order.level is None else f" {order.level}"
        words = f"{order.verb}{level}, asked by {self.submitters.of(self.home.control / order.name) or '?'}"
        try:
            metrics.Writer(self.home.run(order.job_id).events, 0).write(event="order", words=words)
        except OSError as error:
            log.warning("%s cannot be noted: %s", order.name, error.strerror)

    def _obey(self, verb: str, job_id: str, level: int | None) -> bool:
        """True when the order is carried out, or came to nothing; False while it must wait."""
        found = self._find(job_id)
        if found is None:
            return not any((f / f"{job_id}.json").exists() for f in (self.home.incoming, self.home.accepting))
        state, token = found
        if verb == "cancel":
            return is_final(state) or self.cancel(state, token)
        if verb == "priority" and level is not None and state in (*place.WAITING, State.HELD):
            if level != token.priority:
                self.tokens.reorder(token, state, level, token.sequence)
        elif verb in MOVES and state in place.WAITING:
            MOVES[verb](self.tokens, job_id)
        elif state is State.CHECKING:
            return False
        elif verb == "hold" and state is State.QUEUED:
            self.tokens.move(token, State.QUEUED, State.HELD)
        elif verb == "release" and state is State.HELD:
            self.tokens.move(token, State.HELD, State.QUEUED)
        return True
