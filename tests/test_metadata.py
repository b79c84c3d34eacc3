"""What is taken out of image files is gone, what turns them upright stays, and no pixel changes.

Truths: Pillow and tifffile write the files and read them again; the compressed pixels of a JPEG are compared as bytes.
"""

import io
import re
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from terrazzo.decoding import decode
from terrazzo.errors import UnreadableFileError
from terrazzo.metadata import without_metadata

RNG = np.random.default_rng(3)
PICTURE = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)
SECRET = b"NOT FOR THE HUB"
GPS = {1: "N", 2: (52.0, 22.0, 1.5), 3: "E", 4: (4.0, 53.0, 2.25), 29: SECRET.decode()}


def exif(orientation: int | None) -> Image.Exif:
    block = Image.Exif()
    if orientation is not None:
        block[0x0112] = orientation
    block[0x010E] = SECRET.decode()  # ImageDescription
    block.get_ifd(0x8825).update(GPS)
    block.get_ifd(0x8769)[0x9286] = SECRET  # UserComment
    return block


def saved(form: str, orientation: int | None, **words: Any) -> bytes:
    stream = io.BytesIO()
    if form == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Source", SECRET.decode())
        texts.add_itxt("XML:com.adobe.xmp", f"<x>{SECRET.decode()}</x>")
        words["pnginfo"] = texts
    if form == "JPEG":
        words |= {"comment": SECRET, "xmp": b"<x>" + SECRET + b"</x>", "progressive": True}
    if form == "WEBP":
        words |= {"xmp": b"<x>" + SECRET + b"</x>", "lossless": True}
    Image.fromarray(PICTURE).save(stream, form, exif=exif(orientation), dpi=(72, 72), **words)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_places_and_words_are_gone_and_the_picture_is_as_upright_as_before(
    form: str, orientation: int | None
) -> None:
    before = saved(form, orientation)
    assert SECRET in before
    after = without_metadata(before, where="a file")
    assert SECRET not in after
    assert (decode(after, where="").array == decode(before, where="").array).all()
    image = Image.open(io.BytesIO(after))
    image.load()
    left = image.getexif()
    assert not left.get_ifd(0x8825)
    assert not left.get_ifd(0x8769)
    if form != "TIFF":  # whose entries are those of EXIF, size and strips among them
        assert dict(left) == ({} if orientation in (None, 1) else {0x0112: orientation})
    assert without_metadata(after, where="a file") == after


def scans(jpeg: bytes) -> list[bytes]:
    """The compressed pixels of a JPEG: what lies between a start of scan and the next marker."""
    return re.findall(rb"\xff\xda.*?(?=\xff[^\x00\xd0-\xd7])", jpeg, re.DOTALL)


def test_the_pixels_of_a_jpeg_are_not_compressed_again_and_what_shows_them_stays() -> None:
    profile = b"\0" * 36 + b"acsp" + b"\0" * 100
    before = saved("JPEG", 6, icc_profile=profile)
    film = b"\xff\xd8 a second picture, or a film \xff\xd9" + SECRET
    after = without_metadata(before + film, where="a file")
    assert len(scans(before)) > 3
    assert scans(after) == scans(before)
    assert Image.open(io.BytesIO(after)).info["icc_profile"] == profile
    assert after.endswith(b"\xff\xd9")
    assert SECRET not in after


def test_a_jpeg_of_four_inks_keeps_what_says_so() -> None:
    stream = io.BytesIO()
    Image.fromarray(PICTURE).convert("CMYK").save(stream, "JPEG", exif=exif(3))
    after = without_metadata(stream.getvalue(), where="a file")
    assert b"Adobe" in after
    assert (decode(after, where="").array == decode(stream.getvalue(), where="").array).all()


def test_colours_and_transparency_of_png_stay() -> None:
    image = Image.fromarray(PICTURE).quantize(16)
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=3, exif=exif(8), gamma=0.45)
    after = Image.open(io.BytesIO(without_metadata(stream.getvalue() + SECRET, where="a file")))
    assert after.getpalette() == image.getpalette()
    assert after.info["transparency"] == 3
    assert (np.array(after) == np.array(image)).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_big", [False, True])
def test_tiffs_of_both_orders_and_sizes_keep_every_value(order: str, is_big: bool) -> None:
    bands = RNG.integers(0, 65536, (9, 7, 5), dtype=np.uint16)
    stream = io.BytesIO()
    where = [(33922, "d", 6, (0.0, 0.0, 0.0, 4.88, 52.37, 0.0), True), (34737, "s", 0, SECRET.decode(), True)]
    tifffile.imwrite(stream, bands, byteorder=order, bigtiff=is_big, photometric="minisblack",
                     planarconfig="contig", description=SECRET.decode(), software=SECRET.decode(), metadata=None,
                     extratags=where)  # fmt: skip
    before = stream.getvalue()
    after = without_metadata(before, where="a file")
    assert SECRET not in after
    assert struct.pack(f"{order}d", 52.37) in before
    assert struct.pack(f"{order}d", 52.37) not in after
    assert len(after) == len(before)
    assert (tifffile.imread(io.BytesIO(after)) == bands).all()
    assert without_metadata(after, where="a file") is after


def test_files_with_nothing_beside_their_pixels_are_left_as_they_are() -> None:
    for form, words in (("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("GIF", {})):
        stream = io.BytesIO()
        Image.fromarray(PICTURE).save(stream, form, **words)
        data = stream.getvalue()
        assert without_metadata(data, where="a file") is data, form
    stream = io.BytesIO()
    tifffile.imwrite(stream, PICTURE[..., 0], software="")
    assert without_metadata(stream.getvalue(), where="a file") is stream.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_file_cut_short_is_told_or_holds_no_secret(form: str) -> None:
    whole = saved(form, 6)
    told = []
    for end in range(4, len(whole) - 1, 7):
        try:
            after = without_metadata(whole[:end], where="cut.jpg")
        except UnreadableFileError as error:
            told.append(error.what)
        else:
            assert SECRET not in after
    assert set(told) == {"What cut.jpg says beside its pixels cannot be taken out."}
    assert len(told) > 10
