"""The web server: what must be right before it starts, and the door in front of every request. No page is made here.

Run as: streamlit run deploy/serve.py                 (or `make up`, which starts the runner too)
        streamlit run deploy/serve.py -- --check      says whether the sign-in is set up correctly, and starts nothing
"""

import sys

import streamlit as st
from starlette.middleware import Middleware

from pages.parts.signin import Access
from pages.parts.ui.door import Door
from pages.parts.ui.signin import settings
from spool.protocol.errors import SettingsError

WRONG_CONFIGURATION = 78

try:
    access = settings()
except SettingsError as error:
    print(f"The web app does not start: {error.message}\n{error.hint}", file=sys.stderr, flush=True)
    sys.exit(WRONG_CONFIGURATION)

if "--check" in sys.argv[1:]:
    print(access, flush=True)
    sys.exit(0)

app = st.App("../streamlit_app.py", middleware=[Middleware(Door, access=access)] if isinstance(access, Access) else [])
