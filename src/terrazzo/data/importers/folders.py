"""Plain folders of any naming: --images and --masks say which files are which, names say what belongs together.

    terrazzo import folders SRC --images "*/photos/**/*.jpg" --masks "*/labels/**/*_ids.png" --classes names.txt

Sub-folders stay, so that equal names in two of them are two images. A folder called train, val, test or the like says
the split. What masks hold is looked at first: ids; colours, which a table turns into ids; 0 and 255. Masks are written
anew only where they hold no ids; all others come over byte for byte, and the table in dataset.json says what they mean.
What cannot be told is refused, with what was found.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from terrazzo.classes import IGNORE_8BIT, Classes, Color, Remap, distinct_colors
from terrazzo.data.description import Description
from terrazzo.data.importers import folders_pairing as pairing
from terrazzo.data.importers.colors import BLENDED, Colored, Grey, count_colors, counted
from terrazzo.data.importers.downloads import read
from terrazzo.data.importers.folders_table import Legend, Meaning, read_legend, settle
from terrazzo.data.importers.planning import Pair, Piece, Plan, Wanted
from terrazzo.errors import DatasetFormatError, MaskValueError, MissingPathError, TerrazzoError, UsageError
from terrazzo.images import decode_image, decode_mask

ANNOTATIONS = ("masks",)
WORDS = ("images", "masks", "classes", "merge", "ignore", "binary")
LOOKED_AT = 40  # masks that are opened to tell what they hold; all are, when they come over
SHIFTED = (
    "Do the names begin at id 1, and 0 means that nothing is labelled? Then the first line is: unlabeled"
)
BINARY = "foreground"
BACKGROUND = "background"


@dataclass
class Look:
    """What some of the masks hold, and how all of them are stored."""

    forms: Mapping[Path, str]
    """Every mask -> "ids", "palette" or "colors", by its header."""
    opened: int = 0
    ids: Counter[int] = field(default_factory=Counter)
    """Pixels of each id, and of each index into a palette."""
    colors: Counter[Color] = field(default_factory=Counter)
    """Pixels of each colour of masks that hold colours."""
    painted: Counter[Color] = field(default_factory=Counter)
    """Pixels of each colour that a palette shows."""

    @property
    def is_grey(self) -> bool:
        """True where colours are ids that were saved as grey."""
        return bool(self.colors) and all(red == green == blue for red, green, blue in self.colors)

    @property
    def numbers(self) -> Counter[int]:
        """Pixels of each id, those saved as grey among them."""
        return self.ids + Counter(
            {red: count for (red, _, _), count in self.colors.items()} if self.is_grey else {}
        )

    def share(self) -> str:
        """Return "40 of 367 masks"."""
        return f"{self.opened:,} of {len(self.forms):,} masks"


def plan(root: Path, wanted: Wanted, stack: ExitStack) -> Plan:
    """Pair the files below `root` and tell what the masks hold. Nothing has to stay open, so `stack` is not used.

    Raises UsageError where a pattern fits nothing or a word is missing, DatasetFormatError listing what has no partner,
    and MaskValueError listing ids and colours that the table does not hold, with their pixels.
    """
    if not root.is_dir():
        raise MissingPathError(f"There is no folder {root}.", expected="images and masks in folders")
    if not wanted.images or not wanted.masks:
        raise UsageError(
            "Which files are images, and which are masks?",
            found=pairing.survey(root),
            expected="--images PATTERN and --masks PATTERN, such as 'images/**/*.jpg' and 'masks/**/*.png'",
        )
    masks = pairing.find(root, wanted.masks, word="--masks")
    taken = {file.path for file in masks}
    images = [file for file in pairing.find(root, wanted.images, word="--images") if file.path not in taken]
    match = pairing.pair(images, masks, root=root, partial=wanted.partial)
    look = look_at([mask.path for _, mask in match.pairs])
    meaning, forms, about = _understand(look, wanted, root)
    of_mask: dict[Path, Path | Piece] = {path: forms(path) for path in look.forms}
    by_split, split_notes = _by_split(images, match, of_mask, root)
    description = replace(
        about or Description(meaning.classes, name=root.resolve().name),
        classes=meaning.classes,
        remap=meaning.remap,
        raw_names=meaning.raw_names,
    )
    return Plan(by_split, description, (*_said(match), *split_notes, *meaning.notes))


def look_at(masks: Sequence[Path]) -> Look:
    """Read the header of all masks, and the pixels of some, spread evenly; a damaged one is told when it comes over."""
    look = Look({path: _form(path) for path in masks})
    for path in masks[:: -(-len(masks) // LOOKED_AT) or 1]:
        try:
            data = read(path)
            if look.forms[path] == "colors":
                look.colors.update(count_colors(decode_image(data, where=str(path), channels=3)))
            else:
                ids, counts = np.unique(decode_mask(data, where=str(path)), return_counts=True)
                look.ids.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
            if look.forms[path] == "palette":
                look.painted.update(count_colors(decode_image(data, where=str(path), channels=3)))
        except TerrazzoError:
            continue
        look.opened += 1
    return look


def _form(path: Path) -> str:
    """How a mask is stored; "ids" also of what nobody can read, which reading says better."""
    with open(path, "rb") as file:
        head = file.read(26)
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) == 26:
        return {0: "ids", 3: "palette"}.get(head[25], "colors")
    if head.startswith(b"\xff\xd8"):  # a JPEG is refused as such
        return "ids"
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode = image.mode
    except Exception:  # whatever Pillow's parsers trip over
        return "ids"
    return (
        "palette"
        if mode == "P"
        else "ids"
        if mode in ("1", "L", "I", "F") or mode.startswith("I;")
        else "colors"
    )


# -- what masks mean ---------------------------------------------------------------------------------------------------

Make = Callable[[Path], "Path | Piece"]


def _understand(look: Look, wanted: Wanted, root: Path) -> tuple[Meaning, Make, Description | None]:
    """The table, and how a mask file is read: as it is, as grey, or by its colours."""
    legend = read_legend(Path(wanted.classes)) if wanted.classes else Legend()
    if wanted.binary is not None and (wanted.classes or wanted.merge):
        raise UsageError(
            "--binary names the only class; there is nothing to read or to merge.", expected="one of them"
        )
    if _is_colored(look, legend):
        meaning = _by_color(look, legend, wanted)
        return meaning, partial(_colored, legend=legend, source=wanted.classes or ""), legend.about
    if look.colors and not look.is_grey:
        raise MaskValueError(
            f"The masks of {root} hold colours, and nothing says which class each of them is.",
            found=f"in {look.share()}: {counted(dict(look.colors.most_common()))}",
            expected='--classes FILE with a line "R G B name" for each',
        )
    meaning = _by_number(look, legend, wanted, root)
    if look.colors:
        note = "Ids are saved as grey pictures of three channels: one of them is kept."
        meaning = replace(meaning, notes=(note, *meaning.notes))
    return meaning, partial(_numbered, look=look), legend.about


def _is_colored(look: Look, legend: Legend) -> bool:
    """True where colours decide: there is a table of them, and masks that show them."""
    known = set(legend.colors.values())
    if look.colors:
        return bool(known) and (not look.is_grey or known.issuperset(look.colors))
    return legend.is_by_color and bool(look.painted) and known.issuperset(look.painted)


def _by_color(look: Look, legend: Legend, wanted: Wanted) -> Meaning:
    numbers = [path for path, form in look.forms.items() if form == "ids"]
    if numbers:
        raise MaskValueError(
            f"{len(look.forms) - len(numbers):,} masks hold colours, {len(numbers):,} hold ids.",
            found=", ".join(str(path) for path in numbers[:4]),
            expected="masks of one kind",
            hint="Narrow --masks, and import each kind on its own.",
        )
    known = set(legend.colors.values())
    unknown = {color: n for color, n in (look.colors + look.painted).most_common() if color not in known}
    if unknown:
        raise MaskValueError(
            f"Masks hold colours that are not in {wanted.classes}.",
            found=f"in {look.share()}: {counted(unknown)}",
            expected=f"the {len(known)} colours of the table",
            hint=f'Add what is missing, with its name or as void: "R G B void". {BLENDED}',
        )
    meaning = settle(legend, wanted.merge, wanted.ignore)
    note = f"Masks hold colours; ids are made of them by the {len(known)} colours of {wanted.classes}."
    return replace(meaning, notes=(note, *meaning.notes))


def _colored(path: Path, *, legend: Legend, source: str) -> Piece:
    return Colored(path, {color: raw for raw, color in legend.colors.items()}, f"those of {source}")


def _numbered(path: Path, *, look: Look) -> Path | Piece:
    return Grey(path) if look.forms[path] == "colors" else path


def _by_number(look: Look, legend: Legend, wanted: Wanted, root: Path) -> Meaning:
    seen = set(look.numbers)
    if wanted.binary is not None or _looks_binary(look, legend, wanted):
        return _binary(look, legend, wanted, root)
    if not legend.names and not wanted.merge:
        raise DatasetFormatError(
            f"Nothing says what the ids in the masks of {root} mean.",
            found=f"in {look.share()}: {_counted(look.numbers)}",
            expected='--classes FILE: a name a line, the first for id 0; or "id name" in every line',
            hint="Masks of 0 and 1, one thing and the rest: --binary NAME." if seen <= {0, 1} else None,
        )
    meaning = settle(legend, wanted.merge, wanted.ignore)
    unknown = Counter({raw: n for raw, n in look.numbers.items() if raw not in meaning.remap.to_class})
    if unknown:
        raise MaskValueError(
            f"The masks of {root} hold ids that no class has.",
            found=f"in {look.share()}: {_counted(unknown)}",
            expected=f"{len(meaning.remap.to_class)} ids: {', '.join(map(str, sorted(meaning.remap.to_class)[:40]))}",
            hint=SHIFTED
            if sorted(unknown) == [len(legend.names)]
            and sorted(legend.names) == list(range(len(legend.names)))
            else "Name them in the file of classes, merge them (--merge 33=bicycle), or ignore them (--ignore 33).",
        )
    if legend.is_by_color:
        note = (
            f"Masks hold ids: id 0 is the first line of {wanted.classes}. Look at the overlays (--dry-run)."
        )
        meaning = replace(meaning, notes=(note, *meaning.notes))
    return meaning


def _looks_binary(look: Look, legend: Legend, wanted: Wanted) -> bool:
    """0 and 255 alone, no palette, and nothing that says otherwise: at most two names, and 255 not ignored by word."""
    if set(look.numbers) not in ({0, IGNORE_8BIT}, {IGNORE_8BIT}) or look.painted or wanted.merge:
        return False
    return str(IGNORE_8BIT) not in wanted.ignore and (not legend.names or sorted(legend.names) == [0, 1])


def _binary(look: Look, legend: Legend, wanted: Wanted, root: Path) -> Meaning:
    seen = set(look.numbers)
    if not (seen <= {0, 1} or seen <= {0, IGNORE_8BIT}):
        raise MaskValueError(
            f"The masks of {root} are not binary.",
            found=f"in {look.share()}: {_counted(look.numbers)}",
            expected="0 and 255 alone, or 0 and 1 alone",
            hint="Where 255 means that nobody knows, it is ignored: name the classes with --classes instead.",
        )
    high = 1 if seen <= {0, 1} else IGNORE_8BIT
    below, above = legend.names.get(0, BACKGROUND), legend.names.get(1, wanted.binary or BINARY)
    colors = legend.colors.get(0, (0, 0, 0)), legend.colors.get(1, distinct_colors(1)[0])
    note = f"Masks hold 0 and {high} alone: 0 is {below}, {high} is {above}"
    note += "." if wanted.binary or legend.names else " (--binary NAME names it)."
    return Meaning(Classes((below, above), colors), Remap({0: 0, high: 1}, 2), {}, (note,))


def _counted(ids: Counter[int]) -> str:
    shown = [f"{raw} ({count:,} pixels)" for raw, count in sorted(ids.items())[:16]]
    return ", ".join(shown) + (f", … ({len(ids)} in all)" if len(ids) > 16 else "")


# -- splits ------------------------------------------------------------------------------------------------------------


def _by_split(
    images: Sequence[pairing.File], match: pairing.Match, of_mask: Mapping[Path, Path | Piece], root: Path
) -> tuple[dict[str, list[Pair]], tuple[str, ...]]:
    """{split: pairs}, and what is to be said of them; all in train where no folder says a split."""
    pairs: dict[str | None, list[Pair]] = {}
    for image, mask in match.pairs:
        pair = Pair(image.called, image.path, of_mask[mask.path])
        pairs.setdefault(image.split or mask.split, []).append(pair)
    paired = {image for image, _ in match.pairs} | set(match.without_mask)
    for image in images:
        if image not in paired:  # of test, without masks
            pairs.setdefault(image.split, []).append(Pair(image.called, image.path, None))
    unplaced = pairs.pop(None, [])
    if unplaced and pairs:
        raise DatasetFormatError(
            f"{len(unplaced):,} images below {root} are in no split, others are.",
            found="\n".join(
                [f"in {', '.join(map(str, pairs))}; not so:", *(str(p.image) for p in unplaced[:8])]
            ),
            expected="a folder called train, val or test above each image, or above none",
            hint="Narrow the patterns to those that are in one.",
        )
    if unplaced:
        said = f"No folder says a split: all {len(unplaced):,} are in train; a val split is made when it is opened."
        return {"train": unplaced}, (said,)
    if "train" not in pairs:
        raise DatasetFormatError(f"{root} has no training images.", found=", ".join(map(str, pairs)))
    return {split: pairs[split] for split in ("train", "val", "test") if split in pairs}, ()


def _said(match: pairing.Match) -> list[str]:
    notes = [f"Names were paired {match.said}."] if match.said else []
    if match.without_mask or match.without_image:
        lone = [*match.without_mask, *match.without_image]
        notes.append(
            f"Left out, as asked: {len(match.without_mask):,} images without a mask, "
            f"{len(match.without_image):,} masks without an image: {', '.join(file.place for file in lone[:8])}"
            + (", …" if len(lone) > 8 else ".")
        )
    return notes
