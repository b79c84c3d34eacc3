"""A damaged download is refused with all its damaged files, or these are left out by name; nothing is half there."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from camvid_tree import NAMES, write_camvid
from terrazzo.data import importers, open_dataset
from terrazzo.data.importers import copying
from terrazzo.data.importers.copying import in_threads
from terrazzo.data.importers.planning import Pair
from terrazzo.errors import DatasetFormatError, MaskSizeError, MaskValueError, UnreadableFileError

FIRST, SECOND, THIRD = NAMES["train"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_camvid(tmp_path / "raw")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def spoil(raw: Path) -> None:
    """A truncated image, a mask of another size, and one with ids that nobody knows."""
    cut(raw / "train" / f"{FIRST}.png")
    Image.fromarray(np.zeros((4, 8), np.uint8)).save(raw / "trainannot" / f"{SECOND}.png")
    Image.fromarray(np.full((6, 8), 33, np.uint8)).save(raw / "valannot" / "0016E5_07959.png")


@pytest.mark.parametrize("link", [False, True])
def test_all_damaged_files_are_listed_and_nothing_is_written(raw: Path, tmp_path: Path, link: bool) -> None:
    spoil(raw)
    with pytest.raises(DatasetFormatError) as caught:
        importers.run("camvid", raw, tmp_path / "out", link=link)
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 of 4 pairs are damaged; nothing was imported."
    assert f"{raw}/train/{FIRST}.png cannot be read" in lines[2]
    assert lines[3].strip() == (
        f"{raw}/trainannot/{SECOND}.png has another size than its image (mask 4 x 8, image 6 x 8)"
    )
    assert (
        f"{raw}/valannot/0016E5_07959.png has raw id 33, which is not in the data set's table (33 (48 pixels))"
        in lines[4]
    )
    assert lines[-1].strip() == "terrazzo import … --drop-damaged"
    assert os.listdir(tmp_path) == ["raw"]


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda raw: cut(raw / "trainannot" / f"{THIRD}.png"), UnreadableFileError),
        (
            lambda raw: Image.fromarray(np.zeros((8, 6), np.uint8)).save(raw / "trainannot" / f"{THIRD}.png"),
            MaskSizeError,
        ),
        (
            lambda raw: Image.fromarray(np.full((6, 8), 12, np.uint8)).save(
                raw / "trainannot" / f"{THIRD}.png"
            ),
            MaskValueError,
        ),
    ],
)
def test_a_single_damaged_file_keeps_its_own_error(
    raw: Path, tmp_path: Path, damage: Callable[[Path], None], error: type[Exception]
) -> None:
    damage(raw)
    with pytest.raises(error, match=f"trainannot/{THIRD}.png") as caught:
        importers.run("camvid", raw, tmp_path / "out")
    assert str(caught.value).endswith("To import the others without it:\n  terrazzo import … --drop-damaged")
    assert os.listdir(tmp_path) == ["raw"]


def test_damaged_pairs_are_left_out_where_that_was_asked_and_named(
    raw: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(raw)
    out = importers.run("camvid", raw, tmp_path / "out", drop_damaged=True)
    assert sorted(path.name for path in out.rglob("*.png")) == [f"{THIRD}.png"] * 2
    said = json.loads((out / "dataset.json").read_text())
    assert said["splits"] == {"train": "train"}
    left_out = said["extra"]["left_out"]
    assert list(left_out) == [f"train/{FIRST}", f"train/{SECOND}", "val/0016E5_07959"]
    assert "another size" in left_out[f"train/{SECOND}"]
    shown = capfd.readouterr().err
    assert "Left out, as asked, and named in dataset.json:" in shown
    assert all(
        str(raw / "trainannot" / f"{SECOND}.png") in text for text in (shown, left_out[f"train/{SECOND}"])
    )


def test_a_data_set_of_damaged_files_alone_is_refused_even_so(raw: Path, tmp_path: Path) -> None:
    for path in raw.rglob("*.png"):
        cut(path)
    with pytest.raises(UnreadableFileError, match="4 of 4 pairs are damaged"):
        importers.run("camvid", raw, tmp_path / "out", drop_damaged=True)
    assert os.listdir(tmp_path) == ["raw"]


def test_of_many_damaged_files_the_first_twenty_are_shown(raw: Path, tmp_path: Path) -> None:
    for number in range(23):
        for folder in ("train", "trainannot"):
            (raw / folder / f"x_{number:02d}.png").write_bytes(b"<html>Please log in</html>")
    with pytest.raises(UnreadableFileError) as caught:
        importers.run("camvid", raw, tmp_path / "out")
    message = str(caught.value)
    assert "23 of 27 pairs are damaged" in message
    assert "x_19.png" in message
    assert "x_20.png" not in message
    assert "… 23 in all" in message


def test_ctrl_c_leaves_nothing_behind(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = copying._write, []

    def interrupted(source: Path, *words: object, link: bool) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        write(source, *words, link=link)  # type: ignore[arg-type]
        written.append(source)

    monkeypatch.setattr(copying, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        importers.run("camvid", raw, tmp_path / "out", workers=1)
    assert len(written) == 3
    assert os.listdir(tmp_path) == ["raw"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("drawn_as_shown", [False, True])
def test_masks_drawn_on_images_as_they_are_stored_are_turned_where_that_was_asked(
    tmp_path: Path, orientation: int, drawn_as_shown: bool
) -> None:
    """Pillow turns both files by the same tag: what it makes of mask and image must be what comes out."""
    raw = tmp_path / "raw"
    stored = np.arange(12, dtype=np.uint8).reshape(3, 4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for split in ("train", "val"):
        for folder in (split, f"{split}annot"):
            (raw / folder).mkdir(parents=True)
        Image.fromarray(np.repeat(stored[..., None] * 20, 3, axis=2)).save(raw / split / "x_1.png", exif=exif)
        with Image.open(raw / split / "x_1.png") as photo:
            shown = np.asarray(ImageOps.exif_transpose(photo))[..., 0] // 20
        Image.fromarray(shown if drawn_as_shown else stored).save(raw / f"{split}annot" / "x_1.png")
    if orientation >= 5 and not drawn_as_shown:
        with pytest.raises(MaskSizeError, match="--exif turns such masks too"):
            importers.run("camvid", raw, tmp_path / "out")
    data = open_dataset(importers.run("camvid", raw, tmp_path / "out", exif=True))
    is_turned = (
        drawn_as_shown or orientation >= 5
    )  # of the others the sizes say nothing, and they stay as they are
    expected = shown if is_turned else stored
    np.testing.assert_array_equal(data["train"][0].mask, np.where(expected == 11, 255, expected))


def test_threads_give_results_in_order_and_run_only_a_little_ahead() -> None:
    begun, lock = [], threading.Lock()

    def square(number: int) -> int:
        with lock:
            begun.append(number)
        return number * number

    results = in_threads(square, range(1000), workers=3)
    assert [next(results) for _ in range(5)] == [(n, n * n) for n in range(5)]
    assert len(begun) <= 5 + 3 * copying.AHEAD + 1
    assert [one for one, _ in results] == list(range(5, 1000))


def test_what_raises_in_a_thread_is_raised_and_nothing_new_is_begun() -> None:
    begun = []

    def fail(number: int) -> None:
        begun.append(number)
        raise OSError(f"no {number}")

    with pytest.raises(OSError, match="no 0"):
        list(in_threads(fail, range(1000), workers=1))
    assert len(begun) <= copying.AHEAD + 2


def test_a_file_whose_suffix_lies_is_read_for_what_it_is(raw: Path, tmp_path: Path) -> None:
    path = raw / "train" / f"{FIRST}.png"
    Image.open(path).save(path, format="JPEG")
    data = open_dataset(importers.run("camvid", raw, tmp_path / "out"))
    assert data["train"][0].image.shape == (6, 8, 3)


def test_a_piece_that_is_no_file_is_called_by_its_pairs_name(tmp_path: Path) -> None:
    from terrazzo.classes import Remap
    from terrazzo.data.importers.checking import open_pair

    class Made:
        suffix = ".png"

        def read(self) -> bytes:
            return b"nothing"

    with pytest.raises(UnreadableFileError, match="the image a/b cannot be read"):
        open_pair(Pair("a/b", Made(), None), Remap.identity(2))
