"""One trained model: how good it is, where it comes from, its files, and what can be done with it."""

from collections.abc import Mapping, Sequence

import streamlit as st

from pages.parts import quantities, words
from pages.parts.compare import dossier
from pages.parts.compare.dossier import Dossier
from pages.parts.escape import md
from pages.parts.models import shelf
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from pages.parts.ui.compare import chart
from pages.parts.ui.models import asking, care, downloads, exports, making, pushing, report
from spool.protocol.home import Home
from spool.protocol.jobs import Job

ESSENTIAL = (
    "/lora/rank", "/lora/alpha", "/train/learning_rate", "/train/epochs", "/train/max_steps", "/train/effective_batch",
    "/precision", "/train/seed",
)  # fmt: skip
PACKAGES = ("unsloth", "torch", "transformers", "peft", "trl")


def show(home: Home, found: Dossier, everything: Mapping[str, Job]) -> None:
    """The whole page of one model."""
    there = shelf.exports(home, found.job)
    with st.container(horizontal=True):
        back()
    _head(home, found, usable=bool(there))
    care.standing(home, found, bool(there))
    report.show(home, found.job)
    _figures(found, sum(export.size_bytes for export in there))
    left, right = st.columns([3, 2], gap="medium")
    with left.container(border=True, height="stretch", gap="small"):
        st.markdown(f"**{t('models.lineage.head')}**")
        _lineage(home, found, everything)
    with right.container(border=True, height="stretch", gap="small"):
        care.note(home, found)
    if there:
        _files(home, found.job, there, everything)
    care.dependents(home, found, list(everything.values()), bool(there))


def back() -> None:
    def leave() -> None:
        st.query_params.pop("model", None)

    st.button(t("models.back"), icon=":material/arrow_back:", type="tertiary", on_click=leave)


def _head(home: Home, found: Dossier, usable: bool) -> None:
    job = found.job
    tags = " ".join(f":gray-badge[{md(tag, 40)}]" for tag in found.note.tags)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        with st.container(gap="xxsmall", width="content"):
            st.title(md(jobs.short_name(job), 80), anchor=False)
            who = t("models.by", who=md(job.submitted_by, 60)) if job.submitted_by else ""
            when = quantities.clock(job.ended_at, frame.zone())
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.caption(" · ".join(part for part in (who, when) if part), width="content")
                if tags:
                    st.markdown(tags, width="content")
        with st.container(horizontal=True, vertical_alignment="center", width="content", gap="xsmall"):
            if usable:
                address = {"with": job.id}
                frame.link(frame.PLAYGROUND, t("models.do.try"), icon=":material/forum:", **address)
            address = {"from": job.id}
            frame.link(frame.TRAIN, t("models.do.again"), icon=":material/model_training:", **address)
            frame.link(frame.COMPARE, t("models.do.compare"), icon=":material/stacked_line_chart:", jobs=job.id)
            if usable:
                asking.button(home, [job], "model-evaluate")
            frame.link(frame.MONITOR, t("models.do.watch"), icon=":material/monitoring:", job=job.id)


def _figures(found: Dossier, size_bytes: int) -> None:
    result = found.result
    figures = [
        (t("models.figure.eval_loss"), quantities.loss(found.eval_loss), t("models.figure.eval_loss_help")),
        (t("models.figure.final_loss"), quantities.loss(found.final_loss), t("models.figure.final_loss_help")),
        (t("models.figure.steps"), quantities.count(dossier.finite(result.get("steps"))), None),
        (t("models.figure.took"), quantities.duration(dossier.finite(result.get("trained_s"))), None),
        (t("models.figure.size"), quantities.size(size_bytes) if size_bytes else quantities.DASH, None),
    ]
    known = [figure for figure in figures if figure[1] != quantities.DASH]
    with st.grid(max(1, len(known)), min_column_width=130, gap="small"):
        for name, value, says in known:
            st.metric(name, value, help=says, border=True, height="stretch")


def _lineage(home: Home, found: Dossier, everything: Mapping[str, Job]) -> None:
    """What it was made of, from the base to the packages: one line each, the word on the left in grey."""
    job = found.job
    revision = found.environment.get("revision")
    base = f"**{md(job.model or quantities.DASH, 80)}**" + (f" :gray[{md(revision, 12)}]" if revision else "")
    _line("base", base)
    _data(found)
    said = [
        f"{words.label(name)} {md(chart.value(name, found.settings[name]), 40)}"
        for name in ESSENTIAL
        if found.settings.get(name) is not None
    ]
    _line("settings", " · ".join(said) or quantities.DASH)
    took = quantities.between(job.started_at, job.ended_at)
    _line("job", t("models.lineage.job_says", id=md(job.id), took=took, count=job.attempts))
    for earlier in dossier.chain(everything, job):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            _word("retry")
            frame.link(frame.MONITOR, f"{md(jobs.short_name(earlier), 60)}", job=earlier.id)
            st.markdown(jobs.badge(earlier), width="content")
    made = [f"{name} {md(found.environment[name], 30)}" for name in PACKAGES if found.environment.get(name)]
    device = found.environment.get("device")
    _line("made_with", " · ".join([md(device, 60)] * bool(device) + made) or quantities.DASH)


def _data(found: Dossier) -> None:
    """The version of the dataset, with a link where it is one of this server's."""
    name, version = found.data.get("dataset"), found.data.get("version")
    counts = [
        t(f"models.lineage.{each}", number=quantities.count(dossier.finite(found.data.get(each))))
        for each in ("train", "eval")
        if found.data.get(each)
    ]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False):
        _word("data")
        reference = f"{name}@{version}" if version else str(name or "")
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            if name and "/" not in str(name) and ":" not in str(name):
                frame.link(frame.DATA, md(reference, 80), dataset=reference)
            else:
                st.markdown(f"**{md(reference or quantities.DASH, 100)}**", width="content")
            if counts:
                st.markdown(f":gray[{', '.join(counts)}]", width="content")


def _line(name: str, says: str) -> None:
    with st.container(horizontal=True, gap="small", wrap=False):
        _word(name)
        st.markdown(says, width="stretch")


def _word(name: str) -> None:
    with st.container(width=112):
        st.markdown(f":gray[{t(f'models.lineage.{name}')}]")


def _files(home: Home, job: Job, found: Sequence[shelf.Export], everything: Mapping[str, Job]) -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(t("models.files.head"), anchor=False, width="content")
        pushing.button(home, job, found, everything)
    making.under_way(home, job, everything)
    with st.container(gap="xsmall"):
        exports.show(job, found)
    making.more(home, job, found, everything)
    downloads.which_one(job)
