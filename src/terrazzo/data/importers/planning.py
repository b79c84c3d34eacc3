"""What an importer is asked for, and what it answers: a plan, which says what to copy and what it means.

A plan reads only what it must to pair images with masks; files are read when it is carried out, or shown (`copying`).
What importers share in making one stands here too: two folders paired by name, and saying what is missing.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from terrazzo.data.description import Description
from terrazzo.errors import DataError, DatasetFormatError, MissingPathError
from terrazzo.images import IMAGE_SUFFIXES

SHOWN = 20  # how many missing paths an error lists


class Piece(Protocol):
    """What becomes a file of ours without being one: a member of a zip, a mask to be drawn."""

    @property
    def suffix(self) -> str:
        """Such as ".png"."""

    def read(self) -> bytes:
        """Return the bytes of the file it becomes; called from several threads, and more than once."""


@dataclass(frozen=True)
class Pair:
    """An image, its mask (None in a test split without masks), and the name both get."""

    name: str
    """Without suffix; '/' for sub-folders."""
    image: Path | Piece
    """As published."""
    mask: Path | Piece | None
    """As published."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of an importer: which files to take and how to read them, in the words of `terrazzo import`.

    A page names those that it knows, beside `partial`, in WORDS; others are refused before it is asked.
    """

    annotations: str | None = None
    """Which masks, where a data set has several kinds; None: the usual ones, which a page is told by name."""
    partial: bool = False
    """Take what is there although the published data set has more; a page that does not count lets nothing pass."""
    labelset: str | None = None
    """Which of the sets of labels that a release holds; None: its usual one."""
    status: tuple[str, ...] = ()
    """Which label statuses, in any case, or ("all",); (): those of labels that somebody finished."""
    download: bool = False
    """Fetch what lies at http and https addresses; nothing is fetched without it."""
    columns: str | None = None
    """Make a saved table of Hugging Face `datasets` with these columns, instead of a folder of ours."""
    images: str | None = None
    """Which files are images: a pattern below SRC."""
    masks: str | None = None
    """Which files are masks: a pattern below SRC."""
    classes: str | None = None
    """A file of class names, with colours where masks hold colours."""
    merge: tuple[str, ...] = ()
    """Rules such as "car+26=vehicle", names or raw ids, "ignore" for what is not scored; or files of such rules."""
    ignore: tuple[str, ...] = ()
    """Names or raw ids that are ignored."""
    binary: str | None = None
    """What the masks of 0 and 255, or of 0 and 1, show; the rest is background."""


@dataclass(frozen=True)
class Plan:
    """What an importer found: the pairs of every split, what their masks mean, and what somebody should hear of it."""

    pairs: Mapping[str, Sequence[Pair]]
    """Split -> pairs, in the order in which they are shown."""
    description: Description
    """dataset.json, but for "splits", which are those of the pairs."""
    notes: tuple[str, ...] = ()
    """Sentences: what was left out, or read in one of several ways."""
    seen: Callable[[], tuple[str, ...]] = tuple
    """More such sentences, known when the files were read."""
    stop: Callable[[], None] | None = None
    """Called when the work ends early: what waits, such as a download, gives up."""
    write: Callable[[Path, int], dict[str, DataError]] | None = None
    """Writes another form than our folder into an empty folder, this many pairs at a time; returns what is wrong with
    those that were left out, by name."""


def pair_by_name(
    root: Path,
    folders: Mapping[str, tuple[Path, Path]],
    *,
    required: Sequence[str],
    format_name: str,
    layout: str,
) -> dict[str, list[Pair]]:
    """Return {split: pairs} for {split: (images folder, masks folder)}; the same path but for the suffix is a pair.

    Splits that are not required may be absent, or have no masks. All missing folders and files are listed at once.
    """
    if not root.is_dir():
        raise MissingPathError(f"There is no folder {root}.", expected=f"a {format_name} download: {layout}")
    missing: list[str] = []
    found: dict[str, list[Pair]] = {}
    for split, (images_folder, masks_folder) in folders.items():
        if split in required:
            missing += [
                f"{folder}{os.sep}" for folder in (images_folder, masks_folder) if not folder.is_dir()
            ]
        if not images_folder.is_dir():
            continue
        images, masks = _by_stem(images_folder), _by_stem(masks_folder)
        if masks or split in required:
            missing += [f"{masks_folder / name}.*" for name in images if name not in masks]
            missing += [f"{images_folder / name}.*" for name in masks if name not in images]
        if images:
            found[split] = [Pair(name, images[name], masks.get(name)) for name in sorted(images)]
    missing += [
        f"images in {folders[split][0]}{os.sep}" for split in required if split not in found and not missing
    ]
    refuse_missing(missing, root=root, format_name=format_name, layout=layout)
    return found


def refuse_missing(
    missing: Sequence[str], *, root: Path, format_name: str, layout: str, hint: str | None = None
) -> None:
    """Raise DatasetFormatError listing what a download lacks; nothing happens where that is nothing."""
    if not missing:
        return
    shown = "\n".join(missing[:SHOWN]) + (f"\n… {len(missing)} in all" if len(missing) > SHOWN else "")
    count = f"{len(missing):,} paths are" if len(missing) > 1 else "1 path is"
    raise DatasetFormatError(
        f"{root} is not a whole {format_name} download: {count} missing.",
        found="missing:\n" + shown,
        expected=layout,
        hint=hint or "Point to the folder that holds these, or download what is missing.",
    )


def refuse_part(
    counts: Mapping[str, int],
    published: Mapping[str, int],
    *,
    name: str,
    format_name: str,
    what: str = "images",
) -> None:
    """Raise DatasetFormatError where the counts of a download's splits are not the published ones."""
    if counts == published:
        return
    raise DatasetFormatError(
        f"This is not the whole of {name}.",
        found=", ".join(f"{split} {count:,}" for split, count in counts.items()) + f" {what}",
        expected=", ".join(f"{split} {count:,}" for split, count in published.items()),
        hint="Download the rest, or import what is there:",
        command=f"terrazzo import {format_name} SRC --out DIR --partial",
    )


def _by_stem(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    }
