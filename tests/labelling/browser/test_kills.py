"""What was drawn outlives the server, the browser and the network: killed at any moment.

Nothing that was acknowledged, and nothing that the journal had, is ever lost; at most the stroke whose button was still
down, or had just come up, when the browser itself was killed. Labels are not empty when it happens.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from labelled import HW, make_project, scene
from labelling.chromium import Desk, Mortal, Server
from labelling.strokes import Point, swept

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright, Route

ROAD, CAR, UNCLEAR = 1, 2, 3
SIZE = 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One image with a road, a car and something unclear on it, and another one with nothing."""
    project = make_project(tmp_path, names=("photos/a.png", "photos/b.png"))
    project.write_mask("photos/a.png", scene())
    project.close()
    with Server(tmp_path) as running:
        yield running


@pytest.fixture
def mortal(running: "Playwright", tmp_path: Path) -> Iterator[Mortal]:
    with Mortal(running, tmp_path / "profile") as one:
        yield one


@pytest.fixture
def desk(browser: "Browser", server: Server) -> Iterator[Desk]:
    context = browser.new_context(viewport={"width": 1000, "height": 720})
    one = Desk.open(context, server, 1).choose("road").set(size=SIZE)
    yield one
    context.close()


def drawn(mask: Any, heard: list[Point], category: int = ROAD) -> Any:
    """The mask after a stroke."""
    after = mask.copy()
    after[swept(heard, SIZE, HW)] = category
    return after


def test_a_server_killed_after_it_answered_has_what_it_answered_for(desk: Desk) -> None:
    truth = drawn(scene(), desk.stroke([(50, 50), (300, 120)]))
    desk.saved()
    desk.server.kill()
    desk.server.start()
    assert (desk.server.mask() == truth).all()


def test_a_server_killed_in_the_middle_of_a_stroke_gets_it_when_it_is_back(desk: Desk) -> None:
    truth = drawn(scene(), desk.stroke([(50, 50), (300, 120)]))
    begun = desk.stroke([(60, 200), (200, 260)], up=False)
    desk.server.kill()
    x, y = desk.place((400, 230))
    scale, left, top = desk.view
    desk.page.mouse.move(x, y)
    desk.page.mouse.up()
    truth = drawn(truth, [*begun, ((x - left) / scale, (y - top) / scale)])
    desk.kept()
    desk.page.wait_for_function("() => window.terrazzo.state.saved.state === 'offline'")
    assert desk.js("() => state.saved.unsynced") >= 1
    desk.server.start()
    desk.saved()
    assert (desk.server.mask() == truth).all()


def test_an_answer_that_was_lost_is_asked_for_again_and_nothing_is_done_twice(desk: Desk) -> None:
    lost = []

    def lose(route: "Route") -> None:
        if lost:
            route.continue_()
            return
        lost.append(route.fetch().json())  # the server has it
        route.abort()

    desk.page.route("**/ops", lose)
    truth = drawn(scene(), desk.stroke([(50, 50), (300, 120)]))
    truth = drawn(truth, desk.stroke([(80, 150), (300, 220)]))
    desk.saved()
    assert (desk.server.mask() == truth).all()
    assert lost[0]["revision"] == 2
    assert desk.server.label()["revision"] == 3


def test_labelling_goes_on_while_the_server_is_away(desk: Desk) -> None:
    desk.server.kill()
    truth, before = scene(), time.monotonic()
    for number in range(4):
        truth = drawn(truth, desk.stroke([(50 + 90 * number, 80), (60 + 90 * number, 450)]))
    undone = desk.stroke([(20, 20), (500, 500)])
    desk.page.keyboard.press("Control+z")
    desk.kept()
    time.sleep(max(0.0, before + 5 - time.monotonic()))
    assert desk.js("() => [state.saved.state, state.read_only]") == ["offline", None]
    assert (desk.drawn == desk.drawn).all() and undone
    desk.server.start()
    desk.saved()
    assert (desk.server.mask() == truth).all()
    assert (desk.drawn == desk.server.objects()).all()


def test_a_full_disk_makes_the_page_read_only_and_keeps_the_journal(desk: Desk) -> None:
    problem = '{"title": "The disk is full.", "status": 507}'
    full = {"status": 507, "content_type": "application/problem+json", "body": problem}
    desk.page.route("**/ops", lambda route: route.fulfill(**full))
    truth = drawn(scene(), desk.stroke([(50, 50), (300, 120)]))
    desk.page.wait_for_function("() => window.terrazzo.state.read_only?.of === 'label'")
    desk.stroke([(80, 300), (300, 420)])  # refused, and said so
    assert desk.js("() => state.saved.unsynced") == 1
    assert (
        len(
            desk.page.evaluate(
                "async () => { const { sync } = window.terrazzo.editor; return await sync.journal.left(sync.where); }"
            )
        )
        == 1
    )
    desk.page.unroute("**/ops")
    desk.page.evaluate("() => window.terrazzo.editor.sync.retry()")
    desk.saved()
    desk.page.wait_for_function("() => window.terrazzo.state.read_only === null")
    assert (desk.server.mask() == truth).all()


def test_a_damaged_label_is_read_only_and_told_and_never_shown_as_empty(desk: Desk) -> None:
    server = desk.server
    server.stop()
    import sqlite3

    with sqlite3.connect(server.folder / "street.db") as db:
        db.execute("UPDATE tiles SET data = x'00' WHERE rowid IN (SELECT rowid FROM tiles LIMIT 1)")
    db.close()
    server.start()
    desk.page.reload()
    desk.ready(1)
    assert "cannot be read" in desk.js("() => state.read_only.says")
    desk.stroke([(50, 50), (300, 120)])
    assert desk.read("[editor.label.open, editor.undo.canUndo, editor.sync.waiting]") == [None, False, 0]
    assert desk.read("editor.painter.overlay.style.display") == "none"
    assert server.label()["revision"] == 1


def test_a_browser_killed_while_offline_sends_its_journal_when_it_is_opened_again(
    mortal: Mortal, server: Server
) -> None:
    context = mortal.start()
    desk = Desk.open(context, server, 1).choose("road").set(size=SIZE)
    truth = drawn(scene(), desk.stroke([(50, 50), (300, 120)]))
    desk.saved()
    context.set_offline(True)
    for number in range(3):
        truth = drawn(truth, desk.stroke([(50 + 90 * number, 80), (60 + 90 * number, 450)]))
    desk.choose("car")
    truth = drawn(truth, desk.stroke([(300, 60), (480, 90)]), CAR)
    desk.kept()
    assert desk.js("() => state.saved.unsynced") == 4
    mortal.kill()
    assert server.label()["revision"] == 2
    desk = Desk.open(mortal.start(), server, 1)
    desk.saved()
    assert (server.mask() == truth).all()
    assert (desk.drawn == server.objects()).all()
    assert desk.js("() => state.read_only") is None  # the lease of the tab that was killed is ours


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.long)])
def test_no_acknowledged_stroke_is_lost_by_any_kill(
    mortal: Mortal, server: Server, kills: int, record_property: Any
) -> None:
    """Half of them of the server, half of the browser: in the middle of a stroke, just after it, when it was kept.

    All six kinds of kills come in turn, so that six are enough to see each; where and when within it is diced.
    """
    dice = random.Random(kills)
    desk = opened(mortal, server)
    truth, strokes, gone, phases = scene(), 0, 0, {}
    for kill in range(kills):
        is_browser, colour = kill % 2 == 1, (ROAD, UNCLEAR)[kill // 2 % 2]
        phase = ("open", "just now", "kept")[kill // 2 % 3]
        desk.choose("road" if colour == ROAD else "unclear")
        for _ in range(dice.randrange(3)):
            truth = drawn(truth, desk.stroke(path(dice)), colour)
            strokes += 1
        desk.kept()
        begun = desk.stroke(path(dice), up=phase != "open")
        strokes += 1
        if phase == "just now":
            time.sleep(dice.uniform(0, 0.06))
        elif phase == "kept":
            desk.kept()
        if is_browser:
            mortal.kill()
            desk = opened(mortal, server)
        else:
            server.kill()
            if phase == "open":
                desk.page.mouse.up()
            time.sleep(dice.uniform(0, 0.3))
            server.start()
        desk.saved()
        found, whole = server.mask(), drawn(truth, begun, colour)
        may_be_gone = is_browser and phase != "kept"
        is_gone = may_be_gone and not (found == whole).all() and (found == truth).all()
        assert is_gone or (found == whole).all(), (
            f"kill {kill}, {phase}, of the {'browser' if is_browser else 'server'}"
        )
        assert (desk.drawn == server.objects()).all()
        truth = found
        gone += is_gone
        kind = f"{'browser' if is_browser else 'server'}, {phase}"
        phases[kind] = phases.get(kind, 0) + 1
    assert len(phases) == 6
    assert gone <= sum(number for kind, number in phases.items() if kind.startswith("browser"))
    told = "; ".join(f"{kind}: {number}" for kind, number in sorted(phases.items()))
    record_property(
        "counted", f"{kills} kills ({told}), {strokes} strokes: 0 acknowledged lost, {gone} open ones gone"
    )


def opened(mortal: Mortal, server: Server) -> Desk:
    """The editor, in a browser that has just been started."""
    return Desk.open(mortal.start(), server, 1).choose("road").set(size=SIZE)


def path(dice: random.Random) -> list[Point]:
    """A stroke of some points, anywhere on the image."""
    return [(dice.uniform(0, HW[1]), dice.uniform(0, HW[0])) for _ in range(dice.randint(1, 4))]


def test_the_journal_of_another_image_with_the_same_number_is_not_drawn_on_this_one(desk: Desk) -> None:
    desk.page.route("**/ops", lambda route: route.abort())
    desk.stroke([(50, 50), (300, 120)])
    desk.kept()
    where = "editor.sync.journal"
    desk.page.evaluate(f"""async () => {{
        const editor = window.terrazzo.editor, db = {where}.db;
        const store = db.transaction("operations", "readwrite").objectStore("operations");
        const all = store.getAll();
        const [one] = await new Promise((resolve) => {{ all.onsuccess = () => resolve(all.result); }});
        store.put({{ ...one, image: "0".repeat(64) }});
        await new Promise((resolve) => {{ store.transaction.oncomplete = resolve; }});
    }}""")
    desk.page.goto("about:blank")
    desk.page.unroute("**/ops")
    desk.go(1)
    desk.page.wait_for_function("() => window.terrazzo.editor.sync.waiting === 0")
    assert np.array_equal(desk.server.mask(), scene())
    assert desk.server.label()["revision"] == 1
