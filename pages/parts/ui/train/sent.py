"""After handing in: what became of the job, where it stands, and when it is expected. It follows the job."""

from datetime import datetime

import streamlit as st

from pages.parts import alive, quantities, words
from pages.parts.escape import md
from pages.parts.phrases import translated
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from pages.parts.ui.train import form
from pages.parts.ui.train.form import OTHER, STATE
from spool.forecast.queue import Span, spans
from spool.protocol.errors import FinetunerError
from spool.protocol.jobs import Job, get_job

REFRESH_S = 2


def show(job_id: str) -> None:
    with st.container(border=True, width=680, gap="medium"):
        if STATE.get(OTHER):
            _another_one()
        live = _live(job_id)
        st.fragment(_follow, run_every=REFRESH_S if live else None)(job_id, live)
        with st.container(horizontal=True, vertical_alignment="center"):
            if st.button(t("train.sent.watch"), type="primary", icon=":material/monitoring:"):
                st.switch_page(frame.MONITOR, query_params={"job": job_id})
            if st.button(t("train.sent.queue"), icon=":material/list_alt:"):
                st.switch_page(frame.QUEUE)
            st.button(t("train.sent.back"), type="tertiary", on_click=form.another, key="back")


def _live(job_id: str) -> bool:
    try:
        return not get_job(frame.home(), job_id).ended
    except FinetunerError:
        return True


def _another_one() -> None:
    """Its id was handed in with other settings, by another tab or another person."""
    st.warning(t("train.sent.other"), icon=":material/content_copy:")
    st.button(t("train.sent.as_its_own"), on_click=form.as_its_own, key="as-its-own")


def _follow(job_id: str, polled: bool) -> None:
    try:
        job = get_job(frame.home(), job_id)
    except FinetunerError as error:
        frame.show_error(error.message, error.hint)
        return
    if job.ended and polled:
        st.rerun()
    if job.state == "rejected":
        _rejected(job)
        return
    _head(job)
    if job.state == "failed":
        why = job.error or {}
        frame.show_error(why.get("message") or t("train.sent.failed"), why.get("hint") or "")
    elif not job.ended:
        _stands(job)
        if not alive.look(frame.home()).alive:
            frame.runner_notice()


def _head(job: Job) -> None:
    with st.container(gap="xxsmall"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.subheader(md(jobs.short_name(job), 80), anchor=False, width="content")
            st.markdown(jobs.badge(job), width="content")
        st.markdown(f":gray[{_says(job)}]")


def _says(job: Job) -> str:
    """What happens to it now, in a sentence."""
    key = f"train.sent.says.{job.state}"
    return t(key)


def _rejected(job: Job) -> None:
    st.markdown(f"**{t('train.sent.rejected')}**")
    for problem in (job.error or {}).get("errors", []):
        where = words.label(problem.get("pointer") or "/job")
        frame.show_error(f"{where}: {translated(problem.get('message') or '')}", problem.get("hint") or "")


def _stands(job: Job) -> None:
    """Its place in the queue, and when it is expected to start and to be done."""
    everything = frame.jobs()
    found = spans(frame.home(), everything, frame.now())
    span = found.get(job.id)
    said = [_place(job, everything, found), *_times(job, span)]
    if any(said):
        st.markdown("  \n".join(filter(None, said)))


def _place(job: Job, everything: list[Job], found: dict[str, Span]) -> str:
    if job.state not in ("queued", "checking"):
        return ""
    waiting = {each.id for each in everything if each.state in ("queued", "checking")}
    order = [job_id for job_id in found if job_id in waiting]
    if job.id not in order:
        return ""
    before = order.index(job.id) + sum(each.state == "running" for each in everything)
    return f":material/format_list_numbered: {t('train.sent.before', count=before) if before else t('train.sent.next')}"


def _times(job: Job, span: Span | None) -> list[str]:
    if span is None or not (span.start or span.end):
        return [f":material/schedule: {t('train.sent.unknown')}"]
    said = []
    if span.start and job.state != "running":
        said.append(f":material/schedule: {t('train.sent.starts', time=_clock(span.start))}")
    if span.end:
        said.append(f":material/flag: {t('train.sent.ends', time=_clock(span.end))}")
    return said


def _clock(moment: datetime) -> str:
    """The hour, and the day where that is not today."""
    local, now = moment.astimezone(frame.zone()), frame.now().astimezone(frame.zone())
    if local.date() == now.date():
        return f"{local:%H:%M}"
    return quantities.clock(moment.isoformat(), frame.zone())
