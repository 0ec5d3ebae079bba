"""Takes every page of the app, in light and dark, over the home of tests/showcase.py and over an empty one.

Run as: python -m tests.screenshots [FOLDER]        (or: make screenshots; default folder: screenshots/)
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from spool.protocol.home import Home, State
from tests import showcase

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run",
]  # fmt: skip
PAGES = ("", "data", "train", "queue", "monitor", "compare", "models", "playground", "system", "vote")
HEIGHT = 1000
SETTLE_MS = 2500
"""Charts are drawn after the page says that it is done."""


def views(home: Home) -> dict[str, str]:
    """Name of the picture -> address."""
    done, failed = showcase.jobs(home, State.DONE), showcase.jobs(home, State.FAILED)
    return {
        "home": "",
        "data": "data?dataset=faq_deutsch",
        "train": "train",
        "queue": "queue",
        "monitor": f"monitor?job={showcase.jobs(home, State.RUNNING)[0]}",
        "monitor-done": f"monitor?job={done[1]}",
        "monitor-failed": f"monitor?job={failed[0]}",
        "compare": "compare?jobs=" + ",".join(done[-2:] + done[:1]),
        "models": "models",
        "model": f"models?model={done[-1]}",
        "monitor-export": f"monitor?job={showcase.jobs(home, State.DONE, 'export')[-1]}",
        "monitor-evaluate": f"monitor?job={showcase.jobs(home, State.DONE, 'evaluate')[-1]}",
        "monitor-export-failed": f"monitor?job={showcase.jobs(home, State.FAILED, 'export')[0]}",
        "playground": f"playground?with={done[-1]}",
        "system": "system",
        "vote": f"vote?job={done[-1]}",
        "vote-result": f"vote?job={done[-1]}&as=ada@example.org",
    }


@contextmanager
def server(home: Path, script: str = "streamlit_app.py") -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A web app over that home; gives its address and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", script, "--server.port", str(port)]
    environment = {**os.environ, "FINETUNER_HOME": str(home)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.setpriority(os.PRIO_PROCESS, process.pid, 5)  # as deploy/up.py and the service do
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/_stcore/script-health-check", timeout=60).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address, process
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def web(home: Path) -> Iterator[str]:
    """A web app over that home; gives its address."""
    with server(home) as (address, _):
        yield address


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium; its own downloads and reports are off."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield started
        started.close()


@contextmanager
def repeating(every_s: float, act: Callable[[], None]) -> Iterator[None]:
    """Does something every so often, beside what the block does."""
    stop = threading.Event()

    def go() -> None:
        while not stop.wait(every_s):
            act()

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def beating(home: Home) -> AbstractContextManager[None]:
    """Keeps the runner of the showcase alive."""
    return repeating(4, lambda: showcase.beat(home))


def settled(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("h1").first).to_be_visible(timeout=30_000)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=30_000)
    page.wait_for_timeout(SETTLE_MS)


def whole(page: Page, width: int) -> None:
    """Makes the window as tall as the page, which scrolls inside of it."""
    tall = page.locator("#stMain").evaluate("main => main.scrollHeight")
    page.set_viewport_size({"width": width, "height": max(HEIGHT, min(tall, 4000))})
    page.wait_for_timeout(SETTLE_MS // 2)


def take(folder: Path, width: int = 1440) -> None:
    with tempfile.TemporaryDirectory() as scratch, browser() as chromium:
        full = showcase.build(Path(scratch) / "full")
        empty = Home(Path(scratch) / "empty").create()
        for home, wanted, prefix in (
            (full, views(full), ""),
            (empty, {page or "home": page for page in PAGES}, "empty-"),
        ):
            with web(home.root) as address, beating(full):
                for scheme in ("light", "dark"):
                    window = chromium.new_context(
                        viewport={"width": width, "height": HEIGHT}, color_scheme=scheme, locale="en-GB"
                    )
                    page = window.new_page()
                    for name, path in wanted.items():
                        page.set_viewport_size({"width": width, "height": HEIGHT})
                        settled(page, f"{address}/{path}")
                        whole(page, width)
                        target = folder / f"{prefix}{name}-{scheme}.png"
                        page.screenshot(path=target)
                        print(target, flush=True)
                    window.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("screenshots"))
    where = parser.parse_args().folder
    where.mkdir(parents=True, exist_ok=True)
    take(where)
