"""The web app's entry: page settings, the sign-in gate and navigation, no logic.

Run as: streamlit run deploy/serve.py        (or `make up`, which starts the runner too)
"""

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from pages.parts.texts import t
from pages.parts.ui import frame, signin

st.set_page_config(
    page_title=t("frame.app"), page_icon=frame.MARK, layout="wide", menu_items={"About": t("frame.about")}
)
allowed = signin.passed()
if allowed:
    st.logo(frame.WORDMARK, icon_image=frame.MARK, size="large")


def page(path: str, name: str) -> StreamlitPage:
    home = path == frame.HOME
    return st.Page(path, title=t(f"frame.page.{name}"), default=home, url_path="" if home else name)


# Also for whoever is at the gate: where no page is known Streamlit throws a deep link away.
shown = st.navigation([page(*each) for each in frame.PAGES], position="hidden")
if not allowed:
    st.stop()
frame.sidebar()
with frame.body():
    frame.fault_notice()
    shown.run()
frame.foot()
