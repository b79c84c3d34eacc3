"""What the doctor tells beyond the 24 planted faults: images too alike, sequences, ids of other meaning, rims, specks.

Each finding with a command is run through it and is gone; what is only told (the weights of classes) is compared with
what a training takes.
"""

import io
import json
import os
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from terrazzo.classes import Classes
from terrazzo.cli import COMMANDS
from terrazzo.cli.parsing import find_command
from terrazzo.data import open_dataset
from terrazzo.data.counts import class_pixels
from terrazzo.data.description import Description, read_description, write_description
from terrazzo.data.doctor import Diagnosis, Finding, check
from terrazzo.data.importers.camvid import CLASSES, REMAP
from terrazzo.data.remedies import Move, Remedies, read_moves
from terrazzo.data.repair import Repair, fix
from terrazzo.data.scenes import SCENE_CLASSES, scene
from terrazzo.errors import DatasetFormatError, UsageError
from terrazzo.nn.losses import LossConfig, chosen_weights

HW = (96, 128)
COUNTS = {"train": 6, "val": 3}


class Folder:
    """Drawn scenes in plain folders, to be broken."""

    def __init__(self, root: Path) -> None:
        self.root = root
        write_description(root, Description(SCENE_CLASSES))

    def put(self, where: str, pixels: np.ndarray | Image.Image, **options: Any) -> None:
        path = self.root / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        picture.save(path, **options)

    def pair(self, where: str, index: int, change: Callable[[np.ndarray], np.ndarray] = np.asarray) -> None:
        sample, (split, name) = scene(index, size_hw=HW), where.rsplit("/", 1)
        assert sample.mask is not None
        self.put(f"{split}/images/{name}.png", sample.image)
        self.put(f"{split}/masks/{name}.png", change(sample.mask.copy()))

    def masks(self, *splits: str) -> list[Path]:
        return sorted(path for split in splits or COUNTS for path in (self.root / split / "masks").iterdir())

    def each(self, change: Callable[[np.ndarray], np.ndarray], *splits: str) -> None:
        for path in self.masks(*splits):
            self.put(str(path.relative_to(self.root)), change(np.asarray(Image.open(path)).copy()))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("findings") / "drawn"
    root.mkdir()
    folder = Folder(root)
    for split, count in COUNTS.items():
        for i in range(count):
            folder.pair(f"{split}/{i}", i + 100 * (split == "val"))
    return folder


@pytest.fixture
def data(drawn: Folder, tmp_path: Path) -> Folder:
    root = tmp_path / "data"
    for path in drawn.root.rglob("*.png"):
        copy = root / path.relative_to(drawn.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, copy)
    return Folder(root)


def only(diagnosis: Diagnosis, kind: str) -> Finding:
    assert [one.kind for one in diagnosis.findings] == [kind], diagnosis.text()
    return diagnosis.findings[0]


def mended(finding: Finding, tmp_path: Path) -> tuple[Repair, Diagnosis]:
    """Run a finding's command as the command line reads it; it is gone from the copy."""
    words = shlex.split(finding.command or "")
    arguments = find_command("fix", COMMANDS).parser().read([*words[2:-1], str(tmp_path / "mended")])
    asked = {one.name: getattr(arguments, one.name) for one in fields(Remedies)}
    repair = fix(words[2], tmp_path / "mended", Remedies(**asked), workers=1)
    after = check(repair.folder, workers=1)
    assert finding.kind not in {one.kind for one in after.findings}, after.text()
    return repair, after


# -- images too alike --------------------------------------------------------------------------------------------------


def saved_again(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    for quality in (30, 60, 90):
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=quality)
        yield f"JPEG {quality}", Image.open(buffer)
    for scale in (0.6, 0.9, 1.3):
        size = (round(image.width * scale), round(image.height * scale))
        yield f"scaled {scale}", image.resize(size, Image.Resampling.BICUBIC)
    yield "brighter", ImageEnhance.Brightness(image).enhance(1.1)
    yield "mirrored", image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def test_copies_saved_again_are_alike_and_other_scenes_are_not(data: Folder) -> None:
    image = Image.open(data.root / "train/images/2.png").convert("RGB")
    for what, copy in saved_again(image):
        data.put("val/images/again.png", copy)
        data.put("val/masks/again.png", np.zeros((copy.height, copy.width), np.uint8))
        found = [one for one in check(data.root, workers=1).findings if one.kind == "near-leak"]
        assert [one.files for one in found] == [("val/images/again.png", "train/images/2.png")], what
        assert found[0].severity == "warning"


def test_an_image_with_two_masks_in_one_split_is_not_called_a_repetition(
    data: Folder, tmp_path: Path
) -> None:
    data.pair("train/2b", 2, lambda mask: np.where(mask == 5, 2, mask).astype(np.uint8))
    repair, after = mended(only(check(data.root), "two-masks"), tmp_path)
    assert after.findings == () and open_dataset(repair.folder)["train"].names == ["0", "1", "3", "4", "5"]


# -- sequences ---------------------------------------------------------------------------------------------------------


def frames(root: Path, places: dict[str, list[tuple[str, int]]]) -> Path:
    """Frames of walks: each a little further along one wide picture; {walk: [(split, number), …]}."""
    root.mkdir()
    folder = Folder(root)
    for place, (walk, numbers) in enumerate(places.items()):
        wide = scene(50 + place, size_hw=(96, 256))
        assert wide.mask is not None
        for split, number in numbers:
            window = slice(3 * number, 3 * number + 128)
            folder.put(f"{split}/images/{walk}_{number:04d}.png", wide.image[:, window])
            folder.put(f"{split}/masks/{walk}_{number:04d}.png", wide.mask[:, window])
    return root


WALKS = {
    "north": [("train", 0), ("train", 8), ("val", 4), ("train", 12)],
    "south": [("train", 1), ("train", 5), ("train", 9)],
    "west": [("train", 2), ("train", 6), ("train", 10)],
    "east": [("val", 3), ("val", 7), ("val", 11)],
}


def test_frames_of_one_sequence_on_both_sides_are_told_and_brought_together(tmp_path: Path) -> None:
    root = frames(tmp_path / "walks", WALKS)
    [finding] = [one for one in check(root).findings if one.kind == "sequence-apart"]
    assert finding.severity == "warning"
    assert finding.what == "1 sequence has frames in more than one split: north (3 in train, 1 in val)."
    assert finding.files == ("train/images/north_0000.png", "val/images/north_0004.png")
    repair, _ = mended(finding, tmp_path)
    sides = {
        split: {name.split("_")[0] for name in one.names}
        for split, one in open_dataset(repair.folder).splits.items()
    }
    assert not sides["train"] & sides["val"] and sides["train"] | sides["val"] == set(WALKS)
    assert read_description(repair.folder).groups is not None


def test_names_that_only_count_are_no_sequences(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    root.mkdir()
    folder = Folder(root)
    for i in range(12):  # as Pascal VOC counts: 2007_000032 and 2008_000033 have nothing in common
        folder.pair(f"{'val' if i % 3 == 0 else 'train'}/{2007 + i % 2}_{i:06d}", 200 + i)
    assert "sequence-apart" not in {one.kind for one in check(root).findings}


def test_a_pool_of_sequences_without_groups_is_told_before_it_is_divided(tmp_path: Path) -> None:
    walks = {walk: [("pool", number) for _, number in places] for walk, places in WALKS.items()}
    pool = frames(tmp_path / "walks", walks) / "pool"
    write_description(pool, Description(SCENE_CLASSES))
    [finding] = [one for one in check(pool).findings if one.kind == "sequence-apart"]
    assert "and no group, and train and val are made of them" in finding.what
    mended(finding, tmp_path)
    write_description(pool, Description(SCENE_CLASSES, groups="^([a-z]+)_"))
    assert "sequence-apart" not in {one.kind for one in check(pool).findings}


def test_a_division_by_groups_says_what_it_lacks(data: Folder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--groups says how --resplit divides"):
        fix(data.root, tmp_path / "x", Remedies(groups="^(.)"))
    with pytest.raises(DatasetFormatError, match="makes no groups of these names"):
        fix(data.root, tmp_path / "x", Remedies(resplit=True, groups="^(walk)"))
    assert not (tmp_path / "x").exists()


# -- ids of another meaning --------------------------------------------------------------------------------------------


def test_a_split_whose_ids_are_moved_is_told_and_written_as_train_has_them(
    data: Folder, tmp_path: Path
) -> None:
    before = [np.asarray(Image.open(path)) for path in data.masks("val")]
    data.each(lambda mask: np.where(mask == 255, 255, mask + 1).astype(np.uint8), "val")
    finding = only(check(data.root), "ids-differ")
    assert finding.severity == "error" and finding.count == 3 and finding.files[0].startswith("val/masks/")
    assert finding.what == (
        "The ids of val mean something else than those of train: moved by -1, the shares of the classes agree."
    )
    assert finding.found == "ids 1-10 in val, ids 0-9 in train"
    repair, after = mended(finding, tmp_path)
    assert after.findings == ()
    for path, truth in zip(sorted((repair.folder / "val/masks").iterdir()), before, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), truth)


def test_remap_writes_all_ids_at_once_and_only_where_it_is_told(data: Folder, tmp_path: Path) -> None:
    assert read_moves("0:255, val/3:4") == (Move(0, 255), Move(3, 4, "val"))
    repair = fix(data.root, tmp_path / "copy", Remedies(remap=read_moves("1:2,2:1,val/0:255")), workers=1)
    assert repair.actions == (f"{repair.actions[0].split(' mask')[0]} masks written with other ids, 1 as 2, 2 as 1, "
                              f"val/0 as 255: {repair.actions[0].split(': ', 1)[1]}",)  # fmt: skip
    for path in data.masks():
        old = np.asarray(Image.open(path))
        new = np.asarray(Image.open(repair.folder / path.relative_to(data.root)))
        table = np.arange(256)
        table[[1, 2]] = 2, 1
        table[0] = 255 if "/val/" in path.as_posix() else 0
        assert np.array_equal(new, table[old])


@pytest.mark.parametrize("words", ["0", "0:", "a:b", "0:1,0:2", "0:70000", "-1:2"])
def test_a_remap_that_cannot_be_read_is_refused(words: str) -> None:
    with pytest.raises(UsageError):
        read_moves(words)


def test_a_remap_of_a_split_that_is_not_there_is_refused(data: Folder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no split 'tset'") as told:
        fix(data.root, tmp_path / "copy", Remedies(remap=read_moves("tset/0:1")))
    assert "train, val" in str(told.value)


@pytest.mark.parametrize(
    ("names", "rule"),
    [(("car", "Car"), "car+Car=car"), (("traffic light", "traffic-light"), "traffic light+traffic-light=traffic light"),
     (("tree", "trees"), "tree+trees=tree")],
)  # fmt: skip
def test_names_that_differ_in_nothing_a_reader_sees_are_one_class(
    data: Folder, names: tuple[str, str], rule: str, tmp_path: Path
) -> None:
    others = tuple(f"class {i}" for i in "abcdefgh")
    write_description(data.root, Description(Classes((*names, *others))))
    finding = next(one for one in check(data.root).findings if one.kind == "twin-names")
    assert f"--merge={rule}" in shlex.split(finding.command or "")
    repair, _ = mended(finding, tmp_path)
    assert open_dataset(repair.folder).classes.names == (names[0], *others)


def test_names_that_are_alike_and_not_the_same_are_let_be(data: Folder) -> None:
    names = ("glass", "gla", "bus", "bu", "wall", "wall-brick", "sky", "skies", "grass", "gras")
    write_description(data.root, Description(Classes(names)))
    assert "twin-names" not in {one.kind for one in check(data.root).findings}


def test_a_mask_of_mixed_colours_gets_the_classes_beside_them(data: Folder, tmp_path: Path) -> None:
    truth = np.asarray(Image.open(data.root / "train/masks/1.png"))
    colors = Image.fromarray(SCENE_CLASSES.palette[truth]).resize((192, 144), Image.Resampling.NEAREST)
    data.put("train/masks/1.png", colors.resize((128, 96), Image.Resampling.BILINEAR))
    finding = only(check(data.root), "colors")
    assert "were mixed along borders" in (finding.hint or "")
    repair, after = mended(finding, tmp_path)
    ids = np.asarray(Image.open(repair.folder / "train/masks/1.png"))
    assert (
        after.findings == ()
        and ids.dtype == np.uint8
        and set(np.unique(ids)) <= set(np.unique(truth))
        and (ids == truth).mean() > 0.9
    )


# -- places ------------------------------------------------------------------------------------------------------------


def test_masks_that_all_lie_beside_their_images_are_all_told(data: Folder, tmp_path: Path) -> None:
    before = {path.name: np.asarray(Image.open(path)) for path in data.masks("train")}
    data.each(lambda mask: np.pad(mask, ((6, 0), (0, 0)), constant_values=255)[:96], "train")
    finding = only(check(data.root), "displaced")
    assert finding.count == 6 and "moved by 6 pixels up" in finding.what
    repair, after = mended(finding, tmp_path)
    assert after.findings == ()
    for name, truth in before.items():
        assert np.array_equal(np.asarray(Image.open(repair.folder / "train/masks" / name))[:-6], truth[:-6])


@pytest.mark.parametrize("is_drawn_on", ["stored", "shown"])
def test_borders_tell_whether_exif_turned_a_mask_where_sizes_do_not(
    data: Folder, is_drawn_on: str, tmp_path: Path
) -> None:
    image, truth = (
        np.asarray(Image.open(data.root / "train" / kind / "3.png")) for kind in ("images", "masks")
    )
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down; what is shown is the scene
    data.put("train/images/3.png", image[::-1, ::-1].copy(), exif=exif)
    if is_drawn_on == "shown":
        assert check(data.root).findings == ()
        return
    data.put("train/masks/3.png", truth[::-1, ::-1].copy())
    finding = only(check(data.root), "exif")
    assert finding.severity == "error" and finding.files == ("train/masks/3.png",)
    repair, after = mended(finding, tmp_path)
    assert after.findings == () and np.array_equal(
        np.asarray(Image.open(repair.folder / "train/masks/3.png")), truth
    )


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_mask_is_mirrored_back(data: Folder, axis: int, tmp_path: Path) -> None:
    truth = np.asarray(Image.open(data.root / "val/masks/1.png"))
    data.put("val/masks/1.png", np.flip(truth, axis))
    finding = only(check(data.root), "turned")
    assert finding.files == ("val/masks/1.png",) and "mirrored" in finding.what
    repair, _ = mended(finding, tmp_path)
    assert np.array_equal(np.asarray(Image.open(repair.folder / "val/masks/1.png")), truth)


def test_an_unlabelled_frame_is_told_and_filled_from_within(data: Folder, tmp_path: Path) -> None:
    truth = np.asarray(Image.open(data.root / "train/masks/0.png"))
    framed = np.pad(truth[5:-5, 5:-5], 5, constant_values=255)
    data.put("train/masks/0.png", framed)
    finding = only(check(data.root), "frame")
    assert finding.severity == "warning"
    assert finding.what == "1 mask has an unlabelled frame, equally wide on all sides: 5 pixels."
    repair, after = mended(finding, tmp_path)
    assert after.findings == ()
    assert np.array_equal(
        np.asarray(Image.open(repair.folder / "train/masks/0.png")), np.pad(truth[5:-5, 5:-5], 5, "edge")
    )


def test_a_strip_on_one_side_is_no_frame(data: Folder) -> None:
    data.each(lambda mask: np.pad(mask[:-8], ((0, 8), (0, 0)), constant_values=255))  # as a bonnet would be
    assert check(data.root).findings == ()


def test_salt_in_masks_is_told_by_class_and_taken_out(data: Folder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clean = {path.name: np.asarray(Image.open(path)) for path in data.masks("train")}
    data.each(lambda mask: np.where(rng.random(mask.shape) < 0.01, 8, mask).astype(np.uint8), "train")
    finding = only(check(data.root), "specks")
    assert finding.what.startswith("1 class has many specks, areas of at most 4 pixels: bicycle ")
    repair, after = mended(finding, tmp_path)
    assert after.findings == ()
    wrong = [
        (np.asarray(Image.open(repair.folder / "train/masks" / name)) != mask).mean()
        for name, mask in clean.items()
    ]
    assert max(wrong) < 0.006  # 0.01 were salted


# -- rare classes ------------------------------------------------------------------------------------------------------


def test_the_weights_that_are_told_are_those_of_a_training(data: Folder) -> None:
    data.each(lambda mask: np.where(mask == 9, 0, mask).astype(np.uint8))
    data.put("train/masks/0.png", spotted := np.asarray(Image.open(data.root / "train/masks/0.png")).copy())
    spotted[10:14, 10:14] = 9
    data.put("train/masks/0.png", spotted)
    data.put(
        "val/masks/0.png", np.where(spotted == 9, 9, np.asarray(Image.open(data.root / "val/masks/0.png")))
    )
    [finding] = [one for one in check(data.root).findings if one.kind == "imbalance"]
    assert finding.severity == "warning" and "obstacle 0.0" in finding.what and finding.command is None
    opened = open_dataset(data.root)
    config = LossConfig(class_weights="sqrt_inverse")
    assert "loss.class_weights=sqrt_inverse" in (finding.hint or "")
    weights = chosen_weights(config, 10, lambda: class_pixels(opened["train"], 10, ignore=255))
    assert weights is not None
    told = ", ".join(
        f"{name} {weight:.2f}" for name, weight in zip(SCENE_CLASSES.names, weights.tolist(), strict=True)
    )
    assert told in (finding.hint or "")


# -- the whole ---------------------------------------------------------------------------------------------------------


def test_findings_are_ranked_by_severity_and_then_by_cost(data: Folder) -> None:
    (data.root / "train/masks/0.png").unlink()
    for path in data.masks("val")[:2]:
        data.put(str(path.relative_to(data.root)), np.full(HW, 2, np.uint8))
    data.put("train/masks/1.png", np.full(HW, 255, np.uint8))
    data.put("train/masks/2.png", np.full(HW, 77, np.uint8))
    found = check(data.root).findings
    assert [one.severity for one in found] == sorted((one.severity for one in found), reverse=False)
    for severity in ("error", "warning"):
        costs = [one.cost for one in found if one.severity == severity]
        assert costs == sorted(costs, reverse=True) and all(0 <= cost <= 1 for cost in costs)
    assert [one.kind for one in found][-2:] == ["constant", "empty"]


def test_statistics_are_those_of_numpy(data: Folder) -> None:
    diagnosis = check(data.root)
    images = (
        np.stack([np.asarray(Image.open(path)) for path in sorted((data.root / "train/images").iterdir())])
        / 255
    )
    masks = np.stack([np.asarray(Image.open(path)) for path in data.masks("train")])
    train = diagnosis.splits[0]
    assert (train.split, train.images, train.masks, train.sizes) == ("train", 6, 6, ((96, 128, 6),))
    assert (
        train.mean == pytest.approx(images.mean(axis=(0, 1, 2))) and train.labelled == (masks != 255).mean()
    )
    assert train.std == pytest.approx(images.std(axis=(0, 1, 2)))


def test_hostile_names_are_told_and_do_nothing_to_a_terminal(data: Folder) -> None:
    evil = "a\x1b[2J\u202eb\nc"
    names = [evil, *SCENE_CLASSES.names[1:]]
    write_description(data.root, replace(Description(SCENE_CLASSES), classes=Classes(tuple(names))))
    text = check(data.root).text()
    assert "\x1b" not in text and "\u202e" not in text and "1 class names cannot be shown as they are" in text


def test_a_name_that_is_no_text_is_told_in_every_form(data: Folder) -> None:
    name = os.fsencode(str(data.root / "train/images/")) + b"/\xff\xfe.png"
    os.link(data.root / "train/images/0.png", name)
    diagnosis = check(data.root)
    diagnosis.text().encode("utf-8")
    told = json.loads(diagnosis.to_json().encode("utf-8"))
    assert any("\udcff\udcfe.png" in file for one in told["findings"] for file in one["files"])


def test_a_pattern_that_would_never_end_is_not_searched_for(data: Folder) -> None:
    data.pair("train/" + "a" * 60, 40)
    write_description(data.root, Description(SCENE_CLASSES, groups="(a+)+$|(a|a)*b"))
    began = time.monotonic()
    check(data.root)
    assert time.monotonic() - began < 30  # it would take longer than the sun has


def test_a_stray_k_in_two_masks_is_not_another_way_of_counting(data: Folder) -> None:
    for name in ("train/masks/1.png", "val/masks/1.png"):
        mask = np.asarray(Image.open(data.root / name)).copy()
        mask[:6, :8] = 10
        data.put(name, mask)
    finding = only(check(data.root), "range")
    assert finding.count == 2 and "--shift says so" in (finding.hint or "")


def camvid_links(raw: Path, root: Path, every: int) -> Path:
    """CamVid in our form, each `every`-th pair, without a copy of a pixel."""
    for split in ("train", "val"):
        for kind, folder in (("images", split), ("masks", f"{split}annot")):
            (root / split / kind).mkdir(parents=True)
            for path in sorted((raw / folder).iterdir())[::every]:
                (root / split / kind / path.name).symlink_to(path)
    write_description(root, Description(CLASSES, REMAP))
    return root


@pytest.mark.camvid
@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.long)])
def test_camvid_passes_with_warnings_alone(every: int, camvid: Path, tmp_path: Path) -> None:
    diagnosis = check(camvid_links(camvid, tmp_path / "camvid", every))
    assert diagnosis.ok and {one.kind for one in diagnosis.findings} == {"sequence-apart", "imbalance"}
    finding = next(one for one in diagnosis.findings if one.kind == "sequence-apart")
    assert finding.what.startswith("1 sequence has frames in more than one split: 0016E5 (")
