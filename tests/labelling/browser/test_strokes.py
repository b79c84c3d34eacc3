"""Drawing on the page, in a real Chromium: what is drawn is, pixel by pixel, what NumPy says of the pointer's path."""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from labelled import HW, make_project, scene
from labelling.chromium import Desk, Server
from labelling.strokes import Point, covered, inside, swept

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROAD, CAR, UNCLEAR = 1, 2, 3
SAMPLES = 40
SIZE = {"width": 1000, "height": 720}
Opener = Callable[..., Desk]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Many images of 530 x 520 pixels, two by two tiles, nothing drawn on any."""
    folder = tmp_path_factory.mktemp("street")
    make_project(folder, names=tuple(f"photos/{number:02d}.png" for number in range(SAMPLES))).close()
    with Server(folder) as running:
        yield running


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture(scope="module")
def window(browser: "Browser", server: Server) -> Iterator[Desk]:
    """The page, opened once: images follow each other in it, as they do for people."""
    context = browser.new_context(viewport=SIZE)
    yield Desk(context.new_page(), server)
    context.close()


@pytest.fixture
def desk(browser: "Browser", server: Server, window: Desk, numbers: Iterator[int]) -> Iterator[Opener]:
    """Opens the next image that nobody drew on; its `number` is that of the sample. Nothing may be complained of."""
    opened: list[Desk] = []

    def opener(*, mask: Any = None, **words: Any) -> Desk:
        number = next(numbers)
        if mask is not None:
            write(server, number, mask)
        one = Desk(browser.new_context(viewport=SIZE, **words).new_page(), server) if words else window
        one.go(number)
        if one is window:
            one.page.evaluate(
                "document.getElementById('toasts').replaceChildren()"
            )  # they lie over the stage
            one.js(
                "() => change({protect: false, locked: new Set(), category: 0, previous: 0, selection: 0})"
            )
            one.set(size=24, shape="circle").tool("brush").read("editor.view.fit()")
        opened.append(one)
        return one

    yield opener
    for one in opened:
        one.quiet()
        if one is not window:
            one.page.context.close()


def write(server: Server, number: int, mask: Any) -> None:
    """Let a label be this, object ids being category ids."""
    tiles = {
        (row, col): mask[row * 512 : row * 512 + 512, col * 512 : col * 512 + 512]
        for row in range(2)
        for col in range(2)
    }
    present = [int(one) for one in np.unique(mask) if one]
    annotations = [{"id": one, "category_id": one, "source": "manual", "attributes": {}} for one in present]
    server.write(number, tiles, annotations)


def differing(desk: Desk, truth: Any) -> int:
    """How many pixels of what the server has differ from the truth, once everything is there."""
    desk.saved()
    return int((desk.server.mask(desk.number) != truth).sum())


def test_the_page_loads_without_a_complaint_and_asks_no_other_machine(desk: Opener) -> None:
    one = desk(mask=scene())
    assert one.read("[editor.label.width, editor.label.height]") == [HW[1], HW[0]]
    told = one.server.objects(one.number)
    assert (one.drawn == told).all()
    counts = {id: int(n) for id, n in zip(*np.unique(told, return_counts=True), strict=True)}
    assert one.read("[0, 1, 2, 3].map((id) => editor.label.counts[id])") == [counts[id] for id in range(4)]
    one.quiet()


@pytest.mark.parametrize("shape", ["circle", "square"])
@pytest.mark.parametrize("size", [1, 2, 9, 64])
def test_a_brush_stroke_is_the_union_of_the_shape_along_the_path(desk: Opener, shape: str, size: int) -> None:
    one = desk().choose("road").set(size=size, shape=shape)
    strokes: list[list[Point]] = [
        [(40, 60), (180, 75), (181, 200), (60, 130)],
        [
            (490, 500),
            (519, 529),
            (530, 480),
            (440, 515),
        ],  # over the corner of four tiles, and out of the image
        [(300, 300)],
    ]
    truth = np.zeros(HW, np.uint16)
    for stroke in strokes:
        heard = one.stroke(stroke)
        truth[covered(heard, size, HW, square=shape == "square")] = ROAD
    assert differing(one, truth) == 0
    history = one.server.get(one.server.sample(one.number, "history"))["items"]
    assert [revision["tool"] for revision in history] == ["brush"] * 3


def test_erasing_with_e_held_or_with_the_eraser_leaves_nothing_under_it(desk: Opener) -> None:
    one = desk(mask=scene()).choose("road").set(size=30).set("eraser", size=20)
    truth = scene()
    truth[swept(one.stroke([(100, 300), (200, 420)], hold=["e"]), 30, HW)] = 0
    truth[swept(one.tool("eraser").stroke([(300, 300), (350, 500)]), 20, HW)] = 0
    assert differing(one, truth) == 0


def test_three_undone_and_redone_give_the_same_hashes_back(desk: Opener) -> None:
    one = desk(mask=scene()).set(size=25)
    hashes = [one.server.label(one.number)["tree_hash"]]
    for number, name in enumerate(("road", "car", "unclear")):  # a car is a new object, unclear a first one
        one.choose(name).stroke([(50 + 90 * number, 100), (90 + 90 * number, 400)])
        one.saved()
        hashes.append(one.server.label(one.number)["tree_hash"])
    assert len(set(hashes)) == 4
    for key, wanted in (
        ("Control+z", hashes[2::-1]),
        ("Control+Shift+z", hashes[1:]),
        ("Control+z", hashes[2::-1]),
    ):
        for expected in wanted:
            one.page.keyboard.press(key)
            one.saved()
            assert one.server.label(one.number)["tree_hash"] == expected
    assert (one.drawn == one.server.objects(one.number)).all()


@pytest.mark.parametrize("ratio", [1, 2])
def test_zoomed_and_panned_strokes_land_on_the_pixels_that_are_seen(desk: Opener, ratio: int) -> None:
    one = desk(device_scale_factor=ratio).choose("road").set(size=11)
    truth = np.zeros(HW, np.uint16)
    for zoom in (
        "editor.view.zoomAt(300, 300, 3.3)",
        "editor.view.pan(-317, 122)",
        "editor.view.zoomAt(200, 100, 0.21)",
    ):
        one.read(zoom)
        scale, _, _ = one.view
        x, y = one.read("editor.view.toImage(editor.view.width / 2, editor.view.height / 2)")
        heard = one.stroke([(x, y), (x + 60 / scale, y + 30 / scale), (x - 50 / scale, y + 45 / scale)])
        truth[swept(heard, 11, HW)] = ROAD
    assert differing(one, truth) == 0
    assert truth.any()


def test_what_is_seen_is_what_is_drawn(desk: Opener) -> None:
    """The overlay's pixels, where the image is black: the nearest pixel of the label, in its class's colour."""
    one = desk(mask=scene())
    one.js("() => changeView({opacity: 100, mode: 'fill'})")
    for zoom in ("editor.view.fit()", "editor.view.zoomAt(100, 500, 7.3)"):
        one.read(zoom)
        seen = one.read("""(() => {
            editor.painter.draw();
            const { width, height } = editor.painter.overlay, { scale, x, y, ratio } = editor.view;
            return { width, height, scale: scale * ratio, x: x * ratio, y: y * ratio };
        })()""")
        picture = (
            "getContext('2d').getImageData(0, 0, editor.painter.overlay.width, editor.painter.overlay.height)"
        )
        data = one.bytes(f"editor.painter.overlay.{picture}.data")
        shown = np.frombuffer(data, np.uint8).reshape(seen["height"], seen["width"], 4)
        xs = np.floor((np.arange(seen["width"]) + 0.5 - seen["x"]) / seen["scale"]).astype(int)
        ys = np.floor((np.arange(seen["height"]) + 0.5 - seen["y"]) / seen["scale"]).astype(int)
        is_in = ((ys >= 0) & (ys < HW[0]))[:, None] & ((xs >= 0) & (xs < HW[1]))[None]
        truth = scene()[np.clip(ys, 0, HW[0] - 1)[:, None], np.clip(xs, 0, HW[1] - 1)[None]] * is_in
        for category, colour in ((ROAD, (128, 64, 128)), (CAR, (0, 0, 142))):
            assert (shown[truth == category][:, :3] == colour).all()
        assert (shown[truth == 0] == 0).all()
        assert (truth == ROAD).sum() > 10_000


def test_a_polygon_and_a_hole_in_it(desk: Opener) -> None:
    one = desk().choose("road").tool("polygon")
    corners: list[Point] = [(60, 60), (400, 80), (430, 300), (200, 420)]
    heard = [one.click(corner) for corner in corners]
    one.page.keyboard.press("Enter")
    truth = np.zeros(HW, np.uint16)
    truth[inside(heard, HW)] = ROAD
    assert differing(one, truth) == 0
    hole = [one.click(corner) for corner in [(200, 150), (300, 160), (500, 500)]]
    one.page.keyboard.press("Backspace")  # the last corner was wrong
    hole = [*hole[:2], one.click((250, 250))]
    one.page.keyboard.down("e")
    one.page.keyboard.press("Enter")
    one.page.keyboard.up("e")
    truth[inside(hole, HW)] = 0
    assert differing(one, truth) == 0


def test_a_polygon_drawn_freehand_is_what_the_line_surrounds(desk: Opener) -> None:
    one = desk().choose("car").tool("polygon")
    heard = one.stroke([(300 + 90 * np.cos(a), 250 + 90 * np.sin(a)) for a in np.linspace(0, 6.1, 40)])
    one.page.keyboard.press("Enter")
    truth = np.zeros(HW, np.uint16)
    truth[inside(heard, HW)] = CAR
    assert differing(one, truth) == 0


def test_the_wheel_sets_the_size_and_the_page_does_not_scroll(desk: Opener) -> None:
    one = desk().choose("road").set(size=24)
    one.page.mouse.move(*one.place((260, 260)))
    for turn, larger in ((-100, True), (-100, True), (100, False)):
        before = one.read("editor.option('brush', 'size')")
        one.page.mouse.wheel(0, turn)
        one.page.wait_for_function(
            "old => window.terrazzo.editor.option('brush', 'size') !== old", arg=before
        )
        assert (one.read("editor.option('brush', 'size')") > before) == larger
    before = one.read("editor.option('brush', 'size')")
    one.page.keyboard.press("BracketRight")
    assert one.read("editor.option('brush', 'size')") > before
    scale = one.view[0]
    one.page.keyboard.down("Control")
    one.page.mouse.wheel(0, -100)
    one.page.keyboard.up("Control")
    one.page.wait_for_function("old => window.terrazzo.editor.view.scale > old", arg=scale)
    assert one.page.evaluate("[scrollX, scrollY]") == [0, 0]


def test_protected_and_locked_labels_stay_bit_identical(desk: Opener) -> None:
    one = desk(mask=scene()).choose("car").set(size=60)
    truth = scene()
    path: list[Point] = [(50, 200), (400, 330), (510, 525)]
    one.change(protect=True)
    drawn = swept(one.stroke(path), 60, HW)
    truth[drawn & (scene() == 0)] = CAR
    assert differing(one, truth) == 0
    one.change(protect=False)
    one.js("() => change({locked: new Set([1])})")
    erased = swept(one.stroke([(x + 20, y) for x, y in path], hold=["e"]), 60, HW)
    truth[erased & (truth != ROAD)] = 0
    assert differing(one, truth) == 0
    assert (truth[erased] == ROAD).any()


def test_shift_and_a_click_draw_a_straight_line_from_the_last_stroke(desk: Opener) -> None:
    one = desk().choose("road").set(size=12)
    start = one.stroke([(100, 100), (120, 140)])
    one.page.keyboard.down("Shift")
    end = one.click((400, 300))
    one.page.keyboard.up("Shift")
    truth = np.zeros(HW, np.uint16)
    truth[swept(start, 12, HW) | swept([start[-1], end], 12, HW)] = ROAD
    assert differing(one, truth) == 0


def test_things_are_objects_of_their_own_and_stuff_is_one(desk: Opener) -> None:
    one = desk().set(size=20).choose("road")
    for x in (60, 300):
        one.stroke([(x, 60), (x + 40, 60)])
    one.choose("car")
    for x in (60, 300):
        one.stroke([(x, 200), (x + 40, 200)])  # a stroke goes on with the current car
    one.page.keyboard.press("Enter")  # the next one is another car
    one.stroke([(450, 200), (480, 200)])
    one.tool("polygon")
    for x in (60, 300):
        for corner in ((x, 300), (x + 50, 300), (x, 350)):
            one.click(corner)
        one.page.keyboard.press("Enter")  # each polygon is a car
    one.saved()
    listed = one.server.label(one.number)["annotations"]
    assert [each["category_id"] for each in listed] == [ROAD, CAR, CAR, CAR, CAR]
    assert sorted(np.unique(one.server.objects(one.number))) == [0, 1, 2, 3, 4, 5]


def test_select_removes_an_object_and_changes_what_it_is(desk: Opener) -> None:
    one = desk(mask=scene()).tool("select")
    before = one.server.label(one.number)
    one.click((200, 400))  # the road
    one.page.keyboard.press("Delete")
    truth = scene()
    truth[truth == ROAD] = 0
    assert differing(one, truth) == 0
    assert [each["id"] for each in one.server.label(one.number)["annotations"]] == [CAR, UNCLEAR]
    one.page.keyboard.press("Control+z")
    one.saved()
    assert one.server.label(one.number)["tree_hash"] == before["tree_hash"]
    one.click((133, 272))  # the car
    assert one.js("() => state.selection") == CAR
    one.page.keyboard.press("Escape")
    assert one.js("() => state.selection") == 0


def test_the_bucket_fills_a_region_and_small_holes(desk: Opener) -> None:
    mask = np.zeros(HW, np.uint16)
    mask[100:400, 100:500] = ROAD
    mask[150:350, 150:250] = 0  # a large hole
    mask[200:204, 300:305] = 0  # two of 20 pixels, one of them over the tiles' border
    mask[300:310, 400:402] = 0
    one = desk(mask=mask).choose("unclear").tool("fill")
    truth = mask.copy()
    one.click((200, 250))
    truth[150:350, 150:250] = UNCLEAR
    assert differing(one, truth) == 0
    one.set("fill", what="holes", most=21).click((10, 10))
    truth[200:204, 300:305] = truth[300:310, 400:402] = ROAD
    assert differing(one, truth) == 0


def test_the_wand_takes_what_has_the_colour_it_was_pressed_on(desk: Opener) -> None:
    one = desk().choose("road").tool("wand").set("wand", tolerance=0, contiguous=True)
    one.click((48, 48))  # images are blocks of 32 pixels, each of a colour of its own
    truth = np.zeros(HW, np.uint16)
    truth[32:64, 32:64] = ROAD
    assert differing(one, truth) == 0
    one.page.keyboard.press("Control+z")
    one.page.mouse.move(*one.place((48, 48)))
    one.page.mouse.down()
    x, y = one.place((48, 48))
    one.page.mouse.move(x + 800, y, steps=3)  # a drag as far as it goes: 128 of 255
    one.page.mouse.up()
    one.saved()
    drawn = one.server.mask(one.number) == ROAD
    assert drawn[32:64, 32:64].all()
    assert 32 * 32 < drawn.sum() < drawn.size
    assert one.read("editor.option('wand', 'tolerance')") == 128


def test_alt_and_a_click_take_the_class_that_lies_there(desk: Opener) -> None:
    one = desk(mask=scene()).choose("car")
    one.page.keyboard.down("Alt")
    one.click((200, 400))
    one.page.keyboard.up("Alt")
    assert one.js("() => state.category") == ROAD
    one.page.keyboard.press("x")
    assert one.js("() => state.category") == CAR
    assert differing(one, scene()) == 0


def test_a_reload_shows_the_same_and_an_old_revision_can_stand_again(desk: Opener) -> None:
    one = desk(mask=scene()).choose("car").set(size=40)
    drawn = one.stroke([(100, 100), (300, 200)])
    truth = scene()
    truth[swept(drawn, 40, HW)] = CAR
    assert differing(one, truth) == 0
    one.page.reload()
    one.ready(one.number)
    assert (one.drawn == one.server.objects(one.number)).all()
    number = one.server.label(one.number)["revision"]
    body = {"revision": 1, "base_revision": number}
    one.server.ask("POST", one.server.sample(one.number, "restore"), body)
    one.page.evaluate("() => window.terrazzo.editor.reload()")
    assert (one.server.mask(one.number) == scene()).all()
    assert (one.drawn == one.server.objects(one.number)).all()
    one.stroke([(100, 100), (300, 200)])  # and drawing goes on from there
    one.saved()
    assert one.server.label(one.number)["revision"] == number + 2


def test_an_operation_that_comes_twice_is_done_once(desk: Opener) -> None:
    one = desk().choose("road").set(size=30)
    sent: list[str] = []
    one.page.on(
        "request", lambda asked: sent.append(asked.post_data or "") if asked.url.endswith("/ops") else None
    )
    one.stroke([(100, 100), (300, 200)])
    one.saved()
    before = one.server.label(one.number)
    assert len(sent) == 1
    told = json.loads(one.server.ask("POST", one.server.sample(one.number, "ops"), json.loads(sent[0])))
    assert (told["revision"], told["is_replay"]) == (before["revision"], True)
    assert one.server.label(one.number) == before
    assert one.read("editor.sync.journal.left(editor.sync.where)") == []  # and nothing is kept that is there


def test_undo_outlives_looking_at_another_image(desk: Opener, numbers: Iterator[int]) -> None:
    one = desk().choose("road").set(size=30)
    empty = one.server.label(one.number)["tree_hash"]
    one.stroke([(100, 100), (300, 200)])
    one.saved()
    one.page.evaluate(f"() => {{ location.hash = '#/street/{next(numbers)}'; }}")
    one.page.wait_for_function(
        "n => window.terrazzo.editor && window.terrazzo.editor.sample.id !== n", arg=one.number
    )
    one.page.evaluate(f"() => {{ location.hash = '#/street/{one.number}'; }}")
    one.ready(one.number)
    one.page.keyboard.press("Control+z")
    one.saved()
    assert one.server.label(one.number)["tree_hash"] == empty


def test_somebody_elses_tile_is_merged_and_shown_and_the_same_tile_is_a_branch(desk: Opener) -> None:
    one = desk(mask=scene()).choose("road").set(size=30)
    theirs = one.server.objects(one.number)
    theirs[515:525, 10:100] = UNCLEAR
    one.server.write(one.number, {(1, 0): theirs[512:, :512]}, None)
    truth = scene()
    truth[swept(one.stroke([(100, 100), (300, 200)]), 30, HW)] = ROAD  # on another tile
    truth[515:525, 10:100] = UNCLEAR
    assert differing(one, truth) == 0
    assert (one.drawn == one.server.objects(one.number)).all()
    mine = truth.copy()
    one.page.context.set_offline(True)  # else what they draw is seen before
    mine[swept(one.stroke([(100, 100), (200, 50)]), 30, HW)] = ROAD
    one.kept()
    theirs = one.server.objects(one.number)
    theirs[10:40, 10:40] = UNCLEAR  # on the same tile
    stands = one.server.write(one.number, {(0, 0): theirs[:512, :512]}, None)
    one.page.context.set_offline(False)
    one.page.wait_for_function("() => window.terrazzo.state.saved.state === 'conflict'")
    branch = one.read("editor.lane.branch")
    assert (one.server.mask(one.number, branch) == mine).all()  # all of mine is kept
    assert one.server.label(one.number)["revision"] == stands["revision"]  # theirs stands
    assert (one.drawn == one.server.objects(one.number)).all()
    one.complaints.clear()  # the browser's own lines of the network that was away, and of the 412


def test_strokes_that_wait_stand_on_what_others_drew_elsewhere(desk: Opener) -> None:
    one = desk(mask=scene()).choose("road").set(size=30)
    truth = scene()
    one.page.context.set_offline(True)
    truth[swept(one.stroke([(100, 100), (300, 200)]), 30, HW)] = ROAD
    one.choose("car")
    truth[swept(one.stroke([(100, 150), (300, 250)]), 30, HW)] = CAR  # a new object
    one.page.keyboard.press("Control+z")
    one.page.keyboard.press("Control+Shift+z")
    one.kept()
    theirs = one.server.objects(one.number)
    theirs[515:525, 10:100] = UNCLEAR
    one.server.write(one.number, {(1, 0): theirs[512:, :512]}, None)
    truth[515:525, 10:100] = UNCLEAR
    one.page.context.set_offline(False)
    assert differing(one, truth) == 0
    assert (one.drawn == one.server.objects(one.number)).all()
    assert "branch" not in kinds(one)
    one.complaints.clear()  # the browser's own lines of the network that was away


def test_strokes_that_wait_are_one_branch_where_others_drew_in_the_same_place(desk: Opener) -> None:
    one = desk(mask=scene()).choose("road").set(size=10)
    first, mine = scene(), scene()
    one.page.context.set_offline(True)
    drawn = swept(one.stroke([(100, 100), (300, 200)]), 10, HW)
    first[drawn] = mine[drawn] = ROAD
    one.choose("car")
    mine[swept(one.stroke([(200, 519), (300, 521)]), 10, HW)] = CAR
    mine[swept(one.stroke([(400, 60), (450, 90)]), 10, HW)] = CAR
    one.kept()
    theirs = one.server.objects(one.number)
    theirs[518:522, 10:100] = UNCLEAR  # on the tile of the second stroke
    one.server.write(one.number, {(1, 0): theirs[512:, :512]}, None)
    first[518:522, 10:100] = UNCLEAR
    one.page.context.set_offline(False)
    one.page.wait_for_function("() => window.terrazzo.state.saved.state === 'conflict'")
    assert (one.server.mask(one.number) == first).all()  # the first one merged
    assert (
        one.server.mask(one.number, one.read("editor.lane.branch")) == mine
    ).all()  # and all of mine is kept
    assert (one.drawn == one.server.objects(one.number)).all()
    assert one.read("[editor.lane.waiting, editor.held]") == [0, None]
    assert one.page.evaluate("async () => (await window.terrazzo.editor.sync.journal.left('')).length") == 0
    first[swept(one.stroke([(400, 200), (450, 230)]), 10, HW)] = CAR  # and drawing goes on
    assert differing(one, first) == 0
    one.complaints.clear()


def kinds(desk: Desk) -> list[str]:
    """What the revisions of a label are, the newest first."""
    return [each["kind"] for each in desk.server.get(desk.server.sample(desk.number, "history"))["items"]]


def test_a_stroke_that_was_begun_is_forgotten_when_the_pointer_is_taken_away(desk: Opener) -> None:
    one = desk(mask=scene()).choose("car").set(size=50)
    one.stroke([(100, 100), (300, 400)], up=False)
    assert one.read("editor.label.open !== null")
    one.read("editor.active.cancel(editor)")
    one.page.mouse.up()
    assert (one.drawn == one.server.objects(one.number)).all()
    assert [each["kind"] for each in one.server.get(one.server.sample(one.number, "history"))["items"]] == [
        "write"
    ]
