"""Routes of the shelf, a project, its categories and labels, their happy path, over a real socket; the truth by NumPy.

Those of samples and releases are in test_sample_routes.py and test_release_routes.py.
"""

import http.client
import io
import json
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from labelled import HW, make_project, scene
from labelserved import OURS, THINGS, Client, label_served
from terrazzo.labelling.app import STATIC


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


# -- labels --------------------------------------------------------------------------------------------------------


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


def test_one_tile_is_had_by_its_hash_from_any_revision(client: Client) -> None:
    sample = next(one["id"] for one in client.get("/samples").json["items"] if one["name"] == "photos/c.png")
    tile = np.arange(512 * 512, dtype=np.uint16).reshape(512, 512) % 2
    client.op(sample, {(0, 0): tile}, THINGS[:1], base=0, client="tiles")
    name = client.get(f"/samples/{sample}/label").json["tiles"][0]
    client.send("POST", f"/samples/{sample}/restore", {"revision": 0, "base_revision": 1})
    got = client.get(f"/samples/{sample}/tiles/{name}")
    assert "immutable" in got.headers["Cache-Control"]
    assert (np.frombuffer(zlib.decompress(got.body), "<u2").reshape(512, 512) == tile).all()
    assert client.get(f"/samples/{sample}/tiles/{'0' * 64}").status == 404
    assert client.get(f"/samples/{sample}/tiles/..%2f..").status in (400, 404)


def test_what_a_model_says_is_told_beside_the_label(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    confidence = np.arange(HW[0] * HW[1], dtype=np.uint32).reshape(HW).astype(np.uint8)
    project.prelabel("photos/a.png", scene(), confidence, model="ab12")
    with label_served(tmp_path, project=project) as client:
        (one,) = client.get("/samples/1/predictions").json["items"]
        assert (one["labelset"], one["model"]) == ("model:ab12", "ab12")
        body = client.get(f"/samples/1/predictions/{quote('model:ab12')}").body
        maps = []
        at = 0
        for kind in ("<u2", "u1"):
            (length,) = struct.unpack_from("<I", body, at)
            maps.append(np.frombuffer(zlib.decompress(body[at + 4 : at + 4 + length]), kind).reshape(HW))
            at += 4 + length
        assert at == len(body) and (maps[0] == scene()).all() and (maps[1] == confidence).all()
        assert client.get("/samples/1/predictions/none").status == 400


# -- projects and categories ---------------------------------------------------------------------------------------


def test_a_project_is_made_with_a_folder_of_its_own(client: Client) -> None:
    made = client.ask("POST", "/api/v1/projects", b'{"name": "fresh"}', OURS)
    assert made.status == 201 and made.json["samples"] == 0
    again = client.ask("POST", "/api/v1/projects", b'{"name": "FRESH"}', OURS)
    assert again.status == 400 and "already" in again.json["title"]
    assert client.shelf.project("fresh").root == client.shelf.folder / "fresh"
    names = [one["name"] for one in client.ask("GET", "/api/v1/").json["projects"]]
    assert names == ["fresh", "street"]


def test_categories_are_added_changed_merged_and_let_go(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.write_mask("photos/a.png", scene())
    with label_served(tmp_path, project=project) as client:
        tree = client.send("POST", "/categories", {"name": "tree", "color": "#00FF7f", "has_instances": True})
        assert tree.status == 201
        wanted = {
            "id": 4,
            "name": "tree",
            "color": "#00ff7f",
            "has_instances": True,
            "is_ignore": False,
            "pixels": 0,
        }
        assert tree.json == wanted
        changed = client.send("PATCH", "/categories/4", {"name": "palm", "is_ignore": True}).json
        assert changed["name"] == "palm" and changed["is_ignore"] and changed["color"] == "#00ff7f"
        assert client.send("POST", "/categories", {"name": "palm"}).status == 400
        assert client.send("POST", "/categories", {"name": "sky", "color": "red"}).status == 400
        used = client.send("DELETE", "/categories/1")
        assert used.status == 400 and "road" in used.json["detail"]
        plan = client.send("POST", "/categories/1/merge", {"into": 4, "dry_run": True}).json
        roads = int((scene() == 1).sum())
        assert plan == {"samples": 1, "pixels": roads, "is_done": False}
        assert client.send("POST", "/categories/1/merge", {"into": 4}).json["is_done"]
        pixels = {one["name"]: one["pixels"] for one in client.get("/categories").json}
        assert pixels == {
            "car": int((scene() == 2).sum()),
            "unclear": int((scene() == 3).sum()),
            "palm": roads,
        }
        assert client.send("POST", "/categories", {"name": "pole"}).json["id"] == 5
        assert client.send("DELETE", "/categories/5").status == 204
        assert client.send("DELETE", "/categories/5").status == 404


def test_pages_hear_of_what_others_do(tmp_path: Path) -> None:
    with label_served(tmp_path) as client:
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
        connection.request("GET", "/api/v1/projects/street/events")
        stream = connection.getresponse()
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert stream.readline() == b"retry: 1000\n"
        tile = {(1, 1): np.full((18, 8), 1, np.uint16)}
        client.op(1, tile, THINGS[:1], base=0, client="mine")
        client.send("PATCH", "/samples/1", {"status": "labelled"})
        client.send("POST", "/samples/1/lease", {"client_id": "mine"})
        heard = []
        while len(heard) < 3:
            line = stream.readline()
            if line.startswith(b"data: "):
                heard.append(json.loads(line[6:]))
        stream.close()
        assert heard == [
            {"kind": "revision", "sample": 1, "revision": 1, "client": "mine", "author": "ann"},
            {"kind": "status", "sample": 1, "status": "labelled"},
            {"kind": "lease", "sample": 1, "client": "mine", "author": "ann"},
        ]
        connection.close()
        until = time.monotonic() + 20
        while client.shelf.events._listeners:
            client.shelf.events.send("street", {"kind": "samples"})
            assert time.monotonic() < until, "whoever has left is listened for no more"
            time.sleep(0.02)


# -- what is there on opening --------------------------------------------------------------------------------------


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


def test_the_list_of_samples_is_turned_page_by_page(client: Client) -> None:
    first_page = client.get("/samples?limit=2").json
    assert [one["name"] for one in first_page["items"]] == ["photos/a.png", "photos/b.png"]
    assert first_page["total"] == 3
    rest = client.get(f"/samples?limit=2&cursor={quote(first_page['next'])}").json
    assert [one["name"] for one in rest["items"]] == ["photos/c.png"] and rest["next"] is None
    assert [one["name"] for one in client.get("/samples?search=B.PN").json["items"]] == ["photos/b.png"]
    assert client.get("/samples?search=%25").json["items"] == []
    assert client.get("/samples?order=nonsense").status == 404
    assert client.get("/samples?cursor=nonsense").status == 400


def test_the_page_and_its_modules_are_served(client: Client) -> None:
    page = client.ask("GET", "/")
    assert page.status == 200 and page.headers["Content-Type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    for path in sorted(STATIC.rglob("*.*")):
        told = client.ask("GET", f"/static/{path.relative_to(STATIC).as_posix()}")
        assert (
            told.status == 200
            and told.body == path.read_bytes()
            and told.headers["Cache-Control"] == "no-cache"
        )
        assert told.headers["X-Content-Type-Options"] == "nosniff"
    assert client.ask("GET", "/static/../app.py").status == 404
    assert client.ask("GET", "/static/%2e%2e/app.py").status == 404
    assert client.ask("GET", "/api/v1/nothing").json["type"] == "urn:terrazzo:not-found"


def test_labelling_needs_no_torch(tmp_path: Path) -> None:
    make_project(tmp_path).close()
    code = (
        "import sys; sys.modules['torch'] = None; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from labelserved import label_served\n"
        "import numpy as np\n"
        "with label_served(Path(sys.argv[2])) as client:\n"
        "    for path in ('', '/samples', '/samples/1/label', '/samples/1/image', '/samples/1/thumb', '/queue/next'):\n"
        "        answer = client.get(path); assert answer.status == 200, answer.body\n"
        "    assert client.op(1, {(0, 0): np.zeros((512, 512))}, None, base=0).status == 200\n"
        "    assert client.send('PATCH', '/samples/1', {'status': 'labelled'}).status == 200\n"
        "    assert client.send('POST', '/releases', {'name': 'v1'}).status == 201\n"
        "    assert client.get('/releases/v1/export?format=segments').status == 200\n"
    )
    here = str(Path(__file__).parents[1])
    ended = subprocess.run(
        [sys.executable, "-c", code, here, tmp_path], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
