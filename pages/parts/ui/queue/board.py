"""What all sessions share of the queue: jobs in their order, expected times, orders not carried out yet, tags."""

from collections.abc import Mapping, Sequence

import streamlit as st

from pages.parts.queue import board
from pages.parts.queue.board import Board
from pages.parts.ui import frame
from spool.forecast import queue
from spool.forecast.queue import Span
from spool.protocol import dropbox, notes
from spool.protocol.dropbox import Order
from spool.protocol.home import Home

AS_OF_S = 3
"""Expected times are told as of at most so many seconds ago."""


@st.cache_resource(max_entries=4, show_spinner=False)
def _board(root: str, number: int) -> Board:
    return Board.of(frame.roster().look().jobs)


def look() -> Board:
    """The jobs in the order of the queue, as of at most a second ago."""
    return _board(str(frame.home().root), frame.roster().look().number)


@st.cache_resource(max_entries=4, show_spinner=False)
def _spans(root: str, number: int, moment: int) -> dict[str, Span]:
    return queue.spans(Home.at(root), frame.roster().look().jobs, frame.now())


def spans() -> Mapping[str, Span]:
    """When each job that runs or waits is expected to start and to end."""
    now = int(frame.now().timestamp()) // AS_OF_S
    return _spans(str(frame.home().root), frame.roster().look().number, now)


def pending() -> dict[str, Order]:
    """What somebody has asked for each job, as long as the runner has not done it: the same for everybody."""
    return board.pending(dropbox.orders(frame.home()))


@st.cache_data(ttl=10, max_entries=4, show_spinner=False)
def _tags(root: str) -> dict[str, tuple[str, ...]]:
    return {job_id: note.tags for job_id, note in notes.read_all(Home.at(root)).items() if note.tags}


def tags() -> Mapping[str, Sequence[str]]:
    """The tags of each job that has some."""
    return _tags(str(frame.home().root))
