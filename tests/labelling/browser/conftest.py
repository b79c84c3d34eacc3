"""One Chromium for all tests of a file."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from labelling.chromium import Desk, Server, chromium, executable, playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright


@pytest.fixture(scope="module")
def running() -> Iterator["Playwright"]:
    """Playwright, for a file's tests: a second one in the same process must come after."""
    executable()
    with playwright() as found:
        yield found


@pytest.fixture(scope="module")
def browser(running: "Playwright") -> Iterator["Browser"]:
    """A headless Chromium; every test makes a context of its own in it."""
    with chromium(running) as found:
        yield found


@pytest.fixture
def desk(browser: "Browser", server: Server) -> Iterator[Desk]:
    """The editor on the first image of the file's own server; at the end nothing may have been complained of."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    found = Desk.open(context, server)
    yield found
    found.quiet()
    found.leave()
    context.close()
