"""What may come in and what may not, each told in words, while everyone else is served."""

import base64
import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import tifffile
from PIL import Image

from served import FLAG, FLAG_MASK, Served, flag, jpeg, png, served
from terrazzo.errors import UsageError
from terrazzo.serving.gate import COOKIE, Door
from terrazzo.serving.limits import Limits

TOKEN = "correct horse battery staple"
SMALL = Limits(max_bytes=200_000, max_pixels=10_000, body_seconds=0.4, head_seconds=0.5)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(SMALL) as running:
        yield running
        assert running.post(FLAG).array.tolist() == FLAG_MASK.tolist()  # after all that follows


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (b"IHDR" + header, b"IDAT" + zlib.compress(bytes(1000)), b"IEND")
    chunks = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def many_scans() -> bytes:
    """A progressive JPEG with a scan again and again: each costs a pass over all pixels."""
    file = io.BytesIO()
    Image.fromarray(flag(80, 90)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 200 + data[-2:]


def wide_tiff() -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        np.zeros((64, 64, 200), np.uint8),
        photometric="minisblack",
        planarconfig="contig",
        compression="deflate",
    )
    return file.getvalue()


def told(inputs: object, **more: object) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


JSON = {"Content-Type": "application/json"}
BASE64 = base64.b64encode(FLAG).decode()


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"", {}, 400, "The request has no body."),
        (b"hello, world, this is no image", {}, 415, "30 bytes that begin 68 65 6c 6c 6f"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', {}, 415, "an SVG drawing"),
        (b"%PDF-1.7 ...", {}, 415, "a PDF"),
        (b"\0\0\0\x18ftypheic....", {}, 415, "a HEIC photograph"),
        (b"<!DOCTYPE html><html>", {}, 415, "a web page"),
        (FLAG[:60], {}, 422, "The upload cannot be read: it is damaged"),
        (jpeg(flag(80, 90))[:700], {}, 422, "The upload cannot be read: it is damaged"),
        (b"GIF89a", {}, 422, "The upload cannot be read"),
        (bomb(10_000, 10_000), {}, 422, "cannot hold the pixels that its header claims"),
        (bomb(60_000, 60_000), {}, 413, "60,000 x 60,000 pixels"),
        (bomb(0, 5), {}, 422, "The upload cannot be read"),
        (many_scans(), {}, 422, "The JPEG has more scans"),
        (wide_tiff(), {}, 413, "The TIFF unpacks to too much."),
        (png(np.zeros((5, 5, 4), np.uint8))[:-1], {}, 422, "The upload"),
        (b"x" * 200_001, {}, 413, "The upload is too large."),
        (b"--b\r\n\r\n--b--", {"Content-Type": "multipart/form-data; boundary=b"}, 415, "came inside a form"),
        (b"{", JSON, 400, "The JSON cannot be read."),
        (b"[" * 100_000, JSON, 400, "The JSON cannot be read."),
        (b"[1]", JSON, 400, 'no text "inputs"'),
        (told("§§§"), JSON, 400, "is not base64"),
        (told("http://127.0.0.1:1/secret.png"), JSON, 400, "Images are sent, not fetched."),
        (told(BASE64, parameters={"subtsk": "semantic"}), JSON, 400, "Did you mean 'subtask'?"),
        (told(BASE64, parameters={"subtask": "panoptic"}), JSON, 400, "Only semantic masks"),
        (told(BASE64, parameters=[1]), JSON, 400, "are no object"),
    ],
)  # fmt: skip
def test_bad_images_are_refused_in_words(
    server: Served, body: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    looks = len(server.backend.batches)
    answer = server.ask("POST", "/models/rgb?as=map", body, headers)
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json
    assert problem["status"] == status
    assert problem["type"].startswith("urn:terrazzo:")
    assert words in problem["detail"]
    assert problem["detail"].startswith(problem["title"])
    assert "terrazzo check" not in problem["detail"]  # words for the command line
    assert len(server.backend.batches) == looks


def test_unknown_names_are_told_with_the_nearest(server: Served) -> None:
    model = server.post(FLAG, model="rbg")
    assert (model.status, model.json["hint"]) == (404, "Did you mean 'rgb'?")
    form = server.post(FLAG, "mpa")
    assert (form.status, form.json["hint"]) == (400, "Did you mean 'map'?")
    assert server.ask("GET", "/nowhere").json["title"] == "Not Found: GET /nowhere."
    assert server.ask("DELETE", "/models").status == 405
    assert server.ask("GET", "/static/../app.py").status == 404
    assert server.ask("GET", "/static/%2e%2e/app.py").status == 404


def test_images_of_other_channels_are_told_what_the_model_takes(server: Served) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((8, 8, 5), np.uint16), photometric="minisblack", planarconfig="contig")
    answer = server.post(file.getvalue())
    assert (answer.status, answer.json["title"]) == (422, "The upload has 5 channels instead of 3.")


def test_a_body_longer_than_it_says_or_without_a_length_is_still_bounded(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"POST /models/rgb HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            client.sendall(b"c350\r\n" + bytes(50_000) + b"\r\n")
        client.sendall(b"0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_slow_bodies_and_slow_heads_are_let_go(server: Served) -> None:
    begun = time.monotonic()
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as body,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as head,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as silent,
    ):
        body.sendall(
            b"POST /models/rgb HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n" + FLAG[:20]
        )
        head.sendall(b"POST /models/rgb HTTP/1.1\r\nHo")
        assert server.post(FLAG).status == 200  # meanwhile
        answer = body.recv(2000)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer.lower()
        assert head.recv(100) == b""
        assert silent.recv(100) == b""
    assert time.monotonic() - begun < 5


def test_the_rest_of_a_refused_body_is_not_waited_for_for_ever(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\nxx")
        assert b"404" in client.recv(2000)
        for _ in range(20):
            try:
                client.sendall(b"x")
            except OSError:
                return
            time.sleep(0.1)
    raise AssertionError("the connection is still open")


@pytest.mark.parametrize(
    "line",
    [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100 + b"\r\n\r\n", b"GET /" + b"a" * 70_000],
)
def test_what_is_no_http_gets_a_4xx_or_nothing(server: Served, line: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(line)
        assert client.recv(100)[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 421")


def test_other_names_and_other_sites_stay_out(server: Served) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "[::1", ""):
        assert server.ask("GET", "/models", headers={"Host": host}).status == 421, host
    for host in ("localhost", "LOCALHOST:99", "[::1]:8000", "127.0.0.1", "192.168.1.7:8000"):
        assert server.ask("GET", "/models", headers={"Host": host}).status == 200, host
    for origin in ("http://evil.example", "null", f"http://localhost:{server.port}"):
        assert server.post(FLAG, Origin=origin).status == 403, origin
    assert server.post(FLAG, Origin=f"http://127.0.0.1:{server.port}").status == 200
    assert "access-control-allow-origin" not in server.post(FLAG).headers


def test_every_answer_forbids_scripts_of_others(server: Served) -> None:
    for path in ("/", "/models", "/nowhere", "/static/app.js"):
        headers = server.ask("GET", path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_token_is_asked_for_and_a_browser_keeps_a_cookie_in_its_place() -> None:
    with served(door=Door.of("127.0.0.1", token=TOKEN)) as server:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic eDp5"},
            {"Cookie": f"{COOKIE}=1; ;;="},
        ):
            refused = server.ask("GET", "/models", headers=headers)
            assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert TOKEN not in refused.body.decode()
        assert server.post(FLAG).status == 401
        assert server.ask("GET", "/models", headers={"Authorization": "Bearer \xff\xfe"}).status == 401
        assert server.post(FLAG, Authorization=f"Bearer {TOKEN}").status == 200
        assert server.ask("GET", "/healthz").status == server.ask("GET", "/readyz").status == 200
        assert server.ask("GET", "/metrics").status == 401
        entry = server.ask("GET", "/?token=" + TOKEN.replace(" ", "%20"))
        assert (entry.status, entry.headers["Location"]) == (303, "/")
        cookie = entry.headers["Set-Cookie"]
        assert "httponly" in cookie.lower()
        assert "samesite=strict" in cookie.lower()
        assert "correct" not in cookie
        assert server.post(FLAG, Cookie=cookie.partition(";")[0]).status == 200
        assert server.ask("GET", "/?token=wrong").status == 401


def test_a_door_that_would_stand_open_is_refused() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.7", "robot.local"):
        with pytest.raises(
            UsageError, match=r"others can reach the server, and it has no token(.|\n)*--token-file"
        ):
            Door.of(host)
    with pytest.raises(UsageError, match="can be guessed"):
        Door.of("127.0.0.1", token="short")
    assert TOKEN not in repr(Door.of("0.0.0.0", token=TOKEN))
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert Door.of(host).token is None
