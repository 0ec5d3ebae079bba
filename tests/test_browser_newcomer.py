"""The whole way of somebody who only has a CSV: upload, see problems, train, watch, chat, download; then in German."""

import re
import shutil
import urllib.request
import zipfile
from pathlib import Path

import pytest
from conftest import Runner
from playwright.sync_api import Browser, expect
from test_browser import Visitor
from test_pages_server import Serve, serve  # noqa: F401

from spool.protocol.home import Home
from spool.protocol.jobs import list_jobs
from tests import page_objects as seen

pytestmark = pytest.mark.alone

ROWS = [f"How much is article {i}?;Article {i} costs {i} euros." for i in range(60)]
PRICES = "\n".join(["question;answer", *ROWS, ROWS[3], "Is there a discount?;", ROWS[3]]).encode()


@pytest.mark.training
def test_from_a_csv_with_problems_to_a_chat_and_a_download(
    chromium: Browser,
    serve: Serve,  # noqa: F811
    home: Home,
    daemon: Runner,
    tiny_gemma: Path,
    tmp_path: Path,
) -> None:
    shutil.copytree(tiny_gemma, home.models / "tiny-gemma")
    address = serve()
    urllib.request.urlopen(f"http://{address}/_stcore/script-health-check", timeout=60).close()
    visitor = Visitor(chromium, address)
    page = visitor.page

    data = seen.Data(page, address).visit()
    data.upload("prices.csv", PRICES)
    data.counts("Usable", "62")
    data.says(re.compile("no answer|empty", re.I))
    data.says(re.compile("twice|duplicate|repeated", re.I))

    train = data.train_on_this()
    train.goal("Our FAQ")
    train.fill("Epochs", "12")
    train.says("Ready to start")
    train.start()
    monitor = train.watch()
    job_id = monitor.job_id()

    expect(monitor.chart()).to_be_visible(timeout=seen.TRAINING_MS)
    monitor.wait_until_done()
    assert len(list_jobs(home)) == 1, "two clicks are one job"
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    page.wait_for_timeout(1000)  # "done" is drawn before the charts of that last run are
    visitor.pushed_bytes = 0
    page.wait_for_timeout(7000)
    assert visitor.pushed_bytes < 3000, "a finished job is not polled any more"

    archive = monitor.download(tmp_path / "adapter.zip")
    assert {"adapter_model.safetensors", "README.md"} <= {Path(n).name for n in zipfile.ZipFile(archive).namelist()}

    chat = monitor.try_it()
    assert job_id in page.url
    chat.ask("How much is article 7?")
    chat.answered(models=2)

    queue = chat.go_to(seen.Queue)
    queue.says("Finished · ")
    models = queue.go_to(seen.Models)
    expect(page.get_by_test_id("stDataFrame").first).to_be_visible()
    expect(models.cell("tiny-gemma on prices")).to_be_attached()
    assert visitor.strangers() == []


def test_the_browsers_language_is_spoken_and_can_be_chosen(chromium: Browser, serve: Serve, home: Home) -> None:  # noqa: F811
    address = serve()
    urllib.request.urlopen(f"http://{address}/_stcore/script-health-check", timeout=60).close()
    page = chromium.new_context(locale="de-AT").new_page()
    page.goto(f"http://{address}/queue")
    expect(page.get_by_role("heading", level=1, name="Warteschlange")).to_be_visible(timeout=seen.PAINT_MS)
    page.goto(f"http://{address}/queue?lang=en")
    expect(page.get_by_role("heading", level=1, name="Queue")).to_be_visible(timeout=seen.PAINT_MS)
    page.get_by_test_id("stSidebar").get_by_role("link", name="Models").click()
    expect(page.get_by_role("heading", level=1, name="Models")).to_be_visible(timeout=seen.PAINT_MS)
    assert "lang=en" in page.url
