"""Every route, its happy path, over a real socket; the truth by NumPy and Pillow."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelled import HW, make_project, scene
from labelserved import Client, label_served

THINGS = [
    {"id": 1, "category_id": 1, "source": "manual", "attributes": {}},
    {"id": 2, "category_id": 2, "source": "manual", "attributes": {}},
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("labelling")
    with label_served(folder) as one:
        yield one


def first(client: Client) -> int:
    return int(client.get("/samples").json["items"][0]["id"])


def test_home_lists_the_projects_of_the_folder(client: Client) -> None:
    home = client.ask("GET", "/api/v1/").json
    assert home["user"] == "ann" and home["role"] == "admin" and home["is_single_user"]
    (one,) = home["projects"]
    assert (one["name"], one["samples"], one["categories"], one["releases"]) == ("street", 3, 3, 0)


def test_an_operation_is_what_the_label_is_afterwards(client: Client) -> None:
    sample = first(client)
    label = client.get(f"/samples/{sample}/label").json
    assert (label["revision"], label["rows"], label["columns"], label["tile"]) == (0, 2, 2, 512)
    assert (client.object_map(sample) == 0).all()
    wanted = np.zeros(HW, np.uint16)
    wanted[500:520, 505:515] = 1
    wanted[10:20, 10:20] = 2
    tiles = {(row, column): wanted[row * 512 : (row + 1) * 512, column * 512 : (column + 1) * 512]
             for row in range(2) for column in range(2)}  # fmt: skip
    done = client.op(sample, tiles, THINGS, base=0)
    assert done.status == 200 and done.json["revision"] == 1 and not done.json["is_replay"]
    assert (client.object_map(sample) == wanted).all()
    after = client.get(f"/samples/{sample}/label").json
    assert after["tree_hash"] == done.json["tree_hash"] and after["annotations"] == THINGS
    assert client.get("").json["counts"]["in_progress"] == 1
    again = client.op(sample, tiles, THINGS, base=0).json
    assert again["is_replay"] and again["revision"] == 1
    restored = client.send("POST", f"/samples/{sample}/restore", {"revision": 0, "base_revision": 1}).json
    assert restored["revision"] == 2 and (client.object_map(sample) == 0).all()
    assert (client.object_map(sample, 1) == wanted).all()
    history = client.get(f"/samples/{sample}/history").json
    assert [(one["number"], one["kind"], one["author"]) for one in history["items"]] == [
        (2, "restore", "ann"),
        (1, "write", "ann"),
    ]


def test_pictures_are_the_image(client: Client) -> None:
    sample = first(client)
    truth = Image.open(client.shelf.project("street").root / "photos/a.png")
    whole = client.get(f"/samples/{sample}/image?level=0")
    assert whole.headers["Content-Type"] == "image/png"
    assert (np.asarray(Image.open(io.BytesIO(whole.body))) == np.asarray(truth)).all()
    half = Image.open(io.BytesIO(client.get(f"/samples/{sample}/image?level=1").body))
    assert half.size == (260, 265)
    thumb = Image.open(io.BytesIO(client.get(f"/samples/{sample}/thumb").body))
    assert max(thumb.size) == 256
    same = client.ask("GET", f"/api/v1/projects/street/samples/{sample}/thumb", None,
                      {"If-None-Match": f'"{client.get(f"/samples/{sample}").json["sha256"][:32]}-thumb"'})  # fmt: skip
    assert same.status == 304


def test_a_label_that_was_written_by_the_library_is_the_label_the_page_gets(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.write_mask("photos/b.png", scene())
    with label_served(tmp_path, project=project) as client:
        sample = next(
            one["id"] for one in client.get("/samples").json["items"] if one["name"] == "photos/b.png"
        )
        label = client.get(f"/samples/{sample}/label").json
        table = np.zeros(1 << 16, np.uint16)
        for one in label["annotations"]:
            table[one["id"]] = one["category_id"]
        assert (table[client.object_map(sample)] == scene()).all()
        pixels = {one["name"]: one["pixels"] for one in client.get("").json["categories"]}
        truth = np.bincount(scene().ravel())
        assert pixels == {"road": truth[1], "car": truth[2], "unclear": truth[3]}
