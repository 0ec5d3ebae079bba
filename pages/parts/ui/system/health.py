"""System, Health: the doctor's findings with their cures, and the runner."""

from typing import Any

import streamlit as st

from pages.parts import alive, quantities
from pages.parts.escape import md, one_line
from pages.parts.phrases import translated
from pages.parts.system import looks
from pages.parts.system.looks import Seen
from pages.parts.texts import has, t
from pages.parts.ui import frame
from pages.parts.words import sentence
from spool.health import heartbeat
from spool.protocol.errors import NotFound
from spool.protocol.jobs import get_job, iso

LOOKS = {
    "ok": ":green[:material/check_circle:]",
    "warn": ":orange[:material/warning:]",
    "fail": ":red[:material/error:]",
}


@st.fragment(run_every="2s")
def show() -> None:
    home = frame.home()
    again = bool(st.session_state.get("look-again"))
    seen = looks.ask(home, again)
    _verdict(seen)
    _footer(seen)
    st.space("small")
    runner()


def _verdict(seen: Seen) -> None:
    """One sentence, then what wants attention; what is fine is folded."""
    if seen.report is None:
        if seen.problem and not seen.working:
            st.warning(t("system.look.failed", problem=md(seen.problem)), icon=":material/warning:")
        else:
            st.info(t("system.look.first"), icon=":material/hourglass_empty:")
        return
    wanted, fine = seen.worth("fail", "warn"), seen.worth("ok")
    if not wanted:
        says = f"**{t('system.look.fine')}** {t('system.look.fine_says', number=len(fine))}"
        st.success(says, icon=":material/check_circle:")
    else:
        st.subheader(t("system.look.attention", count=len(wanted)), anchor=False)
        with st.container(border=True, gap="medium"):
            for finding in wanted:
                _finding(finding)
    if fine:
        label = t("system.look.fine_others", count=len(fine)) if wanted else t("system.level.ok")
        with st.expander(label, icon=":material/checklist:"):
            st.markdown(
                "\n".join(f"- **{_area(each)}:** {md(sentence(translated(each['message'])), 600)}" for each in fine)
            )


def _finding(finding: dict[str, Any]) -> None:
    level = str(finding.get("level"))
    with st.container(gap="xxsmall"):
        st.markdown(f"{LOOKS.get(level, '')} **{_area(finding)}** :gray[· {t(f'system.level.{level}')}]")
        st.markdown(md(sentence(translated(finding.get("message", ""))), 900))
        if finding.get("cure"):
            st.markdown(f":gray[:material/arrow_forward:] {with_commands(translated(finding['cure']))}")


def with_commands(text: str) -> str:
    """Words with the commands in them, which stand between backticks, as code."""
    parts = one_line(text, 900).split("`")
    if len(parts) % 2 == 0:  # an unpaired one
        return md(text, 900)
    return "".join(f"`{part}`" if number % 2 and part else _around(part) for number, part in enumerate(parts))


def _around(part: str) -> str:
    """Escaped, with the blanks that part it from the code."""
    inner = part.strip()
    return part.replace(inner, md(inner, 900)) if inner else part


def _area(finding: dict[str, Any]) -> str:
    name = str(finding.get("area"))
    return t(f"system.area.{name}") if has(f"system.area.{name}") else md(name, 40)


def _footer(seen: Seen) -> None:
    if seen.at_s is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        when = quantities.ago(iso(seen.at_s), frame.now())
        st.caption(
            t("system.look.age", ago=when, account=md(seen.account or looks.account(), 60)),
            width="stretch",
        )
        label = t("system.look.working") if seen.working else t("system.look.again")
        st.button(label, key="look-again", icon=":material/refresh:", disabled=seen.working)


def runner() -> None:
    """The runner as its heartbeat tells it, and what starts it where it is not there."""
    home = frame.home()
    told, beat = alive.look(home), heartbeat.read(home)
    st.subheader(t("system.runner.title"), anchor=False)
    st.caption(t("system.runner.says"))
    facts: list[tuple[str, str]] = []
    if not told.alive:
        facts.append((t("system.runner.state"), f":orange[:material/power_off:] {md(told.problem)}"))
    else:
        state = f":red[:material/error:] {md(told.problem, 600)}" if told.halted else _state(told)
        facts += [
            (t("system.runner.state"), state),
            (t("system.runner.since"), md(quantities.clock(beat.started_at, frame.zone()))),
        ]
    if beat.age_s is not None:
        seconds = t("quantities.ago", duration=quantities.duration(max(0.0, beat.age_s)))
        facts.append((t("system.runner.beat"), seconds))
    if told.alive:
        facts.append((t("system.runner.queue"), t(f"system.runner.queue_is.{told.queue}")))
        facts += (
            [(t("system.runner.waits"), md(sentence(translated(beat.waiting_for)), 400))] if beat.waiting_for else []
        )
    facts += [(t("system.runner.version"), md(beat.version, 60))] if beat.version else []
    facts.append((t("system.runner.log"), f"`{home.runner_log}`"))
    with st.container(border=True, gap="xsmall"):
        table(facts)
        if told.busy_with:
            _job(told.busy_with)
        if not told.alive:
            st.code(told.cure or alive.start(), language=None)
            st.markdown(f":gray[{t('system.runner.start')}]")


def _job(job_id: str) -> None:
    try:
        name = get_job(frame.home(), job_id).name
    except NotFound:
        return
    label = t("system.runner.job", name=one_line(name, 60).replace("[", "(").replace("]", ")"))
    frame.link(frame.MONITOR, label, icon=":material/monitoring:", job=job_id)


def _state(told: alive.Runner) -> str:
    if told.busy_with:
        return f":blue[:material/play_circle:] {t('runner.dot.training')}"
    if told.queue in ("held", "draining"):
        return f":orange[:material/pause_circle:] {t('runner.dot.held')}"
    if told.problem:
        return f":orange[:material/warning:] {md(told.problem, 400)}"
    return f":green[:material/check_circle:] {t('runner.dot.ready')}"


def table(facts: list[tuple[str, str]]) -> None:
    """Names and values under each other; values are Markdown."""
    for name, value in facts:
        with st.container(horizontal=True, vertical_alignment="top", gap="small", wrap=False):
            st.markdown(f":gray[{name}]", width=170)
            st.markdown(value, width="stretch")
