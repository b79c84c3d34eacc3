"""What the doctor tells about files: without a partner, unreadable, not described or listed, the same image twice."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sick_folder import Folder, ids, mended, of_kind, only, photo
from terrazzo.data import open_dataset
from terrazzo.data.doctor import check
from terrazzo.errors import MissingPathError


def test_an_image_without_a_mask_is_named_and_left_out(sick: Folder, tmp_path: Path) -> None:
    (sick.root / "train/masks/b.png").unlink()
    finding = only(check(sick.root), "image-alone")
    assert finding.severity == "error" and finding.what == "1 image has no mask."
    assert finding.files == ("train/images/b.png",)
    assert finding.command == f"terrazzo fix {sick.root} --drop-unpaired --out {sick.root}-fixed"
    repair, after = mended(finding, tmp_path)
    assert after.findings == () and repair.left_out == ("train/images/b.png",)
    assert "1 file left out: they have no partner, or more than one: train/images/b.png." in repair.text()
    assert open_dataset(repair.folder)["train"].names == ["a", "c"]


def test_a_mask_without_an_image_is_named_and_left_out(sick: Folder, tmp_path: Path) -> None:
    (sick.root / "val/images/d.png").unlink()
    sick.put("val/images/e.png", photo(7))
    sick.put("val/masks/e.png", ids(7))
    finding = only(check(sick.root), "mask-alone")
    assert finding.what == "1 mask has no image." and finding.files == ("val/masks/d.png",)
    mended(finding, tmp_path)


def test_two_files_of_one_name_are_told(sick: Folder, tmp_path: Path) -> None:
    sick.put("train/images/a.bmp", photo(20))
    finding = of_kind(check(sick.root), "same-name")
    assert finding.what == "2 files share their name with another but for the suffix."
    assert set(finding.files) == {"train/images/a.bmp", "train/images/a.png"}
    repair, after = mended(finding, tmp_path)
    assert set(repair.left_out) == {"train/images/a.bmp", "train/images/a.png", "train/masks/a.png"}
    assert after.findings == ()


def test_a_split_without_any_mask_is_an_error(sick: Folder) -> None:
    (sick.root / "val/masks/d.png").unlink()
    finding = only(check(sick.root), "no-masks")
    assert finding.what == "The split 'val' has 1 image and no mask."
    assert finding.command is None
    assert f"Put them into {sick.root / 'val/masks'}" in finding.hint


def test_unreadable_files_are_told_by_their_trouble(sick: Folder, tmp_path: Path) -> None:
    for name in ("train/images/a.png", "train/masks/b.png"):
        path = sick.root / name
        path.write_bytes(path.read_bytes()[:-30])
    diagnosis = check(sick.root)
    finding, other = of_kind(diagnosis, "unreadable-image"), of_kind(diagnosis, "unreadable-mask")
    assert len(diagnosis.findings) == 2
    for one, what in ((finding, "image"), (other, "mask")):
        assert one.what.startswith(f"1 {what} cannot be used: ") and "truncated" in one.what
    assert finding.files == ("train/images/a.png",) and other.files == ("train/masks/b.png",)
    assert not diagnosis.ok and "train 3 images (2 with a usable mask)" in diagnosis.text()
    repair, _ = mended(finding, tmp_path)
    assert len(open_dataset(repair.folder)["train"]) == 1


def test_a_jpeg_mask_keeps_no_ids(sick: Folder, tmp_path: Path) -> None:
    (sick.root / "train/masks/a.png").unlink()
    sick.put("train/masks/a.jpg", ids(0))
    finding = only(check(sick.root), "jpeg-mask")
    assert finding.what == "1 mask cannot be used: it is a JPEG, which does not keep class ids."
    mended(finding, tmp_path)


def test_an_image_of_another_form_is_told(sick: Folder, tmp_path: Path) -> None:
    from terrazzo.images import write_image

    write_image(sick.root / "train/images/b.png", photo(1).astype(np.uint16) * 257)
    finding = only(check(sick.root), "form")
    assert finding.what == (
        "1 image is not of the data set's form, 3 channels of uint8: the first has 3 of uint16."
    )
    mended(finding, tmp_path)


def test_grey_images_among_rgb_are_fine(sick: Folder) -> None:
    sick.put("train/images/b.png", photo(1)[..., 0])
    assert check(sick.root).findings == ()


def test_a_broken_description_hides_nothing_else(sick: Folder) -> None:
    sick.describe(chanels=3)
    (sick.root / "train/masks/b.png").unlink()
    diagnosis = check(sick.root)
    assert [one.kind for one in diagnosis.findings] == ["description", "image-alone"]
    assert "unknown key 'chanels'; did you mean 'channels'?" in diagnosis.findings[0].what


def test_ids_without_names_are_told_with_the_file_to_write(sick: Folder) -> None:
    (sick.root / "dataset.json").unlink()
    finding = only(check(sick.root), "no-names")
    assert finding.what == "Nothing says what the ids mean; the masks hold ids 0-2."
    assert finding.command == f"printf 'class0\\nclass1\\nclass2\\n' > {sick.root / 'classes.txt'}"
    subprocess.run(["sh", "-c", finding.command], check=True)
    assert check(sick.root).ok


def test_a_folder_of_something_else_is_told_and_does_not_stop(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    diagnosis = check(tmp_path)
    finding = only(diagnosis, "description")
    assert "is not a data set that terrazzo knows" in finding.what
    assert finding.command is not None and "terrazzo import" in finding.command
    assert "no image found" in diagnosis.text()


def test_nothing_there_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="There is no data set"):
        check(tmp_path / "nowhere")


def test_lists_of_splits_are_held_to_what_is_there(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "other")
    root = tmp_path / "data"
    for seed, name in enumerate("abcd"):
        (root / "images").mkdir(parents=True, exist_ok=True)
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(photo(seed)).save(root / "images" / f"{name}.png")
        Image.fromarray(ids(seed)).save(root / "masks" / f"{name}.png")
    folder.root = root
    folder.describe(splits={"train": ["a", "b", "gone"], "val": ["c"]})
    diagnosis = check(root)
    assert of_kind(diagnosis, "missing").what == "dataset.json lists 1 image that is not there."
    unlisted = of_kind(diagnosis, "unlisted")
    assert unlisted.what == "1 image is in none of the splits that dataset.json lists."
    assert unlisted.severity == "warning" and unlisted.files == ("images/d.png",)
    repair, after = mended(of_kind(diagnosis, "missing"), tmp_path)
    assert {name: split.names for name, split in open_dataset(repair.folder).splits.items()} == {
        "train": ["a", "b"],
        "val": ["c"],
    }
    assert [one.kind for one in after.findings] == ["unlisted"]
    assert mended(unlisted, tmp_path / "listed")[0].left_out == ("images/d.png", "masks/d.png")


# -- the same image twice ----------------------------------------------------------------------------------------------


def test_an_image_in_two_splits_is_an_error_even_in_another_format(sick: Folder, tmp_path: Path) -> None:
    sick.put("val/images/again.bmp", photo(0))
    sick.put("val/masks/again.png", ids(0))
    finding = only(check(sick.root), "leak")
    assert finding.what == "1 image is in more than one split, pixel for pixel."
    assert finding.files == ("val/images/again.bmp", "train/images/a.png") and finding.count == 1
    repair, after = mended(finding, tmp_path)
    assert after.findings == () and repair.left_out == ("train/images/a.png", "train/masks/a.png")


def test_an_image_twice_in_one_split_is_a_warning(sick: Folder, tmp_path: Path) -> None:
    sick.put("train/images/z.png", photo(0))
    sick.put("train/masks/z.png", ids(0))
    finding = only(check(sick.root), "repeated")
    assert finding.severity == "warning" and finding.what == "1 image occurs more than once in one split."
    repair, _ = mended(finding, tmp_path)
    assert open_dataset(repair.folder)["train"].names == ["a", "b", "c"]


def test_an_image_twice_where_a_split_will_be_made_is_an_error(tmp_path: Path) -> None:
    for seed, name in ((0, "a"), (1, "b"), (0, "c")):
        for kind, array in (("images", photo(seed)), ("masks", ids(seed))):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "data" / kind / f"{name}.png")
    (tmp_path / "data" / "classes.txt").write_text("road\ncar\ntree\n")
    finding = only(check(tmp_path / "data"), "leak")
    assert finding.what == "1 image is more than once, and train and val are made of them, pixel for pixel."
    mended(finding, tmp_path)


def test_an_image_saved_again_as_jpeg_is_a_near_leak(sick: Folder, tmp_path: Path) -> None:
    big = np.kron(photo(50, (24, 32)), np.ones((4, 4, 1), np.uint8))
    sick.put("train/images/x.png", big)
    sick.put("train/masks/x.png", ids(5, big.shape[:2]))
    sick.put("val/images/y.jpg", big, quality=90)
    sick.put("val/masks/y.png", ids(5, big.shape[:2]))
    finding = only(check(sick.root), "near-leak")
    assert finding.severity == "warning" and finding.files == ("val/images/y.jpg", "train/images/x.png")
    assert finding.what == "1 image of train looks nearly like one of another split."
    repair, after = mended(finding, tmp_path)
    assert after.findings == () and repair.left_out == ("train/images/x.png", "train/masks/x.png")
