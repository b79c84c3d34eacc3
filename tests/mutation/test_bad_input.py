"""A disk that is full, and a user who stops it: the output of any importer is whole or absent, and nothing else stays.

Zips, polygons, run lengths, names and colours gone wrong are tested beside their importers; pixels beside `images`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from mutation.targets import TARGETS
from terrazzo.errors import StorageError

WRITING = [name for name, target in TARGETS.items() if target.writes]


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 12 KiB, three pages; the test is skipped where none may be mounted."""
    place = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=12k", "terrazzo-test", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("name", WRITING)
def test_a_full_disk_leaves_nothing_of_an_import(name: str, small_disk: Path, tmp_path: Path) -> None:
    target = TARGETS[name]
    target.make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StorageError, match="The disk is full"):
        target.read(tmp_path, small_disk / "out")
    assert os.listdir(small_disk) == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.name == "nt", reason="SIGINT is sent otherwise on Windows")
def test_an_import_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "raw" / split).mkdir(parents=True)
        (tmp_path / "raw" / f"{split}annot").mkdir()
        for number in range(600 if split == "train" else 1):
            Image.new("RGB", (8, 6)).save(tmp_path / "raw" / split / f"a_{number}.png")
            Image.new("L", (8, 6)).save(tmp_path / "raw" / f"{split}annot" / f"a_{number}.png")
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from terrazzo.cli import main\n"
        f"sys.exit(main(['import', 'camvid', {str(tmp_path / 'raw')!r}, '--out', {str(tmp_path / 'out')!r}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(tmp_path.glob(".out.*/train/masks/*")):  # some pairs are written
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130 and "Traceback" not in said
    assert os.listdir(tmp_path) == ["raw"]
