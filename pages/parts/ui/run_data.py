"""What the check of a job's data found, where the job may not train on it: rows with their lines, and where to mend."""

from typing import Any

import streamlit as st

from pages.parts import findings, quantities
from pages.parts.ui import frame
from pages.parts.ui.data_findings import COLUMNS, MOST_AT_ONCE
from spool.data.keeping import keep
from spool.data.keeping.keep import Stored
from spool.protocol import durable
from spool.protocol.errors import NotFound
from spool.protocol.home import Home
from spool.protocol.jobs import Job

SHOWN = 50


def show(home: Home, job: Job) -> None:
    """Why a job failed over its data and what was found in it, by line."""
    error = job.error or {}
    report = _report(home, job)
    says, hint = error.get("message") or "its data cannot be trained on.", error.get("hint") or ""
    if report and any(each["action"] == "dropped" for each in report["problems"]):
        says, hint = findings.too_many(report), "Correct the rows below, and train on the new version."
    elif report:
        hint = findings.verdict(report).hint
    frame.show_error(_named(home, job, says), _named(home, job, hint))
    if report:
        _findings(home, job, report)


def _findings(home: Home, job: Job, report: dict[str, Any]) -> None:
    with st.container(border=True, gap="small"):
        usable = f"{report['usable_rows']:,} of {report['rows']:,} rows can be trained on."
        st.markdown(f"**What was found in the data** :gray[{usable}]")
        counted = findings.counts(report)
        if counted:
            said = [f":gray-badge[{findings.label(code)} · {number:,}]" for code, number in counted.items()]
            st.markdown(" ".join(said))
            _table(report["problems"], sum(counted.values()))
        _where_to_mend(home, job)


def _table(problems: list[dict[str, Any]], total: int) -> None:
    found = findings.gravest(problems, SHOWN)
    st.dataframe(
        findings.table(found),
        hide_index=True,
        height="content" if len(found) <= MOST_AT_ONCE else 318,
        placeholder=quantities.DASH,
        alt="What was found, by line",
        column_config=COLUMNS,
    )
    if len(found) < total:
        st.caption(f"The {len(found):,} most serious of {total:,}.")


def _where_to_mend(home: Home, job: Job) -> None:
    """The way to the dataset, where the Data page has it."""
    if job.dataset == frame.EXAMPLE or _stored(home, job):
        frame.link(frame.DATA, "Correct it on the Data page", icon=":material/edit:", dataset=job.dataset or "")
    else:
        frame.link(frame.DATA, "Upload the file on the Data page to correct its rows", icon=":material/upload:")


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
    return job.state == "failed" and (_checked(home, job) or {}).get("blocked") is not None


def _report(home: Home, job: Job) -> dict[str, Any] | None:
    """The findings that blocked a job; None where the file could not even be read."""
    found = _checked(home, job)
    return found if found and "problem_counts" in found else None


def _checked(home: Home, job: Job) -> dict[str, Any] | None:
    """What the check left; None where there is nothing, or nothing that can be read."""
    try:
        found = durable.read_json(home.run(job.id).data / "check.json")
    except (ValueError, OSError):
        return None
    return found if isinstance(found, dict) else None
