"""What the model sees: one row, rendered and cut into tokens, with the way to the next one and a search."""

from pathlib import Path
from typing import Any

import streamlit as st

from pages.parts import quantities
from pages.parts.data import findings, token_view
from pages.parts.escape import md, one_line
from pages.parts.texts import t
from pages.parts.ui import frame
from pages.parts.ui.data.dataset import Chosen
from spool.data import inspect
from spool.protocol.errors import FinetunerError

STATE = st.session_state
HERE = Path(__file__).parent
KINDS = ("trained", "read", "special")

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
            t("data.row.no_model"),
            t("data.row.no_model_says"),
            frame.MODELS,
            t("frame.page.models"),
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
            t("data.row.previous"), icon=":material/chevron_left:", disabled=view["previous"] is None,
            on_click=go, args=(view["previous"], view["position"] - 1),
        )  # fmt: skip
        st.button(
            t("data.row.next"), icon=":material/chevron_right:", disabled=view["next"] is None,
            on_click=go, args=(view["next"], view["position"] + 1),
        )  # fmt: skip
        st.number_input(t("data.row.line"), min_value=1, step=1, key=f"go/{place}", on_change=typed, width=120)
        st.number_input(
            t("data.row.longest"),
            min_value=16,
            step=1,
            value=None,
            placeholder=t("data.row.auto"),
            key=f"max-length/{chosen.key}",
            help=t("data.row.longest_help"),
            width=170,
            persist_state="session",
        )
        wanted = st.text_input(
            t("data.row.search"), placeholder=t("data.row.search_in"), key=f"search/{chosen.key}",
            icon=":material/search:", width=220,
        )  # fmt: skip
    if wanted.strip():
        _hits(chosen, wanted, go)


def _hits(chosen: Chosen, wanted: str, go: Any) -> None:
    found = inspect.search(chosen.path, wanted, chosen.limits, dialect=chosen.reading.dialect)
    if not found:
        st.caption(t("data.row.no_hit", text=md(wanted, 60)))
        return
    shown = {each["line"]: f"{quantities.count(each['line'])} · {one_line(each['preview'], 90)}" for each in found}
    key = f"hit/{chosen.key}/{wanted}"

    def picked() -> None:
        if STATE.get(key):
            go(STATE[key])

    st.selectbox(
        t("data.row.hits"),
        list(shown),
        index=None,
        format_func=shown.__getitem__,
        placeholder=t("data.row.hit", count=len(shown), number=quantities.count(len(shown))),
        key=key,
        on_change=picked,
        label_visibility="collapsed",
    )


def _row(view: dict[str, Any]) -> None:
    numbers = {"number": view["position"] + 1, "rows": view["rows"], "line": view["line"]}
    shown: dict[str, Any] = {name: quantities.count(each) for name, each in numbers.items()}
    of = t("data.row.of", **shown)
    if view["problem"]:
        st.caption(of)
        st.warning(
            f"**{t('data.row.left_out')}** {md(findings.sentence(view['problem']['message']), 400)}",
            icon=":material/filter_alt_off:",
        )
        return
    seen = token_view.drawn(view)
    st.caption(f"{of} · {token_view.in_words(seen)}")
    cut: dict[str, Any] = {"limit": quantities.count(seen["limit"]), "lost": quantities.count(seen["lost"])}
    _VIEW(
        key="token-view",
        data={
            "chips": seen["chips"],
            "legend": [[kind, t(f"data.row.{kind}")] for kind in KINDS],
            "cut_says": t("data.row.cut", **cut) if seen["limit"] else "",
            "hidden": seen["hidden"],
            "hidden_says": t("data.row.hidden", number=quantities.count(seen["hidden"])),
        },
    )
