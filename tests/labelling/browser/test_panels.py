"""The panels beside the canvas, names that are hostile, and a whole round of work without a mouse."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from labelling.chromium import Desk, Server
from labelling.pages import opened, statuses, street
from labelling.strokes import swept

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HW = (60, 90)
HOSTILE = "<img src=x onerror=alert(1)>"
ROAD, CAR, TREE = 1, 2, 3


@pytest.fixture(scope="module")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("panels")
    street(folder, 0)
    with Server(folder) as found:
        yield found


@pytest.fixture
def server(running_server: Server, request: pytest.FixtureRequest) -> Server:
    """The server, with a project of the test's own."""
    running_server.name = f"p{len(request.node.name)}"
    street(
        running_server.folder, 3, name=running_server.name, classes=("road", "car", "tree", HOSTILE), hw=HW
    )
    return running_server


def test_objects_issues_history_and_display_do_what_they_say(desk: Desk, server: Server) -> None:
    page = desk.page
    first = desk.choose("car").set(size=10).stroke([(20, 20), (30, 20)])
    second = desk.choose("tree").stroke([(60, 40), (70, 40)])
    desk.saved()
    drawn = np.zeros(HW, np.uint16)
    drawn[swept(first, 10, HW)] = CAR
    drawn[swept(second, 10, HW)] = TREE
    car = next(one["id"] for one in server.label()["annotations"] if one["category_id"] == CAR)

    page.keyboard.press("Alt+2")
    page.get_by_role("searchbox", name="Find objects").fill("car")
    row = page.get_by_role("list", name="Objects").get_by_role("button")
    assert row.count() == 1
    assert f"{(drawn == CAR).sum()} px" in row.inner_text()
    row.click()
    page.get_by_role("button", name="Class …").click()  # a class that is one area takes the pixels over
    page.keyboard.type("tree")
    page.keyboard.press("Enter")
    desk.saved()
    assert (server.mask() == np.where(drawn > 0, TREE, 0)).all()
    assert car not in [one["id"] for one in server.label()["annotations"]]
    page.keyboard.press("Control+z")
    desk.saved()
    assert (server.mask() == drawn).all()

    page.keyboard.press("Alt+4")
    restore = page.get_by_role("button", name="Restore revision 1", exact=True)
    restore.click()
    page.get_by_text("Revision 1 stands again.").wait_for()
    assert (server.mask() == np.where(drawn == CAR, CAR, 0)).all()

    page.keyboard.press("Alt+3")
    page.get_by_role("button", name="New issue at a pixel").click()
    x, y = desk.place((25.5, 20.5))
    page.mouse.click(x, y)
    page.get_by_role("dialog").get_by_role("textbox").fill("Is this a van?")
    page.get_by_role("button", name="Raise").click()
    page.get_by_role("textbox", name="Answer to issue").fill("A small one.")
    page.keyboard.press("Enter")
    page.get_by_text("A small one.").wait_for()
    pin = page.get_by_role("button", name="Issue at 25, 20")
    box = pin.bounding_box()
    assert box is not None
    assert abs(box["x"] + box["width"] / 2 - x) <= 8  # on its pixel
    assert server.get(server.sample(1))["issues"] == 1
    page.get_by_role("button", name="Resolve").click()
    pin.wait_for(state="detached")
    assert server.get(server.sample(1))["issues"] == 0
    assert (server.mask() == np.where(drawn == CAR, CAR, 0)).all()  # nothing was drawn by that click

    page.get_by_role("tab", name="Display").click()
    revision = server.label()["revision"]
    page.get_by_role("slider", name="Opacity of the label").fill("35")
    page.get_by_role("radio", name="Outline").check(force=True)
    page.get_by_role("slider", name="Contrast").fill("20")
    page.keyboard.press("Alt+1")
    page.get_by_role("button", name="Hide car").click()
    page.get_by_role("button", name="Lock car").click()
    assert desk.js("() => [state.view.opacity, state.view.mode, state.view.contrast, [...state.view.hidden]]") == [
        35, "outline", 20, [CAR],
    ]  # fmt: skip
    assert server.label()["revision"] == revision  # how it looks is not what it is
    before = server.mask()
    path = desk.choose("road").stroke([(20, 20), (40, 20)])
    desk.saved()
    assert (server.mask() == np.where(swept(path, 10, HW) & (before != CAR), ROAD, before)).all()


def test_merging_a_class_says_what_it_touches_and_moves_its_pixels(
    browser: "Browser", server: Server
) -> None:
    mask = np.zeros(HW, np.uint16)
    mask[10:20, 10:30], mask[40:50] = TREE, ROAD
    objects = [{"id": one, "category_id": one, "source": "manual", "attributes": {}} for one in (ROAD, TREE)]
    told = server.write(1, {(0, 0): mask}, objects)
    with opened(browser, server, f"#/{server.name}") as page:
        page.get_by_role("button", name="More on tree").click()
        page.get_by_role("menuitem", name="Merge into another class").click()
        dialog = page.get_by_role("dialog", name="Merge “tree”")
        dialog.get_by_text("1 label gets a new revision").wait_for()
        assert "200 pixels of “tree” become “road”" in dialog.inner_text()
        assert server.label()["revision"] == told["revision"]  # a plan changes nothing
        dialog.get_by_role("button", name="Merge").click()
        page.get_by_label("Name of tree").wait_for(state="detached")
    assert (server.mask() == np.where(mask > 0, ROAD, 0)).all()
    assert (server.mask(1, told["revision"]) == mask).all()  # history keeps it


def test_an_image_that_is_gone_is_told_and_the_next_one_opens(browser: "Browser", server: Server) -> None:
    (server.folder / f"{server.name}-photos" / "a-02.png").unlink()
    with opened(browser, server, f"#/{server.name}/1") as page:
        page.wait_for_function("() => window.terrazzo.editor")
        page.keyboard.press("PageDown")
        page.locator(".notice").get_by_text("a-02.png").wait_for()
        assert page.locator(".crumbs").inner_text().endswith("a-02.png")
        page.keyboard.press("PageDown")
        page.wait_for_function("() => window.terrazzo.editor?.sample.id === 3")
        assert page.locator(".notice").is_hidden()


def test_a_hostile_name_is_words_wherever_it_stands(browser: "Browser", server: Server) -> None:
    server.ask("POST", server.sample(1, "issues"), {"x": 5, "y": 5, "text": HOSTILE})
    with opened(browser, server, f"#/{server.name}") as page:
        page.get_by_label(f"Name of {HOSTILE}").wait_for()
        assert page.get_by_label(f"Name of {HOSTILE}").input_value() == HOSTILE
        page.get_by_role("button", name=f"More on {HOSTILE}").click()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Start labelling").click()
        page.wait_for_function("() => window.terrazzo.editor")
        desk = Desk(page, server)
        page.keyboard.press("4")
        desk.set(size=30).stroke([(20, 20), (60, 20)])
        desk.saved()
        page.get_by_role("button", name=HOSTILE, exact=False).first.wait_for()
        page.mouse.move(*desk.place((30, 20)))
        page.locator(".under").get_by_text(HOSTILE).wait_for()
        page.keyboard.press("c")
        page.get_by_role("option", name=HOSTILE).wait_for()
        page.keyboard.press("Escape")
        for tab in ("Alt+2", "Alt+3"):
            page.keyboard.press(tab)
            page.get_by_role("tabpanel").get_by_text(HOSTILE).first.wait_for()
        assert page.locator("img[src=x], img[onerror]").count() == 0


def test_a_whole_round_of_work_without_a_mouse(browser: "Browser", server: Server) -> None:
    with opened(browser, server) as page:
        keys = page.keyboard
        go(page, "link", server.name)
        keys.press("Enter")
        page.get_by_role("button", name="Start labelling").wait_for()
        problems = check(page)
        go(page, "textbox", "Name of the new class")
        keys.type("pole")
        keys.press("Enter")
        page.get_by_label("Name of pole").wait_for()
        go(page, "button", "Start labelling")
        keys.press("Enter")
        page.wait_for_function("() => window.terrazzo.editor")
        desk = Desk(page, server)
        desk.set(size=7)
        keys.press("c")
        keys.type("pole")
        keys.press("Enter")
        keys.press("b")
        for key in ("ArrowLeft", "ArrowUp", "p", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "p"):
            keys.press(key)
        desk.saved()
        step = max(1, round(10 / desk.view[0]))
        x, y = HW[1] // 2 - step + 0.5, HW[0] // 2 - step + 0.5
        corner = (x + 3 * step, y)
        expected = np.where(swept([(x, y), corner, (corner[0], y + step)], 7, HW), 5, 0)
        assert (server.mask() == expected).all()
        keys.press("Control+z")
        desk.saved()
        assert not server.mask().any()
        keys.press("Control+Shift+z")
        desk.saved()
        assert (server.mask() == expected).all()
        problems += check(page)
        for number in range(1, 7):
            keys.press(f"Alt+{number}")
            problems += check(page)
        keys.press("?")
        problems += check(page)
        keys.press("Escape")
        keys.press("Control+Enter")
        page.wait_for_function("() => window.terrazzo.editor?.sample.id === 2")
        go(page, "link", f"Back to {server.name}")
        keys.press("Enter")
        go(page, "button", "Create")
        keys.press("Enter")
        problems += check(page)
        keys.press("Enter")  # v1, as proposed
        page.locator("[data-release=v1]").wait_for()
        page.evaluate("document.getElementById('toasts').append(document.createElement('button'))")
        assert [one.partition(":")[0] for one in check(page)] == ["no name"]  # the check sees what is wrong
    assert statuses(server)["a-01.png"] == "labelled"
    assert [one["name"] for one in server.get(f"/projects/{server.name}/releases")["items"]] == ["v1"]
    assert problems == []


def go(page: "Page", role: str, name: str) -> None:
    """Press Tab until the focus is on something, and see that it can be seen."""
    wanted = page.get_by_role(role, name=name)  # type: ignore[arg-type]
    wanted.first.wait_for()
    for _ in range(80):
        page.keyboard.press("Tab")
        if wanted.first.evaluate("one => one === document.activeElement"):
            outline = wanted.first.evaluate("one => getComputedStyle(one).outlineStyle")
            assert outline != "none", f"the focus on {name} is not seen"
            return
    raise AssertionError(f"Tab never came to {role} {name}")


def check(page: "Page") -> list[str]:
    """What is wrong with roles and names on the page, by the rules that axe calls critical."""
    found: list[str] = page.evaluate(
        """() => {
            const wrong = [];
            const seen = (one) => one.getClientRects().length > 0 && getComputedStyle(one).visibility !== "hidden";
            const tell = (one, says) => wrong.push(`${says}: ${one.outerHTML.slice(0, 120)}`);
            const nameOf = (one) => {
                const by = one.getAttribute("aria-labelledby")?.split(" ").map((id) => document.getElementById(id));
                return [one.ariaLabel, by?.map((each) => each?.textContent).join(" "), one.labels?.[0]?.textContent,
                    one.textContent, one.querySelector?.("img")?.alt, one.title].find((text) => text?.trim()) ?? "";
            };
            const controls = "button, a[href], input, select, textarea, [role=tab], [role=option], dialog, [role=list]";
            for (const one of document.querySelectorAll(controls)) if (seen(one) && !nameOf(one)) tell(one, "no name");
            for (const one of document.querySelectorAll("img:not([alt])")) tell(one, "no alternative text");
            for (const one of document.querySelectorAll("[tabindex]")) if (one.tabIndex > 0) tell(one, "tab order");
            const links = ["aria-controls", "aria-labelledby", "aria-describedby", "for"];
            for (const one of document.querySelectorAll(links.map((key) => `[${key}]`).join()))
                for (const key of links)
                    for (const id of one.getAttribute(key)?.split(" ").filter(Boolean) ?? [])
                        if (seen(one) && !document.getElementById(id)) tell(one, `${key} leads nowhere`);
            const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
            for (const id of ids.filter((one, index) => ids.indexOf(one) !== index)) wrong.push(`twice: #${id}`);
            for (const one of document.querySelectorAll("button button, a a, button a, a button")) tell(one, "nested");
            for (const one of document.querySelectorAll("[role=tab]"))
                if (!one.closest("[role=tablist]")) tell(one, "a tab without a list");
            for (const one of document.querySelectorAll("[role=row]"))
                if (!one.closest("[role=grid]")) tell(one, "a row without a grid");
            if (document.querySelectorAll("main").length !== 1) wrong.push("not one main");
            if (!document.title || !document.documentElement.lang) wrong.push("no title, or no language");
            if (document.activeElement === document.body) wrong.push("focus is lost");
            return wrong;
        }"""
    )
    return found
