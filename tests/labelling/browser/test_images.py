"""Images of every orientation lie upright under their labels; and 12 megapixels keep nobody waiting."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageOps

from labelled import make_project, write_photograph
from labelling.chromium import Desk, Server
from labelling.strokes import swept
from terrazzo.project import open_project

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FACTOR = 10  # of the targets of docs and bench/label_latency.py: machines of tests do other things too
ROAD = 1


def test_images_of_all_eight_orientations_lie_under_their_labels(browser: "Browser", tmp_path: Path) -> None:
    hw = (200, 320)  # as it is stored
    for orientation in range(1, 9):
        write_photograph(
            tmp_path / "photos" / f"{orientation}.png", orientation, hw=hw, orientation=orientation
        )
    with open_project(tmp_path / "street.db") as project:
        project.add_folder(tmp_path / "photos")
        project.categories.add("road")
    with Server(tmp_path) as server:
        desk = Desk.open(browser.new_context(viewport={"width": 1000, "height": 720}), server, 1)
        for orientation in range(1, 9):
            with Image.open(tmp_path / "photos" / f"{orientation}.png") as stored:
                upright = np.asarray(ImageOps.exif_transpose(stored))
            desk.go(orientation).choose("road").set(size=9)
            assert desk.read("[editor.label.height, editor.label.width]") == list(upright.shape[:2])
            desk.read("editor.painter.draw()")
            corners = [(8, 8), (upright.shape[1] - 8, 8), (8, upright.shape[0] - 8), (150, 100)]
            for x, y in corners:
                # turned images come as JPEG, and blocks have borders
                seen = desk.page.evaluate("""([x, y]) => {
                    const { painter, view } = window.terrazzo.editor, [sx, sy] = view.toScreen(x + 0.5, y + 0.5);
                    return [...painter.image.getContext("2d").getImageData(sx, sy, 1, 1).data].slice(0, 3);
                }""", [x, y])  # fmt: skip
                far = np.abs(np.array(seen) - upright[y, x].astype(int)).max()
                assert far <= 30, f"orientation {orientation}, at {x}, {y}"
            truth = np.zeros(upright.shape[:2], np.uint16)
            truth[swept(desk.stroke([corners[0], corners[3], corners[1]]), 9, truth.shape)] = ROAD
            desk.saved()
            assert (server.mask(orientation) == truth).all()
        desk.quiet()
        desk.page.context.close()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    make_project(folder, hw=(3000, 4000), names=("photos/a.jpg",)).close()
    return folder


def test_twelve_megapixels_open_draw_and_undo_within_the_budget(browser: "Browser", large: Path) -> None:
    with Server(large) as server:
        begun = time.monotonic()
        desk = Desk.open(browser.new_context(viewport={"width": 1200, "height": 800}), server, 1)
        opening = desk.read("[editor.painter.shown.image - editor.marks.opened, editor.marks.opened]")
        desk.page.wait_for_function("() => window.terrazzo.editor.marks.whole > 0")
        assert opening[0] <= 300 * FACTOR
        assert desk.read("editor.marks.whole - editor.marks.opened") <= 1200 * FACTOR
        desk.choose("road").set(size=200)
        desk.page.evaluate("""() => {
            const { editor } = window.terrazzo, delays = window.delays = [], waiting = [];
            const hear = (event) => { for (const one of event.getCoalescedEvents()) waiting.push(one.timeStamp); };
            editor.stage.addEventListener("pointermove", hear, { capture: true });
            editor.painter.after = (now, label) => {
                if (label) for (const at of waiting.splice(0)) delays.push(now - at);
            };
        }""")
        points = [(400 + 30 * number, 1500 + 900 * float(np.sin(number / 9))) for number in range(90)]
        heard = desk.stroke(points)
        delays = desk.page.evaluate("window.delays")
        assert len(delays) >= 20
        assert np.percentile(delays, 95) <= 16 * FACTOR
        desk.saved()
        assert ((server.mask() == ROAD) == swept(heard, 200, (3000, 4000))).all()
        undone = desk.page.evaluate("""() => {
            const { editor } = window.terrazzo, begun = performance.now();
            editor.undo.undo();
            editor.painter.draw();
            return performance.now() - begun;
        }""")
        assert undone <= 50 * FACTOR
        desk.saved()
        assert not server.mask().any()
        desk.quiet()
        desk.page.context.close()
        assert time.monotonic() - begun < 60
