"""Moving a waiting job in the queue. Whatever cuts it short, `ls` shows the old order or the new one.

A place is a priority and a number. A job goes between two others by taking a number that no living job has; where there
is none, its neighbours make room first, the outermost before the next, so that no rename changes the order of the rest.
Numbers above the highest are left alone: the next job that is accepted gets them.
"""

from itertools import pairwise

from spool.protocol.home import State
from spool.protocol.states import Token, Tokens

WAITING = (State.CHECKING, State.QUEUED)
LIVING = (*WAITING, State.HELD, State.RUNNING)


def top(tokens: Tokens, job_id: str) -> None:
    """Before every other waiting job."""
    line = _Line(tokens, job_id)
    if line.before or line.job.priority:
        first = line.others[0] if line.others and line.others[0].priority == 0 else None
        line.put(0, None, first)


def up(tokens: Tokens, job_id: str) -> None:
    """Before the one that is before it, in that one's priority."""
    line = _Line(tokens, job_id)
    if line.at < len(line.others) and _tie(line.others[line.at], line.job) and line.step_out(below=True):
        return
    if line.before:
        priority = line.before.priority
        line.put(priority, line.other(line.at - 2, priority), line.before)


def down(tokens: Tokens, job_id: str) -> None:
    """Behind the one that is behind it, in that one's priority."""
    line = _Line(tokens, job_id)
    if line.before and _tie(line.before, line.job) and line.step_out(below=False):
        return
    if line.behind:
        priority = line.behind.priority
        line.put(priority, line.behind, line.other(line.at + 1, priority))


def _tie(one: Token, other: Token) -> bool:
    """Two jobs that change places have the same one between two renames: what was cut there is finished."""
    return one[:2] == other[:2]


class _Line:
    """The waiting jobs in their order, seen from one of them."""

    def __init__(self, tokens: Tokens, job_id: str) -> None:
        self.tokens = tokens
        self.where = {token: state for state in WAITING for token in tokens.list(state)}
        order = sorted(self.where)
        self.job = next(token for token in order if token.job_id == job_id)
        self.at = order.index(self.job)
        self.others = order[: self.at] + order[self.at + 1 :]
        living = [token for state in LIVING for token in tokens.list(state)]
        self.used = {token.sequence for token in living if token.job_id != job_id}
        # Above the highest nothing is taken, except where the job shares its number and so cannot give it away.
        self.ceiling = max(token.sequence for token in living) + (self.job.sequence in self.used)

    @property
    def before(self) -> Token | None:
        return self.others[self.at - 1] if self.at else None

    @property
    def behind(self) -> Token | None:
        return self.others[self.at] if self.at < len(self.others) else None

    def other(self, at: int, priority: int) -> Token | None:
        """The job at a place among the others, where there is one of that priority."""
        inside = 0 <= at < len(self.others) and self.others[at].priority == priority
        return self.others[at] if inside else None

    def put(self, priority: int, low: Token | None, high: Token | None) -> None:
        """Between two neighbours of that priority; None stands for its end."""
        number = self._free(low, high)
        if number is None:
            number = self._make_room(priority, low, high)
        self.tokens.reorder(self.job, self.where[self.job], priority, number)

    def step_out(self, below: bool) -> bool:
        """Out of a tie, without passing anybody; False where there is no room for it."""
        near = self.other(self.at - 1, self.job.priority) if below else self.other(self.at, self.job.priority)
        number = self._free(near, self.job) if below else self._free(self.job, near)
        if number is not None:
            self.tokens.reorder(self.job, self.where[self.job], self.job.priority, number)
        return number is not None

    def _free(self, low: Token | None, high: Token | None) -> int | None:
        """A number between two, the job's own where that fits."""
        least = low.sequence + 1 if low else 0
        most = high.sequence - 1 if high else self.ceiling
        if least <= self.job.sequence <= most and self.job.sequence not in self.used:
            return self.job.sequence
        return next((n for n in range(most, least - 1, -1) if n not in self.used), None)

    def _make_room(self, priority: int, low: Token | None, high: Token | None) -> int:
        """Moves the fewest neighbours apart; gives the number that became free. The job's own is always to be had."""
        line = [token for token in self.others if token.priority == priority]
        middle = line.index(high) if high else len(line)
        above = self._run([*line[middle:], None], upwards=True)
        below = self._run([*line[:middle][::-1], None], upwards=False)
        chosen = min((run for run in (above, below) if run), key=len)
        for token, number in reversed(chosen):
            self.tokens.reorder(token, self.where[token], priority, number)
        return chosen[0][0].sequence

    def _run(self, line: list[Token | None], upwards: bool) -> list[tuple[Token, int]]:
        """(token, its new number) from the gap outwards, as far as one must move; empty where there is no room."""
        run: list[Token] = []
        for token, further in pairwise(line):
            assert token is not None
            run.append(token)
            room = self._free(token, further) if upwards else self._free(further, token)
            if room is not None:
                return list(zip(run, [*(each.sequence for each in run[1:]), room], strict=True))
        return []
