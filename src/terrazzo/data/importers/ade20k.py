"""ADE20K: scenes of everyday life, indoors and out; the benchmark's 150 classes, or all of the full release.

    RAW/ADEChallengeData2016/images/{training,validation}/ADE_train_00000001.jpg     ADEChallengeData2016.zip
    RAW/ADEChallengeData2016/annotations/{training,validation}/ADE_train_00000001.png
    RAW/ADEChallengeData2016/objectInfo150.txt
    RAW/release_test/testing/ADE_test_00000001.jpg                                   release_test.zip, if you like

    RAW/ADE20K_2021_17_01/images/ADE/{training,validation}/SCENE/…/ADE_train_00000001.jpg, …_seg.png, ….json  (full)

Folders, or the zips as they were downloaded. Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017. A mask of
the benchmark holds 0 for "other", which is ignored, and 1-150; the table in dataset.json makes 0-149 of them, once. The
mask files keep their numbers, so nothing is ever subtracted from them, here or later.

A mask of the full release is RGB: class = R // 10 * 256 + G, B numbers the instances (CSAILVision/ADE20K,
utils_ade20k.py). Each image's JSON names the classes in it ("name_ndx", "name"); the numbers are those of the masks, as
CSAILVision/sceneparsing, mapFromADE.txt, shows for 150 of them. Parts of objects stay behind.
"""

import json
import re
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
from terrazzo.errors import DatasetFormatError, MaskValueError, MissingPathError
from terrazzo.images import decode_image, encode_mask

NAME = "ADE20K"
ANNOTATIONS = ("150", "full")
WORDS = ()
SPLITS = {"training": "train", "validation": "val"}
COUNTS = {"150": {"train": 20_210, "val": 2_000}, "full": {"train": 25_574, "val": 2_000}}  # as published
FOLDERS = {"150": "ADEChallengeData2016", "full": "ADE20K_2021_17_01"}
LAYOUTS = {
    "150": "ADEChallengeData2016/images/{training,validation}/*.jpg and annotations/{training,validation}/*.png",
    "full": "ADE20K_2021_17_01/images/ADE/{training,validation}/**/*.jpg, *_seg.png and *.json",
}
OTHER = 0  # pixels of none of the classes
LISTED = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth,
door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug,
field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column,
signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path,
stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table,
toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar,
arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television
receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster,
stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket,
waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal,
bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan,
pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""
NAMES = tuple(" ".join(name.split()) for name in LISTED.split(","))  # as networks trained on it call them
REMAP = Remap({OTHER: None, **{class_id + 1: class_id for class_id in range(len(NAMES))}}, len(NAMES))


@dataclass(frozen=True)
class Coded:
    """A mask of the full release: RGB whose R and G say the class."""

    origin: Origin
    """A _seg.png."""
    known: frozenset[int]
    """The numbers that some JSON names."""
    suffix: str = ".png"
    """Of the mask it becomes."""

    def read(self) -> bytes:
        """Return a PNG of its class numbers, 16 bits each."""
        mask = numbers(decode_image(read(self.origin), where=str(self.origin), channels=3))
        strange = sorted(set(np.unique(mask).tolist()) - self.known - {OTHER})
        if strange:
            raise MaskValueError(
                f"The mask {self.origin} has classes that no JSON of the data set names.",
                found=", ".join(map(str, strange[:8])),
                expected="class = R // 10 * 256 + G, as the masks were published",
            )
        return encode_mask(mask)


def numbers(image: np.ndarray[Any, Any]) -> Mask:
    """Return the class numbers (H, W) uint16 of a _seg.png (H, W, 3) uint8; 0 where nothing is labelled."""
    red, green = image[..., 0].astype(np.uint16), image[..., 1].astype(np.uint16)
    mask: Mask = red // np.uint16(10) * np.uint16(256) + green
    return mask


def find(
    root: Path, files: Mapping[str, Origin], *, annotations: str = "150", partial: bool = False
) -> dict[str, list[Pair]]:
    """Return {split: pairs sorted by name} of `files`, what lies where below the release's folder.

    Raises DatasetFormatError listing every image without a mask and the reverse, or telling which counts are not the
    published ones. partial: what is there is taken.
    """
    if annotations == "full":
        images = by_place(files, r"images/ADE/(training|validation)/(.+)\.jpg")
        masks = by_place(files, r"images/ADE/(training|validation)/(.+)_seg\.png")
    else:
        images = by_place(files, r"images/(training|validation|testing)/(.+)\.jpg")
        masks = by_place(files, r"annotations/(training|validation)/(.+)\.png")
    missing = [
        f"the mask of {split}/{name}"
        for split, name in images
        if split != "testing" and (split, name) not in masks
    ]
    missing += [f"the image of {split}/{name}" for split, name in masks if (split, name) not in images]
    missing += [
        f"images of {split}" for split in SPLITS if not partial and all(split != of for of, _ in images)
    ]
    if not partial:
        refuse_missing(sorted(missing), root=root, format_name=NAME, layout=LAYOUTS[annotations])
    pairs: dict[str, list[Pair]] = {}
    for (split, name), image in sorted(images.items()):
        mask = masks.get((split, name))
        if mask is not None or split == "testing":
            pairs.setdefault(SPLITS.get(split, "test"), []).append(Pair(name, image, mask))
    if not partial:
        counts = {split: len(pairs.get(split, ())) for split in COUNTS[annotations]}
        refuse_part(counts, COUNTS[annotations], name="ADE20K", format_name="ade20k")
    return pairs


def plan(root: Path, wanted: Wanted, stack: ExitStack) -> Plan:
    """Pair the download at `root`, folders or zips, which stay open until `stack` closes.

    wanted.annotations: "150" or "full", whose classes are those that its JSON files name. Raises as `find` does.
    """
    annotations = wanted.annotations or ANNOTATIONS[0]
    if not root.is_dir():
        raise MissingPathError(f"There is no folder {root}.", expected=f"{NAME}: {LAYOUTS[annotations]}")
    files = _files(root, annotations, stack)
    pairs = find(root, files, annotations=annotations, partial=wanted.partial)
    if "train" not in pairs:
        raise DatasetFormatError(f"{root} has no training images.", found=", ".join(pairs) or "no images")
    classes, remap, raw_names = Classes(_names(files)), REMAP, {OTHER: "other"}
    if annotations == "full":
        named = _named(files)
        classes = Classes(tuple(named.values()))
        remap = Remap({OTHER: None, **{raw: i for i, raw in enumerate(named)}}, len(named))
        raw_names = {OTHER: "unlabeled"}
        known = frozenset(named)
        pairs = {
            split: [
                Pair(pair.name, pair.image, Coded(files[f"images/ADE/{folder}/{pair.name}_seg.png"], known))
                for pair in pairs[split]
            ]
            for folder, split in SPLITS.items()
            if split in pairs
        }
    description = Description(
        classes=classes,
        remap=remap,
        raw_names=raw_names,
        name=NAME if annotations == "150" else f"{NAME}, full",
        license="BSD 3-clause for annotations; images for non-commercial research and education"
        if annotations == "150"
        else "ADE20K terms of use: non-commercial research and education",
        source="Zhou et al., CVPR 2017; https://groups.csail.mit.edu/vision/datasets/ADE20K/",
    )
    return Plan(pairs, description)


def _files(root: Path, annotations: str, stack: ExitStack) -> dict[str, Origin]:
    """{path below the release's folder: where it lies}; `root` holds that folder or its zip, or is that folder."""
    folder = FOLDERS[annotations]
    if (root / "images").is_dir():
        inside = [collect(root, name, (), stack) for name in ("images", "annotations")]
        files = {place: origin for part in inside for place, origin in part.items()}
        if (root / "objectInfo150.txt").is_file():
            files["objectInfo150.txt"] = root / "objectInfo150.txt"
    else:
        found = collect(root, folder, (f"{folder}.zip",), stack)
        files = {place.removeprefix(f"{folder}/"): origin for place, origin in found.items()}
    if annotations == "150":
        for place, origin in collect(root, "release_test", ("release_test.zip",), stack).items():
            files[place.replace("release_test/testing/", "images/testing/", 1)] = origin
    if not any(place.startswith("images/") for place in files):
        refuse_missing(
            [f"{root / folder}/images/, or {root / folder}.zip"],
            root=root,
            format_name=NAME,
            layout=LAYOUTS[annotations],
            hint="It is downloaded from https://groups.csail.mit.edu/vision/datasets/ADE20K/ (the benchmark's part: "
            "http://sceneparsing.csail.mit.edu).",
        )
    return files


def _names(files: Mapping[str, Origin]) -> tuple[str, ...]:
    """The 150 names: ours, or what a line of objectInfo150.txt has first where ours is not among its words."""
    origin = files.get("objectInfo150.txt")
    if origin is None:
        return NAMES
    lines = read(origin).decode("utf-8", errors="replace").splitlines()[1:]
    rows = [line.split("\t") for line in lines if line.strip()]
    numbered = {row[0].strip(): [word.strip() for word in row[-1].split(",")] for row in rows}
    listed = [numbered.get(str(raw), [""]) for raw in range(1, len(NAMES) + 1)]
    names = tuple(ours if ours in words else words[0] for ours, words in zip(NAMES, listed, strict=True))
    if len(rows) != len(NAMES) or not all(names) or len(set(names)) != len(NAMES):
        raise DatasetFormatError(
            f"{origin} is not the list of the benchmark's 150 classes.",
            found=f"{len(rows)} lines, {len(set(names) - {''})} different names for 1-150",
            expected="a head, then Idx, Ratio, Train, Val and Name in 150 lines, with tabs between",
            hint="Download it again, or take it away: the names are known here too.",
        )
    return names


def _named(files: Mapping[str, Origin]) -> dict[int, str]:
    """{class number: name} of the full release, by number, from all JSON files; parts of objects are none."""
    named: dict[int, str] = {}
    for place, origin in sorted(files.items()):
        if not re.fullmatch(r"images/ADE/(training|validation)/.+\.json", place):
            continue
        try:
            for one in json.loads(read(origin).decode("utf-8", errors="replace"))["annotation"]["object"]:
                if int(one["parts"]["part_level"]) == 0:
                    named.setdefault(int(one["name_ndx"]), " ".join(str(one["name"]).split()))
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DatasetFormatError(
                f"{origin} does not name its objects.",
                found=f"{type(error).__name__}: {error}",
                expected='{"annotation": {"object": [{"name", "name_ndx", "parts": {"part_level"}}]}}',
            ) from error
    named.pop(OTHER, None)
    strange = sorted(raw for raw in named if not 0 < raw < 1 << 16)
    if strange or not named:
        raise DatasetFormatError(
            "The JSON files of ADE20K name no classes that a mask could hold.",
            found=f"numbers such as {strange[:4]}" if strange else "no JSON file with objects",
            expected=LAYOUTS["full"],
        )
    names = list(named.values())
    return {
        raw: f"{name or 'class'} ({raw})" if not name or names.count(name) > 1 else name
        for raw, name in sorted(named.items())
    }
