"""Keys in the editor: classes by digit and letter, presets without conflicts, and nothing while one types."""

from collections.abc import Iterator

import numpy as np
import pytest

from labelling.chromium import Desk, Server
from labelling.pages import street
from labelling.strokes import swept

HW = (60, 90)
ROAD, CAR, TREE = 1, 2, 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keys")
    street(folder, 2, hw=HW)
    with Server(folder) as running:
        yield running


def test_digits_choose_the_class_and_x_swaps_with_the_one_before(desk: Desk, server: Server) -> None:
    keys = desk.page.keyboard
    expected = np.zeros(HW, np.uint16)
    desk.set(size=6).tool("brush")
    for key, category, y in (("2", CAR, 10), ("3", TREE, 25), ("x", CAR, 40), ("x", TREE, 52)):
        keys.press(key)
        path = desk.stroke([(10, y), (70, y)])
        expected[swept(path, 6, HW)] = category
    desk.saved()
    assert (server.mask() == expected).all()
    current = desk.page.get_by_role("row", selected=True)
    assert current.get_by_role("button", pressed=True).first.get_attribute("title") == "tree"
    share = 100 * (expected == TREE).mean()
    assert f"{share:.0f} %" in current.inner_text()


def test_what_is_typed_into_a_field_is_no_key(desk: Desk, server: Server) -> None:
    page = desk.page
    desk.tool("brush")
    page.keyboard.press("1")
    before = server.label()["revision"]
    page.get_by_role("searchbox", name="Find a class").click()
    page.keyboard.type("b g v r x c 3 ?")
    page.keyboard.press("Backspace")
    page.keyboard.press("Control+z")  # the field's own
    assert desk.js("() => [state.tool, state.category, state.protect]") == ["brush", ROAD, False]
    assert page.get_by_role("dialog").count() == 0
    assert server.label()["revision"] == before
    page.keyboard.press("Escape")
    page.keyboard.press("c")  # by its letters, in the picker
    picker = page.get_by_role("dialog", name="Class to draw")
    page.keyboard.type("tr")
    assert picker.get_by_role("option").first.inner_text().startswith("tree")
    page.keyboard.press("Enter")
    picker.wait_for(state="detached")
    assert desk.js("() => [state.tool, state.category]") == ["brush", TREE]
    page.keyboard.press("c")
    page.keyboard.type("gutter")
    page.get_by_role("option", name="New class “gutter”").wait_for()
    page.keyboard.press("Escape")
    picker.wait_for(state="detached")
    assert "gutter" not in [one["name"] for one in server.get("/projects/street/categories")]


def test_no_preset_gives_a_key_twice_and_the_sheet_refuses_a_taken_one(desk: Desk) -> None:
    page = desk.page
    twice = page.evaluate(
        """async () => {
            const { PRESETS, list, usePreset } = await import("/static/keys.js");
            const found = [];
            for (const preset of Object.keys(PRESETS)) {
                usePreset(preset);
                const owners = new Map();
                for (const { id, chord, also } of list()) for (const one of new Set([chord, ...also])) {
                    if (owners.has(one)) found.push(`${preset}: ${one} of ${owners.get(one)} and ${id}`);
                    owners.set(one, id);
                }
            }
            usePreset("segments");
            return found;
        }"""
    )
    assert twice == []
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog", name="Keys")
    sheet.get_by_role("button", name="Brush: B").click()
    page.keyboard.press("x")
    sheet.get_by_text("X is already “Back to the class before”.").wait_for()
    sheet.get_by_role("button", name="Brush: B").click()
    page.keyboard.press("j")
    sheet.get_by_role("button", name="Brush: J").wait_for()
    page.keyboard.press("Escape")
    desk.tool("eraser")
    page.keyboard.press("b")
    assert desk.js("() => state.tool") == "eraser"
    page.keyboard.press("j")
    assert desk.js("() => state.tool") == "brush"
    page.reload()  # it is kept in this browser
    desk.ready(1).tool("eraser")
    page.keyboard.press("j")
    assert desk.js("() => state.tool") == "brush"
    page.keyboard.press("?")
    page.get_by_role("button", name="Reset my keys").click()
    page.get_by_role("dialog", name="Keys").get_by_role("button", name="Brush: B").wait_for()


def test_held_keys_end_when_they_are_let_go_or_the_window_is_left(desk: Desk) -> None:
    keys = desk.page.keyboard
    keys.down("i")
    assert desk.js("() => state.view.held") == "image"
    keys.up("i")
    assert desk.js("() => state.view.held") is None
    keys.down("l")
    assert desk.js("() => state.view.held") == "label"
    desk.page.evaluate("() => dispatchEvent(new Event('blur'))")  # the key is let go in another window
    assert desk.js("() => state.view.held") is None
    keys.up("l")
