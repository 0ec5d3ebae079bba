"""The app in headless Chromium on a real server: the way from a file to an adapter, and what no other test can see."""

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, WebSocket, expect
from test_pages_app import NASTY, PAGES, World
from test_pages_server import Serve, serve  # noqa: F401

from spool.protocol import metrics
from spool.protocol.home import Home, State

pytestmark = pytest.mark.alone

CHARTS = "[data-testid=stVegaLiteChart] :is(svg, canvas).marks"
SHORT = ":\u2060material/home: **b** $x$ :\u2060red[y] www.evil.test"
FAQ = "question,answer\n" + "".join(f"How much is article {i}?,Article {i} costs {i} euros.\n" for i in range(40))


class Visitor:
    """A browser window on the app that notes what it asks for and what is pushed to it."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.address = address
        self.page: Page = browser.new_context(viewport={"width": 1440, "height": 1000}, locale="en-GB").new_page()
        self.asked: list[str] = []
        self.pushed_bytes = 0
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", self._listen)
        self.page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))

    def _listen(self, channel: WebSocket) -> None:
        def count(data: Any) -> None:
            self.pushed_bytes += len(data)

        channel.on("framereceived", count)

    def go(self, path: str) -> Page:
        self.page.goto(f"http://{self.address}/{path}")
        expect(self.page.locator("h1").first).to_be_visible(timeout=20_000)
        expect(self.page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
        return self.page

    def strangers(self) -> list[str]:
        """Addresses that were asked for outside of this server."""
        own = (f"http://{self.address}/", f"ws://{self.address}/", "data:", "blob:")
        return [url for url in self.asked if not url.startswith(own)]

    def number(self, label: str) -> str:
        card = self.page.get_by_test_id("stMetric").filter(has_text=label).first
        return card.get_by_test_id("stMetricValue").inner_text()


@pytest.fixture
def visit(chromium: Browser, serve: Serve) -> Callable[..., Visitor]:  # noqa: F811
    def start() -> Visitor:
        address = serve()
        urllib.request.urlopen(f"http://{address}/_stcore/script-health-check", timeout=30).close()  # as `make up` does
        return Visitor(chromium, address)

    return start


def seen(look: Callable[[], Any], enough: Callable[[set[Any]], bool], timeout_s: float) -> set[Any]:
    """What `look` gave while waiting until that is enough."""
    found: set[Any] = set()
    end = time.monotonic() + timeout_s
    while not enough(found):
        assert time.monotonic() < end, found
        found.add(look())
        time.sleep(0.2)
    return found


def test_a_refresh_keeps_the_chart_and_the_wire_light(
    visit: Callable[..., Visitor], home: Home, tmp_path: Path
) -> None:
    world = World(home.root)
    job_id = world.job(State.RUNNING, "rank 32", steps=1500, total=2000)
    world.runner(current_job=job_id)
    visitor = visit()
    page = visitor.go(f"monitor?job={job_id}")
    expect(page.locator(CHARTS)).to_have_count(2)
    page.wait_for_timeout(2500)
    page.evaluate(f"window.drawn = [...document.querySelectorAll('{CHARTS}')]")
    before, visitor.pushed_bytes = visitor.number("Loss"), 0
    writer = metrics.Writer(home.run(job_id).metrics, 1)
    writer.write(step=1501, total_steps=2000, loss=0.0777, learning_rate=1e-4)
    expect(page.get_by_text("0.0777")).to_be_visible(timeout=10_000)
    assert before != visitor.number("Loss")
    assert page.evaluate("window.drawn.every(node => node.isConnected)"), "the charts were drawn anew"
    assert visitor.pushed_bytes < 3 * 60_000


def test_what_people_wrote_is_text_and_asks_for_nothing(visit: Callable[..., Visitor], home: Home) -> None:
    world = World(home.root)
    job_id = world.job(State.RUNNING, NASTY[:110], steps=5)
    error = {"code": "x", "message": NASTY, "hint": NASTY}
    failed = world.job(State.FAILED, NASTY[:110], steps=5, error=error)
    home.run(failed).log.write_text(NASTY)
    world.job(State.DONE, NASTY[:110], steps=5)
    world.job(State.QUEUED, NASTY[:110])
    world.job(State.QUEUED, SHORT.replace("\u2060", ""))
    world.runner(current_job=job_id)
    visitor = visit()
    paths = ["", *(page for page in PAGES if page != "home"), f"monitor?job={job_id}", f"monitor?job={failed}"]
    for path in paths:
        page = visitor.go(path)
        main = page.locator("#stMain")
        assert main.locator("img[src='x'], a[href^='javascript'], img[src*='evil'], .katex").count() == 0, path
        if path.startswith("monitor?"):
            expect(page.get_by_role("heading", name="<img src=x onerror=alert(1)> [x](").first).to_be_visible()
        if path == "":
            expect(page.get_by_text(SHORT, exact=True)).to_be_visible()
    assert visitor.strangers() == []


@pytest.mark.parametrize("width", [1440, 420])
def test_no_page_is_wider_than_its_window(width: int, visit: Callable[..., Visitor], home: Home) -> None:
    world = World(home.root)
    world.base()
    job_id = world.job(State.RUNNING, "support tickets", steps=72, gpu=True)
    world.job(State.DONE, "support tickets " * 6, steps=120)
    world.job(State.QUEUED, "W" * 110)
    visitor = visit()
    visitor.page.set_viewport_size({"width": width, "height": 900})
    for path in ["", *(page for page in PAGES if page != "home"), f"monitor?job={job_id}"]:
        page = visitor.go(path)
        inside = page.locator("#stMain").evaluate("main => [main.scrollWidth, main.clientWidth]")
        assert inside[0] <= inside[1], (path, inside)
