"""Whether a mask lies where its image is: the borders of its areas held against the image's edges, at every shift.

Edges of the image are where its brightness changes; most borders of a mask lie on such. Their correlation over shifts
of up to 12 cells has a peak, and where labels and pixels belong together it is in the middle. On CamVid (468 pairs,
checked 2026-11) it is there, to one cell, in every pair; of the same masks moved by 8 pixels seven in eight are
told one by one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

REACH = 12  # cells a mask is moved to every side
_MOST = 256  # cells per side that are compared; of a larger image the part around its borders
_SHORTEST = 40  # cells per side below which chance decides
_FEWEST_BORDERS = 60  # cells of border below which chance decides
_COARSE_FROM = 300  # pixels of the longer side from which a cell is 2 x 2 pixels
# what is called a shift; the numbers come from CamVid and drawn scenes, moved and not, and from mixed-up pairs
_STRENGTH = 5.0
_HEIGHT = 0.04
_CENTRE = 0.7
_NEAREST = 1.9  # cells
LOWEST = 0.4  # of the usual height in a data set; a peak that is lower may be chance


@dataclass(frozen=True)
class Fit:
    """How a mask lies on its image, from the peak of their correlation."""

    dy: float
    """Pixels by which the mask would have to move down."""
    dx: float
    """Pixels by which it would have to move to the right."""
    cells: float
    """The length of that way in cells of the comparison."""
    strength: float
    """Height of the peak over what is usual around it, in robust standard deviations of that."""
    height: float
    """Height of the peak over what is usual around it, as a correlation."""
    centre: float
    """Correlation without moving the mask, as a share of the peak's height."""
    is_inside: bool
    """True where the peak lies within reach, not at its end, where what is higher still may not be seen."""

    @property
    def is_shifted(self) -> bool:
        """True when the mask fits clearly better elsewhere."""
        is_peak = self.strength > _STRENGTH and self.height > _HEIGHT and self.is_inside
        return is_peak and self.centre < _CENTRE and self.cells > _NEAREST

    @property
    def is_in_place(self) -> bool:
        """True when the mask fits best where it is."""
        return self.strength > _STRENGTH and self.height > _HEIGHT and self.cells < _NEAREST


def correlate(
    grey: Any, mask: NDArray[Any], step: int | None = None
) -> tuple[NDArray[np.float32], int] | None:
    """Return (correlation by shift (2 REACH + 1, 2 REACH + 1), pixels per cell); None where there is too little to see.

    grey: a Pillow image of mode L, of the mask's size. step: pixels per cell; None: 1 or 2, by the size.
    Entry [REACH + dy, REACH + dx] is of the mask moved by that.
    Vertical edges are compared with vertical borders, and horizontal ones with horizontal ones. About 1.5 ms.
    """
    step = step or (2 if max(grey.size) > _COARSE_FROM else 1)
    cells = np.asarray(grey.reduce(step) if step > 1 else grey)
    ids = mask[step // 2 :: step, step // 2 :: step]
    height, width = min(cells.shape[0], ids.shape[0]), min(cells.shape[1], ids.shape[1])
    if min(height, width) < _SHORTEST:
        return None
    cells, ids = cells[:height, :width].astype(np.float32), ids[:height, :width]
    across, down = ids[:-1, 1:] != ids[:-1, :-1], ids[1:, :-1] != ids[:-1, :-1]
    rows, columns = _window(across | down)
    energy, correlation = 0.0, np.zeros(0)
    for edges, borders in (
        (np.abs(cells[:-1, 1:] - cells[:-1, :-1]), across),
        (np.abs(cells[1:, :-1] - cells[:-1, :-1]), down),
    ):
        edges = np.sqrt(edges[rows, columns])  # a few glaring edges should not decide
        edges -= edges.mean()
        lines = borders[rows, columns].astype(np.float32)
        if lines.sum() < _FEWEST_BORDERS / 2:
            continue
        lines -= lines.mean()
        ours, theirs = np.fft.rfft2(edges), np.fft.rfft2(lines)
        part = np.fft.irfft2(ours * theirs.conj(), s=edges.shape)
        correlation = part if not correlation.size else correlation + part
        energy += float(np.sqrt((edges**2).sum() * (lines**2).sum()))
    if energy <= 0:
        return None
    near = np.roll(correlation, (REACH, REACH), (0, 1))[: 2 * REACH + 1, : 2 * REACH + 1]
    return (near / energy).astype(np.float32), step


def fit(correlation: NDArray[np.floating[Any]], step: int) -> Fit:
    """Return where a correlation, or the mean of many, has its peak and how clear that is."""
    y, x = (int(i) for i in np.unravel_index(int(correlation.argmax()), correlation.shape))
    rows, columns = np.mgrid[: correlation.shape[0], : correlation.shape[1]]
    around = correlation[np.hypot(rows - y, columns - x) > 4]
    usual = float(np.median(around))
    spread = 1.4826 * float(np.median(np.abs(around - usual)))  # as a standard deviation, were it normal
    peak = float(correlation[y, x]) - usual
    centre = float(correlation[REACH - 1 : REACH + 2, REACH - 1 : REACH + 2].max()) - usual
    dy, dx = y - REACH + _summit(correlation[:, x], y), x - REACH + _summit(correlation[y], x)
    return Fit(
        dy=dy * step,
        dx=dx * step,
        cells=float(np.hypot(dy, dx)),
        strength=peak / max(spread, 1e-9),
        height=peak,
        centre=centre / max(peak, 1e-9),
        is_inside=0 < y < 2 * REACH and 0 < x < 2 * REACH,
    )


def refined(grey: Any, mask: NDArray[Any], lies: Fit) -> Fit:
    """Return a fit with its way to the pixel: the best one within three pixels, where cells are larger than pixels."""
    y, x = REACH + round(lies.dy), REACH + round(lies.dx)
    found = correlate(grey, mask, 1)
    if found is None or not (3 <= y < 2 * REACH - 2 and 3 <= x < 2 * REACH - 2):
        return lies
    near = found[0][y - 3 : y + 4, x - 3 : x + 4]
    down, right = (int(i) for i in np.unravel_index(int(near.argmax()), near.shape))
    return replace(lies, dy=y - 3 + down - REACH, dx=x - 3 + right - REACH)


def best_turn(grey: Any, mask: NDArray[Any], turns: Iterable[int]) -> tuple[int, float]:
    """Return (orientation, height): of these EXIF orientations the one in which the mask fits, how well; or (1, 0)."""
    best = (1, 0.0)
    for turn in turns:
        turned = upright(mask, turn)
        if turned.shape != (grey.height, grey.width):
            continue
        found = correlate(grey, turned)
        lies = fit(*found) if found is not None else None
        if lies is not None and lies.is_in_place and lies.height > best[1]:
            best = (turn, lies.height)
    return best


def upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return an array (H, W, …) turned as EXIF orientation 1-8 asks."""
    if orientation >= 5:  # rows and columns change places first
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _window(borders: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The rows and columns that are compared: all, or the part around the middle of the borders."""
    sides = []
    for axis in (0, 1):
        length = borders.shape[axis]
        kept = min(length, _MOST) // 8 * 8  # lengths of small factors are transformed faster
        counts = borders.sum(axis=1 - axis).cumsum()
        middle = int(np.searchsorted(counts, counts[-1] / 2))
        start = min(max(0, middle - kept // 2), length - kept)
        sides.append(slice(start, start + kept))
    return sides[0], sides[1]


def _summit(line: NDArray[np.floating[Any]], at: int) -> float:
    """Where the parabola through a peak and its two neighbours is highest, from the peak, -0.5 to 0.5."""
    if not 0 < at < len(line) - 1:
        return 0.0
    before, here, after = (float(value) for value in line[at - 1 : at + 2])
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else 0.5 * (before - after) / bend
