"""One person's way through the pairs of a ballot, in an order of their own."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

END = "end"


@dataclass(frozen=True)
class Course:
    """`voted` are the pairs that have this person's vote."""

    order: Sequence[str]
    voted: Collection[str]

    def at(self, asked: str | None) -> str:
        """The pair to show, or END: the one asked for where there is such a one, else the first without a vote."""
        if asked in self.order or asked == END:
            return str(asked)
        return next((each for each in self.order if each not in self.voted), END)

    def after(self, pair: str) -> str:
        """The next without a vote, from the first again behind the last; END where every other one has one."""
        start = self.order.index(pair) + 1
        around = [*self.order[start:], *self.order[: start - 1]]
        return next((each for each in around if each not in self.voted), END)

    def before(self, pair: str) -> str | None:
        """The one before in the order; None for the first."""
        place = len(self.order) if pair == END else self.order.index(pair)
        return self.order[place - 1] if place else None
