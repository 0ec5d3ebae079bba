"""Bugs that the suite must catch, each a small patch put into the forked daemon before it begins."""

from collections.abc import Callable
from dataclasses import dataclass

from spool.protocol import durable


@dataclass(frozen=True)
class Bug:
    words: str
    patch: Callable[[], None]


BUGS: dict[str, Bug] = {}


def serial_fsyncs() -> None:
    """The fsyncs of one commit one after another in the main thread, so that strace's counters reach each of them."""
    durable.sync_all = lambda paths: durable.sync(*paths)  # type: ignore[assignment]


def shift_clock(seconds: float) -> None: ...
