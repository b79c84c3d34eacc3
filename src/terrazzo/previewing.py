"""An import shown before it is made: what would come in, counted, and a sheet of overlays to look at.

Wrong label ids are seen at one glance, long before a score would tell. No data set is written; the sheet is.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count as endless
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from terrazzo import rendering
from terrazzo.classes import Classes
from terrazzo.data import importers
from terrazzo.data.doctor import class_table
from terrazzo.data.importers.checking import listed, open_pair
from terrazzo.data.importers.planning import Wanted
from terrazzo.data.importers.surveying import Member, Survey, survey
from terrazzo.errors import DataError
from terrazzo.images import decode_image, write_image

if TYPE_CHECKING:
    from PIL.Image import Image

OVERLAYS = 9
COLUMNS = 3
CELL = 400  # pixels of the longer side of an overlay


@dataclass(frozen=True)
class Preview:
    """What an import would bring in."""

    source: str
    """As the user named it."""
    survey: Survey
    """Counts, notes, and what is damaged."""
    sheet: Path | None
    """The picture of overlays; None where no mask could be shown."""

    @property
    def ok(self) -> bool:
        """True when nothing that was opened is damaged: the import would not be refused for it."""
        return not self.survey.damaged

    def text(self) -> str:
        """Return the report for people, in plain characters."""
        seen = self.survey
        wide = max(map(len, ("split", *seen.images)))
        lines = [f"{self.source}, not imported yet:", "", f"  {'split':<{wide}}  {'images':>9}  {'masks':>9}"]
        lines += [f"  {s:<{wide}}  {n:>9,}  {seen.masks[s]:>9,}" for s, n in seen.images.items()]
        if seen.counts:
            lines += ["", *class_table(seen.counts, seen.ignored)]
        some = [
            f"{seen.read[s]:,} of the {n:,} masks of {s}" for s, n in seen.masks.items() if seen.read[s] < n
        ]
        lines += [f"  counted: {', '.join(some)}"] if some else []
        lines += ["", *seen.notes] if seen.notes else []
        if seen.damaged:
            lines += ["", "Damaged pairs; the import refuses them, or leaves them out with --drop-damaged:"]
            lines += [f"  {line}" for line in listed(seen.damaged)]
        if self.sheet is not None:
            lines += ["", f"Overlays to look at: {self.sheet}"]
        return "\n".join(lines)


def preview(
    name: str,
    src: Path | str,
    wanted: Wanted | None = None,
    *,
    sheet: Path | str,
    exif: bool = False,
    workers: int = -1,
) -> Preview:
    """Count what importing `src`, data in the format `name`, would bring in, and draw overlays into the PNG `sheet`.

    Another file at `sheet` is not overwritten: the next free name is taken ("-2", …). wanted: as for
    `importers.run`, as exif and workers are. Damaged pairs are told in the report, not raised.
    """
    with ExitStack() as stack:
        planned = importers.plan(name, src, wanted or Wanted(), stack)
        seen = survey(planned, exif=exif, workers=workers)
        drawn = _sheet(seen, exif=exif)
    if drawn is None:
        return Preview(str(src), seen, None)
    path = _free(Path(sheet))
    write_image(path, np.asarray(drawn), durable=False)
    return Preview(str(src), seen, path)


def _sheet(seen: Survey, *, exif: bool) -> "Image | None":
    """Overlays of some pairs, and the legend of all classes."""
    tiles: list[Image] = []
    titles = []
    shown = np.zeros(len(seen.classes) + 1, dtype=np.bool_)  # the last: ignored
    for split, pair in _worth_showing(seen):
        try:
            contents = open_pair(pair, seen.remap, exif=exif)
            image = decode_image(contents.image, where=pair.name)
        except DataError:  # told in the report, or of an image that was not opened before
            continue
        assert contents.ids is not None
        tiles.append(_overlay(image, contents.ids, seen))
        shown[np.unique(np.minimum(contents.ids, len(seen.classes)))] = True
        titles.append(f"{split}/{pair.name}  {image.shape[0]}x{image.shape[1]}")
        if len(tiles) == OVERLAYS:
            break
    if not tiles:
        return None
    grid = rendering.contact_sheet(tiles, titles=titles, columns=min(COLUMNS, len(tiles)), cell=CELL)
    return rendering.column([grid, _legend(seen.classes, np.flatnonzero(shown), grid.width)])


def _worth_showing(seen: Survey) -> Sequence[Member]:
    """Pairs in the order in which they are worth a look: each shows most classes that none before it shows.

    When there is no more to show, pairs from all over the data set follow.
    """
    left = list(seen.shows)
    missing = np.ones(len(seen.classes), dtype=np.bool_)
    chosen: list[Member] = []
    while left and len(chosen) < OVERLAYS // 2:
        gains = [int((present & missing).sum()) for _, present in left]
        if not max(gains):
            break
        member, present = left.pop(int(np.argmax(gains)))
        missing &= ~present
        chosen.append(member)
    step = max(1, len(left) // (OVERLAYS - len(chosen)))
    spread = [member for start in range(step) for member, _ in left[start::step]]
    return chosen + spread


def _overlay(image: NDArray[np.generic], ids: NDArray[np.generic], seen: Survey) -> "Image":
    """The overlay at the size at which it is shown, so that edges stay lines; a small one in whole steps."""
    from PIL import Image

    shown = rendering.display(image)
    scale = CELL / max(shown.size)
    scale = int(scale) if scale >= 1 else scale
    size = max(1, round(shown.width * scale)), max(1, round(shown.height * scale))
    mask = Image.fromarray(ids).resize(size, Image.Resampling.NEAREST)
    resized = np.asarray(shown.resize(size, Image.Resampling.BOX))
    return rendering.overlay(resized, np.asarray(mask), seen.classes)


def _legend(classes: Classes, shown: NDArray[np.intp], width: int) -> "Image":
    """The classes on the sheet, in id order, in columns that stay within `width` as far as one line allows."""
    listed = [i for i in shown.tolist() if i < len(classes)] or [0]
    of_them = Classes(tuple(classes.names[i] for i in listed), tuple(classes.colors[i] for i in listed))
    drawn = (rendering.legend(of_them, height=height) for height in range(70, 30 * len(listed) + 100, 21))
    tallest = rendering.legend(of_them)
    return next((one for one in drawn if one.width <= width), tallest)


def _free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, … that is not there."""
    if not path.exists():
        return path
    others = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in endless(2))
    return next(other for other in others if not other.exists())
