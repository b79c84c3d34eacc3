"""A release given out: our folder, a table as the walk-through's, Segments.ai's JSON and bitmaps, COCO panoptic.

Each is a pure function of the release: no time, no path of this machine, samples by name, JSON with sorted keys. Images
are the files themselves, masks are PNG. A sample's name becomes a file's where it can be one, else a number. A folder
and a table hold what was finished (labelled or reviewed), for that is what one trains on; the other two hold statuses
or are labels of whole images, and say so.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import Classes, Remap, is_void
from terrazzo.data.description import Description, write_description
from terrazzo.errors import ProjectError
from terrazzo.images import encode_image, encode_mask
from terrazzo.project.manifest import Member
from terrazzo.project.records import short_names
from terrazzo.project.releases import Release
from terrazzo.project.statuses import FINISHED, TO_SEGMENTS, known
from terrazzo.storage import write_json

PLAIN = re.compile(r"[A-Za-z0-9_ ()+,=@~-][\w ()+,=@~.-]*", re.ASCII)
RESERVED = re.compile(
    r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE
)  # names that Windows keeps for itself
LABELSET = "ground-truth"


def folder(release: Release, out: Path) -> None:
    """Write our folder: images, masks of category ids, and the table in dataset.json."""
    scored = [one for one in release.categories if not one.is_ignore]
    if not scored:
        raise ProjectError(f"The release {release.name} has no categories to train on.")
    splits: dict[str, str] = {}
    for split, stem, member in _finished(release):
        splits[split] = split
        _write(out / split / "images" / f"{stem}{_suffix(member)}", release.image(member))
        _write(out / split / "masks" / f"{stem}.png", encode_mask(_category_ids(release, member)))
    ignored = {0: None, **{one.id: None for one in release.categories if one.is_ignore}}
    table: dict[int, int | None] = {**ignored, **{one.id: class_id for class_id, one in enumerate(scored)}}
    description = Description(
        classes=Classes(tuple(one.name for one in scored), tuple(one.color for one in scored)),
        remap=Remap(table, len(scored)),
        raw_names={one.id: one.name for one in release.categories if one.is_ignore},
        name=f"{release.manifest['project']} {release.name}",
        source=f"labelled with terrazzo; release {release.id}",
        splits=splits,
        extra={"release": release.id},
    )
    write_description(out, description)


def table(release: Release, out: Path) -> None:
    """Write parquet with the walk-through's columns, pixel_values and label (category ids), and id2label.json.

    0 is "unlabeled"; names of categories that are ignored begin with "void-", so that opening it ignores them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: dict[str, list[dict[str, Any]]] = {}
    for split, stem, member in _finished(release):
        mask = encode_mask(_category_ids(release, member))
        row = {
            "pixel_values": {"bytes": release.image(member), "path": f"{stem}{_suffix(member)}"},
            "label": {"bytes": mask, "path": f"{stem}.png"},
        }
        rows.setdefault(split, []).append(row)
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    feature = {"_type": "Image"}
    info = '{"info": {"features": ' + _json({"pixel_values": feature, "label": feature}) + "}}"
    schema = pa.schema([("pixel_values", cell), ("label", cell)], metadata={"huggingface": info})
    (out / "data").mkdir()
    for split, members in rows.items():
        name = {"val": "validation"}.get(split, split)
        path = out / "data" / f"{name}-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(members, schema=schema), path, compression="NONE")
    names = {
        0: "unlabeled",
        **{one.id: _void(one.name) if one.is_ignore else one.name for one in release.categories},
    }
    write_json(out / "id2label.json", {str(raw): name for raw, name in names.items()}, durable=False)


def segments(release: Release, out: Path) -> None:
    """Write RELEASE.json in Segments.ai's form, images, and bitmaps of object ids; every sample, with its status."""
    samples = []
    for stem, member in _named(release, release.samples):
        image = f"images/{stem}{_suffix(member)}"
        _write(out / image, release.image(member))
        label: dict[str, Any] | None = None
        if member.tree is not None:
            read = release.label(member)
            bitmap = f"bitmaps/{stem}.png"
            _write(out / bitmap, encode_image(_packed(read.object_map)))
            annotations = [
                {
                    "id": one.id,
                    "track_id": one.id,
                    "category_id": one.category_id,
                    "attributes": dict(one.attributes),
                }
                for one in read.annotations
            ]
            label = {
                "label_status": TO_SEGMENTS[known(member.status)],
                "attributes": {
                    "format_version": "0.1",
                    "annotations": annotations,
                    "segmentation_bitmap": {"url": bitmap},
                    "image_attributes": {},
                },
            }
        elif member.status != "todo":
            label = {"label_status": TO_SEGMENTS[known(member.status)], "attributes": None}
        samples.append(
            {
                "uuid": member.sha256[:32],
                "name": stem + _suffix(member),
                "metadata": {} if member.split is None else {"split": member.split},
                "attributes": {"image": {"url": image}},
                "labels": {LABELSET: label},
            }
        )
    categories = [
        {"id": one.id, "name": one.name, "color": list(one.color), "has_instances": one.has_instances,
         "attributes": one.attributes}
        for one in release.categories
    ]  # fmt: skip
    value = {
        "name": release.name,
        "description": release.manifest["description"],
        "created_at": release.created_at,
        "dataset": {
            "name": release.manifest["project"],
            "owner": "",
            "description": "",
            "task_type": "segmentation-bitmap",
            "task_attributes": {"format_version": "0.1", "categories": categories, "image_attributes": []},
            "labelsets": [{"name": LABELSET, "description": ""}],
            "samples": samples,
        },
    }
    _write(out / f"{release.name}.json", _json(value).encode() + b"\n")


def coco_panoptic(release: Release, out: Path) -> None:
    """Write annotations/panoptic_SPLIT.json with its PNGs, and the images in SPLIT/; what was finished.

    Categories that are ignored are void, as is what nobody drew.
    """
    ignored = {one.id for one in release.categories if one.is_ignore}
    categories = [
        {"id": one.id, "name": one.name, "supercategory": one.name, "color": list(one.color),
         "isthing": int(one.has_instances)}
        for one in release.categories
        if not one.is_ignore
    ]  # fmt: skip
    images: dict[str, list[dict[str, Any]]] = {}
    annotations: dict[str, list[dict[str, Any]]] = {}
    for number, (split, stem, member) in enumerate(_finished(release), start=1):
        read = release.label(member)
        named = {one.id: one.category_id for one in read.annotations if one.category_id not in ignored}
        kept = np.zeros(1 << 16, dtype=np.uint16)
        kept[list(named)] = list(named)
        segments_map = kept[read.object_map]
        flat = stem.replace("/", "-") if "/" in stem else stem
        _write(out / split / f"{flat}{_suffix(member)}", release.image(member))
        png = f"{flat}.png"
        _write(out / "annotations" / f"panoptic_{split}" / png, encode_image(_packed(segments_map)[..., :3]))
        images.setdefault(split, []).append(
            {
                "id": number,
                "file_name": f"{flat}{_suffix(member)}",
                "height": member.height,
                "width": member.width,
            }
        )
        annotations.setdefault(split, []).append(
            {"image_id": number, "file_name": png, "segments_info": _segments(segments_map, named)}
        )
    for split, listed in images.items():
        value = {
            "info": {"description": f"{release.manifest['project']} {release.name}", "release": release.id},
            "licenses": [],
            "categories": categories,
            "images": listed,
            "annotations": annotations[split],
        }
        _write(out / "annotations" / f"panoptic_{split}.json", _json(value).encode() + b"\n")


def _segments(segments_map: NDArray[np.uint16], named: dict[int, int]) -> list[dict[str, Any]]:
    found = []
    for one in np.unique(segments_map).tolist():
        if one:
            rows, columns = np.nonzero(segments_map == one)
            top, left = int(rows.min()), int(columns.min())
            box = [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1]
            found.append({"id": one, "category_id": named[one], "area": len(rows), "bbox": box, "iscrowd": 0})
    return found


def _finished(release: Release) -> Iterator[tuple[str, str, Member]]:
    """(split, stem, member) of what was finished; what has no split is of train."""
    chosen = [one for one in release.samples if one.status in FINISHED]
    if not chosen:
        raise ProjectError(
            f"The release {release.name} has no finished labels: there is nothing to export.",
            expected="samples that are labelled or reviewed",
        )
    for stem, member in _named(release, chosen):
        yield member.split or "train", stem, member


def _named(release: Release, chosen: Sequence[Member]) -> Iterator[tuple[str, Member]]:
    """Members with the names of their files, without suffix; each its own where upper and lower case are one, too."""
    short = short_names([one.name for one in release.samples])
    flat = [short[one.name].replace("/", "-").casefold() for one in release.samples]
    twice = {name for name in flat if flat.count(name) > 1} if len(set(flat)) < len(flat) else set()
    numbers = {one.name: number for number, one in enumerate(release.samples)}
    for member in chosen:
        stem = short[member.name]
        parts = PurePosixPath(stem).parts
        is_plain = all(PLAIN.fullmatch(part) and not RESERVED.fullmatch(part) and part == part.strip(" .")
                       and len(part) <= 150 for part in parts)  # fmt: skip
        is_own = stem.replace("/", "-").casefold() not in twice
        yield stem if is_plain and is_own else f"sample-{numbers[member.name]:06d}", member


def _category_ids(release: Release, member: Member) -> NDArray[Any]:
    mask = release.label(member).mask()
    return mask.astype(np.uint8) if max((one.id for one in release.categories), default=0) <= 255 else mask


def _packed(object_map: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """(H, W, 4): id = R + 256 G + 65,536 B, opaque."""
    low, high = object_map & 255, object_map >> 8
    layers = [low, high, np.zeros_like(low), np.full_like(low, 255)]
    return np.stack(layers, axis=-1).astype(np.uint8)


def _suffix(member: Member) -> str:
    return PurePosixPath(member.path).suffix.lower()


def _void(name: str) -> str:
    return name if is_void(name) else f"void-{name}"


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
