"""Jobs as rows and badges, and the orders that can be given to them."""

import re
from collections.abc import Callable, Sequence

import streamlit as st

from pages.parts import alive, quantities, words
from pages.parts.escape import md, one_line
from pages.parts.models import making, told
from pages.parts.phrases import translated
from pages.parts.queue.board import in_order_of_giving
from pages.parts.texts import t
from pages.parts.ui import frame
from spool.health import cures
from spool.protocol import dropbox
from spool.protocol.dropbox import Order
from spool.protocol.errors import FinetunerError
from spool.protocol.jobs import Job

CANCEL, HOLD, RELEASE, TOP, UP, DOWN, PRIORITY = "cancel", "hold", "release", "top", "up", "down", "priority"
RETRY, SUGGESTED = "retry", "suggested"

STATE_PX = 124
NAMED = 6
"""So many jobs are named in a question about several."""

ICONS = {
    TOP: ":material/vertical_align_top:",
    UP: ":material/arrow_upward:",
    DOWN: ":material/arrow_downward:",
    PRIORITY: ":material/low_priority:",
    HOLD: ":material/pause:",
    RELEASE: ":material/play_arrow:",
    CANCEL: ":material/cancel:",
    RETRY: ":material/replay:",
    SUGGESTED: ":material/healing:",
}
QUEUE_ICONS = {
    "hold": ":material/pause:",
    "drain": ":material/power_settings_new:",
    "release": ":material/play_arrow:",
}


def label(order: str) -> str:
    """What an order is called, with its icon."""
    return f"{ICONS[order]} {t(f'jobs.order.{order}')}"


def badge(job: Job) -> str:
    """The state as Markdown: icon, word and colour."""
    look = words.state(job.state)
    return f":{look.color}-badge[{look.icon} {look.label}]"


def head(job: Job) -> None:
    """State and name in one line; the name leads to Monitor."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
        with st.container(width=STATE_PX):
            st.markdown(badge(job))
        frame.link(frame.MONITOR, f"**{md(short_name(job), 60)}**", icon="", job=job.id)


def short_name(job: Job) -> str:
    """A plain-text name: what was chosen, or the end of the id."""
    return t("jobs.nameless", end=job.id[-6:]) if job.name == job.id else one_line(job.name, 80)


def about(job: Job) -> str:
    """What kind of job where it trains nothing, model, data and who, as Markdown for a caption."""
    kind = None if job.kind == "train" else words.kind(job.kind)
    parts = [kind, job.model, job.dataset, t("jobs.by", who=job.submitted_by) if job.submitted_by else None]
    return " · ".join(md(part, 60) for part in parts if part)


def fraction(job: Job) -> float | None:
    if job.kind == "export":
        return making.share(making.rows(frame.home(), job))
    step, total = job.progress.get("step"), job.progress.get("total_steps")
    return min(1.0, max(0.0, step / total)) if step and total else None


def progress_text(job: Job) -> str:
    """`Step 72 of 120 · 2 min left`, or what the job does before and after its steps. Markdown."""
    step, total, eta = (job.progress.get(name) for name in ("step", "total_steps", "eta_s"))
    phase = md(words.phase(job.phase) if job.phase else t("jobs.starting"), 80)
    if not step:
        return phase
    at = quantities.count(step)
    said = t("jobs.step_of", step=at, total=quantities.count(total)) if total else t("jobs.step", step=at)
    if not (job.phase or "training").startswith("training"):
        return f"{said} · {phase}"
    return said + (f" · {t('jobs.left', duration=quantities.duration(eta))}" if eta else "")


def why(job: Job) -> str:
    """Why it failed, in one line; the name of a stored file (data.csv), which nobody gave it, is left out."""
    message = re.sub(r"^data\.[a-z.]+: ", "", (job.error or {}).get("message") or "")
    return words.sentence(one_line(translated(message), 300))


def made(job: Job) -> str:
    """`2 proven, 1 suspect`: what came of a job that makes exports, or a report; empty of other jobs."""
    if job.kind == "evaluate":
        return told.says(job)
    found = (job.result or {}).get("exports") if job.kind == "export" else None
    states = [str(each.get("state")) for each in found.values()] if isinstance(found, dict) else []
    return words.counted(states)


def asked(order: Order) -> str:
    """What the runner has been asked and has not done yet: `moving to the top …`."""
    key = f"jobs.pending.{order.verb}"
    return t(key, level=order.level) if order.verb in ICONS else order.verb


def orders_for(job: Job) -> list[str]:
    """What can be asked of a job in its state."""
    return {
        "checking": [TOP, UP, DOWN, PRIORITY, CANCEL],
        "queued": [TOP, UP, DOWN, PRIORITY, HOLD, CANCEL],
        "held": [RELEASE, PRIORITY, CANCEL],
        "running": [CANCEL],
        "done": [RETRY],
        "failed": [RETRY, SUGGESTED],
        "cancelled": [RETRY],
    }.get(job.state, [])


def give(order: str, job: Job) -> None:
    """Carries out an order and says so; called from callbacks, so what happened is shown as a toast."""
    give_all(order, [job])


def give_all(order: str, jobs: Sequence[Job], level: int | None = None) -> None:
    """The same order for several jobs. What cannot be asked of one is said, the others go on."""
    done, wrong = [], ""
    for job in in_order_of_giving(order, jobs):
        try:
            _give(order, job, level)
        except FinetunerError as error:
            wrong = wrong or f"{translated(error.message)} {translated(error.hint)}"
        except OSError as error:
            wrong = wrong or t("jobs.unwritable", why=error.strerror)
        else:
            done.append(job)
    frame.roster().stale()
    if wrong:
        st.toast(md(words.sentence(wrong), 400), icon=":material/error:")
    if done:
        name = md(short_name(done[0]))
        st.toast(t(f"jobs.given.{order}", count=len(done), name=name, level=level), icon=":material/check:")


def _give(order: str, job: Job, level: int | None) -> None:
    home = frame.home()
    if order == RETRY:
        dropbox.retry(home, job.id)
    elif order == SUGGESTED:
        made = cures.suggestion(home, job)
        if made is None:
            raise FinetunerError(t("jobs.no_suggestion", name=short_name(job)), "", "no_suggestion")
        cures.submit(home, job.id, made)
    else:
        dropbox.control(home, order, job.id, level)


def asks(order: str, jobs: Sequence[Job]) -> bool:
    """Whether something is to be said or chosen first: what is lost, what is made, which priority."""
    return order in (CANCEL, PRIORITY, SUGGESTED) or (order == RETRY and len(jobs) > 1)


def question(order: str, jobs: Sequence[Job], then: Callable[[], None] = lambda: None) -> None:
    """Opens the dialog of an order that asks; one for all jobs. `then` is called once the order was given."""
    {CANCEL: ask_cancel, PRIORITY: ask_priority, SUGGESTED: ask_suggested, RETRY: ask_retry}[order](jobs, then)


def _named(jobs: Sequence[Job]) -> None:
    lines = [f"- {md(short_name(job), 60)}" for job in jobs[:NAMED]]
    more = len(jobs) - NAMED
    st.markdown("\n".join(lines) + (f"\n- {t('jobs.more', count=more)}" if more > 0 else ""))


def _buttons(order: str, jobs: Sequence[Job], then: Callable[[], None]) -> None:
    def confirmed() -> None:
        level = st.session_state.get("ask-level") if order == PRIORITY else None
        give_all(order, jobs, level)
        then()

    with st.container(horizontal=True, horizontal_alignment="right"):
        back = st.button(t("jobs.ask.back"), key="ask-back")
        yes = t("jobs.yes.cancel", count=len(jobs)) if order == CANCEL else t(f"jobs.order.{order}")
        if st.button(yes, type="primary", key="ask-yes", on_click=confirmed) or back:
            st.rerun()


def ask_cancel(jobs: Sequence[Job], then: Callable[[], None]) -> None:
    @st.dialog(t("jobs.ask.cancel", count=len(jobs)), icon=":material/cancel:")
    def ask() -> None:
        _named(jobs)
        running = any(job.state == "running" for job in jobs)
        begun = [job for job in jobs if job.attempts and job.state != "running"]
        if running:
            st.markdown(t("jobs.ask.cancel_running"))
        if begun or not running:
            st.markdown(t("jobs.ask.cancel_begun" if begun else "jobs.ask.cancel_waiting"))
        _buttons(CANCEL, jobs, then)

    ask()


def ask_priority(jobs: Sequence[Job], then: Callable[[], None]) -> None:
    @st.dialog(t("jobs.ask.priority", count=len(jobs)), icon=":material/low_priority:")
    def ask() -> None:
        _named(jobs)
        now = jobs[0].priority if jobs[0].priority is not None else 5
        st.number_input(t("jobs.ask.level"), 0, 9, now, help=t("jobs.ask.level_help"), key="ask-level")
        _buttons(PRIORITY, jobs, then)

    ask()


def ask_retry(jobs: Sequence[Job], then: Callable[[], None]) -> None:
    @st.dialog(t("jobs.ask.retry", count=len(jobs)), icon=":material/replay:")
    def ask() -> None:
        _named(jobs)
        st.markdown(t("jobs.ask.retry_says"))
        _buttons(RETRY, jobs, then)

    ask()


def ask_suggested(jobs: Sequence[Job], then: Callable[[], None]) -> None:
    """What would change, job by job; jobs for which there is nothing to suggest are named as such."""

    @st.dialog(t("jobs.ask.suggested", count=len(jobs)), icon=":material/healing:")
    def ask() -> None:
        fitting = []
        for job in jobs:
            made = cures.suggestion(frame.home(), job)
            if made is not None:
                fitting.append(job)
            if len(fitting) <= NAMED:
                says = made.sentence if made else t("jobs.ask.nothing")
                st.markdown(f"**{md(short_name(job), 60)}**  \n{md(says, 400)}")
        if fitting:
            _buttons(SUGGESTED, fitting, then)
        else:
            st.caption(t("jobs.ask.by_hand"))

    ask()


def queue_menu(runner: alive.Runner) -> None:
    """Holding the whole queue, draining it before a reboot, and letting it go on."""
    held = runner.queue in ("held", "draining")

    def chosen() -> None:
        order = st.session_state.get("queue-order")
        if order:
            dropbox.queue(frame.home(), order)
            st.toast(t(f"jobs.queue_given.{order}"), icon=":material/check:")

    st.menu_button(
        t("jobs.queue_menu.held" if held else "jobs.queue_menu.open"),
        ["release"] if held else ["hold", "drain"],
        key="queue-order",
        type="secondary" if held else "tertiary",
        icon=":material/pause_circle:" if held else None,
        on_click=chosen,
        format_func=lambda order: f"{QUEUE_ICONS[order]} {t(f'jobs.queue_order.{order}')}",
    )


def menu(job: Job, where: str) -> None:
    """The orders that fit the job's state, behind one small button."""
    key = f"orders-{where}-{job.id}"

    def chosen() -> None:
        order = st.session_state.get(key)
        if order and not asks(order, [job]):
            give(order, job)

    orders = orders_for(job)
    if orders:
        order = st.menu_button(t("jobs.actions"), orders, key=key, type="tertiary", on_click=chosen, format_func=label)
        if order and asks(order, [job]):
            question(order, [job])
