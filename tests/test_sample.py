"""A sample is checked when it is made: shapes and dtypes here, ids where the table is known."""

import dataclasses

import numpy as np
import pytest

from terrazzo.errors import ImageFormatError, MaskSizeError, MaskValueError
from terrazzo.sample import Sample, check_image

IMAGE = np.zeros((4, 6, 3), np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4, 13])
def test_any_channels_of_three_dtypes_are_an_image(dtype: type, channels: int) -> None:
    sample = Sample(np.zeros((4, 6, channels), dtype), np.zeros((4, 6), np.uint8), "a")
    assert sample.size_hw == (4, 6)


def test_a_test_split_has_no_mask() -> None:
    assert Sample(IMAGE, None, "a").mask is None


@pytest.mark.parametrize(
    ("shape", "dtype", "found"),
    [
        ((4, 6), np.uint8, "shape (4, 6), uint8"),
        ((1, 4, 6, 3), np.uint8, "shape (1, 4, 6, 3), uint8"),
        ((4, 6, 3), np.float64, "shape (4, 6, 3), float64"),
        ((4, 6, 3), np.bool_, "shape (4, 6, 3), bool"),
        ((0, 6, 3), np.uint8, "shape (0, 6, 3), uint8"),
        ((4, 6, 0), np.uint8, "shape (4, 6, 0), uint8"),
    ],
)
def test_other_forms_of_image_are_refused_in_words(shape: tuple, dtype: type, found: str) -> None:
    with pytest.raises(ImageFormatError) as raised:
        check_image(np.zeros(shape, dtype), where="street.jpg")
    assert str(raised.value) == (
        "The image street.jpg has a form terrazzo does not take.\n"
        f"  found: {found}\n"
        "  expected: (height, width, channels), uint8, uint16 or float32 in [0, 1]"
    )
    with pytest.raises(ImageFormatError, match=r"street\.jpg"):
        Sample(np.zeros(shape, dtype), None, "street.jpg")


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (np.zeros((4, 6, 3), np.uint8), r"shape \(4, 6, 3\), uint8"),
        (np.zeros((4, 6), np.int64), r"shape \(4, 6\), int64"),
        (np.zeros((4, 6), np.float32), r"shape \(4, 6\), float32"),
    ],
)
def test_a_mask_is_a_map_of_unsigned_ids(mask: np.ndarray, found: str) -> None:
    with pytest.raises(
        MaskValueError, match=r"The mask of b is not a map of class ids(.|\n)*found: " + found
    ):
        Sample(IMAGE, mask, "b")


@pytest.mark.parametrize("size_hw", [(6, 4), (4, 5), (8, 12)])
def test_a_mask_of_another_size_names_both_sizes(size_hw: tuple[int, int]) -> None:
    with pytest.raises(MaskSizeError) as raised:
        Sample(IMAGE, np.zeros(size_hw, np.uint8), "b")
    text = str(raised.value)
    assert text.startswith("The mask of b has another size than its image.")
    assert f"found: mask {size_hw[0]}x{size_hw[1]} (height x width)" in text
    assert "expected: 4x6, as the image" in text
    assert text.endswith("terrazzo check DATA")


def test_a_sample_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sample(IMAGE, None, "a").name = "b"  # type: ignore[misc]
