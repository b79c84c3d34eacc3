"""Files at addresses are fetched when that was asked for, and an import that ends early waits for none."""

import functools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segments_tree import (
    TRUTH,
    change,
    left_beside,
    masks,
    run,
    write_segments,
)
from terrazzo import remote
from terrazzo.data import importers, open_dataset
from terrazzo.data.importers.copying import in_threads
from terrazzo.data.importers.planning import Wanted
from terrazzo.data.importers.segments_files import Fetched
from terrazzo.errors import (
    UnreachableError,
    UnreadableFileError,
    UsageError,
)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_segments(tmp_path / "raw")


@pytest.fixture
def site(release: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serves the release's folder, and moves its files to addresses there."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            pass

    monkeypatch.setattr(remote, "WAITS", ())
    handler = functools.partial(Quiet, directory=str(release.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        place = f"http://127.0.0.1:{running.server_port}"

        def move(dataset: Any) -> None:
            for one in dataset["samples"]:
                held = [one["attributes"]["image"]]
                held += [part["attributes"]["segmentation_bitmap"] for part in one["labels"].values() if part]
                for url in held:
                    url["url"] = f"{place}/{url['url']}?X-Amz-Signature=secret"

        change(release, move)
        yield place
        running.shutdown()


def test_nothing_is_fetched_unless_asked(release: Path, site: str) -> None:
    with pytest.raises(UsageError, match=r"6 files at addresses(.|\n)*127\.0\.0\.1(.|\n)*--download"):
        run(release)


def test_files_at_addresses_are_fetched_when_asked(release: Path, site: str) -> None:
    (release.parent / "images" / "c.png").rename(release.parent / "images" / "c")
    change(release, lambda d: d["samples"][2]["attributes"]["image"].update(url=f"{site}/images/c"))
    found = masks(run(release, download=True))
    assert set(found) == {"day1/a", "b", "c"}
    np.testing.assert_array_equal(found["day1/a"], TRUTH)
    copy = release.parent.parent / "out" / "train" / "images" / "c.png"
    assert copy.read_bytes() == (release.parent / "images" / "c").read_bytes()


def test_an_answer_that_is_no_image_is_told(release: Path, site: str) -> None:
    (release.parent / "images" / "b.jpg").write_text("<html>log in first</html>")
    with pytest.raises(UnreadableFileError, match=r"/images/b\.jpg\?… cannot be read") as told:
        run(release, download=True)
    assert "secret" not in str(told.value)
    assert left_beside(release) == ["raw"]


def test_an_address_that_leads_to_nothing_is_told(release: Path, site: str) -> None:
    (release.parent / "bitmaps" / "scene.png").unlink()
    with pytest.raises(
        UnreadableFileError, match=r"2 of 3 pairs(.|\n)*no file http.*scene\.png\?… \(HTTP 404"
    ):
        run(release, download=True)
    assert left_beside(release) == ["raw"]
    out = importers.run(
        "segments", release, release.parent.parent / "out", Wanted(download=True), drop_damaged=True
    )
    assert set(masks(open_dataset(out))) == {"b"}


def test_a_plan_stops_what_waits_when_work_ends_early(release: Path, site: str) -> None:
    with ExitStack() as stack:
        plan = importers.plan("segments", release, Wanted(download=True), stack)
    image = plan.pairs["train"][0].image
    assert isinstance(image, Fetched)
    assert image.read()
    asked = threading.Event()

    def work(item: str) -> bool:
        if item == "fails":
            asked.wait(10)
            raise UnreachableError("gone")
        asked.set()
        return plan.stop is not None and image._stop.wait(10)

    started = time.monotonic()
    with pytest.raises(UnreachableError, match="gone"):
        list(in_threads(work, ["fails", "waits"], workers=2, stop=plan.stop))
    assert time.monotonic() - started < 5
    with pytest.raises(UnreachableError, match="the work was stopped"):
        image.read()
