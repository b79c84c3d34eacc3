"""A data set of blobs in parquet files of small row groups, and a training of seconds on it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import nn

import terrazzo as tz
from terrazzo.run import Run

NAMES = {"0": "field", "1": "box", "2": "sky"}
SHORT = (
    "data.stream=true", "data.shuffle_buffer=6", "data.crop_hw=32x32", "data.workers=2", "train.steps=8",
    "train.batch_size=4", "train.save_every=1", "train.keep=20", "train.precision=f32", "train.pictures=0",
    "train.loggers=[]", "train.log_every=5", "optim.warmup_steps=2", "eval.every=4", "model.dropout=0.1",
)  # fmt: skip


def publish(folder: Path) -> Path:
    """A data set in three files: 13 + 8 samples to train on, 7 to validate; row groups of 4."""
    folder.mkdir(parents=True)
    for number, (name, count) in enumerate((("train-0", 13), ("train-1", 8), ("validation", 7))):
        pq.write_table(table(count, number), folder / f"{name}.parquet", row_group_size=4)
    (folder / "id2label.json").write_text(json.dumps(NAMES))
    return folder


def table(count: int, seed: int = 0, *, masks: bool = True) -> pa.Table:
    """Rows as `datasets` writes them: blobs of red on noise, their masks; and a column that nobody needs."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for _ in range(count):
        mask = np.zeros((32, 40), np.uint8)
        top, left = rng.integers(0, 20), rng.integers(0, 24)
        mask[top : top + 12, left : left + 12] = 1
        mask[:4], mask[-2:] = 2, 255
        image = rng.integers(0, 60, (32, 40, 3)).astype(np.uint8)
        image[mask == 1, 0] += 150
        images.append({"bytes": png(image), "path": None})
        labels.append({"bytes": png(mask), "path": None} if masks else None)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    cells = {
        "image": pa.array(images, kind),
        "depth": pa.array([rng.bytes(4000) for _ in range(count)]),
        "label": pa.array(labels, kind),
    }
    about = {"info": {"features": {name: {"_type": "Image"} for name in ("image", "label")}}}
    return pa.table(cells).replace_schema_metadata({b"huggingface": json.dumps(about).encode()})


def png(array: np.ndarray) -> bytes:
    """The bytes of an image as a file."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def assert_same_samples(one: tz.Dataset, other: tz.Dataset) -> None:
    """The same splits, names, images and masks."""
    assert {name: split.names for name, split in one.splits.items()} == {
        name: split.names for name, split in other.splits.items()
    }
    for name in one.splits:
        for a, b in zip(one[name], other[name], strict=True):
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.mask, b.mask)


class Dots(nn.Module):
    """Two convolutions and dropout, drawn from one seed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.features = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.1)
        self.score = nn.Conv2d(8, 3, 1)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        return self.score(self.drop(self.features(image_BCHW - 0.5).relu()))


def train(data: object, out: Path, *overrides: str, **own: Any) -> Run:
    """Eight steps on a stream, or what the overrides say."""
    words = {"network": Dots(), "device": "cpu", "quiet": True, **own}
    chosen = dict(item.split("=", 1) for item in (*SHORT, *overrides))
    said = [f"{name}={value}" for name, value in chosen.items()]
    return tz.train("segformer-b0-scratch", data=data, out=out, overrides=said, **words)
