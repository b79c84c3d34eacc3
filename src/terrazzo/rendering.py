"""Pictures of masks: colours, overlay, side by side, legend, contact sheet.

Every function returns an RGB `PIL.Image.Image`; `np.asarray(picture)` is its (H, W, 3) uint8 array. Nothing here
reads or writes files, and a mask is only ever resized to the nearest pixel: no class appears that was not there.

Ignored pixels: `color` and `beside` draw them as grey diagonal hatching, which is no class's colour; `overlay`
leaves the image untouched there. Images of any kind are made visible by `display`, which says how.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from terrazzo.classes import Classes
from terrazzo.errors import MaskSizeError, UsageError

PAPER, INK, FRAME = (255, 255, 255), (33, 33, 33), (150, 150, 150)
HATCH = np.asarray([(224, 224, 224), (158, 158, 158)], dtype=np.uint8)  # light, dark
STRETCH_PERCENT = (1.0, 99.0)  # what `display` maps to black and white where a dtype's own range says little
PANEL_SIDE = (192, 960)  # pixels: smaller panels of `beside` are enlarged in whole steps, larger ones shrunk
NAME_WIDTH = 22  # in font sizes: longer class names end in "…"


def color(mask: NDArray[Any], classes: Classes) -> Image.Image:
    """Draw `mask` (H, W) of class ids in its classes' colours; every other value, ignore included, is hatched grey."""
    return Image.fromarray(_color(mask, classes))


def overlay(
    image: NDArray[Any],
    mask: NDArray[Any],
    classes: Classes,
    *,
    opacity: float = 0.5,
    with_legend: bool = False,
) -> Image.Image:
    """Draw `mask` (H, W) over `image` (H, W, C), each area edged by a line in its class's full colour.

    opacity: 0 shows the image alone (and the edges), 1 the colours alone. Ignored pixels show the untouched image.
    with_legend: the classes in the mask and their shares, largest first, are listed to the right of the picture.
    """
    if not 0 <= opacity <= 1:
        raise UsageError("The opacity of an overlay is a share.", found=f"{opacity}", expected="0 to 1")
    _check_size(image, mask)
    picture = np.asarray(display(image)).astype(np.float32)
    strength = np.where(_edges(mask), np.float32(1), np.float32(opacity))
    strength[mask >= len(classes)] = 0
    picture += strength[:, :, None] * (_color(mask, classes).astype(np.float32) - picture)
    drawn = Image.fromarray(np.rint(picture).astype(np.uint8))
    if not with_legend:
        return drawn
    listed = legend(classes, shares(mask, classes), height=drawn.height, size=_text_size(drawn))
    return column([_row_of([drawn, listed], gap=0)], gap=0)


def beside(
    image: NDArray[Any],
    masks: Mapping[str, NDArray[Any]],
    classes: Classes,
    *,
    opacity: float = 1.0,
    with_legend: bool = True,
) -> Image.Image:
    """Draw the image and its masks in a row, titled: "image | truth | prediction", the legend below.

    image: (H, W, C). masks: title -> (H, W) class ids. opacity: below 1 the image shines through the masks.
    Panels below 192 pixels are enlarged in whole steps, above 960 shrunk. The legend lists the classes of all
    masks in id order.
    """
    for mask in masks.values():
        _check_size(image, mask)
    shown = display(image)
    size = _panel_size(shown)
    resample = Image.Resampling.BOX if size[0] < shown.width else Image.Resampling.NEAREST
    panels = {"image": shown.resize(size, resample)}
    for title, mask in masks.items():
        drawn = color(mask, classes).resize(size, Image.Resampling.NEAREST)
        if opacity < 1:
            ignored = Image.fromarray(mask >= len(classes)).resize(size, Image.Resampling.NEAREST)
            drawn = Image.composite(drawn, Image.blend(panels["image"], drawn, opacity), ignored)
        panels[title] = drawn
    text_size = min(24, max(13, size[1] // 24))
    row = _row_of([_titled(panel, title, text_size) for title, panel in panels.items()], gap=text_size // 2)
    if not with_legend:
        return row
    present = {
        i for mask in masks.values() for i in np.flatnonzero(_counts(mask, classes)[: len(classes)]).tolist()
    }
    has_ignored = any((mask >= len(classes)).any() for mask in masks.values())
    entries = [(classes.names[i], _swatch(classes.colors[i], text_size)) for i in sorted(present)]
    if has_ignored:
        entries.append(("ignored", _hatched_swatch(text_size)))
    return column([row, _entries_wide(entries, row.width, text_size)], gap=0)


def legend(
    classes: Classes, shares: Mapping[str, float] | None = None, *, height: int | None = None, size: int = 14
) -> Image.Image:
    """List colour and name of every class in id order; with `shares`, of those above 0, largest first, in percent.

    shares: class name -> share of the pixels, 0 to 1; the name "ignored" stands for ignore. height: the list
    breaks into columns to stay within it, as far as one line allows. size: of the letters, in pixels.
    """
    if shares is None:
        entries = [(n, _swatch(c, size)) for n, c in zip(classes.names, classes.colors, strict=True)]
    else:
        entries = []
        for name, share in sorted(shares.items(), key=lambda item: -item[1]):
            if share > 0:
                is_ignored = name == "ignored" and name not in classes.names
                swatch = (
                    _hatched_swatch(size)
                    if is_ignored
                    else _swatch(classes.colors[classes.id_of(name)], size)
                )
                entries.append((f"{_shortened(name)}  {_percent(share)}", swatch))
    line = _line_height(size)
    rows = len(entries) if height is None else max(1, (height - size) // line)
    return _entries_grid(entries, rows, size)


def contact_sheet(
    pictures: Sequence[Image.Image | NDArray[Any]],
    *,
    titles: Sequence[str] = (),
    columns: int | None = None,
    cell: int = 256,
) -> Image.Image:
    """Lay `pictures` (PIL images, or (H, W, C) arrays) out in a grid, each shrunk to fit `cell` x `cell` pixels.

    columns: as many as make the sheet about square when None. titles: one above each picture, or none at all.
    """
    if not pictures or (titles and len(titles) != len(pictures)):
        raise UsageError(
            "A contact sheet needs pictures and, if any, as many titles.",
            found=f"{len(pictures)} pictures, {len(titles)} titles",
        )
    tiles = [
        picture.convert("RGB") if isinstance(picture, Image.Image) else display(picture)
        for picture in pictures
    ]
    tiles = [
        ImageOps.contain(tile, (cell, cell), Image.Resampling.BOX) if max(tile.size) > cell else tile
        for tile in tiles
    ]
    widest, tallest = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    tiles = [_centred(tile, widest, tallest) for tile in tiles]
    if titles:
        tiles = [_titled(tile, title, 13) for tile, title in zip(tiles, titles, strict=True)]
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    rows = [_row_of(tiles[start : start + columns], gap=6) for start in range(0, len(tiles), columns)]
    return column(rows, gap=6)


def display(image: NDArray[Any]) -> Image.Image:
    """Make an image (H, W, C) of any dtype and channel count visible as RGB.

    One channel is shown as grey, two as the grey of the first, three or more as the first three. uint8 is shown
    as it is. uint16 and float are stretched: of the shown channels together, so hues stay, the 1st percentile
    becomes black and the 99th white (of a constant image: half grey). NaN is black.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise UsageError("An image to draw is (height, width, channels).", found=f"shape {image.shape}")
    shown = image[:, :, :3] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, axis=2)
    if shown.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(shown))
    values = shown.astype(np.float32)
    step = max(
        1, math.isqrt(values[:, :, 0].size // 250_000)
    )  # a quarter of a million pixels settle a percentile
    sample = values[::step, ::step]
    sample = sample[np.isfinite(sample)]
    low, high = np.percentile(sample, STRETCH_PERCENT) if sample.size else (0.0, 0.0)
    if high <= low:
        return Image.fromarray(np.where(np.isfinite(values), 128, 0).astype(np.uint8))
    stretched = np.clip((np.nan_to_num(values, nan=low) - low) / (high - low), 0, 1)
    return Image.fromarray(np.rint(stretched * 255).astype(np.uint8))


def shares(mask: NDArray[Any], classes: Classes) -> dict[str, float]:
    """Return {class name: share of all pixels} in id order, zeros included; "ignored" comes last where there is any."""
    counts = _counts(mask, classes) / max(1, mask.size)
    found = dict(zip(classes.names, counts[:-1].tolist(), strict=True))
    return found | ({"ignored": float(counts[-1])} if counts[-1] else {})


def _counts(mask: NDArray[Any], classes: Classes) -> NDArray[np.int64]:
    """Pixels of each class, and last of all other values: (K + 1,)."""
    return np.bincount(np.minimum(mask, len(classes)).ravel(), minlength=len(classes) + 1)


def _color(mask: NDArray[Any], classes: Classes) -> NDArray[np.uint8]:
    table = np.concatenate([classes.palette, HATCH[1:]])
    drawn = table[np.minimum(mask, len(classes))]
    y, x = np.nonzero(mask >= len(classes))
    drawn[y, x] = HATCH[((y + x) // 3 % 2).astype(np.intp)]
    return drawn


def _edges(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """True at pixels with a neighbour of another class to the left, right, above or below."""
    edge = np.zeros(mask.shape, dtype=bool)
    down, across = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    return edge


def _check_size(image: NDArray[Any], mask: NDArray[Any]) -> None:
    if mask.ndim != 2 or mask.shape != image.shape[:2]:
        raise MaskSizeError(
            "The mask to draw has another size than its image.",
            found=f"mask {mask.shape}",
            expected=f"{image.shape[:2]} (height, width), as the image",
        )


def _panel_size(shown: Image.Image) -> tuple[int, int]:
    """(width, height) of a panel of `beside`."""
    smallest, largest = PANEL_SIDE
    longer = max(shown.size)
    factor = largest / longer if longer > largest else max(1, math.ceil(smallest / longer))
    return max(1, round(shown.width * factor)), max(1, round(shown.height * factor))


def _text_size(picture: Image.Image) -> int:
    return min(32, max(13, min(picture.size) // 40))


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text_width(text: str, size: int) -> int:
    return math.ceil(_font(size).getlength(text))


def _line_height(size: int) -> int:
    return round(size * 1.5)


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "<0.1%"


def _shortened(name: str) -> str:
    return name if len(name) <= 2 * NAME_WIDTH else name[: 2 * NAME_WIDTH - 1].rstrip() + "…"


def _titled(panel: Image.Image, title: str, size: int) -> Image.Image:
    """The panel under a line of text, which is cut short where it is wider than the panel."""
    margin = size // 3
    while title and _text_width(title, size) + margin > panel.width:
        title = title[:-2].rstrip() + "…" if len(title) > 2 else ""
    tall = Image.new("RGB", (panel.width, panel.height + _line_height(size)), PAPER)
    ImageDraw.Draw(tall).text((margin, _line_height(size) / 2), title, INK, _font(size), anchor="lm")
    tall.paste(panel, (0, _line_height(size)))
    return tall


def _centred(picture: Image.Image, width: int, height: int) -> Image.Image:
    tile = Image.new("RGB", (width, height), PAPER)
    tile.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    return tile


def _swatch(fill: tuple[int, int, int], size: int) -> Image.Image:
    swatch = Image.new("RGB", (size, size), fill)
    ImageDraw.Draw(swatch).rectangle((0, 0, size - 1, size - 1), outline=FRAME)
    return swatch


def _hatched_swatch(size: int) -> Image.Image:
    y, x = np.mgrid[:size, :size]
    swatch = Image.fromarray(HATCH[(y + x) // 3 % 2])
    ImageDraw.Draw(swatch).rectangle((0, 0, size - 1, size - 1), outline=FRAME)
    return swatch


def _entries_wide(entries: Sequence[tuple[str, Image.Image]], width: int, size: int) -> Image.Image:
    """Entries in as many columns as fit `width`, read downwards."""
    widest = max((_entry_width(text, size) for text, _ in entries), default=1)
    columns = max(1, (width - size) // widest)
    return _entries_grid(entries, math.ceil(len(entries) / columns), size)


def _entry_width(text: str, size: int) -> int:
    return round(2.5 * size) + _text_width(_shortened(text), size)


def _entries_grid(entries: Sequence[tuple[str, Image.Image]], rows: int, size: int) -> Image.Image:
    """Swatch and text of each entry, downwards in columns of `rows` lines, within a margin of half a letter."""
    margin, line = size // 2, _line_height(size)
    columns = [entries[start : start + rows] for start in range(0, len(entries), max(1, rows))]
    widths = [max(_entry_width(text, size) for text, _ in column) for column in columns]
    tallest = max((len(column) for column in columns), default=0)
    sheet = Image.new("RGB", (sum(widths) + 2 * margin, tallest * line + 2 * margin), PAPER)
    draw, font, left = ImageDraw.Draw(sheet), _font(size), margin
    for column, width in zip(columns, widths, strict=True):
        for row, (text, swatch) in enumerate(column):
            middle = margin + row * line + line / 2
            sheet.paste(swatch, (left, round(middle - size / 2)))
            draw.text((left + 1.5 * size, middle), _shortened(text), INK, font, anchor="lm")
        left += width
    return sheet


def _row_of(pictures: Sequence[Image.Image], *, gap: int) -> Image.Image:
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    row, left = Image.new("RGB", (width, max(picture.height for picture in pictures)), PAPER), 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + gap
    return row


def column(pictures: Sequence[Image.Image], *, gap: int = 0) -> Image.Image:
    """Lay pictures out below each other, `gap` pixels apart, at the left of a white sheet as wide as the widest."""
    height = sum(picture.height for picture in pictures) + gap * (len(pictures) - 1)
    column, top = Image.new("RGB", (max(picture.width for picture in pictures), height), PAPER), 0
    for picture in pictures:
        column.paste(picture, (0, top))
        top += picture.height + gap
    return column
