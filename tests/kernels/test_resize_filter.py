"""Weights by hand, and 8-bit images resized as torch resizes them, to the bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from terrazzo.kernels.crop_resize import crop_resize, crop_resize_reference
from terrazzo.kernels.resize_filter import Interpolation, Rounding, line_taps, table, whole_numbers

SIDES = st.one_of(st.integers(1, 9), st.integers(1, 150))
HAS_BYTES = torch.backends.cpu.get_cpu_capability() in (
    "AVX2",
    "AVX512",
)  # elsewhere torchvision takes floats


def by_torch(
    image: np.ndarray, size_hw: tuple[int, int], interpolation: Interpolation, *, is_planar: bool
) -> np.ndarray:
    """F.interpolate of bytes, as torchvision calls it: channels last, or in planes."""
    image_BCHW = torch.from_numpy(image).permute(2, 0, 1)[None]
    if is_planar:
        image_BCHW = image_BCHW.clone(memory_format=torch.contiguous_format)
    return interpolate(image_BCHW, size_hw, mode=interpolation, antialias=True)[0].permute(1, 2, 0).numpy()


def ours(
    image: np.ndarray, size_hw: tuple[int, int], interpolation: Interpolation, rounding: Rounding
) -> np.ndarray:
    whole = (0.0, 0.0, float(image.shape[0]), float(image.shape[1]))
    return crop_resize(image, whole, size_hw, interpolation=interpolation, rounding=rounding)


def pattern(hw: tuple[int, int], channels: int, seed: int) -> np.ndarray:
    """Noise, or black and white alone, where bicubic shoots over."""
    rng = np.random.default_rng(seed)
    if seed % 2:
        return rng.integers(0, 2, (*hw, channels), dtype=np.uint8) * np.uint8(255)
    return rng.integers(0, 256, (*hw, channels), dtype=np.uint8)


def test_weights_of_a_line_by_hand() -> None:
    # two pixels to one: both lie half a pixel from the centre, the filter is two wide
    assert line_taps(2, 1)[1].tolist() == [[0.5, 0.5]]
    # one to two: what lies beyond the line does not count
    assert line_taps(1, 2)[1].tolist() == [[1.0], [1.0]]
    # two to four, the second: 1/4 from its pixel, 3/4 from the next
    starts, weights = line_taps(2, 4)
    assert (starts[1], weights[1].tolist()) == (0, [0.75, 0.25])
    # Keys' cubic between two of many pixels: -1/16, 9/16, 9/16, -1/16
    weights = table(4.0, 1.0, 1, 8, "bicubic")[3]
    assert weights.sum() == pytest.approx(1)
    between = table(3.5, 1.0, 1, 8, "bicubic")[3][0]
    assert between[between != 0].tolist() == [-1 / 16, 9 / 16, 9 / 16, -1 / 16]


def test_pillow_keeps_22_places_and_torch_what_fits_16_bits() -> None:
    weights = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert whole_numbers(weights)[1] == 22
    whole, bits = whole_numbers(weights, "torchvision")
    assert (bits, whole.tolist()) == (
        14,
        [[1 << 14, 0], [1 << 13, 1 << 13]],
    )  # 1 << 15 would be a negative number
    assert whole_numbers(weights / 4, "torchvision")[1] == 16
    assert whole_numbers(weights / 1000, "torchvision")[1] == 22  # never more
    thirds, bits = whole_numbers(np.array([[1 / 3, 2 / 3, -1 / 3]]), "torchvision")
    assert (bits, thirds.tolist()) == (15, [[10923, 21845, -10923]])  # to the nearest, on both sides of 0


def test_the_two_roundings_differ_in_places_by_a_grey_level() -> None:
    image = pattern((120, 160), 3, 0)
    one, other = (
        ours(image, (77, 91), "bilinear", rounding).astype(int) for rounding in ("pillow", "torchvision")
    )
    differ = np.abs(one - other)
    assert differ.max() == 1
    assert 0 < differ.mean() < 0.01


@pytest.mark.skipif(not HAS_BYTES, reason="torch resizes bytes in whole numbers where the processor has AVX2")
@settings(max_examples=200, deadline=None)
@given(
    st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.integers(1, 6), st.integers(0, 99),
    st.sampled_from(["bilinear", "bicubic"]), st.booleans(),
)  # fmt: skip
def test_8bit_images_are_resized_as_torch_does_to_the_bit(
    hw: tuple[int, int],
    size_hw: tuple[int, int],
    channels: int,
    seed: int,
    interpolation: Interpolation,
    is_planar: bool,
) -> None:
    if size_hw[1] == 1 and (channels > 4 or size_hw[0] == 1):
        size_hw = (
            size_hw[0],
            2,
        )  # torch 2.15 errs there, and for 1x1 pixel stops at an assertion of its own; see below
    image = pattern(hw, channels, seed)
    got = ours(image, size_hw, interpolation, "torchvision")
    np.testing.assert_array_equal(got, by_torch(image, size_hw, interpolation, is_planar=is_planar))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.skipif(not HAS_BYTES, reason="torch resizes bytes in whole numbers where the processor has AVX2")
def test_large_images_too(interpolation: Interpolation) -> None:
    image = pattern((540, 961), 3, 2)
    for size_hw in [(256, 512), (512, 512), (700, 1201), (540, 200), (3, 961)]:
        for is_planar in (False, True):
            np.testing.assert_array_equal(
                ours(image, size_hw, interpolation, "torchvision"),
                by_torch(image, size_hw, interpolation, is_planar=is_planar),
            )


@pytest.mark.parametrize("rounding", ["pillow", "torchvision"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_one_column_of_many_channels_is_its_channels(
    interpolation: Interpolation, rounding: Rounding
) -> None:
    # where torch 2.15 cannot be the truth: its one column of 5 channels is off by up to 30 grey levels
    image = pattern((14, 33), 5, 4)
    for size_hw in [(4, 1), (1, 1)]:
        each = [
            ours(np.ascontiguousarray(image[..., c : c + 1]), size_hw, interpolation, rounding)
            for c in range(5)
        ]
        got = ours(image, size_hw, interpolation, rounding)
        np.testing.assert_array_equal(got, np.concatenate(each, axis=2))
        exact = crop_resize_reference(
            image.astype(np.float32), (0, 0, 14, 33), size_hw, interpolation=interpolation
        )
        assert np.abs(got - exact.clip(0, 255)).max() <= 1.1
