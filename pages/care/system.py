"""System: what the machine and the runner are like, and what to do about it; each section has an address of its own."""

import streamlit as st

from pages.parts.texts import t, table
from pages.parts.ui import frame
from pages.parts.ui.system import about, drop_box, health, machine

SECTIONS = {
    "health": health.show,
    "gpu": machine.gpu,
    "disk": machine.disk,
    "drop": drop_box.show,
    "settings": about.settings,
    "about": about.about,
}
SECTION = "section"
"""The name in the address. Streamlit would bind a widget by its label, which is another one in each language."""


def went() -> None:
    st.query_params[SECTION] = st.session_state["system-section"]


asked = st.query_params.get(SECTION)
st.session_state["system-section"] = asked if asked in SECTIONS else next(iter(SECTIONS))
frame.title(t("frame.page.system"), t("system.says"))
names = table("system.section")
chosen = st.segmented_control(
    t("system.section_label"),
    list(SECTIONS),
    required=True,
    format_func=names.__getitem__,
    key="system-section",
    on_change=went,
    label_visibility="collapsed",
)
st.space("xsmall")
with frame.plain_errors():
    SECTIONS.get(str(chosen), health.show)()
