"""The settings of a job spec as inputs. What stands in them is kept in the session and is read before they are drawn.

Each input has a base: what the chosen outcome presets, else the spec's default. An input that nobody touched follows
its base; one that was changed says so, and goes back to it on request.
"""

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from pages.parts import quantities
from pages.parts.data import findings
from pages.parts.escape import md
from pages.parts.texts import has, t
from pages.parts.train import entries
from pages.parts.train.entries import UNSET
from pages.parts.train.fields import Field

STATE = st.session_state
_SET = object()
"""The base of an input that was filled in: it equals nothing, so that the value stays when the real base is known."""


def follow(fields: Mapping[str, Field], prefix: str, bases: Mapping[str, Any]) -> None:
    """Puts into each input that nobody touched what its base is now."""
    known = STATE.setdefault(_bases(prefix), {})
    for pointer, field in fields.items():
        key = prefix + pointer
        stands = entries.entered(field, bases.get(pointer, field.default))
        if key not in STATE or (key in known and STATE[key] == known[key]):
            STATE[key] = stands
        known[key] = stands
        if field.members:
            follow({member.pointer: member for member in field.members}, key, {})


def fill(fields: Mapping[str, Field], prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Sets each input to what a spec says, and to its base where it says nothing; gives what no input can show."""
    known = STATE.setdefault(_bases(prefix), {})
    beside = dict(values)
    for pointer, field in fields.items():
        key = prefix + pointer
        if pointer in values and entries.holds(field, values[pointer]):
            value = beside.pop(pointer)
            STATE[key] = entries.entered(field, value)
            known[key] = _SET
            if field.members:
                inner = {f"{pointer}/{name}": each for name, each in (value or {}).items()}
                fill({member.pointer: member for member in field.members}, key, inner)
        else:
            base = known.get(key, _SET)
            STATE[key] = entries.entered(field, field.default) if base is _SET else base
            if field.members:
                fill({member.pointer: member for member in field.members}, key, {})
    return beside


def values(fields: Mapping[str, Field], prefix: str, only_changed: bool = False) -> dict[str, Any]:
    """What the inputs say that the spec does not say by itself, or what somebody has `only_changed` from its base."""
    found = {}
    for pointer, field in fields.items():
        value = said(field, prefix)
        if changed(field, prefix) if only_changed else value is not UNSET:
            found[pointer] = field.default if value is UNSET else value
    return found


def said(field: Field, prefix: str) -> Any:
    """What one input says, or UNSET where that is what the spec says by itself."""
    stands = STATE[prefix + field.pointer]
    if field.kind != "group":
        value = entries.said(field, stands)
        return value if entries.differs(field, value) else UNSET
    if not stands:
        return None if field.default is not None else UNSET
    members = {m.pointer.rpartition("/")[2]: said(m, prefix + field.pointer) for m in field.members}
    told = {name: value for name, value in members.items() if value is not UNSET}
    return told or (UNSET if field.default is not None else {})


def changed(field: Field, prefix: str) -> bool:
    """Whether somebody set it to something else than its base."""
    key = prefix + field.pointer
    if STATE[key] != STATE[_bases(prefix)].get(key):
        return True
    return bool(STATE[key]) and any(changed(member, key) for member in field.members)


def reset(field: Field, prefix: str) -> None:
    """Back to its base."""
    key = prefix + field.pointer
    STATE[key] = STATE[_bases(prefix)][key]
    for member in field.members:
        reset(member, key)


def draw(field: Field, prefix: str, why: str = "") -> None:
    """The input, below it why it is what it is; where somebody changed it that it was, and the way back."""
    with st.container(gap="xxsmall"):
        _DRAWN[field.kind](field, prefix + field.pointer)
        if changed(field, prefix):
            _changed(field, prefix)
        elif why:
            st.caption(why)


def _changed(field: Field, prefix: str) -> None:
    key = prefix + field.pointer
    base = base_in_words(field, STATE[_bases(prefix)].get(key))
    with st.container(horizontal=True, vertical_alignment="center", gap="xxsmall"):
        st.markdown(f":small[:blue[:material/edit: {t('train.changed')}]]", width="content")
        st.button(
            t("train.back_to", value=md(base, 40)),
            key=f"{key}-reset",
            type="tertiary",
            on_click=reset,
            args=(field, prefix),
        )


def base_in_words(field: Field, stands: Any) -> str:
    """What an input would go back to."""
    value = entries.said(field, stands) if field.kind != "group" else stands
    if value is None or value in ("", [], {}):
        return t(f"train.unset.{field.unset}") if field.unset else t("train.unset.empty")
    if isinstance(value, str | bool):
        return option(value)
    if isinstance(value, int | float):
        return quantities.rate(value) if 0 < value < 0.001 else f"{value:g}"
    return entries.entered(field, value) if field.kind != "several" else ", ".join(map(findings.label, value))


def option(value: Any) -> str:
    """What a choice is called; names that everybody uses as they are have no other word."""
    name = ("on" if value else "off") if isinstance(value, bool) else value
    key = f"train.option.{name}"
    return t(key) if has(key) else str(value)


def _bases(prefix: str) -> str:
    return f"{prefix}-bases"


def _common(field: Field, key: str) -> dict[str, Any]:
    return {"help": field.help, "key": key, "persist_state": "session"}


def _number(field: Field, key: str) -> None:
    whole = field.kind == "integer"
    cast = int if whole else float
    low = cast(field.low) if field.low is not None else None
    high = cast(field.high) if field.high is not None else None
    if whole and high is not None and high >= entries.LARGEST_SENT:
        high = None
    st.number_input(
        field.label,
        value=None,
        min_value=low,
        max_value=high,
        step=1 if whole else _step(field),
        format="%d" if whole else "%g",
        placeholder=_placeholder(field),
        **_common(field, key),
    )


def _placeholder(field: Field) -> str:
    """What an empty box stands for."""
    if field.unset:
        return t(f"train.unset.{field.unset}")
    return f"{field.default:g}" if isinstance(field.default, int | float) else ""


def _step(field: Field) -> float:
    """A click on + or - moves a value by about a tenth of what it usually is."""
    if field.pointer == "/train/learning_rate":
        return 5e-5
    usual = field.default if isinstance(field.default, int | float) and field.default else field.high or 1
    return 1.0 if usual >= 1 else 0.05 if usual >= 0.1 else 0.01


def _choice(field: Field, key: str) -> None:
    options = list(field.choices)
    if len(options) <= 3:
        st.segmented_control(
            field.label, options, required=True, width="stretch", format_func=option, **_common(field, key)
        )
    else:
        st.selectbox(field.label, options, format_func=option, **_common(field, key))


def _switch(field: Field, key: str) -> None:
    st.toggle(field.label, **_common(field, key))


def _text(field: Field, key: str) -> None:
    words = f"train.placeholder.{field.pointer}"
    shown = t(words) if has(words) else option(field.default or "")
    longest = int(field.high) if field.high else None
    st.text_input(field.label, max_chars=longest, placeholder=shown, **_common(field, key))


def _names(field: Field, key: str) -> None:
    st.text_input(field.label, placeholder=option(field.default), **_common(field, key))


def _texts(field: Field, key: str) -> None:
    shown = t("train.placeholder.texts", most=int(field.high or 0))
    st.text_area(field.label, placeholder=shown, height=110, **_common(field, key))


def _several(field: Field, key: str) -> None:
    placeholder = t("train.unset.empty")
    st.multiselect(
        field.label, field.choices, format_func=findings.label, placeholder=placeholder, **_common(field, key)
    )


def _pairs(field: Field, key: str) -> None:
    shares = field.kind == "shares"
    example = "duplicate = 0.2\nsecret = 0" if shares else t("train.placeholder.pairs")
    text = st.text_area(field.label, placeholder=example, height=80, **_common(field, key))
    if isinstance(entries.said(field, text), str):
        st.markdown(f":small[:red[:material/error: {t('train.not_shares' if shares else 'train.not_pairs')}]]")


def _group(field: Field, key: str) -> None:
    _switch(field, key)
    if STATE[key]:
        for member in field.members:
            draw(member, key)


_DRAWN: dict[str, Callable[[Field, str], None]] = {
    "integer": _number,
    "number": _number,
    "choice": _choice,
    "switch": _switch,
    "text": _text,
    "names": _names,
    "texts": _texts,
    "several": _several,
    "shares": _pairs,
    "pairs": _pairs,
    "group": _group,
}
