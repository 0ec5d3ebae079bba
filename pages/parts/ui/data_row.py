"""What the model sees: one row, rendered and cut into tokens, with the way to the next one and a search."""

from pathlib import Path
from typing import Any

import streamlit as st

from pages.parts import token_view
from pages.parts.escape import md, one_line
from pages.parts.ui import frame
from pages.parts.ui.dataset import Chosen
from spool.data import inspect
from spool.protocol.errors import FinetunerError

STATE = st.session_state
HERE = Path(__file__).parent
LEGEND = [["trained", "learned from"], ["read", "only read"], ["special", "control token"]]

_VIEW = st.components.v2.component(
    "token_view",
    html='<div class="view"></div>',
    css=(HERE / "token_view.css").read_text("utf-8"),
    js=(HERE / "token_view.js").read_text("utf-8"),
)


def show(chosen: Chosen) -> None:
    """The row that is looked at, and how to come to another one."""
    if chosen.model_folder is None:
        frame.nothing(
            "No model on this server yet",
            "What a model sees depends on its tokenizer. `make setup` prepares one.",
            frame.MODELS,
            "Models",
        )
        return
    place = f"line/{chosen.key}"
    try:
        line, position = STATE.get(place, (None, None))
        how = chosen.how()
        view = inspect.row_view(chosen.home, chosen.path, line, chosen.model_folder, **how, position=position)
    except FinetunerError as error:
        frame.show_error(error.message, error.hint)
        return
    _toolbar(chosen, view, place)
    _row(view)


def _toolbar(chosen: Chosen, view: dict[str, Any], place: str) -> None:
    def go(line: int | None, position: int | None = None) -> None:
        STATE[place] = line, position

    def typed() -> None:
        go(STATE[f"go/{place}"])

    STATE[f"go/{place}"] = view["line"]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.button(
            "Previous", icon=":material/chevron_left:", disabled=view["previous"] is None,
            on_click=go, args=(view["previous"], view["position"] - 1),
        )  # fmt: skip
        st.button(
            "Next", icon=":material/chevron_right:", disabled=view["next"] is None,
            on_click=go, args=(view["next"], view["position"] + 1),
        )  # fmt: skip
        st.number_input("Line", min_value=1, step=1, key=f"go/{place}", on_change=typed, width=120)
        st.number_input(
            "Longest row (tokens)",
            min_value=16,
            step=1,
            value=None,
            placeholder="auto",
            key=f"max-length/{chosen.key}",
            help="Where a job would cut. Goes to Train with the data.",
            width=170,
            persist_state="session",
        )
        wanted = st.text_input(
            "Search", placeholder="a word in any row", key=f"search/{chosen.key}", icon=":material/search:", width=220
        )
    if wanted.strip():
        _hits(chosen, wanted, go)


def _hits(chosen: Chosen, wanted: str, go: Any) -> None:
    found = inspect.search(chosen.path, wanted, chosen.limits, dialect=chosen.reading.dialect)
    if not found:
        st.caption(f"No row holds “{md(wanted, 60)}”.")
        return
    shown = {each["line"]: f"{each['line']:,} · {one_line(each['preview'], 90)}" for each in found}
    key = f"hit/{chosen.key}/{wanted}"

    def picked() -> None:
        if STATE.get(key):
            go(STATE[key])

    st.selectbox(
        "Rows that hold it",
        list(shown),
        index=None,
        format_func=shown.__getitem__,
        placeholder=f"{len(shown)} rows hold it: go to one" if len(shown) > 1 else "one row holds it: go there",
        key=key,
        on_change=picked,
        label_visibility="collapsed",
    )


def _row(view: dict[str, Any]) -> None:
    of = f"Row {view['position'] + 1:,} of {view['rows']:,}, line {view['line']:,}"
    if view["problem"]:
        st.caption(of)
        st.warning(f"**This row is left out.** {md(view['problem']['message'], 400)}", icon=":material/filter_alt_off:")
        return
    seen = token_view.drawn(view)
    st.caption(f"{of} · {token_view.in_words(seen)}")
    cut_says = f"cut here, at {seen['limit']:,} tokens: {seen['lost']:,} are lost" if seen["limit"] else ""
    _VIEW(
        key="token-view",
        data={
            "chips": seen["chips"],
            "legend": LEGEND,
            "cut_says": cut_says,
            "hidden": seen["hidden"],
            "hidden_says": f"and {seen['hidden']:,} tokens more, which are not drawn",
        },
    )
