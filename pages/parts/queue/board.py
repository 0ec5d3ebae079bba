"""The jobs as the queue has them: what runs, what waits in its order, what has ended; filters, search and pages."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from spool.protocol.dropbox import Order
from spool.protocol.jobs import Job

WAITS, HELD, ENDED = "queued", "held", ("done", "failed", "cancelled", "rejected")
STATES = (WAITS, HELD, *ENDED)
"""What one may filter by; a job that is being checked waits."""

PAGE = 100
T = TypeVar("T")


@dataclass(frozen=True)
class Board:
    """One look at all jobs, sorted once for everybody. `place` is 1 for the job that starts next."""

    running: list[Job] = field(default_factory=list)
    waiting: list[Job] = field(default_factory=list)
    held: list[Job] = field(default_factory=list)
    ended: list[Job] = field(default_factory=list)
    place: dict[str, int] = field(default_factory=dict)
    people: list[str] = field(default_factory=list)
    by_id: Mapping[str, Job] = field(default_factory=dict)

    @classmethod
    def of(cls, jobs: Iterable[Job]) -> "Board":
        every = list(jobs)
        waiting = sorted((job for job in every if job.state in ("checking", WAITS)), key=_turn)
        return cls(
            [job for job in every if job.state == "running"],
            waiting,
            sorted((job for job in every if job.state == HELD), key=_turn),
            sorted((job for job in every if job.ended), key=lambda job: job.ended_at or "", reverse=True),
            {job.id: place for place, job in enumerate(waiting, start=1)},
            sorted({job.submitted_by for job in every if job.submitted_by}),
            {job.id: job for job in every},
        )

    def __bool__(self) -> bool:
        return bool(self.by_id)


def _turn(job: Job) -> tuple[bool, int, int, str]:
    """Priority, then number; a drop that the runner has not taken yet has neither and comes last."""
    taken = job.priority is not None and job.sequence is not None
    return (not taken, job.priority or 0, job.sequence or 0, job.id)


@dataclass(frozen=True)
class Wish:
    """What somebody wants to see; empty means everything."""

    words: str = ""
    people: tuple[str, ...] = ()
    states: tuple[str, ...] = ()

    def shows(self, state: str) -> bool:
        """Whether jobs in that state (one of STATES) are asked for."""
        return not self.states or state in self.states

    def keep(self, jobs: Sequence[Job], tags: Mapping[str, Sequence[str]]) -> list[Job]:
        """Those that fit: each word is in the name, model, dataset, id or a tag, whatever its case."""
        words = self.words.casefold().split()
        people = set(self.people)
        return [
            job
            for job in jobs
            if (not people or job.submitted_by in people)
            and (not words or _has(_searched(job, tags.get(job.id, ())), words))
        ]


def _searched(job: Job, tags: Sequence[str]) -> str:
    return "\n".join(filter(None, (job.name, job.model, job.dataset, job.id, *tags))).casefold()


def _has(text: str, words: list[str]) -> bool:
    return all(word in text for word in words)


def page(items: Sequence[T], number: int, size: int = PAGE) -> tuple[list[T], int, int]:
    """(those of one page, its number, how many pages there are); a number that is out of range is put right."""
    pages = max(1, -(-len(items) // size))
    number = min(max(1, number), pages)
    return list(items[(number - 1) * size : number * size]), number, pages


def pending(orders: Iterable[Order]) -> dict[str, Order]:
    """What has been asked for each job and is not carried out yet: the last word counts, but a cancel is final."""
    found: dict[str, Order] = {}
    for order in orders:
        if order.job_id and (order.job_id not in found or found[order.job_id].verb != "cancel"):
            found[order.job_id] = order
    return found


def in_order_of_giving(order: str, jobs: Sequence[Job]) -> list[Job]:
    """The order in which to ask for several jobs at once, so that they keep their order among each other."""
    line = sorted(jobs, key=_turn)
    return line[::-1] if order in ("top", "down") else line
