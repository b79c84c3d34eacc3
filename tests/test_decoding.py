"""Damaged, false and hostile files are refused in words, before they cost memory."""

import io
import re
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from pictures import GREY, LARGE, READS, RGB, chunk, saved, tiff
from terrazzo import images
from terrazzo.errors import ImageFormatError, MissingPathError, TerrazzoError, UnreadableFileError

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
