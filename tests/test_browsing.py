"""What is drawn is what training's first steps see."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from terrazzo import browsing, rendering
from terrazzo.browsing import browse
from terrazzo.data import open_dataset
from terrazzo.data.loader import Loader
from terrazzo.data.transforms import TrainTransform
from terrazzo.errors import ExistingOutputError, RecipeError
from terrazzo.images import read_mask, write_mask
from terrazzo.recipe import load

SMALL = ("data.crop_hw=32x48", "train.batch_size=2")


def test_the_samples_drawn_are_those_of_the_first_steps(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[np.ndarray, np.ndarray]] = []

    def overlay(image: np.ndarray, mask: np.ndarray, *others: Any, **words: Any) -> Image.Image:
        drawn.append((image, mask))
        return rendering.display(image)

    monkeypatch.setattr(browsing.rendering, "overlay", overlay)
    sheets = browse(boxes, "segformer-b0-scratch", overrides=SMALL, out=tmp_path / "seen", count=9, seed=3)
    assert [sheet.name for sheet in sheets] == ["sheet-01.png", "sheet-02.png"]
    data, recipe = open_dataset(boxes), load("segformer-b0-scratch", SMALL)
    transform = TrainTransform(recipe.data, ignore=255, mean=data.mean)
    with Loader(
        data["train"], transform=transform, batch_size=2, seed=3, pixel_weight=lambda mask: 1.0
    ) as loader:
        steps = [next(iter(loader.micro_batches(step))) for step in range(5)]
        names = [name for step in range(5) for name in loader.names(step)][:9]
    images = [image for images, _ in steps for image in images][:9]
    masks = [mask for _, masks in steps for mask in masks][:9]
    for (image, mask), image_CHW, mask_HW in zip(drawn, images, masks, strict=True):
        np.testing.assert_array_equal(image, np.rint(image_CHW.permute(1, 2, 0).numpy() * 255))
        np.testing.assert_array_equal(mask, mask_HW)
    note = json.loads((tmp_path / "seen" / "browse.json").read_text())
    assert note["samples"] == names


def test_images_that_training_repeats_are_repeated(boxes_of_my_own: Path, tmp_path: Path) -> None:
    """A class that one image of eight holds: that image comes sqrt(8) times as often, 2.3 of 8 samples."""
    for path in sorted((boxes_of_my_own / "train" / "masks").iterdir())[1:]:
        mask = read_mask(path)
        write_mask(path, np.where(mask == 1, 0, mask).astype(np.uint8))
    counts = {}
    for share in ("0", "1"):
        out = tmp_path / share
        browse(
            boxes_of_my_own,
            "segformer-b0-scratch",
            overrides=(*SMALL, f"data.rare_images={share}"),
            out=out,
        )
        counts[share] = json.loads((out / "browse.json").read_text())["samples"].count("000")
    assert counts["0"] == 2
    assert counts["1"] in (4, 5, 6)


def test_the_same_seed_draws_the_same_sheet_and_another_another(boxes: Path, tmp_path: Path) -> None:
    def sheet(folder: str, **words: Any) -> bytes:
        return browse(
            boxes, "segformer-b0-scratch", overrides=SMALL, out=tmp_path / folder, count=2, **words
        )[0].read_bytes()

    assert sheet("a") == sheet("b") != sheet("c", seed=1)


def test_sheets_of_an_earlier_call_are_replaced_and_nothing_else(boxes: Path, tmp_path: Path) -> None:
    browse(boxes, "segformer-b0-scratch", overrides=SMALL, out=tmp_path / "seen", count=10)
    browse(boxes, "segformer-b0-scratch", overrides=SMALL, out=tmp_path / "seen", count=1)
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == ["browse.json", "sheet-01.png"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sheet-01.png").write_text("mine")
    with pytest.raises(ExistingOutputError, match="is not empty, and no browsing wrote it"):
        browse(boxes, "segformer-b0-scratch", out=tmp_path / "mine")
    assert (tmp_path / "mine" / "sheet-01.png").read_text() == "mine"


def test_a_wrong_override_is_told_before_anything_is_written(boxes: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"There is no recipe field 'data.crop'"):
        browse(boxes, "segformer-b0-scratch", overrides=["data.crop=3"], out=tmp_path / "seen")
    assert not (tmp_path / "seen").exists()
