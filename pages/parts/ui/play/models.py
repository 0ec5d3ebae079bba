"""Whom to talk to in the Playground: adapters of one base, the base beside them, and how answers are chosen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from pages.parts.escape import md, one_line
from pages.parts.models import shelf
from pages.parts.play import chat
from pages.parts.play.chat import BASE, BOUNDS, Choice, Settings
from pages.parts.texts import t
from pages.parts.ui import frame
from spool.protocol.home import Home, State
from spool.protocol.jobs import Job

STATE = st.session_state
PICKED, BESIDE, BARE = "play-with", "play-base", "play-model"
NAMES = (*BOUNDS, "system", "memory")
SHOWN = 300
"""Adapters that are offered, the newest first; an older one comes by its link on Models."""
COLORS = ("blue", "orange", "green", "violet")


@dataclass(frozen=True)
class Adapter:
    """A finished job whose adapter is still there."""

    id: str
    name: str
    model: str
    dataset: str
    ended_at: str


def adapters(home: Home) -> dict[str, Adapter]:
    """Every adapter that can be talked to, the newest first, by its job's id."""
    try:
        stamp = home.state(State.DONE).stat().st_mtime_ns
    except OSError:
        return {}
    return _adapters(str(home.root), stamp)


@st.cache_data(max_entries=2, ttl=10, show_spinner=False)
def _adapters(root: str, stamp: int) -> dict[str, Adapter]:
    home = Home(Path(root))
    frame.roster().stale()  # the folder has changed since its last look
    done = [job for job in frame.jobs() if job.state == "done"]
    done.sort(key=lambda job: job.ended_at or "", reverse=True)
    return {job.id: _adapter(job) for job in done if job.kind == "train" and _there(home, job.id)}


def _adapter(job: Job) -> Adapter:
    return Adapter(job.id, one_line(job.name, 60), job.model or "", job.dataset or "", job.ended_at or "")


def _there(home: Home, job_id: str) -> bool:
    return (home.run(job_id).exports / "adapter" / "adapter_config.json").is_file()


def choose(home: Home, known: dict[str, Adapter]) -> Choice | None:
    """The row that says who answers; None where there is nobody."""
    bases = [base.name for base in shelf.bases(home)]
    if not known and not bases:
        return None
    _arrive(known)
    picked = _picked(known)
    model = known[picked[0]].model if picked else _bare(bases)
    if model is None:
        return None
    return Choice(model, tuple(picked), bool(STATE.get(BESIDE, True)))


def _arrive(known: dict[str, Adapter]) -> None:
    """Takes over what the address says, where that is not what is chosen."""
    query = st.query_params
    asked = [each for each in chat.chosen(query.get("with")) if each in known]
    if asked:
        asked = [each for each in asked if known[each].model == known[asked[0]].model]
    elif PICKED in STATE and "with" not in query:
        return
    elif known:
        asked = [next(iter(known))]
    if STATE.get(PICKED) != asked:
        STATE[PICKED] = asked
    if "base" in query:
        STATE[BESIDE] = query["base"] != "0"
    STATE.setdefault(BESIDE, True)


def _tell() -> None:
    """Writes the choice into the address, so that it can be sent to somebody."""
    picked = [str(each) for each in STATE.get(PICKED) or []]
    st.query_params["with"] = ",".join(picked)
    st.query_params["base"] = "1" if STATE.get(BESIDE, True) else "0"


def _picked(known: dict[str, Adapter]) -> list[str]:
    if not known:
        return []
    now = [each for each in STATE.get(PICKED) or [] if each in known]
    options = [each for each in known if not now or known[each].model == known[now[0]].model][:SHOWN]
    options += [each for each in now if each not in options]
    most = chat.MOST_ADAPTERS if not STATE.get(BESIDE, True) else chat.MOST_COLUMNS - 1
    chosen = st.multiselect(
        t("playground.with"),
        options,
        format_func=lambda each: label(known, each),
        key=PICKED,
        on_change=_tell,
        max_selections=max(most, len(now)),
        placeholder=t("playground.with_none"),
        label_visibility="collapsed",
        persist_state="session",
    )
    with_base = len(chosen) < chat.MOST_COLUMNS
    st.toggle(
        t("playground.beside"), key=BESIDE, on_change=_tell, disabled=not chosen or not with_base,
        help=t("playground.beside_help"), persist_state="session",
    )  # fmt: skip
    return [each for each in chosen if each in known and known[each].model == known[chosen[0]].model]


def _bare(bases: list[str]) -> str | None:
    """A base alone, where no adapter is chosen."""
    if not bases:
        return None
    chosen = st.selectbox(
        t("playground.bare"), bases, key=BARE, label_visibility="collapsed", icon=":material/deployed_code:",
        persist_state="session",
    )  # fmt: skip
    return chosen if chosen in bases else bases[0]


def label(known: dict[str, Adapter], who: str) -> str:
    """What a model is called; with the end of its id where another one has the same name."""
    if who not in known:
        return f"…{who[-4:]}"
    name = known[who].name
    return f"{name} · …{who[-4:]}" if sum(each.name == name for each in known.values()) > 1 else name


def names(known: dict[str, Adapter], choice: Choice) -> dict[str, str]:
    """Who answers, in the order of the columns, with what each is called."""
    return {who: choice.model if who == BASE else label(known, who) for who in choice.who}


def heading(who: str, name: str, position: int) -> str:
    """A model's name as Markdown: the base is grey, each adapter has its colour and all have an icon."""
    if who == BASE:
        return f":gray-badge[:material/deployed_code: {md(name, 50)}]"
    return f":{COLORS[position % len(COLORS)]}-badge[:material/tune: {md(name, 50)}]"


def settings() -> Settings:
    """The quiet button behind which everything about answering lies; what differs from the usual stands on it."""
    told = chat.settings({name: STATE.get(f"play/{name}") for name in NAMES})
    differs = sum(getattr(told, name) != getattr(Settings(), name) for name in NAMES)
    text = t("playground.settings_changed", count=differs) if differs else t("playground.settings")
    popover = st.popover(text, icon=":material/tune:", type="tertiary", key="play-settings")
    with popover.container(width=380, gap="small"):
        _ask(Settings())
    return chat.settings({name: STATE.get(f"play/{name}") for name in NAMES})


def _ask(usual: Settings) -> None:
    def key(name: str) -> dict[str, Any]:
        STATE.setdefault(f"play/{name}", getattr(usual, name))
        return {"key": f"play/{name}", "help": t(f"playground.help.{name}"), "persist_state": "session"}

    def says(name: str) -> str:
        return t(f"playground.setting.{name}")

    st.text_area(says("system"), height=80, max_chars=chat.LONGEST_PROMPT, **key("system"))
    st.toggle(says("memory"), **key("memory"))
    st.slider(says("temperature"), 0.0, 2.0, step=0.05, **key("temperature"))
    st.number_input(says("max_new_tokens"), 1, 4096, step=64, **key("max_new_tokens"))
    with st.grid(2, min_column_width=150, gap="small"):
        st.number_input(says("top_p"), 0.01, 1.0, step=0.05, **key("top_p"))
        st.number_input(says("top_k"), 0, 1000, step=10, **key("top_k"))
        st.number_input(says("repetition_penalty"), 1.0, 2.0, step=0.05, **key("repetition_penalty"))
        st.number_input(says("seed"), 0, 2**32 - 1, step=1, **key("seed"))
    st.button(t("playground.settings_reset"), icon=":material/restart_alt:", type="tertiary", on_click=_reset)


def _reset() -> None:
    for name in NAMES:
        STATE[f"play/{name}"] = getattr(Settings(), name)
