"""What helps to draw, over a real socket: computed in the background, kept beside the project, refused in words."""

import base64
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelled import make_project
from labelserved import Answer, Client, label_served
from terrazzo.data.scenes import scene
from terrazzo.labelling import sam
from terrazzo.labelling.superpixels import pack, superpixels, unpack
from tinysam import write_tiny_sam

pytest.importorskip("cv2", reason="OpenCV, of the extra label, is not installed")
DISC = np.hypot(*(np.mgrid[:300, :400] + 0.5 - np.array([150, 200])[:, None, None])) <= 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("assisted")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    """A street, a disc of noise, an image turned by EXIF."""
    photos = folder / "photos"
    photos.mkdir()
    Image.fromarray(scene(11, size_hw=(180, 240)).image).save(photos / "street.png")
    noise = np.random.default_rng(0).normal(0, 8, (300, 400, 3))
    disc = np.where(DISC[..., None], (170, 60, 50), (90, 110, 100)) + noise
    Image.fromarray(np.clip(disc, 0, 255).astype(np.uint8)).save(photos / "disc.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(photos / "turned.jpg", exif=turned)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(sam.VARIABLE, str(write_tiny_sam(folder / "weights")))
        with label_served(folder, project=make_project(folder, names=())) as one:
            yield one


def number(client: Client, name: str) -> int:
    found = client.get(f"/samples?search={name}").json["items"]
    return int(found[0]["id"])


def finished(client: Client, answer: Answer, again: str) -> Answer:
    """What is answered once the job of a 202 is done."""
    assert answer.status == 202
    for _ in range(600):
        job = client.ask("GET", f"/api/v1/jobs/{answer.json['job']}").json
        if job["state"] not in ("waiting", "running"):
            assert job["state"] == "done", job
            return client.get(again)
        time.sleep(0.05)
    raise AssertionError("the job does not end")


def mask_of(told: dict, size_hw: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size_hw, bool)
    data = np.frombuffer(zlib.decompress(base64.b64decode(told["data"])), np.uint8)
    x, y, w, h = (told[key] for key in ("x", "y", "width", "height"))
    mask[y : y + h, x : x + w] = data.reshape(h, w)
    return mask


def test_superpixels_are_made_once_in_the_background_and_kept(client: Client, folder: Path) -> None:
    path = f"/samples/{number(client, 'street')}/superpixels"
    first = client.get(path)
    again = finished(client, first, path)
    assert again.status == 200 and again.headers["Content-Type"] == "application/octet-stream"
    assert again.body == pack(superpixels(scene(11, size_hw=(180, 240)).image))
    etag = again.headers["ETag"]
    same = client.ask("GET", f"/api/v1/projects/street{path}", None, {"If-None-Match": etag})
    assert (same.status, same.body) == (304, b"")
    (kept,) = (folder / "street.assist").glob("*.cells")
    assert kept.read_bytes() == again.body


def test_a_damaged_file_of_superpixels_is_made_anew(client: Client, folder: Path) -> None:
    path = f"/samples/{number(client, 'disc')}/superpixels"
    good = finished(client, client.get(path), path).body
    for one in (folder / "street.assist").glob("*.cells"):
        one.write_bytes(b"damaged")
    for text in ("0,0,50,50", "0,0,60,50", "0,0,70,50", "0,0,80,50", "0,0,90,50"):  # memory holds four
        finished(client, client.get(f"{path}?box={text}"), f"{path}?box={text}")
    answer = client.get(path)
    assert finished(client, answer, path).body == good


def test_a_part_is_looked_at_in_full(client: Client) -> None:
    path = f"/samples/{number(client, 'street')}/superpixels?box=20,30,120,90"
    part = unpack(finished(client, client.get(path), path).body)
    assert part.box == (20, 30, 120, 90) and part.fine.shape == (60, 100)


def test_superpixels_lie_on_the_upright_image(client: Client) -> None:
    path = f"/samples/{number(client, 'turned')}/superpixels"
    assert unpack(finished(client, client.get(path), path).body).image_hw == (60, 40)


def test_a_box_becomes_a_mask(client: Client) -> None:
    path = f"/samples/{number(client, 'disc')}/assist/grabcut"
    answer = client.send("POST", path, {"box": [105, 55, 295, 245]})
    assert answer.status == 200 and answer.json["engine"] == "GrabCut" and answer.json["ms"] >= 0
    found = mask_of(answer.json, DISC.shape)
    assert (found & DISC).sum() / (found | DISC).sum() > 0.98
    pointed = client.send("POST", path, {"box": [105, 55, 295, 245], "negative": [[200, 150]]})
    assert not mask_of(pointed.json, DISC.shape)[150, 200]


def test_a_way_along_an_edge_is_found(client: Client) -> None:
    asked = {"view": [0, 0, 400, 300], "anchor": [110, 150], "target": [200, 60]}
    points = client.send("POST", f"/samples/{number(client, 'disc')}/assist/scissors", asked).json["points"]
    assert max(abs(np.hypot(x - 200, y - 150) - 90) for x, y in points) <= 2


def test_sam_reads_an_image_first_and_answers_then(client: Client) -> None:
    assert client.get("").json["tools"]["sam"] == {"ready": True, "says": "SAM 2"}
    sample = number(client, "disc")
    path, asked = f"/samples/{sample}/assist/sam", {"positive": [[200, 150]]}
    finished(client, client.send("POST", path, asked), f"/samples/{sample}")
    answer = client.send("POST", path, asked)
    assert answer.status == 200 and answer.json["engine"] == "SAM 2"
    assert mask_of(answer.json, DISC.shape).shape == DISC.shape
    assert client.send("POST", f"/samples/{sample}/assist/embedding", {}).status == 200  # it is read already
    ahead = client.send("POST", f"/samples/{number(client, 'street')}/assist/embedding", {})
    assert ahead.status == 202
    cancelled = client.ask("DELETE", f"/api/v1/jobs/{ahead.json['job']}", None, {"X-Terrazzo": "1"})
    assert cancelled.status in (200, 204)


@pytest.mark.parametrize(
    ("tool", "asked", "status", "says"),
    [
        ("grabcut", {"positive": [[1, 1]]}, 400, "needs a box"),
        ("grabcut", {"box": [0, 0, 401, 9]}, 400, "does not lie in the image"),
        ("grabcut", {"box": [0, 0, 99, 99], "positive": [[1, 1]] * 65}, 400, "Too many points"),
        ("grabcut", {"box": [0, 0, 99, 99], "path": "/etc/passwd"}, 400, "no member 'path'"),
        ("grabcut", {"box": [0, 0, 1e400, 9]}, 400, ""),
        ("grabcut", {"box": [0, 0, 3, 9]}, 400, "too small"),
        ("sam", {}, 400, "needs a box, or a point"),
        ("sam", {"positive": [[400, 1]]}, 400, "does not lie in the image"),
        (
            "scissors",
            {"view": [0, 0, 50, 50], "anchor": [60, 5], "target": [5, 5]},
            400,
            "anchor does not lie",
        ),
        ("scissors", {"view": [0, 0, 50, 50], "anchor": [6, 5]}, 400, "A point is two numbers"),
        ("scissors", {"view": [0, 0, 500, 50], "anchor": [6, 5], "target": [5, 5]}, 400, "box does not lie"),
        ("grabcut", {"box": [0, 0, 99, 99], "positive": [[1, 1]] * 20000}, 413, "too large"),
    ],
)
def test_what_a_page_may_get_wrong_is_refused(
    client: Client, tool: str, asked: dict, status: int, says: str
) -> None:
    answer = client.send("POST", f"/samples/{number(client, 'disc')}/assist/{tool}", asked)
    assert answer.status == status and says in answer.json["title"]
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("box", ["0,0,0,5", "0,0,241,5", "a,b,c,d", "1,2,3", "0,0,1e3,5", "-1,0,5,5"])
def test_boxes_of_superpixels_that_cannot_be_are_refused(client: Client, box: str) -> None:
    assert client.get(f"/samples/{number(client, 'street')}/superpixels?box={box}").status == 400


def test_nothing_of_it_changes_the_project(client: Client) -> None:
    assert client.get("").json["counts"]["todo"] == 3
    sample = number(client, "disc")
    assert client.get(f"/samples/{sample}/label").json["revision"] == 0
    refused = client.ask("POST", f"/api/v1/projects/street/samples/{sample}/assist/grabcut", b"{}")
    assert refused.status in (400, 403)  # without the header that other sites cannot send


def test_without_weights_sam_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sam.VARIABLE, "none")
    with label_served(tmp_path) as one:
        assert one.get("").json["tools"]["sam"]["ready"] is False
        refused = one.send("POST", f"/samples/{number(one, 'a.png')}/assist/sam", {"positive": [[1, 1]]})
        assert refused.status == 409 and "no SAM weights" in refused.json["found"]


def test_an_image_that_changed_is_not_helped_with(client: Client, folder: Path) -> None:
    path = folder / "photos" / "turned.jpg"
    data = path.read_bytes()
    path.write_bytes(data + b"\0")
    try:
        answer = client.send(
            "POST", f"/samples/{number(client, 'turned')}/assist/grabcut", {"box": [0, 0, 40, 60]}
        )
        assert answer.status in (409, 422) and "has changed since it was labelled" in answer.json["title"]
    finally:
        path.write_bytes(data)
