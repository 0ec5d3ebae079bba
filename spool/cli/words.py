"""Times and progress in words."""

import time
from datetime import datetime

from spool.protocol.jobs import Job


def duration(seconds: float) -> str:
    """45 s, 12 min, 3 h 05 min, 4 days."""
    seconds = max(0.0, seconds)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        minutes = round(seconds / 60)
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{seconds / 86_400:.0f} days"


def age(iso: str | None, now: float | None = None) -> str:
    moment = parse_iso(iso)
    return "" if moment is None else duration((time.time() if now is None else now) - moment.timestamp())


def local_time(iso: str | None) -> str:
    moment = parse_iso(iso)
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def parse_iso(iso: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(iso) if iso else None
    except (TypeError, ValueError):
        return None


def progress(job: Job) -> str:
    """ "37/120 (31 %), 4 min left", or the phase that a job without steps is in."""
    step, total, eta_s = job.progress["step"], job.progress["total_steps"], job.progress["eta_s"]
    if not total:
        return job.phase or ""
    words = f"{step}/{total} ({100 * step // total} %)"
    if job.state == "running" and eta_s is not None:
        words += f", {duration(eta_s)} left"
    return words
