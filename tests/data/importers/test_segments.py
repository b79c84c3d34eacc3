"""A release becomes masks of its categories' ids; what nobody drew is ignored, and images are upright."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from segments_tree import (
    HW,
    REGIONS,
    TRUTH,
    annotations,
    bitmap,
    categories,
    change,
    first,
    label,
    left_beside,
    masks,
    photograph,
    regions,
    run,
    sample,
    write_segments,
)
from terrazzo.data.importers.segments_files import Values
from terrazzo.errors import (
    DatasetFormatError,
    MaskSizeError,
    MaskValueError,
    UsageError,
)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_segments(tmp_path / "raw")


def test_a_release_becomes_masks_worked_by_hand(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = run(release)
    found = masks(data)
    assert set(found) == {"day1/a", "b", "c"}  # folders in names are kept
    np.testing.assert_array_equal(found["day1/a"], TRUTH)
    np.testing.assert_array_equal(found["c"], TRUTH)
    assert (found["b"] == 255).all()
    assert data.classes.names == ("road", "robot")
    assert data.classes.colors[1] == (220, 20, 60)
    said = capsys.readouterr().err
    assert "Taken by label status: LABELED 1, REVIEWED 1, VERIFIED 1." in said
    assert "Left out: UNLABELED 1, PRELABELED 1, REJECTED 1." in said
    assert "Labelset 'ground-truth'; the release also has 'predictions'" in said
    assert "What nobody drew is 0 in the masks, and ignored" in said


def test_raw_ids_are_the_categories_own(release: Path) -> None:
    data = run(release)
    assert data.remap.to_class == {0: None, 1: 0, 7: None, 300: 1}
    assert data.raw_names == {0: "unlabeled", 1: "road", 7: "void-sky", 300: "robot"}
    stored = Image.open(release.parent.parent / "out" / "train" / "masks" / "day1" / "a.png")
    np.testing.assert_array_equal(np.array(stored), categories())  # 300 is not cut to 8 bits
    raw = data.remap.inverse(np.array([[0, 1, 255]]))
    assert raw.tolist() == [[1, 300, 0]]


def test_images_come_over_byte_for_byte(release: Path) -> None:
    run(release)
    for name in ("day1/a.jpg", "b.jpg", "c.png"):
        copy = release.parent.parent / "out" / "train" / "images" / name
        assert copy.read_bytes() == (release.parent / "images" / name).read_bytes()


@pytest.mark.parametrize(
    ("status", "names"),
    [
        ((), {"day1/a", "b", "c"}),
        (("LABELED",), {"day1/a"}),
        (("prelabeled", " Rejected"), {"d", "f"}),
        (("all",), {"day1/a", "b", "c", "d", "f"}),  # e has no label
    ],
)
def test_label_statuses_are_chosen(
    release: Path, status: tuple[str, ...], names: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(masks(run(release, status=status))) == names
    assert ("1 of the samples taken have no bitmap, and are left out" in capsys.readouterr().err) == (
        status == ("all",)
    )


def test_a_status_that_nobody_knows_or_has_is_told(release: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'LABELED'"):
        run(release, status=("LABELLED",))
    with pytest.raises(
        DatasetFormatError, match=r"no sample that can be taken(.|\n)*LABELED 1, PRELABELED 1(.|\n)*all"
    ):
        run(release, status=("SKIPPED",))
    change(release, lambda d: first(d) and d["samples"][0]["labels"]["ground-truth"].pop("label_status"))
    assert set(masks(run(release, status=("unknown",)))) == {"day1/a"}


def test_another_labelset_is_chosen(release: Path) -> None:
    with pytest.raises(DatasetFormatError, match="UNLABELED 5"):
        run(release, labelset="predictions", status=("REVIEWED",))
    with pytest.raises(UsageError, match="labelset 'prediction'(.|\n)*Did you mean 'predictions'"):
        run(release, labelset="prediction")
    assert set(masks(run(release, labelset="predictions"))) == {"d"}


def test_a_hostile_labelset_moves_no_cursor(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [{"name": "\x1b[2J"}, {"name": "x" * 1000}]
    run(change(release, lambda dataset: dataset["labelsets"].extend(sets)))
    said = capsys.readouterr().err
    assert "'xxx" in said
    assert "\x1b" not in said
    assert len(max(said.splitlines(), key=len)) < 300


def test_the_only_labelset_is_taken_whatever_its_name(release: Path) -> None:
    def rename(dataset: Any) -> None:
        dataset["labelsets"] = None
        for one in dataset["samples"]:
            one["labels"] = {"mine": one["labels"]["ground-truth"]}

    assert len(masks(run(change(release, rename)))) == 3


def test_two_labelsets_without_the_usual_one_are_a_question(release: Path) -> None:
    def rename(dataset: Any) -> None:
        dataset["labelsets"] = [{"name": "predictions"}, {"name": "mine"}]
        for one in dataset["samples"]:
            one["labels"] = {"mine": one["labels"]["ground-truth"]}

    with pytest.raises(DatasetFormatError, match="no labelset 'ground-truth'(.|\n)*predictions, mine"):
        run(change(release, rename))


def test_what_others_leave_out_is_not_missed(release: Path) -> None:
    def strip(dataset: Any) -> None:
        for key in ("owner", "labelsets", "task_type", "description"):
            del dataset[key]
        for category in dataset["task_attributes"]["categories"]:
            category.pop("color")
            category.pop("has_instances")
        for one in dataset["samples"]:
            for key in ("uuid", "metadata"):
                del one[key]
        dataset["samples"][4].pop("labels")
        dataset["samples"] = {one.pop("name"): one for one in dataset["samples"]}

    data = run(change(release, strip))
    assert set(masks(data)) == {"day1/a", "b", "c"}
    assert data.source == "Segments.ai, crossings, release v1.0 of 2024-07-09"


def test_category_0_is_a_class_like_any_other(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def to_zero(dataset: Any) -> None:
        dataset["task_attributes"]["categories"] = [{"id": 0, "name": "road"}, {"id": 1, "name": "robot"}]
        first(dataset)["annotations"] = annotations({1: 0, 300: 1, 70_000: 1, 16_777_215: 0})
        del dataset["samples"][1:]

    data = run(change(release, to_zero))
    assert data.classes.names == ("road", "robot")
    truth = np.where(regions() == 0, 255, np.isin(regions(), (300, 70_000)))
    np.testing.assert_array_equal(masks(data)["day1/a"], truth)
    assert data.remap.to_class == {0: 0, 1: 1, 255: None}
    assert "What nobody drew is 255 in the masks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ids", "unlabelled", "dtype"),
    [
        ((1, 2), 0, np.uint8),
        ((0, 2), 255, np.uint8),
        ((0, 255), 65_535, np.uint16),
        ((0, 300), 65_535, np.uint16),
        ((1, 65_534), 0, np.uint16),
        ((0, 65_535), 0, np.uint8),  # 1 and 2 stand for them
    ],
)
def test_nothing_drawn_never_gets_the_number_of_a_category(
    ids: tuple[int, ...], unlabelled: int, dtype: type
) -> None:
    values = Values.for_categories(ids)
    assert values.unlabelled == unlabelled
    assert unlabelled not in values.of.values()
    assert len(set(values.of.values())) == len(ids)
    assert values.dtype is dtype


def test_more_than_255_categories_are_ignored_by_65535(release: Path) -> None:
    def add(dataset: Any) -> None:
        dataset["task_attributes"]["categories"] += [{"id": i, "name": f"c{i}"} for i in range(1000, 1300)]

    data = run(change(release, add))
    assert data.classes.ignore == 65_535
    truth = np.vectorize({0: 65_535, 1: 0, 300: 1, 7: 65_535}.get)(categories())
    np.testing.assert_array_equal(masks(data)["c"], truth)


def test_category_ids_beyond_16_bits_are_kept_in_words(release: Path) -> None:
    def enlarge(dataset: Any) -> None:
        dataset["task_attributes"]["categories"][1]["id"] = 70_000
        for one in dataset["samples"]:
            named = ((one["labels"]["ground-truth"] or {}).get("attributes") or {}).get("annotations") or []
            for annotation in named:
                annotation["category_id"] = {300: 70_000}.get(
                    annotation["category_id"], annotation["category_id"]
                )

    data = run(change(release, enlarge))
    np.testing.assert_array_equal(masks(data)["c"], TRUTH)
    about = json.loads((release.parent.parent / "out" / "dataset.json").read_text())
    assert about["extra"]["segments"]["category_ids"] == {"1": 1, "2": 7, "3": 70_000}
    assert about["remap"] == {"0": None, "1": 0, "2": 1, "3": 2}


def test_regions_that_no_annotation_names_are_ignored_and_said(
    release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def forget(dataset: Any) -> None:
        first(dataset)["annotations"] = [
            *annotations({1: 1, 300: 300}),
            {"id": 70_000, "category_id": None},
        ]

    found = masks(run(change(release, forget)))
    truth = np.where(np.isin(regions(), (70_000, 16_777_215)), 255, TRUTH)
    np.testing.assert_array_equal(found["day1/a"], truth)
    np.testing.assert_array_equal(found["c"], TRUTH)
    assert (
        "25 pixels in 1 bitmap belong to regions that no annotation gives a category; they are ignored: "
        "day1/a.jpg regions 70000, 16777215."
    ) in capsys.readouterr().err


@pytest.mark.parametrize("named", [[], None, annotations({2: 1})])
def test_a_bitmap_of_which_nothing_is_named_is_no_bitmap_of_that_sample(release: Path, named: Any) -> None:
    change(release, lambda dataset: first(dataset).update(annotations=named))
    with pytest.raises(
        MaskValueError, match=r"day1/a\.jpg holds none of the regions(.|\n)*1, 300, 70000, 16777"
    ):
        run(release)
    assert left_beside(release) == ["raw"]


def stored_for(upright: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores so that EXIF `orientation` shows `upright`, by Pillow's own account of EXIF."""
    undone = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    picture = Image.fromarray(upright.astype(np.int32))
    picture.getexif()[0x0112] = undone[orientation]
    return np.array(ImageOps.exif_transpose(picture), np.uint32)


def test_bitmaps_lie_on_images_as_they_are_shown(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All eight orientations; bitmaps upright, as the site has them, or drawn on the image as it is stored."""

    def turn(dataset: Any) -> None:
        dataset["samples"].clear()
        for number in range(1, 9):
            hw = HW[::-1] if number >= 5 else HW
            photograph(release.parent / "images" / f"{number}.jpg", number, hw=hw, orientation=number)
            (release.parent / f"{number}.png").write_bytes(bitmap(stored_for(regions(), number)))
            for name, url in (("upright", "bitmaps/scene.png"), ("stored", f"{number}.png")):
                labels = {"ground-truth": label(url, REGIONS)}
                dataset["samples"].append(sample(f"{name}{number}", f"images/{number}.jpg", labels))

    data = run(change(release, turn))
    found = masks(data)
    for number in range(1, 9):
        np.testing.assert_array_equal(found[f"upright{number}"], TRUTH)
    for number in (1, 5, 6, 7, 8):  # that a bitmap lies on its side is seen; that it is mirrored is not
        np.testing.assert_array_equal(found[f"stored{number}"], TRUTH)
    assert all(one.image.shape[:2] == HW for split in data.splits.values() for one in split)
    assert (
        "4 bitmaps were drawn on the image as it is stored, on its side, and turned with it: "
        "stored5, stored6, stored7, stored8."
    ) in capsys.readouterr().err


@pytest.mark.parametrize("hw", [(20, 31), (30, 20)])
def test_a_bitmap_of_another_size_is_refused(release: Path, hw: tuple[int, int]) -> None:
    ids = np.ones(hw, np.uint32)
    (release.parent / "bitmaps" / "scene.png").write_bytes(bitmap(ids))
    with pytest.raises(MaskSizeError, match=f"2 of 3 pairs(.|\n)*image 20 x 30, bitmap {hw[0]} x {hw[1]}"):
        run(release)
    assert left_beside(release) == ["raw"]
