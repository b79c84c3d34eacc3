"""Whether an exported graph does what its model does: measured on the same images, before anything is called done.

    labels     share of pixels to which model and graph give the same class
    logits     largest difference of two class scores, beside their standard deviation
    mIoU       of both on a split, where data is given

Images come from the data where there is any, else they are made: blurred noise of every size, odd ones included, which
shows that two graphs are the same function, and nothing about the world.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import ExportError
from terrazzo.inference import Predictor
from terrazzo.kernels.crop_resize import crop_resize

Image = NDArray[Any]

AGREEMENT = {"f32": 0.9999, "f16": 0.995, "bf16": 0.98, "int8": 0.95}  # least share of equal labels
LOSS = {"f32": 0.0005, "f16": 0.005, "bf16": 0.01, "int8": 0.01}  # most mIoU that may be lost
SIZES = ((64, 96), (97, 131), (160, 120), (75, 203))  # of images that are made, where the model takes any


@dataclass(frozen=True)
class Proof:
    """What was measured of a graph beside its model."""

    images: int
    """Through both."""
    pictures: str
    """Whose images: a split, or "made-up images"."""
    agreement: float
    """Share of pixels with the same class."""
    least_agreement: float
    """What was asked for."""
    difference: float | None = None
    """Largest of two logits; None for a graph that gives none."""
    deviation: float | None = None
    """Standard deviation of the model's logits."""
    miou: float | None = None
    """Of the model in PyTorch, where there was data."""
    miou_exported: float | None = None
    """Of the graph."""

    def lines(self) -> list[str]:
        """Return what a person reads of it."""
        told = [f"labels    {self.agreement:.4%} equal on {self.images} of {self.pictures}"
                f" (at least {self.least_agreement:.2%})"]  # fmt: skip
        if self.difference is not None and self.deviation is not None:
            told.append(
                f"logits    differ by {self.difference:.2g} at most; their deviation is {self.deviation:.2g}"
            )
        if self.miou is not None and self.miou_exported is not None:
            told.append(f"mIoU      {self.miou_exported:.4f} exported, {self.miou:.4f} in PyTorch")
        return told

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def compare(
    model: Predictor, exported: Predictor, images: Sequence[Image], *, pictures: str, least: float
) -> Proof:
    """Look at `images` (H, W, C) through both and return what differs, mIoU left out."""
    equal = total = 0
    difference = deviation = 0.0
    for image in images:
        mine, other = model(image).mask, exported(image).mask
        equal, total = equal + int((mine == other).sum()), total + mine.size
        seen = model.eye.input(image)
        one, two = model.eye.backend(seen), exported.eye.backend(seen)
        if one.shape != two.shape:
            raise ExportError(
                "The graph gives logits of another size.", found=f"{two.shape}", expected=f"{one.shape}"
            )
        difference = max(difference, float(np.abs(one - two).max()))
        deviation = max(deviation, float(one.std()))
    return Proof(len(images), pictures, equal / total, least, difference, deviation)


def compare_masks(
    model: Predictor, run: Callable[[Image], Image], images: Sequence[Image], *, pictures: str, least: float
) -> Proof:
    """The same for a graph that gives class ids."""
    equal = total = 0
    for image in images:
        mine, other = model(image).mask, run(image)
        equal, total = equal + int((mine == other).sum()), total + mine.size
    return Proof(len(images), pictures, equal / total, least)


def refuse_failed(proof: Proof, *, what: str, precision: str) -> None:
    """Raise ExportError where the proof fails."""
    if not proof.agreement >= proof.least_agreement:
        raise ExportError(
            f"{what} does not do what its model does.",
            found=f"{proof.agreement:.4%} of the labels are equal",
            expected=f"at least {proof.least_agreement:.2%}",
            hint=_advice(precision),
        )
    if proof.miou is not None and proof.miou_exported is not None:
        lost = proof.miou - proof.miou_exported
        if not lost <= LOSS[precision]:
            raise ExportError(
                f"{what} scores worse than its model.",
                found=f"mIoU {proof.miou_exported:.4f}, in PyTorch {proof.miou:.4f}",
                expected=f"{100 * LOSS[precision]:.2g} points less at most",
                hint=_advice(precision),
            )


def refuse_one_size(exported: Predictor, *, dtype: str) -> None:
    """Raise ExportError where a graph of free size does not run at other sizes than those it was compared at."""
    for image in made_up(SIZES, channels=exported.channels or 3, dtype=dtype):
        try:
            exported.eye.backend(exported.eye.input(image))
        except RuntimeError as error:
            raise ExportError(
                "The graph does not take images of every size.",
                found=f"{image.shape[0]}x{image.shape[1]}: {next(iter(str(error).splitlines()), '')}",
                hint="Nothing was written. --size WIDTHxHEIGHT exports for images of one size.",
            ) from error


def made_up(sizes: Sequence[tuple[int, int]], *, channels: int, dtype: str) -> list[Image]:
    """Return an image of each size: noise of three widths, always the same."""
    rng = np.random.default_rng(0)
    made = []
    for height, width in sizes:
        total = np.zeros((height, width, channels), np.float32)
        for cell in (32, 8, 1):
            coarse_hw = (-(-height // cell), -(-width // cell))
            coarse = rng.random((*coarse_hw, channels), dtype=np.float32)
            total += (
                crop_resize(coarse, (0, 0, *coarse_hw), (height, width))
                * (0.6, 0.25, 0.15)[(32, 8, 1).index(cell)]
            )
        if dtype == "float32":
            made.append(total)
        else:
            white = np.iinfo(dtype).max
            made.append((total * white).round().clip(0, white).astype(dtype))
    return made


def _advice(precision: str) -> str:
    if precision == "int8":
        return (
            "Nothing was written. More or other calibration images may help (--calibration-split), or f32; "
            "--agreement SHARE asks for less."
        )
    if precision in ("f16", "bf16"):
        return "Nothing was written. --precision f32 is exact; --agreement SHARE asks for less."
    return "Nothing was written. This should not happen: please report it with the model's architecture."
