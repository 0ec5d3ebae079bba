"""Home: what runs, what comes next and when, what has ended since the last visit; for a newcomer a first training."""

import time
from datetime import datetime

import streamlit as st

from pages.parts import quantities
from pages.parts.escape import md
from pages.parts.phrases import translated
from pages.parts.queue import expected, seen, strip
from pages.parts.queue.board import Board
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from pages.parts.ui.queue import board as shared
from pages.parts.ui.queue import walk
from spool.protocol.jobs import Job, iso

SINCE = "home-since"
FIRST = {"data": ":material/dataset:", "train": ":material/model_training:", "watch": ":material/monitoring:"}
NEXT, NEWS = 5, 8
"""So many rows of each list; the rest is on Queue."""


def since() -> str:
    """The end of the last visit (ISO 8601); the same for as long as this one lasts."""
    who = frame.user()
    found = seen.since(frame.home(), who, time.time())
    return str(st.session_state.setdefault(SINCE, iso(found)) if who else iso(found))


def first_steps() -> None:
    with st.grid(3, min_column_width=240):
        for name, icon in FIRST.items():
            with st.container(border=True, height="stretch", gap="xsmall"):
                st.markdown(f"{icon} **{t(f'home.first.{name}')}**")
                st.markdown(f":gray[{t(f'home.first.{name}_says')}]")
    with st.container(horizontal=True, vertical_alignment="center"):
        walk.button()
        if st.button(t("home.upload"), icon=":material/upload:", key="home-upload"):
            st.switch_page(frame.DATA)
    st.caption(t("home.example"))


def line(job: Job, when: str, below: str = "") -> None:
    with st.container(gap=None):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", gap="small"):
            jobs.head(job)
            st.caption(when, width="content")
        if below:
            with st.container(horizontal=True, gap="small", wrap=False):
                st.space(jobs.STATE_PX + 7)  # a link stands that far in
                st.caption(below)


def running(every: Board, guided: Job | None) -> None:
    now = frame.now()
    for job in every.running:
        if guided and job.id == guided.id:
            continue
        with st.container(border=True, gap="small"):
            span = shared.spans().get(job.id)
            said = [t("queue.started", ago=quantities.ago(job.started_at, now))]
            if span and span.end:
                said.append(t("queue.done_at", at=expected.end(span, now, frame.zone())))
            line(job, " · ".join(said))
            st.progress(jobs.fraction(job) or 0.0, text=jobs.progress_text(job))
    if not every.running:
        st.caption(t("home.nothing_runs" if every.waiting else "home.idle"))


def coming(every: Board) -> None:
    """The next ones, each with when it is expected to run."""
    if not every.waiting:
        return
    now, spans = frame.now(), shared.spans()
    heading(t("home.next"), len(every.waiting), frame.QUEUE, t("home.whole_queue"))
    with st.container(border=True, gap="xsmall"):
        for job in every.waiting[:NEXT]:
            span = spans.get(job.id)
            if span and span.start:
                when = t("home.starts", at=expected.start(span, now, frame.zone()))
                when += f" · {t('home.ends', at=expected.end(span, now, frame.zone()))}" if span.end else ""
            else:
                when = md(expected.why(span))
            line(job, when)
        more = len(every.waiting) - NEXT
        if more > 0:
            st.caption(t("home.more", count=more))


def news(every: Board) -> None:
    """What has ended since the last visit; what failed with the way to cure it."""
    after, now = since(), frame.now()
    fresh = []
    for job in every.ended:  # newest first
        if (job.ended_at or "") < after:
            break
        fresh.append(job)
    known = frame.user() is not None
    says = t("home.since", at=expected.hour(quantities.moment(after), now, frame.zone())) if known else t("home.day")
    heading(says, len(fresh), frame.QUEUE, t("home.everything") if len(every.ended) > len(fresh) else "")
    if not fresh:
        st.caption(t("home.no_news"))
        return
    with st.container(border=True, gap="xsmall"):
        for job in fresh[:NEWS]:
            line(job, _ended(job, now), _cure(job))
        if len(fresh) > NEWS:
            st.caption(t("home.more", count=len(fresh) - NEWS))


def _ended(job: Job, now: datetime) -> str:
    said = [quantities.ago(job.ended_at, now)]
    loss = (job.result or {}).get("final_loss")
    if isinstance(loss, int | float):
        said.insert(0, t("home.loss", loss=quantities.loss(float(loss))))
    elif made := jobs.made(job):
        said.insert(0, made)
    return " · ".join(said)


def _cure(job: Job) -> str:
    """What happened and what to do about it, in one line; of failed and refused jobs only."""
    if job.state not in ("failed", "rejected"):
        return ""
    hint = translated((job.error or {}).get("hint") or "")
    return f"{md(jobs.why(job), 140)} :gray[→] {md(hint, 160)}" if hint else md(jobs.why(job), 240)


def heading(title: str, count: int, page: str, label: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(f"{title} · {quantities.count(count)}" if count else title, anchor=False, width="content")
        if label:
            frame.link(page, label, icon="")


def health(every: Board) -> None:
    signs = strip.signs(frame.home(), every.running[0] if every.running else None)
    parts = [f":{'orange' if sign.warns else 'gray'}[:material/{sign.icon}:] {md(sign.says)}" for sign in signs]
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        for part in parts:
            st.caption(part, width="content")


@st.fragment(run_every="3s")
def going_on() -> None:
    every = shared.look()
    guided = walk.job()
    if guided:
        walk.card(guided)
    running(every, guided)
    coming(every)
    news(every)
    health(every)
    if not guided:
        walk.button(quiet=True)


if shared.look():
    frame.title(t("frame.page.home"), t("home.says"))
    frame.runner_notice()
    going_on()
else:
    frame.title(t("home.welcome"), t("home.welcome_says"))
    frame.runner_notice()
    first_steps()
