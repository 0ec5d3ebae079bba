"""The Data page in headless Chromium on a real server: from a broken file to a job, and what no other test can see."""

import json
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from test_browser import Visitor, visit  # noqa: F401
from test_pages_app import NASTY
from test_pages_data_app import FAQ, tokenizer_only
from test_pages_server import serve  # noqa: F401

from spool.data.keeping import keep
from spool.protocol.home import Home

pytestmark = pytest.mark.alone

expect.set_options(timeout=15_000)
BROKEN = (
    "question;answer\n"
    "Where is my order?;It is on its way.\n"
    "How long does it take?;\n"
    "only one cell\n"
    + "".join(f"How much is article number {i}?;Article number {i} costs {i} euros.\n" for i in range(60))
).encode("cp1252")


def upload(page: Page, name: str, data: bytes) -> None:
    page.locator("input[type=file]").first.set_input_files({"name": name, "mimeType": "text/csv", "buffer": data})


def ready(page: Page) -> None:
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=20_000)


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()
    expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
    ready(page)


def settled(page: Page, number: int = 0) -> dict[str, float]:
    """Where a table lies once it has come to rest; tables are drawn anew when what they show changes."""
    table = page.get_by_test_id("stDataFrame").nth(number)
    before = None
    for _ in range(50):
        ready(page)
        expect(table).to_be_visible()
        table.scroll_into_view_if_needed()
        box = table.bounding_box()
        if box and box == before:
            return {**box}
        before = box
        page.wait_for_timeout(300)
    raise AssertionError("the table does not come to rest")


def tick(page: Page, row: int) -> None:
    """Ticks a row of the first table, counted from 1."""
    box = settled(page)
    page.mouse.click(box["x"] + 16, box["y"] + 16 + 35 * row)


def cells(page: Page, column: int) -> list[str]:
    """What a table tells a screen reader, by column from 1: the only text of a table that is drawn on a canvas."""
    box = settled(page)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 16 + 35)
    found = page.get_by_test_id("stDataFrame").first.locator(f"tbody td[aria-colindex='{column}']")
    expect(found.first).to_be_attached()
    return found.all_text_contents()


def test_from_a_broken_file_to_a_job(visit: Callable[..., Visitor], home: Home) -> None:  # noqa: F811
    tokenizer_only(home.models / "tiny-gemma")
    visitor = visit()
    page = visitor.go("data")
    upload(page, "orders (Größe).csv", BROKEN)
    expect(page.get_by_role("heading", name="orders-Grosse")).to_be_visible(timeout=20_000)
    ready(page)
    assert (visitor.number("Rows"), visitor.number("Usable")) == ("63", "61")
    expect(page.get_by_text("61 of 63 rows can be trained on; 2 rows")).to_be_visible()

    page.get_by_role("button", name=re.compile("Empty field · 1")).click()
    expect(page.get_by_role("button", name=re.compile("Empty field · 1"))).to_have_attribute("aria-pressed", "true")
    page.wait_for_timeout(500)
    assert cells(page, 1) == ["3"], "the line of the empty answer"
    tick(page, 1)
    expect(page.get_by_text("Correct these rows")).to_be_visible()
    ready(page)
    box = settled(page, 1)
    page.mouse.dblclick(box["x"] + 0.8 * box["width"], box["y"] + 16 + 35)
    typed = page.locator("#portal textarea")
    expect(typed).to_be_visible()
    typed.fill("Three days.")
    page.keyboard.press("Enter")
    save = page.get_by_role("button", name="Save as a new version")
    expect(save).to_be_enabled()
    save.click()
    expect(page.get_by_text("1 row edited (line 3)")).to_be_visible(timeout=20_000)
    ready(page)

    newest, older = keep.versions(home, "orders-Grosse")
    assert newest.parents == [older.reference]
    rows = [json.loads(line) for line in newest.path.read_text().splitlines()]
    assert rows[1] == {"question": "How long does it take?", "answer": "Three days."}
    expect(page.get_by_text("left out: 1 × Too many or too few cells")).to_be_visible()

    open_tab(page, "What the model sees")
    view = page.locator(".view")
    expect(view.get_by_text("<start_of_turn>").first).to_be_visible()
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("Row 2 of 62")).to_be_visible()
    expect(view.locator(".text")).to_contain_text("Three days.")
    assert "How long" not in "".join(view.locator(".chip.trained").all_inner_texts())
    assert "Three days." in "".join(view.locator(".text .chip.trained").all_inner_texts())
    page.get_by_role("spinbutton", name="Longest row (tokens)").fill("24")
    page.keyboard.press("Enter")
    expect(view.get_by_text("cut here, at 24 tokens")).to_be_visible()
    assert view.locator(".text .chip.cut").count() > 0

    page.get_by_role("button", name="Train on this").click()
    expect(page.get_by_role("heading", name="Train", exact=True)).to_be_visible()
    expect(page.get_by_text('"max_length": 24')).to_be_visible()
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_role("button", name="Watch it")).to_be_visible()
    (dropped,) = home.incoming.glob("*.json")
    spec = json.loads(dropped.read_bytes())
    assert (spec["dataset"], spec["model"]) == ("orders-Grosse", "tiny-gemma")
    assert spec["data"] == {"max_length": 24}
    assert visitor.strangers() == []


def test_rejects_and_findings_are_taken_along(visit: Callable[..., Visitor], home: Home, tmp_path: Path) -> None:  # noqa: F811
    visitor = visit()
    page = visitor.go("data")
    upload(page, "orders.csv", BROKEN)
    expect(page.get_by_role("heading", name="orders")).to_be_visible(timeout=20_000)
    ready(page)
    with page.expect_download() as started:
        page.get_by_role("button", name="rejects.jsonl").click()
    started.value.save_as(tmp_path / "rejects.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rows] == [3, 4]
    assert rows[0]["row"] == {"question": "How long does it take?", "answer": ""}
    assert "only one cell" in json.dumps(rows[1]["row"])
    with page.expect_download() as started:
        page.get_by_role("button", name="Findings as CSV").click()
    started.value.save_as(tmp_path / "findings.csv")
    assert (tmp_path / "findings.csv").read_text("utf-8-sig").startswith("line,file,code,what")


def test_what_a_row_says_is_text_in_the_token_view(visit: Callable[..., Visitor], home: Home) -> None:  # noqa: F811
    tokenizer_only(home.models / "tiny-gemma")
    said = NASTY + "</div><script>alert(1)</script>"
    row = {"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": said}]}
    keep.add(home, "nasty", "nasty.jsonl", (json.dumps(row) + "\n").encode())
    visitor = visit()
    page = visitor.go("data?dataset=nasty")
    open_tab(page, "What the model sees")
    view = page.locator(".view .text")
    expect(view).to_contain_text("<script>alert(1)</script>")
    assert view.locator("img, script, a").count() == 0
    for tab in ("Findings", "Statistics", "Rows", "Change", "Versions"):
        open_tab(page, tab)
        main = page.locator("#stMain")
        assert main.locator("img[src='x'], a[href^='javascript'], img[src*='evil'], .katex").count() == 0, tab
    assert visitor.strangers() == []


def test_a_version_is_deleted_after_asking(visit: Callable[..., Visitor], home: Home) -> None:  # noqa: F811
    keep.add(home, "faq", "faq.csv", FAQ.encode())
    page = visit().go("data?dataset=faq")
    open_tab(page, "Versions")
    page.get_by_role("button", name="Delete this version").click()
    expect(page.get_by_text("The same file brings it back")).to_be_visible()
    assert len(keep.versions(home, "faq")) == 1
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("was deleted", exact=False)).to_be_visible()
    assert keep.versions(home, "faq") == []


@pytest.mark.parametrize("width", [1440, 390])
def test_no_tab_is_wider_than_its_window(width: int, visit: Callable[..., Visitor], home: Home) -> None:  # noqa: F811
    tokenizer_only(home.models / "tiny-gemma")
    text = FAQ + f"{'W' * 300},{'answer ' * 200},other\nx,,\n"
    keep.add(home, "a-dataset-with-quite-a-long-name-for-a-phone", f"{'long name ' * 12}.csv", text.encode())
    visitor = visit()
    visitor.page.set_viewport_size({"width": width, "height": 900})
    page = visitor.go("data")
    for tab in ("Findings", "What the model sees", "Statistics", "Rows", "Change", "Versions"):
        open_tab(page, tab)
        inside = page.locator("#stMain").evaluate("main => [main.scrollWidth, main.clientWidth]")
        assert inside[0] <= inside[1], (tab, inside)


def test_an_upload_that_stops_half_way_leaves_nothing(visit: Callable[..., Visitor], home: Home) -> None:  # noqa: F811
    visitor = visit()
    page = visitor.go("data")
    page.route("**/_stcore/upload_file/**", lambda route: route.abort())
    upload(page, "orders.csv", BROKEN)
    page.wait_for_timeout(1500)
    assert keep.list_datasets(home) == []
    assert not home.datasets.exists() or not any(home.datasets.iterdir())
    urllib.request.urlopen(f"http://{visitor.address}/_stcore/health", timeout=5).close()
