"""Queue: what runs, what waits in its order and when it is expected to start, what has ended; orders to all of it."""

from collections.abc import Sequence

import streamlit as st

from pages.parts import alive, quantities
from pages.parts.queue import board, expected
from pages.parts.queue.board import ENDED, HELD, STATES, WAITS, Board, Wish
from pages.parts.texts import t
from pages.parts.ui import choices, frame, jobs
from pages.parts.ui.queue import board as shared
from pages.parts.ui.queue import tables
from pages.parts.ui.queue.tables import Picked, View
from pages.parts.words import state as look_of
from spool.protocol.jobs import Job

OPEN = "queue-open"


def running_card(job: Job, view: View) -> None:
    with st.container(border=True, gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False):
            with st.container(horizontal=True, vertical_alignment="center", gap="xxsmall"):
                jobs.head(job)
                st.caption(jobs.about(job), width="content")
            jobs.menu(job, "queue")
        st.progress(jobs.fraction(job) or 0.0, text=jobs.progress_text(job))
        said = [t("queue.started", ago=quantities.ago(job.started_at, view.now))]
        span = view.spans.get(job.id)
        if span and span.end:
            said.append(t("queue.done_at", at=expected.end(span, view.now, view.zone)))
        if job.id in view.pending:
            said.append(jobs.asked(view.pending[job.id]))
        st.caption(" · ".join(said))


def filters(every: Board) -> Wish:
    """Search, person and state, kept in the address."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        words = st.text_input(
            t("queue.search"),
            key="q",
            bind="query-params",
            type="search",
            placeholder=t("queue.search"),
            icon=":material/search:",
            label_visibility="collapsed",
            width=300,
            max_chars=120,
        )
        choices.keep_several("state", STATES)
        states = st.multiselect(
            t("queue.state"),
            STATES,
            key=choices.key("state"),
            on_change=choices.went_several,
            args=("state",),
            format_func=lambda name: look_of(name).label,
            placeholder=t("queue.every_state"),
            label_visibility="collapsed",
            width=210,
        )
        people: Sequence[str] = ()
        if len(every.people) > 1:
            people = st.multiselect(
                t("queue.person"),
                every.people,
                key="by",
                bind="query-params",
                placeholder=t("queue.everybody"),
                label_visibility="collapsed",
                width=210,
            )
        st.space("stretch")
        jobs.queue_menu(alive.look(frame.home()))
    return Wish((words or "")[:120], tuple(people), tuple(state for state in states if state in STATES))


def head(title: str, count: int, picked: Picked, chosen: Sequence[Job], orders: Sequence[str]) -> None:
    """The section's name, and what can be done with the selection; on the left, as a table's own tools hover right."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        says = f"{title} · {quantities.count(count)}" if count else title
        st.subheader(says, anchor=False, width="content")
        if chosen:
            tables.toolbar(picked, chosen, orders)


def pager(found: Sequence[Job], name: str) -> int:
    """The page of a long list that is shown; its number stands in the address."""
    pages = board.page(found, 1)[2]
    if pages == 1:
        return 1
    with st.container(horizontal_alignment="center"):
        return st.pagination(pages, key=name, bind="query-params")


def waiting(every: Board, wish: Wish, view: View) -> None:
    if not (wish.shows(WAITS) or wish.shows(HELD)):
        return
    pool = [*(every.waiting if wish.shows(WAITS) else ()), *(every.held if wish.shows(HELD) else ())]
    found = wish.keep(pool, shared.tags())
    above = st.container()
    number = pager(found, "waiting-page")
    picked = Picked("waiting", (wish, number))
    listed = picked.freeze(board.page(found, number)[0], every.by_id)
    with above:
        head(t("queue.waiting"), len(found), picked, picked.jobs(listed), tables.BULK)
        if listed:
            tables.waiting_table(picked, listed, view, remember)
        elif pool:
            st.caption(t("queue.none_fits"))
        else:
            st.caption(t("queue.nothing_waits" if every.running else "queue.idle"))


def ended(every: Board, wish: Wish, view: View) -> None:
    states = [state for state in ENDED if wish.shows(state)]
    if not states:
        return
    pool = every.ended if len(states) == len(ENDED) else [job for job in every.ended if job.state in states]
    found = wish.keep(pool, shared.tags())
    above = st.container()
    number = pager(found, "page")
    picked = Picked("ended", (wish, number))
    listed = picked.freeze(board.page(found, number)[0], every.by_id)
    with above:
        head(t("queue.finished"), len(found), picked, picked.jobs(listed), tables.BULK_ENDED)
        if listed:
            tables.ended_table(picked, listed, view, remember)
        else:
            st.caption(t("queue.none_fits" if pool else "queue.nothing_finished"))
    left_out = frame.roster().look().left_out
    if left_out:
        st.caption(t("queue.left_out", count=left_out))


def remember(job_id: str) -> None:
    st.session_state[OPEN] = job_id


@st.fragment(run_every="3s")
def queue() -> None:
    wanted = st.session_state.pop(OPEN, None)
    if wanted:
        st.switch_page(frame.MONITOR, query_params={"job": wanted})
    every = shared.look()
    frame.runner_notice()
    if not every:
        frame.nothing(t("queue.empty"), t("queue.empty_says"), frame.TRAIN, t("queue.first"))
        return
    view = View(every, shared.spans(), shared.pending(), frame.now(), frame.zone())
    for job in every.running:
        running_card(job, view)
    wish = filters(every)
    waiting(every, wish, view)
    ended(every, wish, view)


frame.title(t("frame.page.queue"), t("queue.says"))
queue()
