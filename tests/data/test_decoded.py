"""Decoded samples on the disk: the same pixels in the next process, and none that were half-written."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from terrazzo.data import decoded
from terrazzo.data.decoded import DecodedSamples, key_of
from terrazzo.sample import Sample


class Shelf:
    """Samples of two sizes that count how often they are read."""

    def __init__(self, count: int = 6, *, masks: bool = True, dtype: type = np.uint8) -> None:
        rng = np.random.default_rng(count)
        self.names = [f"street/{index}" for index in range(count)]
        self.reads = [0] * count
        self.samples = []
        for index, name in enumerate(self.names):
            hw = ((9, 13), (16, 7))[index % 2]
            mask = rng.integers(0, 5, hw, np.uint8) if masks else None
            self.samples.append(Sample(rng.integers(0, 256, (*hw, 3)).astype(dtype), mask, name))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        self.reads[index] += 1
        return self.samples[index]

    def size_hw(self, index: int) -> tuple[int, int]:
        return self.samples[index].size_hw


def check_all(cache: DecodedSamples, shelf: Shelf) -> None:
    for index, sample in enumerate(shelf.samples):
        found = cache[index]
        np.testing.assert_array_equal(found.image, sample.image)
        assert found.image.dtype == sample.image.dtype and found.name == sample.name
        if sample.mask is None:
            assert found.mask is None
        else:
            assert found.mask is not None
            np.testing.assert_array_equal(found.mask, sample.mask)


@pytest.mark.parametrize(
    ("masks", "dtype"), [(True, np.uint8), (False, np.uint8), (True, np.uint16), (True, np.float32)]
)
def test_each_sample_is_read_once_over_two_openings(tmp_path: Path, masks: bool, dtype: type) -> None:
    shelf = Shelf(masks=masks, dtype=dtype)
    check_all(DecodedSamples(shelf, key="a", folder=tmp_path), shelf)
    again = Shelf(masks=masks, dtype=dtype)
    cache = DecodedSamples(again, key="a", folder=tmp_path)
    check_all(cache, again)
    check_all(cache, again)
    assert sum(shelf.reads) == 6 + 1  # the first tells the dtypes
    assert sum(again.reads) == 1


def test_another_key_shares_nothing(tmp_path: Path) -> None:
    check_all(DecodedSamples(Shelf(), key="a", folder=tmp_path), Shelf())
    other = Shelf()
    check_all(DecodedSamples(other, key="b", folder=tmp_path), other)
    assert sum(other.reads) == 7


def test_the_key_follows_contents_names_and_tables() -> None:
    same = key_of(["a", "b"], ["1", "2"], {0: 1}, 3)
    assert same == key_of(["a", "b"], ["1", "2"], {0: 1}, 3)
    others = [
        key_of(["a", "c"], ["1", "2"], {0: 1}, 3),
        key_of(["a", "b"], ["1", "3"], {0: 1}, 3),
        key_of(["a", "b"], ["1", "2"], {0: 2}, 3),
        key_of(["a", "b"], ["1", "2"], {0: 1}, 4),
    ]
    assert len({same, *others}) == 5


def test_pixels_that_are_not_what_was_written_are_decoded_again(tmp_path: Path) -> None:
    shelf = Shelf()
    check_all(DecodedSamples(shelf, key="a", folder=tmp_path), shelf)
    (pixels,) = tmp_path.rglob("pixels")
    data = bytearray(pixels.read_bytes())
    data[5] ^= 255  # as after a pulled plug
    pixels.write_bytes(data)
    again = Shelf()
    cache = DecodedSamples(again, key="a", folder=tmp_path)
    check_all(cache, again)
    assert again.reads == [2, 0, 0, 0, 0, 0]  # opened, and the damaged one
    check_all(DecodedSamples(again, key="a", folder=tmp_path), again)
    assert again.reads[0] == 3  # whole again


def test_a_damaged_index_costs_only_the_decoding(tmp_path: Path) -> None:
    shelf = Shelf()
    check_all(DecodedSamples(shelf, key="a", folder=tmp_path), shelf)
    (index,) = tmp_path.rglob("index.json")
    index.write_text('{"format": 1, "places": 3}')
    cache = DecodedSamples(shelf, key="a", folder=tmp_path)
    check_all(cache, shelf)


def test_what_has_no_room_is_read_anew_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded, "_room", lambda folder, wanted: wanted // 2)
    shelf = Shelf()
    cache = DecodedSamples(shelf, key="a", folder=tmp_path)
    check_all(cache, shelf)
    check_all(cache, shelf)
    assert "have room on the disk" in cache.said[0]
    kept = [reads for reads in shelf.reads[1:] if reads == 1]
    assert 1 <= len(kept) < 5 and shelf.reads[-1] == 2


def test_a_full_disk_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: DecodedSamples, name: str, at: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    shelf = Shelf()
    cache = DecodedSamples(shelf, key="a", folder=tmp_path)
    monkeypatch.setattr(DecodedSamples, "_write", full)
    with pytest.warns(UserWarning, match="cannot be kept .*No space left") as told:
        check_all(cache, shelf)
    assert len(told) == 1
    check_all(cache, shelf)
    assert shelf.reads == [3, 2, 2, 2, 2, 2]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "decoded").write_text("in the way")
    shelf = Shelf()
    cache = DecodedSamples(shelf, key="a", folder=tmp_path)
    check_all(cache, shelf)
    assert "cannot be kept" in cache.said[0] and cache.num_bytes == 0


def test_the_caches_used_longest_ago_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, folders = Shelf(), []
    for day, key in enumerate("abc"):
        check_all(DecodedSamples(shelf, key=key, folder=tmp_path), shelf)
        folders += [one.parent for one in tmp_path.rglob("index.json") if one.parent not in folders]
        os.utime(folders[-1] / "index.json", (day, day))
    size = decoded._size(folders[0])
    usage = SimpleNamespace(free=(decoded.SHARE - 1) * 3 * size)  # with the three, there is room for three
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda folder: usage)
    check_all(DecodedSamples(shelf, key="d", folder=tmp_path), shelf)
    assert [one.exists() for one in folders] == [False, True, True]


def test_processes_that_fill_one_cache_and_are_killed_leave_no_wrong_pixel(tmp_path: Path) -> None:
    script = tmp_path / "fill.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import importlib.util, itertools
            from pathlib import Path
            spec = importlib.util.spec_from_file_location("shelves", {str(Path(__file__))!r})
            shelves = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(shelves)
            shelf = shelves.Shelf(200)
            cache = shelves.DecodedSamples(shelf, key="a", folder=Path({str(tmp_path / "cache")!r}))
            print("filling", flush=True)
            for index in itertools.cycle(range(200)):
                cache._keep(index, shelf.samples[index])
            """
        )
    )
    children = [subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE) for _ in range(2)]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == b"filling\n"
    for child in children:
        child.kill()
        child.communicate()
    shelf = Shelf(200)
    cache = DecodedSamples(shelf, key="a", folder=tmp_path / "cache")
    check_all(cache, shelf)
    assert sum(shelf.reads) <= 200
