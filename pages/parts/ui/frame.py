"""What surrounds every page: mark, language, the runner's state in the sidebar, width, errors in plain words."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages.parts import alive, texts
from pages.parts.escape import md
from pages.parts.phrases import translated
from pages.parts.texts import t
from pages.parts.ui import signin
from spool.protocol import dropbox
from spool.protocol.errors import FinetunerError
from spool.protocol.home import Home
from spool.protocol.jobs import Job
from spool.protocol.roster import Roster

WIDTH_PX = 1180
FOOT = "frame-foot"

HOME = "pages/watch/home.py"
DATA = "pages/build/data.py"
TRAIN = "pages/build/train.py"
QUEUE = "pages/watch/queue.py"
MONITOR = "pages/watch/monitor.py"
COMPARE = "pages/watch/compare.py"
MODELS = "pages/keep/models.py"
PLAYGROUND = "pages/keep/playground.py"
SYSTEM = "pages/care/system.py"
VOTE = "pages/keep/vote.py"

SECTIONS = {
    "": {HOME: ("home", "home")},
    "build": {DATA: ("data", "dataset"), TRAIN: ("train", "model_training")},
    "watch": {
        QUEUE: ("queue", "list_alt"),
        MONITOR: ("monitor", "monitoring"),
        COMPARE: ("compare", "stacked_line_chart"),
    },
    "keep": {MODELS: ("models", "deployed_code"), PLAYGROUND: ("playground", "forum")},
    "care": {SYSTEM: ("system", "dns")},
}
"""The navigation: section -> page -> its name and icon."""

PAGES = [(path, name) for pages in SECTIONS.values() for path, (name, _) in pages.items()] + [(VOTE, "vote")]
"""Every page with its name; those that are not in the navigation are reached from what they are about."""

EXAMPLE = "examples/support_tickets.jsonl"

MARK = str(Path(__file__).with_name("mark.svg"))
WORDMARK = str(Path(__file__).with_name("wordmark.svg"))


def home() -> Home:
    return Home.at()


@st.cache_resource(max_entries=4, show_spinner=False)
def _roster(root: str) -> Roster:
    return Roster(Home.at(root))


def roster() -> Roster:
    """One look at the jobs for all sessions of this process."""
    return _roster(str(home().root))


def user() -> str | None:
    """The address of who is signed in, for `submitted_by`; None where nobody signs in."""
    return signin.user()


dropbox.asked_by(user)


def jobs() -> list[Job]:
    """Every job, oldest first, as of at most a second ago. They are shared with all sessions: change none."""
    return roster().jobs()


def job(job_id: str) -> Job:
    """One job, as of at most a second ago.

    Raises:
        NotFound: there is none.
    """
    return roster().job(job_id)


def language() -> str:
    """The reader's: as the address says or the sidebar's choice, else as their browser says."""
    chosen = st.query_params.get(LANGUAGE) or st.session_state.get(SPOKEN)
    return chosen if chosen in texts.LANGUAGES else texts.closest(st.context.locale)


LANGUAGE, SPOKEN = "lang", "spoken"
texts.ask_with(language)


def now() -> datetime:
    return datetime.now(UTC)


def zone() -> tzinfo:
    """The reader's time zone, as their browser says it."""
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (KeyError, ValueError, OSError):
        return UTC


def body() -> DeltaGenerator:
    """The page, no wider than reads well."""
    st.session_state.pop(FOOT, None)
    return st.container(horizontal_alignment="center").container(width=WIDTH_PX)


def at_foot(draw: Callable[[], None]) -> None:
    """What a page draws outside of its body: only there does Streamlit pin a chat's line and scroll along with it."""
    st.session_state[FOOT] = draw


def foot() -> None:
    draw: Callable[[], None] | None = st.session_state.pop(FOOT, None)
    if draw:
        draw()


def title(text: str, says: str) -> None:
    """A page's title with one sentence on what it is for."""
    with st.container(gap="xxsmall"):
        st.title(text, anchor=False)
        st.caption(says)
    st.space("xsmall")


def link(page: str, label: str, icon: str | None = None, **query: str) -> None:
    st.page_link(page, label=label, icon=icon, help="", query_params=query or None)


def nothing(head: str, says: str, page: str, label: str) -> None:
    """An empty page: what will be here, and the way to it."""
    with st.container(border=True, horizontal_alignment="center", gap="small"):
        st.space("small")
        st.markdown(f"**{head}**", width="content")
        st.markdown(f":gray[{says}]", width="content", text_alignment="center")
        link(page, label, icon=":material/arrow_forward:")
        st.space("small")


@contextmanager
def plain_errors() -> Iterator[None]:
    """What a user can act on is shown in words; anything else stays an exception."""
    try:
        yield
    except FinetunerError as error:
        show_error(error.message, error.hint)


def show_error(message: str, hint: str = "") -> None:
    message, hint = translated(message), translated(hint)
    if not {".", "/"} & set(message.partition(" ")[0]):  # a file's name stays as it is
        message = message[:1].upper() + message[1:]
    text = f"**{md(message, 600)}**" + (f"  \n{md(hint, 600)}" if hint else "")
    st.error(text, icon=":material/error:")


def runner_notice() -> alive.Runner:
    """Says so where jobs cannot start, with the command that cures it."""
    runner = alive.look(home())
    if runner.problem and not runner.halted:
        cure = " " + t("runner.start", command=runner.cure) if runner.cure else ""
        st.warning(
            md(runner.problem, 400) + cure, icon=":material/pause_circle:" if runner.alive else ":material/power_off:"
        )
    return runner


@st.fragment(run_every="10s")
def fault_notice() -> None:
    """On every page while a fault of the machine holds the queue."""
    runner = alive.look(home())
    if runner.halted:
        st.error(f"**{md(runner.problem, 600)}**  \n{t('runner.doctor')}", icon=":material/error:")


BUSY = {"generate": "answering", "export": "exporting", "evaluate": "evaluating"}


def _busy(job_id: str) -> str:
    """What the job that is at work does."""
    try:
        return BUSY.get(job(job_id).kind, "training")
    except FinetunerError:
        return "training"


@st.fragment(run_every="10s")
def _runner_dot() -> None:
    runner = alive.look(home())
    if not runner.alive:
        look, says = ":orange[:material/power_off:]", t("runner.dot.off")
    elif runner.halted:
        look, says = ":red[:material/error:]", t("runner.dot.halted")
    elif runner.busy_with:
        look, says = ":blue[:material/play_circle:]", t(f"runner.dot.{_busy(runner.busy_with)}")
    elif runner.queue in ("held", "draining"):
        look, says = ":orange[:material/pause_circle:]", t("runner.dot.held")
    elif runner.queue == "closed":
        look, says = ":gray[:material/schedule:]", t("runner.dot.closed")
    elif runner.problem:
        look, says = ":orange[:material/warning:]", t("runner.dot.waits")
    else:
        look, says = ":green[:material/check_circle:]", t("runner.dot.ready")
    st.caption(f"{look} {says}")


def _navigation() -> None:
    """Streamlit's own list of pages in sections is no valid list of HTML, which a screen reader stumbles over."""
    for section, pages in SECTIONS.items():
        with st.container(gap="xxsmall"):
            if section:
                st.caption(t(f"frame.section.{section}"))
            for path, (name, icon) in pages.items():
                st.page_link(path, label=t(f"frame.page.{name}"), icon=f":material/{icon}:", help="")


def _languages() -> None:
    """The choice of a language: it goes along to every page, and into the address where the browser's is another."""
    own, now = texts.closest(st.context.locale), language()

    def speak(chosen: str) -> None:
        st.session_state[SPOKEN] = chosen
        if chosen != own:
            st.query_params[LANGUAGE] = chosen
        else:
            st.query_params.pop(LANGUAGE, None)

    speak(now)
    with st.popover(texts.LANGUAGES[now], icon=":material/language:", type="tertiary", help=t("frame.language")):
        for name, said in texts.LANGUAGES.items():
            if name != now:
                st.button(said, key=f"speak-{name}", on_click=speak, args=(name,), type="tertiary")


def sidebar() -> None:
    with st.sidebar:
        _navigation()
        st.space("stretch")
        _runner_dot()
        _languages()
        signin.who()
