"""Projects and pages for tests of the screens around the canvas."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

import terrazzo as tz
from labelling.chromium import WAIT, Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CLASSES = ("road", "car", "tree")


def png(index: int, hw: tuple[int, int] = (60, 90)) -> bytes:
    """An image of its own for every index."""
    pixels = np.random.default_rng(index).integers(0, 255, (*hw, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def street(
    folder: Path,
    count: int,
    *,
    name: str = "street",
    classes: Sequence[str] = CLASSES,
    hw: tuple[int, int] = (60, 90),
) -> Path:
    """A project of `count` images, "a-01.png" …, and classes; returns its file."""
    photos = folder / ("photos" if name == "street" else f"{name}-photos")
    photos.mkdir(parents=True)
    for index in range(count):
        (photos / f"a-{index + 1:02d}.png").write_bytes(png(index, hw))
    path = folder / f"{name}.db"
    with tz.open_project(path) as project:
        if count:
            project.add_folder(photos)
        for one in classes:
            project.categories.add(one, has_instances=one == "car")
    return path


@contextmanager
def opened(browser: "Browser", server: Server, address: str = "#/", **words: Any) -> Iterator["Page"]:
    """A page; nothing may be complained of in its console, nor asked of another machine."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **words})
    page = context.new_page()
    page.set_default_timeout(1000 * WAIT)
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda one: complaints.append(one.text) if one.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
    page.on("request", lambda one: asked.append(one.url))
    page.goto(f"{server.url}{address}")
    yield page
    context.close()
    # a refusal that a test asks for is logged by the browser, too
    assert [line for line in complaints if "the server responded with a status of 4" not in line] == []
    assert [url for url in asked if not url.startswith((server.url, f"blob:{server.url}", "data:"))] == []


def statuses(server: Server) -> dict[str, str]:
    """{name of the file: status} of all samples."""
    items = server.get(f"/projects/{server.name}/samples?limit=500")["items"]
    return {one["name"].rpartition("/")[2]: one["status"] for one in items}
