"""Voting in a real browser: by keys alone, nothing in the page tells whose answer is whose, two people at once."""

import urllib.request

import pytest
from playwright.sync_api import Browser, expect
from test_pages_app import NASTY, World
from test_pages_server import Serve, serve  # noqa: F401
from test_pages_vote import reported, row

from spool.protocol import votes
from spool.protocol.home import Home
from tests import page_objects as seen
from tests.axe import grave

pytestmark = pytest.mark.alone

LONG = "A long and winding answer {}. " + "It goes on, line after line.\n" * 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_people_vote_with_the_keyboard(chromium: Browser, serve: Serve, home: Home, scheme: str) -> None:  # noqa: F811
    asked = reported(World(home.root), row(0), row(1, LONG, NASTY), row(2))
    address = serve()
    urllib.request.urlopen(f"http://{address}/_stcore/script-health-check", timeout=60).close()
    page = seen.window(chromium, color_scheme=scheme)
    booth = seen.Vote(page, address).visit(job=asked.job_id)
    for number, key in enumerate("gna"):
        booth.voted(number, 3)
        written = page.locator("#stMain").inner_html().lower()
        assert not [word for word in ("tuned", "base model", "gain", "stopped") if word in written]
        left, right = (page.locator(f".st-key-vote-answer-{letter}").bounding_box() for letter in "AB")
        assert left
        assert right
        assert (left["height"], left["width"]) == (right["height"], right["width"]), "no room tells which is long"
        assert (
            page.locator("#stMain").locator("img[src='x'], a[href^='javascript'], img[src*='evil'], .katex").count()
            == 0
        )
        assert grave(page) == []
        booth.press(key)
    booth.says("You have voted on every pair")
    booth.press("ArrowLeft")
    booth.voted(3, 3)
    expect(page.get_by_role("button", name="Both are good")).to_have_attribute("kind", "primary")
    assert grave(page) == []

    other = seen.Vote(seen.window(chromium), address).visit(job=asked.job_id, **{"as": "ben"})
    other.voted(0, 3)
    other.button("A is better").dblclick()
    other.voted(1, 3)
    mine = votes.read(home, asked.job_id)
    assert sorted(who for who, _ in mine.votes) == ["", "", "", "ben"], "a second click is no vote on the next pair"

    booth.button("See the result now").click()
    booth.button("Show the result").click()
    booth.says("Pair by pair")
    booth.button("Save as dataset").wait_for()
    assert grave(page) == []
    page.reload()
    booth.says("Pair by pair")
