"""Looking at samples as a training will see them, before it begins: scaled, cropped, mirrored, recoloured.

The pixels come from the loader that training uses, with the recipe's seed, so what is drawn is what the first steps
learn from: same images, same order, same crops.

    out/
      sheet-01.png …    eight samples each: what the network gets, beside it the mask drawn over; the classes below
      browse.json       which samples, of which recipe; its presence says that the folder is ours
"""

import math
import os
from collections.abc import Sequence
from itertools import count as endless
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terrazzo import rendering
from terrazzo.data import Dataset, open_dataset
from terrazzo.data.loader import Loader
from terrazzo.data.order import Streamed
from terrazzo.data.sampling import rarity
from terrazzo.data.transforms import TrainTransform
from terrazzo.errors import ExistingOutputError, TrainingError, unknown_name
from terrazzo.images import write_image
from terrazzo.recipe import Recipe, load
from terrazzo.storage import write_json

if TYPE_CHECKING:
    from PIL.Image import Image

NOTE = "browse.json"
PER_SHEET = 8
COLUMNS = 2
CELL = 720  # pixels of the longer side of an image and its overlay
LEGEND = 77  # pixels of height: three lines


def browse(
    data: "str | os.PathLike[str] | Dataset",
    recipe: "str | os.PathLike[str] | Recipe",
    *,
    overrides: Sequence[str] = (),
    out: "str | os.PathLike[str]" = "browse",
    count: int = 16,
    seed: int | None = None,
) -> list[Path]:
    """Draw the first `count` samples of a training with `recipe` on `data` into the folder `out`; return the sheets.

    data: whatever `open_dataset` opens, or a Dataset; recipe, overrides, seed: as `train` takes them. The sheets of
    an earlier call in `out` are replaced; anything else there is an ExistingOutputError.
    """
    chosen = load(recipe, overrides)
    opened = (
        data
        if isinstance(data, Dataset)
        else open_dataset(os.fspath(data), keep_void=chosen.data.keep_void, stream=chosen.data.stream)
    )
    dataset = opened.merged(chosen.data.merge)
    if "train" not in dataset.splits:
        raise unknown_name("split", "train", dataset.splits)
    if not dataset["train"].has_masks:
        raise TrainingError(
            f"The training split of {dataset.name} has no masks.", hint="Label it, or import its masks."
        )
    folder = _own(Path(out))
    names, pictures, masks = _samples(dataset, chosen, count, chosen.train.seed if seed is None else seed)
    sheets = []
    for number in range(math.ceil(len(names) / PER_SHEET)):
        part = slice(number * PER_SHEET, (number + 1) * PER_SHEET)
        sheet = _sheet(names[part], pictures[part], masks[part], dataset)
        sheets.append(folder / f"sheet-{number + 1:02d}.png")
        write_image(sheets[-1], np.asarray(sheet), durable=False)
    write_json(folder / NOTE, {"data": dataset.name, "recipe": chosen.to_json(), "samples": names})
    return sheets


def _samples(
    dataset: Dataset, recipe: Recipe, count: int, seed: int
) -> tuple[list[str], list[NDArray[np.float32]], list[NDArray[Any]]]:
    """Names, images (H, W, C) and masks (H, W) of the first samples, in training's order."""
    names: list[str] = []
    images: list[NDArray[np.float32]] = []
    masks: list[NDArray[Any]] = []
    split, batch_size = dataset["train"], recipe.train.batch_size
    rare = rarity(split, recipe.data, location=dataset.location, quiet=True)
    stream = None
    if split.shard_of is not None:
        stream = Streamed(
            split.shard_of, seed=seed, batch_size=batch_size, shuffle_buffer=recipe.data.shuffle_buffer
        )
    with Loader(
        split,
        order=stream or rare.order(seed),
        expect=split.expect if stream else None,
        transform=TrainTransform(
            recipe.data, ignore=dataset.classes.ignore, mean=dataset.mean, odds_K=rare.odds_K
        ),
        batch_size=batch_size,
        seed=seed,
        workers=recipe.data.workers,
        cache="none",
        pixel_weight=lambda mask: 1.0,
        on_unreadable=recipe.data.on_unreadable,
    ) as loader:
        for step in endless():
            for image_BCHW, mask_BHW in loader.micro_batches(step):
                images += list(image_BCHW.permute(0, 2, 3, 1).numpy().copy())
                masks += list(mask_BHW.numpy().astype(dataset.classes.mask_dtype))
            names += loader.names(step)
            if len(names) >= count:
                break
    return names[:count], images[:count], masks[:count]


def _sheet(
    names: Sequence[str],
    images: Sequence[NDArray[np.float32]],
    masks: Sequence[NDArray[Any]],
    dataset: Dataset,
) -> "Image":
    """Image and overlay of each sample, two samples a row, and the classes in them with their shares."""
    tiles: list[NDArray[Any] | Image] = []
    for image, mask in zip(images, masks, strict=True):
        shown = _shown(image, dataset)
        drawn = rendering.overlay(shown, mask, dataset.classes, opacity=0.6)
        tiles.append(np.concatenate([np.asarray(rendering.display(shown)), np.asarray(drawn)], axis=1))
    titles = [f"{name}  {mask.shape[0]}x{mask.shape[1]}" for name, mask in zip(names, masks, strict=True)]
    grid = rendering.contact_sheet(tiles, titles=titles, columns=min(COLUMNS, len(tiles)), cell=CELL)
    shares = rendering.shares(np.concatenate([mask.ravel() for mask in masks])[None], dataset.classes)
    return rendering.column([grid, rendering.legend(dataset.classes, shares, height=LEGEND)])


def _shown(image: NDArray[np.float32], dataset: Dataset) -> NDArray[Any]:
    """8-bit images at their own brightness; others stay as they are and are stretched when drawn."""
    if dataset.dtype != "uint8":
        return image
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _own(folder: Path) -> Path:
    """Return the folder, new, empty or cleared of the sheets that an earlier call left."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    if (folder.exists() and not folder.is_dir()) or (entries and not (folder / NOTE).is_file()):
        raise ExistingOutputError(
            f"{folder} is not empty, and no browsing wrote it.",
            found=f"no {NOTE} in it",
            hint="Nothing was overwritten. Choose another folder with --out.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        if entry.name.startswith("sheet-") and entry.suffix == ".png":
            entry.unlink()
    return folder
