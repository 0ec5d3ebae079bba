"""What a screen reader and a keyboard meet: axe finds no serious violation on any page, in light and dark."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, sync_playwright

from spool.protocol.home import Home
from tests import showcase
from tests.screenshots import CHROMIUM, FLAGS, beating, settled, views, web

AXE = (Path(axe_playwright_python.__file__).with_name("axe.min.js")).read_text("utf-8")
GRAVE = ("serious", "critical")
CHOSEN = ('data-selected="true"', 'data-variant="segmented_control"')
"""Streamlit writes white on primary buttons, and in the primary colour on a chosen segment: in the dark no colour gives
both 4.5 to 1. The buttons have it; a chosen segment has 3.6 to 1, a border of its own, and says that it is pressed."""

SPARKLINE = "metric_chart_"
"""The course below a figure is Streamlit's own, which gives the group of a point under the mouse no words."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return showcase.build(tmp_path_factory.mktemp("axe") / "home")


@pytest.fixture(scope="module")
def address(home: Home) -> Iterator[str]:
    with web(home.root) as address, beating(home):
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        reason = f"no {CHROMIUM}: apt-get install chromium"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def known(rule: str, node: dict[str, Any]) -> bool:
    """Whether it is one of the two that an app cannot change."""
    target = " ".join(map(str, node["target"]))
    if rule == "svg-img-alt":
        return SPARKLINE in target
    if rule != "color-contrast" or not any(each in target for each in CHOSEN):
        return False
    return bool(node["any"][0]["data"]["contrastRatio"] >= 3.6)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(scheme: str, home: Home, address: str, chromium: Browser) -> None:
    window = chromium.new_context(
        viewport={"width": 1440, "height": 1000},
        color_scheme=scheme,
        locale="en-GB",  # type: ignore[arg-type]
    )
    page = window.new_page()
    found = []
    for name, path in views(home).items():
        settled(page, f"{address}/{path}")
        page.evaluate(AXE)
        for rule in page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]:
            nodes = [node for node in rule["nodes"] if not known(rule["id"], node)]
            if rule["impact"] in GRAVE and nodes:
                told = [f"{node['target']} {node['html'][:160]}" for node in nodes[:3]]
                found.append(f"{name}: {rule['id']} ({rule['help']}): {len(nodes)} x {told}")
    window.close()
    assert not found, "\n".join(found)
