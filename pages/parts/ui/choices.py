"""Choices that stand in the address by name: `bind="query-params"` would put labels there, which others lack."""

from collections.abc import Mapping, Sequence

import streamlit as st


def key(name: str) -> str:
    """The key of the widget that shows a choice."""
    return f"choice-{name}"


def keep(name: str, options: Sequence[str] | Mapping[str, str], usual: str) -> str:
    """The choice that the address names, put into the widget that is drawn next; what is no option is the usual one.

    Args:
        options: names, or names with what the widget itself calls them.
    """
    asked = st.query_params.get(name)
    chosen = asked if asked in options else usual
    shown = options[chosen] if isinstance(options, Mapping) else chosen
    if st.session_state.get(key(name)) != shown:
        st.session_state[key(name)] = shown
    return chosen


def chosen(name: str, options: Sequence[str], usual: str) -> str:
    """What the widget holds now. Its options are enforced in the browser only."""
    value = st.session_state.get(key(name))
    return value if value in options else usual


def went(name: str, usual: str, names: Mapping[str, str] | None = None) -> None:
    """For a widget's on_change: writes the choice into the address, and nothing where it is the usual one.

    A browser that loads a page anew can report that nothing is chosen before it draws the widget: that is no choice.

    Args:
        names: what the widget calls each option -> its name, where these differ.
    """
    shown = st.session_state[key(name)]
    if shown is None:
        return
    chosen = names.get(str(shown), usual) if names else str(shown)
    if chosen == usual:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = chosen


def keep_several(name: str, options: Sequence[str]) -> None:
    """The choices that the address names, put into the widget that is drawn next."""
    asked = [each for each in options if each in st.query_params.get_all(name)]
    if sorted(st.session_state.get(key(name)) or []) != sorted(asked):
        st.session_state[key(name)] = asked


def went_several(name: str) -> None:
    """For the on_change of a widget with several choices: writes them into the address."""
    st.query_params[name] = list(st.session_state[key(name)])
