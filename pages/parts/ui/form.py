"""One setting of the job spec as a Streamlit input. What is left at its default is UNSET and stays out of the spec."""

from collections.abc import Callable
from typing import Any, Final

import streamlit as st

from pages.parts import draft, findings
from pages.parts.fields import Field

UNSET: Final = object()

PLACEHOLDERS = {"/name": "made from model and data", "/eval/dataset": "a share of the data"}

OPTION_WORDS = {
    "auto": "Auto",
    True: "On",
    False: "Off",
    "responses": "Answers only",
    "all": "All text",
    "4bit": "4 bit",
    "8bit": "8 bit",
    "16bit": "16 bit",
    "constant_with_warmup": "constant with warm-up",
}


def ask(field: Field, prefix: str) -> Any:
    """Draws the input and gives its value, or UNSET where it says what the default says."""
    value = _DRAWN[field.kind](field, f"{prefix}{field.pointer}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if (
        field.nullable and not field.auto and field.default is not None
    ):  # emptied or switched off: that is null, not the default
        return UNSET if value in (field.default, {}) else value
    return UNSET if value == field.default or value is None or value == "" else value


def fill(field: Field, prefix: str, value: Any) -> None:
    """Sets the input to a value of the spec, before it is drawn; UNSET sets it back to its default."""
    key = f"{prefix}{field.pointer}"
    for member in field.members:
        name = member.pointer.rpartition("/")[2]
        fill(member, key, value.get(name, UNSET) if isinstance(value, dict) else UNSET)
    if value is UNSET or value is None or (value == "auto" and field.kind in ("integer", "number")):
        st.session_state.pop(key, None)
    else:
        st.session_state[key] = _FILLED.get(field.kind, lambda same: same)(value)


def _number(field: Field, key: str) -> Any:
    whole = field.kind == "integer"
    cast = int if whole else float
    unset = field.auto or field.default is None
    low = cast(field.low) if field.low is not None else None
    high = cast(field.high) if field.high is not None else None
    if whole and high is not None and high >= 2**53:
        high = None
    return st.number_input(
        field.label,
        value=None if unset else cast(field.default),
        min_value=low,
        max_value=high,
        step=1 if whole else _step(field),
        format="%d" if whole else "%g",
        placeholder=field.unset or None,
        help=field.help,
        key=key,
        persist_state="session",
    )


def _step(field: Field) -> float:
    """A click on + or - moves a value by about a tenth of what it usually is."""
    if field.pointer == "/train/learning_rate":
        return 5e-5
    usual = field.default if isinstance(field.default, (int, float)) and field.default else field.high or 1
    return 1.0 if usual >= 1 else 0.05 if usual >= 0.1 else 0.01


def _choice(field: Field, key: str) -> Any:
    options = list(field.choices)

    def shown(option: Any) -> str:
        return OPTION_WORDS.get(option, str(option))

    common: dict[str, Any] = {"format_func": shown, "help": field.help, "key": key, "persist_state": "session"}
    if len(options) <= 3:
        return st.segmented_control(
            field.label, options, default=field.default, required=True, width="stretch", **common
        )
    return st.selectbox(field.label, options, index=options.index(field.default), **common)


def _switch(field: Field, key: str) -> Any:
    return st.toggle(field.label, value=field.default, help=field.help, key=key, persist_state="session")


def _text(field: Field, key: str) -> Any:
    return st.text_input(
        field.label,
        help=field.help,
        key=key,
        max_chars=120,
        placeholder=PLACEHOLDERS.get(field.pointer, field.default or ""),
        persist_state="session",
    ).strip(" ")


def _names(field: Field, key: str) -> Any:
    text = st.text_input(field.label, placeholder=str(field.default), help=field.help, key=key, persist_state="session")
    names = draft.names(text)
    return names[0] if names == [field.default] else names or None


def _several(field: Field, key: str) -> Any:
    return st.multiselect(
        field.label,
        field.choices,
        format_func=findings.label,
        placeholder="none",
        help=field.help,
        key=key,
        persist_state="session",
    )


def _shares(field: Field, key: str) -> Any:
    text = st.text_area(
        field.label, placeholder="duplicate = 0.2\nsecret = 0", help=field.help, key=key, persist_state="session"
    )
    try:
        return {name: float(share) for name, share in draft.pairs(text).items()}
    except ValueError:
        st.caption(":material/error: One finding a line with its share, such as `duplicate = 0.2`.")
        return text


def _pairs(field: Field, key: str) -> Any:
    text = st.text_area(
        field.label,
        placeholder="prompt = Question\ncompletion = Answer",
        help=field.help,
        key=key,
        persist_state="session",
    )
    try:
        return draft.pairs(text)
    except ValueError:
        st.caption(":material/error: One pair a line, such as `prompt = Question`.")
        return text


def _group(field: Field, key: str) -> Any:
    if not st.toggle(field.label, value=field.default is not None, help=field.help, key=key, persist_state="session"):
        return None
    values = {member.pointer.rpartition("/")[2]: ask(member, key) for member in field.members}
    return {name: value for name, value in values.items() if value is not UNSET}


_FILLED: dict[str, Callable[[Any], Any]] = {
    "number": float,
    "names": lambda value: value if isinstance(value, str) else ", ".join(value),
    "pairs": draft.lines,
    "shares": draft.lines,
    "group": bool,
}
"""How a value of the spec stands in the input, where that is not the value itself."""

_DRAWN = {
    "integer": _number,
    "number": _number,
    "choice": _choice,
    "switch": _switch,
    "text": _text,
    "names": _names,
    "several": _several,
    "shares": _shares,
    "pairs": _pairs,
    "group": _group,
}
