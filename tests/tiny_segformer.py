"""A SegFormer of a few thousand weights, and the folder it was saved in made to look as others leave theirs."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from terrazzo.classes import Classes
from terrazzo.nn.segformer import SegFormer, Size

TINY = Size((1, 1, 1, 1), (8, 16, 24, 32), 24, num_heads=(1, 2, 3, 4))
ROAD = Classes(("road", "sky", "Person"), ((128, 64, 128), (70, 130, 180), (220, 20, 60)))
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def tiny(num_classes: int = 3, *, channels: int = 3, seed: int = 0, **settings: Any) -> SegFormer:
    """A network of three classes unless told otherwise, its batch norm not that of a fresh one."""
    torch.manual_seed(seed)
    normalisation = IMAGENET if channels == 3 else {"mean": (0.5,) * channels, "std": (0.2,) * channels}
    network = SegFormer(TINY, num_classes, channels=channels, **(normalisation | settings)).eval()
    network.decode_head.batch_norm.running_mean.normal_()
    return network


def as_transformers_saves_it(folder: Path) -> Path:
    """What a transformers folder holds and no more."""
    (folder / "terrazzo.json").unlink()
    return folder


def rewrite(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; None removes one."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: entry for key, entry in value.items() if entry is not None}))


def agree(one: nn.Module, other: nn.Module, channels: int = 3) -> bool:
    """Whether two networks give the same logits, to the bit."""
    image = torch.rand(1, channels, 40, 36)
    return torch.equal(one(image).logits, other(image).logits)
