"""The loop on the page: pre-labels accepted, from one doubtful place to the next, and trained on, in a real browser."""

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

import terrazzo as tz
from labelling.chromium import Desk, Server
from prelabelled import write_model, write_scene_project
from terrazzo.classes import Classes
from terrazzo.data.scenes import SCENE_CLASSES

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HW = (64, 96)
HASH = "0123456789abcdef"
LABELSET = f"model:{HASH}"


def offered(number: int) -> tuple[np.ndarray, np.ndarray]:
    """What a model says of sample `number`: blocks of 16 pixels of eight categories, surer from left to right."""
    y, x = np.mgrid[0 : HW[0], 0 : HW[1]]
    mask = ((y // 16 + x // 16 + number) % 8 + 1).astype(np.uint16)
    mask[:, :4] = 0  # it says nothing at the left edge
    return mask, (x * 255 // (HW[1] - 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("loop")
    project = write_scene_project(folder, 6, size_hw=HW, labelled=5, things=("person",))
    classes = list(zip(SCENE_CLASSES.names, SCENE_CLASSES.colors, strict=True))
    project.models.attach(HASH, name="blocks", path=str(folder / "blocks"), classes=classes)
    for number, one in enumerate(project.samples.all()):
        mask, confidence = offered(number)
        project.predictions.add(one.name, mask, confidence, model=HASH)
        if number == 4:  # something is drawn: two stripes
            drawn = np.zeros(HW, np.uint16)
            drawn[10:20], drawn[40:44] = 3, 6
            project.write_mask(one.name, drawn, tool="brush", author="ann")
    project.close()
    with Server(folder) as running:
        yield running


@pytest.fixture
def desk(browser: "Browser", server: Server) -> Iterator[Desk]:
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    opened = Desk.open(context, server, sample=5)
    opened.page.wait_for_function(
        "() => window.terrazzo.state.offer !== null && window.terrazzo.state.read_only === null"
    )
    yield opened
    opened.quiet()
    opened.leave()
    context.close()


def test_accepting_from_a_confidence_on_changes_only_unlabelled_pixels(desk: Desk, server: Server) -> None:
    before, told = server.mask(5), server.label(5)
    mask, confidence = offered(4)
    desk.page.keyboard.press("m")
    desk.set("prelabel", reach="all", sure=60, unlabelled=True)
    desk.click((50, 30))
    desk.saved()
    takes = (before == 0) & (mask != 0) & (confidence.astype(int) * 100 >= 255 * 60)
    assert takes.any() and (before != 0)[mask != before].any()
    truth = np.where(takes, mask, before)
    assert (server.mask(5) == truth).all()
    after = server.label(5)
    assert after["revision"] == told["revision"] + 1, "one stroke"
    sources = {one["category_id"]: one["source"] for one in after["annotations"]}
    assert sources[3] == sources[6] == "manual", "what was there keeps its object"
    assert {source for category, source in sources.items() if category not in (3, 6)} == {LABELSET}
    assert server.get(server.sample(5, "history"))["items"][0]["tool"] == "prelabel"
    desk.page.keyboard.press("Control+z")
    desk.saved()
    assert server.label(5)["tree_hash"] == told["tree_hash"]


def test_a_class_an_area_and_everything_are_taken_as_asked(desk: Desk, server: Server) -> None:
    before = server.mask(5)
    mask, _ = offered(4)
    desk.page.keyboard.press("m")
    desk.set("prelabel", reach="class", sure=0, unlabelled=True)
    desk.click((70, 30))
    desk.saved()
    here = mask[30, 70]
    one_class = np.where((before == 0) & (mask == here), mask, before)
    assert (server.mask(5) == one_class).all()
    desk.page.keyboard.press("Control+z")
    desk.set("prelabel", reach="area", unlabelled=False)
    desk.click((70, 30))
    desk.saved()
    area = np.zeros(HW, bool)
    area[16:32, 64:80] = True  # one block: blocks of one category touch by corners alone
    found = server.mask(5)
    assert (found == np.where(area, mask, before)).all(), np.argwhere(found != np.where(area, mask, before))
    desk.page.keyboard.press("Control+z")
    desk.page.keyboard.press("Enter")
    desk.saved()
    assert (server.mask(5) == np.where(mask != 0, mask, before)).all()
    desk.page.keyboard.press("Control+z")
    desk.saved()
    assert (server.mask(5) == before).all()


def test_every_area_of_things_is_an_object_of_its_own(desk: Desk, server: Server) -> None:
    before = server.mask(5)
    mask, _ = offered(4)
    desk.page.keyboard.press("m")
    desk.set("prelabel", reach="all", sure=0, unlabelled=True)
    desk.click((70, 30))
    desk.saved()
    objects, told = server.objects(5), server.label(5)["annotations"]
    things = [one["id"] for one in told if one["category_id"] == 7 and one["source"] == LABELSET]
    takes = (before == 0) & (mask == 7)
    labels, count = ndimage.label(takes)
    assert len(things) == count > 2 and takes.sum() == np.isin(objects, things).sum()
    assert all(len(np.unique(objects[labels == number])) == 1 for number in range(1, count + 1))
    assert sum(one["category_id"] == 1 for one in told) == 1, "stuff is one object"
    desk.page.keyboard.press("Control+z")
    desk.saved()


def test_protection_and_locks_hold_for_what_a_model_says(desk: Desk, server: Server) -> None:
    before = server.mask(5)
    mask, _ = offered(4)
    desk.page.keyboard.press("m")
    desk.set("prelabel", reach="all", sure=0, unlabelled=False)
    desk.js("() => change({ locked: new Set([3, 2]) })")
    desk.click((70, 30))
    desk.saved()
    truth = np.where((mask != 0) & (before != 3) & (mask != 3) & (mask != 2), mask, before)
    assert (server.mask(5) == truth).all()
    desk.page.keyboard.press("Control+z")
    desk.js("() => change({ locked: new Set() })")
    desk.saved()


def test_keys_lead_from_one_doubtful_or_empty_place_to_the_next(desk: Desk) -> None:
    desk.page.keyboard.press(
        "n"
    )  # the least certain tenth is the left edge: one area, of which 4 columns say nothing
    desk.page.wait_for_selector("text=/Uncertain place 1 of/")
    scale, left, _ = desk.view
    assert scale > 4 and -left / scale < 4, "zoomed there"
    desk.page.keyboard.press("Shift+N")
    desk.page.wait_for_selector(
        "text=/Unlabelled place 1 of 3: 1,920 pixels/"
    )  # 20 rows below the second stripe
    desk.page.keyboard.press("Shift+N")
    desk.page.wait_for_selector("text=/Unlabelled place 2 of 3: 1,920 pixels/")
    desk.page.keyboard.press("Shift+N")
    desk.page.wait_for_selector("text=/Unlabelled place 3 of 3: 960 pixels/")


def test_the_page_tells_what_the_model_says_under_the_pointer_and_in_its_tab(
    desk: Desk, server: Server
) -> None:
    page = desk.page
    x, y = desk.place((80.5, 30.5))
    page.mouse.move(x, y)
    page.wait_for_selector(f"text=model {round(100 * (80 * 255 // 95) / 255)} % sure")
    page.click("#tab-model")
    page.wait_for_selector("text=It contradicts the label")
    assert page.locator("select[aria-label=Model] option").all_inner_texts() == ["blocks"]
    page.keyboard.press("Shift+M")
    page.wait_for_selector("button[aria-pressed=true]:has-text('Show its doubt')")
    page.wait_for_function(
        "() => document.querySelector('canvas.offer') && !document.querySelector('canvas.offer').hidden"
    )


def test_areas_are_those_of_another_implementation(desk: Desk) -> None:
    codes = np.random.default_rng(7).integers(0, 4, (37, 53)).repeat(2, axis=1)[:, :80]
    found = desk.page.evaluate(
        """async ([codes, width, height]) => {
            const { areas, areasSoon } = await import("/static/areas.js");
            const told = areas(width, height, (i) => codes[i]);
            const soon = await areasSoon(width, height, (i) => codes[i]);
            const pixels = (runs) => runs.reduce((sum, one, n) => sum + [0, -one, one][n % 3], 0);
            const plain = ({ code, size, x0, y0, x1, y1, runs }) => [code, size, x0, y0, x1, y1, pixels(runs)];
            return [told, soon].map((list) => list.map(plain));
        }""",
        [codes.ravel().tolist(), codes.shape[1], codes.shape[0]],
    )
    truth = []
    for code in (1, 2, 3):
        labels, count = ndimage.label(codes == code)
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            size = int((labels == number).sum())
            truth.append([code, size, columns.start, rows.start, columns.stop, rows.stop, size])
        assert count
    assert found[0] == found[1] and sorted(found[0]) == sorted(truth)
    sizes = [one[1] for one in found[0]]
    assert sizes == sorted(sizes, reverse=True)


def test_whoever_is_right_is_said_in_the_editor(desk: Desk, server: Server) -> None:
    before = server.mask(5)
    page = desk.page
    job = json.loads(server.ask("POST", "/projects/street/scores", {}))["job"]
    while server.get(f"/jobs/{job}")["state"] in ("waiting", "running"):
        page.wait_for_timeout(50)
    items = server.get("/projects/street/disagreements?sample=5")["items"]
    heaviest = items[0]
    page.click("#tab-classes")
    page.click("#tab-model")
    place = f"[data-place='{heaviest['x']},{heaviest['y']}']"
    page.click(f"{place} [data-verdict=model]")
    page.wait_for_selector(place, state="detached")
    desk.saved()
    mask, _ = offered(4)
    found, is_changed = server.mask(5), server.mask(5) != before
    assert is_changed[heaviest["y"], heaviest["x"]] and (found[is_changed] == heaviest["predicted"]).all()
    assert (before[is_changed] == heaviest["label"]).all() and (
        mask[is_changed] == heaviest["predicted"]
    ).all()
    assert is_changed.sum() >= heaviest["pixels"], "its area, unsure pixels at its rim too"
    verdicts = server.get("/projects/street/disagreements?sample=5&decided=true")["items"]
    assert [one["verdict"] for one in verdicts].count("model") == 1
    page.keyboard.press("Control+z")
    desk.saved()
    assert (server.mask(5) == before).all()


def test_a_model_is_attached_after_its_classes_are_shown(browser: "Browser", server: Server) -> None:
    classes = Classes(("road", "tram", "Sky"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
    write_model(server.folder / "runs" / "trams", classes=classes)
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.goto(f"{server.url}#/street")
    page.click("text=Attach")
    page.fill("input[placeholder='runs/street-v1']", "runs/trams")
    page.click("dialog button.primary")
    rows = page.locator("dialog tbody tr")
    rows.nth(2).wait_for(timeout=180_000)
    assert [rows.nth(n).locator("select").input_value() for n in range(3)] == ["3", "", ""]
    assert "“sky” is written otherwise" in rows.nth(2).inner_text()
    rows.nth(1).locator("select").select_option("+")
    rows.nth(2).locator("select").select_option(label="sky")
    page.click("dialog button.primary")
    page.wait_for_selector("text=trams is attached.", timeout=180_000)
    newest = server.get("/projects/street/models")["items"][0]
    assert [(one["name"], one["category_id"]) for one in newest["classes"]] == [
        ("road", 3),
        ("tram", 11),
        ("Sky", 1),
    ]
    names = [one["name"] for one in server.get("/projects/street")["categories"]]
    assert names == [*SCENE_CLASSES.names, "tram"]
    server.ask("DELETE", f"/projects/street/models/{newest['hash']}")
    context.close()


def test_train_on_this_from_the_form_to_predictions(browser: "Browser", server: Server) -> None:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{server.url}#/street")
    page.click("text=Train on this")
    page.wait_for_selector("text=/4 finished labels, 4 drawn on by people/")
    page.click("summary:has-text('Overrides')")
    page.fill("textarea", "\n".join([
        "data.crop_hw=32x32", "train.steps=3", "eval.every=3", "train.batch_size=2", "train.pictures=0",
        "train.log_every=1", "data.workers=0",
    ]))  # fmt: skip
    page.click("dialog button.primary")
    page.wait_for_selector(".job[data-kind=train]", timeout=120_000)
    page.wait_for_selector("text=/street-v1 is trained/", timeout=300_000)
    models = server.get("/projects/street/models")["items"]
    assert [one["name"] for one in models] == ["street-v1", "blocks"]
    assert all(one["category_id"] for one in models[0]["classes"])
    release = server.get("/projects/street/releases/v1")
    splits = [
        one.split
        for one in tz.open_project(server.folder / "street.db", read_only=True).releases["v1"].samples
    ]
    assert release["name"] == "v1" and sorted(str(one) for one in splits) == [
        "None",
        "None",
        "train",
        "train",
        "train",
        "val",
    ]
    page.click("text=Predict all images")
    page.wait_for_selector("text=/6 images predicted, 1 of them prelabelled/", timeout=300_000)
    assert server.get("/projects/street/models")["items"][0]["predicted"] == 6
    page.wait_for_selector("text=/mIoU on its validation/")
    page.click("summary:has-text('What to label')")
    page.wait_for_selector("text=/pixels are not labelled by people/")
    page.click("summary:has-text('Which classes are confused')")
    page.locator(".confusion td button").first.click()
    page.wait_for_selector(".scores h3")
    assert complaints == []
    assert json.loads((server.folder / "runs" / "street-v1" / "data.json").read_text())
    assert re.fullmatch(r"[0-9a-f]{16}", models[0]["hash"])
    context.close()
