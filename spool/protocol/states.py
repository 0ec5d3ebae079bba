"""Tokens and their moves: a job's state is the folder its token lies in, a transition is one rename(2).

A token is a small file named PRIORITY-SEQUENCE-ID.json, so that `ls` shows a queue in its order.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from spool.protocol import durable
from spool.protocol.home import FINAL, Home, State

MOVES: Mapping[State, frozenset[State]] = {
    State.CHECKING: frozenset({State.QUEUED, State.FAILED, State.CANCELLED}),
    State.QUEUED: frozenset({State.RUNNING, State.HELD, State.FAILED, State.CANCELLED}),
    State.HELD: frozenset({State.QUEUED, State.CANCELLED}),
    State.RUNNING: frozenset({State.QUEUED, State.DONE, State.FAILED, State.CANCELLED}),
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}
"""What may follow what. RUNNING -> QUEUED is an interrupted job going back to the head of its priority."""

_NAME = re.compile(r"([0-9])-([0-9]{12})-([0-7][0-9A-HJKMNP-TV-Z]{25})\.json")


class Token(NamedTuple):
    """Compares in queue order: priority (0 first), then the sequence number given at acceptance."""

    priority: int
    sequence: int
    job_id: str

    @property
    def filename(self) -> str:
        return f"{self.priority}-{self.sequence:012d}-{self.job_id}.json"

    @classmethod
    def parse(cls, filename: str) -> "Token | None":
        match = _NAME.fullmatch(filename)
        return cls(int(match[1]), int(match[2]), match[3]) if match else None


class Tokens:
    """The token folders. Only the runner moves tokens; everybody may look."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def list(self, state: State) -> list[Token]:
        """In queue order; files that are not tokens are passed over."""
        try:
            names = os.listdir(self.home.state(state))
        except FileNotFoundError:
            return []
        # Names have fixed widths: their order is the tokens', and a thousand texts are sorted sooner than tokens.
        return [token for name in sorted(names) if (token := Token.parse(name))]

    def find(self, job_id: str) -> tuple[State, Token] | None:
        """Where a job stands. Looks twice, as a token may move from a folder not yet read to one already read."""
        for _ in range(2):
            for state in State:
                for token in self._named(state, f"-{job_id}.json"):
                    return state, token
        return None

    def _named(self, state: State, ending: str) -> Iterator[Token]:
        try:
            names = os.listdir(self.home.state(state))
        except FileNotFoundError:
            return
        for name in names:
            if name.endswith(ending) and (token := Token.parse(name)):
                yield token

    def path(self, state: State, token: Token) -> Path:
        return self.home.state(state) / token.filename

    def body(self, state: State, token: Token) -> dict[str, Any]:
        """What was written at acceptance: name, kind, submitted_at, submitted_by."""
        try:
            return durable.read_json(self.path(state, token)) or {}
        except ValueError:
            return {}

    def create(self, state: State, token: Token, body: dict[str, Any]) -> None:
        """Commits a new job: the token is written and fsynced in tmp/, then renamed into its state."""
        temporary = self.home.tmp / token.filename
        durable.write_new(temporary, durable.to_bytes(body))
        os.rename(temporary, self.path(state, token))

    def move(self, token: Token, source: State, target: State) -> None:
        """One rename.

        Raises:
            ValueError: the state machine knows no such move.
            FileNotFoundError: somebody else moved the token first.
        """
        if target not in MOVES[source]:
            raise ValueError(f"a {source} job cannot become {target}")
        durable.move(self.path(source, token), self.path(target, token))

    def reorder(self, token: Token, state: State, priority: int, sequence: int) -> Token:
        """Gives a waiting job another place in the queue."""
        moved = token._replace(priority=priority, sequence=sequence)
        durable.move(self.path(state, token), self.path(state, moved))
        return moved

    def last_sequence(self) -> int:
        return max((token.sequence for state in State for token in self.list(state)), default=0)


def is_final(state: State) -> bool:
    return state in FINAL
