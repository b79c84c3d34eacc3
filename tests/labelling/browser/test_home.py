"""The screens before the editor: projects are made and filled, images listed, releases made, compared and fetched."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labelling.chromium import Server
from labelling.pages import opened, png, street

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

NUM_IMAGES = 130  # more than the first page of the list


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("home")
    street(folder, NUM_IMAGES, hw=(12, 16))
    with Server(folder) as running:
        yield running


def test_a_project_is_made_and_filled_with_dropped_images_and_classes(
    browser: "Browser", server: Server
) -> None:
    with opened(browser, server) as page:
        page.get_by_role("button", name="New project").click()
        page.get_by_label("Name").fill("garden")
        page.get_by_role("button", name="Create").click()
        page.get_by_role("heading", name="garden").wait_for()
        assert page.get_by_role("button", name="Start labelling").is_disabled()  # there is nothing yet
        drop(page, {"b.png": png(900), "a.png": png(901), "notes.png": b"these are words"})
        page.get_by_text("2 images added, 1 refused").wait_for()
        refused = page.get_by_role("list", name="Images that were refused")
        assert "notes.png" in refused.inner_text()
        assert "not an image" in refused.inner_text()
        rows(page).nth(1).wait_for()
        assert [text.partition("\n")[0] for text in rows(page).all_inner_texts()] == [
            "images/a.png", "images/b.png",
        ]  # fmt: skip
        for name in ("road", "sky; tree"):
            page.get_by_label("Name of the new class").fill(name)
            page.keyboard.press("Enter")
            page.get_by_label(f"Name of {name.split('; ')[-1]}").wait_for()
        page.get_by_label("Colour of sky").fill("#102030")
        page.get_by_label("Name of sky").fill("heaven")
        page.keyboard.press("Enter")
        page.get_by_label("Name of heaven").wait_for()
        page.get_by_role("button", name="Start labelling").click()
        page.wait_for_function("() => window.terrazzo.editor")
        assert page.url.endswith("#/garden/2") or page.url.endswith("#/garden/1")
    told = server.get("/projects/garden")
    assert [one["name"] for one in told["categories"]] == ["road", "heaven", "tree"]
    assert told["categories"][1]["color"] == "#102030"
    assert told["counts"]["todo"] == 2
    dropped = sorted(path.name for path in (server.folder / "garden" / "images").iterdir())
    assert dropped == ["a.png", "b.png"]
    assert (server.folder / "garden" / "images" / "b.png").read_bytes() == png(900)


def test_the_list_holds_every_image_and_is_filtered_searched_and_ordered(
    browser: "Browser", server: Server
) -> None:
    names = {one["name"]: one["id"] for one in server.get("/projects/street/samples?limit=500")["items"]}
    server.ask("PATCH", server.sample(names["photos/a-07.png"]), {"status": "labelled"})
    with opened(browser, server, "#/street") as page:
        images = page.get_by_role("region", name="Images")
        images.get_by_text(f"{NUM_IMAGES} images").wait_for()
        assert rows(page).count() < 40  # those that are seen, and a few more
        rows(page).first.focus()
        page.keyboard.press("End")  # beyond the first page of the server's answer
        page.get_by_role("link", name="photos/a-99.png").wait_for()
        last = page.evaluate("document.activeElement.textContent")
        assert "photos/a-99.png" in last  # by name: a-99 is after a-130
        page.get_by_role("button", name="Labelled 1").click()
        images.get_by_text("1 image", exact=True).wait_for()
        assert "a-07.png" in rows(page).first.inner_text()
        assert page.get_by_role("combobox", name="Status").input_value() == "labelled"
        page.get_by_role("button", name="Labelled 1").click()
        page.get_by_role("searchbox", name="Search images by name").fill("a-10")
        images.get_by_text("11 images").wait_for()  # a-10 and a-100 … a-109
        page.get_by_role("searchbox", name="Search images by name").fill("nothing")
        page.get_by_text("No image fits this filter.").wait_for()
        page.get_by_role("searchbox", name="Search images by name").fill("")
        images.get_by_text(f"{NUM_IMAGES} images").wait_for()
        page.get_by_role("combobox", name="Order").select_option("random")
        page.wait_for_function(
            "() => !document.querySelector('.samples a')?.textContent.includes('a-01.png')"
        )
        page.reload()  # the filter of a tab stays
        images.get_by_text(f"{NUM_IMAGES} images").wait_for()
        assert page.get_by_role("combobox", name="Order").input_value() == "random"
    with opened(browser, server, "#/street", viewport={"width": 390, "height": 844}, has_touch=True) as phone:
        phone.get_by_role("region", name="Images").get_by_text(f"{NUM_IMAGES} images").wait_for()
        assert phone.evaluate("document.documentElement.scrollWidth") == 390


def test_releases_are_made_compared_fetched_and_withdrawn(
    browser: "Browser", server: Server, tmp_path: Path
) -> None:
    with opened(browser, server, "#/street", accept_downloads=True) as page:
        release(page, "v1", "the first")
        server.ask("POST", "/projects/street/categories", {"name": "pole"})
        release(page, "v2")
        menu(page, "v2", "Compare")
        dialog = page.get_by_role("dialog", name="What is new in v2")
        dialog.get_by_text("v1 → v2").wait_for()
        assert "pole" in dialog.inner_text()
        assert dialog.get_by_role("row").count() == 6  # the head, what is unlabelled, and four classes
        page.keyboard.press("Escape")
        with page.expect_download() as fetched:
            menu(page, "v1", "Folders")
        fetched.value.save_as(tmp_path / "v1.zip")
        with zipfile.ZipFile(tmp_path / "v1.zip") as archive:
            assert archive.testzip() is None
            assert any(name.endswith("a-07.png") for name in archive.namelist())  # the one that is labelled
        menu(page, "v2", "Withdraw")
        page.get_by_role("dialog").get_by_role("button", name="Withdraw").click()
        page.locator("[data-release=v2]").get_by_text("withdrawn").wait_for()
    told = {one["name"]: one for one in server.get("/projects/street/releases")["items"]}
    assert set(told) == {"v1", "v2"}  # withdrawn, not forgotten
    assert told["v1"]["description"] == "the first"
    assert told["v2"]["withdrawn_at"]
    with pytest.raises(Exception, match="40"):
        server.ask("POST", "/projects/street/releases", {"name": "v2"})  # its name is never given again


def test_labels_of_others_are_looked_at_before_they_are_brought_in(
    browser: "Browser", server: Server
) -> None:
    photos = server.folder / "photos"
    shape = {
        "label": "van",
        "points": [[2, 3], [10, 3], [10, 9], [2, 9]],
        "group_id": None,
        "shape_type": "polygon",
    }
    labels = {"version": "5", "flags": {}, "imagePath": "a-100.png", "imageData": None, "imageHeight": 12}
    (photos / "a-100.json").write_text(json.dumps({**labels, "imageWidth": 16, "shapes": [shape]}))
    number = server.get("/projects/street/samples?search=a-100.png")["items"][0]["id"]
    with opened(browser, server, "#/street") as page:
        menu(page, "images", "Bring labels in")
        dialog = page.get_by_role("dialog", name="Bring labels in")
        dialog.get_by_label("Format").select_option("labelme")
        dialog.get_by_label("File or folder").fill("photos")
        dialog.get_by_role("button", name="Look first").click()
        dialog.get_by_text("1 label").first.wait_for()
        assert server.label(number)["revision"] == 0  # looking changes nothing
        dialog.get_by_role("button", name="Bring in").click()
        page.get_by_label("Name of van").wait_for()
        page.get_by_role("searchbox", name="Search images by name").fill("a-100")
        page.get_by_role("region", name="Images").get_by_text("1 image", exact=True).wait_for()
        menu(page, "images", "are for val")
        page.get_by_text("1 image is for val.").wait_for()
    van = next(one["id"] for one in server.get("/projects/street/categories") if one["name"] == "van")
    assert (server.mask(number)[3:9, 2:10] == van).all()
    assert (server.mask(number) > 0).sum() == 48
    splits = {one["id"]: one["split"] for one in server.get("/projects/street/samples?limit=500")["items"]}
    assert [one for one, split in splits.items() if split] == [number]
    assert splits[number] == "val"


def drop(page: "Page", files: dict[str, bytes]) -> None:
    """Drop files on the page, as a person does from a folder."""
    page.evaluate(
        """files => {
            const transfer = new DataTransfer();
            for (const [name, bytes] of files) {
                transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
            }
            for (const kind of ["dragover", "drop"]) {
                const event = new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true});
                document.querySelector(".drop").dispatchEvent(event);
            }
        }""",
        [[name, list(data)] for name, data in files.items()],
    )


def rows(page: "Page") -> "Locator":
    return page.get_by_role("list", name="Images", exact=True).get_by_role("link")


def release(page: "Page", name: str, description: str = "") -> None:
    page.get_by_role("region", name="Releases").get_by_role("button", name="Create").click()
    dialog = page.get_by_role("dialog", name="Create a release")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("Description").fill(description)
    dialog.get_by_role("button", name="Create").click()
    page.locator(f"[data-release={name}]").wait_for()


def menu(page: "Page", of: str, item: str) -> None:
    page.get_by_role("button", name=f"More on {of}").click()
    page.get_by_role("menuitem", name=item).click()
