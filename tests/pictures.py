"""Small pictures in every form a file can have, some written by hand as the standards say, beside their values."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import tifffile
from PIL import Image

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (6, 9), dtype=np.uint16)
ALPHA = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
PALETTE = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
INDICES = RNG.integers(0, 4, (6, 9), dtype=np.uint8)
LARGE = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)


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
