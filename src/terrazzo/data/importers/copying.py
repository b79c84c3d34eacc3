"""What importers share: pairing two folders, and writing our folder whole or not at all.

Files are copied byte for byte, never decoded and written again; the raw data set is only read. What a publisher does
not ship as a file, such as a mask that is still polygons, is written by whoever knows how.
"""

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from terrazzo.data.description import Description, write_description
from terrazzo.errors import DatasetFormatError, MissingPathError, UnreadableFileError
from terrazzo.images import IMAGE_SUFFIXES
from terrazzo.progress import track
from terrazzo.storage import refuse_existing, replace_folder

SHOWN = 20  # how many missing paths an error lists


class Piece(Protocol):
    """What becomes a file of ours without being one: a member of a zip, a mask to be drawn."""

    @property
    def suffix(self) -> str:
        """Such as ".png"."""

    def write(self, target: Path, /) -> None:
        """Write the new file `target`; called from several threads, for different targets."""


@dataclass(frozen=True)
class Pair:
    """An image, its mask (None in a test split without masks), and the name both get."""

    name: str
    """Without suffix; '/' for sub-folders."""
    image: Path | Piece
    """As published."""
    mask: Path | Piece | None
    """As published."""


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


def copy_pairs(
    pairs: Mapping[str, Sequence[Pair]],
    out: Path,
    description: Description,
    *,
    link: bool = False,
    workers: int = 1,
) -> Path:
    """Write images, masks and dataset.json to a new folder `out` and return it; whole or not at all.

    link: hard links instead of copies; where the disk cannot (another disk), files are copied; pieces are written in
    any case. workers: files at once, in threads: what takes long (disks, unpacking, packing a PNG) lets others run.
    """
    refuse_existing(out)
    with replace_folder(out) as beside:
        jobs: list[tuple[Path | Piece, Path]] = []
        for split, members in pairs.items():
            for pair in members:
                jobs.append((pair.image, _target(beside / split / "images", pair.name, pair.image)))
                if pair.mask is not None:
                    jobs.append((pair.mask, _target(beside / split / "masks", pair.name, pair.mask)))
        for folder in {target.parent for _, target in jobs}:
            folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(max(1, workers)) as pool:
            written = [pool.submit(_write, source, target, link=link) for source, target in jobs]
            try:
                for future in track(written, total=len(jobs), what="copy"):
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)  # what has not begun is not begun any more
                raise
        write_description(beside, replace(description, splits={split: split for split in pairs}))
    return out


def _target(folder: Path, name: str, source: Path | Piece) -> Path:
    return folder / f"{name}{source.suffix.lower()}"


def _write(source: Path | Piece, target: Path, *, link: bool) -> None:
    if isinstance(source, Path):
        _copy(source, target, link=link)
    else:
        source.write(target)


def _copy(source: Path, target: Path, *, link: bool) -> None:
    if link:
        try:
            os.link(source, target)
            return
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP):
                raise
    try:
        with open(source, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UnreadableFileError(f"{source} cannot be read.", found=error.strerror or str(error)) from error
    with open(target, "wb") as file:
        file.write(content)
    shutil.copystat(source, target)


def _by_stem(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    }
