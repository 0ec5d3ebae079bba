"""The tables of the Queue page: what waits and what has ended, each with its selection and the orders that fit it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

import pandas as pd
import streamlit as st

from pages.parts import quantities, words
from pages.parts.escape import one_line
from pages.parts.phrases import translated
from pages.parts.queue import expected
from pages.parts.queue.board import Board
from pages.parts.texts import t
from pages.parts.ui import frame, jobs
from pages.parts.words import STATES, sentence
from spool.forecast.queue import Span
from spool.protocol.dropbox import Order
from spool.protocol.jobs import Job

USUAL_PRIORITY = 5
ROW_PX = 40
TALLEST_PX = 560
BULK = (jobs.TOP, jobs.UP, jobs.DOWN, jobs.PRIORITY, jobs.HOLD, jobs.RELEASE, jobs.CANCEL)
BULK_ENDED = (jobs.RETRY, jobs.SUGGESTED)


@dataclass(frozen=True)
class View:
    """What the rows are told with, beside the jobs themselves."""

    board: Board
    spans: Mapping[str, Span]
    pending: Mapping[str, Order]
    now: datetime
    zone: tzinfo


class Picked:
    """A table's selection. Its rows stand still while some are selected, so that no order reaches another job.

    Args:
        name: of the table; with `shown`, what is listed at all, it makes the key: another filter is another table.
    """

    def __init__(self, name: str, shown: object) -> None:
        self.name = name
        self.round = f"{name}-round"
        self.key = f"{name}-{st.session_state.get(self.round, 0)}-{shown}"
        self.frozen = f"{name}-frozen"
        state = st.session_state.get(self.key)
        self.rows: list[int] = list(state["selection"]["rows"]) if state else []

    def freeze(self, current: Sequence[Job], known: Mapping[str, Job]) -> list[Job]:
        """The jobs to list: those of the last time where some are selected, as they are now."""
        if self.rows:
            before = [known[job_id] for job_id in st.session_state.get(self.frozen, ()) if job_id in known]
            if before:
                return before
        st.session_state[self.frozen] = [job.id for job in current]
        return list(current)

    def jobs(self, listed: Sequence[Job]) -> list[Job]:
        return [listed[row] for row in self.rows if row < len(listed)]

    def clear(self) -> None:
        st.session_state[self.round] = st.session_state.get(self.round, 0) + 1


def toolbar(picked: Picked, chosen: Sequence[Job], orders: Sequence[str]) -> None:
    """What can be asked of all selected jobs at once, each behind a small button."""
    fitting = [order for order in orders if any(order in jobs.orders_for(job) for job in chosen)]
    st.caption(t("queue.selected", count=len(chosen)), width="content")
    for order in fitting:
        meant = [job for job in chosen if order in jobs.orders_for(job)]
        quiet = not jobs.asks(order, meant)
        pressed = st.button(
            t(f"jobs.short.{order}"),
            key=f"{picked.name}-do-{order}",
            icon=jobs.ICONS[order],
            type="tertiary",
            help=t(f"jobs.order.{order}"),
            on_click=_give if quiet else None,
            args=(order, meant, picked) if quiet else None,
        )
        if pressed and not quiet:
            jobs.question(order, meant, picked.clear)


def _give(order: str, meant: Sequence[Job], picked: Picked) -> None:
    jobs.give_all(order, meant)
    picked.clear()


def waiting_table(picked: Picked, listed: Sequence[Job], view: View, opens: Callable[[str], None]) -> None:
    """What waits and what is held, in the order of the queue."""
    table: dict[str, Any] = {
        "place": [view.board.place.get(job.id) for job in listed],
        "state": [[STATES[job.state].label] for job in listed],
        "name": [jobs.short_name(job) for job in listed],
        "starts": [expected.start(view.spans.get(job.id), view.now, view.zone) for job in listed],
        "ends": [expected.end(view.spans.get(job.id), view.now, view.zone) for job in listed],
        "what": [_what(job) for job in listed],
        "who": [one_line(job.submitted_by or "", 40) for job in listed],
        "do": [[t("queue.open")] for job in listed],
    }
    notes = [_note(job, view) for job in listed]
    if any(notes):
        table["note"] = notes
    if any(job.priority not in (None, USUAL_PRIORITY) for job in listed):
        table["priority"] = [job.priority for job in listed]
    config = st.column_config
    _draw(
        picked,
        listed,
        table,
        ("place", "state", "name", "starts", "ends", "note", "priority", "what", "who", "do"),
        t("queue.alt.waiting"),
        opens,
        {
            "place": config.NumberColumn(t("queue.column.place"), width=38, help=t("queue.column.place_help")),
            "state": _states(("checking", "queued", "held", "running", "done", "failed", "cancelled")),
            "name": config.TextColumn(t("queue.column.name"), width=170),
            "starts": config.TextColumn(t("queue.column.starts"), width=96, help=t("queue.column.starts_help")),
            "ends": config.TextColumn(t("queue.column.ends"), width=96),
            "priority": config.NumberColumn(t("queue.column.priority"), width=70, help=t("jobs.ask.level_help")),
            "note": config.TextColumn(t("queue.column.note"), width=150),
            "what": config.TextColumn(t("queue.column.what"), width=150),
            "who": config.TextColumn(t("queue.column.who"), width=70),
        },
    )


def ended_table(picked: Picked, listed: Sequence[Job], view: View, opens: Callable[[str], None]) -> None:
    """What has ended, newest first."""
    ends = pd.Series([job.ended_at for job in listed], dtype="str")
    losses = [(job.result or {}).get("final_loss") for job in listed]
    table: dict[str, Any] = {
        "state": [[STATES[job.state].label] for job in listed],
        "name": [jobs.short_name(job) for job in listed],
        "ended": pd.to_datetime(ends, format="ISO8601", utc=True, errors="coerce"),
        "took": [quantities.between(job.started_at, job.ended_at) for job in listed],
        "loss": pd.Series(losses, dtype="float"),
        "note": [jobs.why(job) or jobs.made(job) or _note(job, view) for job in listed],
        "what": [_what(job) for job in listed],
        "who": [one_line(job.submitted_by or "", 40) for job in listed],
        "do": [[t("queue.open")] for job in listed],
    }
    config = st.column_config
    _draw(
        picked,
        listed,
        table,
        ("state", "name", "ended", "took", "loss", "note", "what", "who", "do"),
        t("queue.alt.ended"),
        opens,
        {
            "state": _states(("done", "failed", "cancelled", "rejected")),
            "name": config.TextColumn(t("queue.column.name"), width=170),
            "ended": config.DatetimeColumn(
                t("queue.column.ended"), format="D MMM, HH:mm", timezone=str(view.zone), width=100
            ),
            "took": config.TextColumn(t("queue.column.took"), width=76),
            "loss": config.NumberColumn(
                t("queue.column.loss"), format="%.3f", width=60, help=t("queue.column.loss_help")
            ),
            "note": config.TextColumn(t("queue.column.why"), width=180),
            "what": config.TextColumn(t("queue.column.what"), width=130),
            "who": config.TextColumn(t("queue.column.who"), width=66),
        },
    )


def _draw(
    picked: Picked,
    listed: Sequence[Job],
    table: dict[str, Any],
    order: Sequence[str],
    alt: str,
    opens: Callable[[str], None],
    config: dict[str, Any],
) -> None:
    def clicked() -> None:
        click = st.session_state.get(f"{picked.name}-open")
        if click and click.row < len(listed):
            opens(listed[click.row].id)

    button = st.column_config.ButtonColumn("", on_click=clicked, key=f"{picked.name}-open", type="tertiary", width=64)
    st.dataframe(
        pd.DataFrame(table),
        hide_index=True,
        key=picked.key,
        on_select="rerun",
        selection_mode="multi-row",
        row_height=ROW_PX,
        placeholder=quantities.DASH,
        height="content" if len(listed) <= 12 else TALLEST_PX,
        alt=alt,
        column_order=[name for name in order if name in table],
        column_config={**config, "do": button},
    )


def _states(names: Sequence[str]) -> Any:
    looks = [STATES[name] for name in names]
    return st.column_config.MultiselectColumn(
        t("queue.column.state"), options=[look.label for look in looks], color=[look.color for look in looks], width=118
    )


def _what(job: Job) -> str:
    kind = None if job.kind == "train" else words.kind(job.kind)
    return " · ".join(one_line(part, 60) for part in (kind, job.model, job.dataset) if part)


def _note(job: Job, view: View) -> str:
    """What has been asked of it, else what it waits for, else what its check does."""
    if job.id in view.pending:
        return sentence(jobs.asked(view.pending[job.id]))
    if job.waits:
        at = quantities.clock(job.waits["not_before"], frame.zone())
        return one_line(t("queue.again", at=at, why=translated(job.waits["why"] or "")), 160)
    if job.state == "checking" and job.phase:
        return sentence(one_line(translated(job.phase), 80)) + " …"
    return sentence(expected.why(view.spans.get(job.id)))
