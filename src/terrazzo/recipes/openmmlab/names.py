"""The names of MMSegmentation's configs, read part by part: every part stands in one of the tables of this page.

    pspnet_r101-d8_4xb2-80k_cityscapes-512x1024                      as 1.x writes it, and as we write it
    pspnet_r101-d8_512x1024_80k_cityscapes                           0.x
    pspnet_r101-d8_512x1024_80k_cityscapes_20200606_112211-e1e1100f  a file of weights
    configs/pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py    a path: its name counts, the file is not read

The parts are told apart by what they are, not by where they stand, since the two spellings order them differently.
An unknown part is an error with the nearest known one; all of them are told at once. Facts of MMSegmentation 1.2.2.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from terrazzo.errors import RecipeError, UnknownNameError, UsageError, nearest, unknown_name

Size = tuple[int, int]  # (height, width)


@dataclass(frozen=True)
class Algorithm:
    """What the first part of a name stands for."""

    title: str
    """As its paper calls it."""
    paper: str
    """Authors, year, arXiv."""
    backbones: tuple[str, ...]
    """The keys of BACKBONES that it is configured with there."""
    is_dilated: bool
    """Whether the name says by how much the backbone shrinks the image: d8, d16, d32."""


@dataclass(frozen=True)
class Backbone:
    """What the second part of a name stands for."""

    title: str
    """What it is."""
    name: str
    """`model.backbone`."""
    pretrained: str | None
    """`model.pretrained`: where its weights come from; None where it starts from random ones."""


@dataclass(frozen=True)
class DataSet:
    """What the data set of a name decides."""

    title: str
    """As its publishers call it."""
    num_classes: int
    """Classes that are scored."""
    resize_hw: Size
    """The smaller and the larger limit of an image's sides at scale 1; no image is turned."""
    per_gpu: int = 4
    """Images per GPU where a name does not say."""
    stride_hw: Size | None = None
    """How far the windows of evaluation lie apart, at the size of the crop; None: the whole image at once."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Between which factors of that size images are scaled before the crop."""
    lr: float = 0.01
    """Learning rate of SGD."""
    weight_decay: float = 5e-4
    """Its weight decay."""


RESNETS = ("r18", "r18b", "r50", "r50b", "r101", "r101b")
MITS = ("mit-b0", "mit-b1", "mit-b2", "mit-b3", "mit-b4", "mit-b5")

ALGORITHMS: Mapping[str, Algorithm] = {
    "fcn": Algorithm("FCN", "Long et al. 2015, arXiv 1411.4038", (*RESNETS, "unet-s5"), True),
    "pspnet": Algorithm("PSPNet", "Zhao et al. 2017, arXiv 1612.01105", (*RESNETS, "unet-s5"), True),
    "deeplabv3": Algorithm("DeepLabV3", "Chen et al. 2017, arXiv 1706.05587", (*RESNETS, "unet-s5"), True),
    "deeplabv3plus": Algorithm("DeepLabV3+", "Chen et al. 2018, arXiv 1802.02611", RESNETS, True),
    "upernet": Algorithm("UPerNet", "Xiao et al. 2018, arXiv 1807.10221", RESNETS, False),
    "segformer": Algorithm("SegFormer", "Xie et al. 2021, arXiv 2105.15203", MITS, False),
}

BACKBONES: Mapping[str, Backbone] = {
    "r18": Backbone("ResNet-18, stem of three 3x3", "resnet18_v1c", "openmmlab/resnet18_v1c"),
    "r50": Backbone("ResNet-50, stem of three 3x3", "resnet50_v1c", "openmmlab/resnet50_v1c"),
    "r101": Backbone("ResNet-101, stem of three 3x3", "resnet101_v1c", "openmmlab/resnet101_v1c"),
    "r18b": Backbone("ResNet-18, stem of one 7x7, as torchvision's", "resnet18_v1b", "timm/resnet18.tv_in1k"),
    "r50b": Backbone("ResNet-50, stem of one 7x7", "resnet50_v1b", "timm/resnet50.tv_in1k"),
    "r101b": Backbone("ResNet-101, stem of one 7x7", "resnet101_v1b", "timm/resnet101.tv_in1k"),
    "unet-s5": Backbone("U-Net of five stages, from random weights", "unet", None),
    **{
        name: Backbone(f"Mix Transformer {name[-2:].upper()}", name.replace("-", "_"), f"nvidia/{name}")
        for name in MITS
    },
}

STRIDES: Mapping[str, int] = {"d8": 8, "d16": 16, "d32": 32}

DATA_SETS: Mapping[str, DataSet] = {
    "cityscapes": DataSet("Cityscapes", 19, (1024, 2048), per_gpu=2),
    "ade20k": DataSet("ADE20K", 150, (512, 2048)),
    "voc12": DataSet("PASCAL VOC 2012", 21, (512, 2048)),
    "voc12aug": DataSet("PASCAL VOC 2012 with the augmented training set", 21, (512, 2048)),
    "coco-stuff10k": DataSet("COCO-Stuff 10k", 171, (512, 2048)),
    "coco-stuff164k": DataSet("COCO-Stuff 164k", 171, (512, 2048)),
    "pascal-context": DataSet(
        "PASCAL Context with background", 60, (520, 520), stride_hw=(320, 320), lr=0.004, weight_decay=1e-4
    ),
    "pascal-context-59": DataSet(
        "PASCAL Context", 59, (520, 520), stride_hw=(320, 320), lr=0.004, weight_decay=1e-4
    ),
    "loveda": DataSet(
        "LoveDA", 7, (1024, 1024), scale=(0.25, 1.0)
    ),  # trained at half the size it is tested at
    "potsdam": DataSet("ISPRS Potsdam", 6, (512, 512)),
    "vaihingen": DataSet("ISPRS Vaihingen", 6, (512, 512)),
    "isaid": DataSet("iSAID", 16, (896, 896)),
    "drive": DataSet("DRIVE", 2, (565, 584), stride_hw=(42, 42)),
    "stare": DataSet("STARE", 2, (605, 700), stride_hw=(85, 85)),
    "chase-db1": DataSet("CHASE_DB1", 2, (960, 999), stride_hw=(85, 85)),
    "hrf": DataSet("HRF", 2, (2336, 3504), stride_hw=(170, 170)),
}

STEPS: Mapping[str, int] = {f"{thousands}k": 1000 * thousands for thousands in (20, 40, 80, 160, 240, 320)}

CROPS: Mapping[str, Size] = {
    f"{height}x{width}": (height, width)
    for height, width in (
        (512, 1024), (512, 512), (769, 769), (1024, 1024), (768, 768), (832, 832), (480, 480), (640, 640), (896, 896),
        (64, 64), (128, 128), (256, 256),
    )
}  # fmt: skip

OPTIONS: Mapping[str, str] = {
    "amp": "float16 where it is safe, with a scaled loss",
    "ohem": "the loss is taken of hard pixels only: those below 0.7, and at least 100,000 in an image",
    "ce-1.0-dice-3.0": "cross-entropy, and three times the Dice loss",
    "in1k-pre": "the backbone starts from ImageNet, as every backbone with weights does here",
}

NOT_HERE: Mapping[str, str] = {
    "rsb": "its backbone's weights and its schedule in steps are not here",
    "adamw": "its schedule in steps is not here",
    "d6": "a head that is dilated by 6 is not here",
}  # parts that MMSegmentation knows

MULTI_GRID = "mg124"  # the blocks of the last stage are dilated by 1, 2 and 4
OLD_WORDS: Mapping[str, str] = {"fp16": "amp", "rsb-pretrain": "rsb"}  # 0.x -> 1.x
STAMP = re.compile(
    r"[_-]\d{8}(_\d{6})?(-[0-9a-f]{8})?$"
)  # of a file of weights: the date, the time, part of its sha256
GPUS = re.compile(r"(\d+)xb(\d+)|([1-9]|[1-9]\d?)x([1-9]|1\d|2\d|3[012])")  # 4xb2; 0.x: 4x2
CLUES = (r"\d+xb\d+", r"\d{2,4}x\d{2,4}", r"\d+k")  # what no other name has two of


@dataclass(frozen=True)
class ConfigName:
    """The parts of a name; `str` writes them as MMSegmentation 1.x does."""

    algorithm: str
    """A key of ALGORITHMS."""
    backbone: str
    """A key of BACKBONES."""
    stride: int
    """How much the backbone shrinks the image; 0 where the algorithm's name does not say."""
    is_multi_grid: bool
    """Whether the blocks of the last stage are dilated by 1, 2 and 4."""
    gpus: int
    """On how many GPUs it was trained."""
    per_gpu: int
    """Images per step on each."""
    options: tuple[str, ...]
    """Keys of OPTIONS, sorted."""
    steps: int
    """Optimiser steps."""
    data_set: str
    """A key of DATA_SETS."""
    crop_hw: Size
    """Height and width of a training crop."""

    def __str__(self) -> str:
        backbone = "-".join(
            [
                self.backbone,
                *([f"d{self.stride}"] if self.stride else []),
                *([MULTI_GRID] if self.is_multi_grid else []),
            ]
        )
        both = (backbone, self.algorithm) if self.backbone == "unet-s5" else (self.algorithm, backbone)
        training = "-".join([f"{self.gpus}xb{self.per_gpu}", *self.options, f"{self.steps // 1000}k"])
        return "_".join([*both, training, f"{self.data_set}-{self.crop_hw[0]}x{self.crop_hw[1]}"])


def looks_like_a_name(text: str) -> bool:
    """Return whether a word or path is spelled like a config's name, known or not."""
    words = [word for word, _ in _words(text)]
    return "_" in bare(text) and sum(any(re.fullmatch(clue, word) for word in words) for clue in CLUES) >= 2


def bare(text: str) -> str:
    """Return the name in a word or path: without folders, .py or .pth, and the stamp of a file of weights."""
    name = PurePath(text.replace("\\", "/")).name
    return STAMP.sub("", re.sub(r"\.(py|pth)$", "", name))


def parse(text: str) -> ConfigName:
    """Read a name in either spelling, a file of weights' name, or a path to the config.

    Raises UnknownNameError with every part that is unknown, missing, said twice or at odds with another.
    """
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    unknown: list[str] = []
    for kind, word in _parts(_words(text)):
        (found[kind] if kind else unknown).append(word)
    problems: list[UsageError] = [_absent(word) for word in found.pop("not here")]
    lacking = [kind for kind in REQUIRED if not found[kind]]
    problems += _unknown_parts(unknown, lacking)
    problems += [_missing(kind) for kind in lacking[len(unknown) :]]
    problems += [
        RecipeError(f"The {kind} is said twice: {' and '.join(words)}.")
        for kind, words in found.items()
        if len(set(words)) > 1 and kind != "option"
    ]
    if not problems:
        problems = list(_at_odds(found))
    if problems:
        raise _told(bare(text), problems)
    data_set, gpus = found["data set"][0], _gpus(found)
    return ConfigName(
        algorithm=found["algorithm"][0],
        backbone=found["backbone"][0],
        stride=STRIDES[found["stride"][0]] if found["stride"] else 0,
        is_multi_grid=bool(found["multi-grid"]),
        gpus=gpus[0],
        per_gpu=gpus[1],
        options=tuple(sorted(set(found["option"]))),
        steps=STEPS[found["number of iterations"][0]],
        data_set=data_set,
        crop_hw=CROPS[found["crop size"][0]],
    )


# --- words to parts ---------------------------------------------------------------------------------------------------

TABLES: Mapping[str, Mapping[str, object]] = {
    "algorithm": ALGORITHMS,
    "backbone": BACKBONES,
    "stride": STRIDES,
    "number of iterations": STEPS,
    "data set": DATA_SETS,
    "crop size": CROPS,
    "option": OPTIONS,
    "multi-grid": {MULTI_GRID: None},
    "not here": NOT_HERE,
}
KINDS = (*TABLES, "GPUs x images per GPU")
REQUIRED = (
    "algorithm",
    "backbone",
    "number of iterations",
    "data set",
    "crop size",
)  # in the order of a name
LONGEST = 4  # words in a part: ce-1.0-dice-3.0


def _words(text: str) -> list[tuple[str, int]]:
    """The words of a name, and between which of its underscores each stands."""
    chunks = enumerate(bare(text).lower().split("_"))
    return [(word, place) for place, chunk in chunks for word in chunk.split("-") if word]


def _parts(words: list[tuple[str, int]]) -> Iterator[tuple[str | None, str]]:
    """Yield (kind, part), the longest part that some table knows first; (None, words) for what none of them knows."""
    lost: list[str] = []
    while words:
        kind, part, taken = _next_part([word for word, _ in words])
        is_next_chunk = len(words) > 1 and words[1][1] != words[0][1]
        if kind is None:
            lost.append(part)
        if lost and (kind is not None or is_next_chunk or len(words) == 1):
            yield None, "-".join(lost)
            lost = []
        if kind is not None:
            yield kind, part
        words = words[taken:]


def _next_part(words: list[str]) -> tuple[str | None, str, int]:
    for taken in range(min(LONGEST, len(words)), 0, -1):
        part = "-".join(words[:taken])
        part = OLD_WORDS.get(part, part)
        for kind, table in TABLES.items():
            if part in table:
                return kind, part, taken
    if GPUS.fullmatch(words[0]):
        return "GPUs x images per GPU", words[0], 1
    return None, words[0], 1


def _gpus(found: Mapping[str, list[str]]) -> Size:
    """The GPUs and images per GPU; where the name does not say, those of the reference: 8 or 16 images in all."""
    data_set = DATA_SETS[found["data set"][0]]
    if found["GPUs x images per GPU"]:
        numbers = re.findall(r"\d+", found["GPUs x images per GPU"][0])
        return int(numbers[0]), int(numbers[1])
    if found["algorithm"] == ["segformer"]:
        return 8, data_set.per_gpu // 2
    return 4, 4 if found["backbone"] == ["unet-s5"] else data_set.per_gpu


# --- what is wrong with a name ----------------------------------------------------------------------------------------


def _unknown_parts(unknown: list[str], lacking: list[str]) -> list[UsageError]:
    """Each unknown part takes the place of a missing one, in their order; beyond those it is an option."""
    problems: list[UsageError] = []
    for position, word in enumerate(unknown):
        kind = lacking[position] if position < len(lacking) else "option"
        near = _nearest_anywhere(word) if kind == "option" else None
        problems.append(unknown_name(near or kind, word, TABLES[near or kind]))
    return problems


def _nearest_anywhere(word: str) -> str | None:
    return next((kind for kind in TABLES if kind != "not here" and nearest(word, TABLES[kind], most=1)), None)


def _missing(kind: str) -> RecipeError:
    return RecipeError(f"The {kind} is missing.", expected=f"one of {', '.join(TABLES[kind])}")


def _absent(word: str) -> RecipeError:
    return RecipeError(
        f"{word!r} is a part that terrazzo does not have.", hint=f"{NOT_HERE[word].capitalize()}."
    )


def _at_odds(found: Mapping[str, list[str]]) -> Iterator[RecipeError]:
    algorithm, backbone, stride = found["algorithm"][0], found["backbone"][0], found["stride"]
    known = ALGORITHMS[algorithm]
    if backbone not in known.backbones:
        yield RecipeError(
            f"{algorithm} has no config with the backbone {backbone}.",
            expected=f"one of {', '.join(known.backbones)}",
        )
    elif backbone == "unet-s5" and stride != ["d16"]:
        yield RecipeError("U-Net of five stages shrinks the image 16 times.", expected="unet-s5-d16")
    elif known.is_dilated and not stride:
        yield RecipeError("The stride of the backbone is missing.", expected=f"{backbone}-d8, -d16 or -d32")
    elif stride and not known.is_dilated:
        yield RecipeError(
            f"{algorithm} leaves its backbone undilated.", found=f"{backbone}-{stride[0]}", expected=backbone
        )
    if found["multi-grid"] and algorithm not in ("deeplabv3", "deeplabv3plus"):
        yield RecipeError(
            f"{algorithm} has no config with {MULTI_GRID}.", expected="deeplabv3 or deeplabv3plus"
        )


def _told(name: str, problems: list[UsageError]) -> UnknownNameError:
    """One error of all problems: what each is, with its nearest known part, in one indented block."""
    count = f"{len(problems)} parts" if len(problems) > 1 else "A part"
    return UnknownNameError(
        f"{count} of the config name {name!r} cannot be read.",
        hint="\n".join(
            [*map(str, problems), "Every part of a name: docs/reference/openmmlab-names.md. Those published:"]
        ),
        command="terrazzo recipes --like pspnet",
    )
