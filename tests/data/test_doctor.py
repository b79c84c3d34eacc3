"""Every illness has a hand-made data set, the sentence it is told in, and a command that is run and does mend it."""

import hashlib
import json
import shlex
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from terrazzo.cli import COMMANDS
from terrazzo.cli.parsing import find_command
from terrazzo.data import open_dataset
from terrazzo.data.alignment import upright
from terrazzo.data.doctor import Diagnosis, Finding, check
from terrazzo.data.repair import Remedies, Repair, fix
from terrazzo.errors import (
    DatasetFormatError,
    ExistingOutputError,
    MaskValueError,
    MissingPathError,
    UsageError,
)

HW = (12, 16)
NAMES = ("road", "car", "tree")
COLORS = ((128, 64, 128), (0, 0, 142), (107, 142, 35))


def photo(seed: int, hw: tuple[int, int] = HW) -> np.ndarray:
    """An image that is like no other one."""
    coarse = np.random.default_rng(seed).integers(0, 256, (hw[0] // 2 + 1, hw[1] // 2 + 1, 3))
    return np.kron(coarse, np.ones((2, 2, 1)))[: hw[0], : hw[1]].astype(np.uint8)


def ids(seed: int, hw: tuple[int, int] = HW, count: int = 3) -> np.ndarray:
    """A mask of 4 x 4 blocks with every class 0 … count-1."""
    coarse = np.random.default_rng(100 + seed).integers(0, count, (-(-hw[0] // 4), -(-hw[1] // 4)))
    coarse.flat[:count] = np.arange(count)
    return np.kron(coarse, np.ones((4, 4), int))[: hw[0], : hw[1]].astype(np.uint8)


class Folder:
    """A data set in plain folders, healthy until a test breaks it: train a, b, c and val d."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for seed, (split, name) in enumerate((("train", "a"), ("train", "b"), ("train", "c"), ("val", "d"))):
            self.put(f"{split}/images/{name}.png", photo(seed))
            self.put(f"{split}/masks/{name}.png", ids(seed))
        self.describe()

    def put(self, where: str, array: np.ndarray, **options: Any) -> Path:
        path = self.root / where
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path, **options)
        return path

    def describe(self, **more: Any) -> None:
        classes = [{"name": name, "color": list(color)} for name, color in zip(NAMES, COLORS, strict=True)]
        (self.root / "dataset.json").write_text(json.dumps({"classes": classes, **more}))

    def masks(self) -> list[Path]:
        return sorted(self.root.glob("*/masks/*"))

    def each_mask(self, change: Any) -> None:
        for path in self.masks():
            Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


@pytest.fixture
def sick(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "data")


def only(diagnosis: Diagnosis, kind: str) -> Finding:
    """The one finding, of this kind."""
    assert [one.kind for one in diagnosis.findings] == [kind], diagnosis.text()
    return diagnosis.findings[0]


def of_kind(diagnosis: Diagnosis, kind: str) -> Finding:
    found = [one for one in diagnosis.findings if one.kind == kind]
    assert len(found) == 1, diagnosis.text()
    return found[0]


def run(command: str | None, out: Path) -> Repair:
    """Do what a `terrazzo fix` line says, read by the command line itself; only the copy's place is another."""
    assert command is not None
    words = shlex.split(command)
    assert words[:2] == ["terrazzo", "fix"] and words[-2] == "--out" and words[-1] == words[2] + "-fixed"
    arguments = find_command("fix", COMMANDS).parser().read([*words[2:-1], str(out)])
    asked = {one.name: getattr(arguments, one.name) for one in fields(Remedies)}
    return fix(words[2], out, Remedies(**asked), workers=1)


def mended(finding: Finding, tmp_path: Path) -> tuple[Repair, Diagnosis]:
    """Run a finding's command; the finding is gone from the copy, and what was raw is as it was."""
    source = shlex.split(finding.command or "")[2]
    before = fingerprint(Path(source))
    repair = run(finding.command, tmp_path / "mended")
    after = check(repair.folder, workers=1)
    assert (finding.kind, finding.severity) not in [(one.kind, one.severity) for one in after.findings], (
        after.text()
    )
    assert fingerprint(Path(source)) == before
    return repair, after


def fingerprint(root: Path) -> dict[str, str]:
    paths = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


# -- a healthy data set ------------------------------------------------------------------------------------------------


def test_a_healthy_data_set_has_counts_and_no_findings(sick: Folder) -> None:
    diagnosis = check(sick.root)
    assert diagnosis.ok and diagnosis.findings == ()
    assert diagnosis.images == {"train": 3, "val": 1} and diagnosis.masks == {"train": 3, "val": 1}
    of_val = {one.name: one for one in diagnosis.counts if one.split == "val"}
    truth = read(sick.root / "val/masks/d.png")
    for class_id, name in enumerate(NAMES):
        pixels = int((truth == class_id).sum())
        assert (of_val[name].pixels, of_val[name].images) == (pixels, 1)
        assert of_val[name].share == pytest.approx(pixels / truth.size)
    text = diagnosis.text()
    assert text.startswith(f"{sick.root}: train 3 images, val 1 image\n")
    assert text.endswith("Nothing wrong found.")
    told = json.loads(diagnosis.to_json())
    assert told["ok"] is True and told["counts"][0]["name"] == "road"


def test_ignored_pixels_are_counted_apart(sick: Folder) -> None:
    half = ids(3)
    half[:6] = 255
    sick.put("val/masks/d.png", half)
    diagnosis = check(sick.root)
    assert diagnosis.ok
    assert diagnosis.ignored == {"train": 0.0, "val": 0.5}
    assert sum(one.share for one in diagnosis.counts if one.split == "val") == pytest.approx(1.0)
    assert "(ignored)" in diagnosis.text() and "50.00%" in diagnosis.text()


def test_a_test_split_may_be_without_masks(sick: Folder) -> None:
    sick.put("test/images/z.png", photo(9))
    diagnosis = check(sick.root)
    assert diagnosis.findings == () and diagnosis.images["test"] == 1
    assert "test 1 image (no usable mask)" in diagnosis.text()


def test_void_classes_are_ignored_not_missed(sick: Folder) -> None:
    (sick.root / "dataset.json").unlink()
    (sick.root / "classes.txt").write_text("road\ncar\ntree\nunlabeled\n")
    void = ids(0)
    void[0] = 3
    sick.put("train/masks/a.png", void)
    diagnosis = check(sick.root)
    assert diagnosis.findings == ()
    assert diagnosis.ignored["train"] == pytest.approx(16 / (3 * 192))


def test_progress_is_told(sick: Folder) -> None:
    seen: list[tuple[int, int]] = []
    check(sick.root, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


# -- folders and files -------------------------------------------------------------------------------------------------


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


# -- ids ---------------------------------------------------------------------------------------------------------------


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


# -- tables, and the whole ---------------------------------------------------------------------------------------------


def test_a_table_is_examined_and_mended_into_folders(tmp_path: Path) -> None:
    import io

    import datasets

    def encoded(array: np.ndarray) -> dict[str, Any]:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, format="PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    def table(seeds: list[int]) -> datasets.Dataset:
        binary = [np.where(ids(seed) > 0, 255, 0).astype(np.uint8) for seed in seeds]
        rows = {
            "image": [encoded(photo(seed)) for seed in seeds],
            "label": [encoded(mask) for mask in binary],
        }
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
        return datasets.Dataset.from_dict(rows, features=features)

    saved = tmp_path / "saved"
    datasets.DatasetDict({"train": table([0, 1]), "validation": table([2, 0])}).save_to_disk(str(saved))
    (saved / "id2label.json").write_text(json.dumps({"0": "ground", "1": "thing"}))
    diagnosis = check(saved)
    assert [one.kind for one in diagnosis.errors] == ["binary", "leak"]
    assert diagnosis.images == {"train": 2, "val": 2}
    assert diagnosis.errors[1].files[0].endswith("row 1, column 'image'")
    repair = fix(saved, tmp_path / "mended", Remedies(binary=True, drop_duplicates=True))
    assert check(repair.folder).findings == ()
    data = open_dataset(repair.folder)
    assert len(data["train"]) == 1 and len(data["val"]) == 2 and data.classes.names == ("ground", "thing")
    sample = data["train"][0]
    assert np.array_equal(sample.image, photo(1)) and np.array_equal(sample.mask, ids(1) > 0)


def test_an_open_data_set_is_examined_too(sick: Folder) -> None:
    data = open_dataset(sick.root)
    assert check(data).findings == ()
    assert check(data).images == {"train": 3, "val": 1}
    broken = sick.root / "val/images/d.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert only(check(data), "unreadable-image").files == (str(broken),)


def test_one_problem_does_not_hide_the_next(sick: Folder, tmp_path: Path) -> None:
    (sick.root / "train/masks/a.png").unlink()
    broken = sick.root / "train/images/b.png"
    broken.write_bytes(broken.read_bytes()[:40])
    sick.put("val/masks/d.png", ids(0, (6, 8), count=4) * np.uint8(20))
    diagnosis = check(sick.root)
    assert [one.kind for one in diagnosis.errors] == ["image-alone", "unreadable-image", "size", "range"]
    lines = diagnosis.text().splitlines()
    assert "Errors:" in lines and lines[-1] == diagnosis.summary()
    assert diagnosis.summary().startswith("4 errors, ")
    assert f"       terrazzo fix {sick.root} --drop-unpaired --out {sick.root}-fixed" in lines


def test_few_files_are_named_and_all_are_counted(sick: Folder) -> None:
    for number in range(8):
        sick.put(f"train/images/extra{number}.png", photo(60 + number))
    finding = only(check(sick.root), "image-alone")
    assert finding.count == 8 and len(finding.files) == 5
    assert ", … (8 in all)" in check(sick.root).text()


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


def test_every_flag_that_a_finding_names_exists() -> None:
    import re

    from terrazzo.data import findings

    pages = "".join(page.read_text() for page in Path(findings.__file__).parent.glob("*.py"))
    known = {"--" + one.name.replace("_", "-") for one in fields(Remedies)}
    assert set(re.findall(r'"(--[a-z-]+)["=]', pages)) - {"--out"} == known


def test_every_finding_stands_on_the_page_about_them() -> None:
    import re

    from terrazzo.data import findings

    pages = "".join(page.read_text() for page in Path(findings.__file__).parent.glob("*.py"))
    kinds = set(re.findall(r'"(?:error|warning)",\s*"([a-z0-9-]+)"', pages)) - {"warning"}
    kinds |= {"unreadable-image", "unreadable-mask", "jpeg-mask", "only-in-val", "missing-in-train"}
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "doctor.md").read_text(encoding="utf-8")
    assert len(kinds) > 35 and {kind for kind in kinds if f"`{kind}`" not in page} == set()
    flags = {"--" + one.name.replace("_", "-") for one in fields(Remedies)}
    assert {flag for flag in flags if flag not in page} == set()
