"""The web app's entry: page settings and navigation, no logic. A sign-in gate belongs before `st.navigation`.

Run as: streamlit run streamlit_app.py        (or `make up`, which starts the runner too)
"""

import streamlit as st

from pages.parts.ui import frame

st.set_page_config(
    page_title="Gemma Fine-Tuner",
    page_icon=frame.MARK,
    layout="wide",
    menu_items={"About": "**Gemma Fine-Tuner**  \nFine-tune Google Gemma on your own server."},
)
st.logo(frame.WORDMARK, icon_image=frame.MARK, size="large")

page = st.navigation(
    {
        "": [st.Page("pages/watch/home.py", title="Home", icon=":material/home:", default=True)],
        "Build": [
            st.Page("pages/build/data.py", title="Data", icon=":material/dataset:", url_path="data"),
            st.Page("pages/build/train.py", title="Train", icon=":material/model_training:", url_path="train"),
        ],
        "Watch": [
            st.Page("pages/watch/queue.py", title="Queue", icon=":material/list_alt:", url_path="queue"),
            st.Page("pages/watch/monitor.py", title="Monitor", icon=":material/monitoring:", url_path="monitor"),
        ],
        "Keep": [st.Page("pages/keep/models.py", title="Models", icon=":material/deployed_code:", url_path="models")],
    }
)
frame.sidebar()
with frame.body():
    frame.fault_notice()
    page.run()
