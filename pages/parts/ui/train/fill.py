"""Filling the Train form from something else: an earlier job, or a spec that is pasted or uploaded."""

import streamlit as st

from pages.parts import words
from pages.parts.escape import md
from pages.parts.texts import t
from pages.parts.train import draft
from pages.parts.ui import frame, jobs
from pages.parts.ui.train import form
from pages.parts.ui.train.form import STATE
from spool.protocol.errors import SpecError
from spool.protocol.jobs import Job
from spool.protocol.strict import MAX_BYTES

TEXT, FILE, JOB, WRONG = "train-import-text", "train-import-file", "train-from-job", "train-import-wrong"
MOST_JOBS = 200


def opener(key: str, label: str, icon: str, what: str) -> None:
    """Opens the window for a `job` or a `spec`."""
    if st.button(label, icon=icon, type="tertiary", key=key):
        STATE[WRONG] = None
        if what == "spec":
            st.dialog(t("train.import.title"), width="medium", icon=":material/data_object:")(_bring_spec)()
        else:
            st.dialog(t("train.from.title"), width="medium", icon=":material/history:")(_pick_job)()


def _bring_spec() -> None:
    st.caption(t("train.import.says"))
    st.text_area(t("train.import.text"), height=220, key=TEXT, placeholder=t("train.import.smallest"))
    st.file_uploader(t("train.import.file"), type=["json"], key=FILE, max_upload_size=1)
    if st.button(t("train.import.fill"), type="primary", on_click=_take_spec, key="import-fill") and not STATE[WRONG]:
        st.rerun()
    for problem in STATE[WRONG] or []:
        frame.show_error(problem)


def _take_spec() -> None:
    uploaded, typed = STATE.get(FILE), STATE.get(TEXT) or ""
    data = uploaded.getvalue()[: MAX_BYTES + 1] if uploaded else typed.encode("utf-8", "replace")
    try:
        form.take(draft.imported(data))
    except SpecError as error:
        STATE[WRONG] = [str(problem) for problem in error.problems]
    else:
        STATE[WRONG] = None


def _pick_job() -> None:
    st.caption(t("train.from.says"))
    newest = sorted(frame.jobs(), key=lambda job: job.submitted_at or "", reverse=True)
    known = {job.id: job for job in newest if job.kind == "train" and job.state != "rejected"}
    if not known:
        st.caption(t("train.from.none"))
        return

    def shown(job_id: str) -> str:
        job = known[job_id]
        return f"{jobs.short_name(job)}  ·  {words.state(job.state).label}  ·  …{job_id[-4:]}"

    picked = st.selectbox(t("train.from.job"), list(known)[:MOST_JOBS], format_func=shown, key=JOB)
    if picked:
        st.caption(_about(known[picked]))

    def take() -> None:
        form.start_from("from", STATE[JOB])

    if st.button(t("train.from.fill"), type="primary", on_click=take, key="from-fill"):
        st.rerun()


def _about(job: Job) -> str:
    return " · ".join(md(part, 80) for part in (job.model, job.dataset, job.submitted_by) if part)
