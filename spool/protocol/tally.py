"""What votes on pairs of answers come to. Each pair counts once, however many people have voted on it.

A pair goes to the side that more than half of its voters found the better one; every other pair is a tie. The win rate
leaves ties out. Its 95% interval is Wilson's and its chance the two-sided sign test's, both scipy's.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations

from spool.protocol.ballot import Ballot
from spool.protocol.votes import Vote

CHANCE = 0.05
"""What chance makes more often than this is called no clear result, as in the report."""


@dataclass(frozen=True)
class Outcome:
    """One pair: how many found the first side better, the second, both good, both bad."""

    first: int = 0
    second: int = 0
    good: int = 0
    bad: int = 0
    winner: str | None = None
    """None: a tie."""

    @property
    def of(self) -> int:
        return self.first + self.second + self.good + self.bad


@dataclass(frozen=True)
class Tally:
    """The second side against the first."""

    wins: int
    losses: int
    ties: int
    people: int
    votes: int
    rate: float | None
    """Wins of wins and losses; None where there are only ties."""
    interval: tuple[float, float] | None
    chance: float
    """How often chance alone makes a result that is at least so uneven."""
    agreement: float | None
    """Of all pairs of people who voted on the same answers, the share that chose the same; None without any."""
    compared: int
    """How many such pairs of votes there are."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """By sample, of those with a vote."""

    @property
    def clear(self) -> bool:
        return self.chance < CHANCE


def count(ballot: Ballot, votes: Iterable[Vote]) -> Tally:
    """The result of these votes; those that are not on this ballot do not count."""
    by_sample: dict[str, list[Vote]] = {}
    for vote in votes:
        if vote.sample in ballot.samples:
            by_sample.setdefault(vote.sample, []).append(vote)
    outcomes = {sample: _outcome(ballot, by_sample[sample]) for sample in ballot.samples if sample in by_sample}
    winners = Counter(outcome.winner for outcome in outcomes.values())
    first, second = ballot.sides
    wins, losses = winners[second], winners[first]
    rate, interval, chance = _tested(wins, wins + losses)
    agreement, compared = _agreement(by_sample.values())
    return Tally(
        wins,
        losses,
        winners[None],
        len({vote.who for several in by_sample.values() for vote in several}),
        sum(map(len, by_sample.values())),
        rate,
        interval,
        chance,
        agreement,
        compared,
        outcomes,
    )


def _outcome(ballot: Ballot, votes: list[Vote]) -> Outcome:
    first, second = ballot.sides
    found = Counter(tuple(vote.better) for vote in votes)
    winner = next((side for side in ballot.sides if 2 * found[(side,)] > len(votes)), None)
    return Outcome(found[(first,)], found[(second,)], found[(first, second)], found[()], winner)


def _tested(wins: int, of: int) -> tuple[float | None, tuple[float, float] | None, float]:
    if not of:
        return None, None, 1.0
    from scipy.stats import binomtest  # here: it takes most of a second to load

    found = binomtest(wins, of)
    interval = found.proportion_ci(0.95, "wilson")
    return wins / of, (float(interval.low), float(interval.high)), float(found.pvalue)


def _agreement(by_sample: Iterable[list[Vote]]) -> tuple[float | None, int]:
    """Both good and both bad are the same here: a tie."""
    same = compared = 0
    for votes in by_sample:
        said = [vote.better[0] if len(vote.better) == 1 else None for vote in votes]
        pairs = [one == other for one, other in combinations(said, 2)]
        same, compared = same + sum(pairs), compared + len(pairs)
    return (same / compared if compared else None), compared
