"""BDD100K: dash-camera frames of American roads; 19 classes as in Cityscapes, or where one may drive, or instances.

    RAW/bdd100k/images/10k/{train,val,test}/NAME.jpg            bdd100k_images_10k.zip
    RAW/bdd100k/labels/sem_seg/masks/{train,val}/NAME.png       bdd100k_sem_seg_labels_trainval.zip
    RAW/bdd100k/labels/ins_seg/bitmasks/{train,val}/NAME.png    bdd100k_ins_seg_labels_trainval.zip
    RAW/bdd100k/images/100k/{train,val,test}/NAME.jpg           bdd100k_images_100k.zip
    RAW/bdd100k/labels/drivable/masks/{train,val}/NAME.png      bdd100k_drivable_labels_trainval.zip

Folders, or the zips as they were downloaded. Yu et al., "BDD100K", CVPR 2020; ids are those of its documentation
(doc.bdd100k.com/format.html). sem_seg masks hold 0-18 and 255 for unknown, ignored; drivable ones 0 for the lane one
is in, 1 for another one may take, 2 for the rest. Bitmasks of instances are RGBA: R is the category, from 1; G holds
bits (8 truncated, 4 occluded, 2 crowd, 1 ignored); B and A number the instance, so A is no transparency. Pixels whose
crowd or ignored bit is set are ignored; where nothing is labelled is background, a class like any other.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.classes import Classes, Mask, Remap
from terrazzo.data.description import Description
from terrazzo.data.importers import cityscapes
from terrazzo.data.importers.downloads import Origin, by_place, collect, read
from terrazzo.data.importers.planning import Pair, Plan, Wanted, refuse_missing, refuse_part
from terrazzo.errors import DatasetFormatError, MaskValueError, MissingPathError
from terrazzo.images import decode_image, encode_mask

NAME = "BDD100K"
ANNOTATIONS = ("sem_seg", "drivable", "ins_seg")
WORDS = ()
FOLDERS = {"sem_seg": "sem_seg/masks", "drivable": "drivable/masks", "ins_seg": "ins_seg/bitmasks"}
IMAGES = {"sem_seg": "10k", "drivable": "100k", "ins_seg": "10k"}
COUNTS = {  # of images with masks, as published
    "sem_seg": {"train": 7_000, "val": 1_000},
    "drivable": {"train": 70_000, "val": 10_000},
    "ins_seg": {"train": 7_000, "val": 1_000},
}
LAYOUT = "bdd100k/images/{}/SPLIT/*.jpg and bdd100k/labels/{}/SPLIT/*.png"
UNKNOWN = 255  # no class that is scored
CROWD, IGNORED = 2, 1  # bits of a bitmask's G
INSTANCES = (
    "background",
    "pedestrian",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)  # by R
DRIVABLE = ("direct", "alternative", "background")
CLASSES = {
    "sem_seg": cityscapes.CLASSES,  # the same names in the same order, and the same colours
    "drivable": Classes(DRIVABLE, ((219, 94, 86), (86, 211, 219), (0, 0, 0))),
    "ins_seg": Classes(INSTANCES),
}
REMAPS = {
    kind: Remap(
        {**{raw: raw for raw in range(len(classes))}, **({} if kind == "drivable" else {UNKNOWN: None})},
        len(classes),
    )
    for kind, classes in CLASSES.items()
}


@dataclass(frozen=True)
class Bitmask:
    """A mask of instances: RGBA that is no colour."""

    origin: Origin
    """labels/ins_seg/bitmasks/SPLIT/NAME.png."""
    suffix: str = ".png"
    """Of the mask it becomes."""

    def read(self) -> bytes:
        """Return a PNG of the classes in it."""
        image = decode_image(read(self.origin), where=str(self.origin), channels=4)
        return encode_mask(categories(image, where=str(self.origin)))


def categories(bitmask: np.ndarray[Any, Any], *, where: str) -> Mask:
    """Return ids (H, W) uint8 of a bitmask (H, W, 4) uint8: R, or 255 where G says crowd or ignored."""
    red, bits = bitmask[..., 0], bitmask[..., 1]
    if bitmask.dtype != np.uint8 or red.max(initial=0) >= len(INSTANCES):
        strange = np.unique(red[red >= len(INSTANCES)]).tolist()
        raise MaskValueError(
            f"{where} is no bitmask of BDD100K.",
            found=f"categories {strange[:8]}, {bitmask.dtype}",
            expected=f"red 0-{len(INSTANCES) - 1}, 8 bits a channel",
            hint="labels/ins_seg/colormaps holds pictures for the eye; the masks are in labels/ins_seg/bitmasks.",
        )
    mask: Mask = np.where(bits & (CROWD | IGNORED), np.uint8(UNKNOWN), red)
    return mask


def find(
    root: Path, files: Mapping[str, Origin], *, annotations: str = "sem_seg", partial: bool = False
) -> dict[str, list[Pair]]:
    """Return {split: pairs sorted by name} of `files`, what lies where below bdd100k/.

    Raises DatasetFormatError listing every image without a mask and the reverse, or telling which counts are not the
    published ones. partial: what is there is taken. The images of test have no masks.
    """
    layout = LAYOUT.format(IMAGES[annotations], FOLDERS[annotations])
    images = by_place(files, rf"images/{IMAGES[annotations]}/(train|val|test)/([^/]+)\.jpg")
    masks = by_place(files, rf"labels/{FOLDERS[annotations]}/(train|val)/([^/]+)\.png")
    if not partial:
        missing = [
            f"labels/{FOLDERS[annotations]}/{split}/{name}.png"
            for split, name in images
            if split != "test" and (split, name) not in masks
        ]
        missing += [
            f"images/{IMAGES[annotations]}/{split}/{name}.jpg"
            for split, name in masks
            if (split, name) not in images
        ]
        refuse_missing(sorted(missing), root=root, format_name=NAME, layout=layout)
    pairs: dict[str, list[Pair]] = {}
    for (split, name), image in sorted(images.items()):
        mask = masks.get((split, name))
        if mask is not None or split == "test":
            whole = Bitmask(mask) if mask is not None and annotations == "ins_seg" else mask
            pairs.setdefault(split, []).append(Pair(name, image, whole))
    if not partial:
        counts = {split: len(pairs.get(split, ())) for split in COUNTS[annotations]}
        refuse_part(
            counts, COUNTS[annotations], name="BDD100K", format_name="bdd100k", what="images with masks"
        )
    return pairs


def plan(root: Path, wanted: Wanted, stack: ExitStack) -> Plan:
    """Pair the download at `root`, folders or zips, which stay open until `stack` closes.

    wanted.annotations: "sem_seg", "drivable" or "ins_seg". Ids in the masks stay as published; 255 is ignored. Raises
    as `find` does.
    """
    annotations = wanted.annotations or ANNOTATIONS[0]
    layout = LAYOUT.format(IMAGES[annotations], FOLDERS[annotations])
    if not root.is_dir():
        raise MissingPathError(f"There is no folder {root}.", expected=f"{NAME}: {layout}, or its zips")
    zips = f"bdd100k_images_{IMAGES[annotations]}.zip", f"bdd100k_{annotations}_labels_trainval.zip"
    if (root / "images").is_dir():
        parts = [collect(root, name, (), stack) for name in ("images", "labels")]
        files = {place: origin for part in parts for place, origin in part.items()}
    else:
        found = collect(root, "bdd100k", zips, stack)
        files = {place.removeprefix("bdd100k/"): origin for place, origin in found.items()}
    folders = f"images/{IMAGES[annotations]}/", f"labels/{FOLDERS[annotations]}/"
    refuse_missing(
        [
            f"{root}/bdd100k/{folder}, or {root / archive}"
            for folder, archive in zip(folders, zips, strict=True)
            if not any(place.startswith(folder) for place in files)
        ],
        root=root,
        format_name=NAME,
        layout=layout,
        hint="They are downloaded, after registration, from http://bdd-data.berkeley.edu",
    )
    pairs = find(root, files, annotations=annotations, partial=wanted.partial)
    if "train" not in pairs:
        raise DatasetFormatError(f"{root} has no training images.", found=", ".join(pairs) or "no images")
    kinds = {"sem_seg": "", "drivable": ", drivable area", "ins_seg": ", instances as classes"}
    description = Description(
        classes=CLASSES[annotations],
        remap=REMAPS[annotations],
        raw_names={} if annotations == "drivable" else {UNKNOWN: "unknown"},
        name=NAME + kinds[annotations],
        # doc/source/license.rst of bdd100k/bdd100k, as of commit 0813aaa
        license="BDD100K license: education, research and not-for-profit; non-commercial but for members of BDD",
        source="Yu et al., CVPR 2020; https://doc.bdd100k.com, https://doc.bdd100k.com/license.html",
        groups=r"^([^-]+)-",  # 0000f77c-6257be58: the drive
    )
    return Plan(pairs, description)
