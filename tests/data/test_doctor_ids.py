"""What the doctor tells about ids: binary, shifted by one, out of range, all the same, and classes that never occur."""

from pathlib import Path

import numpy as np

from sick_folder import HW, Folder, ids, mended, of_kind, only, read
from terrazzo.data import open_dataset
from terrazzo.data.doctor import check


def test_binary_masks_of_0_and_255_are_told_and_mended(sick: Folder, tmp_path: Path) -> None:
    sick.describe(classes=[{"name": "ground"}, {"name": "thing"}])
    sick.each_mask(lambda mask: np.where(mask > 0, 255, 0).astype(np.uint8))
    share = np.mean([read(path) == 255 for path in sick.masks()])
    finding = of_kind(check(sick.root), "binary")
    assert finding.severity == "error" and finding.count == 4
    assert finding.what == (
        f"The masks are binary, 0 and 255, and 255 means ignore: {share:.1%} of the pixels would be neither trained "
        "nor scored."
    )
    repair, after = mended(finding, tmp_path)
    assert after.findings == ()
    for path in sick.masks():
        copy = read(repair.folder / path.relative_to(sick.root))
        assert np.array_equal(copy == 1, read(path) == 255) and set(np.unique(copy)) == {0, 1}


def test_a_binary_mask_of_one_class_gets_a_background(sick: Folder, tmp_path: Path) -> None:
    sick.describe(classes=[{"name": "crack", "color": [255, 0, 0]}])
    sick.each_mask(lambda mask: np.where(mask > 0, 255, 0).astype(np.uint8))
    finding = of_kind(check(sick.root), "binary")
    assert finding.hint == 'To write 255 as id 1, with "background" as the name of id 0, in a copy:'
    repair, after = mended(finding, tmp_path)
    assert after.findings == () and open_dataset(repair.folder).classes.names == ("background", "crack")
    assert "Id 0 is named \"background\", id 1 'crack'." in repair.text()


def test_0_and_255_are_fine_where_a_table_says_so(sick: Folder) -> None:
    sick.describe(classes=[{"name": "ground"}, {"name": "thing"}], remap={"0": 0, "255": 1})
    sick.each_mask(lambda mask: np.where(mask > 0, 255, 0).astype(np.uint8))
    assert check(sick.root).findings == ()


def test_ids_shifted_by_one_are_told_and_mended_by_the_table(sick: Folder, tmp_path: Path) -> None:
    sick.each_mask(lambda mask: mask + 1)
    sick.put("train/masks/a.png", np.where(ids(0) == 0, 0, ids(0) + 1).astype(np.uint8))
    finding = only(check(sick.root), "shift")
    assert finding.severity == "error"
    assert finding.what == "The ids are shifted by one: they reach 3, and the 3 classes are 0-2."
    assert (
        finding.hint is not None and finding.hint.startswith("If id 0 (") and "'not labelled'" in finding.hint
    )
    repair, after = mended(finding, tmp_path)
    assert after.findings == ()
    assert (
        "Id 0 is ignored and ids 1-3 are classes 0-2, by the table in dataset.json: 1 is 'road', 3 is 'tree'."
        in (repair.text())
    )
    data = open_dataset(repair.folder)
    mask = data["train"][0].mask
    assert np.array_equal(mask, np.where(ids(0) == 0, 255, ids(0)))
    assert np.array_equal(read(repair.folder / "train/masks/b.png"), ids(1) + 1)  # the files stay as they are


def test_a_shift_is_not_seen_where_a_table_says_what_ids_mean(sick: Folder) -> None:
    sick.each_mask(lambda mask: mask + 1)
    sick.describe(remap={"1": 0, "2": 1, "3": 2})
    assert check(sick.root).findings == ()


def test_ids_out_of_range_are_told_with_their_pixels(sick: Folder, tmp_path: Path) -> None:
    wrong = ids(1)
    wrong[0, :5] = 33
    wrong[1, 0] = 40
    sick.put("train/masks/b.png", wrong)
    finding = only(check(sick.root), "range")
    assert finding.what == (
        "2 ids are not in the data set's table: 33 (5 pixels), 40 (1 pixel); it has ids 0-2, 255."
    )
    assert finding.files == ("train/masks/b.png",)
    assert finding.command is not None and "--ignore-ids 33,40 " in finding.command
    repair, after = mended(finding, tmp_path)
    assert after.findings == ()
    mask = open_dataset(repair.folder)["train"][1].mask
    assert mask is not None and (mask == 255).sum() == 6


def test_masks_that_teach_nothing_or_one_thing_are_warnings(sick: Folder, tmp_path: Path) -> None:
    sick.put("train/masks/a.png", np.full(HW, 255, np.uint8))
    sick.put("train/masks/b.png", np.full(HW, 1, np.uint8))
    diagnosis = check(sick.root)
    assert diagnosis.ok
    empty, constant = of_kind(diagnosis, "empty"), of_kind(diagnosis, "constant")
    assert empty.what == "1 mask is ignored everywhere." and empty.files == ("train/masks/a.png",)
    assert constant.what == "1 mask shows one class everywhere." and constant.files == ("train/masks/b.png",)
    _, after = mended(empty, tmp_path / "one")
    assert [one.kind for one in after.findings] == ["constant"]
    mended(constant, tmp_path / "two")


def test_classes_that_never_occur_are_told_and_taken_off_the_list(sick: Folder, tmp_path: Path) -> None:
    sick.each_mask(lambda mask: np.where(mask == 1, 0, mask))
    finding = only(check(sick.root), "absent")
    assert finding.what == "1 class never occurs: car." and finding.severity == "warning"
    repair, after = mended(finding, tmp_path)
    data = open_dataset(repair.folder)
    assert after.findings == () and data.classes.names == ("road", "tree")
    assert np.array_equal(data["val"][0].mask, ids(3) == 2)
    assert "1 class taken off the list: car." in repair.text()


def test_a_class_that_is_only_scored_is_told_and_brought_to_train(sick: Folder, tmp_path: Path) -> None:
    for name in "abc":
        sick.put(f"train/masks/{name}.png", np.where(ids(0) == 2, 0, ids(0)).astype(np.uint8))
    finding = only(check(sick.root), "only-in-val")
    assert finding.what == "1 class occurs in val and never in train: tree."
    repair, after = mended(finding, tmp_path)
    assert after.findings == () and repair.actions == (
        "train and val divided anew, by images without groups: 3 in train, 1 in val.",
        "1 moved to train for the sake of classes that were missing there.",
    )
    assert "d" in open_dataset(repair.folder)["train"].names
