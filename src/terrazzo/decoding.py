"""Bytes of an image file to pixels exactly as they are stored: PNG, JPEG, TIFF, WebP, BMP, GIF, PPM.

`images.py` and `region_ids.py` decide what pixels mean (an image, class ids, regions). Here nothing is scaled, dropped
or repaired: 16 bits stay 16 bits (Pillow alone would cut RGB to 8), palettes stay indices, a truncated file is an error
even where another library told Pillow to forgive it, and an EXIF or TIFF orientation is applied, as a browser does.
Refused in words: animations, other formats, files whose pixels would not fit in memory.
"""

import io
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from terrazzo.errors import ImageFormatError, TerrazzoError, UnreadableFileError

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM")  # never EPS: Pillow starts Ghostscript for it
MAX_PIXELS = 1 << 29  # 537 million, 23,170 x 23,170: 1.5 GiB as RGB; more is a bomb or wants windows
MOST_PACKED = {
    1: 1,
    8: 1032,
    32946: 1032,
    5: 4096,
    32773: 128,
    7: 1536,
}  # TIFF's compressions, and what a byte unpacks
# pixels in a byte of a file, at most: a block of 8x8 takes a bit of a JPEG, Deflate packs to a 1032nd, LZW to a 4096th
MOST_PIXELS = {"JPEG": 512, "MPO": 512, "PNG": 8 * 1032, "BMP": 8 * 1032, "GIF": 4096, "PPM": 8}
_LOCK = threading.Lock()


@dataclass(frozen=True, eq=False)
class Pixels:
    """What a file holds, before anyone decides what it means."""

    array: NDArray[Any]
    """(H, W) or (H, W, C), the dtype as stored; orientation applied."""
    palette: NDArray[np.uint8] | None = None
    """(N, 3) RGB where `array` holds indices into it."""
    has_alpha: bool = False
    """True when the last channel is declared as transparency."""
    bits: int = 0
    """1, 2 or 4 where grey values are stored in less than a byte (0 … 2**bits - 1); otherwise 0."""
    white_is_zero: bool = False
    """True for a grey TIFF whose 0 is meant to be seen as white."""
    is_lossy: bool = False
    """True for JPEG: neighbouring values run into each other."""


def decode(data: bytes, *, where: str) -> Pixels:
    """Return the pixels in the bytes of one image file; UnreadableFileError or ImageFormatError naming `where`."""
    stream = io.BytesIO(data)
    if _is_tiff(data):
        return _decode_tiff(stream, len(data), where)
    _check_ppm(data, where)
    depth, color_type = _check_png(data, where) if data.startswith(_PNG) else (8, 2)
    image = _open(stream, where)
    orientation = _orientation(image, stream)
    if depth == 16 and color_type != 0:
        return _orient(_deep_png(image, data, color_type, where), orientation)
    pixels = from_pil(image, where=where)
    if color_type == 0 and depth in (2, 4):  # Pillow stretches them over 0 … 255
        pixels = Pixels(pixels.array // np.uint8(255 // ((1 << depth) - 1)), bits=depth)
    return _orient(pixels, orientation)


def from_pil(image: Image.Image, *, where: str) -> Pixels:
    """Return the pixels of a Pillow image, in whatever mode it is; its orientation is not looked at."""
    _load(image, where)
    mode = image.mode
    if mode == "1":
        return Pixels(np.asarray(image).astype(np.uint8), bits=1)
    if mode == "P" or mode == "PA":
        flat = image.convert("P") if mode == "PA" else image
        palette = np.asarray(flat.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
        return Pixels(np.array(image.getchannel(0) if mode == "PA" else image), palette=palette)
    lossy = getattr(image, "format", None) in ("JPEG", "MPO")
    if mode in ("L", "RGB"):
        return Pixels(np.array(image), is_lossy=lossy)
    if mode in ("LA", "RGBA"):
        return Pixels(np.array(image), has_alpha=True)
    if mode.startswith("I;16"):
        return Pixels(np.array(image).astype(np.uint16))
    if mode in ("I", "F"):
        return Pixels(np.array(image))
    return Pixels(np.array(image.convert("RGB")), is_lossy=lossy)  # CMYK, YCbCr, LAB, HSV, RGBX, La, RGBa


def size_hw(stream: BinaryIO, *, where: str) -> tuple[int, int]:
    """Return (height, width) from the header of an open file, orientation applied; nothing is decoded."""
    if _is_tiff(_head(stream)):
        with _tiff(stream, where) as tif:
            series, is_turned = tif.series[0], _tiff_orientation(tif) >= 5
            height, width = (series.shape[series.axes.index(axis)] for axis in "YX")
            return (width, height) if is_turned else (height, width)
    image = _open(stream, where)
    width, height = image.size
    return (width, height) if _orientation(image, stream) >= 5 else (height, width)


def orientation_of(data: bytes, *, where: str) -> int:
    """Return the EXIF or TIFF orientation in the bytes of an image file, 1 (upright) to 8."""
    stream = io.BytesIO(data)
    if _is_tiff(data):
        with _tiff(stream, where) as tif:
            return _tiff_orientation(tif)
    return _orientation(_open(stream, where), stream)


def opened(data: bytes, *, where: str) -> ImageFile.ImageFile:
    """Return an image file as Pillow has it once its header is read and found to be no bomb; TIFF is not for Pillow."""
    return _open(io.BytesIO(data), where)


# -- Pillow --------------------------------------------------------------------------------------------------------


def _open(stream: BinaryIO, where: str) -> ImageFile.ImageFile:
    """Read the header; the size limit is ours (a sentence), not Pillow's (a warning, then an error)."""
    try:
        with _LOCK:  # Pillow keeps the limit in a global
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(stream, formats=FORMATS)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever they trip over
        raise _unreadable(where, error) from error
    check_size(*image.size, where=where)
    if image.format in MOST_PIXELS:
        _check_held(image.width * image.height, MOST_PIXELS[image.format], stream, where)
    if (num_frames := _num_frames(image, where)) > 1:
        raise ImageFormatError(
            f"{where} is an animation.",
            found=f"{num_frames} frames",
            expected="one image",
            hint="Save its frames as files of their own.",
        )
    return image


def _check_held(claimed: int, most: int, stream: BinaryIO, where: str) -> None:
    """Refuse a header that claims more than `most` times the file's bytes, before memory is taken for it."""
    at = stream.tell()
    length = stream.seek(0, io.SEEK_END)
    stream.seek(at)
    if claimed > most * length:
        raise _unreadable(where, f"its {length:,} bytes cannot hold the pixels that its header claims")


def _num_frames(image: ImageFile.ImageFile, where: str) -> int:
    """How many pictures a file shows one after the other."""
    if image.format not in ("GIF", "WEBP", "PNG"):
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception as error:  # a GIF is read through to count them
        raise _unreadable(where, error) from error


def _load(image: Image.Image, where: str) -> None:
    try:
        if not ImageFile.LOAD_TRUNCATED_IMAGES:
            image.load()
            return
        with _LOCK:  # another library asked Pillow to invent missing rows; not for us
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            try:
                image.load()
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = True
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(where, error) from error


def _deep_png(image: ImageFile.ImageFile, data: bytes, color_type: int, where: str) -> Pixels:
    """Read 16-bit RGB, RGBA or grey + alpha PNG, which Pillow cuts to 8 bits.

    Its decoder undoes the PNG filters for any raw mode of the right width, so two passes that keep "the high byte" and
    "the low byte" of each value give both; grey + alpha has the width of RGBA and comes whole in one pass.
    """

    def decoded(source: ImageFile.ImageFile, rawmode: str) -> NDArray[Any]:
        if not source.tile:
            raise _unreadable(where, "it has no pixels")
        source.tile = [source.tile[0]._replace(args=rawmode)]
        _load(source, where)
        return np.asarray(source).astype(np.uint16)

    if color_type == 4:
        parts = decoded(image, "RGBA")  # its mode is RGBA already
        return Pixels(parts[..., 0::2] << 8 | parts[..., 1::2], has_alpha=True)
    high = decoded(image, f"{image.mode};16B")
    low = decoded(_open(io.BytesIO(data), where), f"{image.mode};16L")
    return Pixels(high << 8 | low, has_alpha=color_type == 6)


_PNG = b"\x89PNG\r\n\x1a\n"


def is_whole_png(data: bytes) -> bool:
    """True for a plain PNG (no palette, not interlaced) that is certain to decode; False says nothing.

    Its chunks have their checksums and its rows unpack to what its header says. Half the time of decoding it: rows are
    not put together. CamVid, one core, 2026-11: 2.2 ms instead of 4.4.
    """
    if not data.startswith(_PNG) or len(data) < 33 or data[25] == 3 or data[28]:
        return False
    width, height, depth, color_type = struct.unpack_from(">IIBB", data, 16)
    channels = {0: 1, 2: 3, 4: 2, 6: 4}.get(color_type)
    if channels is None or depth not in (8, 16) or not 0 < width * height <= MAX_PIXELS:
        return False
    row = 1 + width * channels * depth // 8
    unpack, rows, kinds = zlib.decompressobj(), bytearray(), []
    for kind, start, length in _png_chunks(io.BytesIO(data)):
        end = start + length
        if end + 4 > len(data) or zlib.crc32(memoryview(data)[start - 4 : end]) != _number(data, end):
            return False
        kinds.append(kind)
        if kind == "IDAT":
            try:
                rows += unpack.decompress(memoryview(data)[start:end], height * row + 1 - len(rows))
            except zlib.error:
                return False
            if len(rows) > height * row:
                return False
    filters = np.frombuffer(rows, dtype=np.uint8)[::row]
    return len(rows) == height * row and unpack.eof and kinds[-1] == "IEND" and int(filters.max()) <= 4


def _check_png(data: bytes, where: str) -> tuple[int, int]:
    """Compare every chunk with its checksum, which Pillow skips for pixels; returns (bit depth, colour type)."""
    for kind, start, length in _png_chunks(io.BytesIO(data)):
        end = start + length
        if end + 4 > len(data):
            raise _unreadable(where, f"the file ends within its {kind} chunk: it is truncated")
        if zlib.crc32(memoryview(data)[start - 4 : end]) != _number(data, end):
            raise _unreadable(where, f"the checksum of its {kind} chunk does not match")
    if len(data) < 33:
        raise _unreadable(where, "the file ends within its header: it is truncated")
    return data[24], data[25]


def _number(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 4], "big")


def _png_chunks(stream: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """(kind, where its content starts, content's length) of each chunk."""
    position = len(_PNG)
    while True:
        stream.seek(position)
        head = stream.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield kind.decode("latin-1"), position + 8, length
        if kind == b"IEND":
            return
        position += 12 + length


def _check_ppm(data: bytes, where: str) -> None:
    """Refuse PPM and PGM whose highest value is not a full 8 or grey 16 bits; Pillow would stretch the values."""
    if data[:2] not in (b"P2", b"P3", b"P5", b"P6"):
        return
    header = b" ".join(line.split(b"#")[0] for line in data[:512].split(b"\n")).split()
    top = int(header[3]) if len(header) > 3 and header[3].isdigit() else 0
    if top != 255 and not (top == 65535 and data[:2] in (b"P2", b"P5")):
        raise ImageFormatError(
            f"{where} is a PPM file with values 0-{top}.",
            expected="0-255, or 0-65535 in a grey file",
            hint="Reading it would stretch its values. Convert it to PNG or TIFF.",
        )


def _orientation(image: Image.Image, stream: BinaryIO) -> int:
    """The EXIF orientation, 1 (upright) to 8; EXIF alone counts, as in browsers, and damaged EXIF counts as none."""
    exif = image.info.get("exif")
    if exif is None and image.format == "PNG":  # it may follow the pixels
        position = stream.tell()
        for kind, start, length in _png_chunks(stream):
            if kind == "eXIf":
                stream.seek(start)
                exif = stream.read(length)
        stream.seek(position)
    return exif_orientation(exif)


def exif_orientation(exif: bytes | None) -> int:
    """Return the orientation that an EXIF block says, 1 (upright) to 8; 1 where it is absent or damaged."""
    if not exif:
        return 1
    found = Image.Exif()
    try:
        found.load(exif)
        value = found.get(0x0112, 1)
    except Exception:  # whatever the parser trips over: a picture with damaged EXIF is shown as it is stored
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


# -- TIFF ----------------------------------------------------------------------------------------------------------


def _is_tiff(data: bytes) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _head(stream: BinaryIO) -> bytes:
    head = stream.read(4)
    stream.seek(0)
    return head


def _decode_tiff(stream: BinaryIO, length: int, where: str) -> Pixels:
    """Any TIFF: tifffile reads all widths and band counts, Pillow the compressions of 8-bit files tifffile lacks."""
    try:
        return _tiff_pixels(stream, length, where)
    except (MemoryError, TerrazzoError):
        raise
    except Exception as error:  # of fields that are not what their names say
        raise _unreadable(where, error) from error


def _tiff_pixels(stream: BinaryIO, length: int, where: str) -> Pixels:
    with _tiff(stream, where) as tif:
        page, series = tif.pages.first, tif.series[0]
        orientation = _tiff_orientation(tif)
        if int(page.compression) in MOST_PACKED and page.dtype is not None:
            _check_held(series.size * page.dtype.itemsize, MOST_PACKED[int(page.compression)], stream, where)
        if _suits_pillow(page, series):
            stream.seek(0)
            return from_pil(_open(stream, where), where=where)  # Pillow turns TIFF by itself
        _check_tiff_segments(series, length, where)
        try:
            array, axes = series.asarray(maxworkers=1), series.axes
        except MemoryError:
            raise
        except Exception as error:
            raise _unreadable(where, error, hint=_TIFF_HINT) from error
    array = np.moveaxis(array, (axes.index("Y"), axes.index("X")), (0, 1))
    if not array.size:
        raise _unreadable(where, "it has no pixels")
    array = array.reshape(*array.shape[:2], -1)
    alphas = sum(int(extra) in (1, 2) for extra in page.extrasamples)
    if alphas > 1:
        raise ImageFormatError(f"{where} declares {alphas} transparency bands.", expected="at most one")
    array = array[..., 0] if array.shape[2] == 1 else array
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    bits = page.bitspersample if page.bitspersample in (1, 2, 4) and page.photometric in (0, 1) else 0
    palette = None
    if page.photometric == 3 and page.colormap is not None:
        palette = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
    white_is_zero = page.photometric == 0 and array.dtype.kind == "u"
    pixels = Pixels(array, palette=palette, has_alpha=alphas == 1, bits=bits, white_is_zero=white_is_zero)
    return _orient(pixels, orientation)


_TIFF_HINT = (
    "Its compression may need a codec that is not installed: pip install imagecodecs. Or save it as Deflate."
)


def _tiff(stream: BinaryIO, where: str) -> Any:
    """Open a TIFF with tifffile, checked: one picture, of a size that fits; reduced copies inside it are skipped."""
    import tifffile

    try:
        tif = tifffile.TiffFile(stream)
        series = tif.series[0]
        axes, shape = series.axes, series.shape
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(where, error) from error
    if (
        "Y" not in axes
        or "X" not in axes
        or len([a for a in axes if a not in "YX"]) > 1
        or len(tif.series) > 1
    ):
        raise ImageFormatError(
            f"{where} is a TIFF of several pictures.",
            found=f"{len(tif.series)} series, the first of shape {shape} ({axes})",
            expected="one picture; its bands as samples, or as pages of one series",
            hint="Save each picture as a file of its own.",
        )
    check_size(shape[axes.index("X")], shape[axes.index("Y")], where=where)
    return tif


def _suits_pillow(page: Any, series: Any) -> bool:
    """True where Pillow keeps every value: 8 bits, or one band of 16 bits or floats."""
    bits, samples = page.bitspersample, page.samplesperpixel
    if len(series.pages) > 1 or any(int(extra) == 0 for extra in page.extrasamples):
        return False
    if samples == 1 and page.photometric == 1:
        return (
            page.dtype is not None and page.dtype.str[1:] in ("u1", "u2", "i4", "f4") and bits in (8, 16, 32)
        )
    if page.photometric == 3:
        return bits == 8 and samples == 1
    return bits == 8 and page.photometric in (2, 5, 6) and samples in (3, 4)


def _check_tiff_segments(series: Any, length: int, where: str) -> None:
    """tifffile leaves missing strips and tiles blank; a truncated file must be an error."""
    for page in series.pages:
        page = page.aspage()
        ends = (at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=False))
        if max(ends, default=0) > length or not page.dataoffsets or 0 in page.databytecounts:
            raise _unreadable(where, "the file ends before its pixels do: it is truncated")


def _tiff_orientation(tif: Any) -> int:
    tag = tif.pages.first.tags.get(274)
    return tag.value if tag is not None and tag.value in range(1, 9) else 1


# -- both ----------------------------------------------------------------------------------------------------------


def turn(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return (H, W, …) upright: EXIF says where the stored first row and first column belong, 1 (as it is) to 8."""
    turned = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, 1),
    }[orientation](array)
    return np.ascontiguousarray(turned)


def _orient(pixels: Pixels, orientation: int) -> Pixels:
    return pixels if orientation == 1 else replace(pixels, array=turn(pixels.array, orientation))


def check_size(width: int, height: int, *, where: str) -> None:
    """Raise ImageFormatError where a header claims more pixels than TERRAZZO_MAX_PIXELS."""
    limit = int(os.environ.get("TERRAZZO_MAX_PIXELS", MAX_PIXELS))
    if width < 1 or height < 1:
        raise _unreadable(where, f"it claims {height} x {width} pixels (height x width)")
    if width * height <= limit:
        return
    raise ImageFormatError(
        f"{where} claims {height:,} x {width:,} pixels (height x width).",
        expected=f"at most {limit:,} pixels",
        hint="A damaged or hostile header can claim any size. If it is real, cut it into tiles, or raise the limit:",
        command=f"export TERRAZZO_MAX_PIXELS={width * height}",
    )


def _unreadable(where: str, error: BaseException | str, *, hint: str | None = None) -> UnreadableFileError:
    found = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    if "cannot identify image file" in found:
        found = "not an image of a format that terrazzo reads"
    return UnreadableFileError(
        f"{where} cannot be read: it is damaged, or not an image we know.",
        found=found,
        expected="a whole PNG, JPEG, TIFF, WebP, BMP, GIF or PPM file",
        hint=hint
        or "Restore it from where it came, or remove it together with its mask. To see every such file:",
        command=None if hint else "terrazzo check DATA",
    )
