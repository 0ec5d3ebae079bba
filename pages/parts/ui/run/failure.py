"""Why a job failed: what happened, the line it was seen from, the one cure, and a retry with what has to change."""

import pandas as pd
import streamlit as st

from pages.parts import words
from pages.parts.escape import md, one_line
from pages.parts.phrases import translated
from pages.parts.texts import t
from pages.parts.ui import frame
from spool.health import cures
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.jobs import Job


def show(home: Home, job: Job) -> None:
    """The whole card."""
    error = job.error or {}
    made = cures.suggestion(home, job)
    with st.container(border=True, gap="small"):
        what = error.get("message") or t("monitor.failure.silent")
        frame.show_error(what, error.get("hint") or t("monitor.failure.see_log"))
        if error.get("evidence"):
            st.caption(t("monitor.failure.seen"))
            st.code(one_line(error["evidence"], 320), language=None, wrap_lines=True)
        if made:
            _what_to_try(home, job, made)


def _what_to_try(home: Home, job: Job, made: cures.Suggestion) -> None:
    """The difference, and one click that submits it; a second click, window or person gets the same job."""
    after = cures.submitted(home, job.id)
    if made.changes:
        st.markdown(f"**{t('monitor.failure.try')}** :gray[{t('monitor.failure.only_this')}]")
        _table(made)
    else:
        st.markdown(f"**{t('monitor.failure.try')}** :gray[{md(translated(made.sentence), 300)}]")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if after:
            frame.link(frame.MONITOR, t("monitor.failure.tried"), icon=":material/replay:", job=after)
            return
        label = t("monitor.failure.retry_changed" if made.changes else "monitor.failure.retry")
        if st.button(label, type="primary", icon=":material/replay:", key=f"retry-{job.id}"):
            _submit(home, job, made)
        if job.kind != "train":
            return  # the form is for trainings
        query = {"retry": job.id, "data": str(made.spec.get("dataset") or "")}
        frame.link(frame.TRAIN, t("monitor.failure.change_more"), icon=":material/tune:", **query)


def _table(made: cures.Suggestion) -> None:
    table = pd.DataFrame(
        {
            "setting": [words.label(change.pointer) for change in made.changes],
            "was": [_value(change.before) for change in made.changes],
            "new": [_value(change.after) for change in made.changes],
            "why": [translated(change.why) for change in made.changes],
        }
    )
    config = st.column_config
    st.dataframe(
        table,
        hide_index=True,
        height="content",
        alt=t("monitor.failure.alt"),
        column_config={
            "setting": config.TextColumn(t("monitor.failure.setting"), width="medium"),
            "was": config.TextColumn(t("monitor.failure.was"), width="small"),
            "new": config.TextColumn(t("monitor.failure.new"), width="small"),
            "why": config.TextColumn(t("monitor.failure.why"), width="large"),
        },
    )


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _submit(home: Home, job: Job, made: cures.Suggestion) -> None:
    try:
        fresh = cures.submit(home, job.id, made)
    except (OSError, FinetunerError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        frame.show_error(t("monitor.failure.not_written", reason=reason), t("monitor.failure.check_disk"))
        return
    st.switch_page(frame.MONITOR, query_params={"job": fresh})
