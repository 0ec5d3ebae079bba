"""What only a real `streamlit run` shows: a first visitor to a deep link goes through streamlit_app.py.

Streamlit discovers `pages/*.py` until st.navigation has run once in a server process: such a script would be shown
to a first visitor without the entry script, and so without a sign-in gate. AppTest cannot show this.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit import config
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("data", "monitor", "system")

Serve = Callable[..., str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts `streamlit run` in a folder and gives its address (host:port)."""
    started: list[subprocess.Popen[bytes]] = []

    def start(folder: Path = ROOT, *options: str) -> str:
        port = free_port()
        command = [sys.executable, "-m", "streamlit", "run", "streamlit_app.py", "--server.port", str(port), *options]
        environment = {**os.environ, "FINETUNER_HOME": str(tmp_path / "home")}
        with open(tmp_path / "web.log", "ab") as log:
            started.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log))
        address = f"127.0.0.1:{port}"
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://{address}/_stcore/health", timeout=1)
                return address
            except OSError:
                time.sleep(0.1)
        raise AssertionError((tmp_path / "web.log").read_text())

    yield start
    for process in started:
        process.terminate()
        process.wait(20)


def first_visit(address: str, page: str, query: str = "") -> list[ForwardMsg]:
    """Opens a session as a browser does that was given this address, and gives all messages of its first run."""
    received = []
    with connect(f"ws://{address}/_stcore/stream", max_size=None, origin=f"http://{address}") as socket_:  # type: ignore[arg-type]
        hello = BackMsg()
        hello.rerun_script.query_string = query
        hello.rerun_script.page_name = page
        socket_.send(hello.SerializeToString())
        while not received or received[-1].WhichOneof("type") != "script_finished":
            message = ForwardMsg()
            message.ParseFromString(bytes(socket_.recv(timeout=30)))  # type: ignore[arg-type]
            received.append(message)
    return received


def text_of(messages: list[ForwardMsg]) -> str:
    return "\n".join(str(message.delta) for message in messages if message.WhichOneof("type") == "delta")


def went_through_the_entry(messages: list[ForwardMsg]) -> bool:
    """streamlit_app.py sets the page's title and the logo, which no page does."""
    titles = [m.page_config_changed.title for m in messages if m.WhichOneof("type") == "page_config_changed"]
    return "Gemma Fine-Tuner" in titles and any(m.WhichOneof("type") == "logo" for m in messages)


@pytest.mark.parametrize("page", PAGES)
def test_a_first_visitor_to_a_deep_link_goes_through_the_entry_script(page: str, serve: Serve) -> None:
    messages = first_visit(serve(), page, "job=01K00001ABCDEFGHJKMNPQRSTV")
    assert went_through_the_entry(messages)
    assert f'body: "{page.capitalize()}"' in text_of(messages)
    if page == "monitor":
        assert "01K00001ABCDEFGHJKMNPQRSTV" in text_of(messages)


def copy_of_the_app(folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("pages", "spool", ".streamlit", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "streamlit_app.py", folder)
    return folder


def test_a_script_directly_in_pages_would_be_shown_without_the_entry_script(tmp_path: Path, serve: Serve) -> None:
    """Why the next test matters: this is what Streamlit does, and the check above notices it."""
    app = copy_of_the_app(tmp_path / "app")
    (app / "pages" / "rogue.py").write_text("import streamlit as st\nst.title('no gate here')\n")
    messages = first_visit(serve(app), "rogue")
    assert "no gate here" in text_of(messages)
    assert not went_through_the_entry(messages)


def test_no_script_lies_directly_in_pages() -> None:
    assert [path.name for path in (ROOT / "pages").glob("*.py")] == ["__init__.py"]


def test_after_the_health_check_a_deep_link_is_found_at_once(serve: Serve) -> None:
    address = serve()
    with urllib.request.urlopen(f"http://{address}/_stcore/script-health-check", timeout=30) as answer:
        assert answer.read() == b"ok"
    kinds = [message.WhichOneof("type") for message in first_visit(address, "monitor")]
    assert "page_not_found" not in kinds


def test_every_option_in_the_config_exists_and_the_risky_ones_are_off() -> None:
    told = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    known = config.get_config_options(force_reparse=True)
    assert {f"{section}.{name}" for section, names in told.items() for name in names} - set(known) <= {
        "theme.light",
        "theme.dark",
    }
    assert told["server"]["address"] == "127.0.0.1"
    assert told["server"]["enableAgentApi"] is told["server"]["enableStaticServing"] is False
    assert told["server"]["enableXsrfProtection"] is told["server"]["enableCORS"] is True
    assert told["client"]["showErrorDetails"] == "none"
    assert told["browser"]["gatherUsageStats"] is False


def test_the_server_is_closed_to_the_outside(serve: Serve) -> None:
    address = serve()
    port = int(address.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):  # a server on all addresses would answer here
        socket.create_connection(("127.0.0.2", port), 2)
    with knock(address, host=f"localhost:{port}"):
        pass
    for forged in ({"host": "evil.test"}, {"host": address, "origin": "http://evil.test"}):
        with pytest.raises(InvalidStatus):
            knock(address, **forged)


def knock(address: str, host: str, origin: str | None = None) -> ClientConnection:
    """A WebSocket to the address under another name, as a rebound DNS name or a foreign page would open it."""
    name, _, port = address.rpartition(":")
    raw = socket.create_connection((name, int(port)), 5)
    return connect(f"ws://{host}/_stcore/stream", sock=raw, origin=origin)  # type: ignore[arg-type]


def test_an_error_shows_no_path_and_no_trace(tmp_path: Path, serve: Serve) -> None:
    app = copy_of_the_app(tmp_path / "app")
    (app / "pages" / "keep" / "models.py").write_text("raise RuntimeError('secret at /srv/x')\n")
    text = text_of(first_visit(serve(app), "models"))
    assert "exception" in text
    for leak in ("secret", "/srv/x", "models.py", "RuntimeError"):
        assert leak not in text
