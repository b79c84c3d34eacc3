"""What the labelling server refuses: other names and sites, forged requests, ways out of the root, bombs, slowness."""

import base64
import concurrent.futures
import http.client
import io
import json
import os
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import tifffile
from PIL import Image

from labelled import make_project, write_photograph
from labelserved import API, OURS, Answer, Client, label_served, packed
from terrazzo.labelling.drops import harmless
from terrazzo.labelling.limits import Limits

BYTES = {"X-Terrazzo": "1", "Content-Type": "application/octet-stream"}
ROAD = [{"id": 1, "category_id": 1, "source": "manual", "attributes": {}}]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with label_served(tmp_path_factory.mktemp("refusals"), names=("desk.example",)) as one:
        yield one


def refused(answer: Answer, status: int, kind: str) -> dict[str, Any]:
    """Look at a refusal: its status, its kind, and that it says what it is in our four parts."""
    told: dict[str, Any] = answer.json
    assert (answer.status, told["type"]) == (status, f"urn:terrazzo:{kind}"), told
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert told["title"] and told["detail"].startswith(told["title"]) and told["status"] == status
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    return told


# -- who asks, and from where --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", f"{API}/", f"{API}/projects/street", "/static/app.js", "/healthz"])
def test_a_name_that_is_not_ours_is_refused_even_on_loopback(client: Client, path: str) -> None:
    for name in (
        "evil.example",
        "evil.example:80",
        "desk.example.evil.example",
        "",
        "[::1",
        "localhost.evil",
    ):
        refused(client.ask("GET", path, None, {"Host": name}), 421, "unknown-host")
    for name in ("localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:8001", "desk.example:8001"):
        assert client.ask("GET", f"{API}/", None, {"Host": name}).status == 200


def test_a_page_of_another_site_may_neither_look_nor_change(client: Client) -> None:
    there = f"http://127.0.0.1:{client.port}"
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{client.port + 1}", "http://127.0.0.1"):
        refused(client.ask("GET", f"{API}/", None, {"Origin": origin}), 403, "other-origin")
        made = client.ask("POST", f"{API}/projects", b'{"name": "a"}', {**OURS, "Origin": origin})
        refused(made, 403, "other-origin")
    for site in ("cross-site", "same-site"):
        refused(client.ask("GET", f"{API}/", None, {"Sec-Fetch-Site": site}), 403, "other-origin")
        made = client.ask("POST", f"{API}/projects", b'{"name": "a"}', {**OURS, "Sec-Fetch-Site": site})
        refused(made, 403, "forgery")
    same = {"Origin": there, "Sec-Fetch-Site": "same-origin"}
    assert client.ask("GET", f"{API}/", None, same).status == 200
    told = client.ask("OPTIONS", f"{API}/projects", None, {"Origin": "http://evil.example"})
    assert "Access-Control-Allow-Origin" not in told.headers and told.status == 403
    assert "Access-Control-Allow-Origin" not in client.ask("GET", f"{API}/", None, same).headers


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Forwarded-Proto", "Via"])
def test_a_proxy_before_a_server_that_asks_for_no_token_is_refused(client: Client, header: str) -> None:
    told = refused(client.ask("GET", f"{API}/", None, {header: "192.0.2.7"}), 403, "proxy")
    assert told["command"] == "terrazzo label PROJECT --people people.json"


MUTATIONS = [
    ("POST", "/projects"),
    ("POST", "/projects/street/categories"),
    ("PATCH", "/projects/street/categories/1"),
    ("DELETE", "/projects/street/categories/1"),
    ("POST", "/projects/street/categories/1/merge"),
    ("POST", "/projects/street/images?name=a.png"),
    ("POST", "/projects/street/folders"),
    ("POST", "/projects/street/samples/split"),
    ("PATCH", "/projects/street/samples/1"),
    ("POST", "/projects/street/samples/1/ops"),
    ("POST", "/projects/street/samples/1/restore"),
    ("POST", "/projects/street/samples/1/lease"),
    ("PUT", "/projects/street/samples/1/lease"),
    ("DELETE", "/projects/street/samples/1/lease?client_id=a"),
    ("POST", "/projects/street/samples/1/issues"),
    ("POST", "/projects/street/issues/1/comments"),
    ("PATCH", "/projects/street/issues/1"),
    ("POST", "/projects/street/releases"),
    ("POST", "/projects/street/releases/v1/withdraw"),
    ("POST", "/projects/street/imports"),
    ("DELETE", "/jobs/1"),
]


@pytest.mark.parametrize(("method", "path"), MUTATIONS)
def test_what_changes_something_cannot_be_forged(client: Client, method: str, path: str) -> None:
    without = {"Content-Type": "application/json"}
    refused(client.ask(method, API + path, b"{}", without), 403, "forgery")
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
    ):
        refused(
            client.ask(method, API + path, b"{}", {"X-Terrazzo": "1", "Content-Type": kind}),
            415,
            "unsupported-media-type",
        )
    bare = client.ask("GET", API + path)
    assert bare.status in (200, 400, 404, 405), "asking changes nothing"


def test_every_mutation_there_is_stands_in_the_list(client: Client) -> None:
    app = _application(client)
    listed = {(method, path.partition("?")[0].count("/")) for method, path in MUTATIONS}
    for route in app.routes:
        for method in getattr(route, "methods", set()) - {"GET", "HEAD", "OPTIONS"}:
            path = route.path.removeprefix(API)  # type: ignore[attr-defined]
            assert (method, path.count("/")) in listed or "assist" in path or _is_loop(path), (method, path)


def _is_loop(path: str) -> bool:
    return any(word in path for word in ("models", "predict", "train", "scores", "queue", "disagreements"))


def _application(client: Client) -> Any:
    from terrazzo.labelling.app import create_app

    return create_app(client.shelf).app  # type: ignore[attr-defined]


# -- ways out of the root ------------------------------------------------------------------------------------------

OUTSIDE = ["..", "../..", "photos/../../", "/etc", "/", "C:\\Windows", "c:/x", "\\\\host\\share", "a\0b", "..\\..",
           "/tmp/../etc"]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_folder_outside_the_root_is_refused(client: Client, path: str) -> None:
    for what in ({"path": path}, {"path": path, "format": "labelme", "dry_run": True}):
        route = "/folders" if len(what) == 1 else "/imports"
        told = client.send("POST", route, what)
        assert told.status == 400, told.body
        assert "/root" not in told.json["detail"]
    assert client.get("/samples").json["total"] == 3


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "..%2fstreet", "street%2f..%2fstreet", "street.db", "%00", "street%00"]
)
def test_a_project_is_a_name_and_never_a_path(client: Client, name: str) -> None:
    assert client.ask("GET", f"{API}/projects/{name}").status in (400, 404)
    assert client.ask("GET", f"{API}/projects/{name}/samples").status in (400, 404)


def test_links_that_lead_out_of_the_root_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    secret = write_photograph(outside / "secret.png", 1, hw=(8, 8))
    home = tmp_path / "home"
    home.mkdir()
    make_project(home).close()
    (home / "way").symlink_to(outside)
    (home / "photos" / "link.png").symlink_to(secret)
    with label_served(home) as client:
        assert client.send("POST", "/folders", {"path": "way"}).status == 400
        told = client.send("POST", "/folders", {"path": "photos"})
        assert told.status == 422 and "leads out" in told.json["detail"]
        (home / "photos" / "a.png").unlink()
        (home / "photos" / "a.png").symlink_to(secret)  # after it was added
        assert client.get("/samples/1").json["image_state"] == "missing"
        for what in ("image", "thumb", "image?level=1"):
            answer = client.get(f"/samples/1/{what}")
            assert answer.status == 409 and answer.body.find(secret.read_bytes()[:40]) < 0
        (home / "images").symlink_to(outside)
        dropped = client.ask("POST", f"{API}/projects/street/images?name=a.png", secret.read_bytes(), BYTES)
        assert dropped.status == 400 and sorted(os.listdir(outside)) == ["secret.png"]


# -- names ---------------------------------------------------------------------------------------------------------

HOSTILE = [
    ("a.png", "a.png"),
    ("../../etc/passwd", "passwd.png"),
    ("..\\..\\boot.ini", "boot.ini.png"),
    ("C:\\x\\y.PNG", "y.png"),
    (".bashrc", "bashrc.png"),
    ("...", "image.png"),
    ("", "image.png"),
    ("con.png", "image-con.png"),
    ("COM1", "image-COM1.png"),
    ("-rf.png", "image-rf.png"),
    ("<img src=x onerror=alert(1)>.png", "_img src=x onerror=alert(1)_.png"),
    ("a\0b\n\x1b[31m.png", "ab_31m.png"),
    ("photo\u202egnp.exe", "photognp.exe.png"),
    ("a" * 300 + ".png", "a" * 100 + ".png"),
    ("Straße 1.jpeg", "Straße 1.jpeg.png"),
    ("a.png. . .", "a.png.png"),
]


@pytest.mark.parametrize(("called", "name"), HOSTILE)
def test_a_name_that_a_client_gives_becomes_one_that_harms_nobody(called: str, name: str) -> None:
    made = harmless(called, ".png")
    assert made == name
    assert "/" not in made and "\\" not in made and made.isprintable() and not made.startswith((".", "-"))


def test_text_of_people_is_kept_as_text(client: Client) -> None:
    evil = "<img src=x onerror=alert(1)>"
    made = client.send("POST", "/categories", {"name": evil})
    assert made.status == 201 and made.json["name"] == evil
    assert made.headers["Content-Type"] == "application/json"
    for name in ("", "   ", "a\nb", "a\x1b[2J", "x" * 201, "\u202eevil"):
        assert client.send("POST", "/categories", {"name": name}).status == 400
    for color in ("red", "#12345", "#1234567", "#12345g", "url(x)", "#fff;background:url(x)"):
        assert client.send("POST", "/categories", {"name": "sky", "color": color}).status == 400
    for text in ("", " ", "x" * 10_001):
        assert client.send("POST", "/samples/1/issues", {"x": 1, "y": 1, "text": text}).status == 400
    for name in ("../v1", "a/b", "", "-v", "v 1", "v\n1", "x" * 101):
        assert client.send("POST", "/releases", {"name": name}).status == 400
    for name in ("../p", "a/b", "", ".hidden", "con", "x" * 101, "a\0"):
        made = client.ask("POST", f"{API}/projects", json.dumps({"name": name}).encode(), OURS)
        assert made.status == 400, name


# -- images that are none, or too much -----------------------------------------------------------------------------


def png_that_claims(height: int, width: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def truncated() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()[:-500]


def scans() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    at = data.index(b"\xff\xda")
    return data[:at] + data[at:-2] * 200 + b"\xff\xd9"


def wide_tiff() -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        np.zeros((64, 64, 200), np.uint16),
        photometric="minisblack",
        planarconfig="contig",
        compression="deflate",
    )
    return file.getvalue()


def gif() -> bytes:
    file = io.BytesIO()
    Image.new("P", (4, 4)).save(file, "GIF")
    return file.getvalue()


BAD = {
    "nothing": (b"", 415),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', 415),
    "html": (b"<!doctype html><script>alert(1)</script>", 415),
    "gif": (gif(), 415),
    "zip": (b"PK\x03\x04" + b"\0" * 60, 415),
    "pickle": (b"\x80\x04\x95" + b"\0" * 60, 415),
    "a bomb": (png_that_claims(1 << 30, 1 << 30), 413),
    "a bomb that a file could be": (png_that_claims(2000, 2000), 422),
    "truncated": (truncated(), 422),
    "too many pixels": (png_that_claims(3000, 2500), 413),
    "a hundred passes": (scans(), 422),
    "a TIFF of many bands": (wide_tiff(), 413),
    "a PNG in name only": (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, 422),
    "too many bytes": (b"\x89PNG\r\n\x1a\n" + b"\0" * 600_000, 413),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    limits = Limits(max_image_bytes=500_000, max_pixels=100_000, body_seconds=0.6, head_seconds=0.6,
                    max_json_bytes=4096, max_ops_bytes=2 << 20)  # fmt: skip
    with label_served(tmp_path_factory.mktemp("small"), limits=limits) as one:
        yield one


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_image_or_too_much_is_refused_before_it_is_written(small: Client, what: str) -> None:
    data, status = BAD[what]
    data = data if what != "too many pixels" else data + b"\0" * 20_000
    begun = time.perf_counter()
    answer = small.ask("POST", f"{API}/projects/street/images?name=x.png", data, BYTES)
    assert answer.status == status, answer.body
    assert answer.json["title"] and time.perf_counter() - begun < 5
    root = small.shelf.project("street").root
    assert not (root / "images").exists() or not list((root / "images").iterdir())
    assert small.get("/samples").json["total"] == 3


# -- operations ----------------------------------------------------------------------------------------------------


def op(**changed: Any) -> dict[str, Any]:
    tiles = [{"row": 0, "col": 0, "data": packed(np.ones((512, 512), np.uint16))}]
    value = {"client_id": "c", "seq": 1, "base_revision": 0, "tiles": tiles, "annotations": ROAD}
    return {**value, "tool": "brush", "ms": 1, **changed}


def tile(data: Any, row: Any = 0, col: Any = 0) -> list[dict[str, Any]]:
    return [{"row": row, "col": col, "data": data}]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


GOOD = packed(np.ones((512, 512), np.uint16))
BAD_OPS = {
    "a bomb of zeros": op(tiles=tile(b64(zlib.compress(bytes(300_000_000), 9)))),
    "a byte too much": op(tiles=tile(b64(zlib.compress(bytes(512 * 512 * 2 + 1))))),
    "a byte too few": op(tiles=tile(b64(zlib.compress(bytes(512 * 512 * 2 - 1))))),
    "something behind it": op(tiles=tile(b64(zlib.compress(bytes(512 * 512 * 2)) + b"more"))),
    "cut off": op(tiles=tile(b64(zlib.compress(bytes(512 * 512 * 2))[:-4]))),
    "no zlib": op(tiles=tile(b64(b"hello"))),
    "no base64": op(tiles=tile("!!!!")),
    "base64 with lines": op(tiles=tile(GOOD[:40] + "\n" + GOOD[40:])),
    "a number for a text": op(tiles=tile(5)),
    "a text too long": op(tiles=tile("A" * 800_000)),
    "a tile outside": op(tiles=tile(GOOD, row=2)),
    "a tile before the first": op(tiles=tile(GOOD, col=-1)),
    "a tile between": op(tiles=tile(GOOD, row=0.5)),
    "true for a number": op(tiles=tile(GOOD, row=True)),
    "a tile twice": op(tiles=tile(GOOD) * 2),
    "a thousand tiles": op(tiles=tile("AA") * 1000),
    "a tile with more to say": op(tiles=[{**tile(GOOD)[0], "path": "/etc"}]),
    "tiles that are none": op(tiles={"0": GOOD}),
    "the size of another tile": op(tiles=tile(GOOD, row=1, col=1)),
    "objects that are none": op(annotations=[5]),
    "pixels of no object": op(annotations=[]),
    "a category there is none of": op(annotations=[{"id": 1, "category_id": 99}]),
    "an object of a number that is none": op(annotations=[{"id": 70_000, "category_id": 1}]),
    "attributes that are none": op(annotations=[{"id": 1, "category_id": 1, "attributes": 5}]),
    "a source of its own making": op(annotations=[{"id": 1, "category_id": 1, "source": "<script>"}]),
    "a revision to come": op(base_revision=5),
    "a revision before all": op(base_revision=-1),
    "a revision that is none": op(base_revision="1"),
    "no client": op(client_id=""),
    "a client that is none": op(client_id=7),
    "a client of a page": op(client_id="x" * 201),
    "a seq below": op(seq=-1),
    "a seq above": op(seq=1 << 53),
    "a seq that is true": op(seq=True),
    "a year of work": op(ms=365 * 24 * 3600 * 1000),
    "a tool of a page": op(tool="x" * 201),
    "a member nobody knows": op(status="reviewed"),
}


@pytest.mark.parametrize("what", BAD_OPS)
def test_an_operation_that_makes_no_label_is_refused_and_nothing_changes(small: Client, what: str) -> None:
    begun = time.perf_counter()
    answer = small.send("POST", "/samples/1/ops", BAD_OPS[what])
    assert answer.status in (400, 413, 422), (answer.status, answer.body[:300])
    assert answer.json["title"] and answer.headers["Content-Type"] == "application/problem+json"
    assert time.perf_counter() - begun < 5
    assert small.get("/samples/1").json["revision"] == 0
    assert small.get("/samples/1/history").json["items"] == []


def test_a_bomb_takes_no_memory_for_what_it_claims(small: Client) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read where /proc is")
    before = _peak()
    for _ in range(20):
        assert small.send("POST", "/samples/1/ops", BAD_OPS["a bomb of zeros"]).status == 400
    assert _peak() - before < 64 << 20, f"{(_peak() - before) >> 20} MiB for bombs of 300 MB"


def _peak() -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) << 10


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b'"text"',
        b"[" * 3000,
        b'{"a":' * 500,
        b'{"status": NaN}',
        b'{"status": ' + b"9" * 4000 + b"}",
        b"\xff\xfe",
        b'{"status": null}',
        b'{"status": ["labelled"]}',
        b'{"status": "reviewed\\u0000"}',
        b'{"status": "nonsense"}',
        b'{"status": "labelled", "is_admin": true}',
    ],
)
def test_json_that_is_none_is_told(small: Client, body: bytes) -> None:
    answer = small.ask("PATCH", f"{API}/projects/street/samples/1", body, OURS)
    assert answer.status in (400, 404), (answer.status, answer.body)
    assert small.get("/samples/1").json["status"] == "todo"


@pytest.mark.parametrize(
    "number", ["0", "-1", "99", "1e3", "x", "1 or 1=1", "9" * 30, "1;drop table samples"]
)
def test_a_sample_that_there_is_none_of_is_not_found(client: Client, number: str) -> None:
    for what in ("", "/label", "/tiles", "/image", "/thumb", "/history", "/issues", "/predictions"):
        answer = client.get(f"/samples/{quote(number)}{what}")
        assert answer.status in (400, 404), (what, answer.status, answer.body)
    assert client.get("/samples").json["total"] == 3


SENSELESS = ["limit=0", "limit=9999999", "limit=x", "level=-1", "level=99", "order=%00", "cursor=%5B1%5D",
             "cursor=[[],[]]", "cursor=[1e999,1]", "category=x", "status=%27", "revision=99", "revision=-1",
             f"revision={'9' * 30}"]  # fmt: skip


@pytest.mark.parametrize("query", SENSELESS)
def test_queries_that_make_no_sense_are_told(client: Client, query: str) -> None:
    what = {"level": "/samples/1/image", "revision": "/samples/1/label"}.get(
        query.partition("=")[0], "/samples"
    )
    answer = client.get(f"{what}?{quote(query, safe='=%')}")
    assert answer.status in (400, 404), (answer.status, answer.body)


# -- time and number -----------------------------------------------------------------------------------------------


def test_a_body_that_does_not_come_is_let_go(small: Client) -> None:
    head = (f"POST {API}/projects/street/samples/1/ops HTTP/1.1\r\nHost: localhost\r\nX-Terrazzo: 1\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")  # fmt: skip
    for text, wanted in ((head, b"408"), ("GET / HTTP/1.1\r\nHost: loc", b"")):
        begun = time.monotonic()
        with socket.create_connection(("127.0.0.1", small.port), timeout=20) as connection:
            connection.sendall(text.encode())
            told = connection.recv(4096)
        assert time.monotonic() - begun < 10
        assert told.split(b" ")[1:2] == ([wanted] if wanted else [])


def test_a_body_without_a_length_is_cut_where_the_limit_is(small: Client) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", small.port, timeout=30)

    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    try:
        connection.request("PATCH", f"{API}/projects/street/samples/1", parts(), OURS, encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == 413
        answer.read()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it was let go while it sent on
    finally:
        connection.close()
    large = small.ask("PATCH", f"{API}/projects/street/samples/1", b" " * 5000, OURS)
    assert refused(large, 413, "too-large")["expected"] == "at most 4,096 bytes"
    assert small.get("/samples/1").json["status"] == "todo"


def test_what_all_requests_hold_together_is_bounded_and_given_back(tmp_path: Path) -> None:
    with label_served(tmp_path, limits=Limits(held_bytes=100_000, body_seconds=5)) as client:
        value = json.dumps(op()).encode()
        assert (
            client.ask("POST", f"{API}/projects/street/samples/1/ops", b" " * 120_000 + value, OURS).status
            == 429
        )
        for seq in range(5):
            value = json.dumps(op(seq=seq, base_revision=seq)).encode()
            padded = b" " * 60_000 + value
            assert client.ask("POST", f"{API}/projects/street/samples/1/ops", padded, OURS).status == 200
        assert _is_given_back(client)


def test_a_thousand_requests_at_once_are_all_answered(tmp_path: Path) -> None:
    paths = ["/samples", "/samples/1/label", "/samples/1/tiles", "/samples/1/thumb", ""]
    with label_served(tmp_path) as client, concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda number: client.get(paths[number % 5]).status, range(1000)))
        assert answers == [200] * 1000
        assert _is_given_back(client)


def _is_given_back(client: Client) -> bool:
    """An answer is read a moment before what its request held is given back."""
    until = time.monotonic() + 5
    while client.shelf.intake.held and time.monotonic() < until:
        time.sleep(0.005)
    return client.shelf.intake.held == 0
