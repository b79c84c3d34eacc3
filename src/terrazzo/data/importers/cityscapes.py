"""Cityscapes: 2048x1024 street scenes of fifty cities, 19 classes; fine labels, or coarse ones.

    RAW/leftImg8bit/{train,val,test}/CITY/CITY_SEQ_FRAME_leftImg8bit.png         leftImg8bit_trainvaltest.zip
    RAW/gtFine/{train,val}/CITY/CITY_SEQ_FRAME_gtFine_labelIds.png               gtFine_trainvaltest.zip
                                                or …_gtFine_polygons.json
    RAW/gtCoarse/{train,train_extra,val}/CITY/…_gtCoarse_labelIds.png            gtCoarse.zip
    RAW/leftImg8bit/train_extra/CITY/…                                           leftImg8bit_trainextra.zip

Folders, or the zips as they were downloaded, lie in RAW; the zips are read as they are. Cordts et al., "The Cityscapes
Dataset for Semantic Urban Scene Understanding", CVPR 2016; ids, names and colours are those of the authors'
cityscapesscripts (helpers/labels.py). Masks keep their raw ids 0-33, and the table in dataset.json makes 19 classes of
them. Where there is no labelIds file, its polygons are drawn, in the order they are listed, as json2labelImg.py does.

The published masks of test are dummies and stay behind. Coarse labels: train is train and, where its images were
downloaded, train_extra; val has coarse masks too, so scores on it are not those of the benchmark.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.classes import Classes, Mask, Remap
from terrazzo.data.description import Description
from terrazzo.data.importers.downloads import Origin, by_place, collect, read
from terrazzo.data.importers.planning import Pair, Plan, Wanted, refuse_missing, refuse_part
from terrazzo.errors import DatasetFormatError, MissingPathError
from terrazzo.images import encode_mask

NAME = "Cityscapes"
ANNOTATIONS = ("fine", "coarse")
WORDS = ()
COUNTS: Mapping[str, Mapping[str, int]] = {  # of images, as published; train_extra is there or not
    "fine": {"train": 2_975, "val": 500, "test": 1_525},
    "coarse": {"train": 2_975, "val": 500, "test": 1_525, "train_extra": 19_998},
}
IMAGES = "leftImg8bit", ("leftImg8bit_trainvaltest.zip", "leftImg8bit_trainextra.zip")
LABELS = {"fine": ("gtFine", ("gtFine_trainvaltest.zip",)), "coarse": ("gtCoarse", ("gtCoarse.zip",))}
LAYOUT = "leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and {0}/SPLIT/CITY/*_{0}_labelIds.png (or _polygons.json)"
MAX_SIDE = 16_384  # pixels; a polygon file that claims more is damaged

RAW: tuple[
    tuple[str, tuple[int, int, int] | None], ...
] = (  # raw id -> name, and the colour of what is scored
    ("unlabeled", None),
    ("ego vehicle", None),
    ("rectification border", None),
    ("out of roi", None),
    ("static", None),
    ("dynamic", None),
    ("ground", None),
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("parking", None),
    ("rail track", None),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("guard rail", None),
    ("bridge", None),
    ("tunnel", None),
    ("pole", (153, 153, 153)),
    ("polegroup", None),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("caravan", None),
    ("trailer", None),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
)
RAW_IDS = {name: raw for raw, (name, _) in enumerate(RAW)}
NEVER_DRAWN = "license plate"  # raw id -1
SCORED = tuple((name, color) for name, color in RAW if color is not None)
CLASSES = Classes(tuple(name for name, _ in SCORED), tuple(color for _, color in SCORED))
REMAP = Remap(
    {raw: CLASSES.names.index(name) if name in CLASSES.names else None for name, raw in RAW_IDS.items()},
    len(CLASSES),
)


@dataclass(frozen=True)
class Polygons:
    """A mask that is still a list of polygons."""

    origin: Origin
    """The polygons.json."""

    @property
    def suffix(self) -> str:
        """Of the mask it becomes."""
        return ".png"

    def read(self) -> bytes:
        """Return a PNG of it, drawn."""
        return encode_mask(draw(_parsed(self.origin), where=str(self.origin)))


def find(
    root: Path, files: Mapping[str, Origin], *, annotations: str = "fine", partial: bool = False
) -> dict[str, list[Pair]]:
    """Return {split: pairs sorted by name} of `files`, what lies where below `root` (`downloads.collect`).

    Names are "CITY/CITY_SEQ_FRAME".

    Raises DatasetFormatError listing every image without labels and the reverse, or telling which counts are not the
    published ones. partial: what is there is taken; labels without an image, and other counts, are no error.
    """
    folder = LABELS[annotations][0]
    images = by_place(files, r"leftImg8bit/([^/]+)/([^/]+)/([^/]+)_leftImg8bit\.png")
    polygons = by_place(files, rf"{folder}/([^/]+)/([^/]+)/([^/]+)_{folder}_polygons\.json")
    drawn = by_place(files, rf"{folder}/([^/]+)/([^/]+)/([^/]+)_{folder}_labelIds\.png")
    labels = {**{place: Polygons(origin) for place, origin in polygons.items()}, **drawn}
    splits = ["train", "val"] + ["train_extra"] * (annotations == "coarse")
    has_extra = any(split == "train_extra" for split, _ in images)
    missing = [
        f"{folder}/{split}/{name}_{folder}_labelIds.png"
        for split, name in images
        if split in splits and (split, name) not in labels
    ]
    if not partial:
        missing += [
            f"leftImg8bit/{split}/{name}_leftImg8bit.png"
            for split, name in labels
            if split in splits and (split != "train_extra" or has_extra) and (split, name) not in images
        ]
    refuse_missing(sorted(missing), root=root, format_name=NAME, layout=LAYOUT.format(folder))
    if not partial:
        _check_counts(images, COUNTS[annotations])
    pairs: dict[str, list[Pair]] = {"train": [], "val": [], "test": []}
    for (split, name), image in sorted(images.items()):
        if split not in (*splits, "test"):  # such as demoVideo
            continue
        mask = labels.get((split, name)) if split in splits else None
        pairs.setdefault("train" if split == "train_extra" else split, []).append(Pair(name, image, mask))
    return {split: members for split, members in pairs.items() if members}


def plan(root: Path, wanted: Wanted, stack: ExitStack) -> Plan:
    """Pair the download at `root`, folders or zips, which stay open until `stack` closes.

    wanted.annotations: "fine" or "coarse". Cities stay sub-folders. Ids in the masks stay raw; the table is kept.
    Raises as `find` does.
    """
    annotations = wanted.annotations or ANNOTATIONS[0]
    packages = (IMAGES, LABELS[annotations])
    if not root.is_dir():
        raise MissingPathError(
            f"There is no folder {root}.",
            expected=f"Cityscapes: {LAYOUT.format(packages[1][0])}, or its zips",
        )
    found = {folder: collect(root, folder, zips, stack) for folder, zips in packages}
    refuse_missing(
        [f"{root / folder}/, or {root / zips[0]}" for folder, zips in packages if not found[folder]],
        root=root,
        format_name=NAME,
        layout=LAYOUT.format(packages[1][0]),
        hint="They are downloaded, after registration, from https://www.cityscapes-dataset.com/downloads/",
    )
    files = {place: origin for package in found.values() for place, origin in package.items()}
    pairs = find(root, files, annotations=annotations, partial=wanted.partial)
    if "train" not in pairs:
        raise DatasetFormatError(
            f"{root} has no training images.",
            found=", ".join(pairs) or "no images",
            expected="some of train",
        )
    description = Description(
        classes=CLASSES,
        remap=REMAP,
        raw_names={raw: name for name, raw in RAW_IDS.items()},
        name=NAME if annotations == "fine" else f"{NAME}, coarse labels",
        license="Cityscapes terms of use: non-commercial, no redistribution",
        source="Cordts et al., CVPR 2016; https://www.cityscapes-dataset.com",
        groups=r"([^/]+?)(?:_\d+)?$",  # aachen_000000 of aachen/aachen_000000_000019: the sequence
    )
    return Plan(pairs, description)


def draw(polygons: Any, *, where: str) -> Mask:
    """Return the raw ids (H, W) uint8 of a polygons.json: painted in the order they are listed, later over earlier.

    Names decide; "cargroup" and its like, several objects that nobody could tell apart, are their class. What nothing
    covers is unlabeled, 0; deleted objects and license plates are not drawn. Pillow paints, as for the published
    masks, whose pixels along an edge may come from another version of it. `where` names the file in errors.
    """
    from PIL import Image, ImageDraw

    height, width, objects = _checked(polygons, where)
    canvas = Image.new("L", (width, height), RAW_IDS["unlabeled"])
    pen = ImageDraw.Draw(canvas)
    for name, corners in objects:
        if name != NEVER_DRAWN:
            pen.polygon(corners, fill=RAW_IDS[name])
    return np.array(canvas)


def _checked(polygons: Any, where: str) -> tuple[int, int, list[tuple[str, list[tuple[float, float]]]]]:
    """Height, width and the objects to draw, (name, corners), of a polygons.json that may hold anything."""
    try:
        height, width = int(polygons["imgHeight"]), int(polygons["imgWidth"])
        listed = [one for one in polygons["objects"] if not one.get("deleted")]
        objects = [
            (_class_of(str(one["label"])), [(float(x), float(y)) for x, y in one["polygon"]])
            for one in listed
        ]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DatasetFormatError(
            f"{where} is no list of polygons.",
            found=f"{type(error).__name__}: {error}",
            expected='{"imgHeight", "imgWidth", "objects": [{"label", "polygon": [[x, y], …]}]}',
        ) from error
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise DatasetFormatError(
            f"{where} claims an image of {height:,} x {width:,} pixels (height x width).",
            expected=f"1 to {MAX_SIDE:,} a side; Cityscapes' are 1,024 x 2,048",
        )
    unknown = sorted({name for name, _ in objects if name not in RAW_IDS and name != NEVER_DRAWN})
    short = sum(len(corners) < 2 for _, corners in objects)
    far = sum(not abs(number) <= 1e6 for _, corners in objects for corner in corners for number in corner)
    if unknown or short or far:
        raise DatasetFormatError(
            f"{where} cannot be drawn.",
            found=f"names {', '.join(unknown)}" if unknown else f"{short + far} polygons without a shape",
            expected=f"names of Cityscapes ({len(RAW)} of them), each with corners in the image",
        )
    return height, width, objects


def _class_of(name: str) -> str:
    return name.removesuffix("group") if name not in RAW_IDS else name


def _parsed(origin: Origin) -> Any:
    try:
        return json.loads(read(origin))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DatasetFormatError(
            f"{origin} is not valid JSON.",
            found=str(error),
            hint="Download it again from where it is published.",
        ) from error


def _check_counts(images: Mapping[tuple[str, str], Origin], published: Mapping[str, int]) -> None:
    counts = {wanted: sum(split == wanted for split, _ in images) for wanted in published}
    wrong = [
        split
        for split, count in counts.items()
        if count != published[split] and (count or split != "train_extra")
    ]
    refuse_part(
        {split: counts[split] for split in wrong},
        {split: published[split] for split in wrong},
        name="Cityscapes",
        format_name="cityscapes",
    )
