"""What a run has written, a tab each: answers, log with search, events, attempts, data, spec. Only the open is read."""

import html
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from pages.parts import escape, quantities, words
from pages.parts.phrases import translated
from pages.parts.run import tail
from pages.parts.texts import has, t
from pages.parts.ui import choices, frame
from pages.parts.ui.run import data, samples
from pages.parts.ui.run.figures import attempt_documents
from spool.protocol.home import Home, Run
from spool.protocol.jobs import Job

TABS = ("answers", "log", "events", "attempts", "data", "spec")
LONGEST_QUERY = 200


def show(home: Home, job: Job) -> None:
    """The tabs that make sense for this job; which one is open stands in the address."""
    names = [name for name in TABS if _has(home, job, name)]
    if "answers" in names and not home.run(job.id).samples.exists():
        names = ["log", "answers", *(name for name in names if name not in ("log", "answers"))]
    labels = {name: t(f"monitor.tab.{name}") for name in names}
    choices.keep("view", labels, names[0])
    by_label = {label: name for name, label in labels.items()}
    drawn = st.tabs(
        list(labels.values()), key=choices.key("view"),
        on_change=lambda: choices.went("view", names[0], by_label),
    )  # fmt: skip
    made = {
        "answers": lambda: samples.show(home, job),
        "log": lambda: _log(home.run(job.id).latest_log),
        "events": lambda: _events(home.run(job.id)),
        "attempts": lambda: _attempts(home, job),
        "data": lambda: data.found(home, job),
        "spec": lambda: _spec(home.run(job.id)),
    }
    for name, tab in zip(names, drawn, strict=True):
        if tab.open:
            with tab:
                made[name]()


def _has(home: Home, job: Job, name: str) -> bool:
    if name == "answers":
        return job.kind == "train"
    if name == "attempts":
        return job.attempts > 0
    return name != "data" or data.checked(home, job) is not None


def _log(path: Path) -> None:
    if not path.exists():
        st.caption(t("monitor.log.none"))
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        asked = st.text_input(
            t("monitor.log.find"), key="find", bind="query-params", type="search", max_chars=LONGEST_QUERY,
            placeholder=t("monitor.log.find"), label_visibility="collapsed", icon=":material/search:", width=320,
        )  # fmt: skip
        asked = (asked or "").strip()[:LONGEST_QUERY]
        every = bool(asked) and st.toggle(t("monitor.log.every"), key="every", bind="query-params")
        found = tail.search(path, asked, every) if asked else None
        if found:
            said = t("monitor.log.hits", count=found.hits, number=quantities.count(found.hits))
            st.caption(said + (f" {t('monitor.log.cut')}" if found.cut else ""), width="content")
    text = found.lines if found else tail.log(path)
    if not text:
        st.caption(t("monitor.log.no_hit") if found else t("monitor.log.none"))
        return
    with st.container(height=340, autoscroll=not asked, border=False):
        # st.code brings a highlighter along that takes longer than all of the page's charts
        look = 'tabindex="0" style="white-space: pre-wrap; font-size: 0.84rem"'  # reached, and so scrolled, by keyboard
        st.html(f"<pre {look}>{html.escape(text)}</pre>")


def _events(run: Run) -> None:
    rows = tail.events(run.events)
    if not rows:
        st.caption(t("monitor.events.none"))
        return
    table = pd.DataFrame(
        {
            "when": pd.to_datetime(
                pd.Series([_number(row.get("t")) for row in rows], dtype="float"), unit="s", utc=True
            ),
            "what": [tail.event(row) for row in rows],
        }
    )
    st.dataframe(
        table, hide_index=True, alt=t("monitor.events.alt"),
        column_config={"when": _moment(t("monitor.events.when")), "what": _text(t("monitor.events.what"), "large")},
    )  # fmt: skip


def _attempts(home: Home, job: Job) -> None:
    """Each try at the job: when, from which checkpoint, and why it ended."""
    told = attempt_documents(home, job)[::-1]
    table = pd.DataFrame(
        {
            "number": [each.get("attempt") for each in told],
            "began": [quantities.moment(_line(each.get("started_at"))) for each in told],
            "took": [quantities.between(each.get("started_at"), each.get("ended_at")) for each in told],
            "from": [_from(each) for each in told],
            "ended": [_outcome(each) for each in told],
            "why": [_why(each) for each in told],
        }
    )
    heads = {name: t(f"monitor.attempts.{name}") for name in table.columns}
    config = {name: _text(head, "large" if name == "why" else "small") for name, head in heads.items()}
    config |= {
        "began": _moment(heads["began"]),
        "number": st.column_config.NumberColumn(heads["number"], width=80),
    }
    st.dataframe(table, hide_index=True, height="content", alt=t("monitor.attempts.alt"), column_config=config)


def _from(attempt: dict[str, Any]) -> str:
    step = attempt.get("resume_step")
    return t("monitor.attempts.step", step=quantities.count(step)) if step else t("monitor.attempts.start")


def _outcome(attempt: dict[str, Any]) -> str:
    name = attempt.get("outcome") or "running"
    return t(f"monitor.outcome.{name}") if has(f"monitor.outcome.{name}") else escape.one_line(name, 40)


def _why(attempt: dict[str, Any]) -> str:
    error = attempt.get("error")
    return escape.one_line(words.sentence(translated(attempt.get("why") or (error or {}).get("message") or "")), 300)


def _spec(run: Run) -> None:
    """As accepted, with every default filled in, and as it was dropped."""
    files = {"accepted": run.spec, "dropped": run.spec_orig}
    names = [name for name, path in files.items() if path.exists()]
    if not names:
        st.caption(t("monitor.spec.none"))
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        choices.keep("spec", names, names[0])
        st.segmented_control(
            t("monitor.spec.which"), names, required=True, key=choices.key("spec"), on_change=choices.went,
            args=("spec", names[0]), format_func=lambda name: t(f"monitor.spec.{name}"), label_visibility="collapsed",
        )  # fmt: skip
        chosen = choices.chosen("spec", names, names[0])
        st.caption(t(f"monitor.spec.{chosen}_says"), width="content")
    st.code(tail.head(files[chosen]), language="json", height=420)


def _moment(label: str) -> Any:
    return st.column_config.DatetimeColumn(label, format="D MMM, HH:mm:ss", timezone=str(frame.zone()), width=150)


def _text(label: str, width: str) -> Any:
    return st.column_config.TextColumn(label, width=width)


def _line(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
