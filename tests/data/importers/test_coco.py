"""COCO's sparse ids go through the table, large objects lie under small ones, and no JSON is trusted."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools import mask as reference
from pycocotools.coco import COCO

from cityscapes_tree import zip_up
from coco_tree import HW, SETS, box, packed, polygon, scene, write_instances, write_panoptic, write_stuff
from terrazzo.data import importers, open_dataset
from terrazzo.data.importers.planning import Wanted
from terrazzo.errors import DatasetFormatError, MaskSizeError, MaskValueError, MissingPathError, TerrazzoError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools with NumPy 2

CLASS_OF = {0: 0, 1: 1, 18: 2, 90: 3, 255: 255}  # background first, then categories by id


def run(raw: Path, out: Path, *, link: bool = False, workers: int = 1, **words: Any) -> Path:
    wanted = Wanted(**words)
    return importers.run("coco", raw, out, wanted, link=link, workers=workers)


def json_of(raw: Path) -> Path:
    return raw / "annotations" / "instances_train2017.json"


def change(path: Path, edit: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def test_instances_are_painted_large_ones_first_and_crowds_are_ignored(tmp_path: Path) -> None:
    data = open_dataset(run(write_instances(tmp_path / "raw"), tmp_path / "out", workers=2))
    assert {name: tuple(split.names) for name, split in data.splits.items()} == {
        "train": SETS["train2017"],
        "val": SETS["val2017"],
    }
    assert data.classes.names == ("background", "person", "dog", "toothbrush")
    truth = np.vectorize(CLASS_OF.get)(scene()[1])
    np.testing.assert_array_equal(data["train"].read_mask(0), truth)
    np.testing.assert_array_equal(data["val"].read_mask(0), truth)
    assert not data["train"].read_mask(1).any()  # nobody labelled anything there: a negative, all background


def test_pycocotools_paints_the_same_from_the_same_file(tmp_path: Path) -> None:
    raw = write_instances(tmp_path / "raw")
    theirs = COCO(str(json_of(raw)))
    mask = np.zeros(HW, int)
    objects = theirs.loadAnns(theirs.getAnnIds(imgIds=9))
    areas = {one["id"]: int(reference.area(theirs.annToRLE(one))) for one in objects}
    for one in sorted(objects, key=lambda one: (not one["iscrowd"], -areas[one["id"]])):
        mask[theirs.annToMask(one).astype(bool)] = 255 if one["iscrowd"] else one["category_id"]
    np.testing.assert_array_equal(mask, scene()[1])


def test_images_may_lie_in_images_or_in_zips_and_sets_may_have_any_name(tmp_path: Path) -> None:
    raw = write_instances(tmp_path / "raw")
    first = open_dataset(run(raw, tmp_path / "first"))
    for place in SETS:
        zip_up(raw, place, f"{place}.zip")
    zip_up(raw, "annotations", "annotations_trainval2017.zip")
    assert open_dataset(run(raw, tmp_path / "zips")).fingerprint == first.fingerprint
    other = write_instances(tmp_path / "other")
    (other / "images" / "north").mkdir(parents=True)
    for name in SETS["train2017"]:
        os.rename(other / "train2017" / f"{name}.jpg", other / "images" / "north" / f"{name}.jpg")
    change(json_of(other), lambda v: [i.update(file_name=f"north/{i['file_name']}") for i in v["images"]])
    os.rename(json_of(other), other / "annotations" / "instances_default.json")
    data = open_dataset(run(other, tmp_path / "others"))
    assert data["train"].names == [f"north/{name}" for name in SETS["train2017"]]
    np.testing.assert_array_equal(data["train"].read_mask(0), first["train"].read_mask(0))


@pytest.mark.parametrize(
    ("categories", "names", "background"),
    [
        ([(0, "cat"), (7, "dog")], ("background", "cat", "dog"), 0),
        ([(3, "Background"), (7, "dog")], ("Background", "dog"), 0),
        ([(255, "cat"), (300, "dog")], ("background", "cat", "dog"), 0),
    ],
)
def test_ids_of_others_keep_their_meaning(
    tmp_path: Path, categories: list[tuple[int, str]], names: tuple[str, ...], background: int
) -> None:
    raw = write_instances(tmp_path / "raw")
    last = categories[-1][0]
    for path in (json_of(raw), raw / "annotations" / "instances_val2017.json"):
        change(path, lambda v: v.update(categories=[{"id": i, "name": n} for i, n in categories]))
        change(path, lambda v: [one.update(category_id=last) for one in v["annotations"]])
    data = open_dataset(run(raw, tmp_path / "out"))
    assert data.classes.names == names
    mask = data["train"].read_mask(0)
    truth = scene()[1]
    assert (mask[truth == 0] == background).all()
    assert (mask[truth == 255] == data.classes.ignore).all()
    assert (mask[(truth > 0) & (truth < 255)] == len(names) - 1).all()


def test_panoptic_ids_of_24_bits_void_and_crowds(tmp_path: Path) -> None:
    raw = write_panoptic(tmp_path / "raw")
    data = open_dataset(run(raw, tmp_path / "out", annotations="panoptic"))
    assert data.classes.names == ("person", "dog", "toothbrush")
    assert data["train"].read_mask(2)[:, 0].tolist() == [255] * 2 + [0] * 7 + [1] * 3 + [255] * 8
    for place in SETS:
        zip_up(raw / "annotations", f"panoptic_{place}", f"panoptic_{place}.zip")
    zipped = open_dataset(run(raw, tmp_path / "zips", annotations="panoptic"))
    assert zipped.fingerprint == data.fingerprint
    change(
        raw / "annotations" / "panoptic_val2017.json", lambda v: v["annotations"][0]["segments_info"].pop(1)
    )
    with pytest.raises(MaskValueError, match=re.escape("70000 (90 pixels)")):
        run(raw, tmp_path / "x", annotations="panoptic")


def test_stuff_maps_count_from_zero_and_255_is_unlabelled(tmp_path: Path) -> None:
    raw = write_stuff(tmp_path / "raw")
    data = open_dataset(run(raw, tmp_path / "out", annotations="stuff"))
    assert len(data.classes) == 171
    assert (data.classes.names[0], data.classes.names[11], data.classes.names[170]) == (
        "person",
        "stop sign",
        "wood",
    )
    assert data["val"].read_mask(0)[:, 0].tolist() == [0] * 5 + [255] * 2 + [11] + [170] * 12
    (raw / "train2017" / "000000000009.png").unlink()
    with pytest.raises(DatasetFormatError, match=re.escape("train2017/000000000009.png")):
        run(raw, tmp_path / "x", annotations="stuff")
    with pytest.raises(MissingPathError):
        run(tmp_path / "nowhere", tmp_path / "x", annotations="stuff")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_annotated_as_it_is_stored_gets_its_mask_turned(
    tmp_path: Path, orientation: int
) -> None:
    raw = write_instances(tmp_path / "raw")
    path = raw / "train2017" / "000000000009.jpg"
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(path, exif=exif)
    mask = open_dataset(run(raw, tmp_path / "out"))["train"].read_mask(0)
    stored = Image.fromarray(np.vectorize(CLASS_OF.get)(scene()[1]).astype(np.uint8))
    stored.getexif()[0x0112] = (
        orientation if orientation > 4 else 1
    )  # 2-4 have the same size and are left alone
    np.testing.assert_array_equal(mask, np.asarray(ImageOps.exif_transpose(stored)))


def test_sizes_that_differ_are_told(tmp_path: Path) -> None:
    raw = write_instances(tmp_path / "raw")
    Image.new("RGB", (31, 20)).save(raw / "val2017" / "000000000139.jpg")
    with pytest.raises(MaskSizeError, match="found: image 20 x 31, annotations for 20 x 30"):
        run(raw, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["raw"]


HOSTILE: list[tuple[Callable[[Any], object], str]] = [
    (lambda v: v["images"][0].update(file_name="../../etc/passwd.jpg"), "leaves the folder"),
    (lambda v: v["images"][0].update(file_name="/etc/passwd.jpg"), "leaves the folder"),
    (lambda v: v["images"][0].update(file_name="..\\x.jpg"), "leaves the folder"),
    (lambda v: v["images"][0].update(file_name="C:x.jpg"), "leaves the folder"),
    (lambda v: v["images"][0].update(file_name="a\ud800.jpg"), "leaves the folder"),
    (lambda v: v["images"][0].update(file_name=7), "leaves the folder"),
    (lambda v: v["images"][0].update(file_name="000000000025.png"), "two images called '000000000025'"),
    (lambda v: v["images"][0].update(id=25), "two images with id 25"),
    (lambda v: v["images"][0].update(id=[1]), "an image with id [1]"),
    (lambda v: v["images"][0].update(height=10**9), "1000000000 x 30 pixels"),
    (lambda v: v["images"][0].update(height=True), "True x 30 pixels"),
    (lambda v: v["images"][0].update(height=32_768, width=32_768), "32768 x 32768 pixels"),
    (lambda v: v["categories"][0].update(id=1), "two categories with id 1"),
    (lambda v: v["categories"][0].update(name="dog"), "two categories called 'dog'"),
    (lambda v: v["categories"][0].update(name="a\nb"), "category 90 with the name"),
    (lambda v: v["categories"][0].update(id=70_000), "a category with id 70000"),
    (lambda v: v.update(categories=[]), "no categories"),
    (lambda v: v.update(images=None), "no lists of objects"),
    (lambda v: v["annotations"][0].update(image_id=4711), "of image 4711, which is not listed"),
    (lambda v: v["annotations"][0].update(category_id=2), "of category 2, which is not listed"),
    (lambda v: v["annotations"][0].update(segmentation=[]), "no polygon"),
    (lambda v: v["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), "a polygon of 4 numbers"),
    (lambda v: v["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5, "x"]]), "has no shape"),
    (lambda v: v["annotations"][0].pop("segmentation"), "KeyError: 'segmentation'"),
    (
        lambda v: v["annotations"][0].update(segmentation={"size": [20, 30], "counts": [700]}),
        "700 of 600 pixels",
    ),
    (
        lambda v: v["annotations"][0].update(segmentation={"size": [30, 20], "counts": [600]}),
        "runs for [30, 20]",
    ),
    (
        lambda v: v["annotations"][0].update(segmentation={"size": [20, 30], "counts": [1.5, 2]}),
        "no whole numbers",
    ),
    (
        lambda v: v["annotations"][0].update(segmentation={"size": [20, 30], "counts": "~~"}),
        "compressed run lengths",
    ),
]


@pytest.mark.parametrize(("edit", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_json_that_nobody_should_trust_is_refused_in_words(
    tmp_path: Path, edit: Callable[[Any], object], message: str
) -> None:
    raw = write_instances(tmp_path / "raw")
    change(json_of(raw), edit)
    with pytest.raises(DatasetFormatError, match=re.escape(message)):
        run(raw, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["raw"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "[" * 100_000, '{"images": [1], "annotations": [], "categories": []}']
)
def test_files_that_are_no_coco_are_told(tmp_path: Path, text: str) -> None:
    raw = write_instances(tmp_path / "raw")
    json_of(raw).write_text(text)
    with pytest.raises(DatasetFormatError, match="instances_train2017.json is not"):
        run(raw, tmp_path / "out")


def test_fields_gone_wrong_never_crash(tmp_path: Path) -> None:
    raw = write_instances(tmp_path / "raw")
    good, rng = json.loads(json_of(raw).read_text()), np.random.default_rng(4)
    values: list[Any] = [None, -1, 1e300, "", "x", [], {}, True, [[]], {"size": 3}, "\x00", 2**70]
    refused = 0
    for number in range(40):
        value = json.loads(json.dumps(good))
        one = value[rng.choice(["images", "annotations", "categories"])][0]
        one[rng.choice(sorted(one))] = values[int(rng.integers(len(values)))]
        json_of(raw).write_text(json.dumps(value))
        try:
            run(raw, tmp_path / f"out{number}")
        except TerrazzoError:
            refused += 1
            assert not (tmp_path / f"out{number}").exists()
    assert 10 < refused < 40  # "area" and "supercategory" may be anything


def test_what_is_missing_is_listed_or_with_partial_left_out(tmp_path: Path) -> None:
    raw = write_instances(tmp_path / "raw")
    (raw / "train2017" / "000000000025.jpg").unlink()
    with pytest.raises(DatasetFormatError, match=re.escape("train2017/000000000025.jpg")):
        run(raw, tmp_path / "out")
    data = open_dataset(run(raw, tmp_path / "out", partial=True))
    assert data["train"].names == ["000000000009", "000000000030"]
    os.mkdir(tmp_path / "empty")
    with pytest.raises(DatasetFormatError, match=re.escape("annotations_trainval2017.zip")):
        run(tmp_path / "empty", tmp_path / "x")
    json_of(raw).with_name("instances_train2014.json").write_text("{}")
    with pytest.raises(DatasetFormatError, match="several sets for train"):
        run(raw, tmp_path / "x")


def test_boxes_are_written_as_the_tree_says() -> None:
    assert (
        reference.decode(packed(box(1, 2, 5, 9))).sum() == 28
    )  # the helpers of this test, by pycocotools itself
    assert reference.area(reference.frPyObjects([polygon(1, 2, 5, 9)], *HW)).tolist() == [28]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: v["annotations"][0].update(file_name="../../x.png"), "leaves the folder"),
        (lambda v: v["annotations"][1].update(image_id=9), "is the second of its image"),
        (lambda v: v["annotations"][0].update(segments_info=[{"id": "3"}]), "has no segments_info"),
        (
            lambda v: v["annotations"][0]["segments_info"][0].update(category_id=4),
            "of category 4, which is not listed",
        ),
        (lambda v: v["annotations"].pop(), "annotations/panoptic_train2017/000000000030.png"),
    ],
    ids=range(5),
)
def test_panoptic_json_is_trusted_no_more(
    tmp_path: Path, edit: Callable[[Any], object], message: str
) -> None:
    raw = write_panoptic(tmp_path / "raw")
    change(raw / "annotations" / "panoptic_train2017.json", edit)
    with pytest.raises(DatasetFormatError, match=re.escape(message)):
        run(raw, tmp_path / "out", annotations="panoptic")
    assert sorted(os.listdir(tmp_path)) == ["raw"]
