"""The web app's entry: page settings and navigation, no logic. A sign-in gate belongs before `st.navigation`.

Run as: streamlit run streamlit_app.py        (or `make up`, which starts the runner too)
"""

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from pages.parts.texts import t
from pages.parts.ui import frame

st.set_page_config(
    page_title=t("frame.app"), page_icon=frame.MARK, layout="wide", menu_items={"About": t("frame.about")}
)
st.logo(frame.WORDMARK, icon_image=frame.MARK, size="large")


def page(path: str, name: str, icon: str) -> StreamlitPage:
    home = name == "home"
    title = t(f"frame.page.{name}")
    return st.Page(path, title=title, icon=f":material/{icon}:", default=home, url_path="" if home else name)


shown = st.navigation(
    {
        "": [page("pages/watch/home.py", "home", "home")],
        t("frame.section.build"): [
            page(frame.DATA, "data", "dataset"),
            page(frame.TRAIN, "train", "model_training"),
        ],
        t("frame.section.watch"): [
            page(frame.QUEUE, "queue", "list_alt"),
            page(frame.MONITOR, "monitor", "monitoring"),
            page(frame.COMPARE, "compare", "stacked_line_chart"),
        ],
        t("frame.section.keep"): [
            page(frame.MODELS, "models", "deployed_code"),
            page(frame.PLAYGROUND, "playground", "forum"),
        ],
        t("frame.section.care"): [page(frame.SYSTEM, "system", "dns")],
    }
)
frame.sidebar()
with frame.body():
    frame.fault_notice()
    shown.run()
