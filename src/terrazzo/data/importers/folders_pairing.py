"""Images and masks of any naming, paired where there is one way to do it; what is left over is listed, never guessed.

A name is what the wildcards of a pattern stand for. Where the names of images and masks differ by an ending or a
beginning that all of them share (_leftImg8bit, _gtFine_labelIds, mask_), it is taken off, and that is said.
"""

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product, takewhile
from pathlib import Path, PurePosixPath

from terrazzo.data.importers.planning import SHOWN
from terrazzo.data.splits import SPLIT_NAMES
from terrazzo.errors import DatasetFormatError, UnreadableFileError, UsageError
from terrazzo.images import IMAGE_SUFFIXES

AFFIXES = 6  # endings, and beginnings, of one side that are tried, the longest
KINDS = 8  # of masks of one image that are named in an error
WAYS = 8  # of pairing that are told apart
WALKED = 100_000  # files that are counted for an error
Key = tuple[str, ...]


@dataclass(frozen=True)
class File:
    """An image or a mask that fits a pattern."""

    path: Path
    """Where it is."""
    place: str
    """Below the root, '/' between folders."""
    split: str | None
    """train, val or test where a folder says so."""
    folders: tuple[str, ...]
    """What the wildcards stand for in its folders, without that of the split."""
    name: str
    """What they stand for in its name, without suffix."""

    @property
    def called(self) -> str:
        """What it is called in our folder: sub-folders, and its own name."""
        return "/".join((*self.folders, PurePosixPath(self.place).stem))


@dataclass(frozen=True)
class Match:
    """One way to pair."""

    pairs: tuple[tuple[File, File], ...]
    """Image, mask."""
    without_mask: tuple[File, ...]
    without_image: tuple[File, ...]
    said: str
    """What was done to the names; "" where nothing was."""


def find(root: Path, pattern: str, *, word: str) -> list[File]:
    """Return the image files below `root` that fit `pattern`, by place; UsageError where there is none.

    pattern: as in a shell, relative to `root`; ** stands for any folders. word: of the command line, for errors.
    """
    parts = pattern.split("/")
    if os.path.isabs(pattern) or ".." in parts or not pattern.strip():
        raise UsageError(
            f"The pattern of {word} leaves the folder.",
            found=pattern,
            expected=f"a path below {root}, with * and **",
        )
    fits, last = (
        re.compile(_as_regex(parts)),
        re.compile(fnmatch.translate("*" if parts[-1] == "**" else parts[-1])),
    )
    fixed = list(takewhile(lambda part: not set(part) & set("*?["), parts[:-1]))
    found = []
    for place in _image_files(root, "/".join(fixed), frozenset()):
        match = fits.fullmatch(str(PurePosixPath(place).with_suffix("")))
        if match is not None and last.fullmatch(place.rpartition("/")[2]):
            found.append(_file(root, place, match))
    if not found:
        raise UsageError(
            f"No image file below {root} fits {word} {pattern!r}.",
            found=survey(root),
            expected="a pattern such as 'images/**/*.png'; quote it, or the shell fills it in",
        )
    return found


def _image_files(root: Path, folder: str, above: frozenset[str]) -> Iterator[str]:
    """Places of the image files below root/folder, sorted; hidden ones, and links that lead back up, are not taken."""
    real = os.path.realpath(root / folder)
    if real in above or not os.path.isdir(real):
        return
    try:
        entries = sorted(os.scandir(real), key=lambda entry: entry.name)
    except OSError as error:
        raise UnreadableFileError(
            f"{root / folder} cannot be read.", found=error.strerror or str(error)
        ) from error
    for entry in entries:
        place = f"{folder}/{entry.name}" if folder else entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _image_files(root, place, above | {real})
        elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
            yield place


def pair(images: Sequence[File], masks: Sequence[File], *, root: Path, partial: bool) -> Match:
    """Return the one way to pair all of them; images of a test split without masks stay alone.

    Folders count first, then names alone. Raises DatasetFormatError listing what is left over, or the ways there are.
    partial: what is left over stays out.
    """
    _refuse_same_names(images, "images")
    _refuse_same_names(masks, "masks")
    nearest: list[Match] = []
    for by in (_by_split, _by_folders, _by_name):
        ways = _best_ways(images, masks, by)
        if ways and not ways[0].without_mask and not ways[0].without_image:
            return _only(ways, root)
        if ways and (not nearest or len(ways[0].pairs) > len(nearest[0].pairs)):
            nearest = ways
    if partial and nearest and nearest[0].pairs:
        return _only(nearest, root)
    raise _left_over(root, nearest[0] if nearest else _nothing(images, masks), len(images), len(masks))


def survey(root: Path) -> str:
    """Return what image files lie in which folders below `root`, the fullest first."""
    counts: Counter[str] = Counter()
    walked = (
        (os.path.relpath(place, root), name)
        for place, _, names in os.walk(root, followlinks=True)
        for name in names
        if not name.startswith(".")
    )
    for place, name in islice(walked, WALKED):
        suffix = os.path.splitext(name)[1].lower()
        if suffix in IMAGE_SUFFIXES:
            counts[f"{'' if place == '.' else place.replace(os.sep, '/') + '/'}*{suffix}"] += 1
    if not counts:
        return f"no image file in {root}"
    shown = [f"{pattern} ({count:,})" for pattern, count in counts.most_common(SHOWN)]
    return "\n" + "\n".join(shown) + (f"\n… {len(counts)} folders in all" if len(counts) > SHOWN else "")


# -- patterns ----------------------------------------------------------------------------------------------------------


def _as_regex(parts: Sequence[str]) -> str:
    """A regular expression for a place without suffix, in which every wildcard is a group named by its part."""
    *folders, last = parts
    last = last.rpartition(".")[0] or last  # the suffix counts as a choice of files, not as a name
    text = ""
    for number, part in enumerate(folders):
        if part == "**":
            text += f"(?P<any{number}>(?:[^/]+/)*)"
        else:
            text += _component(part, number) + "/"
    return text + (r"(?P<any_name>(?:[^/]+/)*)(?P<last0>[^/]*)" if last == "**" else _component(last, None))


def _component(part: str, number: int | None) -> str:
    called = "last" if number is None else f"part{number}_"
    text, count = "", 0
    for piece in re.findall(r"\*+|\?|\[[^]]+\]|[^*?\[]+|\[", part):
        wild = "[^/]*" if piece[0] == "*" else "[^/]" if piece == "?" else None
        if piece.startswith("[") and len(piece) > 2:
            wild = "[^" + piece[2:] if piece[1] == "!" else piece
        text += re.escape(piece) if wild is None else f"(?P<{called}{count}>{wild})"
        count += wild is not None
    return text


def _file(root: Path, place: str, match: re.Match[str]) -> File:
    groups: dict[str, str] = {}
    for group, text in match.groupdict().items():
        part = (
            group if group.startswith("any") else group.split("_")[0] if group.startswith("part") else "last"
        )
        groups[part] = f"{groups[part]}_{text}" if part in groups else text or ""
    name = groups.pop("last", "")
    folders = [folder for text in groups.values() for folder in text.split("/") if folder]
    said = {
        SPLIT_NAMES[part.lower()]
        for part in (*place.split("/")[:-1], *folders)
        if part.lower() in SPLIT_NAMES
    }
    if len(said) > 1:
        raise DatasetFormatError(
            f"{root / place} lies in folders of several splits.",
            found=", ".join(sorted(said)),
            expected="one of train, val and test in the path of a file",
            hint="Let the pattern name one of them, or import a folder that holds one.",
        )
    kept = tuple(folder for folder in folders if folder.lower() not in SPLIT_NAMES)
    return File(root / place, place, next(iter(said), None), kept, name)


# -- pairing -----------------------------------------------------------------------------------------------------------


def _by_split(file: File) -> Key:
    return (file.split or "", *file.folders)


def _by_folders(file: File) -> Key:
    return file.folders


def _by_name(file: File) -> Key:
    return ()


def _best_ways(images: Sequence[File], masks: Sequence[File], by: Callable[[File], Key]) -> list[Match]:
    """The ways to take shared endings and beginnings off that pair most; names as they are win over all others."""
    as_they_are = _match(_keys(images, by, "", ""), _keys(masks, by, "", ""), images, masks, "")
    if as_they_are is not None and not as_they_are.without_mask and not as_they_are.without_image:
        return [as_they_are]
    of_images, of_masks = (
        {
            cut: keys
            for cut in product(_beginnings(files), _endings(files))
            if (keys := _keys(files, by, *cut)) is not None
        }
        for files in (images, masks)
    )
    counts = {
        cuts: len(of_images[cuts[0]].keys() & of_masks[cuts[1]].keys())
        for cuts in product(of_images, of_masks)
    }
    best = [cuts for cuts, count in counts.items() if count == max(counts.values())]
    matches = (
        _match(of_images[off_image], of_masks[off_mask], images, masks, _said(off_image, off_mask))
        for off_image, off_mask in best[:WAYS]
    )
    found = sorted(
        (one for one in matches if one is not None), key=lambda one: (-len(one.pairs), len(one.said))
    )
    return [one for one in found if len(one.pairs) == len(found[0].pairs)]


def _keys(files: Sequence[File], by: Callable[[File], Key], start: str, end: str) -> dict[Key, File] | None:
    """Files by folders and shortened name; None where two become the same, or one nothing."""
    names = [file.name[len(start) : len(file.name) - len(end)] for file in files]
    if (start or end) and not all(names):
        return None
    keys = {(*by(file), name): file for file, name in zip(files, names, strict=True)}
    return keys if len(keys) == len(files) else None


def _match(
    of_image: dict[Key, File] | None,
    of_mask: dict[Key, File] | None,
    images: Sequence[File],
    masks: Sequence[File],
    said: str,
) -> Match | None:
    if of_image is None or of_mask is None:
        return None
    pairs = [(image, of_mask[key]) for key, image in of_image.items() if key in of_mask]
    pairs = [
        (image, mask)
        for image, mask in pairs
        if None in (image.split, mask.split) or image.split == mask.split
    ]
    paired, bare = {file for both in pairs for file in both}, _bare(images, masks)
    return Match(
        tuple(pairs),
        tuple(image for image in images if image not in paired and image not in bare),
        tuple(mask for mask in masks if mask not in paired),
        said,
    )


def _nothing(images: Sequence[File], masks: Sequence[File]) -> Match:
    return Match((), tuple(images), tuple(masks), "")


def _only(ways: Sequence[Match], root: Path) -> Match:
    if len({way.pairs for way in ways}) > 1:
        raise _ambiguous(root, ways)
    return ways[0]


def _bare(images: Sequence[File], masks: Sequence[File]) -> set[File]:
    """Images of test where no mask is of test."""
    has_masks = any(mask.split == "test" for mask in masks) or not any(mask.split for mask in masks)
    return set() if has_masks else {image for image in images if image.split == "test"}


def _endings(files: Sequence[File]) -> list[str]:
    """What all names end with and may be more than chance: from a separator on, or letters after a digit."""
    return [end[::-1] for end in _shared([file.name[::-1] for file in files])]


def _beginnings(files: Sequence[File]) -> list[str]:
    return _shared([file.name for file in files])


def _shared(names: Sequence[str]) -> list[str]:
    """Beginnings of all names that stop behind a separator, or between letters and digits; "" first."""
    first, last = min(names), max(names)
    unequal = (n for n, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    common = first[: next(unequal, len(first))]
    found = [""]
    for stop in range(1, len(common) + 1):
        after = {name[stop : stop + 1] for name in names}
        is_cut = common[stop - 1] in "_-. " or (
            common[stop - 1].isalpha() and all(one.isdigit() for one in after)
        )
        if is_cut:
            found.append(common[:stop])
    return [found[0], *found[1:][-AFFIXES:]]


def _said(off_image: tuple[str, str], off_mask: tuple[str, str]) -> str:
    told = []
    for side, (start, end) in (("images", off_image), ("masks", off_mask)):
        taken = [repr(text) for text in (start, end) if text]
        told += [f"without {' and '.join(taken)} in the names of {side}"] if taken else []
    return " and ".join(told)


def _refuse_same_names(files: Sequence[File], what: str) -> None:
    by_called: dict[Key, list[File]] = {}
    for file in files:
        by_called.setdefault((file.split or "", *file.folders, PurePosixPath(file.place).stem), []).append(
            file
        )
    twice = [f"{', '.join(file.place for file in same)}" for same in by_called.values() if len(same) > 1]
    if twice:
        raise DatasetFormatError(
            f"{len(twice):,} {what} have the name of another.",
            found="\n" + "\n".join(_some(twice)),
            expected="names that differ in more than their suffix",
            hint="Narrow the pattern to one suffix, or let ** or * stand for the folder in which they differ.",
        )


def _ambiguous(root: Path, ways: Sequence[Match]) -> DatasetFormatError:
    told = []
    for way in ways[:SHOWN]:
        image, mask = way.pairs[0]
        told.append(f"{image.place} with {mask.place}" + (f", {way.said}" if way.said else ""))
    return DatasetFormatError(
        f"Images and masks below {root} can be paired in {len(ways)} ways.",
        found="\n" + "\n".join(dict.fromkeys(told)),
        expected="one",
        hint="Put what all names share into the patterns, such as '**/*_mask.png'.",
    )


def _left_over(root: Path, match: Match, images: int, masks: int) -> DatasetFormatError:
    lone = [f"{file.place} has no mask" for file in match.without_mask]
    lone += [f"{file.place} has no image" for file in match.without_image]
    endings = Counter(re.sub(r"\d+", "0", file.name).rpartition("_")[2] for file in match.without_image)
    several = 1 < len(endings) <= KINDS and masks > images
    hint = "Narrow the patterns, or import the pairs that are there, with --partial."
    if several:
        kinds = ", ".join(f"_{end}" for end in sorted(endings))
        hint = f"The masks seem to be of several kinds (names that end in {kinds}): narrow --masks to one."
    elif not match.pairs:
        hint = "What the wildcards stand for must be the same in both patterns: folders under ** or *, then names."
    return DatasetFormatError(
        f"{len(lone):,} files below {root} have no partner.",
        found=f"{images:,} images, {masks:,} masks, {len(match.pairs):,} pairs\n" + "\n".join(_some(lone)),
        expected="a mask for every image, of the same name but for an ending or a beginning that all share",
        hint=hint,
    )


def _some(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:SHOWN]
    if len(lines) > SHOWN:
        yield f"… {len(lines):,} in all"
