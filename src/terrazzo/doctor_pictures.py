"""Pictures of what the doctor found: an image with its mask over it, and the place marked.

Files are read again, one at a time; one that cannot be read has no picture. Nothing here judges.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from terrazzo import rendering
from terrazzo.classes import Classes, distinct_colors
from terrazzo.data import symptoms
from terrazzo.data.chart import Case, Chart
from terrazzo.data.findings import Finding
from terrazzo.data.mask_changes import moved
from terrazzo.data.readings import SPECK, between
from terrazzo.errors import TerrazzoError
from terrazzo.images import decode_image, decode_mask
from terrazzo.kernels.specks import specks

MOST = 3  # pictures of one finding
_WIDTH = 300  # pixels a picture is shown with; two beside each other have twice that
_ZOOM_SIDE = 48  # pixels of a mask that are shown enlarged, where single pixels are the matter
_MARK, _WRONG, _RIGHT = (255, 0, 170), (255, 40, 40), (40, 220, 90)
_PAIRS = ("leak", "near-leak", "two-masks", "repeated", "sequence-apart")
_BESIDE = ("size", "turned", "exif", "exif-unsure", "colors", "palette", "grey", "packed", "mask-alone")


@dataclass(frozen=True)
class Picture:
    """One picture and what it shows."""

    caption: str
    image: Image.Image


def pictures(finding: Finding, chart: Chart) -> list[Picture]:
    """Return a few pictures of a finding; none where there is nothing to see."""
    by_file = {
        item.where: case for case in chart.cases for item in (case.image, case.mask) if item is not None
    }
    cases = list(dict.fromkeys(_Same(by_file[file]) for file in finding.files if file in by_file))
    painter = _Painter(chart, finding)
    if finding.kind in _PAIRS:
        drawn = painter.pairs([one.case for one in cases])
    else:
        drawn = (picture for one in cases if (picture := painter.picture(one.case)) is not None)
    return [picture for _, picture in zip(range(MOST), drawn, strict=False)]


class _Same:
    """A case, equal to itself alone."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def __hash__(self) -> int:
        return id(self.case)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.case is self.case


class _Painter:
    """Draws the cases of one finding."""

    def __init__(self, chart: Chart, finding: Finding) -> None:
        self.chart, self.finding = chart, finding
        self.classes = chart.space.classes if chart.space is not None else Classes(("0",))
        self.table = symptoms.raw_table(chart)

    def picture(self, case: Case) -> Picture | None:
        """One case as suits the finding; None where neither file can be read."""
        image, mask = self._image(case), self._mask(case)
        name = (case.mask or case.image).where if case.mask or case.image else case.name  # type: ignore[union-attr]
        if image is None and mask is None:
            return None
        if image is None or mask is None:
            shown = rendering.display(image) if image is not None else self._colored(mask)
            return Picture(f"{name}: {'no usable mask' if mask is None else 'no usable image'}", _fit(shown))
        if self.finding.kind in _BESIDE or mask.shape[:2] != image.shape[:2]:
            return Picture(f"{name}: the image, and the mask as it lies there", self._beside(image, mask))
        if mask.ndim == 3:
            return Picture(name, self._beside(image, mask))
        if self.finding.kind == "displaced" and (way := symptoms.shift_of(case, self.chart)) is not None:
            caption = f"{name}: borders where they lie (red) and where they fit (green)"
            return Picture(caption, _fit(_borders(image, mask, way)))
        if self.finding.kind in ("blended", "specks"):
            marked = between(mask) if self.finding.kind == "blended" else self._specks(mask)
            return Picture(
                f"{name}: enlarged, the pixels in question in pink", self._zoomed(image, mask, marked)
            )
        marked = np.isin(mask, self.finding.raw_ids)
        told = f": {marked.mean():.1%} of the pixels, in pink" if marked.any() else ""
        return Picture(f"{name}{told}", _fit(self._marked(image, mask, marked)))

    def pairs(self, cases: Sequence[Case]) -> Iterator[Picture]:
        """Two cases in a row, as the finding lists them."""
        for one, other in zip(cases[::2], cases[1::2], strict=False):
            shown = []
            for case in (one, other):
                image, mask = self._image(case), self._mask(case)
                if image is not None and mask is not None and mask.shape == image.shape[:2]:
                    shown.append(rendering.overlay(image, self._ids(mask), self.classes, opacity=0.4))
                elif image is not None:
                    shown.append(rendering.display(image))
            names = [case.image.where for case in (one, other) if case.image is not None]
            if len(shown) == 2:
                yield Picture(" and ".join(names), _row(shown))

    def _image(self, case: Case) -> NDArray[Any] | None:
        if case.image is None or case.seen.problem is not None:
            return None
        try:
            return decode_image(case.image.read(), where=case.image.where)
        except TerrazzoError:
            return None

    def _mask(self, case: Case) -> NDArray[Any] | None:
        """Ids (H, W), or colours (H, W, 3)."""
        if case.mask is None or symptoms.labels(case).problem is not None:
            return None
        try:
            data = case.mask.read()
            if symptoms.labels(case).colors:
                return decode_image(data, where=case.mask.where, channels=3)
            return decode_mask(data, where=case.mask.where)
        except TerrazzoError:
            return None

    def _ids(self, mask: NDArray[Any]) -> NDArray[np.uint16]:
        """Class ids for raw ones; what is ignored or in no table is above them."""
        table = np.full(int(mask.max(initial=0)) + 1, 65535, np.uint16)
        for raw in np.unique(mask).tolist():
            class_id = raw if self.table is None else self.table.get(raw)
            if class_id is not None and class_id < len(self.classes):
                table[raw] = class_id
        return table[mask]

    def _colored(self, mask: NDArray[Any] | None) -> Image.Image:
        if mask is None:
            return Image.new("RGB", (8, 8))
        return Image.fromarray(mask) if mask.ndim == 3 else rendering.color(self._ids(mask), self.classes)

    def _beside(self, image: NDArray[Any], mask: NDArray[Any]) -> Image.Image:
        return _row([rendering.display(image), self._colored(mask)])

    def _marked(self, image: NDArray[Any], mask: NDArray[Any], marked: NDArray[np.bool_]) -> Image.Image:
        """The overlay, with marked pixels in pink and a frame around them."""
        drawn = rendering.overlay(image, self._ids(mask), self.classes, opacity=0.4)
        if not marked.any():
            return drawn
        pixels = np.asarray(drawn).astype(np.float32)
        grey = pixels.mean(axis=2, keepdims=True)
        pixels = np.where(
            marked[..., None], 0.35 * pixels + 0.65 * np.array(_MARK), 0.4 * pixels + 0.4 * grey
        )
        drawn = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
        rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
        box = (columns[0] - 2, rows[0] - 2, columns[-1] + 2, rows[-1] + 2)
        if (box[2] - box[0]) * (box[3] - box[1]) < 0.9 * marked.size:
            width = max(1, drawn.width // 160)
            ImageDraw.Draw(drawn).rectangle(tuple(map(float, box)), outline=_MARK, width=width)
        return drawn

    def _specks(self, mask: NDArray[Any]) -> NDArray[np.bool_]:
        return specks(mask, SPECK) & np.isin(mask, self.finding.raw_ids)

    def _zoomed(self, image: NDArray[Any], mask: NDArray[Any], marked: NDArray[np.bool_]) -> Image.Image:
        """The part of image and mask with most of the marked pixels, enlarged; each id has a colour of its own."""
        rows, columns = _busiest(marked)
        ids, there = mask[rows, columns], marked[rows, columns]
        values, inverse = np.unique(ids, return_inverse=True)
        own, others = self.classes.palette, np.array(distinct_colors(len(values)), np.uint8)
        colors = np.array(
            [
                own[class_id] if (class_id := self._class(raw)) is not None else others[place] // 2
                for place, raw in enumerate(values.tolist())
            ],
            np.uint8,
        )
        drawn = colors[inverse.reshape(ids.shape)]
        drawn = np.where(there[..., None], np.array(_MARK, np.uint8), drawn)
        return _row([rendering.display(image[rows, columns]), Image.fromarray(colors[inverse.reshape(ids.shape)]),
                     Image.fromarray(drawn.astype(np.uint8))], Image.Resampling.NEAREST)  # fmt: skip

    def _class(self, raw: int) -> int | None:
        return (raw if raw < len(self.classes) else None) if self.table is None else self.table.get(raw)


def _busiest(marked: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The square with most marked pixels, on a grid."""
    side = min(_ZOOM_SIDE, *marked.shape)
    sums = np.pad(marked.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    tops, lefts = (np.arange(0, length - side + 1, max(1, side // 3)) for length in marked.shape)
    inside = (
        sums[tops[:, None] + side, lefts + side]
        - sums[tops[:, None], lefts + side]
        - sums[tops[:, None] + side, lefts]
        + sums[tops[:, None], lefts]
    )
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    top, left = int(tops[row]), int(lefts[column])
    return slice(top, top + side), slice(left, left + side)


def _borders(image: NDArray[Any], mask: NDArray[Any], way: tuple[int, int]) -> Image.Image:
    """The image, dimmed, with the borders of the mask where they lie and where they fit."""
    pixels = np.asarray(rendering.display(image)).astype(np.float32) * 0.7
    for ids, color in ((mask, _WRONG), (moved(mask, way, int(mask[0, 0])), _RIGHT)):
        lines = np.zeros(ids.shape, bool)
        lines[:, 1:] |= ids[:, 1:] != ids[:, :-1]
        lines[1:] |= ids[1:] != ids[:-1]
        pixels[lines] = color
    return Image.fromarray(pixels.astype(np.uint8))


def _row(parts: Sequence[Image.Image], resample: Image.Resampling | None = None) -> Image.Image:
    """Pictures side by side, each of the width that lets all fit."""
    width = (2 * _WIDTH if len(parts) > 1 else _WIDTH) // len(parts)
    fitted = [_fit(part, width, resample) for part in parts]
    height = max(part.height for part in fitted)
    row = Image.new(
        "RGB", (sum(part.width for part in fitted) + 6 * (len(fitted) - 1), height), (127, 127, 127)
    )
    left = 0
    for part in fitted:
        row.paste(part, (left, 0))
        left += part.width + 6
    return row


def _fit(picture: Image.Image, width: int = _WIDTH, resample: Image.Resampling | None = None) -> Image.Image:
    """A picture of this width; enlarged, its pixels stay squares. A tall one keeps to that height."""
    scale = min(width / picture.width, width / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if resample is None:
        resample = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    return picture.convert("RGB").resize(size, resample)
