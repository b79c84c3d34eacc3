"""Caches of these tests are their own, and a data set to be made ill."""

from pathlib import Path

import pytest

from sick_folder import Folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRAZZO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def sick(tmp_path: Path) -> Folder:
    """Four images and their masks, healthy until the test breaks something."""
    return Folder(tmp_path / "data")
