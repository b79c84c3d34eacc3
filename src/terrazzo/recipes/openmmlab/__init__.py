"""MMSegmentation's config names as recipes: `pspnet_r101-d8_4xb2-80k_cityscapes-512x1024` means what it means there.

`names` reads a name into its parts, this page turns the parts into a recipe, `published` has the scores that were
published under them. No config file is ever read or run: what a name says is decided by our own tables, which hold the
facts of MMSegmentation 1.2.2.
"""

import re
import textwrap
from dataclasses import replace
from pathlib import Path

from terrazzo.data.transforms import DataConfig
from terrazzo.errors import RecipeError, UnknownNameError
from terrazzo.nn import ModelConfig
from terrazzo.nn.losses import LossConfig
from terrazzo.optim import OptimConfig
from terrazzo.recipe import EvalConfig, Recipe, TrainConfig
from terrazzo.recipes.openmmlab.names import (
    ALGORITHMS,
    BACKBONES,
    DATA_SETS,
    ConfigName,
    Size,
    bare,
    looks_like_a_name,
    parse,
)
from terrazzo.recipes.openmmlab.published import PUBLISHED, told

WINDOWS = {(769, 769): (513, 513), (1024, 1024): (768, 768)}  # crop -> stride; the second for SegFormer
CHECKPOINTS = 10  # in a training: one every tenth of it


def is_name(text: str) -> bool:
    """Return whether a word, or a path that ends in .py or .pth, stands for a config by its name.

    A .py file that defines `recipe()` is a recipe of the user's own, whatever it is called.
    """
    is_path = "/" in text or "\\" in text
    if (is_path and not text.endswith((".py", ".pth"))) or not looks_like_a_name(text):
        return False
    file = Path(text)
    return not (file.suffix == ".py" and file.is_file() and _defines_a_recipe(file))


def recipe(text: str) -> Recipe:
    """Return the recipe of a config's name in either spelling, of a path to it, or of a file of its weights.

    The recipe's own name is the one MMSegmentation 1.x would write. Raises UnknownNameError.
    """
    name = parse(text)
    return Recipe(
        name=str(name),
        summary=f"{_title(name)} as in MMSegmentation; {told(str(name))}, not reproduced here.",
        model=_model(name),
        data=_data(name),
        loss=_loss(name),
        optim=_optim(name),
        train=TrainConfig(
            steps=name.steps,
            batch_size=name.gpus * name.per_gpu,
            micro_batch=name.per_gpu,
            precision="f16" if "amp" in name.options else "f32",
            max_grad_norm=None,
            save_every=name.steps // CHECKPOINTS,
            sync_batch_norm=True,
        ),
        eval=_eval(name),
        made_for=name.data_set,
    )


def promise(text: str) -> str:
    """Return what stands behind a name, in the form of the promises of the catalogue."""
    name, config = parse(text), recipe(text)
    start = config.model.pretrained
    weights = f"{start}, from ImageNet; model.pretrained=null starts from random ones." if start else "none."
    algorithm = ALGORITHMS[name.algorithm]
    said = [
        f"Paper: {algorithm.title}, {algorithm.paper}; the backbone is {_backbone(name)}.",
        f"Command: terrazzo train {name} --data data/{name.data_set}",
        f"Hardware, hours: not measured here; there {_batch(name)} over {name.steps:,} steps. On fewer GPUs the batch "
        "stays, cut into micro-batches; batch norm then sees one of them at a time.",
        f"Expected mIoU: not reproduced here; {told(str(name))}.",
        "Loss: averaged over all pixels, ignored ones included (loss.average=all). That is MMSegmentation's habit, not "
        "ours: the fewer pixels are labelled, the smaller it is.",
        f"Differences: {_differences(name)}",
        f"Weights: {weights}",
    ]
    wrapped = [textwrap.fill(one, 118, break_long_words=False, break_on_hyphens=False) for one in said]
    return "\n".join([f"MMSegmentation's config {name}, by its name.\n", *wrapped])


def notes(recipe: Recipe, *, processes: int) -> list[str]:
    """Return what a training says aloud of a recipe that bears a config's name: how its batch is cut here."""
    if not looks_like_a_name(recipe.name):
        return []
    try:
        name = parse(recipe.name)
    except UnknownNameError:  # a recipe of the user's own with such a name
        return []
    batch, micro = recipe.train.batch_size, recipe.train.micro_batch
    share = batch // processes
    micro = min(micro or share, share)
    if (batch, processes, micro) == (name.gpus * name.per_gpu, name.gpus, name.per_gpu):
        return []
    here = f"{processes} process{'es' if processes > 1 else ''} x {share}"
    here += f" in micro-batches of {micro}" if micro < share else ""
    usual = name.gpus * name.per_gpu
    there = (
        _batch(name)
        if batch == usual
        else f"{batch} images per step, where {name.gpus} GPUs x {name.per_gpu} had {usual}"
    )
    said = [f"{there}; here {here}"]
    seen = micro * processes if recipe.train.sync_batch_norm else micro
    if seen < batch:
        said.append(
            f"batch norm sees {seen} images at a time, there {usual}; train.micro_batch=0 shows it "
            f"{batch if recipe.train.sync_batch_norm else share}, and takes more memory"
        )
    return said


def fits(recipe: Recipe, *, data_name: str, num_classes: int) -> list[str]:
    """Return what is to be said where a recipe made for one data set trains on another.

    Raises RecipeError where the data is known as one of the others: a name for each is a word away.
    """
    meant = DATA_SETS.get(recipe.made_for or "")
    if meant is None or recipe.made_for is None:
        return []
    known = {_letters(key): key for key in DATA_SETS}.get(_letters(data_name))
    if known is not None and known != recipe.made_for and DATA_SETS[known].num_classes == num_classes:
        raise RecipeError(
            f"{recipe.name} is the config for {meant.title}, and the data set is {DATA_SETS[known].title}.",
            found=f"{data_name}, {num_classes} classes",
            expected=f"{recipe.made_for}, {meant.num_classes} classes",
            hint=f"Its configs: terrazzo recipes --like {known}. To train on it with this one nevertheless:",
            command=f"terrazzo train {recipe.name} --data DATA made_for=null",
        )
    if known == recipe.made_for and num_classes == meant.num_classes:
        return []
    if num_classes == meant.num_classes:
        return [
            f"made for {meant.title}; {data_name} has as many classes, {num_classes}, and is taken as it is"
        ]
    return [
        f"made for {meant.title} with {meant.num_classes} classes; here are the {num_classes} of {data_name}, and "
        "scores cannot be compared with those published"
    ]


def like(text: str) -> dict[str, str]:
    """Return the configs with a published score whose names hold every word of `text`: name -> what is published."""
    words = text.lower().split()
    return {name: told(name) for name in PUBLISHED if all(word in name for word in words)}


# --- parts to sections ------------------------------------------------------------------------------------------------


def _model(name: ConfigName) -> ModelConfig:
    backbone = BACKBONES[name.backbone]
    return ModelConfig(
        name="segformer-conv" if name.algorithm == "segformer" else name.algorithm,
        backbone=backbone.name,
        output_stride=name.stride,
        multi_grid=(1, 2, 4) if name.is_multi_grid else (),
        align_corners=name.crop_hw == (769, 769),
        pretrained=backbone.pretrained,
        dropout=0.1,
        drop_path=0.1,
    )


def _data(name: ConfigName) -> DataConfig:
    data_set = DATA_SETS[name.data_set]
    return DataConfig(
        resize="sides",
        resize_hw=_resize_hw(name),
        crop_hw=name.crop_hw,
        scale=data_set.scale,
        max_one_class=0.75,
        flip=0.5,
        brightness=32 / 255,
        contrast=0.5,
        saturation=0.5,
        hue=18 / 180,  # OpenCV counts a turn as 180
        color_probability=0.5,
    )


def _resize_hw(name: ConfigName) -> Size:
    low, high = DATA_SETS[name.data_set].resize_hw
    if name.data_set == "cityscapes" and name.crop_hw == (769, 769):
        return low + 1, high + 1
    if name.data_set == "ade20k" and name.crop_hw == (640, 640):
        return 640, high
    return low, high


def _loss(name: ConfigName) -> LossConfig:
    loss = LossConfig(average="all", auxiliary=0.4)
    if name.is_multi_grid:  # the hardest 100,000, however sure
        return replace(loss, cross_entropy=0.0, ohem=1.0, ohem_threshold=0.0, ohem_min_kept=100_000)
    if "ohem" in name.options:
        return replace(loss, cross_entropy=0.0, ohem=1.0, ohem_threshold=0.7, ohem_min_kept=100_000)
    return replace(loss, dice=3.0) if "ce-1.0-dice-3.0" in name.options else loss


def _optim(name: ConfigName) -> OptimConfig:
    if name.algorithm == "segformer":
        return OptimConfig(
            kind="adamw",
            lr=6e-5,
            head_lr_factor=10.0,
            weight_decay=0.01,
            no_decay="layer_norms",
            schedule="poly",
            poly_power=1.0,
            warmup_steps=1500,
            warmup_factor=1e-6,
            arrives="at",
        )
    return OptimConfig(
        kind="sgd",
        lr=DATA_SETS[name.data_set].lr,
        head_lr_factor=1.0,
        weight_decay=DATA_SETS[name.data_set].weight_decay,
        no_decay="nothing",
        momentum=0.9,
        schedule="poly",
        poly_power=0.9,
        min_lr=1e-4,
        arrives="at",
    )


def _eval(name: ConfigName) -> EvalConfig:
    every, stride_hw = name.steps // CHECKPOINTS, DATA_SETS[name.data_set].stride_hw
    if name.crop_hw == (769, 769) or name.algorithm == "segformer":
        stride_hw = WINDOWS.get(name.crop_hw)
    if stride_hw is None:
        return EvalConfig(every=every, inference="whole")
    return EvalConfig(every=every, inference="windows", window_hw=name.crop_hw, stride_hw=stride_hw)


# --- words ------------------------------------------------------------------------------------------------------------


def _title(name: ConfigName) -> str:
    return f"{ALGORITHMS[name.algorithm].title} on {BACKBONES[name.backbone].title.partition(',')[0]}"


def _backbone(name: ConfigName) -> str:
    stride = f", whose last map is {name.stride} times smaller than the image" if name.stride else ""
    grid = ", the blocks of its last stage dilated by 1, 2 and 4" if name.is_multi_grid else ""
    return BACKBONES[name.backbone].title + stride + grid


def _batch(name: ConfigName) -> str:
    return f"{name.gpus * name.per_gpu} images per step as {name.gpus} GPUs x {name.per_gpu}"


def _differences(name: ConfigName) -> str:
    """In sentences, what of the original a recipe does in its own way."""
    said = [
        "colours are changed by one matrix, clipped once, where theirs are clipped after each of four changes in a "
        "drawn order; hue turns in YIQ, where theirs turns in HSV. They move as far, within a tenth. Crops are looked "
        "at through a grid of points."
    ]
    if name.is_multi_grid or "ohem" in name.options:
        said.append(
            "Hard pixels are chosen in each image, where theirs are chosen in all images of a GPU, and not for the "
            "auxiliary loss."
        )
    if "amp" in name.options:
        said.append("The scale of the loss follows its gradients, where theirs stays at 512.")
    if "ce-1.0-dice-3.0" in name.options:
        said.append("Dice is taken over the classes in an image; the auxiliary loss has it too.")
    return " ".join(said)


def _defines_a_recipe(file: Path) -> bool:
    return (
        re.search(r"^def recipe\(", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        is not None
    )


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


__all__ = ["bare", "fits", "is_name", "like", "notes", "parse", "promise", "recipe"]
