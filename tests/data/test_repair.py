"""The copy that mends: what it keeps, what it refuses, and that it says what it had no need to do."""

from pathlib import Path

import numpy as np
import pytest

from sick_folder import HW, Folder
from terrazzo.data.doctor import check
from terrazzo.data.repair import Remedies, fix
from terrazzo.errors import DatasetFormatError, ExistingOutputError, UsageError


def test_the_copy_keeps_images_byte_for_byte_and_everything_else_that_is_well(
    sick: Folder, tmp_path: Path
) -> None:
    sick.put("train/masks/a.png", np.full(HW, 255, np.uint8))
    repair = fix(sick.root, tmp_path / "copy", Remedies(drop_empty=True))
    kept = {path.relative_to(repair.folder) for path in repair.folder.rglob("*") if path.is_file()}
    raw = {path.relative_to(sick.root) for path in sick.root.rglob("*") if path.is_file()}
    assert raw - kept == {Path("train/images/a.png"), Path("train/masks/a.png")} and not kept - raw
    assert all((repair.folder / path).read_bytes() == (sick.root / path).read_bytes() for path in kept)


def test_fix_asks_for_something_to_do(sick: Folder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Nothing to mend was named") as told:
        fix(sick.root, tmp_path / "copy", Remedies())
    assert "--drop-unpaired" in str(told.value) and f"terrazzo check {sick.root}" in str(told.value)


def test_fix_overwrites_nothing(sick: Folder, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "precious.txt").write_text("mine")
    with pytest.raises(ExistingOutputError):
        fix(sick.root, tmp_path / "copy", Remedies(binary=True))
    assert (tmp_path / "copy" / "precious.txt").read_text() == "mine"


def test_fix_says_what_it_did_not_need_to_do(sick: Folder, tmp_path: Path) -> None:
    repair = fix(sick.root, tmp_path / "copy", Remedies(binary=True, shift=True, drop_absent=True, exif=True))
    assert "0 masks changed from 255 to 1: they do not hold 0 and 255 alone." in repair.actions
    assert "The table was not changed: the ids are not shifted by one." in repair.actions
    assert "0 masks turned like their images." in repair.actions
    assert check(repair.folder).findings == ()


def test_fix_leaves_something(sick: Folder, tmp_path: Path) -> None:
    sick.each_mask(lambda mask: np.full_like(mask, 255))
    with pytest.raises(UsageError, match="Nothing would be left"):
        fix(sick.root, tmp_path / "copy", Remedies(drop_empty=True))


def test_a_table_of_ids_needs_names(sick: Folder, tmp_path: Path) -> None:
    (sick.root / "dataset.json").unlink()
    with pytest.raises(DatasetFormatError, match="--shift needs the names of the classes"):
        fix(sick.root, tmp_path / "copy", Remedies(shift=True))
