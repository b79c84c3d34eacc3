"""Bitmaps of region ids, as Segments.ai and others store what was drawn: every region has a number, colours hold it.

region id = R + 256 G + 65,536 B, so 24 bits; alpha says nothing; 0 is no region. What a region is, its category, stands
in a list beside the bitmap, and `category_map` puts the two together. Two numbers are never taken for one: pixels of no
region get a value that is no category's, and a region that nobody named is an error unless the caller has a value for
it. Category ids stay as they are, at any width; nothing is shifted.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo import decoding
from terrazzo.errors import DatasetFormatError, MaskValueError, MissingPathError, UnreadableFileError

MAX_REGION = (1 << 24) - 1  # what three colours of 8 bits hold
MAX_CATEGORY = (1 << 31) - 1  # JSON has no limit; a table of Hugging Face `datasets` has 32 bits for it
SHOWN = 8  # how many ids an error lists


def read_region_ids(path: Path | str) -> NDArray[np.uint32]:
    """Return the region ids (H, W) uint32 of a bitmap file; raises as `decode_region_ids`, or MissingPathError."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise MissingPathError(f"There is no file {path}.", expected="a bitmap of region ids") from None
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be read.", found=error.strerror or str(error)) from error
    return decode_region_ids(data, where=str(path))


def decode_region_ids(data: bytes, *, where: str) -> NDArray[np.uint32]:
    """Return the region ids (H, W) uint32 in the bytes of a bitmap file.

    8-bit colours, with a palette or without, are ids as above. One channel of whole numbers, such as 16-bit grey PNG,
    holds ids as they are. A lossy file, 16-bit colours, and numbers beyond 24 bits are a MaskValueError.
    """
    pixels = decoding.decode(data, where=where)
    array = pixels.array
    if pixels.is_lossy:
        raise MaskValueError(
            f"The bitmap {where} is a JPEG, which does not keep region ids.",
            found="a lossy file",
            expected="PNG",
            hint="Every border in it holds ids that nobody drew. Download the bitmap as it was published.",
        )
    if pixels.palette is not None:
        palette = np.zeros((max(256, len(pixels.palette)), 3), dtype=np.uint8)
        palette[: len(pixels.palette)] = pixels.palette
        return unpack(palette[array])
    if pixels.has_alpha and array.shape[2] == 2:  # grey and alpha
        array = array[..., 0]
    if array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8:
        return unpack(array)
    if array.ndim != 2 or array.dtype.kind not in "uib":
        raise MaskValueError(
            f"The bitmap {where} holds no region ids.",
            found=f"shape {array.shape}, {array.dtype}",
            expected="8-bit RGBA or RGB, id = R + 256 G + 65,536 B, or one channel of whole numbers",
        )
    _check(array, where)
    return array.astype(np.uint32)


def unpack(colors: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the region ids (H, W) uint32 of colours (H, W, 3 or 4) uint8; a fourth channel is not looked at."""
    ids = colors[..., 0].astype(np.uint32)
    ids |= colors[..., 1].astype(np.uint32) << 8
    ids |= colors[..., 2].astype(np.uint32) << 16
    return ids


def category_map(
    region_ids: NDArray[Any],
    annotations: Iterable[Mapping[str, Any]] | None,
    *,
    unlabelled: int = 0,
    unnamed: int | None = None,
    where: str = "the bitmap",
) -> NDArray[np.unsignedinteger[Any]]:
    """Return category ids (H, W) for region ids (H, W): uint8, uint16 or uint32, the first that holds all of them.

    annotations: {"id", "category_id"} of every region, as a release lists them; [] and None name no region.
    unlabelled: the value of pixels of no region; a category of that id is a DatasetFormatError, for the two could not
    be told apart. unnamed: the value of pixels whose region is not in the list; None: a MaskValueError lists them.
    """
    _check(region_ids, where)
    categories = categories_of(annotations, where=where)
    if unlabelled in categories.values():
        raise DatasetFormatError(
            f"Pixels of no region of {where} cannot become {unlabelled}, which is a category.",
            hint="Give category_map another value for them, such as unlabelled=255.",
        )
    missing = unnamed_regions(region_ids, categories) if unnamed is None else {}
    if missing:
        listed = [f"{region} ({count:,} pixels)" for region, count in missing.items()]
        raise MaskValueError(
            f"{where} has regions that its annotations do not name.",
            found=", ".join(listed[:SHOWN]) + (f", … ({len(listed)} in all)" if len(listed) > SHOWN else ""),
            expected=f"0 for none, or one of the {len(categories)} ids in the annotations",
        )
    top = int(region_ids.max(initial=0))
    other = unlabelled if unnamed is None else unnamed
    values = (unlabelled, other, *categories.values())
    table = np.full(top + 1, other, dtype=np.min_scalar_type(max(values)))
    table[0] = unlabelled
    for region, category in categories.items():
        if region <= top:
            table[region] = category
    mapped: NDArray[np.unsignedinteger[Any]] = table[region_ids]
    return mapped


def unnamed_regions(region_ids: NDArray[Any], named: Iterable[int]) -> dict[int, int]:
    """Return {region id: pixels} of the regions in a bitmap that are not among `named`; 0 is no region."""
    top = int(region_ids.max(initial=0))
    is_known = np.zeros(top + 1, dtype=np.bool_)
    is_known[[0, *(region for region in named if region <= top)]] = True
    strange = region_ids[~is_known[region_ids]]
    if not strange.size:
        return {}
    ids, counts = np.unique(strange, return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def categories_of(annotations: Iterable[Any] | None, *, where: str) -> dict[int, int]:
    """Return {region id: category id} of a list of annotations; DatasetFormatError with everything wrong in it.

    A region without a category (null) is as good as not named, and left out.
    """
    found: dict[int, int] = {}
    problems: list[str] = []
    for one in annotations or ():
        if not isinstance(one, Mapping):
            problems.append(f"{one!r:.40}, which is no annotation")
            continue
        region, category = one.get("id"), one.get("category_id")
        if region == 0 and type(region) is int:
            problems.append("an annotation with id 0, which is no region: pixels of 0 are those nobody drew")
        elif type(region) is not int or not 0 < region <= MAX_REGION:
            problems.append(f"an annotation with id {region!r:.40}, not 1-{MAX_REGION:,}")
        elif category is not None and (type(category) is not int or not 0 <= category <= MAX_CATEGORY):
            problems.append(f"region {region} with category {category!r:.40}")
        elif category is not None and found.setdefault(region, category) != category:
            problems.append(f"region {region} with two categories, {found[region]} and {category}")
    if problems:
        more = [f"… {len(problems)} problems in all"] if len(problems) > SHOWN else []
        raise DatasetFormatError(
            f"The annotations of {where} cannot be used.",
            found="\n" + "\n".join(problems[:SHOWN] + more),
            expected='[{"id": 1, "category_id": 3}, …]',
        )
    return found


def _check(region_ids: NDArray[Any], where: str) -> None:
    """Numbers of 24 bits: a table as long as the largest of them is made."""
    if region_ids.dtype.kind not in "uib" or (
        region_ids.size and (region_ids.min() < 0 or region_ids.max() > MAX_REGION)
    ):
        raise MaskValueError(
            f"{where} holds numbers that are no region ids.",
            found=f"{region_ids.min()} to {region_ids.max()} ({region_ids.dtype})"
            if region_ids.size
            else None,
            expected=f"whole numbers, 0-{MAX_REGION:,}",
        )
