"""Crops are Pillow's resized images, cut: to the last bit where Pillow takes the dtype, by dense matrices elsewhere."""

import numpy as np
import pytest
from PIL import Image

from terrazzo.kernels import crop_resize as module
from terrazzo.kernels.crop_resize import crop_resize, crop_resize_mask, crop_resize_reference
from terrazzo.kernels.resize_filter import Interpolation, Rounding

RNG = np.random.default_rng(20)
SIZES = [(17, 23), (64, 48), (5, 90), (1, 1), (40, 1)]
TARGETS = [(17, 23), (8, 8), (100, 30), (1, 1), (3, 200)]


def random_image(hw: tuple[int, int], channels: int, dtype: type = np.uint8) -> np.ndarray:
    if dtype == np.float32:
        return RNG.random((*hw, channels), dtype=np.float32)
    return RNG.integers(0, np.iinfo(dtype).max, (*hw, channels), dtype=dtype, endpoint=True)


def whole(image: np.ndarray) -> tuple[float, float, float, float]:
    return 0.0, 0.0, float(image.shape[0]), float(image.shape[1])


def pillow(
    image: np.ndarray,
    source_yxhw: tuple[float, ...],
    size_hw: tuple[int, int],
    interpolation: str = "bilinear",
) -> np.ndarray:
    """Pillow's result, across first: in one call, version 13 goes down first where the height shrinks more."""
    top, left, height, width = source_yxhw
    line = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    resample = Image.Resampling[interpolation.upper()]
    line = line.resize((size_hw[1], line.height), resample, box=(left, 0, left + width, line.height))
    line = line.resize(size_hw[::-1], resample, box=(0, top, size_hw[1], top + height))
    return np.asarray(line).reshape(*size_hw, image.shape[2])


def triangle(start: float, length: float, count: int, size: int) -> np.ndarray:
    """(count, size) float64: the definition, pixel by pixel, with nothing left out."""
    matrix = np.zeros((count, size))
    step = length / count
    for i in range(count):
        for j in range(size):
            distance = abs(j + 0.5 - (start + (i + 0.5) * step))
            matrix[i, j] = max(0.0, 1.0 - distance / max(1.0, step))
    return matrix / matrix.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size_hw", TARGETS)
@pytest.mark.parametrize("hw", SIZES)
def test_8bit_images_are_resized_as_pillow_does_to_the_last_bit(
    hw: tuple[int, int], size_hw: tuple[int, int], interpolation: Interpolation
) -> None:
    for channels in (1, 3):
        image = random_image(hw, channels)
        got = crop_resize(image, whole(image), size_hw, interpolation=interpolation)
        np.testing.assert_array_equal(got, pillow(image, whole(image), size_hw, interpolation))
        in_one_call = Image.fromarray(image.squeeze(2) if channels == 1 else image).resize(
            size_hw[::-1], Image.Resampling[interpolation.upper()]
        )
        most = (
            1 if interpolation == "bilinear" else 60
        )  # what is cut off at black and white in between depends on the order
        assert np.abs(got.astype(int) - np.asarray(in_one_call).reshape(got.shape)).max() <= most


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_8bit_rectangles_are_resized_as_pillow_does_to_the_last_bit(interpolation: Interpolation) -> None:
    image = random_image((60, 80), 3)
    for _ in range(40):
        top, left = RNG.integers(0, 4 * 40) / 4, RNG.integers(0, 4 * 60) / 4  # Pillow keeps a box in float32
        height, width = RNG.integers(1, 4 * (60 - top)) / 4, RNG.integers(1, 4 * (80 - left)) / 4
        size_hw = int(RNG.integers(1, 70)), int(RNG.integers(1, 70))
        source = (top, left, height, width)
        got = crop_resize(image, source, size_hw, interpolation=interpolation)
        np.testing.assert_array_equal(got, pillow(image, source, size_hw, interpolation))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("source", [(0.0, 0.0, 20.0, 31.0), (2.3, 5.1, 14.9, 9.7), (0.0, 30.5, 3.0, 0.5)])
def test_float_and_16bit_images_are_the_triangle_filter(
    source: tuple[float, float, float, float], channels: int
) -> None:
    top, left, height, width = source
    for size_hw in [(7, 9), (33, 50)]:
        down, across = triangle(top, height, size_hw[0], 20), triangle(left, width, size_hw[1], 31)
        for dtype, tolerance in (
            (np.float32, 2e-6),
            (np.uint16, 0.51),
        ):  # half a step of rounding, and float32's own
            image = random_image((20, 31), channels, dtype)
            expected = np.einsum("hy,wx,yxc->hwc", down, across, image.astype(np.float64))
            got = crop_resize(image, source, size_hw)
            assert got.dtype == dtype
            np.testing.assert_allclose(got.astype(np.float64), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_crop_is_a_part_of_the_whole_image_resized(dtype: type) -> None:
    image, mask = random_image((50, 70), 3, dtype), random_image((50, 70), 1)[..., 0]
    for scaled_hw in [(50, 70), (31, 44), (100, 140), (77, 201)]:
        whole_image, whole_mask = (
            crop_resize(image, whole(image), scaled_hw),
            crop_resize_mask(mask, whole(image), scaled_hw),
        )
        y, x, (h, w) = 7, 11, (20, 25)
        factor_y, factor_x = 50 / scaled_hw[0], 70 / scaled_hw[1]
        source = (y * factor_y, x * factor_x, h * factor_y, w * factor_x)
        np.testing.assert_array_equal(
            crop_resize_mask(mask, source, (h, w)), whole_mask[y : y + h, x : x + w]
        )
        np.testing.assert_allclose(
            crop_resize(image, source, (h, w)),
            whole_image[y : y + h, x : x + w],
            atol=0 if dtype == np.uint8 else 1e-6,
        )


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("interpolation", "rounding"), [("bilinear", "pillow"), ("bicubic", "torchvision")])
def test_the_kernel_is_its_reference(
    dtype: type, channels: int, interpolation: Interpolation, rounding: Rounding
) -> None:
    image = random_image((37, 29), channels, dtype)
    for source, size_hw in [
        (whole(image), (11, 40)),
        ((3.7, 2.2, 20.1, 9.9), (16, 16)),
        ((0.0, 0.0, 1.0, 1.0), (5, 4)),
    ]:
        for flip in (False, True):
            got = crop_resize(
                image, source, size_hw, flip=flip, interpolation=interpolation, rounding=rounding
            )
            expected = crop_resize_reference(
                image, source, size_hw, flip=flip, interpolation=interpolation, rounding=rounding
            )
            assert got.dtype == expected.dtype == dtype
            if dtype == np.float32:  # a sum may be fused in the kernel
                np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
            else:
                assert (got != expected).mean() <= (0 if dtype == np.uint8 else 1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, dtype: type) -> None:
    spread, pieces = module.spread, []
    monkeypatch.setattr(
        module,
        "spread",
        lambda task, cuts, threads: pieces.append(threads) or spread(task, cuts, threads=threads),
    )
    image = random_image((700, 600), 3, dtype)
    one = crop_resize(image, (3.5, 0, 690.0, 600.0), (211, 333))
    assert np.array_equal(crop_resize(image, (3.5, 0, 690.0, 600.0), (211, 333), threads=2), one)
    assert pieces == [1, 1, 2, 2]  # across and down, the second time in two threads


def test_without_numba_the_same_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_image((30, 40), 3)
    with_numba = crop_resize(image, (1.5, 2.5, 20.0, 30.0), (16, 16), flip=True)
    monkeypatch.setattr(module, "is_available", lambda: False)
    np.testing.assert_array_equal(crop_resize(image, (1.5, 2.5, 20.0, 30.0), (16, 16), flip=True), with_numba)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [0.4, 0.5, 0.731, 1.0, 1.37, 2.0])
def test_image_and_mask_stay_in_register(scale: float, flip: bool) -> None:
    # the image holds the coordinate of each pixel, the mask its column: where they part by 1/1000 pixel, it shows
    width = 520
    ramp = np.broadcast_to((np.arange(width, dtype=np.float32) + 0.5)[None, :, None], (8, width, 1)).copy()
    columns = np.broadcast_to(np.arange(width, dtype=np.uint16), (8, width)).copy()
    for left in (40.0, 40.5, 97.123, 150.77):
        source, size_hw = (0.0, left, 8.0, 128 / scale), (8, 128)
        position = left + (np.arange(128) + 0.5) / scale
        drift = crop_resize(ramp, source, size_hw, flip=flip)[0, :, 0] - (
            position[::-1] if flip else position
        )
        # a triangle whose width is no whole number of pixels sees its centre a little aside, left and right by turns
        assert np.abs(drift).max() < (1e-3 if scale >= 1 else 0.07)
        assert abs(drift.mean()) < 1e-3
        assert abs(drift[:64].mean() - drift[64:].mean()) < 2e-3
        ids = crop_resize_mask(columns, source, size_hw, flip=flip)[0]
        np.testing.assert_array_equal(ids, np.floor(position[::-1] if flip else position))


def test_masks_take_the_pixel_under_the_centre() -> None:
    mask = np.array([[1, 2], [3, 4]], np.uint8)
    twice = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert crop_resize_mask(mask, (0, 0, 2, 2), (4, 4)).tolist() == twice
    assert crop_resize_mask(mask, (0, 0, 2, 2), (2, 2), flip=True).tolist() == [[2, 1], [4, 3]]
    line = np.arange(9, dtype=np.uint16)[None]
    assert crop_resize_mask(line, (0, 0, 1, 9), (1, 3)).tolist() == [[1, 4, 7]]  # the middle of every three
    assert crop_resize_mask(line, (0, 3, 1, 3), (1, 3)).tolist() == [[3, 4, 5]]


@pytest.mark.parametrize("size_hw", TARGETS)
@pytest.mark.parametrize("hw", SIZES)
def test_masks_are_resized_as_pillows_nearest(hw: tuple[int, int], size_hw: tuple[int, int]) -> None:
    mask = random_image(hw, 1)[..., 0]
    expected = np.asarray(Image.fromarray(mask).resize(size_hw[::-1], Image.Resampling.NEAREST))
    y, x = ((np.arange(n) + 0.5) * (size / n) for n, size in zip(size_hw, hw, strict=True))
    rows, columns = y % 1 > 1e-9, x % 1 > 1e-9  # between two pixels either is the nearest
    got = crop_resize_mask(mask, (0, 0, *hw), size_hw)
    np.testing.assert_array_equal(got[rows][:, columns], expected[rows][:, columns])


def test_a_flip_mirrors_the_crop() -> None:
    image, source = random_image((40, 40), 3), (3.3, 1.1, 30.0, 21.7)
    for size_hw in [(16, 16), (50, 61)]:
        mirrored = crop_resize(image, source, size_hw)[:, ::-1]
        np.testing.assert_array_equal(crop_resize(image, source, size_hw, flip=True), mirrored)


def test_what_bicubic_shoots_over_black_and_white_is_cut_off() -> None:
    for dtype in (np.uint8, np.uint16):
        white = np.iinfo(dtype).max
        edge = np.zeros((12, 12, 3), dtype)
        edge[4:8, 4:8] = white
        got = crop_resize(edge, whole(edge), (31, 29), interpolation="bicubic")
        assert got.max() == white  # one more would be 0
        assert got.min() == 0
        assert (got[0] == 0).all()
    free = crop_resize((edge / 65535).astype(np.float32), whole(edge), (31, 29), interpolation="bicubic")
    assert free.max() > 1  # a float image has no end
    assert free.min() < 0


def test_only_the_rectangle_and_the_reach_of_its_filter_are_read() -> None:
    image = np.full((60, 60, 1), np.nan, np.float32)
    image[18:42, 18:42] = 0.5  # the rectangle 20 … 40 and the reach, twice the scale of 1.25, rounded up
    assert (crop_resize(image, (20, 20, 20, 20), (16, 16)) == 0.5).all()


def test_a_constant_image_stays_constant() -> None:
    for dtype in (np.uint8, np.uint16, np.float32):
        value = dtype(0.7) if dtype == np.float32 else np.iinfo(dtype).max
        image = np.full((33, 21, 3), value, dtype)
        got = crop_resize(image, (1.3, 2.7, 30.1, 17.9), (50, 8))
        np.testing.assert_allclose(got, value, rtol=3e-7)


def test_any_memory_layout_is_taken() -> None:
    image = random_image((40, 50), 3)
    expected = crop_resize(image, (2, 3, 30, 40), (20, 20))
    turned = np.ascontiguousarray(image.transpose(1, 0, 2)).transpose(1, 0, 2)
    locked = image.copy()
    locked.flags.writeable = False
    out = np.empty((20, 20, 3), np.uint8)
    for form in (turned, locked, np.asfortranarray(image)):
        assert crop_resize(form, (2, 3, 30, 40), (20, 20), out=out) is out
        np.testing.assert_array_equal(out, expected)
        assert locked.flags.writeable is False
