"""Bodies that the labelling server does not take in: no images, bombs, nonsense, too slow, too many."""

import base64
import concurrent.futures
import http.client
import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from labelserved import API, BYTES, OURS, Client, label_served, packed, refused
from terrazzo.labelling.limits import Limits

ROAD = [{"id": 1, "category_id": 1, "source": "manual", "attributes": {}}]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    limits = Limits(max_image_bytes=500_000, max_pixels=100_000, body_seconds=0.6, head_seconds=0.6,
                    max_json_bytes=4096, max_ops_bytes=2 << 20)  # fmt: skip
    with label_served(tmp_path_factory.mktemp("small"), limits=limits) as one:
        yield one


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
