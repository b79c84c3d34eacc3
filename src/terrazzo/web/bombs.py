"""Image files that are small to send and large to unpack: told by their headers, before memory is taken for them."""

import io

from terrazzo.errors import ImageFormatError
from terrazzo.images import size_of
from terrazzo.web.problems import RefusalError

JPEG_SCANS = 100  # a progressive JPEG has about ten; each costs a pass over all pixels, however few its bytes
TIFF_BYTES_PER_PIXEL = (
    8  # of all bands together, at the limit of pixels: a strip of zeros unpacks a thousandfold
)


def refuse_bombs(data: bytes, max_pixels: int, *, where: str) -> None:
    """Raise RefusalError unless the bytes of an image file are no danger to decode, or a DataError naming `where`."""
    try:
        height, width = size_of(data, where=where)
    except ImageFormatError as error:
        if "pixels" not in error.what:
            raise
        height = width = 0
        claimed = error.what.partition(" claims ")[2] or "more than any image has"
    else:
        claimed = f"{height:,} x {width:,} pixels (height x width)"
    if not 0 < height * width <= max_pixels:
        raise RefusalError(
            413,
            "The image has too many pixels.",
            kind="too-many-pixels",
            found=claimed.rstrip("."),
            expected=f"at most {max_pixels:,}",
            hint="Send it smaller, or in tiles.",
        )
    if (
        data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > JPEG_SCANS
    ):  # in pixels' data FF is followed by 00
        raise RefusalError(
            422,
            "The JPEG has more scans than any camera or program writes.",
            kind="unreadable-file",
            found=f"{data.count(bytes((0xFF, 0xDA))):,}",
            expected=f"at most {JPEG_SCANS}",
        )
    if data[:2] in (b"II", b"MM"):
        _refuse_wide(data, max_pixels)


def _refuse_wide(data: bytes, max_pixels: int) -> None:
    """The header was read before, by `size_of`: one picture of a size that fits; now its bands."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        unpacked = tif.series[0].nbytes
    if unpacked > TIFF_BYTES_PER_PIXEL * max_pixels:
        raise RefusalError(
            413,
            "The TIFF unpacks to too much.",
            kind="too-many-pixels",
            found=f"{unpacked:,} bytes",
            expected=f"at most {TIFF_BYTES_PER_PIXEL * max_pixels:,}",
        )
