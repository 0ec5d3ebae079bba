"""A report as the pages show it: the verdict, its figures, answers side by side, and the files to send."""

from pathlib import Path

import streamlit as st

from pages.parts import escape, quantities
from pages.parts.escape import md
from pages.parts.models import told
from pages.parts.models.told import Report, Sample
from pages.parts.phrases import translated
from pages.parts.texts import t
from pages.parts.ui import jobs
from pages.parts.ui.vote import start
from spool.protocol.home import Home
from spool.protocol.jobs import Job

LOOKS = {
    told.BETTER: (":material/trending_up:", "green"),
    told.SAME: (":material/trending_flat:", "gray"),
    told.WORSE: (":material/trending_down:", "orange"),
    told.NOTHING: (":material/help:", "gray"),
}
FIGURES = ("exact", "stopped", "loss")
"""Shown behind the headline of the task."""
FILES = {"html": "text/html", "pdf": "application/pdf"}


def show(home: Home, job: Job) -> None:
    """The report of a done job, or why there is none. Nothing where none was asked for."""
    found = told.read(job)
    if found is None:
        if error := told.problem(job):
            says = (
                f"{t('report.missing')} {md(translated(error.get('message') or ''), 300)} "
                f":gray[{md(translated(error.get('hint') or ''), 300)}]"
            )
            st.warning(says, icon=":material/assignment_late:")
        return
    with st.container(border=True, gap="small"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(f"**{t('report.head')}** {badge(found.verdict)}", width="content")
            _files(home, job)
        _figures(found)
        st.caption(" ".join(_trust(found)))
        start.invite(home, job.id)


def badge(verdict: str) -> str:
    """Better, no clear change, worse: as Markdown."""
    icon, color = LOOKS.get(verdict, LOOKS[told.NOTHING])
    known = verdict if verdict in LOOKS else told.NOTHING
    return f":{color}-badge[{icon} {t(f'report.verdict.{known}')}]"


def _figures(found: Report) -> None:
    names = [name for name in (found.headline, *FIGURES) if name in found.measures]
    drawn = []
    for name in dict.fromkeys(names):
        each = found.measures[name]
        tuned, base = (told.figure(side, each.share) for side in (each.tuned, each.base))
        drawn.append((t(f"report.measure.{name}"), tuned, t("report.base", value=base)))
    if general := found.general:
        tuned, base = (t("report.part", part=part, of=general.of) for part in (general.tuned, general.base))
        drawn.append((t("report.measure.general"), tuned, t("report.base", value=base)))
    if not drawn:
        return
    with st.grid(len(drawn), min_column_width=124, gap="small"):
        for label, tuned, base in drawn:
            st.metric(label, tuned, base, delta_color="off", delta_arrow="off", border=True, height="stretch")


def _trust(found: Report) -> list[str]:
    """On what this rests, in a sentence or two of Markdown."""
    rows, source = quantities.count(found.rows), md(found.source, 80)
    if not found.rows:
        return [t("report.trust.nothing")]
    which = "kept" if found.held_out else "learned" if found.learned else "other"
    said = [t(f"report.trust.{which}", count=found.rows, rows=rows, source=source)]
    if found.cut:
        said.append(t("report.trust.cut"))
    first = found.measures.get(found.headline)
    if first and first.tuned.interval:
        low, high = (quantities.percent(each) for each in first.tuned.interval)
        said.append(t("report.trust.interval", what=t(f"report.measure.{found.headline}"), low=low, high=high))
    if found.general and found.general.lost:
        said.append(t("report.trust.lost", count=found.general.lost, base=found.general.base))
    return said


def _files(home: Home, job: Job) -> None:
    run = home.run(job.id)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
        if run.report_json.exists():
            label = t("report.samples")
            if st.button(label, type="tertiary", icon=":material/vertical_split:", key=f"report-samples-{job.id}"):
                _samples(home, job)
        for key, path in (("html", run.report), ("pdf", run.report_pdf)):
            if path.exists():
                _file(path, key, job)


def _file(path: Path, key: str, job: Job) -> None:
    whose = "".join(letter if letter.isalnum() else "-" for letter in jobs.short_name(job)).strip("-")[:60]
    st.download_button(
        t(f"report.file.{key}"),
        path.read_bytes,
        file_name=f"{whose or job.id}-{path.name}",
        mime=FILES[key],
        icon=":material/download:",
        on_click="ignore",
        help=t(f"report.file.{key}_help"),
        key=f"report-{key}-{job.id}",
    )


def _samples(home: Home, job: Job) -> None:
    found = told.samples(home, job)
    st.dialog(t("report.samples"), width="large", icon=":material/vertical_split:")(_side_by_side)(found)


def _side_by_side(found: list[Sample]) -> None:
    """Where it gained most first."""
    st.caption(t("report.samples_say", count=len(found)))
    for sample in found:
        with st.container(border=True, gap="xsmall"):
            state = "gain" if sample.gain > 0 else "loss" if sample.gain < 0 else "even"
            icon, color = LOOKS[{"gain": told.BETTER, "loss": told.WORSE, "even": told.SAME}[state]]
            st.markdown(f":{color}[{icon} {t(f'report.sample.{state}')}]")
            _text(sample.prompt)
            for column, name, text in zip(
                st.columns(2, gap="small"), ("base", "tuned"), (sample.base, sample.tuned), strict=True
            ):
                with column:
                    st.caption(t(f"report.sample.{name}"))
                    st.code(escape.lines(text) or t("report.sample.empty"), language=None, wrap_lines=True)
            st.caption(t("report.sample.expected"))
            st.code(escape.lines(sample.expected), language=None, wrap_lines=True)


def _text(prompt: str) -> None:
    st.code(escape.lines(prompt), language=None, wrap_lines=True)
