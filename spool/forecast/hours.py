"""When the settings' window is open, when it opens next, and when it closes."""

from datetime import datetime, timedelta

from spool.protocol.settings import DAYS, Window

WEEK_MINUTES = 7 * 24 * 60


def is_open(window: Window, now: datetime) -> bool:
    """Whether `now` (local time) lies in the window; a day is the one on which the window opens."""
    at = now.strftime("%H:%M")
    if window.start < window.end:
        return window.start <= at < window.end and DAYS[now.weekday()] in window.days
    if at >= window.start:
        return DAYS[now.weekday()] in window.days
    return at < window.end and DAYS[(now - timedelta(days=1)).weekday()] in window.days


def opens(window: Window | None, now: datetime) -> datetime:
    """The first moment from `now` on at which a job may start (local time): now, or the next opening."""
    if window is None or is_open(window, now):
        return now
    hour, minute = map(int, window.start.split(":"))
    at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    days = (at + timedelta(days=n) for n in range(9))
    return next(day for day in days if day >= now and is_open(window, day))


def closes(window: Window, now: datetime) -> datetime | None:
    """When the window that is open at `now` closes; None where it is not open."""
    if not is_open(window, now):
        return None
    hour, minute = map(int, window.end.split(":"))
    at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    end = at if at > now else at + timedelta(days=1)
    while is_open(window, end) and end < now + timedelta(minutes=WEEK_MINUTES):  # start and end at the same minute
        end += timedelta(days=1)
    return end
