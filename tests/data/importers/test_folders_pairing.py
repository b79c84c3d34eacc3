"""Images and masks are paired where there is one way to do it; what is left over is listed, never guessed."""

import os
from pathlib import Path

import pytest

from terrazzo.data.importers.folders_pairing import File, Match, find, pair, survey
from terrazzo.errors import DatasetFormatError, UsageError


def touch(root: Path, *places: str) -> Path:
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).touch()
    return root


def paired(root: Path, images: str, masks: str, *, partial: bool = False) -> Match:
    of_masks = find(root, masks, word="--masks")
    taken = {file.path for file in of_masks}
    of_images = [file for file in find(root, images, word="--images") if file.path not in taken]
    return pair(of_images, of_masks, root=root, partial=partial)


def places(match: Match) -> list[tuple[str, str]]:
    return [(image.place, mask.place) for image, mask in match.pairs]


CASES = {
    "the same names in two folders": (
        ("images/a.jpg", "images/b.png", "masks/a.png", "masks/b.png"),
        ("images/*", "masks/*"),
        [("images/a.jpg", "masks/a.png"), ("images/b.png", "masks/b.png")],
    ),
    "Cityscapes, with the endings in the patterns": (
        tuple(
            f"{part}/{split}/{city}/{city}_0_{end}.png"
            for split, city in (("train", "aachen"), ("val", "ulm"))
            for part, end in (
                ("leftImg8bit", "leftImg8bit"),
                ("gtFine", "gtFine_labelIds"),
                ("gtFine", "gtFine_color"),
            )
        ),
        ("leftImg8bit/**/*_leftImg8bit.png", "gtFine/**/*_gtFine_labelIds.png"),
        [
            (f"leftImg8bit/{s}/{c}/{c}_0_leftImg8bit.png", f"gtFine/{s}/{c}/{c}_0_gtFine_labelIds.png")
            for s, c in (("train", "aachen"), ("val", "ulm"))
        ],
    ),
    "the same, with endings that are found": (
        tuple(
            f"{split}/{part}/{city}/{city}_{number}_{end}.png"
            for split, city in (("train", "aachen"), ("val", "ulm"))
            for number in (0, 1)
            for part, end in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds"))
        ),
        ("*/leftImg8bit/**/*.png", "*/gtFine/**/*.png"),
        [
            (f"{s}/leftImg8bit/{c}/{c}_{n}_leftImg8bit.png", f"{s}/gtFine/{c}/{c}_{n}_gtFine_labelIds.png")
            for s, c in (("train", "aachen"), ("val", "ulm"))
            for n in (0, 1)
        ],
    ),
    "one folder of both": (
        ("d/1.jpg", "d/2.jpg", "d/1_mask.png", "d/2_mask.png"),
        ("d/*.jpg", "d/*.png"),
        [("d/1.jpg", "d/1_mask.png"), ("d/2.jpg", "d/2_mask.png")],
    ),
    "one folder of both with one suffix": (
        ("d/1.png", "d/2.png", "d/1_mask.png", "d/2_mask.png"),
        ("d/*.png", "d/*_mask.png"),
        [("d/1.png", "d/1_mask.png"), ("d/2.png", "d/2_mask.png")],
    ),
    "beginnings": (
        ("i/img_001.jpg", "i/img_002.jpg", "m/mask_001.png", "m/mask_002.png"),
        ("i/*", "m/*"),
        [("i/img_001.jpg", "m/mask_001.png"), ("i/img_002.jpg", "m/mask_002.png")],
    ),
    "beginnings and endings without a separator": (
        ("i/image001.jpg", "i/image002.jpg", "m/001mask.png", "m/002mask.png"),
        ("i/*", "m/*"),
        [("i/image001.jpg", "m/001mask.png"), ("i/image002.jpg", "m/002mask.png")],
    ),
    "a folder for each sample": (
        ("s1/image.jpg", "s1/label.png", "s2/image.jpg", "s2/label.png"),
        ("*/image.jpg", "*/label.png"),
        [("s1/image.jpg", "s1/label.png"), ("s2/image.jpg", "s2/label.png")],
    ),
    "equal names in two folders are two images": (
        ("i/x/1.jpg", "i/y/1.jpg", "m/x/1.png", "m/y/1.png"),
        ("i/**/*", "m/**/*"),
        [("i/x/1.jpg", "m/x/1.png"), ("i/y/1.jpg", "m/y/1.png")],
    ),
    "masks that lie flat": (
        ("i/x/1.jpg", "i/y/2.jpg", "m/1.png", "m/2.png"),
        ("i/**/*", "m/*"),
        [("i/x/1.jpg", "m/1.png"), ("i/y/2.jpg", "m/2.png")],
    ),
    "a test split without masks": (
        ("train/i/1.jpg", "train/m/1.png", "test/i/2.jpg"),
        ("*/i/*", "*/m/*"),
        [("train/i/1.jpg", "train/m/1.png")],
    ),
    "folders whose names hold the split": (
        ("images_train/1.jpg", "images_val/1.jpg", "masks_train/1.png", "masks_val/1.png"),
        ("images_*/*", "masks_*/*"),
        [("images_train/1.jpg", "masks_train/1.png"), ("images_val/1.jpg", "masks_val/1.png")],
    ),
    "points in names": (
        ("i/a.b.jpg", "i/a.c.jpg", "m/a.b.png", "m/a.c.png"),
        ("i/*.jpg", "m/*.png"),
        [("i/a.b.jpg", "m/a.b.png"), ("i/a.c.jpg", "m/a.c.png")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_belongs_together_is_paired(tmp_path: Path, case: str) -> None:
    files, patterns, expected = CASES[case]
    assert sorted(places(paired(touch(tmp_path, *files), *patterns))) == sorted(expected)


def test_splits_and_names_come_from_folders(tmp_path: Path) -> None:
    touch(tmp_path, "Training/photos/oslo/a.jpg", "dev/photos/rome/a.jpg", "testing/photos/b.jpg")
    files = find(tmp_path, "*/photos/**/*.jpg", word="--images")
    assert [(file.split, file.called) for file in files] == [
        ("train", "oslo/a"),
        ("val", "rome/a"),
        ("test", "b"),
    ]


def test_what_was_taken_off_is_said(tmp_path: Path) -> None:
    root = touch(tmp_path, "i/1_left.png", "i/2_left.png", "m/1_ids.png", "m/2_ids.png")
    assert (
        paired(root, "i/*", "m/*").said
        == "without '_left' in the names of images and without '_ids' in the names of masks"
    )


def test_what_has_no_partner_is_listed_or_with_partial_left_out(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"i/{n:02d}.jpg" for n in range(30)), "m/01.png", "m/02.png", "m/77.png")
    with pytest.raises(DatasetFormatError) as caught:
        paired(root, "i/*", "m/*")
    message = str(caught.value)
    assert "29 files below" in message
    assert "30 images, 3 masks, 2 pairs" in message
    assert "i/00.jpg has no mask" in message
    assert "… 29 in all" in message
    match = paired(root, "i/*", "m/*", partial=True)
    assert places(match) == [("i/01.jpg", "m/01.png"), ("i/02.jpg", "m/02.png")]
    assert len(match.without_mask) == 28
    assert [file.place for file in match.without_image] == ["m/77.png"]


def test_several_kinds_of_masks_are_told_apart(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"i/{n}.png" for n in range(3)),
        *(f"m/{n}_{kind}.png" for n in range(3) for kind in ("color", "ids")),
    )
    with pytest.raises(DatasetFormatError, match=r"names that end in _color, _ids\): narrow --masks to one"):
        paired(tmp_path, "i/*", "m/*")


def test_two_ways_to_pair_are_refused(tmp_path: Path) -> None:
    """As they are, x_2 has a mask; without the x_ that all images share, 1 has."""
    root = touch(tmp_path, "i/x_1.png", "i/x_2.png", "m/1.png", "m/x_2.png")
    with pytest.raises(DatasetFormatError, match="can be paired in 2 ways") as caught:
        paired(root, "i/*", "m/*", partial=True)
    assert "i/x_2.png with m/x_2.png" in str(caught.value)
    assert "i/x_1.png with m/1.png, without 'x_' in the names of images" in str(caught.value)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    root = touch(tmp_path, "i/a.jpg", "i/a.png", "m/a.png")
    with pytest.raises(DatasetFormatError, match=r"i/a.jpg, i/a.png"):
        paired(root, "i/*", "m/*")


def test_masks_of_another_split_are_no_partners(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/i/a.jpg", "val/m/a.png")
    with pytest.raises(DatasetFormatError, match="train/i/a.jpg has no mask"):
        paired(root, "*/i/*", "*/m/*")


def test_a_file_in_two_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match="folders of several splits"):
        find(touch(tmp_path, "train/val/a.png"), "**/*", word="--images")


@pytest.mark.parametrize("pattern", ["/etc/*.png", "../*.png", "a/../../*.png", ""])
def test_patterns_that_leave_the_folder_are_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match="leaves the folder"):
        find(tmp_path, pattern, word="--images")


def test_a_pattern_that_fits_nothing_is_answered_with_what_there_is(tmp_path: Path) -> None:
    root = touch(tmp_path, "pictures/a.JPG", "pictures/b.jpg", "pictures/.hidden.png", "notes.txt", "x.png")
    with pytest.raises(UsageError) as caught:
        find(root, "images/*.jpg", word="--images")
    assert survey(root) == "\npictures/*.jpg (2)\n*.png (1)"
    assert "pictures/*.jpg (2)" in str(caught.value)


def test_hidden_files_folders_and_other_files_are_no_images(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.png", "i/._a.png", "i/.cache/b.png", "i/notes.txt")
    os.mkdir(tmp_path / "i" / "folder.png")
    assert [file.place for file in find(tmp_path, "i/**/*", word="--images")] == ["i/a.png"]


def test_links_that_lead_in_circles_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "i/a/1.png", "i/b/2.png")
    os.symlink(tmp_path / "i", tmp_path / "i" / "a" / "up")
    os.symlink(tmp_path / "i", tmp_path / "i" / "b" / "up")
    assert [file.place for file in find(tmp_path, "i/**/*.png", word="--images")] == [
        "i/a/1.png",
        "i/b/2.png",
    ]


def test_characters_of_patterns_in_names_are_plain_characters(tmp_path: Path) -> None:
    touch(tmp_path, "i (1)+[x]/a+.png", "i (1)+[x]/b$.png")
    files: list[File] = find(tmp_path, "i (1)+*/*.png", word="--images")
    assert [file.name for file in files] == ["a+", "b$"]
