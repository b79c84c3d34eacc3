"""What a model says of one image: a class for every pixel, at the image's own size; drawn, summed up, saved.

`save` never takes the place of someone's work: what is there is replaced only if the same model wrote it, and a mask
only while its ids are still those that were predicted. Sub-folders in names are kept:

    out/
      masks/NAME.png        class ids, 8-bit (16-bit above 255 classes or ids); its palette shows the class colours
      colors/NAME.png       RGB, the class colours
      overlays/NAME.png     the image under the colours, with a legend of the classes and their shares
      polygons/NAME.geojson the areas as GeoJSON (`Prediction.polygons`); only where they were asked for
      confidence/NAME.png   8-bit, 255 = certain; only where confidence was asked for
      shares/NAME.json      the share of each class, size, model, and a fingerprint of the mask
"""

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from terrazzo import rendering
from terrazzo.classes import Classes, Mask, Remap
from terrazzo.errors import (
    DataError,
    ExistingOutputError,
    MaskSizeError,
    TerrazzoError,
    UsageError,
    unknown_name,
)
from terrazzo.images import read_mask, write_image, write_mask
from terrazzo.outlines import outlines
from terrazzo.storage import read_json, write_json

if TYPE_CHECKING:
    from PIL.Image import Image

USUAL = ("masks", "colors", "overlays")  # what is written of a prediction; confidence where it was asked for
PARTS = (*USUAL, "polygons")
NOTEBOOK_SIDE = 1024  # pixels: larger overlays are shrunk for display in a notebook


@dataclass(frozen=True, eq=False)
class Prediction:
    """The mask a model gives to one image, and what is needed to draw and save it."""

    mask: Mask
    """(H, W) uint8 or uint16 class ids, 0 … K-1, at the image's original size."""
    classes: Classes
    """The model's classes."""
    confidence: NDArray[np.uint8] | None = None
    """(H, W) uint8, the probability of the predicted class: 255 = certain; None unless asked for."""
    image: NDArray[Any] | None = None
    """(H, W, C) the image itself, for drawing."""
    name: str = "image"
    """The image's name, such as "aachen/000012"; files are saved under it."""
    remap: Remap | None = None
    """The table of the data set the model was trained on, for its raw ids."""
    model: str = ""
    """The model's name as it was loaded, such as "runs/demo"."""

    def __post_init__(self) -> None:
        for what, layer in (("image", self.image), ("confidence", self.confidence)):
            if layer is not None and layer.shape[:2] != self.mask.shape:
                raise MaskSizeError(
                    f"The {what} of {self.name} has another size than its mask.",
                    found=f"{layer.shape[:2]} (height, width)",
                    expected=f"{self.mask.shape}, as the mask",
                )

    def __repr__(self) -> str:
        height, width = self.mask.shape
        largest = sorted(self.shares().items(), key=lambda item: -item[1])[:3]
        return (
            f"Prediction({self.name}, {height}x{width}: {', '.join(f'{n} {s:.0%}' for n, s in largest if s)})"
        )

    def shares(self) -> dict[str, float]:
        """Return {class name: share of the pixels} of every class in id order; they add up to 1."""
        return rendering.shares(self.mask, self.classes)

    def overlay(self, *, opacity: float = 0.5, with_legend: bool = False) -> "Image":
        """Return the mask drawn over the image as an RGB PIL image (the colours alone where there is no image)."""
        if self.image is None:
            return rendering.color(self.mask, self.classes)
        return rendering.overlay(
            self.image, self.mask, self.classes, opacity=opacity, with_legend=with_legend
        )

    def color(self) -> "Image":
        """Return the mask in its classes' colours as an RGB PIL image."""
        return rendering.color(self.mask, self.classes)

    def beside(self, truth: "NDArray[Any] | str | os.PathLike[str] | None" = None) -> "Image":
        """Return "image | truth | prediction" as an RGB PIL image; without `truth`, "image | prediction".

        truth: (H, W) class ids, or the path of such a mask.
        """
        if self.image is None:
            raise UsageError(
                f"The prediction {self.name} carries no image to draw.",
                hint="Predictions of a Predictor carry theirs.",
            )
        masks = {"prediction": self.mask}
        if truth is not None:
            mask = truth if isinstance(truth, np.ndarray) else read_mask(Path(truth))
            self.classes.check_mask(mask, where="truth" if isinstance(truth, np.ndarray) else str(truth))
            masks = {"truth": mask, **masks}
        return rendering.beside(self.image, masks, self.classes)

    def polygons(self) -> dict[str, Any]:
        """Return the areas of the mask as a GeoJSON FeatureCollection: pixels that hang together are one Polygon.

        Coordinates are pixels, x to the right and y down from the upper left corner of the image; rings follow the
        edges of pixels, so nothing is lost. Properties: class, class_id, color ("#rrggbb"), pixels.
        """
        return {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "properties": {
                        "class": self.classes.names[area.value],
                        "class_id": area.value,
                        "color": "#{:02x}{:02x}{:02x}".format(*self.classes.colors[area.value]),
                        "pixels": area.size,
                    },
                    "geometry": {
                        "type": "Polygon",
                        "coordinates": [[*ring.tolist(), ring[0].tolist()] for ring in area.rings],
                    },
                }
                for area in outlines(self.mask)
                if area.value < len(self.classes)
            ],
        }

    def raw_mask(self) -> Mask:
        """Return the mask in the data set's own (raw) ids; raises UsageError when the model knows no table of them."""
        if self.remap is None:
            raise UsageError(
                f"The model {self.model or 'of this prediction'} knows no raw ids.",
                found="no remap table stored with it",
                hint="It was trained on class ids as they are; save those:",
                command="terrazzo predict MODEL SOURCE --ids class",
            )
        raw = self.remap.inverse(self.mask)
        return raw if raw.max(initial=0) > np.iinfo(np.uint8).max else raw.astype(np.uint8)

    def save(
        self,
        folder: "str | os.PathLike[str]",
        *,
        ids: Literal["class", "raw"] = "class",
        name: str | None = None,
        parts: Sequence[str] = USUAL,
        overwrite: bool = False,
    ) -> Path:
        """Write mask, colours, overlay, confidence (if any) and shares under `folder`; return the mask's path
        (that of the shares where no mask is written).

        parts: of PARTS, which files are written; shares, which tell whose files these are, always. ids: "raw"
        writes masks in the ids of the data set the model was trained on. name: instead of `self.name`; slashes make
        sub-folders. Each file appears whole or not at all.
        Raises ExistingOutputError, before anything is written, when a file is there that this model did not write,
        or a mask that was changed since; `overwrite` replaces it all the same. StorageError when the disk is full.
        """
        if ids not in ("class", "raw"):
            raise unknown_name("kind of ids", ids, ("class", "raw"))
        name = _safe_name(self.name if name is None else name)
        mask = self.mask if ids == "class" else self.raw_mask()
        for part in parts:
            if part not in PARTS:
                raise unknown_name("part of a prediction", part, PARTS)
        suffixes = dict.fromkeys(USUAL, ".png") | {"polygons": ".geojson"}
        paths = {part: Path(folder, part, f"{name}{suffixes[part]}") for part in PARTS if part in parts}
        if self.confidence is not None:
            paths["confidence"] = Path(folder, "confidence", f"{name}.png")
        record = Path(folder, "shares", f"{name}.json")
        if not overwrite:
            _refuse_foreign(paths, record, self.model)
        for path in (*paths.values(), record):
            path.parent.mkdir(parents=True, exist_ok=True)
        known = self._summary(ids) | {"mask_sha256": _fingerprint(mask)}
        write_json(record, known, durable=False)  # first: what follows is ours
        if "masks" in paths:
            palette = self.classes.palette if ids == "class" else None
            write_mask(paths["masks"], mask, palette=palette, durable=False)
        if "colors" in paths:
            write_image(paths["colors"], np.asarray(self.color()), durable=False)
        if "overlays" in paths:
            write_image(paths["overlays"], np.asarray(self.overlay(with_legend=True)), durable=False)
        if "polygons" in paths:
            write_json(paths["polygons"], self.polygons(), durable=False)
        if self.confidence is not None:
            write_image(paths["confidence"], self.confidence[:, :, None], durable=False)
        return paths.get("masks", record)

    def _summary(self, ids: str) -> dict[str, Any]:
        height, width = self.mask.shape
        summary: dict[str, Any] = {"model": self.model, "height": height, "width": width, "ids": ids}
        if self.confidence is not None:
            summary["mean_confidence"] = round(float(self.confidence.mean()) / 255, 4)  # 255 = certain
        return summary | {"shares": {name: round(share, 6) for name, share in self.shares().items()}}

    def _repr_png_(self) -> bytes:
        picture = self.overlay(with_legend=True)
        picture.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        return buffer.getvalue()


def _safe_name(name: str) -> str:
    """Refuse names that would leave the folder they are saved under."""
    parts = PurePosixPath(name.replace(os.sep, "/")).parts
    if not parts or any(part in ("..", "/") or part.endswith(":") for part in parts):
        raise UsageError(
            f"{name!r} is no name to save under.", expected="a relative name such as aachen/000012"
        )
    return "/".join(parts)


def _refuse_foreign(paths: Mapping[str, Path], record: Path, model: str) -> None:
    """Raise ExistingOutputError unless what is there was written by `model` and, for the mask, is unchanged since."""
    there = [path for path in (*paths.values(), record) if path.exists()]
    if not there:
        return
    known = _read_record(record)
    hint = "Nothing was overwritten: it may be someone's work. Choose another folder, or say overwrite (--overwrite)."
    if known is None:
        raise ExistingOutputError(
            f"{there[0]} is already there and was not predicted by terrazzo.",
            found=f"no record of it in {record}",
            hint=hint,
        )
    if known["model"] != model:
        raise ExistingOutputError(
            f"{there[0]} is already there, predicted by another model.",
            found=known["model"],
            expected=model,
            hint=hint,
        )
    mask = paths.get("masks")
    if mask is not None and mask.exists() and not _is_unchanged(mask, known["mask_sha256"]):
        raise ExistingOutputError(f"{mask} was changed since terrazzo predicted it.", hint=hint)


def _read_record(path: Path) -> dict[str, str] | None:
    """What `save` noted of an earlier mask, or None where there is no such note."""
    try:
        value = read_json(path)
        return {key: str(value[key]) for key in ("model", "mask_sha256")}
    except (TerrazzoError, KeyError, TypeError):
        return None


def _is_unchanged(path: Path, fingerprint: str) -> bool:
    try:
        return _fingerprint(read_mask(path)) == fingerprint
    except DataError:  # no mask any more
        return False


def _fingerprint(mask: NDArray[Any]) -> str:
    """Return the sha256 of a mask's size and ids, whatever file format and bit depth hold them."""
    ids = np.ascontiguousarray(mask.astype("<u2"))
    return hashlib.sha256(f"{ids.shape}".encode() + ids.tobytes()).hexdigest()
