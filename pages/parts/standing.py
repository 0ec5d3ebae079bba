"""How a chat's session stands, in words: closed, waiting and for what, starting, ready, or how it ended."""

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from pages.parts import alive, quantities, words
from pages.parts.escape import md
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
    says = " ".join(md(words.sentence(str(each.get("message") or "")), 400) for each in errors[:3])
    hint = md(str(errors[0].get("hint") or ""), 400)
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
        until = _until(running, around)
        key = "chat" if running.kind == "generate" else "training"
        says = t(f"playground.state.behind_{key}", name=name)
        if key == "training" and until:
            says = t("playground.state.behind_until", name=name, time=until)
        ahead = t("playground.state.ahead", count=around.waiting) if around.waiting else ""
        return Standing("waits", says, icon, "gray", ahead)
    if around.runner.problem:
        return Standing("waits", md(around.runner.problem, 300), ":material/pause_circle:", "orange")
    if around.waiting:
        return Standing("waits", t("playground.state.queue", count=around.waiting), icon)
    return Standing("waits", t("playground.state.accepted"), icon)


def _until(running: Job, around: Around) -> str:
    """About when the job that runs is done, on the reader's clock; empty where it does not know yet."""
    eta_s = running.progress.get("eta_s")
    if not isinstance(eta_s, int | float) or not 0 <= eta_s < 30 * 86_400:
        return ""
    end = (around.now + timedelta(seconds=eta_s)).astimezone(around.zone)
    if eta_s > 18 * 3600:
        return quantities.clock(end.isoformat(), around.zone)
    return f"{end:%H:%M}"


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
