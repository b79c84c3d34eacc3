"""Caches of these tests are their own; a data set to be made ill, and one to be streamed."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

import streamed
from sick_folder import Folder
from terrazzo.data import row_groups


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRAZZO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def sick(tmp_path: Path) -> Folder:
    """Four images and their masks, healthy until the test breaks something."""
    return Folder(tmp_path / "data")


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blobs in parquet files; not to be written to."""
    return streamed.publish(tmp_path_factory.mktemp("stream") / "blobs")


@pytest.fixture
def bucket(shelf: Path) -> Iterator[str]:
    """The same data set, in memory."""
    files = fsspec.filesystem("memory")
    for path in shelf.iterdir():
        files.pipe_file(f"/bucket/blobs/{path.name}", path.read_bytes())
    yield "memory://bucket/blobs"
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Every part of a file that is read: its name, first byte, and length."""
    asked: list[tuple[str, int, int]] = []
    read = row_groups.read

    def noted(url: str, start: int, end: int) -> bytes:
        asked.append((url.rpartition("/")[2], start, end - start))
        return read(url, start, end)

    monkeypatch.setattr(row_groups, "read", noted)
    return asked
