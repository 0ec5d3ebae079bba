"""Who may come in, what a half-made configuration is told, and what the door leaves of a message."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.testing.v1 import AppTest

from pages.parts import signin
from pages.parts.signin import Access, Open, Server, SignedOut, Verdict
from pages.parts.ui import door
from pages.parts.ui import signin as gate
from spool.protocol.errors import SettingsError
from spool.protocol.home import Home

ROOT = Path(__file__).resolve().parent.parent
NOW = 1_800_000_000
SECRET = "0f3c9a7d25b84e61f0c3a99d5e7b1246"
AUTH = f"""
[auth]
redirect_uri = "https://tuner.example.org/oauth2callback"
cookie_secret = "{SECRET}"
client_id = "finetuner"
client_secret = "s3"
server_metadata_url = "https://id.example.org/.well-known/openid-configuration"
"""
LIST = '[access]\nallow = ["*@Example.org", "ada@example.com"]\n'
ACCESS = Access(("default",), "https://tuner.example.org", ("*@example.org", "ada@example.com"))
GOOD = {"is_logged_in": True, "email": "ada@example.com", "email_verified": True, "exp": NOW + 60, "iat": NOW - 60}

Read = Callable[..., Open | Access]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def really(text: str | None, **more: Any) -> Open | Access:
        path = tmp_path / "secrets.toml"
        if text is not None:
            path.write_text(text)
        told: dict[str, Any] = {"address": "127.0.0.1", "files": (str(path),), **more}
        return signin.read(Server(**told))

    return really


def test_a_whole_configuration(read: Read) -> None:
    assert read(AUTH + LIST) == ACCESS
    assert read(AUTH + LIST, address=None) == ACCESS
    more = read(AUTH + LIST + 'contact = "Mira"\nhours = 8\n')
    assert isinstance(more, Access)
    assert (more.contact, more.hours, more.secure) == ("Mira", 8, True)


def test_several_providers(read: Read) -> None:
    shared, _, own = AUTH.partition("client_id")
    keys = "client_id" + own
    found = read(f"{shared}[auth.google]\n{keys}\n[auth.entra]\n{keys}\n{LIST}")
    assert isinstance(found, Access)
    assert found.providers == ("google", "entra")
    found = read(f'{AUTH}client_kwargs = {{ prompt = "login" }}\n[auth.entra]\n{keys}\n{LIST}')
    assert isinstance(found, Access)
    assert found.providers == ("default", "entra")


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1"])
def test_without_sign_in_only_this_machine(read: Read, address: str) -> None:
    assert read(None, address=address) == Open()
    assert read('other = "x"\n', address=address) == Open()


@pytest.mark.parametrize("address", [None, "", "0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_without_sign_in_the_app_listens_nowhere_else(read: Read, address: str | None) -> None:
    with pytest.raises(SettingsError, match="let everybody in"):
        read(None, address=address)
    assert read('[access]\nsign_in = "elsewhere"\n', address=address) == Open(proxy=True)
    assert read(None, address=address, environment_sign_in="elsewhere") == Open(proxy=True)


def without(name: str) -> str:
    return "\n".join(line for line in AUTH.splitlines() if not line.startswith(name)) + "\n" + LIST


@pytest.mark.parametrize(
    ("text", "told"),
    [
        *((without(key), f"[auth] {key} ") for key in ("cookie_secret", "client_id", "client_secret")),
        (without("server_metadata_url"), "[auth] server_metadata_url is missing"),
        (without("redirect_uri"), "[auth] redirect_uri must be"),
        (AUTH, "[access] allow is missing"),
        (AUTH + "[access]\nallow = []\n", "[access] allow is missing"),
        (AUTH + '[access]\nallow = "ada@example.org"\n', "[access] allow is missing"),
        *(
            (AUTH + f"[access]\nallow = [{entry}]\n", "is neither an address nor")
            for entry in ('"*"', '"*@*"', '"*@*.example.org"', '"example.org"', '"@example.org"', '"a@b@c.org"', "7",
                          '""', '"ada@"', '"*@example..org"', '"a*@example.org"', '" ada@example.org"')
        ),
        (AUTH.replace(SECRET, "short"), "cookie_secret can be guessed"),
        (AUTH.replace(SECRET, "x" * 64), "cookie_secret can be guessed"),
        (AUTH.replace(SECRET, "abababababababababababababababababab"), "cookie_secret can be guessed"),
        (AUTH.replace(SECRET, "change-me-to-a-long-random-string-1234"), "cookie_secret can be guessed"),
        (AUTH.replace('"finetuner"', '"xxx"') + LIST, "[auth] client_id is missing"),
        (AUTH.replace("https://tuner", "http://tuner") + LIST, "redirect_uri must be"),
        (AUTH.replace("oauth2callback", "callback") + LIST, "redirect_uri must be"),
        (AUTH.replace("https://id", "http://id") + LIST, "server_metadata_url must be an https"),
        (AUTH.replace('"https://id', '"https://[id') + LIST, "server_metadata_url must be an https"),
        (AUTH.replace('"https://tuner', '"https://[tuner') + LIST, "redirect_uri must be"),
        (AUTH + LIST + "hours = 0\n", "[access] hours"),
        (AUTH + LIST + "hours = true\n", "[access] hours"),
        (AUTH + LIST + "hours = nan\n", "[access] hours"),
        (AUTH + LIST + "alow = 1\n", "[access] has no setting 'alow'"),
        (AUTH + LIST + "contact = 1\n", "[access] contact"),
        (AUTH + LIST + 'sign_in = "elsewhere"\n', "exclude each other"),
        (AUTH + LIST + 'sign_in = "here"\n', "sign_in is 'here'"),
        ("[auth]\n" + LIST, "[auth] client_id is missing"),
        ("auth = 1\n" + LIST, "[auth] is no table"),
        ("access = 1\n" + AUTH, "[access] is no table"),
        (AUTH + "[auth.my_idp]\nclient_id = 'a'\n" + LIST, "cannot have an underscore"),
        (LIST, "there is no [auth]"),
        ("[auth\n", "is no TOML"),
    ],
)  # fmt: skip
def test_a_half_made_configuration_opens_nothing(read: Read, text: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(text)
    assert told in caught.value.message
    assert SECRET not in caught.value.message


def test_every_problem_is_told_at_once(read: Read) -> None:
    with pytest.raises(SettingsError) as caught:
        read("[auth]\n", user_headers=True, xsrf=False)
    assert caught.value.message.count("\n  - ") == 8


@pytest.mark.parametrize(
    ("hosts", "good"),
    [
        ((), True),
        (("localhost", "Tuner.example.org"), True),
        (("*.example.org",), True),
        (("*",), True),
        (("localhost", "127.0.0.1"), False),
        (("example.org",), False),
        (("*.tuner.example.org",), False),
    ],
)
def test_the_server_must_answer_to_its_name(read: Read, hosts: tuple[str, ...], good: bool) -> None:
    if good:
        assert isinstance(read(AUTH + LIST, allowed_hosts=hosts), Access)
    else:
        with pytest.raises(SettingsError, match=r"does not name tuner\.example\.org"):
            read(AUTH + LIST, allowed_hosts=hosts)


def test_a_secrets_file_that_cannot_be_read_opens_nothing(read: Read, tmp_path: Path) -> None:
    (tmp_path / "x.toml").mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        read(None, files=(str(tmp_path / "x.toml"),))
    (tmp_path / "y.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is no TOML"):
        read(None, files=(str(tmp_path / "y.toml"),))
    with pytest.raises(SettingsError, match=r"no \.toml file"):
        read(None, files=(str(tmp_path),))
    with pytest.raises(SettingsError, match="there is no"):
        read(None, files_chosen=True)


def test_a_missing_authlib_opens_nothing(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: str) -> str:
        raise signin.PackageNotFoundError

    monkeypatch.setattr(signin, "version", none)
    with pytest.raises(SettingsError, match="Authlib"):
        read(AUTH + LIST)
    monkeypatch.setattr(signin, "version", lambda _: "1.3.1")
    with pytest.raises(SettingsError, match="Authlib"):
        read(AUTH + LIST)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, Verdict.IN),
        ({"email": "ADA@Example.COM"}, Verdict.IN),
        ({"email": "bob@example.org"}, Verdict.IN),
        ({"email": "bob@EXAMPLE.ORG"}, Verdict.IN),
        ({"email_verified": "true"}, Verdict.IN),
        ({"email": "bob@example.com"}, Verdict.NOT_LISTED),
        ({"email": "bob@sub.example.org"}, Verdict.NOT_LISTED),
        ({"email": "bob@notexample.org"}, Verdict.NOT_LISTED),
        ({"email": "bob@example.org.evil.test"}, Verdict.NOT_LISTED),
        ({"email": "ada@example.com.evil.test"}, Verdict.NOT_LISTED),
        ({"email": "\u212aate@example.com"}, Verdict.NOT_LISTED),
        ({"email": '"eve@evil.test "@example.org'}, Verdict.NO_ADDRESS),
        ({"email": "bob@example.org\n"}, Verdict.NO_ADDRESS),
        ({"email": " bob@example.org"}, Verdict.NO_ADDRESS),
        ({"email": "bob@evil.test,x@example.org"}, Verdict.NO_ADDRESS),
        ({"email": "*@example.org"}, Verdict.NO_ADDRESS),
        ({"email": "@example.org"}, Verdict.NO_ADDRESS),
        ({"email": "b" * 310 + "@example.org"}, Verdict.NO_ADDRESS),
        ({"email": None}, Verdict.NO_ADDRESS),
        ({"email": ["ada@example.com"]}, Verdict.NO_ADDRESS),
        ({"email": ""}, Verdict.NO_ADDRESS),
        ({"email_verified": False}, Verdict.UNVERIFIED),
        ({"email_verified": "false"}, Verdict.UNVERIFIED),
        ({"email_verified": None}, Verdict.UNVERIFIED),
        ({"exp": NOW}, Verdict.ENDED),
        ({"exp": NOW - 1}, Verdict.ENDED),
        ({"exp": None}, Verdict.ENDED),
        ({"exp": math.nan}, Verdict.ENDED),
        ({"exp": True}, Verdict.ENDED),
        ({"exp": "9999999999"}, Verdict.ENDED),
        ({"is_logged_in": False}, Verdict.OUT),
        ({"is_logged_in": "yes"}, Verdict.OUT),
    ],
)
def test_who_comes_in(change: dict[str, Any], verdict: Verdict) -> None:
    assert signin.judge({**GOOD, **change}, ACCESS, NOW) is verdict


def test_one_letter_that_is_not_k_is_not_k() -> None:
    kate = Access(("default",), "https://a.example", ("kate@example.com",))
    assert signin.judge({**GOOD, "email": "KATE@example.com"}, kate, NOW) is Verdict.IN
    assert signin.judge({**GOOD, "email": "\u212aate@example.com"}, kate, NOW) is Verdict.NOT_LISTED


def test_an_address_that_says_nothing_of_being_verified_counts() -> None:
    assert signin.judge({k: v for k, v in GOOD.items() if k != "email_verified"}, ACCESS, NOW) is Verdict.IN


def test_who_says_nothing_is_out() -> None:
    assert signin.judge({}, ACCESS, NOW) is Verdict.OUT
    assert signin.judge(GOOD, Access(("default",), "", ()), NOW) is Verdict.NOT_LISTED


def test_a_sign_in_may_last_a_working_day() -> None:
    day = Access(("default",), "https://a.example", ("*@example.com",), hours=8)
    claims = {**GOOD, "exp": NOW - 7000, "iat": NOW - 7300}
    assert signin.judge(claims, ACCESS, NOW) is Verdict.ENDED
    assert signin.judge(claims, day, NOW) is Verdict.IN
    assert signin.judge({**claims, "iat": NOW - 8 * 3600}, day, NOW) is Verdict.ENDED
    assert signin.judge({**claims, "iat": None}, day, NOW) is Verdict.ENDED


def test_who_signed_out_is_out_in_every_tab_and_with_every_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = SignedOut()
    gone.add(GOOD, ACCESS, NOW)
    assert signin.judge(GOOD, ACCESS, NOW, gone) is Verdict.OUT
    assert signin.judge({**GOOD, "iat": NOW}, ACCESS, NOW, gone) is Verdict.IN  # signed in anew
    assert signin.judge({**GOOD, "sub": "other"}, ACCESS, NOW, gone) is Verdict.IN
    monkeypatch.setattr(SignedOut, "MOST", 3)
    for i in range(10):  # those whose token has run out make room
        gone.add({**GOOD, "sub": str(i), "exp": NOW + i}, ACCESS, NOW + i)
    assert len(gone._until) <= 4
    assert signin.fingerprint({**GOOD, "sub": "9", "exp": NOW + 9}) in gone


# The door


def rerun(fragment: str = "", *widgets: str) -> bytes:
    message = BackMsg()
    message.rerun_script.page_name = "queue"
    message.rerun_script.query_string = "q=1"
    message.rerun_script.fragment_id = fragment
    for name in widgets:
        message.rerun_script.widget_states.widgets.add(id=name, trigger_value=True)
    return message.SerializeToString()


def test_without_a_sign_in_only_the_whole_script_runs_and_only_the_gates_widgets_count() -> None:
    own = [f"$$ID-0a1b-{gate.SIGN_IN}/default", f"$$ID-0a1b-{gate.SIGN_OUT}"]
    foreign = ["$$ID-0a1b-cancel", "$$ID-0a1b-x-sign_in/default", "$$ID-0a1b-sign_outer", "sign_out"]
    left = BackMsg()
    left.ParseFromString(door.only_the_gate(rerun("f1", *own, *foreign)) or b"")
    assert left.rerun_script.fragment_id == ""
    assert [widget.id for widget in left.rerun_script.widget_states.widgets] == own
    assert (left.rerun_script.page_name, left.rerun_script.query_string) == ("queue", "q=1")


@pytest.mark.parametrize("field", BackMsg.DESCRIPTOR.fields_by_name)
def test_without_a_sign_in_nothing_else_is_heard(field: str) -> None:
    message = BackMsg()
    kind = BackMsg.DESCRIPTOR.fields_by_name[field]
    getattr(message, field).SetInParent() if kind.message_type else setattr(message, field, True)
    assert message.WhichOneof("type") in (field, None)
    heard = field in ("rerun_script", "app_heartbeat", "stop_script")
    assert (door.only_the_gate(message.SerializeToString()) is not None) == heard


@pytest.mark.parametrize("frame", [b"", b"\xff\xff", b"GET / HTTP/1.1"])
def test_without_a_sign_in_what_is_no_message_is_not_heard(frame: bytes) -> None:
    assert door.only_the_gate(frame) is None


@pytest.mark.parametrize(
    ("way", "kept"),
    [
        ("/monitor?job=1&smooth=0.5", "/monitor?job=1&smooth=0.5"),
        ("/", "/"),
        ("", "/"),
        ("//evil.test/x", "/"),
        ("/\\evil.test", "/"),
        ("https://evil.test/", "/"),
        ("/a\r\nSet-Cookie: x=1", "/"),
        ("/a b", "/"),
        ("/" + "a" * 2000, "/"),
        ("javascript:alert(1)", "/"),
    ],
)
def test_the_way_back_stays_in_the_app(way: str, kept: str) -> None:
    assert door._way(way) == kept


def test_the_way_back_says_how_it_went_once() -> None:
    assert door.said("/queue?q=a%20b&signin=failed", "") == "/queue?q=a+b"
    assert door.said("/queue", "failed") == "/queue?signin=failed"
    assert door.said("/queue?signin=failed&x=", "unreachable") == "/queue?x=&signin=unreachable"
    assert door.said("", "out") == "/?signin=out"


# The gate as it is drawn


@pytest.fixture
def app(home: Home, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], AppTest]:
    monkeypatch.setenv("FINETUNER_HOME", str(home.root))

    def run(found: Open | Access | Exception) -> AppTest:
        def settings() -> Open | Access:
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(gate, "settings", settings)
        return AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=30).run()

    return run


def said_by(app: AppTest) -> str:
    return "\n".join(str(each.value) for each in [*app.title, *app.markdown, *app.caption, *app.error])


def test_a_wrong_configuration_shows_words_and_nothing_else(app: Callable[[Any], AppTest]) -> None:
    shown = app(SettingsError("the secret is abc", "hint"))
    assert not shown.exception
    assert [title.value for title in shown.title] == ["Not available"]
    assert "abc" not in said_by(shown)
    assert not shown.sidebar.children
    assert not shown.button


def test_without_the_door_a_sign_in_opens_nothing(
    app: Callable[[Any], AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_door_stands", False)
    shown = app(ACCESS)
    assert [title.value for title in shown.title] == ["Not available"]
    assert "deploy/serve.py" in said_by(shown)


def test_without_sign_in_the_sidebar_says_so(app: Callable[[Any], AppTest]) -> None:
    assert any("only this machine" in str(each.value) for each in app(Open()).sidebar.caption)
    assert any("proxy" in str(each.value) for each in app(Open(proxy=True)).sidebar.caption)


def test_somebody_who_is_not_signed_in_sees_the_way_in(
    app: Callable[[Any], AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_door_stands", True)
    shown = app(Access(("google", "entra"), "", ("*@example.org",)))
    assert not shown.exception
    assert [button.label for button in shown.button] == ["Sign in with Google", "Sign in with Entra"]
    assert not shown.sidebar.children


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"email": "eve@evil.test"}, "not on the list"),
        ({"email": "![x](http://evil.test/a.png)@b"}, "did not say which e-mail address"),
        ({"email_verified": False}, "not verified"),
        ({"exp": 1}, "has ended"),
    ],
)
def test_who_may_not_come_in_is_told_why(
    app: Callable[[Any], AppTest], monkeypatch: pytest.MonkeyPatch, claims: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(gate, "_door_stands", True)

    class User(dict[str, Any]):
        def to_dict(self) -> dict[str, Any]:
            return dict(self)

    person = User(GOOD | {"exp": time.time() + 60} | claims)
    monkeypatch.setattr(gate.st, "user", person)
    shown = app(Access(("default",), "", ("ada@example.com",), contact="Mira <b>"))
    assert words in said_by(shown)
    assert "![x]" not in said_by(shown)
    assert ("Mira" in said_by(shown)) == ("exp" not in claims)
    assert len(shown.button) == 1
    assert not shown.sidebar.children
