"""Files elsewhere: read by URL as those here, asked again when a place stumbles, told in words when it is silent."""

import io
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from PIL import Image

from terrazzo import errors, remote
from terrazzo.images import image_size, read_image, read_mask
from terrazzo.sources import find_sources

PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """A bucket in this process, emptied afterwards."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


class Site(BaseHTTPRequestHandler):
    """Serves one picture; says no as often as its path asks for."""

    asked: ClassVar[Counter[str]] = Counter()
    content = png(PICTURE)

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        kind, _, detail = self.path.partition("?")[0].strip("/").partition("-")
        if kind == "stumbles" and self.asked[self.path] <= int(detail.partition(".")[0]):
            self.send_error(503)
        elif kind == "forbidden":
            self.send_error(403)
        elif kind == "missing":
            self.send_error(404)
        else:
            wanted = self.headers.get("Range") if kind != "whole" else None
            start, end = 0, len(self.content)
            if wanted:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, end = int(first), min(end, int(last) + 1)
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(self.content)}")
            self.send_header("ETag", '"abc"')
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            self.wfile.write(self.content[start:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAITS", (0, 0))


def test_images_and_masks_are_read_by_url(
    memory: fsspec.AbstractFileSystem, site: str, tmp_path: Path
) -> None:
    memory.pipe_file("/bucket/a.png", png(PICTURE))
    memory.pipe_file("/bucket/mask.png", png(PICTURE[..., 0]))
    (tmp_path / "b.png").write_bytes(png(PICTURE))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("day/c.png", png(PICTURE))
    zipped = f"zip://day/c.png::{tmp_path / 'all.zip'}"
    for url in ("memory://bucket/a.png", f"file://{tmp_path}/b.png", zipped, f"{site}/d.png"):
        np.testing.assert_array_equal(read_image(url), PICTURE)
        assert image_size(url) == (5, 7)
    np.testing.assert_array_equal(read_mask("memory://bucket/mask.png"), PICTURE[..., 0])


def test_a_part_is_what_is_asked_for(memory: fsspec.AbstractFileSystem, site: str) -> None:
    memory.pipe_file("/bucket/a.png", png(PICTURE))
    for url in ("memory://bucket/a.png", f"{site}/a.png"):
        assert remote.read(url, 10, 20) == png(PICTURE)[10:20]
        assert remote.facts(url).size == len(png(PICTURE))
    assert remote.facts(f"{site}/a.png").identity == '"abc"'
    with pytest.raises(errors.UnreadableFileError, match="whole files only"):
        remote.read(f"{site}/whole-a.png", 10, 20)


def test_a_place_that_stumbles_is_asked_again_and_says_so(site: str) -> None:
    with pytest.warns(RuntimeWarning, match="503.*trying again in 0 s") as said:
        assert remote.read(f"{site}/stumbles-2.png") == png(PICTURE)
    assert len(said) == 2
    with pytest.warns(RuntimeWarning), pytest.raises(errors.UnreachableError) as told:
        remote.read(f"{site}/stumbles-9.png")
    assert Site.asked["/stumbles-9.png"] == 3
    assert "cannot be reached" in str(told.value)
    assert "3 attempts" in str(told.value)


def test_a_short_answer_is_asked_for_again(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe_file("/bucket/short", b"0123")
    with pytest.warns(RuntimeWarning, match="4 bytes came of 9"), pytest.raises(errors.UnreachableError):
        remote.read("memory://bucket/short", 0, 9)


def test_what_another_attempt_would_not_change_is_told_at_once(site: str) -> None:
    with pytest.raises(errors.UnreadableFileError, match="may not be read") as denied:
        read_image(f"{site}/forbidden-a.png")
    assert "403" in str(denied.value)
    with pytest.raises(errors.MissingPathError, match="There is no file memory://nowhere/a.png"):
        read_image("memory://nowhere/a.png")
    with pytest.raises(errors.MissingPathError, match="404"):
        read_image(f"{site}/missing-a.png")
    assert Site.asked["/forbidden-a.png"] == Site.asked["/missing-a.png"] == 1


def test_what_a_protocol_does_not_offer_is_told_with_the_way_round(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsspec's base class answers so for each call that a protocol leaves out."""
    memory.pipe_file("/bucket/a.png", png(PICTURE))
    for call in ("find", "ls"):
        monkeypatch.setattr(type(memory), call, getattr(fsspec.AbstractFileSystem, call))
    with pytest.raises(errors.UnreadableFileError) as told:
        remote.files_below("memory://bucket")
    text = str(told.value)
    assert "memory://bucket cannot be read through memory://." in text
    assert "expected: a protocol that lists folders and gives parts of files" in text
    assert "Copy it to this machine first, and name the copy." in text


def test_a_protocol_names_its_package_or_its_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = sys.modules["fsspec.registry"]

    monkeypatch.setitem(
        registry.known_implementations,
        "s3",
        {"class": "no_such_s3fs.FileSystem", "err": "Install s3fs to access S3"},
    )
    registry._registry.pop("s3", None)
    with pytest.raises(
        errors.MissingExtraError, match="s3:// cannot be read: its package is not installed"
    ) as extra:
        read_image("s3://bucket/a.png")
    assert "pip install no_such_s3fs" in str(extra.value)
    with pytest.raises(errors.UnknownNameError, match="There is no protocol 'memry'") as unknown:
        read_image("memry://bucket/a.png")
    assert "'memory'" in str(unknown.value)


# sources named on a command line --------------------------------------------------------------------------


def test_folders_globs_and_files_by_url(memory: fsspec.AbstractFileSystem, site: str, tmp_path: Path) -> None:
    for path in ("day/a.png", "day/b.jpg", "night/a.png", ".hidden/c.png", "day/notes.txt"):
        memory.pipe_file(f"/bucket/{path}", b"")
    found = {source.name: source.path for source in find_sources(["memory://bucket"])}
    assert found == {
        "day/a": "memory:///bucket/day/a.png",
        "day/b": "memory:///bucket/day/b.jpg",
        "night/a": "memory:///bucket/night/a.png",
    }
    assert [one.name for one in find_sources(["memory://bucket/*/a.png"])] == ["day/a", "night/a"]
    assert [one.name for one in find_sources(["memory://bucket/day", "memory://bucket/night"])] == [
        "day/a", "day/b", "night/a",
    ]  # fmt: skip
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.png").write_bytes(b"")
    mixed = find_sources([str(tmp_path / "here"), f"{site}/a.png?size=1", f"{site}/a.png?size=2"])
    assert [one.name for one in mixed] == ["a", "a-size-1", "a-size-2"]
    assert mixed[2].path == f"{site}/a.png?size=2"


def test_a_url_that_leads_nowhere_is_told(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe_file("/bucket/notes.txt", b"")
    with pytest.raises(errors.UsageError, match="There are no images in memory://bucket") as none:
        find_sources(["memory://bucket"])
    assert "1 other files" in str(none.value)
    with pytest.raises(errors.MissingPathError, match="no image, folder or glob memory://elsewhere"):
        find_sources(["memory://elsewhere"])
