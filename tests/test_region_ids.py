"""Region ids are read from every form they come in, and become categories without any two numbers taken for one."""

import io
from pathlib import Path

import hypothesis.extra.numpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segments_tree import HW, REGIONS, annotations, bitmap, categories, regions
from terrazzo.errors import DatasetFormatError, MaskValueError, MissingPathError, UnreadableFileError
from terrazzo.region_ids import (
    categories_of,
    category_map,
    decode_region_ids,
    read_region_ids,
    unnamed_regions,
    unpack,
)


def png(array: np.ndarray, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, form)
    return stream.getvalue()


def test_a_pixel_worked_by_hand() -> None:
    colors = np.array([[[1, 0, 0, 255], [44, 1, 0, 255], [112, 17, 1, 255], [255, 255, 255, 255]]], np.uint8)
    assert unpack(colors).tolist() == [[1, 300, 70_000, 16_777_215]]  # 44 + 256; 112 + 17 * 256 + 65,536


@pytest.mark.parametrize("alpha", [255, 0, 7, None])
def test_alpha_says_nothing(alpha: int | None) -> None:
    np.testing.assert_array_equal(decode_region_ids(bitmap(regions(), alpha=alpha), where="x"), regions())


def test_a_palette_and_one_channel_of_numbers_hold_the_same_ids() -> None:
    few = np.minimum(regions(), 300)
    palette = Image.fromarray(np.where(few == 300, 2, few).astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 1, 0, 0, 44, 1, 0])
    stream = io.BytesIO()
    palette.save(stream, "PNG")
    np.testing.assert_array_equal(decode_region_ids(stream.getvalue(), where="x"), few)
    np.testing.assert_array_equal(decode_region_ids(png(few.astype(np.uint16)), where="x"), few)
    np.testing.assert_array_equal(
        decode_region_ids(png(regions().astype(np.int32), "TIFF"), where="x"), regions()
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(np.zeros((4, 4, 3), np.uint8), "JPEG"), "JPEG, which does not keep"),
        (png(np.full((4, 4), -1, np.int32), "TIFF"), "no region ids"),
        (png(np.full((4, 4), 1 << 24, np.int32), "TIFF"), "no region ids"),
        (png(np.full((4, 4), 0.5, np.float32), "TIFF"), "no region ids"),
    ],
)
def test_what_holds_no_region_ids_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(MaskValueError, match=words):
        decode_region_ids(data, where="x.png")


def test_files_that_are_not_there_or_no_images_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(bitmap(regions()))
    np.testing.assert_array_equal(read_region_ids(tmp_path / "a.png"), regions())
    with pytest.raises(MissingPathError, match="There is no file"):
        read_region_ids(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(bitmap(regions())[:-30])
    with pytest.raises(UnreadableFileError, match=r"c\.png"):
        read_region_ids(tmp_path / "c.png")


def test_regions_become_categories_as_worked_by_hand() -> None:
    mapped = category_map(regions(), annotations(REGIONS))
    np.testing.assert_array_equal(mapped, categories())
    assert mapped.dtype == np.uint16  # 300 does not fit 8 bits, and is not cut to them


def test_no_annotations_at_all_name_nothing() -> None:
    empty = np.zeros(HW, np.uint32)
    for none in (None, [], ()):
        assert not category_map(empty, none).any()
    assert category_map(np.zeros((0, 4), np.uint32), []).shape == (0, 4)


def test_regions_that_nobody_named_are_an_error_or_a_value_of_their_own() -> None:
    named = annotations({1: 1, 300: 300})
    with pytest.raises(MaskValueError, match=r"70000 \(24 pixels\), 16777215 \(1 pixels\)"):
        category_map(regions(), named)
    mapped = category_map(regions(), named, unnamed=9)
    assert np.count_nonzero(mapped == 9) == 25
    np.testing.assert_array_equal(mapped == 0, regions() == 0)
    assert unnamed_regions(regions(), [1, 300]) == {70_000: 24, 16_777_215: 1}
    assert unnamed_regions(regions(), REGIONS) == {}


def test_category_0_is_never_taken_for_nothing() -> None:
    ids = np.array([[0, 5], [5, 6]], np.uint32)
    named = annotations({5: 0, 6: 1})
    with pytest.raises(DatasetFormatError, match="cannot become 0, which is a category"):
        category_map(ids, named)
    assert category_map(ids, named, unlabelled=255).tolist() == [[255, 0], [0, 1]]


def test_categories_beyond_16_bits_stay_what_they_are() -> None:
    ids = np.array([[0, 1], [2, 1]], np.uint32)
    mapped = category_map(ids, annotations({1: 70_001, 2: 3}))
    assert mapped.tolist() == [[0, 70_001], [3, 70_001]]
    assert mapped.dtype == np.uint32


def test_numbers_of_any_signed_type_are_looked_up_or_refused() -> None:
    assert category_map(np.array([[0, 1]], np.int64), annotations({1: 4})).tolist() == [[0, 4]]
    for bad in (np.array([[-1]]), np.array([[1 << 31]]), np.array([[0.5]])):
        with pytest.raises(MaskValueError, match="no region ids"):
            category_map(bad, annotations({1: 4}))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([{"id": 0, "category_id": 1}], "id 0, which is no region: pixels of 0 are those nobody drew"),
        ([{"id": 1 << 24, "category_id": 1}], "id 16777216, not 1-16,777,215"),
        ([{"id": True, "category_id": 1}], "id True"),
        ([{"id": 1, "category_id": "1"}], "region 1 with category '1'"),
        ([{"id": 1, "category_id": -1}], "region 1 with category -1"),
        (annotations({1: 2}) + annotations({1: 3}), "two categories, 2 and 3"),
        (["road"], "'road', which is no annotation"),
        ([7], "7, which is no annotation"),
    ],
)
def test_annotations_that_cannot_be_are_told(wrong: list[object], words: str) -> None:
    with pytest.raises(DatasetFormatError, match=words):
        category_map(np.zeros((2, 2), np.uint32), wrong)  # type: ignore[arg-type]


@given(
    ids=hypothesis.extra.numpy.arrays(np.uint32, (3, 4), elements=st.integers(0, 6)),
    named=st.dictionaries(st.integers(1, 6), st.integers(1, 70_000)),
)
def test_every_pixel_is_looked_up_in_the_list(ids: np.ndarray, named: dict[int, int]) -> None:
    """Beside a dictionary asked pixel by pixel; and counts add up."""
    mapped = category_map(ids, annotations(named), unlabelled=0, unnamed=99_999)
    truth = [[0 if i == 0 else named.get(i, 99_999) for i in row] for row in ids.tolist()]
    assert mapped.tolist() == truth
    strange = unnamed_regions(ids, named)
    assert sum(strange.values()) == sum(row.count(99_999) for row in truth)
    assert set(strange) == set(ids.ravel().tolist()) - {0} - named.keys()


def test_a_region_without_a_category_is_not_named() -> None:
    assert categories_of([{"id": 1, "category_id": None}, {"id": 2, "category_id": 0}], where="x") == {2: 0}
