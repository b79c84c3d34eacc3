"""Superpixels, boxes and edges in a real Chromium; the truth is what NumPy makes of the API's own cells and masks."""

import base64
import itertools
import json
import time
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from labelled import make_project
from labelling.chromium import WAIT, Desk, Server
from terrazzo.data.scenes import scene
from terrazzo.labelling.superpixels import Superpixels, unpack

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

pytest.importorskip("cv2", reason="OpenCV, of the extra label, is not installed")
HW = (600, 800)
STREET, DISC = 2, 1  # samples, by name
ROUND = np.hypot(*(np.mgrid[: HW[0], : HW[1]] + 0.5 - np.array([300, 400])[:, None, None])) <= 150


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("assistance")
    photos = folder / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0).normal(0, 8, (*HW, 3))
    disc = np.where(ROUND[..., None], (170, 60, 50), (90, 110, 100)) + noise
    Image.fromarray(np.clip(disc, 0, 255).astype(np.uint8)).save(photos / "disc.png")
    Image.fromarray(scene(11, size_hw=HW).image).save(photos / "street.png")
    with make_project(folder, names=()) as project:
        says = np.where(np.arange(HW[1]) < HW[1] // 2, 1, 2)[None].repeat(HW[0], 0)
        sure = np.full(HW, 200, np.uint8)
        project.predictions.add("photos/street.png", says, sure, model="0123")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERRAZZO_SAM", "none")
        with Server(folder) as one:
            yield one


@pytest.fixture
def sample() -> int:
    """The image that is opened, where a test does not say another."""
    return STREET


@pytest.fixture
def desk(browser: "Browser", server: Server, sample: int) -> Iterator[Desk]:
    told = server.label(sample)
    if told["revision"]:
        words = {"revision": 0, "base_revision": told["revision"]}
        server.ask("POST", server.sample(sample, "restore"), words)
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    desk = Desk.open(context, server, sample)
    yield desk
    desk.leave()
    context.close()


def cells_of(desk: Desk, sample: int = STREET) -> Superpixels:
    """The cells as any client gets them, once the page has them too."""
    desk.tool("superpixel")
    until(desk, "editor.active.has(editor).layers === 1")
    return unpack(desk.server.ask("GET", desk.server.sample(sample, "superpixels")))


def until(desk: Desk, claim: str) -> None:
    """Wait until something is true of `editor`."""
    body = f"() => {{ const {{ editor }} = window.terrazzo; return {claim}; }}"
    desk.page.wait_for_function(body, timeout=1000 * WAIT)


def cell_at(cells: np.ndarray, point: tuple[float, float]) -> np.ndarray:
    return cells == cells[int(point[1]), int(point[0])]


def middle_of(cell: np.ndarray) -> tuple[float, float]:
    """A pixel well inside a cell: the last to go when it is worn off from outside."""
    ndimage = pytest.importorskip("scipy.ndimage")
    deep = ndimage.distance_transform_cdt(np.pad(cell, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(np.argmax(deep), cell.shape)
    return float(x) + 0.5, float(y) + 0.5


def large_cells(cells: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Places inside the largest cells of a map."""
    order = np.argsort(np.bincount(cells.ravel()))[::-1]
    return [middle_of(cells == number) for number in order[:count]]


def test_the_wheel_changes_the_number_of_cells_and_asks_nobody(desk: Desk) -> None:
    cells = cells_of(desk)
    desk.set("superpixel", level=4)
    scale, left, top = desk.view
    desk.page.mouse.move(left + 300 * scale, top + 200 * scale)
    desk.page.wait_for_timeout(300)
    asked, scrolled = len(desk.asked), desk.page.evaluate("() => scrollY")
    seen, steps = [], []
    for turn in (-1, -1, 1, 1, 1, 1, 1, 1, 1, -1):  # up and down, past the coarsest
        desk.page.mouse.wheel(0, 100 * turn)
        desk.page.wait_for_timeout(60)
        seen.append(desk.read("editor.active.count(editor)"))
        steps.append(desk.read("editor.active.took"))
    level = 3
    wanted = []
    for turn in (-1, -1, 1, 1, 1, 1, 1, 1, 1, -1):
        level = min(max(level - turn, 0), len(cells.counts) - 1)
        wanted.append(cells.counts[level])
    assert seen == wanted
    heartbeats = ("/events", "/lease")
    assert [url for url in desk.asked[asked:] if not url.endswith(heartbeats)] == []
    assert desk.page.evaluate("() => scrollY") == scrolled
    assert sorted(steps)[len(steps) // 2] < 120  # ms to draw all boundaries; 30 on a quiet machine
    desk.quiet()


@pytest.mark.parametrize("ratio", [1, 2])
def test_boundaries_are_drawn_where_cells_meet(browser: "Browser", server: Server, ratio: int) -> None:
    """Every pixel of the picture, by NumPy: drawn where the cell under its middle is not that of its neighbours."""
    context = browser.new_context(viewport={"width": 900, "height": 700}, device_scale_factor=ratio)
    desk = Desk.open(context, server, STREET)
    cells = cells_of(desk).spread(3)
    desk.set("superpixel", level=4, model=False)
    for zoom in ("fit()", "zoomTo({x0: 300, y0: 200, x1: 420, y1: 300})"):
        desk.js(f"() => {{ state.editor.view.{zoom}; state.editor.painter.draw(); }}")
        scale, x, y, width, height = desk.read(
            "(({ view: { scale, x, y }, active: { picture } }) => [scale, x, y, picture.width, picture.height])(editor)"
        )
        packed = desk.page.evaluate("""() => {
            const { picture } = window.terrazzo.editor.active;
            const { data } = picture.getContext("2d").getImageData(0, 0, picture.width, picture.height);
            return Array.from({ length: data.length / 4 }, (_, i) => (data[4 * i + 3] ? "1" : "0")).join("");
        }""")
        drawn = np.frombuffer(packed.encode(), np.uint8).reshape(height, width) == ord("1")
        columns = np.floor((np.arange(width) + 0.5 - x) / scale).astype(int)
        rows = np.floor((np.arange(height) + 0.5 - y) / scale).astype(int)
        seen = np.full((height, width), -1)
        inside = np.ix_((rows >= 0) & (rows < HW[0]), (columns >= 0) & (columns < HW[1]))
        seen[inside] = cells[
            np.ix_(rows[(rows >= 0) & (rows < HW[0])], columns[(columns >= 0) & (columns < HW[1])])
        ]
        truth = np.zeros((height, width), bool)
        truth[:, 1:] |= seen[:, 1:] != seen[:, :-1]
        truth[1:] |= seen[1:] != seen[:-1]
        assert drawn.any() and np.array_equal(drawn, truth)
    desk.quiet()
    desk.leave()
    context.close()


def test_a_click_paints_a_cell_and_another_click_takes_it_back(desk: Desk, server: Server) -> None:
    cells = cells_of(desk).spread(4)
    desk.choose("road").set("superpixel", level=5)
    one, other = large_cells(cells, 2)
    desk.click(one)
    desk.click(other)
    desk.saved()
    both = cell_at(cells, one) | cell_at(cells, other)
    assert np.array_equal(server.mask(STREET), np.where(both, 1, 0))
    assert {a["source"] for a in server.label(STREET)["annotations"]} == {"superpixel"}
    desk.click(one)
    desk.saved()
    assert np.array_equal(server.mask(STREET), np.where(cell_at(cells, other), 1, 0))
    desk.page.keyboard.press("Enter")  # a click where the pointer is
    desk.saved()
    assert np.array_equal(server.mask(STREET), np.where(both, 1, 0))
    desk.page.keyboard.press("Enter")
    desk.page.keyboard.press("Control+KeyZ")
    desk.saved()
    assert np.array_equal(server.mask(STREET), np.where(both, 1, 0))
    desk.quiet()


def test_a_drag_paints_all_cells_it_touches_as_one_stroke(desk: Desk, server: Server) -> None:
    cells = cells_of(desk).spread(2)
    desk.choose("road").set("superpixel", level=3)
    path = desk.stroke([(100, 420), (300, 500), (620, 470)])
    desk.saved()
    t = np.linspace(0, 1, 40_000)
    passed = [
        cells[(ay + t * (by - ay)).astype(int), (ax + t * (bx - ax)).astype(int)]
        for (ax, ay), (bx, by) in itertools.pairwise(path)
    ]
    touched = np.isin(cells, np.concatenate(passed))
    painted = server.mask(STREET) == 1
    assert np.array_equal(painted, touched)
    assert server.label(STREET)["revision"] == len(server.get(server.sample(STREET, "history"))["items"])
    desk.page.keyboard.press("Control+KeyZ")
    desk.saved()
    assert not server.mask(STREET).any()


def test_what_was_painted_coarse_can_be_taken_back_in_finer_pieces(desk: Desk, server: Server) -> None:
    superpixels = cells_of(desk)
    coarse, fine = superpixels.spread(5), superpixels.spread(2)
    desk.choose("road").set("superpixel", level=6)
    place = large_cells(coarse, 1)[0]
    desk.click(place)
    scale, left, top = desk.view
    desk.page.mouse.move(left + place[0] * scale, top + place[1] * scale)
    for _ in range(3):
        desk.page.mouse.wheel(0, 100)
    desk.page.wait_for_timeout(100)
    assert desk.read("editor.option('superpixel', 'level')") == 3
    desk.click(place)
    desk.saved()
    assert np.array_equal(server.mask(STREET) == 1, cell_at(coarse, place) & ~cell_at(fine, place))


def test_e_held_erases_cells_whoever_painted_them(desk: Desk, server: Server) -> None:
    cells = cells_of(desk).spread(4)
    desk.choose("road").set("superpixel", level=5)
    one, other = large_cells(cells, 2)
    desk.click(one)
    desk.click(other)
    desk.tool("brush")  # another tool, and back: what was painted is still there
    desk.tool("superpixel")
    desk.stroke([one, one], hold=["KeyE"])
    desk.saved()
    assert np.array_equal(server.mask(STREET) == 1, cell_at(cells, other))


def test_a_click_takes_back_what_this_tool_painted_and_nothing_else(desk: Desk, server: Server) -> None:
    cells = cells_of(desk).spread(5)
    place = large_cells(cells, 1)[0]
    desk.choose("road").tool("brush").set("brush", size=20).click(place)
    desk.saved()
    brushed = server.mask(STREET) == 1
    assert brushed.any() and (brushed & cell_at(cells, place)).any()
    desk.tool("superpixel").set("superpixel", level=6)
    desk.click(place)
    desk.click(place)
    desk.saved()
    assert np.array_equal(server.mask(STREET) == 1, brushed)


def test_protection_holds_for_cells(desk: Desk, server: Server) -> None:
    cells = cells_of(desk).spread(5)
    place = large_cells(cells, 1)[0]
    desk.choose("unclear").tool("brush").set("brush", size=20).click(place)
    desk.change(protect=True)
    desk.choose("road").tool("superpixel").set("superpixel", level=6)
    desk.click(place)
    desk.saved()
    found = server.mask(STREET)
    unclear = found == 3
    assert unclear.any() and np.array_equal(found == 1, cell_at(cells, place) & ~unclear)


def test_sharpened_cells_lie_over_the_rest(desk: Desk, server: Server) -> None:
    whole = cells_of(desk)
    desk.choose("road").set("superpixel", level=3)
    desk.js("() => state.editor.view.zoomTo({x0: 200, y0: 150, x1: 500, y1: 400})")
    with desk.page.expect_response(lambda one: "superpixels?box=" in one.url and one.status == 200) as got:
        desk.set("superpixel", sharp=True)
    part = unpack(got.value.body())
    x0, y0, x1, y1 = part.box
    until(desk, "editor.active.has(editor).layers === 2")
    inside = part.spread(2)
    cell = inside == inside[290 - y0, 350 - x0]
    desk.click((350.5, 290.5))
    desk.saved()
    truth = np.zeros(HW, bool)
    truth[y0:y1, x0:x1] = cell
    assert np.array_equal(server.mask(STREET) == 1, truth)
    assert whole.fine.shape == HW
    desk.set("superpixel", sharp=False)


@pytest.mark.parametrize("sample", [DISC])
def test_a_box_becomes_a_mask_that_enter_paints(desk: Desk, server: Server) -> None:
    desk.choose("car").tool("box")
    with desk.page.expect_response(lambda one: one.url.endswith("/assist/grabcut")) as got:
        desk.stroke([(235, 135), (400, 300), (565, 465)])
    told = got.value.json()
    note = desk.page.get_by_role("status").filter(has_text="GrabCut")
    note.filter(has_text="Enter paints it").wait_for(timeout=1000 * WAIT)
    assert not server.mask(DISC).any()  # a proposal is no label
    desk.page.keyboard.press("Enter")
    desk.saved()
    truth = np.zeros(HW, bool)
    data = np.frombuffer(zlib.decompress(base64.b64decode(told["data"])), np.uint8)
    part = data.reshape(told["height"], told["width"]) == 1
    truth[told["y"] : told["y"] + told["height"], told["x"] : told["x"] + told["width"]] = part
    found = server.mask(DISC) == 2
    assert np.array_equal(found, truth)
    assert (found & ROUND).sum() / (found | ROUND).sum() > 0.98
    (one,) = server.label(DISC)["annotations"]
    assert one["source"] == "grabcut"

    with desk.page.expect_response(lambda one: one.url.endswith("/assist/grabcut")):
        desk.stroke([(235, 135), (400, 300), (565, 465)])
    with desk.page.expect_response(lambda one: one.url.endswith("/assist/grabcut")) as got:
        desk.click((400, 300), button="right")
    prompt = json.loads(got.value.request.post_data or "{}")
    assert len(prompt["negative"]) == 1 and not prompt["positive"]
    desk.page.keyboard.press("Escape")
    desk.page.keyboard.press("Enter")
    desk.page.wait_for_timeout(200)
    assert np.array_equal(server.mask(DISC) == 2, truth)  # what was dropped is not painted
    desk.quiet()


def test_without_sam_hovering_offers_superpixels(desk: Desk, server: Server) -> None:
    superpixels = cells_of(desk)
    desk.choose("road").tool("hover").set("hover", level=6)
    cells, finer = superpixels.spread(5), superpixels.spread(3)
    place = large_cells(cells, 1)[0]
    desk.click(place, button="right")  # a part of it is out
    desk.click(place)
    desk.saved()
    assert np.array_equal(server.mask(STREET) == 1, cell_at(cells, place) & ~cell_at(finer, place))
    desk.quiet()


@pytest.mark.parametrize("sample", [DISC])
def test_a_polygon_with_shift_held_follows_the_edge(desk: Desk, server: Server) -> None:
    """Four clicks on a circle of radius 150 and one to close: a square by its corners, the disc by its edge."""
    corners = [(250.0, 300.0), (400.0, 150.0), (550.0, 300.0), (400.0, 450.0), (250.0, 300.0)]
    desk.choose("road").tool("polygon")
    desk.click(corners[0])
    desk.page.keyboard.down("Shift")
    for corner in corners[1:]:
        with desk.page.expect_response(lambda one: one.url.endswith("/assist/scissors") and one.ok):
            desk.page.mouse.move(*desk.place(corner))
        desk.page.wait_for_function("() => !window.terrazzo.editor.active.asking", timeout=1000 * WAIT)
        desk.click(corner)
    desk.page.keyboard.up("Shift")
    desk.saved()
    found = server.mask(DISC) == 1
    assert (found & ROUND).sum() / (found | ROUND).sum() > 0.98
    rows, columns = np.nonzero(found != ROUND)
    assert (np.abs(np.hypot(rows + 0.5 - 300, columns + 0.5 - 400) - 150) <= 3).mean() > 0.98
    desk.quiet()


def test_cells_are_coloured_and_painted_as_the_model_says(desk: Desk, server: Server) -> None:
    """A model that says road on the left and car on the right: the majority of each cell, by NumPy."""
    superpixels = cells_of(desk)
    cells = superpixels.spread(5)
    left, right = (
        next(place for place in large_cells(cells, 30) if is_in(place[0]))
        for is_in in (lambda x: x < 350, lambda x: x > 450)
    )
    with desk.page.expect_response(lambda one: "/predictions/" in one.url and one.ok):
        desk.choose("unclear").set("superpixel", level=6, paints="model", model=True)
    until(desk, "editor.active.has(editor).model")
    desk.click(left)
    desk.click(right)
    desk.saved()
    says = np.where(np.arange(HW[1]) < HW[1] // 2, 1, 2)[None].repeat(HW[0], 0)
    truth = np.zeros(HW, int)
    for place in (left, right):
        cell = cell_at(cells, place)
        truth[cell] = np.bincount(says[cell]).argmax()
    assert set(np.unique(truth)) == {0, 1, 2}
    assert np.array_equal(server.mask(STREET), truth)
    asked = len(desk.asked)
    place = desk.place(right)
    desk.page.mouse.wheel(0, 100)
    desk.page.mouse.wheel(0, -100)
    desk.page.wait_for_timeout(150)
    assert [url for url in desk.asked[asked:] if "predictions" in url] == []
    desk.page.mouse.click(*place)  # and back
    desk.saved()
    assert np.array_equal(server.mask(STREET), np.where(truth == 2, 0, truth))
    desk.quiet()


@pytest.mark.parametrize("sample", [DISC])
def test_grabcut_answers_while_sam_reads_the_image(desk: Desk, server: Server) -> None:
    """The page's side alone: SAM is played by the test, its answer is a square of four pixels."""
    asked: list[dict] = []
    square = {"x": 10, "y": 20, "width": 4, "height": 4, "engine": "SAM 2", "ms": 7,
              "data": base64.b64encode(zlib.compress(bytes([1] * 16))).decode()}  # fmt: skip
    is_read = False

    def answer(route: "Route") -> None:
        asked.append(json.loads(route.request.post_data or "{}"))
        route.fulfill(json=square) if is_read else route.fulfill(json={"job": "sam"}, status=202)

    def job(route: "Route") -> None:
        route.fulfill(
            json={"id": "sam", "state": "done" if is_read else "running", "result": {}, "progress": 0.5}
        )

    desk.page.route("**/assist/sam", answer)
    reads: list[tuple[int, str]] = []

    def read(route: "Route") -> None:
        number = int(route.request.url.split("/")[-3])
        reads.append((number, "read"))
        route.fulfill(json={"job": "next"}, status=202) if number != DISC else route.fulfill(json={})

    def give_up(route: "Route") -> None:
        reads.append((STREET, route.request.method))
        route.fulfill(json={})

    desk.page.route("**/assist/embedding", read)
    desk.page.route("**/api/v1/jobs/sam", job)
    desk.page.route("**/api/v1/jobs/next", give_up)
    desk.js("tools => change({project: {...state.project, tools: {...state.project.tools, ...tools}}})",
            {"sam": {"ready": True, "says": "SAM 2"}})  # fmt: skip
    desk.choose("car").tool("box")
    note = desk.page.locator(".tool-note")
    desk.stroke([(235, 135), (400, 300), (565, 465)])
    note.filter(has_text="GrabCut (SAM reads the image)").wait_for(timeout=1000 * WAIT)
    is_read = True
    note.filter(has_text="SAM 2, 7 ms").wait_for(timeout=1000 * WAIT)
    desk.page.keyboard.press("Enter")
    desk.saved()
    truth = np.zeros(HW, int)
    truth[20:24, 10:14] = 2
    assert np.array_equal(server.mask(DISC), truth)
    assert [one["source"] for one in server.label(DISC)["annotations"]] == ["sam"]

    desk.tool("hover")
    asked.clear()
    scale, left, top = desk.view
    began = time.monotonic()
    for step in range(60):
        desk.page.mouse.move(left + (100 + step) * scale, top + 300 * scale)
        desk.page.wait_for_timeout(10)
    seconds = time.monotonic() - began
    desk.page.wait_for_timeout(300)
    assert 2 <= len(asked) <= 10 * seconds + 3  # ten a second at most
    assert asked[-1]["positive"][0] == pytest.approx([159, 300], abs=1)  # the newest place is not forgotten
    with desk.page.expect_request(
        lambda one: one.url.endswith("/assist/sam") and '"negative":[[' in (one.post_data or "")
    ):
        desk.click((250, 300), button="right")
    assert reads[:2] == [(DISC, "read"), (STREET, "read")]  # the open image, then the next
    assert (STREET, "DELETE") not in reads
    desk.quiet()


@pytest.mark.parametrize("sample", [DISC])
def test_where_no_model_has_looked_that_is_said_once(desk: Desk) -> None:
    cells_of(desk, DISC)
    before = len(desk.asked)
    desk.set("superpixel", model=True)
    desk.page.get_by_text("No model has looked at this image yet.").wait_for(timeout=1000 * WAIT)
    assert desk.read("editor.option('superpixel', 'model')") is False
    assert sum("/predictions" in url for url in desk.asked[before:]) == 1
    desk.quiet()
