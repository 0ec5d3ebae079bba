"""The Train page in headless Chromium: what only a browser does to a form: impatience, back, reload, a second tab."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from test_browser import Visitor, visit  # noqa: F401
from test_pages_app import World
from test_pages_server import serve  # noqa: F401

from spool.protocol.home import Home

pytestmark = pytest.mark.alone


def still(page: Page) -> None:
    """Waits until the script has run, and with it what it starts."""
    page.wait_for_timeout(400)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def type_number(page: Page, label: str, value: str) -> None:
    page.get_by_role("spinbutton", name=label).fill(value)
    page.keyboard.press("Enter")
    still(page)


def test_one_form_is_one_job_over_impatience_back_reload_and_tabs(
    visit: Callable[..., Visitor],  # noqa: F811
    home: Home,
) -> None:
    World(home.root).base()
    visitor = visit()
    page = visitor.go("train?preset=faq")
    type_number(page, "LoRA rank", "48")
    page.get_by_text("Limits", exact=True).click()
    still(page)
    type_number(page, "Stop after hours", "5")
    expect(page.get_by_role("spinbutton", name="Stop after hours")).to_be_visible()
    expect(page.get_by_text("1 changed")).to_be_visible()
    form = page.url
    assert "preset=faq" in form
    assert re.search(r"form=[0-9A-Z]{26}", form)

    page.reload()
    expect(page.get_by_text('"rank": 48')).to_be_visible(timeout=20_000)
    expect(page.get_by_text('"max_hours": 5')).to_be_visible()
    assert page.url == form, "a reload is the same form"
    tab = page.context.new_page()
    tab.goto(form)
    expect(tab.get_by_text('"rank": 48')).to_be_visible(timeout=20_000)

    page.get_by_role("button", name="Start training").dblclick()
    expect(page.get_by_role("button", name="Watch it")).to_be_visible()
    tab.get_by_role("button", name="Start training").click()
    expect(tab.get_by_role("button", name="Watch it")).to_be_visible()
    page.go_back()
    still(page)
    expect(page.get_by_role("button", name="Watch it")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Watch it")).to_be_visible(timeout=20_000)

    (dropped,) = home.incoming.glob("*.json")
    spec: dict[str, Any] = json.loads(dropped.read_bytes())
    assert spec["submission_id"] == dropped.stem
    assert f"form={dropped.stem}" in form
    assert (spec["lora"]["rank"], spec["limits"]) == (48, {"max_hours": 5})


def test_a_click_right_after_typing_counts_what_was_typed(visit: Callable[..., Visitor], home: Home) -> None:  # noqa: F811
    World(home.root).base()
    page = visit().go("train")
    page.get_by_role("spinbutton", name="LoRA rank").fill("24")
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_role("button", name="Watch it")).to_be_visible()
    (dropped,) = home.incoming.glob("*.json")
    assert json.loads(dropped.read_bytes())["lora"]["rank"] == 24
