"""The door in front of the web server: what Streamlit answers without asking the entry script passes here first.

Streamlit runs a fragment, a dialog or a widget's callback in a session without streamlit_app.py, takes uploads from
any session, and hands out a download to whoever knows its address. Behind this door all of that is for people who are
signed in; the others reach the sign-in page and nothing else. It also brings them back to the page that they came for,
says in words how a sign-in went, and marks cookies as Secure where the app is reached through https.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from google.protobuf.message import DecodeError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.auth_util import get_cookie_with_chunks
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.web.server.server_util import get_cookie_secret
from streamlit.web.server.starlette.starlette_app_utils import decode_signed_value
from streamlit.web.server.starlette.starlette_server_config import USER_COOKIE_NAME

from pages.parts import signin
from pages.parts.signin import Access, Verdict
from pages.parts.ui.signin import SAID, SIGN_IN, SIGN_OUT, door_stands, signed_out

CLOSED = ("/_stcore/upload_file/", "/_stcore/metrics", "/media/")
LOGIN, LOGOUT = "/auth/login", "/auth/logout"
RETURN = "finetuner_return"
RETURN_S = 600
"""How long somebody may take at the provider and still come back to the page that they came for."""

_OWN_WIDGET = re.compile(rf"\$\$ID-[0-9a-f]+-({SIGN_IN}/.*|{SIGN_OUT})")
_WAY = re.compile(r"/(?![/\\])[^\x00-\x20\x7f\\]{0,1500}")
_HARMLESS = ("app_heartbeat", "stop_script")


class Door:
    """An ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access
        door_stands()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self.app(scope, self._heard(claims(scope, self.access), receive), send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _is_in(self, told: Mapping[str, Any]) -> bool:
        return signin.judge(told, self.access, time.time(), signed_out) is Verdict.IN

    def _heard(self, told: Mapping[str, Any], receive: Receive) -> Receive:
        """What a session says, as long as its sign-in lasts; afterwards only what leads to the sign-in page."""

        async def heard() -> Message:
            while True:
                message = await receive()
                if message["type"] != "websocket.receive" or self._is_in(told):
                    return message
                left = only_the_gate(message.get("bytes") or b"")
                if left is not None:
                    return {"type": "websocket.receive", "bytes": left}

        return heard

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if any(part in path for part in CLOSED) and scope["method"] != "OPTIONS":
            if not self._is_in(claims(scope, self.access)):
                await _refuse(send)
                return
        elif path.endswith(LOGOUT) and (told := claims(scope, self.access)):
            signed_out.add(told, self.access, time.time())
        turn = _Turn(scope, self.access.origin, was_in=lambda: self._is_in(claims(scope, self.access)))

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                turn.change(message)
                _harden(MutableHeaders(raw=message["headers"]), self.access.secure)
            elif turn.replaced:
                message = {**message, "body": b""}
            await send(message)

        await self.app(scope, receive, sent)


class _Turn:
    """Where the browser goes next on its way to the provider and back."""

    def __init__(self, scope: Scope, origin: str, was_in: Callable[[], bool]) -> None:
        self.path, self.was_in = scope["path"], was_in
        self.query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        headers = Headers(scope=scope)
        self.asked_for = _way(unquote(_cookies(headers).get(RETURN, "")))
        self.came_from = "/"
        referer = headers.get("referer", "")
        if referer.startswith(origin + "/"):
            self.came_from = _way(referer.removeprefix(origin))
        self.replaced = False

    def change(self, message: Message) -> None:
        """Changes the start of an answer, where it is one of the sign-in's."""
        headers = MutableHeaders(raw=message["headers"])
        if self.path.endswith(LOGIN):
            if message["status"] >= 400 or headers.get("location", "/") == "/":
                self._go(message, said(self.came_from, "unreachable"))
            else:
                _set_cookie(headers, quote(self.came_from, safe=""), RETURN_S)
        elif self.path.endswith(LOGOUT):
            if headers.get("location", "/") == "/":
                self._go(message, said("/", "out"))
        elif self.path.endswith(signin.CALLBACK):
            arrived = any(each.startswith(f"{USER_COOKIE_NAME}=") and '=""' not in each for each in _set(headers))
            if arrived or (self.was_in() and not self.query.get("error")):
                self._go(message, said(self.asked_for, ""))
            elif {"code", "state", "error"} & set(self.query):
                self._go(message, said(self.asked_for, "failed"))
            else:  # back from the provider's sign-out
                self._go(message, said("/", "out"))
            _set_cookie(MutableHeaders(raw=message["headers"]), "", 0)

    def _go(self, message: Message, where: str) -> None:
        kept = [(name, value) for name, value in message["headers"] if name.lower() == b"set-cookie"]
        message["status"] = 303
        message["headers"] = [*kept, (b"location", where.encode()), (b"content-length", b"0")]
        self.replaced = True


def claims(scope: Scope, access: Access) -> dict[str, Any]:
    """What the signed cookie of a request says of its sender; nothing where it is missing, forged or of another app."""
    cookies = _cookies(Headers(scope=scope))

    def one(name: str) -> bytes | None:
        return decode_signed_value(get_cookie_secret(), name, cookies.get(name, "").encode("utf-8"))

    try:
        told = json.loads(get_cookie_with_chunks(one, USER_COOKIE_NAME) or b"{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) and told.get("origin") == access.origin else {}


def only_the_gate(frame: bytes) -> bytes | None:
    """What is left of a session's message when it is not signed in: the entry script is run, whole, with no other
    widget than the gate's own. None where nothing is left."""
    heard = BackMsg()
    try:
        heard.ParseFromString(frame)
    except DecodeError:
        return None
    kind = heard.WhichOneof("type")
    if kind != "rerun_script":
        return frame if kind in _HARMLESS else None
    asked = heard.rerun_script
    asked.fragment_id = ""
    own = [widget for widget in asked.widget_states.widgets if _OWN_WIDGET.fullmatch(widget.id)]
    del asked.widget_states.widgets[:]
    asked.widget_states.widgets.extend(own)
    return heard.SerializeToString()


def said(way: str, how: str) -> str:
    """The way with word of how the sign-in went, and without an earlier one."""
    parts = urlsplit(way)
    query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != SAID]
    encoded = urlencode(query + ([(SAID, how)] if how else []))
    return (parts.path or "/") + (f"?{encoded}" if encoded else "")


def _way(text: str) -> str:
    """A path with its query inside of this app; the start page for anything else."""
    return text if _WAY.fullmatch(text) else "/"


def _cookies(headers: Headers) -> dict[str, str]:
    return cookie_parser(headers.get("cookie", ""))


def _set(headers: MutableHeaders) -> list[str]:
    return headers.getlist("set-cookie")


def _set_cookie(headers: MutableHeaders, value: str, seconds: int) -> None:
    headers.append("set-cookie", f"{RETURN}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax")


def _harden(headers: MutableHeaders, secure: bool) -> None:
    cookies = _set(headers)
    if secure and cookies:
        del headers["set-cookie"]
        for cookie in cookies:
            headers.append("set-cookie", cookie if "; secure" in cookie.lower() else f"{cookie}; Secure")
    headers["x-content-type-options"] = "nosniff"
    headers["referrer-policy"] = "same-origin"
    headers["content-security-policy"] = "frame-ancestors 'self'"


async def _refuse(send: Send) -> None:
    body = b"Sign in first."
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
