"""Sign-in on a real server, in front of a small provider: what only requests, sessions and a browser show.

A session is opened here as Streamlit's own browser code does it, with a cookie signed by the server's secret or by
another: so each case takes milliseconds. The last tests go the whole way in Chromium.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider
from playwright.sync_api import Browser, Page, expect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.web.server.starlette.starlette_app_utils import create_signed_value, generate_xsrf_token_string
from test_pages_server import free_port
from websockets.sync.client import ClientConnection, connect

from pages.parts.ui import frame
from spool.protocol import durable
from spool.protocol.home import Home

ROOT = Path(__file__).resolve().parent.parent
SECRET = "5c0b7d1e9a4f2836e1d0c9b8a7f65432"
ROUTES = ["" if path == frame.HOME else name for path, name in frame.PAGES]
JOB = "01K00001ABCDEFGHJKMNPQRSTV"


class Web:
    """The web app with a provider beside it."""

    def __init__(self, folder: Path, script: str = "deploy/serve.py", extra: str = "") -> None:
        self.folder, self.port = folder, free_port()
        self.origin = f"http://localhost:{self.port}"
        self.provider = Provider(f"{self.origin}/oauth2callback")
        self.secrets = folder / "secrets.toml"
        self.secrets.write_text(f"""[auth]
redirect_uri = "{self.origin}/oauth2callback"
cookie_secret = "{SECRET}"
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
server_metadata_url = "{self.provider.metadata_url}"
[access]
allow = ["*@example.org"]
contact = "Mira"
{extra}""")
        self.script = script
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "streamlit", "run", self.script, "--server.port", str(self.port)]
        told = {"FINETUNER_HOME": str(self.folder / "home"), "STREAMLIT_SECRETS_FILES": str(self.secrets)}
        with open(self.folder / "web.log", "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **told}, stdout=log, stderr=subprocess.STDOUT
            )

    def ready(self, page: str = "/_stcore/health") -> "Web":
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.origin}{page}", timeout=10).close()
                return self
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "web.log").read_text())

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.provider.stop()

    def cookie(self, secret: str = SECRET, origin: str = "", **change: Any) -> str:
        """The cookie that Streamlit sets after a sign-in, for anybody."""
        now = int(time.time())
        claims = {"email": "ada@example.org", "email_verified": True, "sub": "ada", "iat": now, "exp": now + 600}
        own = {"origin": origin or self.origin, "is_logged_in": True, "provider": "default"}
        text = json.dumps({**claims, **own, **change})
        return f"_streamlit_user={create_signed_value(secret, '_streamlit_user', text).decode()}"

    def ask(self, path: str, method: str = "GET", cookie: str = "", body: bytes | None = None) -> tuple[int, str]:
        headers = {"Cookie": cookie, "X-Xsrftoken": cookie.rpartition("_streamlit_xsrf=")[2]}
        request = urllib.request.Request(f"{self.origin}{path}", body, headers, method=method)
        try:
            with urllib.request.build_opener(NoRedirect).open(request, timeout=20) as answer:
                return answer.status, answer.headers.get("Location") or answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Location") or error.read().decode("utf-8", "replace")

    @contextmanager
    def session(self, cookie: str = "", more: dict[str, str] | None = None) -> Iterator["Session"]:
        xsrf = generate_xsrf_token_string()
        headers = {"Cookie": f"{cookie}; _streamlit_xsrf={xsrf}", **(more or {})}
        with connect(
            f"ws://localhost:{self.port}/_stcore/stream", max_size=None, origin=self.origin,  # type: ignore[arg-type]
            additional_headers=headers, subprotocols=["streamlit", xsrf],  # type: ignore[list-item]
        ) as channel:  # fmt: skip
            yield Session(channel)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Session:
    def __init__(self, channel: ClientConnection) -> None:
        self.channel = channel
        self.id = ""
        self.fragments: set[str] = set()
        self.kinds: set[str | None] = set()

    def send(self, message: BackMsg) -> None:
        self.channel.send(message.SerializeToString())

    def run(self, page: str = "", query: str = "", fragment: str = "", presses: str = "") -> str:
        """Asks for a run and gives what it shows."""
        message = BackMsg()
        message.rerun_script.page_name, message.rerun_script.query_string = page, query
        message.rerun_script.fragment_id = fragment
        if presses:
            message.rerun_script.widget_states.widgets.add(id=presses, trigger_value=True)
        self.send(message)
        return self.heard()

    def heard(self, until: str = "script_finished") -> str:
        shown = []
        while True:
            message = ForwardMsg()
            message.ParseFromString(bytes(self.channel.recv(timeout=30)))  # type: ignore[arg-type]
            kind = message.WhichOneof("type")
            self.kinds.add(kind)
            if kind == "new_session":
                self.id = message.new_session.initialize.session_id
            if kind == "delta":
                shown.append(str(message.delta))
                self.fragments |= {message.delta.fragment_id} - {""}
            if kind == until:
                return "\n".join(shown)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    started = Web(tmp_path_factory.mktemp("web"))
    yield started.ready("/_stcore/script-health-check")
    started.end()


def is_gate(shown: str) -> bool:
    """Whether nothing but the gate was drawn: one title, the app's name, and the button."""
    titles = re.findall(r'tag: "h1"\s*body: "(.*)"|body: "(.*)"\s*tag: "h1"', shown)
    words = {"".join(each) for each in titles}
    return words == {"Gemma Fine-Tuner"} and "Sign in" in shown and "Runner is" not in shown


@pytest.mark.parametrize("page", ROUTES)
def test_without_a_sign_in_each_page_shows_the_gate_and_nothing_else(web: Web, page: str) -> None:
    with web.session() as session:
        assert is_gate(session.run(page, f"job={JOB}"))
        assert not session.fragments


@pytest.mark.parametrize("page", ROUTES)
def test_who_is_on_the_list_sees_each_page(web: Web, page: str) -> None:
    with web.session(web.cookie()) as session:
        shown = session.run(page)
        assert not is_gate(shown)
        assert "ada@example.org" in shown
        assert "Runner is" in shown


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"secret": "another" * 9}, "Sign in"),
        ({"origin": "http://evil.test"}, "Sign in"),
        ({"is_logged_in": False}, "Sign in"),
        ({"exp": 1}, "has ended"),
        ({"exp": None}, "has ended"),
        ({"email": "eve@example.org.evil.test"}, "not on the list"),
        ({"email_verified": False}, "has not verified"),
        ({"email": None}, "did not say"),
    ],
)
def test_a_cookie_that_is_not_good_opens_nothing(web: Web, change: dict[str, Any], words: str) -> None:
    cookie = web.cookie(**change)
    with web.session(cookie) as session:
        shown = session.run("queue")
        assert words in shown
        assert "Runner is" not in shown
        assert not session.fragments
    assert web.ask("/media/x.json", cookie=cookie) == (403, "Sign in first.")


def test_a_sign_in_that_ends_ends_for_fragments_widgets_and_uploads_too(web: Web) -> None:
    """A fragment is run without streamlit_app.py: only the door can send it to the gate."""
    ends = int(time.time()) + 5
    with web.session(web.cookie(exp=ends)) as session:
        assert "Runner is" in session.run("queue")
        fragment = min(session.fragments)
        assert not is_gate(session.run("queue", fragment=fragment))  # it answers while the sign-in lasts
        wants = BackMsg()
        wants.file_urls_request.request_id = "1"
        wants.file_urls_request.file_names.append("x.csv")
        wants.file_urls_request.session_id = session.id
        session.send(wants)
        session.heard("file_urls_response")
        session.kinds.clear()
        time.sleep(max(0.0, ends - time.time()) + 0.1)
        session.send(wants)
        shown = session.run("queue", fragment=fragment, presses="$$ID-0a1b-cancel")
        assert "has ended" in shown
        assert "Runner is" not in shown
        assert "file_urls_response" not in session.kinds


@pytest.mark.parametrize("path", ["/_stcore/upload_file/SESSION/abc", "/media/abc.csv"])
def test_uploads_and_downloads_are_for_people_who_are_signed_in(web: Web, path: str) -> None:
    with web.session() as session:  # a stranger at the gate has a session too
        session.run()
        path = path.replace("SESSION", session.id)
        for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
            status, body = web.ask(path, method, body=b"x" if method in ("PUT", "POST") else None)
            assert (status, body) == (403, "" if method == "HEAD" else "Sign in first.")
    with web.session(web.cookie()) as session:
        session.run()
        path = path.replace("SESSION", session.id)
        assert web.ask(path, cookie=web.cookie())[0] != 403  # let through, and there is nothing


def test_who_signs_out_is_out_with_every_copy_of_the_cookie(web: Web) -> None:
    cookie = web.cookie(sub="somebody who leaves")
    with web.session(cookie) as other_tab:
        assert "Runner is" in other_tab.run("queue")
        fragment = min(other_tab.fragments)
        status, where = web.ask("/auth/logout", cookie=cookie)
        assert (status, where.partition("?")[0]) == (302, f"{web.provider.issuer}/end_session")
        assert is_gate(other_tab.run("queue", fragment=fragment))
    with web.session(cookie) as session:
        assert is_gate(session.run("queue"))
    with web.session(web.cookie(sub="somebody who stays")) as session:
        assert "Runner is" in session.run("queue")


def test_the_sign_in_addresses_answer_strangers_with_a_way_back(web: Web) -> None:
    assert web.ask("/auth/login?provider=forged") == (303, "/?signin=unreachable")
    assert web.ask("/oauth2callback?code=x&state=y") == (303, "/?signin=failed")
    assert web.ask("/oauth2callback?error=access_denied&error_description=x&state=y") == (303, "/?signin=failed")
    assert web.ask("/oauth2callback") == (303, "/?signin=out")
    cookie = web.cookie() + "; finetuner_return=%2F%2Fevil.test"
    assert web.ask("/oauth2callback?code=x&state=y", cookie=cookie) == (303, "/")


def test_what_is_open_to_strangers(web: Web) -> None:
    """docs/admin.md lists them: none says anything of the jobs or the data."""
    answers = {path: web.ask(path) for path in ("/_stcore/health", "/_stcore/host-config", "/_stcore/metrics", "/")}
    assert answers["/_stcore/health"] == (200, "ok")
    assert [status for status, _ in answers.values()] == [200, 200, 403, 200]
    with urllib.request.urlopen(web.origin, timeout=10) as answer:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'self'"
        assert answer.headers["Referrer-Policy"] == "same-origin"


def test_after_a_restart_the_first_deep_link_shows_the_gate_too(tmp_path: Path) -> None:
    """Until st.navigation has run once Streamlit takes the app for an older kind, and could run a page by itself."""
    fresh = Web(tmp_path)
    try:
        fresh.ready()
        with fresh.session() as session:
            assert is_gate(session.run("monitor", f"job={JOB}"))
            assert not session.fragments
    finally:
        fresh.end()


def test_without_its_door_the_app_stays_shut(tmp_path: Path) -> None:
    bare = Web(tmp_path, "streamlit_app.py")
    try:
        bare.ready()
        with bare.session(bare.cookie()) as session:
            shown = session.run("queue")
            assert "Not available" in shown
            assert "Runner is" not in shown
    finally:
        bare.end()


def test_monitoring_needs_no_sign_in_and_learns_one_word(web: Web) -> None:
    home = Home(web.folder / "home")
    home.create()
    runner = home.runner_json
    kept = runner.read_bytes() if runner.exists() else None
    try:
        durable.write_json(runner, {"heartbeat": time.time(), "state": "ready", "current_job": "secret"})
        status, said = web.ask("/health")
        assert (status, json.loads(said)) == (200, {"ok": True, "web": "ok", "runner": "ready"})
        durable.write_json(runner, {"heartbeat": time.time() - 600, "state": "ready"})
        status, said = web.ask("/health")
        assert (status, json.loads(said)["runner"]) == (503, "silent")
    finally:
        runner.unlink() if kept is None else runner.write_bytes(kept)


def test_a_half_made_configuration_keeps_the_app_from_starting(tmp_path: Path) -> None:
    (tmp_path / "secrets.toml").write_text('[auth]\nclient_id = "x1"\n')
    environment = {**os.environ, "STREAMLIT_SECRETS_FILES": str(tmp_path / "secrets.toml")}
    command = [sys.executable, "-m", "streamlit", "run", "deploy/serve.py", "--server.port", str(free_port())]
    for last in ([], ["--", "--check"]):
        done = subprocess.run([*command, *last], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 78, done.stderr
        assert "cookie_secret is missing" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_configuration_can_be_checked_without_starting(web: Web) -> None:
    environment = {**os.environ, "STREAMLIT_SECRETS_FILES": str(web.secrets)}
    command = [sys.executable, "-m", "streamlit", "run", "deploy/serve.py", "--server.port", "0", "--", "--check"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"Sign-in at {web.origin} for *@example.org.")
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("proxy", [False, True])
def test_an_open_app_is_not_handed_on_by_a_proxy(tmp_path: Path, proxy: bool) -> None:
    web = Web(tmp_path)
    web.end()
    web.secrets.write_text('[access]\nsign_in = "elsewhere"\n' if proxy else "")
    web.start()
    try:
        with web.ready().session() as session:
            assert "Runner is" in session.run("queue")
        with web.session(more={"X-Forwarded-For": "192.0.2.7"}) as session:
            assert ("Runner is" in session.run("queue")) == proxy
    finally:
        web.end()


def test_an_open_app_on_all_addresses_does_not_start() -> None:
    command = [sys.executable, "-m", "streamlit", "run", "deploy/serve.py", "--server.port", str(free_port())]
    done = subprocess.run(
        [*command, "--server.address", "0.0.0.0"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 78, done.stderr
    assert "let everybody in" in done.stderr


# In a browser


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
    yield context.new_page()
    context.close()


@pytest.fixture
def provider(web: Web) -> Iterator[Provider]:
    """The provider, and afterwards as it was."""
    before = dict(vars(web.provider))
    yield web.provider
    for name in ("claims", "lasts_s", "nonce", "denies"):
        setattr(web.provider, name, before[name])


def sign_in(page: Page, web: Web, path: str = "") -> None:
    page.goto(f"{web.origin}/{path}")
    page.get_by_role("button", name="Sign in").click()


def test_a_deep_link_survives_the_sign_in_and_the_way_out_works(web: Web, page: Page, provider: Provider) -> None:
    sign_in(page, web, f"monitor?job={JOB}&smooth=3")
    expect(page.get_by_role("heading", name="Monitor")).to_be_visible(timeout=20_000)
    assert page.url == f"{web.origin}/monitor?job={JOB}&smooth=3"
    assert {"/authorization", "/token", "/jwks"} <= set(provider.seen)
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
    assert cookies["_streamlit_user"]["httpOnly"]
    assert cookies["_streamlit_user"]["sameSite"] == "Lax"
    page.get_by_role("button", name="ada@example.org").click()
    page.get_by_text("Sign out", exact=True).click()
    expect(page.get_by_text("Signed out.")).to_be_visible(timeout=20_000)
    assert "/end_session" in provider.seen
    assert "_streamlit_user" not in {cookie["name"] for cookie in page.context.cookies()}
    page.goto(f"{web.origin}/queue")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible(timeout=20_000)


def test_who_is_not_on_the_list_can_ask_and_leave(web: Web, page: Page, provider: Provider) -> None:
    provider.claims = {"email": "eve@evil.test", "email_verified": True}
    sign_in(page, web, "queue")
    expect(page.get_by_role("heading", name="No access")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("Whom to ask: Mira")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("Signed out.")).to_be_visible(timeout=20_000)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"nonce": "another"}, "did not work"), ({"denies": True}, "did not work"), ({"lasts_s": -300}, "did not work")],
)
def test_a_sign_in_that_goes_wrong_says_so(
    web: Web, page: Page, provider: Provider, change: dict[str, Any], words: str
) -> None:
    for name, value in change.items():
        setattr(provider, name, value)
    sign_in(page, web, "queue?state=done")
    expect(page.get_by_text(words)).to_be_visible(timeout=20_000)
    assert page.url.startswith(f"{web.origin}/queue?state=done")


def test_a_provider_that_is_down_is_said_in_words(web: Web, page: Page, provider: Provider) -> None:
    provider.stop()
    try:
        sign_in(page, web, "queue")
        expect(page.get_by_text("cannot be reached")).to_be_visible(timeout=20_000)
        assert "Traceback" not in page.content()
    finally:
        provider.start()
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Queue")).to_be_visible(timeout=20_000)
    assert page.url == f"{web.origin}/queue"
