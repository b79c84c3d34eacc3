"""What the doctor tells about how masks are stored: their size, EXIF, colours, grey RGB, 16 bits."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from sick_folder import COLORS, HW, NAMES, Folder, ids, mended, only, photo, read, run
from terrazzo.data import open_dataset
from terrazzo.data.alignment import upright
from terrazzo.data.doctor import check
from terrazzo.data.repair import Remedies, fix
from terrazzo.errors import MaskValueError

# -- sizes -------------------------------------------------------------------------------------------------------------


def test_a_mask_of_another_size_is_an_error(sick: Folder, tmp_path: Path) -> None:
    sick.put("train/masks/a.png", ids(0, (6, 8)))
    finding = only(check(sick.root), "size")
    assert finding.what == (
        "1 mask has another size than the image: the first is 6x8 on 12x16 (height x width)."
    )
    mended(finding, tmp_path)


def put_turned(folder: Folder, where: str, image: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder.put(where, image, exif=exif)


def test_a_mask_that_exif_did_not_turn_is_turned_like_its_image(sick: Folder, tmp_path: Path) -> None:
    put_turned(sick, "train/images/a.png", photo(0), 6)  # shown as 16x12, turned clockwise
    finding = only(check(sick.root), "exif")
    assert finding.severity == "error" and finding.files == ("train/masks/a.png",)
    assert finding.what == (
        "1 mask lies as the image is stored, not as it is shown: EXIF turns the image and not the mask."
    )
    repair, after = mended(finding, tmp_path)
    assert after.findings == ()
    assert np.array_equal(read(repair.folder / "train/masks/a.png"), np.rot90(ids(0), -1))
    assert open_dataset(repair.folder)["train"][0].size_hw == (16, 12)


def test_a_mask_that_was_turned_already_is_fine(sick: Folder) -> None:
    put_turned(sick, "train/images/a.png", photo(0), 6)
    sick.put("train/masks/a.png", ids(0, HW[::-1]))
    assert check(sick.root).findings == ()


def test_an_image_upside_down_by_exif_is_a_question(sick: Folder, tmp_path: Path) -> None:
    put_turned(sick, "train/images/a.png", photo(0), 3)
    finding = only(check(sick.root), "exif-unsure")
    assert finding.severity == "warning" and finding.command is not None and "--exif-all" in finding.command
    assert finding.what == (
        "1 image is turned or mirrored by EXIF and the mask is not; the sizes do not tell which is right."
    )
    repair = run(finding.command, tmp_path / "mended")
    assert np.array_equal(read(repair.folder / "train/masks/a.png"), ids(0)[::-1, ::-1])
    sure = fix(sick.root, tmp_path / "sure", Remedies(exif=True))
    assert np.array_equal(read(sure.folder / "train/masks/a.png"), ids(0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_as_pillow_turns_images(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(ids(0))
    picture.info["exif"] = exif.tobytes()
    assert np.array_equal(upright(ids(0), orientation), np.asarray(ImageOps.exif_transpose(picture)))


# -- colours -----------------------------------------------------------------------------------------------------------


def test_masks_of_colours_become_ids_by_the_classes_colours(sick: Folder, tmp_path: Path) -> None:
    palette = np.array(COLORS, np.uint8)
    sick.each_mask(lambda mask: palette[mask])
    finding = only(check(sick.root), "colors")
    assert finding.what == "4 masks hold colours, not ids."
    assert finding.hint == "Each colour is a class's. To turn them into ids, in a copy:"
    repair, after = mended(finding, tmp_path)
    assert after.findings == ()
    assert np.array_equal(read(repair.folder / "val/masks/d.png"), ids(3))


def test_colours_beside_shifted_ids_get_the_ids_of_the_copy(sick: Folder, tmp_path: Path) -> None:
    sick.put("train/masks/a.png", np.array(COLORS, np.uint8)[ids(0)])
    for name, seed in (("train/masks/b", 1), ("train/masks/c", 2), ("val/masks/d", 3)):
        sick.put(f"{name}.png", ids(seed) + np.uint8(1))
    repair = fix(sick.root, tmp_path / "mended", Remedies(colors=True, shift=True))
    data = open_dataset(repair.folder)
    for seed in range(3):
        assert np.array_equal(data["train"][seed].mask, ids(seed))
    assert np.array_equal(data["val"][0].mask, ids(3)) and check(repair.folder).findings == ()


def test_classes_that_occur_as_colours_alone_are_not_absent(sick: Folder, tmp_path: Path) -> None:
    sick.each_mask(lambda mask: np.where(mask == 1, 0, mask))
    sick.put("train/masks/a.png", np.array(COLORS, np.uint8)[ids(0)])
    assert [one.kind for one in check(sick.root).findings] == ["colors"]
    repair = fix(sick.root, tmp_path / "mended", Remedies(colors=True, drop_absent=True))
    assert open_dataset(repair.folder).classes.names == NAMES


def test_colours_that_are_no_class_are_ignored_only_when_asked(sick: Folder, tmp_path: Path) -> None:
    palette = np.array([*COLORS, (1, 2, 3)], np.uint8)
    odd = ids(0)
    odd[0, :4] = 3
    sick.put("train/masks/a.png", palette[odd])
    finding = only(check(sick.root), "colors")
    assert finding.hint == (
        "No class has [1, 2, 3] (4 pixels). To turn colours into ids and these into ignore, in a copy:"
    )
    with pytest.raises(MaskValueError, match=r"1 colours in the masks of .* are no class's"):
        fix(sick.root, tmp_path / "refused", Remedies(colors=True))
    assert not (tmp_path / "refused").exists()
    repair, after = mended(finding, tmp_path)
    assert after.findings == ()
    expected = np.where(odd == 3, 255, odd)
    assert np.array_equal(read(repair.folder / "train/masks/a.png"), expected)


def test_colours_without_any_given_colour_ask_for_them(sick: Folder) -> None:
    (sick.root / "dataset.json").write_text(json.dumps({"classes": list(NAMES)}))
    palette = np.array(COLORS, np.uint8)
    sick.each_mask(lambda mask: palette[mask])
    finding = only(check(sick.root), "colors")
    assert finding.hint is not None and finding.hint.startswith("No class has one of their 3 colours: [")
    assert 'as in {"name": "road", "color": [128, 64, 128]}' in finding.hint


# -- channels and bits -------------------------------------------------------------------------------------------------


def test_ids_saved_as_grey_rgb_keep_one_channel(sick: Folder, tmp_path: Path) -> None:
    sick.each_mask(lambda mask: np.repeat(mask[..., None], 3, axis=2))
    diagnosis = check(sick.root)
    finding = only(diagnosis, "grey")
    assert finding.what == "4 masks hold ids saved as grey RGB: three equal channels."
    assert sum(one.pixels for one in diagnosis.counts) == 4 * 192
    repair, after = mended(finding, tmp_path)
    assert after.findings == () and np.array_equal(read(repair.folder / "train/masks/a.png"), ids(0))


def test_grey_rgb_of_0_and_255_is_mended_in_one_go(sick: Folder, tmp_path: Path) -> None:
    sick.describe(classes=[{"name": "ground"}, {"name": "thing"}])
    sick.each_mask(lambda mask: np.repeat(np.where(mask > 0, 255, 0).astype(np.uint8)[..., None], 3, axis=2))
    kinds = {one.kind for one in check(sick.root).errors}
    assert kinds == {"grey", "binary"}
    repair = fix(sick.root, tmp_path / "mended", Remedies(grey=True, binary=True))
    assert check(repair.folder).findings == ()
    assert np.array_equal(read(repair.folder / "train/masks/a.png"), ids(0) > 0)


def test_sixteen_bits_that_are_not_needed_are_a_warning(sick: Folder, tmp_path: Path) -> None:
    sick.each_mask(lambda mask: mask.astype(np.uint16))
    finding = only(check(sick.root), "sixteen-bit")
    assert finding.severity == "warning" and finding.what == "4 masks have 16 bits where 8 would do."
    repair, after = mended(finding, tmp_path)
    assert after.findings == ()
    copy = read(repair.folder / "train/masks/a.png")
    assert copy.dtype == np.uint8 and np.array_equal(copy, ids(0))


def test_65535_is_no_ignore_value_of_few_classes(sick: Folder, tmp_path: Path) -> None:
    wide = ids(0).astype(np.uint16)
    wide[0, 0] = 65535
    sick.put("train/masks/a.png", wide)
    finding = only(check(sick.root), "sixteen-bit")
    assert finding.severity == "error"
    assert finding.what == "1 mask has 16 bits and holds 65535, which is not in the table."
    repair, after = mended(finding, tmp_path)
    assert after.findings == () and read(repair.folder / "train/masks/a.png")[0, 0] == 255
