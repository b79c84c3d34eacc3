"""A data set as plain folders: train/images + train/masks, val/…, test/…; dataset.json beside them says what ids mean.

Without dataset.json the same layout opens if nothing has to be guessed: split folders by their names, or images/ +
masks/ without splits, and the class names from classes.txt, classes.json or id2label.json. An image and its mask have
the same path below images/ and masks/ but for the suffix; one without the other is an error that lists them all.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from terrazzo.data import class_names, dataset, description, fingerprint, label_space
from terrazzo.data.records import Records
from terrazzo.data.splits import SPLIT_NAMES
from terrazzo.errors import DatasetFormatError, UnreadableFileError, quoted
from terrazzo.images import IMAGE_SUFFIXES, image_size, read_image, read_mask
from terrazzo.reduced import Reduced, read_reduced

MASK_FOLDERS = ("masks", "labels", "annotations")  # the first is ours
LOOK_AT_MOST = 200  # masks opened to tell which ids there are, when nothing names them


def open_folder(root: Path | str, *, keep_void: bool = False, split_manifest: Any = None) -> dataset.Dataset:
    """Return the Dataset in a folder; DatasetFormatError naming every unpaired file, or what is missing to open it."""
    root = Path(root)
    location = str(root.resolve())
    if (root / description.FILE).is_file():
        about = description.read_description(root)
        pairs = pair(find_folders(root, about.splits))
        space = about.space(keep_void=keep_void)
    else:
        pairs = pair(find_folders(root))
        about, space = None, _named_classes(root, pairs, keep_void=keep_void)
    records: dict[str, Records] = {name: one.records() for name, one in pairs.items()}
    if about is not None and about.splits and not isinstance(next(iter(about.splits.values())), str):
        records = _by_lists(pairs[""], about.splits, root)
    return dataset.assemble(
        records,
        space,
        name=(about.name if about else None) or root.resolve().name,
        location=location,
        channels=about.channels if about else None,
        dtype=about.dtype if about else None,
        mean=about.mean if about else None,
        std=about.std if about else None,
        license=about.license if about else None,
        source=about.source if about else None,
        groups=about.groups if about else None,
        split_manifest=split_manifest,
    )


@dataclass(frozen=True)
class SplitFolders:
    """Where the images and masks of one split lie, and what is there; paths by name."""

    images_folder: Path
    """Where the images are."""
    masks_folder: Path
    """Where the masks are, or would be."""
    images: Mapping[str, Path]
    """Name -> image."""
    masks: Mapping[str, Path]
    """Name -> mask; empty where the split has none."""
    twice: tuple[str, ...] = ()
    """Files that share their name with another one but for the suffix."""

    @property
    def without_mask(self) -> list[str]:
        """Names of images without a mask; empty where the split has no masks at all."""
        return sorted(self.images.keys() - self.masks.keys()) if self.masks else []

    @property
    def without_image(self) -> list[str]:
        """Names of masks without an image."""
        return sorted(self.masks.keys() - self.images.keys())

    def records(self, names: Sequence[str] | None = None) -> "FolderRecords":
        """Return the pairs as records, by default all, sorted by name."""
        names = sorted(self.images) if names is None else names
        root = os.path.commonpath([self.images_folder, self.masks_folder])
        skip = len(root) + 1 if root else 0  # the folder itself may be "."
        return FolderRecords(
            root,
            tuple(names),
            tuple(str(self.images[name])[skip:] for name in names),
            tuple(str(self.masks[name])[skip:] for name in names) if self.masks else (),
        )


@dataclass(frozen=True)
class FolderRecords:
    """Pairs of files below one folder."""

    root: str
    """The folder."""
    names: tuple[str, ...]
    """Sorted; the image's path below images/, without its suffix, with '/'."""
    image_paths: tuple[str, ...]
    """Relative to the root."""
    mask_paths: tuple[str, ...]
    """Relative to the root; empty where there are none."""

    @property
    def has_masks(self) -> bool:
        """True when there are masks; then every image has one."""
        return bool(self.mask_paths)

    def image(self, index: int, channels: int | None) -> NDArray[Any]:
        """Return the image (H, W, C)."""
        return read_image(self.where(index), channels=channels)

    def reduced(self, index: int, channels: int | None, divisor: int) -> Reduced:
        """Return the image, a JPEG at 1 / divisor of its sides."""
        return read_reduced(self.where(index), divisor=divisor, channels=channels)

    def mask(self, index: int) -> NDArray[Any]:
        """Return the raw ids (H, W)."""
        return read_mask(self.where(index, mask=True))

    def size_hw(self, index: int) -> tuple[int, int]:
        """Return (height, width) of the image, from its header."""
        return image_size(self.where(index))

    def where(self, index: int, *, mask: bool = False) -> str:
        """Return the path of the image or of its mask."""
        return os.path.join(self.root, (self.mask_paths if mask else self.image_paths)[index])

    def cell(self, index: int, *, mask: bool = False) -> bytes:
        """Return the bytes of the image's file, or of its mask's."""
        path = self.where(index, mask=mask)
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise UnreadableFileError(
                f"{path} cannot be read.", found=error.strerror or str(error)
            ) from error

    def hashes(self, indices: Sequence[int], *, location: str) -> list[str]:
        """Return one sha256 (hex) per pair, over the hashes of both files."""
        wanted = [self.where(i) for i in indices]
        wanted += [self.where(i, mask=True) for i in indices] if self.has_masks else []
        found = fingerprint.file_hashes(wanted, location=f"{location}\0{self.image_paths[0]}")
        return [
            hashlib.sha256("".join(found[path] for path in self._both(i)).encode()).hexdigest()
            for i in indices
        ]

    def _both(self, index: int) -> list[str]:
        return [self.where(index), *([self.where(index, mask=True)] if self.has_masks else [])]


def find_folders(root: Path, declared: Mapping[str, Any] | None = None) -> dict[str, SplitFolders]:
    """Return what lies in the split folders of `root`, unpaired files too; {"": …} where there are no splits.

    declared: "splits" of dataset.json. Otherwise: sub-folders named train, val, test (or validation, …) that hold
    images/; images/ holding only such sub-folders, with the same in masks/; or images/ alone.
    """
    if declared and all(isinstance(folder, str) for folder in declared.values()):
        return {name: _scan(root / folder, root / folder) for name, folder in declared.items()}
    found = _by_split_name(entry for entry in _folders(root) if (entry / "images").is_dir())
    if found and declared is None:
        return {name: _scan(folder, folder) for name, folder in found.items()}
    if not (root / "images").is_dir():
        raise DatasetFormatError(
            f"{root} is not a data set that terrazzo knows.",
            found=_listing(root),
            expected="dataset.json, train/images + train/masks, or images/ + masks/",
            hint="A published data set in its own layout is imported once:",
            command=f"terrazzo import FORMAT {quoted(root)} --out DIR",
        )
    inside = list(_folders(root / "images"))
    by_name = _by_split_name(inside)
    if by_name and len(by_name) == len(inside) and not any(_images(root / "images", deep=False)):
        return {name: _scan(root, root, folder.name) for name, folder in by_name.items()}
    return {"": _scan(root, root)}


def pair(found: Mapping[str, SplitFolders]) -> Mapping[str, SplitFolders]:
    """Return `found` if every image that should have a mask has one and the reverse; else raise, listing all."""
    _refuse_unpaired(found)
    labelled = [split for split, one in found.items() if one.masks]
    bare = [
        split
        for split, one in found.items()
        if one.images and not one.masks and SPLIT_NAMES.get(split, split) != "test"
    ]
    if bare:
        one = found[bare[0]]
        where = f"The split {bare[0]!r} of {_top(found)}" if labelled else _top(found)
        raise DatasetFormatError(
            f"{where} has images and no masks.",
            found=f"{len(one.images):,} images, nothing in {one.masks_folder}",
            expected="a mask for every image of train and val; only a test split may be without",
            hint=f"Put each image's mask, a PNG of class ids at the same size and of the same name, into "
            f"{one.masks_folder}.",
        )
    return found


def _refuse_unpaired(found: Mapping[str, SplitFolders]) -> None:
    lines, count = [], 0
    for split, one in found.items():
        for what, names in (
            ("images without a mask", one.without_mask),
            ("masks without an image", one.without_image),
            ("files of one name", sorted(one.twice)),
        ):
            if names:
                count += len(names)
                more = f", … ({len(names)} in all)" if len(names) > 10 else ""
                lines.append(f"{split + ': ' if split else ''}{what}: {', '.join(names[:10])}{more}")
    if not lines:
        return
    one = next(one for one in found.values() if one.without_mask or one.without_image or one.twice)
    renamed = _suffix_hint(one)
    raise DatasetFormatError(
        f"{count} files in {_top(found)} have no partner.",
        found="\n".join(lines),
        expected=f"for every file in {one.images_folder} one in {one.masks_folder}; only suffixes may differ",
        hint=renamed or "Label what has no mask, or leave it out of a copy. What is wrong, file by file:",
        command=None if renamed else f"terrazzo check {quoted(_top(found))}",
    )


def _by_lists(found: SplitFolders, splits: Mapping[str, Any], root: Path) -> dict[str, Records]:
    listed = [name for names in splits.values() for name in names]
    gone = sorted(set(listed) - found.images.keys())
    if gone:
        raise DatasetFormatError(
            f'{root / description.FILE} lists {len(gone)} images in "splits" that are not there.',
            found=f"missing: {', '.join(gone[:10])}",
            expected=f"files of these names in {found.images_folder}",
        )
    return {split: found.records(sorted(names)) for split, names in splits.items()}


def _named_classes(
    root: Path, pairs: Mapping[str, SplitFolders], *, keep_void: bool
) -> label_space.LabelSpace:
    """The label space where there is no dataset.json."""
    path = class_names.find(root)
    if path is not None:
        return class_names.read(path, keep_void=keep_void)
    masks = [path for one in pairs.values() for path in one.masks.values()]
    looked = masks[:LOOK_AT_MOST]
    raise class_names.missing(
        root, (read_mask(path) for path in looked), looked=len(looked), total=len(masks)
    )


# -- looking around ----------------------------------------------------------------------------------------------------


def _scan(images_root: Path, masks_root: Path, below: str = "") -> SplitFolders:
    """What lies in images_root/images/below and masks_root/masks/below."""
    images_folder = images_root / "images" / below
    if not images_folder.is_dir():
        raise DatasetFormatError(f"There is no folder {images_folder}.", expected="the images of a split")
    there = [masks_root / name for name in MASK_FOLDERS if (masks_root / name).is_dir()]
    if len(there) > 1:
        raise DatasetFormatError(
            f"{masks_root} has more than one folder that may hold the masks.",
            found=", ".join(folder.name for folder in there),
            expected="one of them; masks/ is ours",
        )
    masks_folder = (there[0] if there else masks_root / MASK_FOLDERS[0]) / below
    images, twice_images = _by_stem(images_folder)
    masks, twice_masks = _by_stem(masks_folder)
    return SplitFolders(images_folder, masks_folder, images, masks, tuple(twice_images + twice_masks))


def _by_stem(folder: Path) -> tuple[dict[str, Path], list[str]]:
    found: dict[str, Path] = {}
    twice: list[str] = []
    skip = len(str(folder)) + 1
    for path in _images(folder):
        name = os.path.splitext(path[skip:])[0].replace(os.sep, "/")
        if name in found:
            twice += [str(found[name]), path]
        found[name] = Path(path)
    return found, twice


def _images(folder: Path, *, deep: bool = True) -> list[str]:
    """Image files below `folder`, sorted; hidden ones (.DS_Store, ._x.png) are not data. Links are followed once."""
    found, visited = [], set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if deep else []
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        found += [
            os.path.join(root, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
        ]
    return sorted(found)


def _folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _by_split_name(folders: Any) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None:
            continue
        if split in found:
            raise DatasetFormatError(
                f"{folder.parent} has two folders for one split.",
                found=f"{found[split].name} and {folder.name} are both {split!r}",
                hint='Say in dataset.json which is which: "splits": {"val": "…"}',
            )
        found[split] = folder
    order = ("train", "val", "test")
    return {split: found[split] for split in order if split in found}


def _listing(root: Path) -> str:
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in root.iterdir())
    return (
        ", ".join(names[:12]) + (f", … ({len(names)} entries)" if len(names) > 12 else "")
        if names
        else "nothing"
    )


def _top(found: Mapping[str, SplitFolders]) -> str:
    top = Path(os.path.commonpath([one.images_folder for one in found.values()]))
    return str(top.parent if top.name == "images" else top)


def _suffix_hint(one: SplitFolders) -> str | None:
    """Where every unpaired mask is called as its image with the same ending, name that ending."""
    endings = set()
    for name in one.without_image:
        partner = next((image for image in one.without_mask if name.startswith(image)), None)
        endings.add(None if partner is None else name[len(partner) :])
    if len(endings) != 1 or None in endings:
        return None
    return f"Every such mask has {endings.pop()!r} after its image's name: rename the masks without it."
