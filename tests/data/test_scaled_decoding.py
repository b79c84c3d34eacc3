"""Training on JPEGs decoded smaller: the same draws and masks, nearly the same pixels, wherever the files lie."""

import io
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

import terrazzo as tz
from labelled import make_project
from terrazzo import reduced
from terrazzo.data import Dataset
from terrazzo.data.dataset import Split
from terrazzo.data.folds import folded
from terrazzo.data.loader import Loader
from terrazzo.data.transforms import DataConfig, TrainTransform, typical_shrink
from terrazzo.errors import MaskSizeError, UnreadableFileError

HW = (130, 170)
SCALED = DataConfig(crop_hw=(16, 24), scale=(0.15, 0.6), rare_crops=0.5, scaled_decoding=True)
NAMES = {"0": "field", "1": "box"}


def pictures(count: int, form: str = "JPEG") -> list[tuple[bytes, bytes]]:
    """Soft photos, encoded, and masks of blocks, every third of them lying on its side by EXIF."""
    rng, made = np.random.default_rng(7), []
    for number in range(count):
        soft = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize(HW[::-1], 3)
        mask = np.kron(rng.choice([0, 1, 255], (13, 17)), np.ones((10, 10))).astype(np.uint8)
        exif = Image.Exif()
        if number % 3 == 2:
            exif[0x0112], mask = 6, np.rot90(mask, -1)
        image, label = io.BytesIO(), io.BytesIO()
        soft.save(image, form, exif=exif, quality=95)
        Image.fromarray(mask).save(label, "PNG")
        made.append((image.getvalue(), label.getvalue()))
    return made


def write(folder: Path, count: int = 7, form: str = "JPEG") -> Path:
    for number, (image, label) in enumerate([*pictures(count, form), pictures(1)[0]]):
        split = folder / ("train" if number < count else "val")
        for inside, name, data in (
            ("images", f"{number}.{form.lower()}", image),
            ("masks", f"{number}.png", label),
        ):
            (split / inside).mkdir(parents=True, exist_ok=True)
            (split / inside / name).write_bytes(data)
    classes = [{"id": int(raw), "name": name} for raw, name in NAMES.items()]
    (folder / "dataset.json").write_text(json.dumps({"classes": classes}))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture
def divisors(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """By what each image was divided."""
    found: list[int] = []
    original = reduced._decode

    def noted(data: bytes, divisor: int, *rest: Any) -> Any:
        found.append(divisor)
        return original(data, divisor, *rest)

    monkeypatch.setattr(reduced, "_decode", noted)
    return found


def steps(
    split: Split, config: DataConfig = SCALED, count: int = 5, **options: Any
) -> list[tuple[Tensor, Tensor]]:
    transform = TrainTransform(
        config, ignore=255, mean=(0.4, 0.5, 0.6), odds_K=np.array([0.2, 0.8]) if config.rare_crops else None
    )
    options = {"batch_size": 4, "seed": 3, "workers": 0, "cache": "none", **options}
    with Loader(split, transform=transform, pixel_weight=lambda mask: 1.0, **options) as loader:
        return [
            (image.clone(), mask.clone()) for s in range(count) for image, mask in loader.micro_batches(s)
        ]


def pixels(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.stack([image for image, _ in pairs]), torch.stack([mask for _, mask in pairs])


@pytest.mark.parametrize(
    "config",
    [
        SCALED,
        DataConfig(augment=False, resize="exact", resize_hw=(32, 40)),
        DataConfig(crop_hw=(200, 250), scale=(0.2, 0.3)),  # padded
    ],
)
def test_draws_and_masks_are_those_of_whole_images_and_pixels_nearly(
    photos: Path, divisors: list[int], config: DataConfig
) -> None:
    split = tz.open_dataset(photos)["train"]
    whole, whole_masks = pixels(steps(split, replace(config, scaled_decoding=False)))
    assert divisors == []
    image, mask = pixels(steps(split, replace(config, scaled_decoding=True)))
    assert max(divisors) >= 4
    assert torch.equal(mask, whole_masks)
    off = (image - whole).abs() * 255
    assert 0 < off.mean() < 2.5
    moved = (image[..., 1:] - image[..., :-1]).abs() * 255
    assert moved.mean() > 2 * off.mean()  # soft as they are, a shift by a pixel of the crop is more


def test_threads_processes_and_caches_do_not_change_a_pixel(photos: Path) -> None:
    split = tz.open_dataset(photos)["train"]
    image, mask = pixels(steps(split))
    ranks = [steps(split, rank=rank, world=2) for rank in range(2)]
    halves = [tuple(map(torch.cat, zip(*pair, strict=True))) for pair in zip(*ranks, strict=True)]
    for other in (steps(split, workers=3), steps(split, cache="auto"), halves):
        for one, same in zip((image, mask), pixels(other), strict=True):  # type: ignore[arg-type]
            assert torch.equal(one, same)


def test_the_log_says_what_is_kept_and_where_there_is_no_jpeg(photos: Path, tmp_path: Path) -> None:
    def said(split: Split) -> list[str]:
        transform = TrainTransform(SCALED, ignore=255, mean=(0.4, 0.5, 0.6))
        with Loader(
            split, transform=transform, batch_size=2, workers=0, pixel_weight=lambda mask: 1.0
        ) as one:
            return one.said

    assert said(tz.open_dataset(photos)["train"]) == [
        "JPEGs are decoded no finer than their crops need; no decoded sample is kept"
    ]
    (line,) = said(tz.open_dataset(write(tmp_path / "other", 2, "PNG"))["train"])
    assert line.startswith("data.scaled_decoding is for JPEGs and 0 is none")


def test_a_damaged_jpeg_and_a_mask_of_another_size_are_the_errors_they_were(tmp_path: Path) -> None:
    train = write(tmp_path / "photos", 2) / "train"
    split = tz.open_dataset(tmp_path / "photos")["train"]
    image = train / "images" / "0.jpeg"
    image.write_bytes(image.read_bytes()[:-400])
    Image.new("L", (HW[1] + 1, HW[0])).save(train / "masks" / "1.png")  # reduced by 8, as large as its image
    for index, kind in enumerate((UnreadableFileError, MaskSizeError)):
        with pytest.raises(kind) as whole:
            split[index]
        with pytest.raises(kind) as smaller:
            split.mask_first(index)[1](8)
        assert str(smaller.value) == str(whole.value)


def test_by_how_much_training_shrinks() -> None:
    assert typical_shrink((3000, 4000), DataConfig(resize="short", resize_hw=(300, 300))) == 8
    assert (
        typical_shrink((3000, 4000), DataConfig(augment=False, resize="exact", resize_hw=(1500, 1000))) == 2
    )


def parquet(folder: Path) -> Path:
    folder.mkdir()
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    cells = zip(*[[{"bytes": cell, "path": None} for cell in pair] for pair in pictures(4)], strict=True)
    table = pa.table({name: pa.array(c, kind) for name, c in zip(("image", "label"), cells, strict=True)})
    about = {"info": {"features": {name: {"_type": "Image"} for name in ("image", "label")}}}
    table = table.replace_schema_metadata({b"huggingface": json.dumps(about).encode()})
    for name in ("train", "validation"):
        pq.write_table(table, folder / f"{name}.parquet")
    (folder / "id2label.json").write_text(json.dumps(NAMES))
    return folder


def released(folder: Path) -> str:
    with make_project(folder, names=("photos/a.jpg", "photos/b.jpg")) as project:
        for name in ("photos/a.jpg", "photos/b.jpg"):
            project.write_mask(name, np.ones((530, 520), np.uint16), status="labelled")
        project.releases.create("v1")
        return f"{project.path}@v1"


@pytest.mark.parametrize(
    "opened",
    [
        lambda folder: tz.open_dataset(parquet(folder / "p")),
        lambda folder: tz.data.open_dataset(str(parquet(folder / "p")), stream=True),
        lambda folder: folded(tz.data.open_dataset(str(parquet(folder / "p")), stream=True), (1, 2)),
        lambda folder: tz.open_dataset(released(folder)),
    ],
    ids=["table", "stream", "fold", "release"],
)
def test_images_are_reduced_wherever_they_lie(opened: Callable[[Path], Dataset], tmp_path: Path) -> None:
    split = opened(tmp_path)["train"]
    mask, read = pickle.loads(pickle.dumps(split)).mask_first(0)
    whole, found = split[0].image, read(4)
    assert (found.divisor, found.size_hw) == (4, whole.shape[:2])
    assert found.image.shape == (-(-whole.shape[0] // 4), -(-whole.shape[1] // 4), 3)
    assert abs(found.image.mean() - whole.mean()) < 1
    assert (mask == split[0].mask).all()
