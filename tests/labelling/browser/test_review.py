"""Labels are submitted, skipped, accepted and rejected in the list's order; a release never changes once it is made."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from labelling.chromium import Desk, Server
from labelling.pages import opened, statuses, street
from labelling.strokes import swept

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HW = (60, 90)
ROAD = 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("review")
    street(folder, 5, hw=HW)
    with Server(folder) as running:
        yield running


def test_submit_skip_accept_and_reject_go_through_the_list(browser: "Browser", server: Server) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    desk = Desk.open(context, server, 1)
    page, keys = desk.page, desk.page.keyboard
    desk.choose("road").set(size=8)
    path = desk.stroke([(10, 30), (80, 30)])
    keys.press("Control+Enter")  # without waiting: what was drawn is at the server before the status is
    desk.ready(2)
    assert (server.mask(1) == np.where(swept(path, 8, HW), ROAD, 0)).all()
    page.get_by_text("% is unlabelled").wait_for()  # said, and not in the way
    keys.press("Control+Space")
    desk.ready(3)
    page.get_by_role("button", name="Submit").click()
    desk.ready(4)
    page.get_by_text("nothing is labelled").wait_for()
    assert statuses(server) == {
        "a-01.png": "labelled", "a-02.png": "skipped", "a-03.png": "labelled", "a-04.png": "todo", "a-05.png": "todo",
    }  # fmt: skip

    keys.press("Shift+Enter")  # nobody has submitted this one: nothing happens
    page.get_by_text("There is nothing to review here").wait_for()
    desk.go(1)
    page.get_by_role("button", name="Accept").wait_for()
    keys.press("Shift+Backspace")
    dialog = page.get_by_role("dialog", name="Reject this label")
    dialog.get_by_label("What is to be mended?").fill("The edge is ragged.")
    dialog.get_by_role("button", name="Reject").click()
    desk.ready(3)  # the next that is to be reviewed
    keys.press("Shift+Enter")
    page.get_by_text("Nothing is left to review in this list.").wait_for()
    assert statuses(server)["a-01.png"] == "rejected"
    assert statuses(server)["a-03.png"] == "reviewed"
    desk.go(1)
    page.get_by_text("Rejected: The edge is ragged.").wait_for()
    desk.stroke([(10, 40), (80, 40)])  # whoever mends it puts it in progress
    desk.saved()
    page.locator(".status").get_by_text("In progress").wait_for()
    keys.press("Control+Enter")
    desk.ready(4)
    assert statuses(server)["a-01.png"] == "labelled"
    keys.press("PageUp")
    desk.ready(3)
    keys.press("PageDown")
    desk.ready(4)
    desk.quiet()
    context.close()


def test_a_release_stays_what_it_was_while_its_labels_are_edited(browser: "Browser", server: Server) -> None:
    path = "/projects/street/releases/v1"
    with opened(browser, server, "#/street") as page:
        page.get_by_role("region", name="Releases").get_by_role("button", name="Create").click()
        page.get_by_role("dialog").get_by_role("button", name="Create").click()  # v1 is proposed
        page.locator("[data-release=v1]").wait_for()
    before, archive = server.get(path), server.ask("GET", f"{path}/export?format=segments")
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    desk = Desk.open(context, server, 1)
    revision = server.label(1)["revision"]
    desk.choose("tree").set(size=20).stroke([(10, 30), (80, 30)])
    desk.saved()
    context.close()
    assert server.label(1)["revision"] == revision + 1
    assert server.get(path) == before
    assert server.ask("GET", f"{path}/export?format=segments") == archive
