"""What `terrazzo fix` can be asked to do, and how its words are read."""

import re
from dataclasses import dataclass

from terrazzo.classes import IGNORE_16BIT
from terrazzo.errors import UsageError


@dataclass(frozen=True)
class Move:
    """One id written as another."""

    raw: int
    """As it is in the masks."""
    new: int
    """As it is in those of the copy."""
    split: str | None = None
    """In masks of this split alone; None: in all."""


@dataclass(frozen=True)
class Remedies:
    """What `fix` is asked to do; the flag of `terrazzo fix` is the field with dashes."""

    remap: tuple[Move, ...] = ()
    """Write ids in the masks as others, all at once: 0:255 writes 255 for 0, val/3:4 writes 4 for 3 in val alone."""
    binary: bool = False
    """Write 255 as id 1 in binary masks (0 and 255)."""
    shift: bool = False
    """Let the table in dataset.json ignore id 0 and move the others down by one; masks stay as they are."""
    colors: bool = False
    """Turn masks of colours into ids, by the classes' colours in dataset.json."""
    ignore_unknown_colors: bool = False
    """With `colors`: colours that no class has become ignore."""
    palette: bool = False
    """Turn masks that hold the colours of a palette into ids, by the palette of the others, or that of Pascal VOC."""
    grey: bool = False
    """Keep one channel of masks whose ids were saved as grey RGB."""
    unpack: bool = False
    """Write the classes alone in 16-bit masks whose ids are classes times 256, 257 or 1000."""
    eight_bit: bool = False
    """Write 16-bit masks with 8 bits where their ids allow it, 65535 as 255."""
    exif: bool = False
    """Turn masks like their images where EXIF turns the image alone and the sizes show it."""
    exif_all: bool = False
    """The same where the sizes do not show it (mirrored, upside down, square)."""
    turn: bool = False
    """Turn or mirror masks that lie so on their image, each the way that fits it."""
    align: bool = False
    """Move masks that lie beside what they label to where they fit; the strip that comes free is ignored."""
    unblend: bool = False
    """Give pixels of mixed ids, or with `colors` of mixed colours, the class beside them."""
    fill_frame: bool = False
    """Carry the labels next to an unlabelled frame out to the rim."""
    drop_specks: bool = False
    """Give areas of at most 4 pixels the class around them."""
    ignore_ids: tuple[int, ...] = ()
    """Let the table in dataset.json ignore these raw ids."""
    merge: tuple[str, ...] = ()
    """Make one class of several, by the table in dataset.json: car+cars=car; several with ';' between."""
    resplit: bool = False
    """Divide train and val anew, sequences kept together, so that every class that can be is in train."""
    groups: str = ""
    """With `resplit`: a regular expression; names with the same first parenthesis stay on one side."""
    drop_unpaired: bool = False
    """Leave out images without masks, masks without images, files of one name, and names that are not there."""
    drop_unlisted: bool = False
    """Leave out images that dataset.json lists in no split."""
    drop_unreadable: bool = False
    """Leave out pairs of which one cannot be used."""
    drop_other_forms: bool = False
    """Leave out pairs whose image has other channels or another dtype than the data set."""
    drop_mismatched: bool = False
    """Leave out pairs whose sizes differ."""
    drop_duplicates: bool = False
    """Keep one of images that are equal pixel for pixel, where it is scored."""
    drop_contradictions: bool = False
    """Leave out all of several images that are equal pixel for pixel and have different masks."""
    drop_near_duplicates: bool = False
    """Leave images of train out that look nearly like one of another split."""
    drop_empty: bool = False
    """Leave out pairs whose mask is ignored everywhere."""
    drop_constant: bool = False
    """Leave out pairs whose mask shows one class everywhere."""
    drop_absent: bool = False
    """Take classes that never occur off the list of classes."""


def read_moves(text: str) -> tuple[Move, ...]:
    """Read "0:255,val/3:4"; UsageError where it is something else, or says two things of one id."""
    moves = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(?:(.+)/)?(\d{1,5}):(\d{1,5})\s*", part)
        if found is None or max(int(found[2]), int(found[3])) > IGNORE_16BIT:
            raise UsageError(
                f"{part!r} does not say which id is written as which.",
                expected="ids 0-65535 with a colon between, as in 0:255,7:3, or val/3:4 for one split",
            )
        moves.append(Move(int(found[2]), int(found[3]), found[1]))
    places = [(move.raw, move.split) for move in moves]
    twice = sorted({str(raw) for raw, split in places if places.count((raw, split)) > 1})
    if twice:
        raise UsageError(f"It is said twice what id {', '.join(twice)} becomes.", found=text)
    return tuple(moves)


def read_merges(text: str) -> tuple[str, ...]:
    """Read "car+cars=car;tree+trees=tree"."""
    return tuple(rule.strip() for rule in text.split(";") if rule.strip())
