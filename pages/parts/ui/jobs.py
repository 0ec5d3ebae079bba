"""Jobs as rows and badges, and the orders that can be given to them."""

import re

import streamlit as st

from pages.parts import alive, quantities, words
from pages.parts.escape import md, one_line
from pages.parts.ui import frame
from spool.protocol import dropbox
from spool.protocol.errors import FinetunerError
from spool.protocol.jobs import Job

CANCEL, HOLD, RELEASE, TOP, RETRY = "cancel", "hold", "release", "top", "retry"

STATE_PX = 116

ORDERS = {
    TOP: (":material/vertical_align_top: Move to the top", "goes first"),
    HOLD: (":material/pause: Hold", "is held back"),
    RELEASE: (":material/play_arrow: Release", "waits in the queue again"),
    CANCEL: (":material/cancel: Cancel", "is being cancelled"),
    RETRY: (":material/replay: Run again", "runs again as a new job"),
}


QUEUE_ORDERS = {
    "hold": (":material/pause: Hold the queue until released", "No further job starts"),
    "drain": (":material/power_settings_new: Drain before a restart", "The running job is finished, no other starts"),
    "release": (":material/play_arrow: Release the queue", "The queue goes on"),
}


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
    return f"Job …{job.id[-6:]}" if job.name == job.id else one_line(job.name, 80)


def about(job: Job) -> str:
    """Model, data and who, as Markdown for a caption."""
    parts = [job.model, job.dataset, f"by {job.submitted_by}" if job.submitted_by else None]
    return " · ".join(md(part, 60) for part in parts if part)


def fraction(job: Job) -> float | None:
    step, total = job.progress.get("step"), job.progress.get("total_steps")
    return min(1.0, max(0.0, step / total)) if step and total else None


def progress_text(job: Job) -> str:
    """`Step 72 of 120 · 2 min left`, or what the job does before and after its steps. Markdown."""
    step, total, eta = (job.progress.get(name) for name in ("step", "total_steps", "eta_s"))
    phase = md(words.sentence(job.phase or "starting"), 80)
    if not step:
        return phase
    said = f"Step {step:,} of {total:,}" if total else f"Step {step:,}"
    if not (job.phase or "training").startswith("training"):
        return f"{said} · {phase}"
    return said + (f" · {quantities.duration(eta)} left" if eta else "")


def why(job: Job) -> str:
    """Why it failed, in one line; the name of a stored file (data.csv), which nobody gave it, is left out."""
    said = re.sub(r"^data\.[a-z.]+: ", "", (job.error or {}).get("message") or "")
    return words.sentence(one_line(said, 300))


def orders_for(job: Job) -> list[str]:
    """What can be asked of a job in its state."""
    return {
        "checking": [CANCEL],
        "queued": [TOP, HOLD, CANCEL],
        "held": [RELEASE, CANCEL],
        "running": [CANCEL],
        "done": [RETRY],
        "failed": [RETRY],
        "cancelled": [RETRY],
    }.get(job.state, [])


def give(order: str, job: Job) -> None:
    """Carries out an order and says so; called from callbacks, so what happened is shown as a toast."""
    try:
        if order == RETRY:
            dropbox.retry(frame.home(), job.id)
        else:
            dropbox.control(frame.home(), order, job.id)
    except FinetunerError as error:
        st.toast(md(f"{error.message} {error.hint}", 400), icon=":material/error:")
    except OSError as error:
        st.toast(md(f"The order could not be written: {error.strerror}."), icon=":material/error:")
    else:
        st.toast(f"{md(short_name(job))} {ORDERS[order][1]}.", icon=":material/check:")


def queue_menu(runner: alive.Runner) -> None:
    """Holding the whole queue, draining it before a reboot, and letting it go on."""
    held = runner.queue in ("held", "draining")

    def chosen() -> None:
        order = st.session_state.get("queue-order")
        if order:
            dropbox.queue(frame.home(), order)
            st.toast(f"{QUEUE_ORDERS[order][1]}.", icon=":material/check:")

    st.menu_button(
        "Held" if held else "Queue",
        ["release"] if held else ["hold", "drain"],
        key="queue-order",
        type="secondary" if held else "tertiary",
        icon=":material/pause_circle:" if held else None,
        on_click=chosen,
        format_func=lambda order: QUEUE_ORDERS[order][0],
    )


def menu(job: Job, where: str) -> None:
    """The orders that fit the job's state, behind one small button."""
    key = f"orders-{where}-{job.id}"

    def chosen() -> None:
        order = st.session_state.get(key)
        if order:
            give(order, job)

    orders = orders_for(job)
    if orders:
        st.menu_button(
            "Actions", orders, key=key, type="tertiary", on_click=chosen, format_func=lambda order: ORDERS[order][0]
        )
