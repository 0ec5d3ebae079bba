"""Who may use the web app: what the secrets file says about it, and whether somebody's claims pass.

    [auth]                                          Streamlit's own settings for OpenID Connect
    [access]
    allow = ["*@example.org", "ada@example.com"]    who may come in; all others see a page that says so
    contact = "ask Mira, room 12"                   whom to ask for access
    hours = 8                                       a sign-in lasts so long; default: until the provider's token expires
    sign_in = "elsewhere"                           without [auth]: a proxy in front signs people in

Everything is judged before the web app starts (deploy/serve.py); a file that is wrong in any way opens nothing.
"""

import hashlib
import json
import re
import threading
import tomllib
from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from spool.protocol.errors import SettingsError

ELSEWHERE = "elsewhere"
CALLBACK = "/oauth2callback"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DEFAULT = "default"
"""The provider whose settings stand in [auth] itself, as Streamlit calls it."""

MOST_CHARS = 320  # an address has at most so many
_AUTHLIB = (1, 3, 2)
_SECRET_CHARS = 32
_KEYS = ("client_id", "client_secret", "server_metadata_url")
_ACCESS_KEYS = ("allow", "contact", "hours", "sign_in")
_PLACEHOLDER = re.compile(r"x+|<.*>|\.+|(your|change|replace|example|secret).*", re.IGNORECASE)
_HOST = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"
_ADDRESS = re.compile(rf"[^\x00-\x20\x7f@*\"<>(),:;\\]+@{_HOST}", re.IGNORECASE | re.ASCII)
_DOMAIN = re.compile(rf"\*@{_HOST}", re.IGNORECASE | re.ASCII)
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
"""Only these: str.lower() makes a k of the Kelvin sign, and so one address of two."""


@dataclass(frozen=True)
class Open:
    """Nobody signs in here: only this machine reaches the app, or (`proxy`) something in front does the sign-in."""

    proxy: bool = False

    def __str__(self) -> str:
        return "No sign-in: " + ("a proxy in front does it." if self.proxy else "only this machine can open the app.")


@dataclass(frozen=True)
class Access:
    """Sign-in through OpenID Connect, and who may come in."""

    providers: tuple[str, ...]
    origin: str
    """Scheme and host under which the browser reaches the app: of redirect_uri."""
    allow: tuple[str, ...]
    contact: str = ""
    hours: float | None = None

    @property
    def secure(self) -> bool:
        return self.origin.startswith("https://")

    def __str__(self) -> str:
        return f"Sign-in at {self.origin} for {', '.join(self.allow)}."


class Verdict(Enum):
    IN = "in"
    OUT = "out"
    """Not signed in, or signed out again."""
    ENDED = "ended"
    NO_ADDRESS = "no_address"
    UNVERIFIED = "unverified"
    NOT_LISTED = "not_listed"


@dataclass(frozen=True)
class Server:
    """What Streamlit was started with, as far as it matters here."""

    address: str | None
    files: tuple[str, ...]
    files_chosen: bool = False
    """The files were named by somebody: one of them has to be there."""
    user_headers: bool = False
    xsrf: bool = True
    allowed_hosts: tuple[str, ...] = ()
    """Names under which the server lets itself be asked; none: all."""
    environment_sign_in: str = ""


def read(server: Server) -> Open | Access:
    """What holds for this start of the web app.

    Raises:
        SettingsError: with every problem found; nothing may be shown then.
    """
    secrets, problems = _secrets(server)
    auth, access = secrets.get("auth"), secrets.get("access", {})
    if not isinstance(access, dict):
        problems.append("[access] is no table.")
        access = {}
    problems += [f"[access] has no setting {name!r}." for name in access if name not in _ACCESS_KEYS]
    elsewhere = access.get("sign_in", server.environment_sign_in or None)
    if elsewhere not in (None, ELSEWHERE):
        problems.append(f'sign_in is {elsewhere!r}: leave it out, or set it to "{ELSEWHERE}".')
    found: Open | Access
    if "auth" in secrets:
        if elsewhere:
            problems.append("sign_in and [auth] exclude each other: either a proxy signs people in or this app does.")
        found = _with_sign_in(auth, access, server, problems)
    else:
        found = _without_sign_in(access, server, bool(elsewhere), problems)
    if problems:
        raise SettingsError(
            "the sign-in is not set up correctly:\n" + "\n".join(f"  - {each}" for each in problems),
            "Correct that and start the web app again: docs/admin.md has a whole example.",
        )
    return found


def _secrets(server: Server) -> tuple[dict[str, Any], list[str]]:
    """Read as Streamlit reads them, but what it passes over in silence is a problem here."""
    merged: dict[str, Any] = {}
    problems = []
    found = False
    for name in server.files:
        if not name.endswith(".toml"):
            problems.append(f"{name} is no .toml file: folders of secrets are not supported here.")
            continue
        try:
            merged |= tomllib.loads(Path(name).read_text("utf-8"))
            found = True
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{name} cannot be read: {error.strerror}.")
        except ValueError as error:  # not UTF-8, not TOML
            problems.append(f"{name} is no TOML: {error}.")
    if server.files_chosen and not found and not problems:
        problems.append(f"there is no {' and no '.join(server.files)}, which this start names as its secrets file.")
    return merged, problems


def _without_sign_in(access: Mapping[str, Any], server: Server, proxy: bool, problems: list[str]) -> Open:
    if "allow" in access:
        problems.append("[access] says who may come in, but there is no [auth] through which they sign in.")
    if not proxy and (server.address or "") not in LOOPBACK:
        where = f"on {server.address}" if server.address else "on all addresses"
        problems.append(
            f"the app would listen {where} and let everybody in. Keep server.address at 127.0.0.1, set up [auth], or "
            f'say that a proxy in front signs people in: [access] sign_in = "{ELSEWHERE}", or FINETUNER_SIGN_IN.'
        )
    return Open(proxy=proxy)


def _with_sign_in(auth: object, access: Mapping[str, Any], server: Server, problems: list[str]) -> Access:
    if not isinstance(auth, dict):
        problems.append("[auth] is no table.")
        return Access((), "", ())
    problems += _about_server(server)
    redirect = auth.get("redirect_uri")
    if not _is_web(redirect) or not str(redirect).endswith(CALLBACK):
        problems.append(f"[auth] redirect_uri must be the app's own https address and end in {CALLBACK}.")
        redirect = ""
    host = urlsplit(str(redirect)).hostname or ""
    if host and not _is_among(host, server.allowed_hosts):
        problems.append(f"server.allowedHosts does not name {host}: no page would open there (docs/admin.md).")
    problems += _about_cookie_secret(auth.get("cookie_secret"))
    providers = _providers(auth)
    for name, section in providers.items():
        problems += _about_provider(name, section)
    contact, hours = access.get("contact", ""), access.get("hours")
    if not isinstance(contact, str) or len(contact) > 300:
        problems.append("[access] contact is no text of at most 300 characters.")
        contact = ""
    if hours is not None and (isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 < hours <= 720):
        problems.append("[access] hours is no number above 0 and up to 720.")
        hours = None
    parts = urlsplit(str(redirect))
    return Access(tuple(providers), f"{parts.scheme}://{parts.netloc}", _allowed(access, problems), contact, hours)


def _about_server(server: Server) -> list[str]:
    problems = []
    if server.user_headers:
        problems.append("server.trustedUserHeaders would let a request's header say who signed in: unset it.")
    if not server.xsrf:
        problems.append("server.enableXsrfProtection is off: switch it on.")
    try:
        found = tuple(int(part) for part in version("authlib").split(".")[:3])
    except (PackageNotFoundError, ValueError):
        found = ()
    if found < _AUTHLIB:
        problems.append("sign-in needs the package Authlib 1.3.2 or newer, which is not installed: run `make setup`.")
    return problems


def _is_among(host: str, allowed: tuple[str, ...]) -> bool:
    """As Streamlit decides it."""
    names = [name.strip().lower().rstrip(".") for name in allowed]
    return not names or any(name in (host, "*") or (name[:2] == "*." and host.endswith(name[1:])) for name in names)


def _about_cookie_secret(secret: object) -> list[str]:
    how = "`python3 -c 'import secrets; print(secrets.token_hex(32))'` makes one."
    if not isinstance(secret, str) or not secret:
        return [f"[auth] cookie_secret is missing. {how}"]
    if len(secret) < _SECRET_CHARS or len(set(secret)) < 10 or _PLACEHOLDER.fullmatch(secret):
        return [f"[auth] cookie_secret can be guessed: it takes {_SECRET_CHARS} random characters. {how}"]
    return []


def _providers(auth: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The providers by name, in the order of the file; the one in [auth] itself comes first."""
    named = {name: each for name, each in auth.items() if isinstance(each, dict) and name != "client_kwargs"}
    own = not named or any(key in auth for key in _KEYS)
    return ({DEFAULT: auth} if own else {}) | named


def _about_provider(name: str, section: Mapping[str, Any]) -> list[str]:
    where = "[auth]" if name == DEFAULT else f"[auth.{name}]"
    problems = [f"{where} {key} is missing." for key in _KEYS if not _is_text(section.get(key))]
    if "_" in name:
        problems.append(f"{where}: a provider's name cannot have an underscore.")
    url = section.get("server_metadata_url")
    if _is_text(url) and not _is_web(url):
        problems.append(f"{where} server_metadata_url must be an https address.")
    return problems


def _allowed(access: Mapping[str, Any], problems: list[str]) -> tuple[str, ...]:
    allow = access.get("allow")
    if not isinstance(allow, list) or not allow:
        problems.append('[access] allow is missing: name who may come in, as in allow = ["*@example.org"].')
        return ()
    wrong = [each for each in allow if not isinstance(each, str) or not _is_entry(each)]
    problems += [f"[access] allow: {each!r} is neither an address nor *@ and a whole domain." for each in wrong]
    return tuple(each.translate(_LOWER) for each in allow if isinstance(each, str))


def _is_entry(entry: str) -> bool:
    return ".." not in entry and bool(_ADDRESS.fullmatch(entry) or _DOMAIN.fullmatch(entry))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not _PLACEHOLDER.fullmatch(value)


def _is_web(url: object) -> bool:
    """Whether it is an absolute https address; plain http only to this machine, as Streamlit sets no Secure cookie."""
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK))


def judge(claims: Mapping[str, Any], access: Access, now_s: float, signed_out: Container[str] = ()) -> Verdict:
    """Whether these claims of a signed cookie may come in at `now_s` (UTC epoch s).

    Args:
        signed_out: fingerprints of sign-ins that were ended.
    """
    if claims.get("is_logged_in") is not True or fingerprint(claims) in signed_out:
        return Verdict.OUT
    if not now_s < ends_at(claims, access):
        return Verdict.ENDED
    email = claims.get("email")
    if not isinstance(email, str) or len(email) > MOST_CHARS or not _ADDRESS.fullmatch(email):
        return Verdict.NO_ADDRESS
    if claims.get("email_verified", True) not in (True, "true"):
        return Verdict.UNVERIFIED
    address = email.translate(_LOWER)
    listed = address in access.allow or f"*@{address.rpartition('@')[2]}" in access.allow
    return Verdict.IN if listed else Verdict.NOT_LISTED


def ends_at(claims: Mapping[str, Any], access: Access) -> float:
    """When a sign-in ends, in UTC epoch s; what says nothing of it has ended already."""
    told = claims.get("exp" if access.hours is None else "iat")
    if isinstance(told, bool) or not isinstance(told, int | float):
        return 0.0
    return float(told) + (access.hours or 0.0) * 3600


def fingerprint(claims: Mapping[str, Any]) -> str:
    """Of one sign-in of one person: the same in all their tabs, another one the next time."""
    told = [str(claims.get(name)) for name in ("iss", "sub", "iat", "exp", "nonce", "at_hash")]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


class SignedOut:
    """Sign-ins that were ended while their cookie was still good: a copy of the cookie opens nothing any more.

    It lasts as long as this process does. Many threads ask it.
    """

    MOST = 10_000

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, claims: Mapping[str, Any], access: Access, now_s: float) -> None:
        with self._lock:
            if len(self._until) >= self.MOST:
                self._until = {each: until for each, until in self._until.items() if until > now_s}
            self._until[fingerprint(claims)] = ends_at(claims, access)

    def __contains__(self, print_: object) -> bool:
        return print_ in self._until
