"""How many jobs may wait: the limits of the queue as a whole and of each person."""

import os

from spool.protocol.errors import Problem
from spool.protocol.home import Home, State
from spool.protocol.states import Token, Tokens

WAITING = (State.CHECKING, State.QUEUED, State.HELD)


class Room:
    """Counts by listing three folders once a batch of drops, never once a drop.

    Args:
        most: jobs that may wait together; None: any number.
        most_per_user: jobs of one account that may wait.
    """

    def __init__(self, home: Home, most: int | None, most_per_user: int | None) -> None:
        self.home = home
        self.tokens = Tokens(home)
        self.most = most
        self.most_per_user = most_per_user
        self._waiting = 0
        self._user_of: dict[str, str | None] = {}
        self._of_user: dict[str | None, int] = {}

    def look(self) -> None:
        """Counts anew, before a batch is judged."""
        if self.most_per_user is None:
            self._waiting = sum(len(os.listdir(self.home.state(state))) for state in WAITING)
            return
        # A body is read once for each job, and again only for what came back from running.
        placed = [(state, token) for state in WAITING for token in self.tokens.list(state)]
        known = self._user_of
        self._user_of = {t.job_id: known.get(t.job_id) or self._read_user(state, t) for state, t in placed}
        self._waiting = len(placed)
        self._of_user = {}
        for user in self._user_of.values():
            self._of_user[user] = self._of_user.get(user, 0) + 1

    def problem(self, user: str | None) -> Problem | None:
        """Why no further job of `user` may wait; None while one may."""
        if self.most is not None and self._waiting >= self.most:
            message = f"{self._waiting:,} jobs wait already, and {self.most:,} may (max_queued in settings.json)."
            return Problem("queue_full", message, _HINT)
        if self.most_per_user is not None and self._of_user.get(user, 0) >= self.most_per_user:
            whose = user or "somebody unknown"
            message = f"{self.most_per_user:,} jobs of {whose} wait already, the most for one (max_queued_per_user)."
            return Problem("queue_full", message, _HINT)
        return None

    def took(self, job_id: str, user: str | None) -> None:
        self._waiting += 1
        self._user_of[job_id] = user
        self._of_user[user] = self._of_user.get(user, 0) + 1

    def _read_user(self, state: State, token: Token) -> str | None:
        user = self.tokens.body(state, token).get("submitted_by")
        return user if isinstance(user, str) else None


_HINT = "Nothing is lost: the spec is kept in rejected/. Submit it again when jobs have ended or were cancelled."
