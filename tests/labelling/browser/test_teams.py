"""Several people, or tabs, at one image: who draws, who looks on, what happens to what both drew; and tokens."""

import json
import os
import re
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from labelling.chromium import TILE, WAIT, Desk, Server
from labelling.pages import opened, street
from labelling.strokes import swept

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

HW = (60, 600)  # two tiles side by side
ROAD, TREE = 1, 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("teams")
    street(folder, 3, hw=HW)
    with Server(folder) as running:
        yield running


def test_the_second_page_looks_on_until_it_takes_over(browser: "Browser", server: Server) -> None:
    first = Desk.open(browser.new_context(viewport={"width": 1280, "height": 800}), server, 1)
    second = Desk.open(browser.new_context(viewport={"width": 1280, "height": 800}), server, 1)
    badge = second.page.locator(".sync")
    assert badge.inner_text().startswith("read-only: open in another tab")
    second.choose("tree").stroke([(10, 50), (300, 50)])  # not drawn
    expected = np.zeros(HW, np.uint16)
    path = first.choose("road").set(size=8).stroke([(10, 20), (300, 20)])
    expected[swept(path, 8, HW)] = ROAD
    first.saved()
    assert (server.mask(1) == expected).all()
    second.page.wait_for_function("() => window.terrazzo.editor.label.counts[1] > 0")  # it sees it come
    second.page.get_by_role("button", name="Take over …").click()
    second.page.get_by_role("dialog").get_by_role("button", name="Take over").click()
    second.page.wait_for_function("() => window.terrazzo.state.read_only === null")
    first.page.wait_for_function("() => window.terrazzo.state.read_only !== null")
    assert first.page.get_by_role("button", name="Submit").is_disabled()
    path = second.choose("tree").set(size=8).stroke([(10, 40), (300, 40)])
    expected[swept(path, 8, HW)] = TREE
    second.saved()
    assert (server.mask(1) == expected).all()
    right = np.zeros((HW[0], HW[1] - TILE), np.uint16)
    right[10:30, 20:60] = server.label(1)["annotations"][0]["id"]
    server.write(1, {(0, 1): right}, None)  # a script, in the other tile, while somebody holds the image
    second.page.wait_for_function("() => window.terrazzo.editor.label.ids[20 * 600 + 512 + 40] > 0")
    second.page.get_by_role("link", name="Back to street").click()  # it lets go, and the first may draw again
    first.page.wait_for_function("() => window.terrazzo.state.read_only === null")
    for desk in (first, second):
        assert [one for one in desk.complaints if "status of 4" not in one] == []
        desk.page.context.close()


def test_an_image_that_is_left_while_it_is_asked_for_is_free(browser: "Browser", server: Server) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    desk = Desk.open(context, server, 1)
    held: list[Route] = []
    desk.page.route("**/samples/3/lease", lambda route: held.append(route))
    with desk.page.expect_request("**/samples/3/lease"):
        desk.page.evaluate("hash => { location.hash = hash; }", f"#/{server.name}/3")
    desk.page.evaluate("hash => { location.hash = hash; }", f"#/{server.name}")
    desk.page.get_by_role("region", name="Releases").wait_for()  # the image is closed
    with desk.page.expect_response("**/samples/3/lease?client_id=*") as last:
        held[0].continue_()
    assert last.value.request.method == "DELETE"
    desk.leave()
    desk.quiet()
    context.close()


def test_stale_writes_are_refused_and_kept_and_other_places_are_merged(
    browser: "Browser", server: Server
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.route("**/events", lambda route: route.abort())  # a page that hears nothing of others
    desk = Desk.open(context, server, 2)
    expected = np.zeros(HW, np.uint16)
    path = desk.choose("road").set(size=8).stroke([(10, 20), (300, 20)])
    expected[swept(path, 8, HW)] = ROAD
    desk.saved()
    seen = server.label(2)["revision"]
    right = np.zeros((HW[0], HW[1] - TILE), np.uint16)
    right[10:30, 20:60] = road = server.label(2)["annotations"][0]["id"]
    told = server.write(2, {(0, 1): right}, None)  # a script, in the other tile; the page has not seen it yet
    assert told["revision"] == seen + 1
    expected[10:30, TILE + 20 : TILE + 60] = ROAD
    path = desk.stroke([(10, 40), (300, 40)])
    expected[swept(path, 8, HW)] = ROAD
    desk.saved()
    assert (server.mask(2) == expected).all()  # both
    left = np.full((HW[0], TILE), road, np.uint16)
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.write(2, {(0, 0): left}, None, base_revision=seen)  # over what the page drew since
    assert refused.value.code == 412
    told = json.loads(refused.value.read())
    assert (server.mask(2) == expected).all()
    assert told["current"] == server.label(2)["revision"]
    assert (server.mask(2, told["branch"])[:, :TILE] == ROAD).all()  # nothing is thrown away
    desk.page.keyboard.press("Alt+4")
    branch = desk.page.locator(f"[data-revision='{told['branch']}']")
    branch.get_by_text("kept aside").wait_for()
    branch.get_by_role("button", name="Restore").click()
    desk.page.wait_for_function("() => window.terrazzo.editor.label.counts[0] < 60 * 600 / 4")
    assert (server.mask(2)[:, :TILE] == ROAD).all()
    desk.quiet(but="ERR_FAILED")
    context.close()


def test_eight_tabs_hear_of_a_change_and_go_on_when_the_one_that_listens_is_closed(
    browser: "Browser", server: Server
) -> None:
    context = browser.new_context()
    asked: list[str] = []
    context.on("request", lambda one: asked.append(one.url) if one.url.endswith("/events") else None)
    tabs = [context.new_page() for _ in range(8)]  # a browser opens six connections to a server
    for tab in tabs:
        tab.goto(f"{server.url}#/street")
        tab.get_by_role("link", name="a-03.png").wait_for(timeout=1000 * WAIT)
    assert len(asked) == 1
    for status, says in (("skipped", "Skipped 1"), ("in_progress", "In progress")):
        server.ask("PATCH", server.sample(3), {"status": status})
        for tab in tabs:
            tab.get_by_role("button", name=says).wait_for(timeout=1000 * WAIT)
        tabs.pop(0).close()
        tabs[-1].wait_for_function(
            "async () => (await navigator.locks.query()).held.some(({name}) => name === 'terrazzo events street')"
        )
    context.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server for several people, as it is where others reach it; and {name: token}."""
    folder = tmp_path_factory.mktemp("shared")
    street(folder, 3)
    people = folder / "people.json"
    people.write_text('{"ann": "labeller", "rita": "reviewer", "vic": "viewer"}')
    found = Shared(folder, people)
    with found:
        yield found, found.tokens()


class Shared(Server):
    """`terrazzo label --host 0.0.0.0 --people FILE`."""

    def __init__(self, folder: Path, people: Path) -> None:
        super().__init__(folder)
        self.people = people

    def start(self) -> "Shared":
        command = [sys.executable, "-m", "terrazzo", "label", str(self.folder / "street.db"), "--no-browser"]
        self.process = subprocess.Popen(
            [*command, "--host", "0.0.0.0", "--port", "0", "--people", str(self.people)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("WARNING"):
                break
        found = re.search(r"http://[^/\s]+:(\d+)/", "".join(self.said))
        assert found is not None, "".join(self.said)
        self.port = int(found[1])
        return self

    def tokens(self) -> dict[str, str]:
        return dict(re.findall(r"(\w+): http\S+\?token=(\S+)", "".join(self.said)))

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.stdout.close()


def test_off_this_machine_everybody_needs_a_token_and_does_what_their_role_may(
    browser: "Browser", shared: tuple[Server, dict[str, str]]
) -> None:
    server, tokens = shared
    with pytest.raises(urllib.error.HTTPError, match="401"):
        server.get("/")
    with (
        opened(browser, server) as ann,
        opened(browser, server, f"?token={tokens['rita']}") as rita,
        opened(browser, server, f"?token={tokens['vic']}#/street/1") as vic,
    ):
        ann.get_by_role("heading", name="Sign in").wait_for()
        ann.get_by_label("Token").fill("nonsense")
        ann.get_by_role("button", name="Sign in").click()
        ann.get_by_text("The server does not know this token.").wait_for()
        ann.get_by_label("Token").fill(tokens["ann"])
        ann.keyboard.press("Enter")
        ann.get_by_role("link", name="street").wait_for()
        assert ann.get_by_text("ann · labeller").is_visible()
        assert "token" not in ann.url
        assert "token" not in rita.url
        assert ann.evaluate("document.cookie") == ""  # no script can read it
        assert ann.get_by_role("button", name="New project").count() == 0

        ann.get_by_role("link", name="street").click()
        ann.get_by_role("button", name="Start labelling").click()
        ann.wait_for_function("() => window.terrazzo.editor")
        drawn = Desk(ann, server)
        drawn.choose("road").set(size=8).stroke([(10, 20), (60, 20)])
        drawn.saved()
        sample = drawn.read("editor.sample.id")
        vic.wait_for_function("() => window.terrazzo.editor")
        assert vic.locator(".sync").inner_text() == "read-only: you may look"
        rita.goto(f"{server.url}#/street/{sample}")
        rita.wait_for_function("() => window.terrazzo.editor")
        assert rita.locator(".sync").inner_text() == "read-only: held by ann"
        ann.keyboard.press("Control+Enter")
        rita.get_by_role("button", name="Accept").click()
        rita.locator(".status").get_by_text("Reviewed").wait_for()
        ann.goto(f"{server.url}#/street/{sample}")
        ann.wait_for_function(f"() => window.terrazzo.editor?.sample.id === {sample}")
        assert ann.get_by_role("button", name="Accept").is_hidden()  # she is no reviewer
    assert server.process is not None
    assert server.process.poll() is None
