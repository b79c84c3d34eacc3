"""A pair looked at before it is believed: both files whole, of one size, and every id of the mask in the table.

Whatever is wrong is a DataError that names the file. Many of them become one, which lists them: a download that broke
off has more than one damaged file, and each costs a morning when they are told one at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from terrazzo.classes import Mask, Remap
from terrazzo.data.description import Description
from terrazzo.data.importers.downloads import Member, read
from terrazzo.data.importers.planning import SHOWN, Pair, Piece
from terrazzo.errors import DataError, DatasetFormatError, MaskSizeError
from terrazzo.images import check_whole, decode_mask, encode_mask, size_of

SIDEWAYS = 5  # EXIF orientations from here on exchange rows and columns


@dataclass(frozen=True, eq=False)
class Contents:
    """What two files hold."""

    image: bytes
    """The image file."""
    mask: bytes | None
    """The mask file; None where a pair has none."""
    size_hw: tuple[int, int]
    """Of both, upright."""
    ids: Mask | None
    """(H, W) class ids and ignore."""
    is_turned: bool = False
    """True where `mask` is a PNG made here, and not the file."""


def open_pair(pair: Pair, remap: Remap, *, whole: bool = True, exif: bool = False) -> Contents:
    """Read both files of `pair`; raises a DataError where one is damaged, the sizes differ or an id is not in `remap`.

    whole: every pixel of the image; otherwise its header is believed. exif: a mask that fits its image as it is stored,
    and not as EXIF turns it, is turned too.
    """
    image, where = read(pair.image), place_of(pair.image, f"the image {pair.name}")
    size_hw = check_whole(image, where=where) if whole else size_of(image, where=where)
    if pair.mask is None:
        return Contents(image, None, size_hw, None)
    mask, where = read(pair.mask), place_of(pair.mask, f"the mask of {pair.name}")
    raw = decode_mask(mask, where=where)
    is_turned = raw.shape != size_hw
    if is_turned:
        raw = _turned(raw, image, size_hw, where=where, exif=exif)
        mask = encode_mask(raw)
    return Contents(image, mask, size_hw, remap(raw, where=where), is_turned)


def _turned(raw: Mask, image: bytes, size_hw: tuple[int, int], *, where: str, exif: bool) -> Mask:
    """The mask as EXIF turns its image, where that was asked for and makes it fit; MaskSizeError otherwise."""
    from terrazzo.decoding import orientation_of, turn

    orientation = orientation_of(image, where=where) if raw.shape == size_hw[::-1] else 1
    if orientation < SIDEWAYS or not exif:
        raise MaskSizeError(
            f"{where} has another size than its image.",
            found=f"mask {raw.shape[0]} x {raw.shape[1]}, image {size_hw[0]} x {size_hw[1]}",
            expected="the same height x width, after the image's rotation (EXIF) is applied",
            hint="EXIF turns the image, and the mask was drawn on it as it is stored: --exif turns such masks too."
            if orientation >= SIDEWAYS
            else None,
        )
    return turn(raw, orientation)


def table_of(description: Description) -> Remap:
    """Return its table, the identity where it has none."""
    return description.remap or Remap.identity(len(description.classes))


def place_of(source: Path | Piece, otherwise: str) -> str:
    """Return what a person calls a file: its path, or its name in a zip; `otherwise` where it is not one yet."""
    return str(source) if isinstance(source, Path | Member) else otherwise


def refusal(damaged: Mapping[str, DataError], total: int) -> DataError:
    """Return the one error that tells all of them: {"train/name": what is wrong}, of `total` pairs."""
    hint, command = "To import the others without it:", "terrazzo import … --drop-damaged"
    errors = list(damaged.values())
    if len(errors) == 1:
        error = errors[0]
        told = f"{error.hint.rstrip(':')} {hint}" if error.hint and error.command is None else hint
        return type(error)(error.what, found=error.found, expected=error.expected, hint=told, command=command)
    hints = {error.hint if error.command is None else None for error in errors}
    why = hints.pop() if len(hints) == 1 else None
    kind = type(errors[0]) if len({type(error) for error in errors}) == 1 else DatasetFormatError
    return kind(
        f"{len(errors):,} of {total:,} pairs are damaged; nothing was imported.",
        found="\n" + "\n".join(listed(damaged)),
        expected="whole files, masks as large as their images, ids that are in the table",
        hint=f"{why or 'Download them again.'} To import the others without them:",
        command=command,
    )


def listed(damaged: Mapping[str, DataError]) -> Sequence[str]:
    """Return a line for each, of at most SHOWN, and how many there are."""
    lines = [reason(error) for _, error in sorted(damaged.items())[:SHOWN]]
    return [*lines, f"… {len(damaged):,} in all"] if len(damaged) > SHOWN else lines


def reason(error: DataError) -> str:
    """Return what is wrong, on one line."""
    found = f" ({' '.join(error.found.split())[:160]})" if error.found else ""
    return error.what.rstrip(".:") + found
