"""Pixels come back as they are stored, upright, or an error says why not."""

import io
import re
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFile, ImageOps

from terrazzo import images
from terrazzo.errors import (
    ImageFormatError,
    MaskValueError,
    MissingPathError,
    TerrazzoError,
    UnreadableFileError,
)

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (6, 9), dtype=np.uint16)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def filtered_png(array: np.ndarray, color_type: int) -> bytes:
    """An independent PNG writer: every row with another of the five filters, byte by byte as the standard says."""
    raw = array.astype(array.dtype.newbyteorder(">")).reshape(array.shape[0], -1).view(np.uint8).astype(int)
    step = max(1, array.dtype.itemsize * (array.shape[2] if array.ndim == 3 else 1))
    lines = b""
    for y, row in enumerate(raw):
        above = raw[y - 1] if y else row * 0
        line = [y % 5]
        for x, value in enumerate(row):
            left = row[x - step] if x >= step else 0
            corner = above[x - step] if x >= step else 0
            estimate = left + above[x] - corner
            nearest = min((left, above[x], corner), key=lambda candidate: abs(estimate - candidate))
            guess = (0, left, above[x], (left + above[x]) // 2, nearest)[y % 5]
            line.append((value - guess) % 256)
        lines += bytes(line)
    header = struct.pack(
        ">IIBBBBB", array.shape[1], array.shape[0], array.dtype.itemsize * 8, color_type, 0, 0, 0
    )
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def packed_png(ids: np.ndarray, bits: int) -> bytes:
    """A grey PNG of 1, 2 or 4 bits, packed by hand."""
    lines = b""
    for row in ids:
        text = "".join(format(value, f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        lines += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


# -- what comes out ----------------------------------------------------------------------------------------------------

ALPHA = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
PALETTE = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
INDICES = RNG.integers(0, 4, (6, 9), dtype=np.uint8)


def palette_image() -> Image.Image:
    image = Image.fromarray(INDICES, "P")
    image.putpalette(PALETTE.tobytes())
    return image


READS: dict[str, tuple[bytes, np.ndarray]] = {
    "grey PNG": (saved(Image.fromarray(GREY), "PNG"), GREY[..., None]),
    "RGB PNG": (saved(Image.fromarray(RGB), "PNG"), RGB),
    "RGBA PNG": (saved(Image.fromarray(np.dstack([RGB, ALPHA])), "PNG"), RGB),
    "grey + alpha PNG": (saved(Image.fromarray(np.dstack([GREY, ALPHA])), "PNG"), np.dstack([GREY] * 3)),
    "palette PNG": (saved(palette_image(), "PNG"), PALETTE[INDICES]),
    "1-bit PNG": (saved(Image.fromarray(GREY > 99), "PNG"), (255 * (GREY > 99))[..., None].astype(np.uint8)),
    "2-bit PNG": (packed_png(GREY % 4, 2), (GREY % 4 * 85)[..., None]),
    "16-bit grey PNG": (saved(Image.fromarray(DEEP), "PNG"), DEEP[..., None]),
    "RGB BMP": (saved(Image.fromarray(RGB), "BMP"), RGB),
    "RGB WebP": (saved(Image.fromarray(RGB), "WEBP", lossless=True), RGB),
    "RGB PPM": (saved(Image.fromarray(RGB), "PPM"), RGB),
    "16-bit PGM": (b"P5\n# a comment\n9 6\n65535\n" + DEEP.astype(">u2").tobytes(), DEEP[..., None]),
    "RGB TIFF": (tiff(RGB), RGB),
    "RGB TIFF, planes, Deflate": (
        tiff(np.moveaxis(RGB, 2, 0), photometric="rgb", planarconfig="separate", compression="deflate"),
        RGB,
    ),
    "RGB TIFF, LZW": (saved(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"), RGB),
    "RGBA TIFF": (tiff(np.dstack([RGB, ALPHA]), photometric="rgb", extrasamples=["unassalpha"]), RGB),
    "palette TIFF": (saved(palette_image(), "TIFF"), PALETTE[INDICES]),
    "16-bit TIFF, big-endian": (tiff(DEEP, byteorder=">"), DEEP[..., None]),
    "16-bit RGB TIFF": (
        tiff(np.dstack([DEEP, DEEP // 2, DEEP // 3]), photometric="rgb"),
        np.dstack([DEEP, DEEP // 2, DEEP // 3]),
    ),
    "float TIFF": (tiff(DEEP.astype(np.float32) / 7), (DEEP.astype(np.float32) / 7)[..., None]),
    "double TIFF": (tiff(DEEP / 8.0), (DEEP / 8.0).astype(np.float32)[..., None]),
    "int16 TIFF": (tiff((DEEP // 2).astype(np.int16)), (DEEP // 2)[..., None]),
    "5 bands, pixel by pixel": (
        tiff(np.dstack([GREY + i for i in range(5)]), photometric="minisblack", planarconfig="contig"),
        np.dstack([GREY + i for i in range(5)]),
    ),
    "4 bands, none of them alpha": (
        tiff(np.dstack([RGB, ALPHA]), photometric="rgb", extrasamples=["unspecified"]),
        np.dstack([RGB, ALPHA]),
    ),
    "5 bands, page by page": (
        tiff(np.stack([DEEP + i for i in range(5)])),
        np.dstack([DEEP + i for i in range(5)]),
    ),
    "BigTIFF": (tiff(RGB, bigtiff=True), RGB),
    "white is zero": (tiff(GREY, photometric="miniswhite"), 255 - GREY[..., None]),
    "white is zero, 16 bits": (tiff(DEEP, photometric="miniswhite"), 65535 - DEEP[..., None]),
}


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


# -- damage ------------------------------------------------------------------------------------------------------------

LARGE = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
WHOLE = {
    "PNG": saved(Image.fromarray(LARGE), "PNG"),
    "JPEG": saved(Image.fromarray(LARGE), "JPEG"),
    "WEBP": saved(Image.fromarray(LARGE), "WEBP"),
    "BMP": saved(Image.fromarray(LARGE), "BMP"),
    "TIFF": tiff(LARGE, rowsperstrip=8),
    "TIFF of 16 bits": tiff(LARGE.astype(np.uint16), rowsperstrip=8, photometric="rgb"),
    "TIFF, Deflate": tiff(LARGE.astype(np.uint16), rowsperstrip=8, photometric="rgb", compression="deflate"),
}


@pytest.mark.parametrize("form", WHOLE)
@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("is_forgiving", [False, True])
def test_a_truncated_file_is_an_error_that_names_it(
    form: str, part: float, is_forgiving: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ImageFile, "LOAD_TRUNCATED_IMAGES", is_forgiving
    )  # as some libraries set it for everyone
    path = tmp_path / "cut.png"
    path.write_bytes(WHOLE[form][: int(len(WHOLE[form]) * part)])
    with pytest.raises(UnreadableFileError, match=r"cut\.png cannot be read"):
        images.read_image(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is is_forgiving


def test_a_flipped_bit_in_a_png_is_found() -> None:
    data = bytearray(WHOLE["PNG"])
    data[len(data) // 2] ^= 1
    with pytest.raises(UnreadableFileError, match="the checksum of its IDAT chunk does not match"):
        images.decode_image(bytes(data), where="x.png")


def test_files_that_are_no_images_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<html>404</html>")
    with pytest.raises(UnreadableFileError, match="not an image of a format that terrazzo reads"):
        images.read_image(tmp_path / "a.png")
    with pytest.raises(MissingPathError, match="There is no file"):
        images.read_image(tmp_path / "b.png")
    with pytest.raises(MissingPathError, match="There is no file"):
        images.image_size(tmp_path / "b.png")
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        images.read_mask(tmp_path)
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n")
    with pytest.raises(UnreadableFileError, match="not an image of a format"):
        images.read_image(tmp_path / "a.eps")


def test_a_header_that_claims_too_much_is_refused_before_any_memory_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    header = struct.pack(">IIBBBBB", 60000, 50000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageFormatError) as caught:
        images.decode_image(bomb, where="bomb.png")
    assert str(caught.value).startswith("bomb.png claims 50,000 x 60,000 pixels (height x width).")
    assert "export TERRAZZO_MAX_PIXELS=3000000000" in str(caught.value)
    monkeypatch.setenv("TERRAZZO_MAX_PIXELS", "50")
    with pytest.raises(ImageFormatError, match="claims 6 x 9 pixels"):
        images.decode_image(READS["RGB PNG"][0], where="small.png")


def test_large_but_allowed_images_raise_no_pillow_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(images.decode_image(READS["RGB PNG"][0], where="x"), RGB)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_animations_stacks_and_stretched_values_are_refused() -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    refused = {
        "is an animation.\n  found: 2 frames": saved(
            frames[0], "GIF", save_all=True, append_images=frames[1:]
        ),
        "is a PPM file with values 0-11": b"P5 2 1 11\n\x05\x0b",
        "is a TIFF of several pictures": _two_pictures(),
    }
    for sentence, data in refused.items():
        with pytest.raises(ImageFormatError) as caught:
            images.decode_image(data, where="x")
        assert sentence in str(caught.value)


def _two_pictures() -> bytes:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(GREY)
        writer.write(RGB, photometric="rgb")
    return stream.getvalue()


def test_reduced_copies_inside_a_tiff_are_skipped() -> None:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(LARGE, photometric="rgb", subifds=1)
        writer.write(LARGE[::2, ::2], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(images.decode_image(stream.getvalue(), where="x"), LARGE)


def test_sizes_of_bytes_arrays_and_pillow_images_agree() -> None:
    assert images.size_of(READS["RGB PNG"][0], where="x") == (6, 9)
    assert images.size_of(RGB, where="x") == (6, 9)
    assert images.size_of(Image.fromarray(RGB), where="x") == (6, 9)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16", "P", "1"])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_whole_image_is_whole_in_every_mode(mode: str, form: str) -> None:
    picture = (
        Image.fromarray(np.arange(30 * 20, dtype=np.uint16).reshape(20, 30))
        if mode == "I;16"
        else Image.new(mode, (30, 20))
    )
    if (mode, form) != ("1", "TIFF"):
        assert images.check_whole(saved(picture, form), where="x") == (20, 30)


def test_what_is_whole_is_what_can_be_decoded_whatever_byte_is_wrong() -> None:
    """Each byte of a PNG changed in turn, and the file cut after each: both ways of looking say the same."""
    data = saved(Image.fromarray(np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)), "PNG")
    broken = [data[:n] + bytes([data[n] ^ 0x41]) + data[n + 1 :] for n in range(len(data))]
    broken += [data[:n] for n in range(len(data))]
    for one in broken:
        try:
            expected = images.decode_image(one, where="x").shape[:2]
        except TerrazzoError as error:
            with pytest.raises(type(error)):
                images.check_whole(one, where="x")
        else:
            assert images.check_whole(one, where="x") == expected


def test_a_png_that_unpacks_to_more_than_its_header_says_is_not_believed() -> None:
    from terrazzo.decoding import is_whole_png

    def png(rows: bytes) -> bytes:
        chunks = [
            (b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        ]
        parts = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

    assert is_whole_png(png(b"\0ab\0cd"))
    assert not is_whole_png(png(b"\0ab\0cd\0"))
    assert not is_whole_png(png(bytes(10_000_000)))
    assert not is_whole_png(png(b"\0ab"))
    assert not is_whole_png(png(b"\0ab\7cd"))  # no filter has that number


@pytest.mark.parametrize("where", [2, 3, 5])
def test_a_tiff_whose_second_picture_is_broken_is_refused_in_words(where: int) -> None:
    data = bytearray(saved(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"))
    at = int.from_bytes(data[4:8], "little")
    end = at + 2 + 12 * int.from_bytes(data[at : at + 2], "little")
    data[end : end + 4] = (at + where).to_bytes(4, "little")  # the next directory lies within this one
    with pytest.raises((UnreadableFileError, ImageFormatError), match="^x "):
        images.decode_image(bytes(data), where="x")


def test_a_deep_png_without_pixels_is_told() -> None:
    whole = images._png(RGB.astype(np.uint16))
    at = whole.index(b"IDAT") - 4
    with pytest.raises(UnreadableFileError, match="it has no pixels"):
        images.decode_image(whole[:at] + whole[whole.index(b"IEND") - 4 :], where="x")


def _claiming(form: str, side: int) -> bytes:
    """A file of 8x8 pixels whose header says `side` x `side`."""
    small = Image.new("RGB", (8, 8))
    if form == "PNG":
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        pixels = zlib.compress(bytes(8 * 25))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    if form == "PPM":
        return b"P6 %d %d 255\n" % (side, side) + bytes(192)
    data = bytearray(
        saved(small, form.partition(" ")[0], **({"compression": form[5:]} if " " in form else {}))
    )
    if form == "JPEG":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, side, side)
    elif form == "BMP":
        struct.pack_into("<ii", data, 18, side, side)
    elif form == "GIF":
        struct.pack_into("<HH", data, 6, side, side)
        struct.pack_into("<HH", data, data.index(b",", 13) + 5, side, side)
    else:
        at = int.from_bytes(data[4:8], "little")
        for place in range(at + 2, at + 2 + 12 * int.from_bytes(data[at : at + 2], "little"), 12):
            if int.from_bytes(data[place : place + 2], "little") in (
                256,
                257,
                278,
            ):  # width, height, rows of a strip
                struct.pack_into("<HII", data, place + 2, 4, 1, side)
    return bytes(data)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures the process's peak in /proc")
@pytest.mark.parametrize(
    "form",
    [
        "PNG",
        "JPEG",
        "BMP",
        "GIF",
        "PPM",
        "TIFF raw",
        "TIFF tiff_lzw",
        "TIFF tiff_adobe_deflate",
        "TIFF packbits",
        "TIFF jpeg",
    ],
)
def test_a_hundred_megapixels_on_a_tiny_file_are_refused_without_the_memory(form: str) -> None:
    def held(what: str) -> int:
        found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None
        return int(found[1]) >> 10

    data = _claiming(form, 10_000)
    assert len(data) < 2000
    for read in (images.decode_image, images.decode_mask, images.check_whole):
        before = held("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        with pytest.raises((UnreadableFileError, ImageFormatError), match="bomb"):
            read(data, where="bomb")
        assert held("VmHWM") - before < 64  # MiB; the pixels would be 286
