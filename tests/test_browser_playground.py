"""The Playground in a real browser: answers stream, are stopped, corrected and compared; its session is played here."""

import urllib.request

import pytest
from conftest import wait_for
from playwright.sync_api import Browser, expect
from test_pages_app import NASTY, World
from test_pages_server import Serve, serve  # noqa: F401
from test_playground_app import Session, trained

from spool.data.keeping import keep
from spool.protocol import asks
from spool.protocol.home import Home
from tests import page_objects as seen
from tests.axe import grave
from tests.screenshots import beating

pytestmark = pytest.mark.alone

SLOW_MS = 30_000


def test_a_chat_streams_is_stopped_and_corrected(chromium: Browser, serve: Serve, home: Home) -> None:  # noqa: F811
    world = World(home.root)
    trained(world)
    with beating(home):
        chat(chromium, serve, world)


def chat(chromium: Browser, serve: Serve, world: World) -> None:  # noqa: F811
    home = world.home
    address = serve()
    urllib.request.urlopen(f"http://{address}/_stcore/script-health-check", timeout=60).close()
    page = seen.window(chromium)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    play = seen.Playground(page, address).visit()
    play.ask("Where is it?")
    wait_for(lambda: list(home.incoming.glob("*.json")))
    session = Session(world)
    expect(page.get_by_text("the runner takes it in a moment")).to_be_visible(timeout=SLOW_MS)
    session.start()
    expect(page.get_by_text("Ready.")).to_be_visible(timeout=SLOW_MS)

    session.answer(whole=False, base="Half of it", tuned="Tuned answer")
    expect(page.get_by_text("Hal", exact=True)).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("button", name="Stop").click()
    wait_for(lambda: list(home.asks.glob("*.stop")))
    finish(session, base=NASTY, tuned='{"answer": 1}')
    expect(page.get_by_text("4 tokens")).to_have_count(2, timeout=SLOW_MS)
    main = page.locator("#stMain")
    assert main.locator("img[src='x'], a[href^='javascript'], img[src*='evil'], .katex").count() == 0
    expect(main).to_contain_text(NASTY[:40], timeout=SLOW_MS)

    for number in range(2):
        play.ask(f"Question {number}?")
        wait_for(lambda: len(asks.pending(home, session.id)) == 2)  # each model is told its own answers
        session.answer(base="A long answer.\n" * 40, tuned="Short.")
        expect(page.get_by_text("4 tokens")).to_have_count(2 * (number + 2), timeout=SLOW_MS)
    expect(page.get_by_role("button", name="Ask again")).to_be_in_viewport(
        timeout=SLOW_MS
    )  # the page has scrolled along
    assert grave(page) == []

    page.get_by_role("button", name="Correct").last.click()
    page.get_by_label("The right answer").fill("The right one.")
    assert grave(page) == []
    page.get_by_role("button", name="Save the correction").click()
    expect(page.get_by_text("One correction saved to")).to_be_attached(timeout=SLOW_MS)
    assert keep.find(home, "support_tickets").rows == 13
    assert [url for url in requests if address not in url and not url.startswith(("data:", "blob:"))] == []


def finish(session: Session, base: str, tuned: str) -> None:
    """Ends the answers that have begun."""
    known = asks.Answers(session.home, session.id)
    known.read()
    for ask_id, by_who in known.by_ask.items():
        for who in by_who:
            text = base if who == "base" else tuned
            end = {"text": text, "tokens": 4, "seconds": 0.5, "ended_by": "cancelled"}
            asks.write_row(session.run.answers, ask=ask_id, who=who, done=True, **end)
