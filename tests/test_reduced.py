"""A reduced image is the whole one with fewer pixels: nothing moves, and nothing is read that would not be whole."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from terrazzo.errors import ImageFormatError, UnreadableFileError
from terrazzo.images import decode_image
from terrazzo.kernels.crop_resize import crop_resize
from terrazzo.reduced import Reduced, decode_reduced, divisor_for

HW = (93, 150)  # no multiple of 8
DIVISORS = (2, 4, 8)


def photo(hw: tuple[int, int] = HW, channels: int = 3) -> np.ndarray:
    """Soft blobs and some noise."""
    rng = np.random.default_rng(3)
    blobs = Image.fromarray(rng.integers(0, 256, (9, 13, channels), dtype=np.uint8).squeeze())
    soft = np.asarray(blobs.resize(hw[::-1], Image.Resampling.BICUBIC)).astype(float)
    return (soft + rng.normal(0, 4, soft.shape)).clip(0, 255).astype(np.uint8)


def jpeg(array: np.ndarray, *, orientation: int = 1, form: str = "JPEG", **options: Any) -> bytes:
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(stream, form, exif=exif, **{"quality": 95, **options})
    return stream.getvalue()


def reduced(data: Any, divisor: int, *, channels: int | None = None) -> Reduced:
    return decode_reduced(data, divisor=divisor, where="a photo", channels=channels)


@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize(
    "options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}, {"form": "MPO"}]
)
def test_pixels_are_those_of_pillows_draft(divisor: int, options: dict[str, Any]) -> None:
    for hw in (HW, (64, 88), (16, 15)):
        data = jpeg(photo(hw), **options)
        found = reduced(data, divisor)
        truth = Image.open(io.BytesIO(data))
        truth.draft("RGB", (hw[1] // divisor, hw[0] // divisor))
        assert found.image.shape == (-(-hw[0] // divisor), -(-hw[1] // divisor), 3)
        assert (found.image == np.asarray(truth)).all()
        assert (found.size_hw, found.divisor, found.origin_yx) == (hw, divisor, (0, 0))


@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize(("subsampling", "most"), [(0, 0.8), (2, 1.7)])  # 2: colours at half the size
def test_a_reduced_pixel_is_nearly_the_mean_of_those_it_stands_for(
    divisor: int, subsampling: int, most: float
) -> None:
    data = jpeg(photo(), subsampling=subsampling)
    h, w = HW[0] // divisor, HW[1] // divisor
    whole = decode_image(data, where="a photo")[: h * divisor, : w * divisor].astype(float)
    means = whole.reshape(h, divisor, w, divisor, 3).mean(axis=(1, 3))
    off = np.abs(reduced(data, divisor).image[:h, :w] - means)
    assert off.mean() < most
    assert np.abs(means[1:] - means[:-1]).mean() > 5 * most  # a shift by one pixel would be seen


@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_nothing_moves_whatever_the_orientation(orientation: int, divisor: int) -> None:
    y, x = np.mgrid[: HW[0], : HW[1]]
    slope = 1.5  # grey levels from pixel to pixel
    ramps = np.stack([y * slope, x * slope, 240 - x * slope], axis=-1).round().astype(np.uint8)
    data = jpeg(ramps, orientation=orientation, subsampling=0, quality=100)
    whole = decode_image(data, where="a ramp")
    found = reduced(data, divisor)
    assert found.size_hw == whole.shape[:2]
    source = (17.3, 20.6, 51.2, 44.8)
    size_hw = 6, 5
    seen = crop_resize(found.image, found.place(source), size_hw).astype(int)
    off = seen - crop_resize(whole, source, size_hw)
    assert np.abs(off).max() <= 2
    assert np.abs(off.mean(axis=(0, 1))).max() < 1  # half a reduced pixel is 1.5 levels and more
    top, left, height, width = found.place((0.0, 0.0, float(whole.shape[0]), float(whole.shape[1])))
    assert min(top, left) >= 0
    assert top + height <= found.image.shape[0]
    assert left + width <= found.image.shape[1]


def test_a_damaged_file_is_refused_as_when_it_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({}, {"progressive": True}):
        data = jpeg(photo(), **options)
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
        for end in [*range(3, len(data), len(data) // 40), len(data) - 1, len(data)]:
            assert refusal(lambda part: reduced(part, 4), data[:end]) == refusal(whole, data[:end]), end
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        assert refusal(lambda part: reduced(part, 4), data[: len(data) // 2]) is UnreadableFileError


def whole(data: bytes) -> np.ndarray:
    return decode_image(data, where="a photo")


def refusal(read: Callable[[bytes], object], data: bytes) -> type[Exception] | None:
    try:
        read(data)
    except Exception as error:
        return type(error)
    return None


def test_what_is_no_plain_jpeg_comes_whole() -> None:
    png, cmyk = io.BytesIO(), io.BytesIO()
    Image.fromarray(photo()).save(png, "PNG")
    Image.fromarray(photo()).convert("CMYK").save(cmyk, "JPEG")
    deep = photo(channels=3).astype(np.uint16) * 200
    for data in (png.getvalue(), cmyk.getvalue(), deep, Image.fromarray(photo()), jpeg(photo((3, 40)))):
        found = reduced(data, 4)
        assert (found.image == decode_image(data, where="a photo")).all()
        assert (found.divisor, found.size_hw) == (1, found.image.shape[:2])
        assert found.place((1.5, 2.0, 3.0, 4.0)) == (1.5, 2.0, 3.0, 4.0)


def test_channels_are_fitted_as_ever() -> None:
    grey = jpeg(photo(channels=1))
    assert reduced(grey, 2).image.shape == (47, 75, 1)
    three = reduced(grey, 2, channels=3).image
    assert three.shape == (47, 75, 3)
    assert (three == three[..., :1]).all()
    with pytest.raises(ImageFormatError, match="3 channels instead of 1"):
        reduced(jpeg(photo()), 2, channels=1)


@pytest.mark.parametrize(
    ("source_hw", "size_hw", "divisor"),
    [
        ((512, 512), (512, 512), 1),
        ((1023, 2048), (512, 512), 1),  # a half would leave 511.5 rows
        ((1024, 1024), (512, 512), 2),
        ((3000, 4000), (750, 1000), 4),
        ((3000, 4000), (751, 1001), 2),
        ((8000, 9000), (512, 512), 8),
        ((512 * 2.2 / 1.1, 800 * 3), (512, 800), 2),  # 1,024 but for rounding
    ],
)
def test_the_divisor_leaves_a_pixel_for_each_of_the_crop(
    source_hw: tuple[float, float], size_hw: tuple[int, int], divisor: int
) -> None:
    assert divisor_for((3.0, 5.0, *source_hw), size_hw) == divisor
