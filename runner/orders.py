"""Orders that people leave in control/: empty files, named for what they ask.

cancel-ID, hold-ID, release-ID and top-ID are carried out and removed, delete-ID too (runner/removal.py). `hold` and
`drain` are themselves the state: while one lies there no job starts. `release` takes both away; a drain also ends with
the runner that drained, as what is started again is meant to work.
"""

import os
from collections.abc import Callable

from runner.removal import Removal
from spool.protocol.home import Home, State
from spool.protocol.states import Token, Tokens, is_final
from spool.protocol.ulid import is_ulid


class Orders:
    """Only the daemon's main thread calls it.

    Args:
        cancel: ends a job that has not ended; True once it has.
    """

    def __init__(self, home: Home, cancel: Callable[[State, Token], bool]) -> None:
        self.home = home
        self.tokens = Tokens(home)
        self.cancel = cancel
        self.removal = Removal(home)
        self.held = False
        self.draining = False

    def begin(self) -> None:
        """Once, at the runner's start."""
        self.home.drain.unlink(missing_ok=True)

    def look(self) -> None:
        """Carries out what can be. An order that must wait (its job is being accepted or checked) stays."""
        names = set(os.listdir(self.home.control))
        if "release" in names:
            for path in (self.home.hold, self.home.drain, self.home.control / "release"):
                path.unlink(missing_ok=True)
            names -= {"hold", "drain"}
        self.held, self.draining = "hold" in names, "drain" in names
        names -= self.removal.look(names)
        for name in sorted(names):
            verb, _, job_id = name.partition("-")
            if is_ulid(job_id) and self._obey(verb, job_id):
                (self.home.control / name).unlink(missing_ok=True)

    def _obey(self, verb: str, job_id: str) -> bool:
        """True when the order is carried out, or came to nothing; False while it must wait."""
        found = self.tokens.find(job_id)
        if found is None:
            return not any((f / f"{job_id}.json").exists() for f in (self.home.incoming, self.home.accepting))
        state, token = found
        if verb == "cancel":
            return is_final(state) or self.cancel(state, token)
        if state is State.CHECKING:
            return False
        if verb == "hold" and state is State.QUEUED:
            self.tokens.move(token, State.QUEUED, State.HELD)
        elif verb == "release" and state is State.HELD:
            self.tokens.move(token, State.HELD, State.QUEUED)
        elif verb == "top" and state is State.QUEUED:
            queue = self.tokens.list(State.QUEUED)
            first = min((t.sequence for t in queue if t.priority == 0), default=token.sequence)
            self.tokens.reorder(token, State.QUEUED, 0, max(0, first - 1))
        return True
