"""When a job is expected to start and to end, in the words of a list."""

from datetime import datetime, timedelta, tzinfo

from pages.parts.phrases import translated
from pages.parts.quantities import DASH
from pages.parts.texts import t
from spool.forecast import queue
from spool.forecast.queue import Span

WHY = {
    queue.LATER: "later",
    queue.HELD: "held",
    queue.DRAINING: "draining",
    queue.NOT_ALIVE: "not_alive",
    queue.HALTED: "halted",
    queue.UNKNOWN_BEFORE: "unknown_before",
    queue.UNKNOWN: "unknown",
    queue.RUNS_OVER: "runs_over",
}


def hour(moment: datetime | None, now: datetime, zone: tzinfo) -> str:
    """`15:42`, `tomorrow 08:10`, `Wed 08:10`, `3 Dec 08:10`: the reader's own time."""
    if moment is None:
        return DASH
    there, here = moment.astimezone(zone), now.astimezone(zone)
    days = (there.date() - here.date()).days
    clock = f"{there:%H:%M}"
    if days == 0:
        return clock
    if days in (-1, 1):
        return t("expected.tomorrow" if days == 1 else "expected.yesterday", time=clock)
    if 1 < days < 7:
        return f"{t('expected.weekdays').split()[there.weekday()]} {clock}"
    month = t("quantities.months").split()[there.month - 1]
    return t("expected.date", day=there.day, month=month, time=clock)


def start(span: Span | None, now: datetime, zone: tzinfo) -> str:
    """When it starts; `soon` where that is less than a minute away."""
    if span is None or span.start is None:
        return DASH
    if span.start - now < timedelta(minutes=1):
        return t("expected.soon")
    return hour(span.start, now, zone)


def end(span: Span | None, now: datetime, zone: tzinfo) -> str:
    return hour(span.end if span else None, now, zone)


def why(span: Span | None) -> str:
    """Why a start cannot be told, or what it waits for; empty where nothing is unusual."""
    if span is None or not span.why:
        return ""
    known = WHY.get(span.why)
    return t(f"expected.why.{known}") if known else translated(span.why)
