"""Draw the pictures of docs/how-to/label.md anew: the real page in a real Chromium, over street scenes drawn for it.

    .venv/bin/python scripts/pictures.py [NAME …]

Scenes and masks are terrazzo's own; no photograph of anybody is in them. Needs chromium and the label extra.
"""

import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT / "tests"))

import terrazzo as tz  # noqa: E402
from labelling.chromium import Desk, Server, chromium  # noqa: E402
from terrazzo.data.scenes import SCENE_CLASSES, VAL_FIRST, scene  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, ViewportSize

OUT = PROJECT / "docs" / "images"
SIZE: "ViewportSize" = {"width": 1440, "height": 900}
SIZE_HW = (720, 960)
SCENES = 20
STATUSES = (
    *["reviewed"] * 5,
    *["labelled"] * 4,
    "rejected",
    "in_progress",
    "skipped",
)  # of the first samples
WORDS = {
    "sky": (70, 130, 180), "building": (110, 98, 92), "road": (128, 64, 128), "sidewalk": (226, 110, 196),
    "vegetation": (104, 158, 62), "car": (28, 86, 198), "person": (222, 40, 64), "pole": (238, 222, 92),
    "bicycle": (0, 190, 190), "obstacle": (246, 138, 30),
}  # fmt: skip
MANY = ("car", "person", "bicycle")  # every one an object of its own


def main(names: list[str]) -> None:
    """Draw the pictures called `names`, or all."""
    os.environ["LOGNAME"] = "ann"  # who draws in the pictures
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "street"
        folder.mkdir()
        masks = make_project(folder)
        with Server(folder) as server, chromium() as browser:
            for name, draw in PICTURES.items():
                if not names or name in names:
                    page = draw(browser, server, masks)
                    save(page, OUT / f"{name}.jpg")
                    page.context.close()


def make_project(folder: Path) -> list["np.ndarray[tuple[int, int], np.dtype[np.uint16]]"]:
    """Make street.db of scenes, some of them labelled; returns the exact masks of all, as category ids."""
    photos = folder / "photos"
    photos.mkdir()
    masks = []
    for index in range(SCENES):
        drawn = scene(VAL_FIRST + index, size_hw=SIZE_HW)
        Image.fromarray(drawn.image).save(photos / f"street-{index + 1:02d}.jpg", quality=92)
        assert drawn.mask is not None
        masks.append(np.where(drawn.mask == 255, 0, drawn.mask + 1).astype(np.uint16))
    with tz.open_project(folder / "street.db") as project:
        project.add_folder(photos, author="ann")
        for name in SCENE_CLASSES.names:
            project.categories.add(name, color=WORDS[name], has_instances=name in MANY)
        for index, status in enumerate(STATUSES):
            name = f"photos/street-{index + 1:02d}.jpg"
            if status == "skipped":
                project.set_status(name, "skipped", author="ann")
                continue
            mask = masks[index] if status != "in_progress" else np.where(masks[index] == 3, 3, 0)
            project.write_mask(name, mask, author="ann", tool="brush")
            if status != "in_progress":
                project.set_status(name, "labelled", author="ann")
            if status in ("reviewed", "rejected"):
                project.set_status(
                    name,
                    status,
                    reason="The cones are missing." if status == "rejected" else None,
                    author="rita",
                )
            if index == 5:
                project.releases.create("v1", description="the first six", author="ann")
        project.issues.add("photos/street-07.jpg", 470, 300, "Is this a pole or a sign?", author="rita")
        project.releases.create("v2", description="with cones and bins", author="ann")
    return masks


def of_project(browser: "Browser", server: Server, masks: list) -> "Page":
    """The project: progress, images, classes, releases."""
    page = browser.new_context(viewport=SIZE).new_page()
    page.goto(f"{server.url}#/street")
    page.locator("[data-release=v2]").wait_for()
    page.locator(".samples img").nth(5).wait_for()
    page.wait_for_timeout(1500)  # thumbnails
    return page


def of_editor(browser: "Browser", server: Server, masks: list) -> "Page":
    """Superpixels at work in a label that is half done."""
    number = number_of(server, "photos/street-13.jpg")
    mask = masks[12]
    write(server, number, np.where(np.isin(mask, (1, 2, 4, 5, 6)), mask, 0))
    desk = Desk.open(browser.new_context(viewport=SIZE), server, number)
    for key in ("9", "r", "s"):  # bicycles, unlabelled pixels alone, superpixels
        desk.page.keyboard.press(key)
    desk.page.get_by_text("cells, level").wait_for()
    rows, columns = np.nonzero(mask == 9)
    desk.page.mouse.move(*desk.place((float(columns.mean()), float(rows.mean()))))
    desk.page.mouse.wheel(0, 100)  # finer
    desk.page.wait_for_timeout(300)
    for row in np.linspace(np.quantile(rows, 0.35), rows.max() - 8, 9).astype(int):
        inside = np.flatnonzero(np.diff(mask[row] == 9, prepend=False, append=False)).reshape(-1, 2)
        for first, last in inside[inside[:, 1] - inside[:, 0] > 30]:  # from rim to rim
            desk.stroke([(x, row + 0.5) for x in np.linspace(first + 5, last - 5, 12)])
    desk.saved()
    desk.page.wait_for_timeout(700)
    return desk.page


def of_review(browser: "Browser", server: Server, masks: list) -> "Page":
    """A label that waits for a second pair of eyes, with an issue, in the dark."""
    number = number_of(server, "photos/street-07.jpg")
    desk = Desk.open(browser.new_context(viewport=SIZE, color_scheme="dark"), server, number)
    desk.page.keyboard.press("Alt+3")
    desk.page.get_by_text("Is this a pole").first.wait_for()
    desk.js("() => changeView({mode: 'both', opacity: 45})")
    desk.tool("select")
    desk.page.wait_for_timeout(900)
    return desk.page


def of_keys(browser: "Browser", server: Server, masks: list) -> "Page":
    """The sheet of keys."""
    desk = Desk.open(browser.new_context(viewport=SIZE), server, number_of(server, "photos/street-08.jpg"))
    desk.page.keyboard.press("?")
    desk.page.get_by_role("dialog", name="Keys").wait_for()
    desk.page.wait_for_timeout(500)
    return desk.page


def number_of(server: Server, name: str) -> int:
    """The number of the sample called `name`."""
    return next(
        int(one["id"])
        for one in server.get("/projects/street/samples?limit=500")["items"]
        if one["name"] == name
    )


def write(server: Server, number: int, mask: "np.ndarray[tuple[int, int], np.dtype[np.uint16]]") -> None:
    """Write a label of category ids, an object for each."""
    height, width = mask.shape
    tiles = {
        (row, column): np.ascontiguousarray(mask[512 * row : 512 * (row + 1), 512 * column : 512 * (column + 1)])
        for row in range(-(-height // 512)) for column in range(-(-width // 512))
    }  # fmt: skip
    objects = [
        {"id": int(one), "category_id": int(one), "source": "manual", "attributes": {}}
        for one in np.unique(mask)
        if one
    ]
    server.write(number, tiles, objects)


def save(page: "Page", path: Path) -> None:
    """Keep what is seen, small enough for a repository."""
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(path, quality=80, optimize=True)
    print(f"{path.relative_to(PROJECT)}: {path.stat().st_size / 1024:.0f} KiB")


PICTURES: dict[str, Callable[..., "Page"]] = {
    "label-project": of_project, "label": of_editor, "label-review": of_review, "label-keys": of_keys,
}  # fmt: skip

if __name__ == "__main__":
    main(sys.argv[1:])
