"""The app as somebody in front of a browser sees it: one class a page, with what can be done there and what is said."""

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Download, Locator, Page, expect

PAINT_MS = 30_000
TRAINING_MS = 240_000


class Shown:
    """A page of the app in one browser window. Visiting waits until Streamlit has drawn it."""

    path = ""
    heading = ""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address

    def visit(self, **query: str) -> Any:
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        self.page.goto(f"http://{self.address}/{self.path}" + (f"?{asked}" if asked else ""))
        return self.arrived()

    def arrived(self) -> Any:
        expect(self.page.get_by_role("heading", level=1, name=self.heading)).to_be_visible(timeout=PAINT_MS)
        self.drawn()
        return self

    def drawn(self) -> None:
        app = self.page.get_by_test_id("stApp")
        expect(app).to_have_attribute("data-test-script-state", "notRunning", timeout=PAINT_MS)

    def go_to(self, kind: type["Shown"]) -> Any:
        """Through the navigation, as a click and not as a new visit."""
        self.page.get_by_test_id("stSidebar").get_by_role("link", name=kind.heading, exact=True).click()
        return kind(self.page, self.address).arrived()

    def says(self, text: str | re.Pattern[str], timeout_ms: float = PAINT_MS) -> None:
        expect(self.page.locator("#stMain").get_by_text(text).first).to_be_visible(timeout=timeout_ms)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name)

    def cell(self, text: str) -> Locator:
        """A cell of a table, which is drawn on a canvas: what it tells a screen reader."""
        return self.page.locator("#stMain td").filter(has_text=text).first

    def counts(self, label: str, value: str) -> None:
        """A figure; while a page is drawn anew, those of before stay for a moment."""
        card = self.page.get_by_test_id("stMetric").filter(has_text=label).first
        expect(card.get_by_test_id("stMetricValue")).to_have_text(value, timeout=PAINT_MS)


class Home(Shown):
    heading = "Home"


class Data(Shown):
    path, heading = "data", "Data"

    def upload(self, name: str, content: bytes) -> None:
        self.page.locator("input[type=file]").set_input_files(
            {"name": name, "mimeType": "application/octet-stream", "buffer": content}
        )
        stem = re.sub(r"\W+", "_", name.rpartition(".")[0])
        expect(self.page.get_by_role("heading", name=re.compile(stem, re.I))).to_be_visible(timeout=PAINT_MS)

    def train_on_this(self) -> "Train":
        self.button("Train on this").click()
        return Train(self.page, self.address).arrived()


class Train(Shown):
    path, heading = "train", "Train"

    def goal(self, name: str) -> None:
        self.page.get_by_role("radio", name=name).or_(self.button(name)).first.click()
        self.drawn()

    def fill(self, label: str, value: str) -> None:
        box = self.page.get_by_role("spinbutton", name=label).or_(self.page.get_by_role("textbox", name=label)).first
        box.fill(value)
        box.press("Enter")
        self.drawn()

    def choose(self, label: str, value: str) -> None:
        box = self.page.get_by_role("combobox", name=re.compile(label)).first
        box.click()
        box.fill(value)
        self.page.get_by_role("option", name=value).first.click()
        self.drawn()

    def start(self) -> None:
        """Two clicks, as impatient people do."""
        self.button("Start training").dblclick()

    def watch(self) -> "Monitor":
        self.button("Watch it").click()
        return Monitor(self.page, self.address).arrived()


class Monitor(Shown):
    path, heading = "monitor", "Monitor"

    def job_id(self) -> str:
        found = re.search(r"job=([0-9A-Z]{26})", self.page.url)
        assert found, self.page.url
        return found[1]

    def chart(self) -> Locator:
        return self.page.locator("canvas.marks, svg.marks").first

    def wait_until_done(self) -> None:
        self.says("The adapter is ready", TRAINING_MS)

    def download(self, target: Path) -> Path:
        with self.page.expect_download(timeout=60_000) as started:
            self.button("Download adapter").click()
        return saved(started.value, target)

    def try_it(self) -> "Playground":
        self.page.get_by_role("link", name="Try it").click()
        return Playground(self.page, self.address).arrived()


class Queue(Shown):
    path, heading = "queue", "Queue"


class Compare(Shown):
    path, heading = "compare", "Compare"


class Models(Shown):
    path, heading = "models", "Models"


class Playground(Shown):
    path, heading = "playground", "Playground"

    def ask(self, question: str) -> None:
        box = self.page.get_by_test_id("stChatInput").get_by_role("textbox")
        box.fill(question)
        box.press("Enter")

    def answered(self, models: int, timeout_ms: float = TRAINING_MS) -> None:
        """Each model's answer ends with how many tokens it has."""
        told = self.page.locator("#stMain").get_by_text(re.compile(r"^\d+ tokens?\b"))
        expect(told).to_have_count(models, timeout=timeout_ms)


class Vote(Shown):
    path, heading = "vote", "Vote"

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.drawn()

    def voted(self, number: int, of: int) -> None:
        self.says(f"{number} of {of} pairs have your vote")


class System(Shown):
    path, heading = "system", "System"


def saved(download: Download, target: Path) -> Path:
    download.save_as(target)
    return target


def window(browser: Browser, **more: Any) -> Page:
    return browser.new_context(viewport={"width": 1440, "height": 1000}, locale="en-GB", **more).new_page()
