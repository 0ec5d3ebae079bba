"""What a screen reader and a keyboard meet: axe finds no serious violation on any page, in light and dark."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from spool.protocol.home import Home
from tests import showcase
from tests.axe import grave
from tests.screenshots import beating, settled, views, web

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return showcase.build(tmp_path_factory.mktemp("axe") / "home")


@pytest.fixture(scope="module")
def address(home: Home) -> Iterator[str]:
    with web(home.root) as address, beating(home):
        yield address


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
        found += [f"{name}: {each}" for each in grave(page)]
    window.close()
    assert not found, "\n".join(found)
