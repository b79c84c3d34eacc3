"""The page to try a model, in a real Chromium: what is seen, done with mouse, finger or keys alone, and saved."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from served import COLORS, BrightestChannel, Served, flag, png, served
from terrazzo.classes import Classes
from terrazzo.images import decode_mask
from terrazzo.inference import Predictor

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PHONE = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium: scripts/test brings it where it may; else apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        running = playwright.chromium.launch(executable_path=path, args=arguments)
        yield running
        running.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    hostile = Classes((HOSTILE, "green", "blue"), COLORS.colors)
    with served(models={"other": Predictor(BrightestChannel(), hostile)}) as running:
        yield running


@pytest.fixture
def page(browser: "Browser", server: Served, request: pytest.FixtureRequest) -> Iterator["Page"]:
    """The page, opened; nothing may be complained of in its console, nor asked of another machine."""
    context = browser.new_context(accept_downloads=True, **getattr(request, "param", {}))
    opened = context.new_page()
    here = f"http://127.0.0.1:{server.port}/"
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
    asked: list[str] = []
    opened.on("request", lambda one: asked.append(one.url))
    opened.goto(here)
    opened.locator("#examples img").nth(3).wait_for()
    yield opened
    context.close()
    assert [
        line for line in complaints if "415" not in line
    ] == []  # a refused upload is logged by the browser
    assert all(url.startswith((here, f"blob:{here}")) for url in asked)


def choose(page: "Page", image: NDArray[np.uint8], name: str = "flag.png") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": png(image)})
    page.locator(".pane").first.locator(".legend li").first.wait_for()


def seen(page: "Page") -> NDArray[np.uint8]:
    """The first picture, as it is on the screen."""
    return np.asarray(Image.open(io.BytesIO(page.locator(".stage").first.screenshot())).convert("RGB"))


def at(picture: NDArray[np.uint8], x: float, y: float) -> list[int]:
    return picture[int(y * picture.shape[0]), int(x * picture.shape[1])].tolist()


def test_a_photo_becomes_mask_legend_and_the_class_under_the_cursor(page: "Page") -> None:
    choose(page, flag(120, 180))
    pane = page.locator(".pane").first
    assert pane.locator(".legend li").all_inner_texts() == [
        "red\n33.3\u00a0%", "green\n33.3\u00a0%", "blue\n33.3\u00a0%"
    ]  # fmt: skip
    assert "180 × 120 pixels" in pane.locator(".facts").inner_text()
    page.keyboard.press("2")  # the classes alone
    assert page.get_by_role("radio", name="Classes").is_checked()
    picture = seen(page)
    assert at(picture, 0.1, 0.2) == [200, 0, 0]  # the photo, left of the slider
    assert at(picture, 0.9, 0.2) == [0, 0, 255]  # the class's colour, right of it
    box = pane.locator(".stage").bounding_box()
    assert box is not None
    for x, name in ((0.05, "red"), (0.6, "green"), (0.95, "blue")):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + 0.8 * box["height"])
        assert pane.locator(".tag").inner_text().startswith(f"{name} · ")
    pane.locator(".legend button", has_text="green").click()  # this class alone
    assert at(seen(page), 0.6, 0.2) == [0, 255, 0]
    assert at(seen(page), 0.9, 0.2) != [0, 0, 255]


def test_models_stand_side_by_side_and_hostile_names_are_words(page: "Page") -> None:
    choose(page, flag(60, 90))
    panes = page.locator(".pane")
    panes.nth(1).locator(".legend li").nth(2).wait_for()
    assert panes.locator("h2").all_inner_texts() == ["rgb", "other"]
    assert HOSTILE in panes.nth(1).locator(".legend").inner_text()
    first, second = (panes.nth(number).bounding_box() for number in range(2))
    assert first is not None
    assert second is not None
    assert first["y"] == second["y"]
    page.get_by_role("checkbox", name="rgb").uncheck()
    panes.nth(1).wait_for(state="detached")
    assert panes.locator("h2").all_text_contents() == ["other"]


def test_keys_alone_are_enough(page: "Page") -> None:
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.locator("#examples button:focus").count():
            break
    page.keyboard.press("Enter")  # the first example
    page.locator(".legend li").first.wait_for()
    slider = page.get_by_role("slider", name="rgb: slider between photo and mask")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("PageUp")
    assert int(slider.input_value()) > 600
    assert page.locator(".slider").nth(1).input_value() == slider.input_value()  # all panes together
    slider.blur()
    page.keyboard.press("3")
    assert page.get_by_role("radio", name="Confidence").is_checked()
    assert "its mask by rgb" in (page.locator(".photo").first.get_attribute("aria-label") or "")
    assert page.get_by_role("status").inner_text().startswith("rgb: ")
    for control in page.locator("button:visible, input:visible").all():
        name = control.evaluate(
            "one => one.ariaLabel || one.textContent.trim() || one.labels?.[0]?.textContent.trim()"
        )
        assert name, control.evaluate("one => one.outerHTML")


def test_what_is_saved_is_the_servers_own_answer(page: "Page", tmp_path: Path) -> None:
    choose(page, flag(30, 45), "my street.png")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Class map PNG").first.click()
    assert saved.value.suggested_filename == "my-street-rgb-map.png"
    saved.value.save_as(tmp_path / "map.png")
    mask = decode_mask((tmp_path / "map.png").read_bytes(), where="the download")
    assert (mask == np.arange(45) * 3 // 45).all()


def test_a_refusal_is_read_and_the_next_photo_works(page: "Page") -> None:
    page.set_input_files(
        "#file", {"name": "notes.txt", "mimeType": "image/png", "buffer": b"no image at all"}
    )
    page.get_by_role("alert").wait_for()
    assert "The upload is not an image we read." in page.get_by_role("alert").inner_text()
    choose(page, flag(60, 90))
    assert not page.get_by_role("alert").is_visible()


@pytest.mark.parametrize("page", [PHONE], indirect=True)
def test_on_a_phone_the_camera_is_used_and_nothing_sticks_out(page: "Page", server: Served) -> None:
    page.get_by_role("button", name="Use the camera").tap()
    page.get_by_role("button", name="Take the photo").tap()
    page.locator(".legend li").first.wait_for()
    assert (
        "green" in page.locator(".legend li").first.inner_text()
    )  # Chromium's made-up camera is mostly green
    for box in (one.bounding_box() for one in page.locator("main *:visible").all()[:60]):
        assert (
            box is None or box["x"] + box["width"] <= 391 or box["y"] < 250
        )  # examples may be scrolled sideways


def test_the_page_follows_the_systems_dark_colours(browser: "Browser", server: Served) -> None:
    found: dict[str, Any] = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        opened = context.new_page()
        opened.goto(f"http://127.0.0.1:{server.port}/")
        found[scheme] = np.asarray(Image.open(io.BytesIO(opened.screenshot())).convert("L"))[5, 5]
        context.close()
    assert found["light"] > 200 > 60 > found["dark"]
