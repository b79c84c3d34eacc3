"""What is read off one image, one mask, and both together: each opened once, nothing judged.

A file that cannot be read is a fact too.
"""

import functools
import hashlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.data import alignment, likeness
from terrazzo.data.chart import Border, Case, Color, ImageFacts, Item, MaskFacts
from terrazzo.errors import MaskValueError, TerrazzoError
from terrazzo.images import decode_image, decode_mask
from terrazzo.kernels.specks import specks

MOST_COLORS = 4096  # distinct colours kept of one mask; more is a photograph, not a mask
SPECK = 4  # pixels of the largest area that is called a speck


def look(case: Case, *, channels: int | None) -> tuple[NDArray[np.float32], int] | None:
    """Open image and mask of a case, write down what is there, and return how they correlate by shift, if they do."""
    image = mask = None
    if case.image is not None:
        case.seen, image = _look_at_image(case.image, channels)
    if case.mask is not None:
        case.labelled, mask = _look_at_mask(case.mask)
    if image is None or mask is None:
        return None
    grey = grey_of(image)
    if grey.size != (mask.shape[1], mask.shape[0]):
        if grey.size == mask.shape and case.seen.orientation == 1:
            case.turn, _ = alignment.best_turn(grey, mask, (5, 6, 7, 8))
        return None
    found = alignment.correlate(grey, mask)
    if found is None:
        return None
    case.fit = alignment.fit(*found)
    if case.fit.is_shifted and found[1] > 1:
        case.fit = alignment.refined(grey, mask, case.fit)
    if not case.fit.is_in_place and not case.fit.is_shifted:
        turn, height = alignment.best_turn(grey, mask, range(2, 9))
        lies_badly = case.fit.centre * case.fit.height < height / 3
        case.turn = turn if lies_badly else 1
    return found


def orientation(data: Any) -> int:
    """Return the EXIF or TIFF orientation, 1-8, in the bytes of an image file; 1 where there is none."""
    if not isinstance(data, bytes):
        return 1
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            value = image.getexif().get(0x0112, 1)
    except Exception:  # whatever Pillow's parsers trip over; the reading proper says what is wrong
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def grey_of(image: NDArray[Any]) -> Any:
    """Return an image (H, W, C) of any dtype as a Pillow image of mode L."""
    from PIL import Image

    if image.dtype == np.uint8 and image.shape[2] == 3:
        return Image.fromarray(image).convert("L")
    plane = image[..., : min(3, image.shape[2])].mean(axis=2, dtype=np.float32)
    low, high = float(plane.min()), float(plane.max())
    return Image.fromarray(((plane - low) * (255 / max(high - low, 1e-6))).astype(np.uint8))


def between(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (H, W) bool, true where an id lies between those to both sides, or above and below: 3 in 1 3 8.

    Along a border that was blended (smoothed, scaled, or saved as JPEG) every id is such; else where three areas meet.
    """
    found = np.zeros(mask.shape, np.bool_)
    for axis in (0, 1):
        turned, into = (mask, found) if axis else (mask.T, found.T)
        before, here, after = turned[:, :-2], turned[:, 1:-1], turned[:, 2:]
        into[:, 1:-1] |= ((before < here) & (here < after)) | ((before > here) & (here > after))
    return found


# -- one file ----------------------------------------------------------------------------------------------------------


def _look_at_image(item: Item, channels: int | None) -> tuple[ImageFacts, NDArray[Any] | None]:
    try:
        data = item.read()
        image = decode_image(data, where=item.where, channels=channels)
    except TerrazzoError as error:
        return ImageFacts(problem=error), None
    height, width, count = image.shape
    mean, square = _moments(image)
    facts = ImageFacts(
        size_hw=(height, width),
        channels=count,
        dtype=image.dtype.name,
        orientation=orientation(data),
        content=_digest(image),
        drawing=likeness.drawing(grey_of(image)),
        mean=mean,
        square=square,
    )
    return facts, image


def _look_at_mask(item: Item) -> tuple[MaskFacts, NDArray[Any] | None]:
    try:
        data = item.read()
        turned, palette = orientation(data), _shared(_palette(data))
        try:
            mask = decode_mask(data, where=item.where)
        except MaskValueError:
            colors = decode_image(data, where=item.where)
            if colors.dtype != np.uint8 or colors.shape[2] != 3 or _is_jpeg(data):
                raise
            shares = _count_colors(colors)
            if shares is None:
                raise
            is_grey = all(red == green == blue for red, green, blue in shares)
            ids = {red: count for (red, _, _), count in shares.items()} if is_grey else {}
            size_hw = (colors.shape[0], colors.shape[1])
            facts = MaskFacts(size_hw, "uint8", turned, ids, shares, content=_digest(colors), palette=palette)
            return facts, _packed(colors)
    except TerrazzoError as error:
        return MaskFacts(problem=error, is_jpeg=isinstance(error, MaskValueError) and _is_jpeg(data)), None
    counts = np.bincount(mask.ravel())
    blended = mask[between(mask)]
    small, of_small = np.unique(mask[specks(mask, SPECK)], return_counts=True)
    facts = MaskFacts(
        size_hw=(mask.shape[0], mask.shape[1]),
        dtype=mask.dtype.name,
        orientation=turned,
        ids={int(i): int(counts[i]) for i in np.flatnonzero(counts)},
        content=_digest(mask),
        palette=palette,
        borders=int((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()),
        between=int(blended.size),
        between_ids=len(np.unique(blended)),
        specks=dict(zip(small.tolist(), of_small.tolist(), strict=True)),
        frame=_frame(mask),
    )
    return facts, mask


def _digest(array: NDArray[Any]) -> str:
    digest = hashlib.blake2b(f"{array.shape} {array.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _moments(image: NDArray[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the mean square of every channel, in the unit range for whole numbers."""
    count = image.shape[2]
    if image.dtype == np.uint8 and count in (1, 3):
        from PIL import Image

        pixels = image.shape[0] * image.shape[1]
        shades = Image.fromarray(image if count == 3 else image[..., 0]).histogram()
        levels = np.arange(256) / 255
        shares = np.asarray(shades, np.float64).reshape(count, 256) / pixels
        return tuple((shares @ levels).tolist()), tuple((shares @ levels**2).tolist())
    top = float(np.iinfo(image.dtype).max) if image.dtype.kind == "u" else 1.0
    unit = image.reshape(-1, count).astype(np.float64) / top
    return tuple(unit.mean(axis=0).tolist()), tuple((unit**2).mean(axis=0).tolist())


def _is_jpeg(data: Any) -> bool:
    return isinstance(data, bytes) and data.startswith(b"\xff\xd8")


def _palette(data: Any) -> bytes:
    """The palette of a PNG, three bytes a colour; empty where there is none."""
    if not isinstance(data, bytes) or not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b""
    at = 8
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"PLTE":
            return data[at + 8 : at + 8 + length]
        if kind == b"IDAT":
            break
        at += length + 12
    return b""


@functools.lru_cache(maxsize=64)
def _shared(palette: bytes) -> bytes:
    """One object for equal palettes, of which a data set has few."""
    return palette


def _packed(colors: NDArray[np.uint8]) -> NDArray[np.int32]:
    red, green, blue = np.moveaxis(colors.astype(np.int32), 2, 0)
    packed: NDArray[np.int32] = red << 16 | green << 8 | blue
    return packed


def _count_colors(image: NDArray[np.uint8]) -> dict[Color, int] | None:
    values, counts = np.unique(_packed(image), return_counts=True)
    if len(values) > MOST_COLORS:
        return None
    return {
        (value >> 16, value >> 8 & 255, value & 255): count
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    }


def _frame(mask: NDArray[Any]) -> Border | None:
    """The rim of one id around a mask, where there is one on all sides and something else within."""
    corner = mask[0, 0]
    sides = []
    for turned in (mask, mask[::-1], mask.T, mask.T[::-1]):
        width = 0
        while width < len(turned) and (turned[width] == corner).all():
            width += 1
        if width in (0, len(turned)):
            return None
        sides.append(width)
    top, bottom, left, right = sides
    return Border(int(corner), top, bottom, left, right)
