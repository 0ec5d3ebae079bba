"""How a chat's session stands, in words: closed, waiting and for what, starting, ready, or how it ended."""

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from pages.parts import alive, quantities, words
from pages.parts.escape import md
from pages.parts.phrases import translated
from pages.parts.texts import has, t
from spool.protocol.jobs import Job


@dataclass(frozen=True)
class Standing:
    """`says` is Markdown, `icon` and `color` go with it; `hint` says what to do, where something can be done."""

    kind: str
    says: str
    icon: str
    color: str = "gray"
    hint: str = ""

    @property
    def open(self) -> bool:
        """Whether a question can be asked without anything being started."""
        return self.kind in ("waits", "starting", "ready")

    @property
    def told(self) -> str:
        """In one line of Markdown."""
        return f":{self.color}[{self.icon}] {self.says}" + (f" :gray[{self.hint}]" if self.hint else "")


@dataclass(frozen=True)
class Around:
    """What else goes on: the job that has the card, how many wait, the runner, and the reader's clock."""

    running: Job | None
    waiting: int
    runner: alive.Runner
    now: datetime
    zone: tzinfo
    until: datetime | None = None
    """When the job that has the card is expected to be done (UTC)."""
    free: datetime | None = None
    """When all that goes before is expected to be done (UTC)."""


def closed(model: str) -> Standing:
    """Before the first question."""
    return Standing("closed", t("playground.state.closed", model=md(model, 60)), ":material/radio_button_unchecked:")


def standing(job: Job, around: Around, ready: bool, idle_minutes: float) -> Standing:
    """How the session of a chat stands; `ready` where it has said that it can be asked."""
    match job.state:
        case "checking" | "queued" | "held":
            return _waits(job, around)
        case "running":
            return _runs(job, around, ready, idle_minutes)
        case "done":
            return _ended(str((job.result or {}).get("ended_by") or "other"), around)
        case "cancelled":
            return _ended("cancelled", around)
    error = job.error or {}
    errors = error.get("errors") or [error]
    says = " ".join(md(words.sentence(translated(each.get("message") or "")), 400) for each in errors[:3])
    hint = md(translated(errors[0].get("hint") or ""), 400)
    return Standing("failed", f"**{t('playground.state.failed')}** {says}", ":material/error:", "red", hint)


def _waits(job: Job, around: Around) -> Standing:
    icon = ":material/schedule:"
    if not around.runner.alive:
        return Standing("waits", t("playground.state.no_runner"), ":material/power_off:", "orange")
    if job.state == "held":
        return Standing("waits", t("playground.state.held"), ":material/pause_circle:", "orange")
    if job.waits:
        return Standing("waits", md(words.sentence(str(job.waits.get("why") or "")), 300), icon, "orange")
    running = around.running
    if running is not None and running.id != job.id:
        name = md(running.name, 60)
        until = _time(around.until, around)
        key = {"generate": "chat", "export": "export", "evaluate": "evaluate"}.get(running.kind, "training")
        says = t(f"playground.state.behind_{key}", name=name)
        if key == "training" and until:
            says = t("playground.state.behind_until", name=name, time=until)
        return Standing("waits", says, icon, "gray", _ahead(around))
    if around.runner.problem:
        return Standing("waits", md(around.runner.problem, 300), ":material/pause_circle:", "orange")
    if around.waiting:
        return Standing("waits", t("playground.state.queue", count=around.waiting), icon)
    return Standing("waits", t("playground.state.accepted"), icon)


def _ahead(around: Around) -> str:
    """What else goes before, and until when."""
    if not around.waiting:
        return ""
    time = _time(around.free, around)
    if time:
        return t("playground.state.ahead_until", count=around.waiting, time=time)
    return t("playground.state.ahead", count=around.waiting)


def _time(moment: datetime | None, around: Around) -> str:
    """The time on the reader's clock, with its day where that is not near; empty where nobody knows it."""
    if moment is None or moment <= around.now:
        return ""
    if moment - around.now > timedelta(hours=18):
        return quantities.clock(moment.isoformat(), around.zone)
    return f"{moment.astimezone(around.zone):%H:%M}"


def _runs(job: Job, around: Around, ready: bool, idle_minutes: float) -> Standing:
    if not around.runner.alive:
        return Standing("waits", t("playground.state.no_runner"), ":material/power_off:", "orange")
    if ready:
        says = t("playground.state.ready", duration=quantities.duration(idle_minutes * 60))
        return Standing("ready", says, ":material/check_circle:", "green")
    since = quantities.moment(job.started_at)
    took = quantities.duration((around.now - since).total_seconds()) if since else ""
    doing = words.phase(job.phase) if job.phase else t("playground.state.begins")
    return Standing("starting", f"{md(doing, 80)} …", ":material/hourglass_empty:", "blue", took)


def _ended(how: str, around: Around) -> Standing:
    icon, color = ":material/bedtime:", "gray"
    if how == "made_room":
        icon, color = ":material/swap_horiz:", "orange"
        if around.running is not None:
            says = t("playground.ended.made_room_for", name=md(around.running.name, 60))
            return Standing("ended", says, icon, color)
    key = f"playground.ended.{how}"
    return Standing("ended", t(key) if has(key) else t("playground.ended.other"), icon, color)
