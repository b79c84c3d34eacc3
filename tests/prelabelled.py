"""A project of drawn scenes, and models of random weights that say something about them, for tests of the loop."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from terrazzo.classes import Classes
from terrazzo.data.scenes import SCENE_CLASSES, scenes
from terrazzo.nn import ModelConfig, build
from terrazzo.nn.weights import save_model
from terrazzo.project import Project, open_project

HW = (32, 32)


def write_model(folder: Path, *, seed: int = 0, classes: Classes = SCENE_CLASSES) -> Path:
    """A SegFormer-B0 of random weights, as a model folder."""
    torch.manual_seed(seed)
    network = build(ModelConfig("segformer-b0"), num_classes=len(classes))
    folder.mkdir(parents=True)
    save_model(folder, network.eval(), classes=classes, preprocessing={"resize": "original"})
    return folder


def write_scene_project(
    folder: Path,
    count: int = 4,
    *,
    size_hw: tuple[int, int] = HW,
    labelled: int = 0,
    things: tuple[str, ...] = (),
) -> Project:
    """Make folder/street.db with scenes as photos/0000.png …; the first `labelled` have their true label.

    things: categories of many objects.
    """
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    project = open_project(folder / "street.db")
    for name, color in zip(SCENE_CLASSES.names, SCENE_CLASSES.colors, strict=True):
        if labelled:
            project.categories.add(name, color=color, has_instances=name in things)
    drawn = scenes(count, size_hw=size_hw)
    for number, sample in enumerate(drawn):
        Image.fromarray(sample.image).save(folder / "photos" / f"{number:04d}.png")
    project.add_folder(folder / "photos")
    for number, sample in enumerate(drawn):
        if number < labelled:
            assert sample.mask is not None
            mask = (sample.mask + 1).astype(np.uint16)
            project.write_mask(
                f"photos/{number:04d}.png", mask, status="labelled", tool="brush", author="ann"
            )
    return project
