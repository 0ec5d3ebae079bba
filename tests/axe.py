"""axe over a page in a browser: what it finds serious, but for what Streamlit itself draws and no app can change."""

from pathlib import Path
from typing import Any

import axe_playwright_python
from playwright.sync_api import Page

SCRIPT = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text("utf-8")
GRAVE = ("serious", "critical")
CHOSEN = ('data-selected="true"', 'data-variant="segmented_control"')
"""Streamlit writes white on primary buttons, and in the primary colour on a chosen segment: in the dark no colour gives
both 4.5 to 1. The buttons have it; a chosen segment has 3.6 to 1, a border of its own, and says that it is pressed."""

SPARKLINE = "metric_chart_"
"""The course below a figure is Streamlit's own, which gives the group of a point under the mouse no words."""

TOAST = 'data-testid="stToast"'
"""A toast is a dialog that names a title, and has none."""


def grave(page: Page) -> list[str]:
    """What axe finds on the page as it is now, a line a rule."""
    page.evaluate(SCRIPT)
    found = []
    for rule in page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]:
        nodes = [node for node in rule["nodes"] if not _theirs(rule["id"], node)]
        if rule["impact"] in GRAVE and nodes:
            told = [f"{node['target']} {node['html'][:160]}" for node in nodes[:3]]
            found.append(f"{rule['id']} ({rule['help']}): {len(nodes)} x {told}")
    return found


def _theirs(rule: str, node: dict[str, Any]) -> bool:
    target = " ".join(map(str, node["target"]))
    if rule == "svg-img-alt":
        return SPARKLINE in target
    if rule == "aria-dialog-name":
        return TOAST in node["html"]
    if rule != "color-contrast" or not any(each in target for each in CHOSEN):
        return False
    return bool(node["any"][0]["data"]["contrastRatio"] >= 3.6)
