"""What the check of a job's data found: on a tab of every job, and at the top where the job may not train on it."""

from typing import Any

import streamlit as st

from pages.parts import quantities
from pages.parts.data import findings
from pages.parts.escape import md
from pages.parts.phrases import translated
from pages.parts.texts import t
from pages.parts.ui import frame
from pages.parts.ui.data.trouble import MOST_AT_ONCE, table_columns
from spool.data.keeping import keep
from spool.data.keeping.keep import Stored
from spool.protocol import durable
from spool.protocol.errors import NotFound
from spool.protocol.home import Home
from spool.protocol.jobs import Job

SHOWN = 50
MOST_NOTICES = 10


def show(home: Home, job: Job) -> None:
    """Why a job failed over its data and what was found in it, by line."""
    error = job.error or {}
    report = _report(home, job)
    says, hint = error.get("message") or t("monitor.data.unusable"), error.get("hint") or ""
    if report and any(each["action"] == "dropped" for each in report["problems"]):
        says, hint = findings.too_many(report), t("monitor.data.correct_below")
    elif report:
        hint = findings.verdict(report).hint
    frame.show_error(_named(home, job, says), _named(home, job, hint))
    if report:
        with st.container(border=True, gap="small"):
            _findings(home, job, report)


def found(home: Home, job: Job) -> None:
    """The same for a job whose data passed, with what was noted about it."""
    report = _report(home, job)
    if not report:
        st.caption(t("monitor.data.no_report"))
        return
    for notice in (report.get("notices") or [])[:MOST_NOTICES]:
        st.info(md(_named(home, job, translated(notice)), 400), icon=":material/info:")
    _findings(home, job, report)


def _findings(home: Home, job: Job, report: dict[str, Any]) -> None:
    rows, usable = (quantities.count(report[name]) for name in ("rows", "usable_rows"))
    st.markdown(f"**{t('monitor.data.head')}** :gray[{t('monitor.data.usable', usable=usable, rows=rows)}]")
    counted = findings.counts(report)
    if counted:
        said = [f":gray-badge[{findings.label(code)} · {quantities.count(number)}]" for code, number in counted.items()]
        st.markdown(" ".join(said))
        _table(report["problems"], sum(counted.values()))
        _where_to_mend(home, job)
    else:
        st.caption(t("monitor.data.nothing"))


def _table(problems: list[dict[str, Any]], total: int) -> None:
    found = findings.gravest(problems, SHOWN)
    st.dataframe(
        findings.table(found),
        hide_index=True,
        height="content" if len(found) <= MOST_AT_ONCE else 318,
        placeholder=quantities.DASH,
        alt=t("monitor.data.alt"),
        column_config=table_columns(),
    )
    if len(found) < total:
        shown = quantities.count(len(found))
        st.caption(t("monitor.data.most_serious", shown=shown, total=quantities.count(total)))


def _where_to_mend(home: Home, job: Job) -> None:
    """The way to the dataset, where the Data page has it."""
    if job.dataset == frame.EXAMPLE or _stored(home, job):
        frame.link(frame.DATA, t("monitor.data.correct"), icon=":material/edit:", dataset=job.dataset or "")
    else:
        frame.link(frame.DATA, t("monitor.data.upload"), icon=":material/upload:")


def _stored(home: Home, job: Job) -> Stored | None:
    try:
        return keep.find(home, job.dataset or "")
    except NotFound:
        return None


def _named(home: Home, job: Job, text: str) -> str:
    """Words about a stored file, with the name that people know it by."""
    stored = _stored(home, job)
    return text.replace(stored.path.name, stored.original_name or stored.name) if stored else text


def blocked(home: Home, job: Job) -> bool:
    """Whether it was the check of the data that ended a job."""
    return job.state == "failed" and (checked(home, job) or {}).get("blocked") is not None


def _report(home: Home, job: Job) -> dict[str, Any] | None:
    """The findings that blocked a job; None where the file could not even be read."""
    found = checked(home, job)
    return found if found and "problem_counts" in found else None


def checked(home: Home, job: Job) -> dict[str, Any] | None:
    """What the check left; None where there is nothing, or nothing that can be read."""
    try:
        found = durable.read_json(home.run(job.id).data / "check.json")
    except (ValueError, OSError):
        return None
    return found if isinstance(found, dict) else None
