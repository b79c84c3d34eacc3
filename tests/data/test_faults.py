"""24 faults that people's data sets have, each planted in a copy of one clean set of drawn scenes, found and mended.

The clean twin is drawn once (train, val and test, with palette masks and some ignored pixels) and has no finding. Each
fault is told by its own kind of finding, with the files it was planted in; the command it names is run, and the finding
is gone from the copy.
"""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from terrazzo.classes import Classes
from terrazzo.cli import COMMANDS
from terrazzo.cli.parsing import find_command
from terrazzo.data.description import Description, read_description, write_description
from terrazzo.data.doctor import Diagnosis, Finding, check
from terrazzo.data.remedies import Remedies
from terrazzo.data.repair import Repair, fix
from terrazzo.data.scenes import SCENE_CLASSES, VAL_FIRST, scene
from terrazzo.data.symptoms import voc_palette

HW = (96, 128)
SPLITS = {"train": range(8), "val": range(VAL_FIRST, VAL_FIRST + 4), "test": range(900, 903)}
K = len(SCENE_CLASSES)
CAR, BICYCLE, OBSTACLE = (SCENE_CLASSES.id_of(name) for name in ("car", "bicycle", "obstacle"))


class Folder:
    """A data set on the disk, to be read and broken by split and number."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self, *splits: str) -> list[str]:
        return [f"{split}/{i:02d}" for split in splits or SPLITS for i in range(len(SPLITS[split]))]

    def image(self, name: str) -> Path:
        return self.root / "{}/images/{}.png".format(*name.split("/"))

    def mask(self, name: str) -> Path:
        return self.root / "{}/masks/{}.png".format(*name.split("/"))

    def ids(self, name: str) -> np.ndarray:
        return np.asarray(Image.open(self.mask(name)))

    def where(self, *paths: Path) -> tuple[str, ...]:
        return tuple(path.relative_to(self.root).as_posix() for path in paths)

    def put(self, path: Path, pixels: np.ndarray, **options: Any) -> str:
        """Write an image or a mask anew, ids with the palette; the twin shares the old file."""
        picture = Image.fromarray(pixels)
        if "/masks/" in path.as_posix() and picture.mode == "L" and path.suffix == ".png":
            picture = picture.convert("P")  # keeps the ids of mode L
            picture.putpalette(voc_palette())
        path.unlink(missing_ok=True)
        picture.save(path, **options)
        return self.where(path)[0]

    def change(self, change: Callable[[np.ndarray], np.ndarray], *names: str) -> tuple[str, ...]:
        return tuple(self.put(self.mask(name), change(self.ids(name).copy())) for name in names)

    def describe(self, about: Description) -> None:
        (self.root / "dataset.json").unlink()
        write_description(self.root, about)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = Folder(tmp_path_factory.mktemp("faults") / "twin")
    for split, indices in SPLITS.items():
        (folder.root / split / "images").mkdir(parents=True)
        (folder.root / split / "masks").mkdir()
        for name, index in zip(folder.names(split), indices, strict=True):
            sample = scene(index, size_hw=HW)
            assert sample.mask is not None
            mask = sample.mask.copy()
            mask[40 + index % 7 : 50, 20 : 30 + index % 9] = 255  # something nobody could tell
            folder.put(folder.image(name), sample.image)
            folder.put(folder.mask(name), mask)
    write_description(folder.root, Description(SCENE_CLASSES, channels=3, dtype="uint8"))
    return folder


@pytest.fixture(scope="module")
def planted(
    twin: Folder, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Folder, tuple[str, ...], Diagnosis]]:
    """Gives (the data set, the files at fault, what the doctor says) of a fault, each made once."""

    @cache
    def plant(what: str) -> tuple[Folder, tuple[str, ...], Diagnosis]:
        folder = Folder(tmp_path_factory.mktemp("fault") / "data")
        for path in sorted(twin.root.rglob("*.*")):
            copy = folder.root / path.relative_to(twin.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, copy)
        files = FAULTS[what].plant(folder)
        return folder, files, check(folder.root, workers=1)

    return plant


# -- the faults --------------------------------------------------------------------------------------------------------


def image_without_mask(data: Folder) -> tuple[str, ...]:
    data.mask("train/03").unlink()
    return data.where(data.image("train/03"))


def mask_without_image(data: Folder) -> tuple[str, ...]:
    data.image("val/01").unlink()
    return data.where(data.mask("val/01"))


def size_mismatch(data: Folder) -> tuple[str, ...]:
    return data.change(lambda ids: ids[::2, ::2], "train/02", "val/00")


def transposed(data: Folder) -> tuple[str, ...]:
    return data.change(lambda ids: np.ascontiguousarray(ids.T), "train/05", "test/01")


def shifted(data: Folder) -> tuple[str, ...]:
    def by_8(ids: np.ndarray) -> np.ndarray:
        ids[:, 8:] = ids[:, :-8]
        ids[:, :8] = 255
        return ids

    return data.change(by_8, "train/01", "val/02")


def id_of_k(data: Folder) -> tuple[str, ...]:
    def blob(ids: np.ndarray) -> np.ndarray:
        ids[10:20, 30:44] = K
        return ids

    return data.change(blob, "train/06")


def class_as_255(data: Folder) -> tuple[str, ...]:
    return data.change(lambda ids: np.where(ids == OBSTACLE, 255, ids).astype(np.uint8), *data.names())


def binary(data: Folder) -> tuple[str, ...]:
    data.describe(Description(Classes(("ground", "car"))))
    return data.change(lambda ids: np.where(ids == CAR, 255, 0).astype(np.uint8), *data.names())


def all_plus_one(data: Folder) -> tuple[str, ...]:
    files = data.change(lambda ids: np.where(ids == 255, 255, ids + 1).astype(np.uint8), *data.names())
    return tuple(file for file, name in zip(files, data.names(), strict=True) if (data.ids(name) == K).any())


def rgb_coded(data: Folder) -> tuple[str, ...]:
    colors = np.zeros((256, 3), np.uint8)
    colors[:K] = SCENE_CLASSES.palette
    return tuple(
        data.put(data.mask(name), colors[np.where(data.ids(name) == 255, 0, data.ids(name))])
        for name in ("train/04", "val/03")
    )


def palette_as_rgb(data: Folder) -> tuple[str, ...]:
    picture = Image.open(data.mask("train/07"))
    assert picture.mode == "P"
    return (data.put(data.mask("train/07"), np.asarray(picture.convert("RGB"))),)


def high_ids(data: Folder) -> tuple[str, ...]:
    ids = data.ids("val/00").astype(np.uint16)
    numbered = (
        ids * 1000 + np.arange(ids.shape[1], dtype=np.uint16) // 50
    )  # things are numbered, the sky is not
    ids = np.where((ids == 0) | (ids == 255), ids, numbered)
    return (data.put(data.mask("val/00"), ids.astype(np.uint16)),)


def jpeg_mask(data: Folder) -> tuple[str, ...]:
    ids = data.ids("train/00")
    data.mask("train/00").unlink()
    return (data.put(data.mask("train/00").with_suffix(".jpg"), ids, quality=90),)


def exif_turned(data: Folder) -> tuple[str, ...]:
    exif = Image.Exif()
    exif[0x0112] = 6
    data.put(data.image("train/02"), np.asarray(Image.open(data.image("train/02"))), exif=exif)
    return data.where(data.mask("train/02"))


def cut_off(path: Path) -> None:
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[: len(whole) * 2 // 3])


def truncated_image(data: Folder) -> tuple[str, ...]:
    cut_off(data.image("test/00"))
    return data.where(data.image("test/00"))


def truncated_mask(data: Folder) -> tuple[str, ...]:
    cut_off(data.mask("train/01"))
    return data.where(data.mask("train/01"))


def empty_mask(data: Folder) -> tuple[str, ...]:
    return data.change(lambda ids: np.full_like(ids, 255), "train/04")


def constant_mask(data: Folder) -> tuple[str, ...]:
    return data.change(lambda ids: np.full_like(ids, 2), "train/05")


def without_bicycles(ids: np.ndarray) -> np.ndarray:
    return np.where(ids == BICYCLE, 2, ids).astype(np.uint8)


def missing_in_train(data: Folder) -> tuple[str, ...]:
    data.change(without_bicycles, *data.names("train"))
    there = [name for name in data.names("val", "test") if (data.ids(name) == BICYCLE).any()]
    return data.where(*map(data.image, there))


def only_in_val(data: Folder) -> tuple[str, ...]:
    data.change(without_bicycles, *data.names("train", "test"))
    there = [name for name in data.names("val") if (data.ids(name) == BICYCLE).any()]
    return data.where(*map(data.image, there))


def two_names(data: Folder) -> tuple[str, ...]:
    about = read_description(data.root)
    data.describe(Description(Classes((*about.classes.names, "Cars"), (*about.classes.colors, (9, 9, 9)))))
    holding = [name for name in data.names() if (data.ids(name) == CAR).any()]
    there = [holding[0], *[name for name in holding if name.startswith("val")][:1]]
    return data.change(lambda ids: np.where(ids == CAR, K, ids).astype(np.uint8), *there)


def again(data: Folder, old: str, new: str, mask_of: str) -> tuple[str, ...]:
    os.link(data.image(old), data.image(new))
    os.link(data.mask(mask_of), data.mask(new))
    return data.where(data.image(old), data.image(new))


def in_two_splits(data: Folder) -> tuple[str, ...]:
    return again(data, "train/03", "val/99", "train/03")


def two_masks(data: Folder) -> tuple[str, ...]:
    return again(data, "train/03", "train/99", "train/04")


def smooth_edges(data: Folder) -> tuple[str, ...]:
    def scaled(ids: np.ndarray) -> np.ndarray:
        large = Image.fromarray(ids).resize((HW[1] * 3 // 2, HW[0] * 3 // 2), Image.Resampling.NEAREST)
        return np.asarray(large.resize(HW[::-1], Image.Resampling.BILINEAR))

    return data.change(scaled, "train/06", "val/01")


@dataclass(frozen=True)
class Fault:
    """What is planted, and how the doctor is to tell it."""

    plant: Callable[[Folder], tuple[str, ...]]
    kind: str
    severity: str = "error"


FAULTS = {
    "image without mask": Fault(image_without_mask, "image-alone"),
    "mask without image": Fault(mask_without_image, "mask-alone"),
    "size mismatch": Fault(size_mismatch, "size"),
    "transposed mask": Fault(transposed, "turned"),
    "mask shifted by 8 pixels": Fault(shifted, "displaced"),
    "id = K": Fault(id_of_k, "range"),
    "id 255 used as a class": Fault(class_as_255, "255-as-class", "warning"),
    "0/255 binary": Fault(binary, "binary"),
    "all ids + 1": Fault(all_plus_one, "shift"),
    "RGB-coded mask": Fault(rgb_coded, "colors"),
    "palette PNG read as RGB": Fault(palette_as_rgb, "palette"),
    "16-bit mask with high ids": Fault(high_ids, "packed"),
    "JPEG-compressed mask": Fault(jpeg_mask, "jpeg-mask"),
    "EXIF-rotated image": Fault(exif_turned, "exif"),
    "truncated image": Fault(truncated_image, "unreadable-image"),
    "truncated mask": Fault(truncated_mask, "unreadable-mask"),
    "empty mask": Fault(empty_mask, "empty", "warning"),
    "constant mask": Fault(constant_mask, "constant", "warning"),
    "class missing in train": Fault(missing_in_train, "missing-in-train", "warning"),
    "class only in val": Fault(only_in_val, "only-in-val", "warning"),
    "two names for one class": Fault(two_names, "twin-names", "warning"),
    "same image in two splits": Fault(in_two_splits, "leak"),
    "same image with two different masks": Fault(two_masks, "two-masks"),
    "anti-aliased mask edges": Fault(smooth_edges, "blended"),
}


# -- found, and mended -------------------------------------------------------------------------------------------------


def told(diagnosis: Diagnosis, kind: str) -> Finding:
    found = [one for one in diagnosis.findings if one.kind == kind]
    assert len(found) == 1, diagnosis.text()
    return found[0]


def mend(command: str, out: Path) -> Repair:
    """Do what a `terrazzo fix` line says, as the command line reads it; only the copy's place is another."""
    words = shlex.split(command)
    assert words[:2] == ["terrazzo", "fix"] and words[-1] == words[2] + "-fixed"
    arguments = find_command("fix", COMMANDS).parser().read([*words[2:-1], str(out)])
    asked = {one.name: getattr(arguments, one.name) for one in fields(Remedies)}
    return fix(words[2], out, Remedies(**asked), workers=1)


def test_the_clean_twin_has_no_finding(twin: Folder) -> None:
    diagnosis = check(twin.root, workers=1)
    assert diagnosis.findings == () and diagnosis.ok, diagnosis.text()
    assert diagnosis.images == {"train": 8, "val": 4, "test": 3}


@pytest.mark.parametrize("what", FAULTS)
def test_a_planted_fault_is_found_by_its_own_finding_and_mended(
    what: str, planted: Callable[[str], tuple[Folder, tuple[str, ...], Diagnosis]], tmp_path: Path
) -> None:
    data, files, diagnosis = planted(what)
    fault = FAULTS[what]
    finding = told(diagnosis, fault.kind)
    assert [one.kind for one in diagnosis.findings] == [fault.kind], diagnosis.text()
    assert finding.severity == fault.severity and diagnosis.ok == (fault.severity == "warning")
    assert set(finding.files) <= set(files) and len(finding.files) == min(5, len(files))
    assert finding.count in (len(files), 1)  # of images that are there twice, one is told
    before = {path: path.read_bytes() for path in data.root.rglob("*.*")}
    assert finding.command is not None
    repair = mend(finding.command, tmp_path / "mended")
    after = check(repair.folder, workers=1)
    assert fault.kind not in {one.kind for one in after.findings} and after.ok, after.text()
    assert {path: path.read_bytes() for path in data.root.rglob("*.*")} == before


def test_all_24_are_found_and_none_on_the_clean_twin(
    twin: Folder,
    planted: Callable[[str], tuple[Folder, tuple[str, ...], Diagnosis]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    kinds = {what: {one.kind for one in planted(what)[2].findings} for what in FAULTS}
    missed = [what for what, fault in FAULTS.items() if fault.kind not in kinds[what]]
    false = [one.kind for one in check(twin.root, workers=1).findings]
    with capsys.disabled():
        print(
            f"\nplanted faults: {len(FAULTS) - len(missed)} of {len(FAULTS)} found, {len(false)} on the clean twin"
        )
    assert len(FAULTS) == 24 and not missed and not false


# -- what the mending gives back ---------------------------------------------------------------------------------------


def mended_ids(what: str, planted: Any, tmp_path: Path, name: str) -> tuple[np.ndarray, Repair]:
    _, _, diagnosis = planted(what)
    repair = mend(told(diagnosis, FAULTS[what].kind).command or "", tmp_path / "mended")
    return np.asarray(Image.open(Folder(repair.folder).mask(name))), repair


@pytest.mark.parametrize(
    ("what", "name"),
    [("transposed mask", "train/05"), ("palette PNG read as RGB", "train/07"), ("16-bit mask with high ids", "val/00"),
     ("two names for one class", "val/00"), ("id 255 used as a class", "train/00")],
)  # fmt: skip
def test_ids_come_back_as_they_were(what: str, name: str, twin: Folder, planted: Any, tmp_path: Path) -> None:
    ids, repair = mended_ids(what, planted, tmp_path, name)
    truth = twin.ids(name)
    if what == "two names for one class":
        table = read_description(repair.folder).remap
        assert table is not None and table.to_class[K] == table.to_class[CAR] == CAR
    elif (
        what == "id 255 used as a class"
    ):  # what nobody could tell before is that class now: the hint says look
        assert np.array_equal(ids, np.where(truth == 255, OBSTACLE, truth))
    else:
        assert np.array_equal(ids, truth)


def test_a_shifted_mask_comes_back_to_the_pixel(twin: Folder, planted: Any, tmp_path: Path) -> None:
    ids, _ = mended_ids("mask shifted by 8 pixels", planted, tmp_path, "train/01")
    truth = twin.ids("train/01")
    assert np.array_equal(ids[:, :-8], truth[:, :-8]) and (ids[:, -8:] == 255).all()


def test_mixed_edges_come_back_nearly(twin: Folder, planted: Any, tmp_path: Path) -> None:
    data, _, _ = planted("anti-aliased mask edges")
    ids, _ = mended_ids("anti-aliased mask edges", planted, tmp_path, "train/06")
    truth = twin.ids("train/06")
    assert set(np.unique(ids)) <= set(np.unique(truth))
    assert (ids != truth).mean() < 0.75 * (data.ids("train/06") != truth).mean()
