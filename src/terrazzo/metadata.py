"""What an image file says beside its pixels, taken out without touching them: places, devices, people, paths.

Not a pixel is decoded and nothing is compressed again: segments of JPEG, chunks of PNG and WebP and entries of TIFF are
left out, and what is needed to show the picture stays (colour profiles, palettes, transparency, density). The
orientation stays too: alone, in an EXIF block of one entry, read as it is when a picture is opened. BMP, GIF and PPM
have no such block. A file that ends within its parts is an error; it is never passed on as it is.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from terrazzo.errors import DataError, UnreadableFileError

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset(  # what the pixels need; IDAT and the like, colours, transparency, density
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP sBIT bKGD pHYs hIST sPLT cICP mDCV cLLI mDCv cLLi".split()
)
_JPEG_KEPT = {  # APPn segments by their beginning: JFIF, colour profile, Adobe's colour transform
    0xE0: (b"JFIF\0",),
    0xE2: (b"ICC_PROFILE\0",),
    0xEE: (b"Adobe",),
}
_WEBP_DROPPED = (b"EXIF", b"XMP ")
_TIFF_DROPPED = frozenset(
    {
        269,  # DocumentName
        270,  # ImageDescription
        271,  # Make
        272,  # Model
        285,  # PageName
        305,  # Software
        306,  # DateTime
        315,  # Artist
        316,  # HostComputer
        700,  # XMP
        33432,  # Copyright
        33723,  # IPTC
        34377,  # Photoshop
        34665,  # EXIF, a directory of its own
        34853,  # GPS, a directory of its own
        33550,  # GeoTIFF: ModelPixelScale
        33922,  # GeoTIFF: ModelTiepoint
        34264,  # GeoTIFF: ModelTransformation
        34735,  # GeoTIFF: GeoKeyDirectory
        34736,  # GeoTIFF: GeoDoubleParams
        34737,  # GeoTIFF: GeoAsciiParams
        42112,  # GDAL_METADATA
    }
)
_TIFF_DIRECTORIES = frozenset({34665, 34853, 40965})
_SHAPE = re.compile(rb'\{"shape": \[[\d, ]+\]\}\0*')  # a description that holds nothing else
_TIFF_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}


def without_metadata(data: bytes, *, where: str) -> bytes:
    """Return the same picture without what it says beside its pixels; `data` itself where there is nothing to take.

    data: the bytes of an image file. Raises UnreadableFileError, naming `where`, for a file that ends within its parts.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data.startswith(_PNG):
            return _png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff(data)
    except (struct.error, IndexError, ValueError) as error:
        raise UnreadableFileError(
            f"What {where} says beside its pixels cannot be taken out.",
            found=str(error) or type(error).__name__,
            expected="a whole file",
            hint="To see every damaged file:",
            command="terrazzo check DATA",
        ) from error
    return data


def _minimal_exif(orientation: int) -> bytes:
    """EXIF of one entry, the orientation: what follows "Exif\\0\\0" in a JPEG, and is the chunk in PNG and WebP."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


# -- JPEG ----------------------------------------------------------------------------------------------------------

_MARKER = re.compile(
    rb"\xff[^\x00\xd0-\xd7\xff]"
)  # in compressed data, ff00 is a value and ffd0-ffd7 are restarts


def _jpeg(data: bytes) -> bytes:
    """Leave out EXIF, XMP, IPTC, comments, maker's blocks, and all that follows the picture."""
    from terrazzo.decoding import exif_orientation

    exif, parts, at = b"", [data[:2]], 2
    while True:
        if data[at] != 0xFF:
            raise ValueError(f"no marker at byte {at:,}")
        while data[at + 1] == 0xFF:  # padding
            at += 1
        marker = data[at + 1]
        if marker == 0xD9:  # the end of the picture; a second one, a film or a maker's block may follow
            parts.append(data[at : at + 2])
            break
        if 0xD0 <= marker <= 0xD8 or marker == 0x01:  # without a length
            parts.append(data[at : at + 2])
            at += 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if end > len(data) or length < 2:
            raise ValueError(f"it ends within the segment at byte {at:,}")
        segment = data[at:end]
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0":
            exif = exif or segment[4:]
        is_beside = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not is_beside or segment[4:].startswith(_JPEG_KEPT.get(marker, ())):
            parts.append(segment)
        at = end
        if marker == 0xDA:  # compressed data up to the next marker
            match = _MARKER.search(data, at)
            if match is None:
                raise ValueError("it ends within its pixels")
            parts.append(data[at : match.start()])
            at = match.start()
    orientation = exif_orientation(exif)
    if orientation != 1:
        block = b"Exif\0\0" + _minimal_exif(orientation)
        parts.insert(_after_jfif(parts), b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block)
    return _same_or(data, b"".join(parts))


def _after_jfif(parts: list[bytes]) -> int:
    """Where EXIF belongs: at once after the start, or after JFIF."""
    return 2 if len(parts) > 1 and parts[1][:2] == b"\xff\xe0" else 1


# -- PNG, WebP -----------------------------------------------------------------------------------------------------


def _png(data: bytes) -> bytes:
    """Leave out EXIF, texts (XMP and paths among them), times, private chunks, and all that follows the picture."""
    from terrazzo.decoding import exif_orientation

    exif, parts, at, is_whole = b"", [_PNG], len(_PNG), False
    while not is_whole:
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ValueError(f"it ends within its {kind.decode('latin-1')} chunk")
        if kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        is_critical = not kind[0] & 0x20
        if is_critical or kind in _PNG_KEPT:
            parts.append(data[at:end])
        at, is_whole = end, kind == b"IEND"
    orientation = exif_orientation(exif)
    if orientation != 1:
        block = b"eXIf" + _minimal_exif(orientation)
        parts.insert(2, struct.pack(">I", len(block) - 4) + block + struct.pack(">I", zlib.crc32(block)))
    return _same_or(data, b"".join(parts))


def _webp(data: bytes) -> bytes:
    """Leave out EXIF and XMP, and their flags in the header."""
    from terrazzo.decoding import exif_orientation

    (size,) = struct.unpack_from("<I", data, 4)
    if 8 + size > len(data):
        raise ValueError("it ends within its chunks")
    chunks = list(_riff(data[: 8 + size]))
    orientation = exif_orientation(next((body for kind, body in chunks if kind == b"EXIF"), b""))
    kept = [(kind, body) for kind, body in chunks if kind not in _WEBP_DROPPED]
    if orientation != 1:
        kept.append((b"EXIF", _minimal_exif(orientation)))
    flags = 0x08 if orientation != 1 else 0  # of VP8X: 0x08 EXIF, 0x04 XMP
    kept = [(k, bytes([b[0] & ~0x0C | flags]) + b[1:] if k == b"VP8X" else b) for k, b in kept]
    body = b"WEBP" + b"".join(k + struct.pack("<I", len(b)) + b + b"\0" * (len(b) % 2) for k, b in kept)
    return _same_or(data, b"RIFF" + struct.pack("<I", len(body)) + body)


def _riff(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > len(data):
            raise ValueError(f"it ends within its {kind.decode('latin-1')} chunk")
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


# -- TIFF ----------------------------------------------------------------------------------------------------------


def _tiff(data: bytes) -> bytes:
    """Take entries out of every directory and blank what they pointed to; no pixel moves, the length stays.

    A description may say how pages make a picture; where the picture would be another without it, that is an error.
    """
    import numpy as np

    from terrazzo.decoding import decode

    out, order = bytearray(data), "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    (at,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        at = _tiff_directory(data, out, at, order, is_big)
    new = _same_or(data, bytes(out))
    if new is data:
        return data
    try:
        is_same = np.array_equal(decode(data, where="it").array, decode(new, where="it").array)
    except DataError as error:
        raise ValueError(error.found or error.what) from error
    if not is_same:
        raise ValueError("its description says how its pages make a picture")
    return new


def _tiff_directory(data: bytes, out: bytearray, at: int, order: str, is_big: bool) -> int:
    """Clean one directory in `out`; returns where the next one is, 0 after the last."""
    entries, end, following = _tiff_entries(data, at, order, is_big)

    def is_dropped(tag: int, value_at: int, size: int) -> bool:
        is_shape = tag == 270 and _SHAPE.fullmatch(data[value_at : value_at + size])
        return tag in _TIFF_DROPPED and not is_shape

    kept = [entry for entry in entries if not is_dropped(entry[0], *entry[2:])]
    if len(kept) != len(entries):
        for tag, raw, value_at, size in entries:
            if is_dropped(tag, value_at, size):
                _blank(data, out, tag, raw, value_at, size, order, is_big)
        word, pointer = ("Q", "Q") if is_big else ("H", "I")
        new = struct.pack(order + word, len(kept)) + b"".join(raw for _, raw, _, _ in kept)
        new += struct.pack(order + pointer, following)
        out[at:end] = new + b"\0" * (end - at - len(new))
    return following


def _tiff_entries(
    data: bytes, at: int, order: str, is_big: bool
) -> tuple[list[tuple[int, bytes, int, int]], int, int]:
    """[(tag, entry as it is, where its value is, its bytes)], where the directory ends, where the next one is."""
    step, inline, word, pointer = (20, 8, "Q", "Q") if is_big else (12, 4, "H", "I")
    (count,) = struct.unpack_from(order + word, data, at)
    first = at + struct.calcsize(order + word)
    end = first + step * count + struct.calcsize(order + pointer)
    if end > len(data):
        raise ValueError(f"it ends within the directory at byte {at:,}")
    (following,) = struct.unpack_from(order + pointer, data, end - struct.calcsize(order + pointer))
    entries = []
    for entry in range(first, first + step * count, step):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        (length,) = struct.unpack_from(order + pointer, data, entry + 4)
        size = length * _TIFF_SIZES.get(kind, 1)
        value_at = entry + step - inline
        if size > inline:
            (value_at,) = struct.unpack_from(order + pointer, data, value_at)
            if value_at + size > len(data):
                raise ValueError(f"tag {tag} points outside the file")
        entries.append((tag, data[entry : entry + step], value_at, size))
    return entries, end, following


def _blank(
    data: bytes,
    out: bytearray,
    tag: int,
    raw: bytes,
    value_at: int,
    size: int,
    order: str,
    is_big: bool,
    depth: int = 0,
) -> None:
    """Overwrite a value with zeros, and where it is a directory, that and all its values."""
    if tag in _TIFF_DIRECTORIES and depth < 4:
        (below,) = struct.unpack(order + ("Q" if is_big else "I"), raw[-8:] if is_big else raw[-4:])
        entries, end, _ = _tiff_entries(data, below, order, is_big)
        for inner, inner_raw, inner_at, inner_size in entries:
            _blank(data, out, inner, inner_raw, inner_at, inner_size, order, is_big, depth + 1)
        out[below:end] = bytes(end - below)
    elif value_at >= 8:
        out[value_at : value_at + size] = bytes(size)


def _same_or(data: bytes, new: bytes) -> bytes:
    return data if new == data else new
