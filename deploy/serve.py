"""The web server: what must be right before it starts, and the door in front of every request. No page is made here,
only the address that monitoring asks.

Run as: streamlit run deploy/serve.py       (or `make up`, which starts the runner too)
        streamlit run deploy/serve.py --server.port 0 -- --check
                                            says whether the sign-in is set up correctly, and starts nothing; without
                                            a port of its own it could not be asked beside an app that runs
"""

import sys

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pages.parts.signin import Access
from pages.parts.ui.door import Door
from pages.parts.ui.signin import settings
from spool.health.status import look
from spool.protocol.errors import SettingsError
from spool.protocol.home import Home

WRONG_CONFIGURATION = 78

try:
    access = settings()
except SettingsError as error:
    print(f"The web app does not start: {error.message}\n{error.hint}", file=sys.stderr, flush=True)
    sys.exit(WRONG_CONFIGURATION)

if "--check" in sys.argv[1:]:
    print(access, flush=True)
    sys.exit(0)


def health(_: Request) -> JSONResponse:
    """For monitoring, and the same to everybody: 200 while jobs are seen to, else 503; no name, no number."""
    try:
        found = look(Home.at(None))
    except OSError:
        return JSONResponse({"ok": False, "web": "ok", "runner": "unknown"}, 503)
    return JSONResponse({"ok": found.ok, "web": "ok", "runner": found.runner}, 200 if found.ok else 503)


app = st.App(
    "../streamlit_app.py",
    routes=[Route("/health", health)],
    middleware=[Middleware(Door, access=access)] if isinstance(access, Access) else [],
)
