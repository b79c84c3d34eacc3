"""Pixels come back as they are stored, upright, or an error says why not."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from pictures import (
    ALPHA,
    DEEP,
    GREY,
    INDICES,
    READS,
    RGB,
    chunk,
    filtered_png,
    packed_png,
    palette_image,
    saved,
    tiff,
)
from terrazzo import images
from terrazzo.errors import ImageFormatError, MaskValueError

RNG = np.random.default_rng(6)


@pytest.mark.parametrize("form", READS)
def test_an_image_of_any_form_comes_back_with_its_values(form: str, tmp_path: Path) -> None:
    data, expected = READS[form]
    path = tmp_path / "image.any"
    path.write_bytes(data)
    image = images.read_image(path)
    assert image.dtype == expected.dtype
    np.testing.assert_array_equal(image, expected)
    assert images.image_size(path) == (6, 9)
    assert image.flags.writeable
    assert image.flags.c_contiguous


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_of_8_and_16_bits_keeps_every_bit_through_every_filter(
    color_type: int, channels: int, dtype: type
) -> None:
    array = RNG.integers(0, np.iinfo(dtype).max + 1, (11, 7, channels)).astype(dtype)
    image = images.decode_image(filtered_png(array, color_type), where="x", channels=channels)
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, array)


def test_jpeg_decodes_as_pillow_decodes_it_and_cmyk_becomes_rgb(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.arange(0, 180, 20, dtype=np.uint8)[None, :, None], (6, 9, 3))
    data = saved(Image.fromarray(np.ascontiguousarray(smooth)), "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(images.decode_image(data, where="x"), np.asarray(image))
    cmyk = saved(Image.fromarray(np.ascontiguousarray(smooth)).convert("CMYK"), "JPEG", quality=95)
    read = images.decode_image(cmyk, where="x")
    assert read.shape == (6, 9, 3)
    assert np.abs(read.astype(int) - smooth).max() <= 6


def test_channels_that_are_asked_for_repeat_grey_and_keep_alpha_and_refuse_the_rest() -> None:
    grey, rgba = READS["grey PNG"][0], READS["RGBA PNG"][0]
    np.testing.assert_array_equal(images.decode_image(grey, where="x", channels=3), np.dstack([GREY] * 3))
    np.testing.assert_array_equal(images.decode_image(rgba, where="x", channels=4), np.dstack([RGB, ALPHA]))
    with pytest.raises(ImageFormatError) as caught:
        images.decode_image(rgba, where="street.png", channels=1)
    assert str(caught.value).startswith(
        "The image street.png has 3 channels instead of 1.\n  found: 6x9 (height x width)"
    )
    assert "terrazzo check DATA" in str(caught.value)


def test_arrays_and_pillow_images_follow_the_same_rules() -> None:
    np.testing.assert_array_equal(images.decode_image(GREY, where="x"), GREY[..., None])
    np.testing.assert_array_equal(images.decode_image(Image.fromarray(RGB), where="x"), RGB)
    np.testing.assert_array_equal(images.decode_mask(palette_image(), where="x"), INDICES)
    assert images.decode_image(GREY / 255, where="x").dtype == np.float32
    for array, sentence in (
        (GREY > 3, "holds true and false"),
        (GREY[None, None], "has 4 dimensions"),
        (GREY.astype(complex), "values terrazzo does not take"),
        (DEEP.astype(np.int32) - 65535, "values terrazzo does not take"),
        (np.full((2, 2), np.nan), "holds NaN or infinity.\n  found: 4 of 4 values"),
        (np.zeros((0, 4, 3), np.uint8), "has a form terrazzo does not take"),
    ):
        with pytest.raises(ImageFormatError, match=sentence):
            images.decode_image(array, where="x")


# -- orientation -------------------------------------------------------------------------------------------------------

# Exif 2.32, tag 0x0112: "the 0th row is at the visual … of the image, the 0th column is the visual …"
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Put every stored pixel where the words of the standard say."""
    row_side, column_side = SIDES[orientation]
    rows, columns = stored.shape[:2]
    height, width = (rows, columns) if row_side in ("top", "bottom") else (columns, rows)
    seen = np.zeros((height, width, *stored.shape[2:]), stored.dtype)
    for r in range(rows):
        for c in range(columns):
            from_side = {row_side: r, column_side: c}
            y = from_side["top"] if "top" in from_side else height - 1 - from_side["bottom"]
            x = from_side["left"] if "left" in from_side else width - 1 - from_side["right"]
            seen[y, x] = stored[r, c]
    return seen


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize(
    "form", ["PNG", "WEBP", "TIFF", "16-bit TIFF", "16-bit RGB TIFF", "16-bit RGB PNG", "late"]
)
def test_orientation_puts_every_pixel_where_the_standard_says(
    form: str, orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored: np.ndarray = RGB
    if form == "late":  # eXIf may follow the pixels
        plain = saved(Image.fromarray(RGB), "PNG")
        data = plain[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + plain[-12:]
    elif form == "16-bit RGB PNG":
        stored = np.dstack([DEEP, DEEP // 2, DEEP // 3])
        plain = filtered_png(stored, 2)
        data = plain[:33] + chunk(b"eXIf", exif.tobytes()[6:]) + plain[33:]
    elif form == "16-bit TIFF":
        stored = DEEP
        data = tiff(DEEP, extratags=[(274, 3, 1, orientation, False)])
    elif form == "16-bit RGB TIFF":
        stored = np.dstack([DEEP, DEEP // 2, DEEP // 3])
        data = tiff(stored, photometric="rgb", extratags=[(274, 3, 1, orientation, False)])
    else:
        data = saved(Image.fromarray(RGB), form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    path = tmp_path / "image.any"
    path.write_bytes(data)
    expected = upright(stored, orientation)
    np.testing.assert_array_equal(images.read_image(path).squeeze(), expected)
    assert images.image_size(path) == expected.shape[:2]
    if form == "PNG":
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(image)), expected)


def test_a_mask_and_a_jpeg_turn_with_their_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "m.png").write_bytes(saved(Image.fromarray(INDICES), "PNG", exif=exif))
    np.testing.assert_array_equal(images.read_mask(tmp_path / "m.png"), np.rot90(INDICES, -1))
    (tmp_path / "i.jpg").write_bytes(saved(Image.fromarray(RGB), "JPEG", exif=exif))
    assert images.read_image(tmp_path / "i.jpg").shape == (9, 6, 3)
    assert images.image_size(tmp_path / "i.jpg") == (9, 6)


def test_damaged_exif_counts_as_none() -> None:
    data = saved(Image.fromarray(RGB), "PNG")
    data = data[:33] + chunk(b"eXIf", b"MM\0*nonsense") + data[33:]
    np.testing.assert_array_equal(images.decode_image(data, where="x"), RGB)


# -- masks -------------------------------------------------------------------------------------------------------------

IDS = {
    "grey PNG": (saved(Image.fromarray(INDICES), "PNG"), INDICES),
    "palette PNG": (saved(palette_image(), "PNG"), INDICES),
    "1-bit PNG": (packed_png(INDICES % 2, 1), INDICES % 2),
    "2-bit PNG": (packed_png(INDICES, 2), INDICES),
    "4-bit PNG": (packed_png(GREY % 16, 4), GREY % 16),
    "16-bit PNG": (saved(Image.fromarray(DEEP), "PNG"), DEEP),
    "GIF": (saved(palette_image(), "GIF"), INDICES),
    "TIFF": (tiff(INDICES), INDICES),
    "16-bit TIFF": (tiff(DEEP), DEEP),
    "32-bit TIFF": (tiff(DEEP.astype(np.int32)), DEEP),
    "float TIFF": (tiff(INDICES.astype(np.float32)), INDICES.astype(np.uint16)),
    "white is zero": (tiff(INDICES, photometric="miniswhite"), INDICES),
}


@pytest.mark.parametrize("form", IDS)
def test_a_mask_gives_ids_as_they_are_stored(form: str, tmp_path: Path) -> None:
    data, expected = IDS[form]
    path = tmp_path / "mask.any"
    path.write_bytes(data)
    mask = images.read_mask(path)
    assert mask.dtype == expected.dtype
    np.testing.assert_array_equal(mask, expected)


def test_masks_that_hold_no_ids_are_refused_in_words() -> None:
    refused: list[tuple[bytes, str]] = [
        (READS["RGB PNG"][0], "holds colours, not class ids"),
        (
            saved(Image.fromarray(np.dstack([GREY] * 3)), "PNG"),
            "Its three channels are equal: save one of them",
        ),
        (saved(Image.fromarray(GREY), "JPEG"), "is a JPEG, which does not keep class ids"),
        (tiff(GREY / np.float32(7)), "holds numbers that are not whole"),
        (tiff(np.full((2, 2), np.nan, np.float32)), "holds numbers that are not whole"),
        (tiff(np.full((2, 2), 70000, np.int32)), "holds ids outside 0-65535.\n  found: 70000 to 70000"),
        (tiff(np.full((2, 2), -1, np.int16)), "holds ids outside 0-65535"),
    ]
    for data, sentence in refused:
        with pytest.raises(MaskValueError) as caught:
            images.decode_mask(data, where="masks/a.png")
        assert sentence in str(caught.value)
        assert str(caught.value).startswith("The mask masks/a.png ")


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    ),
    st.integers(0, 256),
)
def test_a_written_mask_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, mask: np.ndarray, colors: int
) -> None:
    path = tmp_path_factory.mktemp("masks") / "m.png"
    palette = np.arange(3 * colors, dtype=np.int64).reshape(-1, 3).astype(np.uint8) if colors else None
    images.write_mask(path, mask, palette)
    read = images.read_mask(path)
    assert read.dtype == mask.dtype
    np.testing.assert_array_equal(read, mask)
    with Image.open(path) as image:  # Pillow sees the same
        np.testing.assert_array_equal(np.asarray(image), mask)
        assert image.mode == ("I;16" if mask.dtype == np.uint16 else "P" if colors else "L")


def test_a_palette_shows_colours_in_viewers(tmp_path: Path) -> None:
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    images.write_mask(
        tmp_path / "m.png", mask, np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)
    )
    with Image.open(tmp_path / "m.png") as image:
        assert np.asarray(image.convert("RGB")).tolist() == [
            [[10, 20, 30], [40, 50, 60]],
            [[70, 80, 90], [0, 0, 0]],
        ]


def test_a_mask_that_is_none_is_not_written(tmp_path: Path) -> None:
    for wrong in (np.zeros((2, 2), np.int64), np.zeros((2, 2, 3), np.uint8), np.zeros((0, 2), np.uint8)):
        with pytest.raises(MaskValueError, match="is not a map of ids"):
            images.write_mask(tmp_path / "m.png", wrong)
    assert list(tmp_path.iterdir()) == []


# -- writing images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_a_written_image_comes_back_exactly(tmp_path: Path, suffix: str, dtype: type, channels: int) -> None:
    image = RNG.integers(0, np.iinfo(dtype).max + 1, (5, 8, channels)).astype(dtype)
    path = tmp_path / f"image{suffix}"
    if suffix == ".png" and channels == 7:
        with pytest.raises(ImageFormatError, match="TIFF holds everything"):
            images.write_image(path, image)
        return
    images.write_image(path, image)
    np.testing.assert_array_equal(images.read_image(path, channels=channels), image)


def test_floats_go_to_tiff_and_lossy_forms_stay_close(tmp_path: Path) -> None:
    image = RNG.random((5, 8, 3)).astype(np.float32)
    images.write_image(tmp_path / "i.tiff", image)
    np.testing.assert_array_equal(images.read_image(tmp_path / "i.tiff"), image)
    flat = np.full((16, 16, 3), (200, 30, 90), np.uint8)
    for suffix in (".jpg", ".webp", ".bmp"):
        images.write_image(tmp_path / f"i{suffix}", flat)
        assert np.abs(images.read_image(tmp_path / f"i{suffix}").astype(int) - flat).max() <= 3
    for suffix, wrong in ((".png", image), (".jpg", flat.astype(np.uint16)), (".xyz", flat)):
        with pytest.raises(ImageFormatError, match="cannot be written"):
            images.write_image(tmp_path / f"w{suffix}", wrong)
