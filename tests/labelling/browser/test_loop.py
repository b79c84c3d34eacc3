"""The loop on the page: pre-labels accepted, from one doubtful place to the next, and trained on, in a real browser."""

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

import terrazzo as tz
from labelling.chromium import Desk, Server
from prelabelled import write_scene_project
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
    project = write_scene_project(folder, 6, size_hw=HW, labelled=5)
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
    opened.quiet(but="409")  # the page of the test before may still hold the lease
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
    page.wait_for_selector(".job[data-kind=train]", timeout=30_000)
    page.wait_for_selector("text=/street-v1 is trained/", timeout=120_000)
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
    page.wait_for_selector("text=/6 images predicted, 1 of them prelabelled/", timeout=120_000)
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
