"""The top of one run's page: head, how it ended, what can be taken along, and how far it is."""

from typing import Any

import streamlit as st

from pages.parts import quantities
from pages.parts.escape import md, one_line
from pages.parts.models import proof, shelf
from pages.parts.phrases import translated
from pages.parts.run import tail
from pages.parts.run.curves import Look
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from pages.parts.ui.models import downloads, report
from pages.parts.ui.run import data, failure
from spool.protocol.home import Home
from spool.protocol.jobs import Job, iso

STALE_S = 30.0
"""A running job touches its pulse each second while it gets on; a first compile is silent for a minute and a half."""


def head(home: Home, job: Job, look: Look) -> None:
    """Name, state, and from what, by whom and when; the expected end, or since when nothing was heard."""
    with st.container(gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
                st.subheader(md(jobs.short_name(job), 80), anchor=False, width="content")
                st.markdown(jobs.badge(job), width="content")
            with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
                if job.state == "done" and job.kind == "train":
                    frame.link(frame.PLAYGROUND, t("monitor.head.try"), icon=":material/forum:", **{"with": job.id})
                if look.columns.size and job.kind == "train":
                    frame.link(
                        frame.COMPARE, t("monitor.head.compare"), icon=":material/stacked_line_chart:", jobs=job.id
                    )
                jobs.menu(job, "monitor")
        said = " · ".join(filter(None, [jobs.about(job), *_when(job, look)]))
        st.caption(said + _stale(home, job, look))


def _when(job: Job, look: Look) -> list[str]:
    """When it was handed in, began and ended; of a running job when it will."""
    if not job.started_at:
        return [t("monitor.head.submitted", ago=quantities.ago(job.submitted_at, frame.now()))]
    said = [t("monitor.head.started", when=quantities.clock(job.started_at, frame.zone()))]
    if job.ended_at:
        said.append(t("monitor.head.took", duration=quantities.between(job.started_at, job.ended_at)))
    elif job.state == "running" and (left_s := look.columns.latest("eta_s")):
        end = iso(frame.now().timestamp() + left_s)
        said.append(t("monitor.head.ends", when=quantities.clock(end, frame.zone())))
    if job.attempts > 1:
        said.append(t("monitor.head.attempt", number=job.attempts))
    return said


def _stale(home: Home, job: Job, look: Look) -> str:
    """` · last update 40 s ago` where a running job has been silent for longer than it should be."""
    if job.state != "running":
        return ""
    signs = [look.columns.latest("t") or 0.0]
    for path in (home.run(job.id).pulse, home.run(job.id).events):
        try:
            signs.append(path.stat().st_mtime)
        except OSError:
            continue
    silent_s = frame.now().timestamp() - max(signs)
    if not max(signs) or silent_s < STALE_S:
        return ""
    return f" · :orange[:material/schedule:] {t('monitor.head.stale', duration=quantities.duration(silent_s))}"


def outcome(home: Home, job: Job) -> None:
    """How it ended, in words: the result with its download, or the error with its cure."""
    if job.state == "done" and job.kind == "train":
        _result(home, job)
        report.show(home, job)
    elif data.blocked(home, job):
        data.show(home, job)
    elif job.state == "failed":
        failure.show(home, job)
    elif job.state == "rejected":
        _rejected(home, job)
    elif job.state == "cancelled":
        st.info(t("monitor.cancelled"), icon=":material/cancel:")


def _rejected(home: Home, job: Job) -> None:
    errors = (job.error or {}).get("errors") or [job.error or {}]
    st.error(t("monitor.rejected.head", count=len(errors)), icon=":material/block:")
    for problem in errors:
        where = f"`{one_line(problem.get('pointer') or t('monitor.rejected.file')).replace('`', '')}`"
        line = t("monitor.rejected.line", line=problem["line"]) if problem.get("line") else ""
        message, hint = (translated(problem.get(part) or "") for part in ("message", "hint"))
        st.markdown(f"{where}{line}: {md(message, 400)} :gray[{md(hint, 400)}]")
    dropped = tail.head(home.rejected / job.id / "dropped.json")
    if dropped:
        st.markdown(t("monitor.rejected.dropped"))
        st.code(dropped, language="json", line_numbers=True, height=420 if dropped.count("\n") > 20 else "content")


def _result(home: Home, job: Job) -> None:
    result = job.result or {}
    exports = shelf.exports(home, job)
    adapter = next((each for each in exports if each.kind == "adapter"), None)
    with st.container(border=True, horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        loss = quantities.loss(result.get("final_loss"))
        said = t("monitor.result.loss", loss=loss) if exports else t("monitor.result.finished", loss=loss)
        if result.get("eval_loss") is not None:
            said += t("monitor.result.eval", loss=quantities.loss(result["eval_loss"]))
        st.markdown(f":green[:material/check_circle:] {said}.", width="content")
        with st.container(horizontal=True, vertical_alignment="center", width="content"):
            if exports:
                frame.link(frame.MODELS, _further(exports), icon=":material/deployed_code:", model=job.id)
            if adapter:
                downloads.offer(job, adapter, primary=True, named=True)
        if not exports:
            st.caption(f":material/delete: {downloads.gone(home, job)}", width="content")


def _further(exports: list[shelf.Export]) -> str:
    """What else lies there, and whether something of it is suspect."""
    others = [each for each in exports if each.kind != "adapter"]
    suspect = sum(each.state == proof.SUSPECT for each in others)
    if not others:
        return t("monitor.result.more")
    said = t("monitor.result.exports", count=len(others))
    return f"{said}, {t('monitor.result.suspect', count=suspect)}" if suspect else said


def progress(job: Job) -> None:
    """How far it is, or why it does not move."""
    if job.state == "running":
        st.progress(jobs.fraction(job) or 0.0, text=jobs.progress_text(job))
        return
    runner = frame.runner_notice()
    if job.state == "checking":
        if runner.alive:
            says = f":gray[{jobs.progress_text(job)} …]" if job.phase else ""
            key = "taking" if job.kind == "export" else "checking"
            st.info(f"{t(f'monitor.waits.{key}')} {says}", icon=":material/fact_check:")
    elif job.state == "held":
        st.info(t("monitor.waits.held"), icon=":material/pause_circle:")
    elif job.waits:
        said: dict[str, Any] = job.waits
        when = quantities.clock(said.get("not_before"), frame.zone())
        st.info(
            t("monitor.waits.again", why=md(translated(said.get("why") or ""), 300), when=when),
            icon=":material/update:",
        )
    elif runner.alive and not runner.problem:
        st.info(t("monitor.waits.turn"), icon=":material/schedule:")
