"""What people do about a model: notes and tags, and deleting its files with what depends on it in sight."""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from pages.parts import alive, quantities
from pages.parts.compare.dossier import Dossier
from pages.parts.escape import md
from pages.parts.models import lineage, shelf
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from pages.parts.ui.models import downloads
from spool.protocol import notes, removed
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.jobs import Job

STATE = st.session_state


def standing(home: Home, found: Dossier, usable: bool) -> None:
    """Says so where the files are gone, or are about to go."""
    job_id = found.job.id
    if found.removed and not usable:
        st.info(downloads.gone(home, found.job), icon=":material/delete:")
    elif removed.order(home, job_id).exists():
        waiting(job_id)
    elif not usable:
        st.warning(downloads.gone(home, found.job), icon=":material/warning:")


@st.fragment(run_every="2s")
def waiting(job_id: str) -> None:
    """Until the runner has carried out the order."""
    home = frame.home()
    if not removed.order(home, job_id).exists():
        if removed.read(home.run(job_id)) is None:
            STATE["models-refused"] = job_id
        st.rerun()
    st.info(t("models.removed.asked"), icon=":material/hourglass_empty:")
    if not alive.look(home).alive:
        frame.runner_notice()


def note(home: Home, found: Dossier) -> None:
    """A text and tags that anybody may change; who did it last stands below."""
    job_id, kept = found.job.id, found.note
    st.markdown(f"**{t('models.note.head')}**")
    known = shelf.tags(shelf.models(home, [found.job], {job_id: kept})) if kept.tags else []
    every = sorted({tag for each in notes.read_all(home).values() for tag in each.tags} | set(known), key=str.casefold)
    with st.form(f"note-{job_id}-{kept.at}", border=False, enter_to_submit=False):
        text = st.text_area(
            t("models.note.text"), kept.text, max_chars=notes.LONGEST_TEXT, placeholder=t("models.note.placeholder"),
            height=128, label_visibility="collapsed",
        )  # fmt: skip
        tags = st.multiselect(
            t("models.note.tags"), every, default=list(kept.tags), accept_new_options=True,
            max_selections=notes.MOST_TAGS, placeholder=t("models.note.tags_placeholder"), label_visibility="collapsed",
        )  # fmt: skip
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            save = st.form_submit_button(t("models.note.save"), icon=":material/check:")
            if kept.at:
                ago = quantities.ago(kept.at, frame.now())
                st.caption(t("models.note.last", who=md(kept.by or t("models.somebody"), 60), ago=ago), width="content")
    if save:
        _save(home, job_id, text or "", tags)


def _save(home: Home, job_id: str, text: str, tags: Sequence[str]) -> None:
    try:
        notes.write(home, job_id, text, tags, frame.user())
    except FinetunerError as error:
        frame.show_error(error.message, error.hint)
    except OSError as error:
        frame.show_error(t("models.note.unwritable", why=error.strerror or str(error)))
    else:
        st.toast(t("models.note.saved"), icon=":material/check:")
        st.rerun()


def dependents(home: Home, found: Dossier, everything: Sequence[Job], usable: bool) -> None:
    """Jobs and datasets that go back to this model, and the way to delete its files."""
    those = lineage.dependents(home, found.job.id, everything, Path.cwd())
    st.subheader(t("models.dependents.head"), anchor=False)
    if not those:
        st.caption(t("models.dependents.none"))
    by_id = {job.id: job for job in everything}
    for job_id in those.needing:
        _dependent(t("models.dependents.needs"), by_id.get(job_id), job_id)
    for job in those.retries:
        if job.id not in those.needing:
            _dependent(t("models.dependents.repeats"), job, job.id)
    for stored in those.datasets:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f":gray[{t('models.dependents.corrects')}]", width="content")
            frame.link(frame.DATA, md(stored.reference, 80), icon=":material/dataset:", dataset=stored.reference)
    if STATE.pop("models-refused", None) == found.job.id:
        st.warning(t("models.delete.refused"), icon=":material/lock:")
    if usable and not removed.order(home, found.job.id).exists():
        with st.container(horizontal=True, horizontal_alignment="right"):
            if st.button(t("models.delete.ask"), icon=":material/delete:", type="tertiary"):
                ask_to_delete(found, those)


def _dependent(says: str, job: Job | None, job_id: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f":gray[{says}]", width="content")
        name = jobs.short_name(job) if job else job_id
        frame.link(frame.MONITOR, md(name, 60), icon=":material/monitoring:", job=job_id)
        if job:
            st.markdown(jobs.badge(job), width="content")


def ask_to_delete(found: Dossier, those: lineage.Dependents) -> None:
    st.dialog(t("models.delete.title"), icon=":material/delete:")(_asked)(found, those)


def _asked(found: Dossier, those: lineage.Dependents) -> None:
    """What goes, what stays, who is in the way; the name is typed so that no slip deletes a model."""
    home, job = frame.home(), found.job
    if those.needing:
        named = ", ".join(f"…{each[-6:]}" for each in those.needing[:4])
        st.warning(t("models.delete.needed", jobs=md(named), count=len(those.needing)), icon=":material/lock:")
        return
    size = quantities.size(sum(export.size_bytes for export in shelf.exports(home, job)))
    st.markdown(t("models.delete.says", name=md(jobs.short_name(job), 80), size=size))
    if those.retries or those.datasets:
        st.caption(t("models.delete.others", retries=len(those.retries), datasets=len(those.datasets)))
    wanted = jobs.short_name(job)
    typed = st.text_input(t("models.delete.type", name=md(wanted, 80)), key=f"delete-{job.id}", max_chars=200)
    if st.button(t("models.delete.button"), type="primary", icon=":material/delete:"):
        if " ".join(typed.split()).casefold() != " ".join(wanted.split()).casefold():
            st.error(t("models.delete.other_name"), icon=":material/spellcheck:")
            return
        try:
            removed.ask(home, job.id, frame.user(), Path.cwd())
        except FinetunerError as error:
            frame.show_error(error.message, error.hint)
        except OSError as error:
            frame.show_error(t("models.delete.unwritable", why=error.strerror or str(error)))
        else:
            st.rerun()
