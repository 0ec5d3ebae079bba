"""The sign-in gate as people see it, and who is signed in. pages/parts/signin.py judges; door.py guards the rest."""

import os
import time
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import streamlit as st
from streamlit import config
from streamlit.delta_generator import DeltaGenerator

from pages.parts import signin
from pages.parts.escape import md, one_line
from pages.parts.signin import Access, Open, SignedOut, Verdict
from pages.parts.texts import t
from spool.protocol.errors import SettingsError

WIDTH_PX = 380
MARK = str(Path(__file__).with_name("mark.svg"))
SIGN_IN, SIGN_OUT = "sign_in", "sign_out"
"""Keys of the only widgets that work for somebody who is not signed in."""

SAID = "signin"
"""The query parameter in which the door says how a sign-in went."""

FORWARDED = ("X-Forwarded-For", "Forwarded", "X-Forwarded-Host")
"""What a proxy adds to a request: then it is not only this machine that opens the app."""

signed_out = SignedOut()
_door_stands = False


def door_stands() -> None:
    """Said by the door that every request comes through; without it a sign-in protects too little."""
    global _door_stands
    _door_stands = True


@cache
def settings() -> Open | Access:
    """Read once in a process: who is taken off the list is out with the next start.

    Raises:
        SettingsError: nothing may be shown.
    """
    return signin.read(
        signin.Server(
            address=config.get_option("server.address"),
            files=tuple(config.get_option("secrets.files")),
            files_chosen=config.is_manually_set("secrets.files"),
            user_headers=bool(config.get_option("server.trustedUserHeaders")),
            xsrf=bool(config.get_option("server.enableXsrfProtection")),
            allowed_hosts=tuple(config.get_option("server.allowedHosts")),
            environment_sign_in=os.environ.get("FINETUNER_SIGN_IN", ""),
        )
    )


def passed() -> bool:
    """Whether this session may see the app. Where it may not, says why and draws the way in."""
    try:
        access = settings()
    except SettingsError:
        _sheet(t("signin.broken.title"), t("signin.broken.says"))
        return False
    if isinstance(access, Open):
        stranger = not access.proxy and any(name in st.context.headers for name in FORWARDED)
        if stranger:
            _sheet(t("signin.broken.title"), t("signin.broken.proxied"))
        return not stranger
    if not _door_stands:
        _sheet(t("signin.broken.title"), t("signin.broken.door"))
        return False
    claims = st.user.to_dict()
    verdict = signin.judge(claims, access, time.time(), signed_out)
    if verdict is Verdict.IN:
        return True
    if verdict in (Verdict.OUT, Verdict.ENDED):
        _way_in(access, verdict)
    else:
        _no_access(access, verdict, str(claims.get("email") or claims.get("name") or ""))
    return False


def user() -> str | None:
    """The address that is signed in, where somebody signs in; else None."""
    access = settings()
    if isinstance(access, Open) and not access.proxy:
        return None
    told = st.user.get("email")
    return one_line(told, signin.MOST_CHARS) if isinstance(told, str) and told.strip() else None


def who() -> None:
    """In the sidebar: who is signed in with the way out, or that nobody has to."""
    access = settings()
    if isinstance(access, Open):
        st.caption(t("signin.proxy") if access.proxy else t("signin.open"))
        return
    orders = [t("signin.out")]
    shown = one_line(user() or "", 26)
    chosen = st.menu_button(shown, orders, key=SIGN_OUT, icon=":material/account_circle:", type="tertiary")
    if chosen:
        st.logout()
        st.stop()


def _way_in(access: Access, verdict: Verdict) -> None:
    said = st.query_params.get(SAID, "")
    if verdict is Verdict.ENDED:
        note = t("signin.note.ended")
    else:
        note = t(f"signin.note.{said}") if said in ("failed", "unreachable", "out") else t("signin.says")
    with _sheet(t("frame.app"), note, wrong=said in ("failed", "unreachable")):
        here = urlsplit(st.context.url or "")
        if here.netloc and f"{here.scheme}://{here.netloc}" != access.origin:
            # The sign-in ends on the other address, and its cookie is good only there.
            st.link_button(t("signin.elsewhere", address=access.origin), access.origin, width="stretch")
            return
        for name in access.providers:
            label = t("signin.button") if name == signin.DEFAULT else t("signin.with", provider=name.capitalize())
            if st.button(label, key=f"{SIGN_IN}/{name}", type="primary", width="stretch"):
                st.login(None if name == signin.DEFAULT else name)


def _no_access(access: Access, verdict: Verdict, person: str) -> None:
    says = t(f"signin.refused.{verdict.value}", who=f"**{md(person, signin.MOST_CHARS)}**")
    ask = t("signin.ask", contact=md(access.contact, 300)) if access.contact else t("signin.ask_admin")
    with _sheet(t("signin.refused.title"), f"{says}\n\n{ask}"):
        if st.button(t("signin.out"), key=SIGN_OUT, width="stretch"):
            st.logout()


def _sheet(title: str, says: str, wrong: bool = False) -> DeltaGenerator:
    """A quiet page with nothing else on it."""
    outer = st.container(horizontal_alignment="center")
    for _ in range(3):
        outer.space("large")
    sheet = outer.container(width=WIDTH_PX, gap="medium", horizontal_alignment="center")
    sheet.image(MARK, width=56)
    sheet.title(title, anchor=False, text_alignment="center")
    sheet.markdown(f":orange[:material/error:] {says}" if wrong else says, text_alignment="center")
    sheet.space("xsmall")
    return sheet
