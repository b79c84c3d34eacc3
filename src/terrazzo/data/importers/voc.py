"""PASCAL VOC: everyday photographs, 20 classes and background; its own masks, or with those of SBD for training.

    RAW/VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val,test}.txt     VOCtrainval_11-May-2012.tar, unpacked
    RAW/VOCdevkit/VOC2012/JPEGImages/NAME.jpg
    RAW/VOCdevkit/VOC2012/SegmentationClass/NAME.png
    RAW/benchmark_RELEASE/dataset/cls/NAME.mat                            benchmark.tgz, unpacked: for --annotations sbd
    or RAW/VOCdevkit/VOC2012/SegmentationClassAug/NAME.png                the same as PNG, as others prepared it

Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010. A mask is a palette PNG whose *indices*
are class ids: 0 background, a class like any other; 255 the border of objects, ignored. The lists decide what is in a
split. A mask that some tool saved as colours is mapped back by VOC's palette; colours not in it are refused.

Hariharan et al., "Semantic contours from inverse detectors", ICCV 2011 (SBD) labelled more of the same photographs.
With it, as has become usual, train is every labelled image that is not in VOC's val (10,582 of 2012), with VOC's own
mask where there is one; val stays VOC's. SBD's masks have no border to ignore.
"""

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from terrazzo.classes import Classes, Color, Mask, Remap
from terrazzo.data.description import Description
from terrazzo.data.importers.colors import Colored
from terrazzo.data.importers.downloads import read
from terrazzo.data.importers.planning import Pair, Piece, Plan, Wanted, refuse_missing
from terrazzo.errors import DatasetFormatError, MaskValueError, MissingExtraError, MissingPathError, quoted
from terrazzo.images import encode_mask

NAME = "PASCAL VOC"
ANNOTATIONS = ("voc", "sbd")
WORDS = ()
LAYOUT = "VOCdevkit/VOC2012/ with ImageSets/Segmentation/, JPEGImages/ and SegmentationClass/"
SBD_LAYOUT = "benchmark_RELEASE/dataset/cls/*.mat, or VOCdevkit/VOC2012/SegmentationClassAug/*.png"
NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
BORDER = 255  # the ring around every object, and what is too hard to tell
MAX_MAT = 1 << 20  # bytes; SBD's files have 2 to 50 thousand


def color_of(raw: int) -> Color:
    """Return VOC's colour of an id: bits 0, 3, 6 of it are the high bits of red, 1, 4, 7 of green, 2, 5 of blue."""
    red = green = blue = 0
    for place in range(8):
        red |= (raw >> (3 * place) & 1) << (7 - place)
        green |= (raw >> (3 * place + 1) & 1) << (7 - place)
        blue |= (raw >> (3 * place + 2) & 1) << (7 - place)
    return red, green, blue


CLASSES = Classes(NAMES, tuple(color_of(raw) for raw in range(len(NAMES))))
REMAP = Remap({**{raw: raw for raw in range(len(NAMES))}, BORDER: None}, len(NAMES))
COLORS = {color_of(raw): raw for raw in REMAP.to_class}  # (224, 224, 192), the border's, is the palette's 255


@dataclass(frozen=True)
class Matlab:
    """A mask of SBD."""

    path: Path
    """cls/NAME.mat."""
    suffix: str = ".png"
    """Of the mask it becomes."""

    def read(self) -> bytes:
        """Return a PNG of its ids."""
        return encode_mask(read_mat(self.path))


def find(
    base: Path, *, annotations: str = "voc", sbd: Path | None = None, partial: bool = False
) -> dict[str, list[Pair]]:
    """Return {split: pairs in the order of the lists} of a VOC folder `base` (…/VOC2012), and of SBD at `sbd`.

    Raises DatasetFormatError listing every image or mask that the lists name and that is not there; with `partial`
    these are left out. test has masks where all of them lie there (2007), none otherwise.
    """
    listed = {
        path.stem: _listed(path) for path in sorted((base / "ImageSets" / "Segmentation").glob("*.txt"))
    }
    refuse_missing(
        [
            f"{base / 'ImageSets' / 'Segmentation' / split}.txt"
            for split in ("train", "val")
            if split not in listed
        ],
        root=base,
        format_name=NAME,
        layout=LAYOUT,
    )
    masks: dict[str, Path | Piece] = {
        path.stem: _as_ids(path) for path in sorted(base.glob("SegmentationClass/*.png"))
    }
    names = {split: listed[split] for split in ("train", "val", "test") if split in listed}
    train_masks = masks
    if annotations == "sbd":
        names["train"], train_masks = _augmented(base, sbd, listed, masks)
    both = sorted(set(names["train"]) & set(names["val"]))
    if both:
        raise DatasetFormatError(
            f"{len(both)} images are in train and in val, so scores would say nothing.",
            found=", ".join(both[:8]),
            expected="two lists of different images in ImageSets/Segmentation",
        )
    photographs = {path.stem: path for path in sorted(base.glob("JPEGImages/*.jpg"))}
    if annotations == "sbd" and sbd is not None:
        photographs = {path.stem: path for path in sorted(sbd.glob("img/*.jpg"))} | photographs
    pairs: dict[str, list[Pair]] = {}
    missing: list[str] = []
    for split, members in names.items():
        of_split = train_masks if split == "train" else masks
        has_masks = split != "test" or all(name in of_split for name in members)
        missing += [f"{base / 'JPEGImages' / name}.jpg" for name in members if name not in photographs]
        if has_masks:
            missing += [
                f"{base / 'SegmentationClass' / name}.png" for name in members if name not in of_split
            ]
        pairs[split] = [
            Pair(name, photographs[name], of_split[name] if has_masks else None)
            for name in members
            if name in photographs and (not has_masks or name in of_split)
        ]
    if not partial:
        refuse_missing(missing, root=base, format_name=NAME, layout=LAYOUT)
    return {split: members for split, members in pairs.items() if members}


def plan(root: Path, wanted: Wanted, stack: ExitStack) -> Plan:
    """Pair the download at `root`, which is unpacked.

    wanted.annotations: "voc", or "sbd" for VOC with SBD's masks added to train. wanted.partial: what the lists name and
    is not there is left out. Masks keep their ids; 255 is ignored. Raises as `find` does.
    """
    annotations = wanted.annotations or ANNOTATIONS[0]
    if not root.is_dir():
        raise MissingPathError(f"There is no folder {root}.", expected=f"{NAME}: {LAYOUT}")
    base = _devkit(root)
    pairs = find(base, annotations=annotations, sbd=_sbd(root), partial=wanted.partial)
    if "train" not in pairs:
        raise DatasetFormatError(f"{root} has no training images.", found=", ".join(pairs) or "no images")
    description = Description(
        classes=CLASSES,
        remap=REMAP,
        raw_names={BORDER: "border"},
        name=f"{NAME} {base.name.removeprefix('VOC')}".strip() + (" + SBD" if annotations == "sbd" else ""),
        # "Database Rights" on host.robots.ox.ac.uk/pascal/VOC/voc2012: images by Flickr's terms, nothing of the masks
        license="images: Flickr terms of use; masks: not stated by their authors",
        source="Everingham et al., IJCV 2010; http://host.robots.ox.ac.uk/pascal/VOC/"
        + ("; Hariharan et al., ICCV 2011" if annotations == "sbd" else ""),
    )
    return Plan(pairs, description)


def read_mat(path: Path) -> Mask:
    """Return the ids (H, W) uint8 of an SBD file, `GTcls.Segmentation`; DatasetFormatError where it is none."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingExtraError(
            "SBD's masks are Matlab files, which need scipy; it is not installed.",
            hint="Install it, or put the masks there as PNG (SegmentationClassAug):",
            command='pip install "terrazzo[sbd]"',
        ) from error
    data = read(path)
    try:
        if len(data) > MAX_MAT:
            raise ValueError(f"{len(data):,} bytes")
        mask = np.asarray(loadmat(io.BytesIO(data), variable_names=["GTcls"])["GTcls"]["Segmentation"].item())
        if mask.ndim != 2 or mask.dtype.kind not in "ui" or 0 in mask.shape:
            raise ValueError(f"{mask.dtype} values, shape {mask.shape}")
    except MemoryError:
        raise
    except Exception as error:  # scipy raises whatever it trips over in a damaged file
        raise DatasetFormatError(
            f"{path} is no mask of SBD.",
            found=f"{type(error).__name__}: {error}",
            expected="a Matlab 5 file with GTcls.Segmentation, a map of ids",
            hint="A download that broke off looks like this. Unpack benchmark.tgz again.",
        ) from error
    strange = sorted(set(np.unique(mask).tolist()) - set(REMAP.to_class))
    if strange:
        raise MaskValueError(
            f"The mask {path} has ids that are not VOC's.", found=str(strange[:8]), expected="0-20"
        )
    return mask.astype(np.uint8)


def _augmented(
    base: Path, sbd: Path | None, listed: Mapping[str, Sequence[str]], voc: Mapping[str, Path | Piece]
) -> tuple[list[str], dict[str, Path | Piece]]:
    """Names and masks of train with SBD: the prepared PNGs where they lie there, else VOC's masks and then SBD's."""
    prepared = sorted(base.glob("SegmentationClassAug/*.png"))
    matlab = sorted(sbd.glob("cls/*.mat")) if sbd is not None else []
    if not prepared and not matlab:
        raise DatasetFormatError(
            f"There are no masks of SBD beside {base}.",
            expected=SBD_LAYOUT,
            hint="Download benchmark.tgz and unpack it beside VOCdevkit:",
            command="tar -xf benchmark.tgz",
        )
    masks: dict[str, Path | Piece] = {path.stem: _as_ids(path) for path in prepared}
    if not prepared:
        masks = {path.stem: Matlab(path) for path in matlab} | {
            name: voc[name] for name in listed["train"] if name in voc
        }
    held_out = set(listed["val"])
    names = listed.get("trainaug") or sorted(
        {name for name in masks if name not in held_out} | set(listed["train"])
    )
    return list(names), masks


def _as_ids(path: Path) -> Path | Colored:
    """The file itself where it holds ids or indices; a piece to be mapped where it holds colours."""
    with open(path, "rb") as file:
        head = file.read(26)
    is_color = head.startswith(b"\x89PNG\r\n\x1a\n") and head[25:26] in (
        b"\x02",
        b"\x06",
    )  # IHDR's colour type
    return Colored(path, COLORS, "VOC's") if is_color else path


def _listed(path: Path) -> list[str]:
    """The names in a list of ImageSets/Segmentation; refused where they are no plain names, or twice there."""
    lines = read(path).decode("utf-8", errors="replace").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    bad = [repr(name) for name in names if not re.fullmatch(r"\w[\w.-]*", name)]
    bad += [f"{name!r} is there more than once" for name, count in Counter(names).items() if count > 1]
    if bad:
        raise DatasetFormatError(
            f"{path} is no list of images.",
            found=", ".join(bad[:8]),
            expected="one name a line, such as 2007_000032",
        )
    return names


def _devkit(root: Path) -> Path:
    """The one VOC20.. folder in, or at, `root`."""
    found = [
        base
        for base in (root, *sorted(root.glob("VOC20*")), *sorted(root.glob("VOCdevkit/VOC20*")))
        if (base / "ImageSets" / "Segmentation").is_dir()
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise DatasetFormatError(
            f"{root} holds several years of {NAME}.",
            found=", ".join(str(base) for base in found),
            hint="Import one of them:",
            command=f"terrazzo import voc {quoted(found[-1])} --out DIR",
        )
    archives = sorted(path.name for path in root.glob("*.tar"))
    raise DatasetFormatError(
        f"{root} is no {NAME} download.",
        found=", ".join(archives) if archives else "no ImageSets/Segmentation",
        expected=LAYOUT,
        hint="Its .tar must be unpacked first:" if archives else None,
        command=f"tar -xf {quoted(archives[0])}" if archives else None,
    )


def _sbd(root: Path) -> Path | None:
    """The folder with SBD's cls/, in, at or beside `root`."""
    places = (root / "benchmark_RELEASE" / "dataset", root / "dataset", root)
    return next((place for place in places if (place / "cls").is_dir()), None)
