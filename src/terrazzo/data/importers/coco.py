"""COCO, and whatever else comes in its form: instances or panoptic segments in JSON, or COCO-Stuff's maps.

    RAW/annotations/instances_{train,val}2017.json       annotations_trainval2017.zip
    RAW/annotations/panoptic_{train,val}2017.json        panoptic_annotations_trainval2017.zip, and, unpacked from it,
    RAW/annotations/panoptic_{train,val}2017/NAME.png    or panoptic_{train,val}2017.zip in RAW/annotations
    RAW/{train,val}2017/NAME.png                         stuffthingmaps_trainval2017.zip
    RAW/{train,val}2017/NAME.jpg                         train2017.zip, val2017.zip; or in RAW/images

Folders, or the zips as they were downloaded; other exports may call the sets as they like (instances_default.json).
Lin et al., "Microsoft COCO", ECCV 2014; Kirillov et al., "Panoptic Segmentation", CVPR 2019; Caesar et al.,
"COCO-Stuff", CVPR 2018. Masks hold the categories' own, sparse ids; the table in dataset.json makes 0 … K-1 of them.

Instances become a mask by painting the large ones first; crowds, which nobody told apart, are painted before all others
and ignored. What nobody labelled is "background", a class of its own, and so is the whole of an image without
annotations: a negative. Panoptic segments that are crowds, and pixels of no segment, are ignored. A JSON file holds
what anybody wrote: paths that leave the folder, doubled names, sizes and runs that do not fit are refused, all at once.
"""

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from terrazzo.classes import Classes, Remap
from terrazzo.data.description import Description
from terrazzo.data.importers.coco_json import checked, parsed
from terrazzo.data.importers.coco_masks import BACKGROUND, Ids, Painted, Segments
from terrazzo.data.importers.coco_names import STUFF
from terrazzo.data.importers.downloads import Origin, collect
from terrazzo.data.importers.planning import Pair, Piece, Plan, Wanted, refuse_missing
from terrazzo.errors import DatasetFormatError, MissingPathError

NAME = "COCO"
ANNOTATIONS = ("instances", "panoptic", "stuff")
WORDS = ()
ZIPS = {
    "instances": ("annotations_trainval2017.zip",),
    "panoptic": ("panoptic_annotations_trainval2017.zip",),
    "stuff": (),
}
LAYOUTS = {
    "instances": "annotations/instances_SET.json, and the images in SET/ or images/",
    "panoptic": "annotations/panoptic_SET.json, annotations/panoptic_SET/*.png, and the images in SET/ or images/",
    "stuff": "stuffthingmaps_trainval2017.zip or SET/*.png, and the images in SET/*.jpg, SET being train2017, val2017",
}
STUFF_MAPS = "stuffthingmaps_trainval2017.zip"
STUFF_VOID = 255  # unlabelled in a stuffthingmap


def plan(root: Path, wanted: Wanted, stack: ExitStack) -> Plan:
    """Pair the download at `root`, folders or zips, which stay open until `stack` closes.

    wanted.annotations: "instances", "panoptic" or "stuff". wanted.partial: images and PNGs that are named and not there
    are left out. A JSON file is held in memory whole, which takes several times its size. Raises as `find` does.
    """
    annotations = wanted.annotations or ANNOTATIONS[0]
    if not root.is_dir():
        raise MissingPathError(f"There is no folder {root}.", expected=f"{NAME}: {LAYOUTS[annotations]}")
    if annotations == "stuff":
        pairs = find_stuff(root, stack, partial=wanted.partial)
        classes = Classes(tuple(STUFF.values()))
        table: dict[int, int | None] = {raw: i for i, raw in enumerate(STUFF)}
        remap, raw_names = Remap({**table, STUFF_VOID: None}, len(STUFF)), {STUFF_VOID: "unlabeled"}
    else:
        pairs, ids = find(root, stack, annotations=annotations, partial=wanted.partial)
        names = dict(ids.categories)
        if annotations == "instances":
            names = {**({ids.background: BACKGROUND} if ids.background not in names else {}), **names}
        classes = Classes(tuple(names.values()))
        table = {raw: i for i, raw in enumerate(names)}
        remap, raw_names = Remap({**table, ids.void: None}, len(names)), {ids.void: "ignored"}
    if "train" not in pairs:
        raise DatasetFormatError(f"{root} has no training images.", found=", ".join(pairs) or "no images")
    description = Description(
        classes=classes,
        remap=remap,
        raw_names=raw_names,
        name=f"{NAME} {annotations}",
        # https://cocodataset.org/#termsofuse, which cocodataset.github.io keeps as dataset/termsofuse.htm
        license="as its publisher states; COCO: annotations CC BY 4.0, images by Flickr's terms",
        source="in COCO's form; COCO itself: Lin et al., ECCV 2014; https://cocodataset.org",
    )
    return Plan(pairs, description)


def find(
    root: Path, stack: ExitStack, *, annotations: str = "instances", partial: bool = False
) -> tuple[dict[str, list[Pair]], Ids]:
    """Return ({split: pairs sorted by name}, what the masks hold) of the JSON files at `root`.

    Zips stay open until `stack` closes. Raises DatasetFormatError listing every problem of a JSON file, or every image
    and PNG that is named and not there; with `partial` the latter are left out.
    """
    files = collect(root, "annotations", ZIPS[annotations], stack)
    sets = {
        m[1]: files[m[0]]
        for path in files
        if (m := re.fullmatch(rf"annotations/{annotations}_([\w-]+)\.json", path))
    }
    refuse_missing(
        [] if sets else [f"{root}/annotations/{annotations}_SET.json, or {root / ZIPS[annotations][0]}"],
        root=root,
        format_name=NAME,
        layout=LAYOUTS[annotations],
    )
    twice = [split for split, count in Counter(map(_split_of, sets)).items() if count > 1]
    if twice:
        raise DatasetFormatError(
            f"{root} has several sets for {' and '.join(twice)}.",
            found=", ".join(sorted(sets)),
            expected="one JSON file for each of train, val and test",
        )
    said = {
        name: checked(parsed(origin), annotations, where=str(origin)) for name, origin in sorted(sets.items())
    }
    categories: dict[int, str] = {}
    for name, value in said.items():
        for raw, called in value["categories"].items():
            if categories.setdefault(raw, called) != called:
                raise DatasetFormatError(
                    f"Category {raw} has two names.", found=f"{categories[raw]!r}, and {called!r} in {name}"
                )
    ids = Ids.of(dict(sorted(categories.items())), has_background=annotations == "instances")
    pairs: dict[str, list[Pair]] = {}
    missing: list[str] = []
    for name, value in said.items():
        photographs = {
            **collect(root, "images", ("images.zip",), stack),
            **collect(root, name, (f"{name}.zip",), stack),
        }
        pngs: Mapping[str, Origin] = {}
        if annotations == "panoptic":
            folder = f"panoptic_{name}"
            pngs = collect(root / "annotations", folder, (f"{folder}.zip",), stack)
        members = []
        for image in value["images"]:
            file_name = image["file_name"]
            places = (f"{name}/{file_name}", f"images/{name}/{file_name}", f"images/{file_name}")
            photograph = next((photographs[place] for place in places if place in photographs), None)
            objects = value["objects"].get(image["id"], ())
            png = None
            if annotations == "panoptic":
                png = pngs.get(f"panoptic_{name}/{objects[0]['file_name']}") if objects else None
                if png is None:
                    missing.append(f"annotations/panoptic_{name}/{PurePosixPath(file_name).stem}.png")
            if photograph is None:
                missing.append(f"{name}/{file_name}")
            if photograph is None or (png is None and annotations == "panoptic"):
                continue
            mask: Piece
            if png is None:
                mask = Painted(photograph, (image["height"], image["width"]), tuple(objects), ids)
            else:
                segments = objects[0]["segments_info"]
                raw_of = {s["id"]: ids.void if s.get("iscrowd") else s["category_id"] for s in segments}
                mask = Segments(photograph, png, raw_of, ids)
            members.append(Pair(str(PurePosixPath(file_name).with_suffix("")), photograph, mask))
        if members:
            pairs[_split_of(name)] = sorted(members, key=lambda pair: pair.name)
    if not partial:
        refuse_missing(missing, root=root, format_name=NAME, layout=LAYOUTS[annotations])
    return pairs, ids


def find_stuff(root: Path, stack: ExitStack, *, partial: bool = False) -> dict[str, list[Pair]]:
    """Return {split: pairs sorted by name} of COCO-Stuff's maps; raises as `find` does."""
    pairs: dict[str, list[Pair]] = {}
    missing: list[str] = []
    for name, split in (("train2017", "train"), ("val2017", "val")):
        own = {**collect(root, "images", (), stack), **collect(root, name, (f"{name}.zip",), stack)}
        maps = {**own, **collect(root, name, (STUFF_MAPS,), stack), **collect(root, "annotations", (), stack)}
        images = {
            PurePosixPath(p).stem: o
            for p, o in own.items()
            if re.fullmatch(rf"(images/)?{name}/[^/]+\.jpg", p)
        }
        masks = {
            PurePosixPath(p).stem: o
            for p, o in maps.items()
            if re.fullmatch(rf"(annotations/)?{name}/[^/]+\.png", p)
        }
        missing += [f"{name}/{stem}.jpg" for stem in sorted(masks) if stem not in images]
        missing += [f"{name}/{stem}.png, or {STUFF_MAPS}" for stem in sorted(images) if stem not in masks]
        members = [Pair(stem, images[stem], masks[stem]) for stem in sorted(images) if stem in masks]
        if members:
            pairs[split] = members
    if not partial:
        refuse_missing(
            missing or ([] if pairs else ["train2017/*.jpg", STUFF_MAPS]),
            root=root,
            format_name=NAME,
            layout=LAYOUTS["stuff"],
        )
    return pairs


def _split_of(name: str) -> str:
    """train2017 -> train; valid -> val; whatever else, such as CVAT's "default", is there to be trained on."""
    return next((split for split in ("val", "test") if name.lower().startswith(split)), "train")
