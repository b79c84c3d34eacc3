"""The first cells: SLIC (Achanta et al., PAMI 2012) by OpenCV, by scikit-image, or by the page below, and their pieces.

OpenCV's is the fastest and comes with the extra `label`; scikit-image's is taken where only that is installed. Ours is
slower and needs numpy alone, so that superpixels are never missing. The three draw different cells; which one drew is
part of the key under which superpixels are kept. None promises that a cell hangs together: `connected` sees to it.
"""

import functools
import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import MissingExtraError

ENGINES = ("opencv", "skimage", "numpy")
ITERATIONS = 4  # the boundaries hardly move afterwards
COMPACTNESS = 10.0  # how much a step in space weighs against one of colour; SLIC's own middle


@functools.cache
def engine() -> str:
    """Return who cuts here: the first of ENGINES that is installed."""
    if importlib.util.find_spec("cv2") is not None:
        import cv2

        if hasattr(cv2, "ximgproc"):  # only in the builds called contrib
            return "opencv"
    return "skimage" if importlib.util.find_spec("skimage") is not None else "numpy"


def cut(lab: NDArray[np.float32], *, step: int, engine: str) -> NDArray[np.int32]:
    """Return cells (h, w) of Lab colours (h, w, 3), about `step` pixels apart; some may be in several pieces."""
    try:
        if engine == "opencv":
            return _opencv(lab, step)
        if engine == "skimage":
            return _skimage(lab, step)
    except ImportError as error:
        raise MissingExtraError(
            f"Superpixels by {engine} need a package that is not installed.", found=f"no {error.name}",
            command='pip install "terrazzo[label]"',
        ) from error  # fmt: skip
    return _numpy(lab, step)


def connected(cells: NDArray[Any]) -> NDArray[np.int32]:
    """Return the pieces (h, w) of a map: pixels of one value that hang together by edges, 0 … n-1 in reading order.

    Runs of a row are the nodes; runs of neighbouring rows with one value that overlap belong together. Roots are found
    by handing the smaller number on, all edges at once, until nothing changes: a dozen rounds.
    """
    height, width = cells.shape
    starts = np.ones((height, width), bool)
    starts[:, 1:] = cells[:, 1:] != cells[:, :-1]
    runs = (np.cumsum(starts.ravel(), dtype=np.int64) - 1).reshape(height, width)
    same = cells[1:] == cells[:-1]
    begins = same & (starts[1:] | starts[:-1])  # an overlap is told once, at its first pixel
    begins[:, 1:] |= same[:, 1:] & ~same[:, :-1]
    a, b = runs[:-1][begins], runs[1:][begins]
    root = np.arange(runs[-1, -1] + 1)
    while True:
        one, other = root[a], root[b]
        apart = one != other
        if not apart.any():
            break
        a, b, one, other = a[apart], b[apart], one[apart], other[apart]
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(root, further := root[root]):
            root = further
    numbers = np.cumsum(root == np.arange(len(root))) - 1
    return numbers[root][runs].astype(np.int32)


def blurred(rgb: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Return an image (h, w, 3) without its finest noise."""
    from PIL import Image, ImageFilter

    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(sigma)))


def as_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return CIE Lab (h, w, 3) of sRGB colours: L 0 to 100, a and b about ±100, D65.

    With a table per channel and steps of 1/4095 under the cube root: 0.1 from the exact values at most, 60 ms a million
    pixels.
    """
    linear = _linear()[rgb]
    scaled = linear @ _XYZ.T * np.float32(4095)
    x, y, z = (_root()[np.clip(scaled[..., c] + np.float32(0.5), 0, 4095).astype(np.int32)] for c in range(3))
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


_XYZ = np.array(  # sRGB to XYZ (IEC 61966-2-1), each row divided by the white of D65
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]], np.float32
) / np.array([[0.950456], [1.0], [1.088754]], np.float32)  # fmt: skip


@functools.cache
def _linear() -> NDArray[np.float32]:
    value = np.arange(256) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


@functools.cache
def _root() -> NDArray[np.float32]:
    value = np.arange(4096) / 4095
    return np.where(value > 0.008856, np.cbrt(value), 7.787 * value + 16 / 116).astype(np.float32)


def _opencv(lab: NDArray[np.float32], step: int) -> NDArray[np.int32]:
    import cv2

    if min(lab.shape[:2]) < 4 * step:
        return _numpy(
            lab, step
        )  # OpenCV 5.0 reads beyond images of three pixels a side, and the process dies
    one = cv2.ximgproc.createSuperpixelSLIC(lab, cv2.ximgproc.SLIC, step, COMPACTNESS)
    one.iterate(
        ITERATIONS
    )  # enforceLabelConnectivity is left out: small pieces are joined better by `merging`
    return np.asarray(one.getLabels(), np.int32)


def _skimage(lab: NDArray[np.float32], step: int) -> NDArray[np.int32]:
    from skimage.segmentation import slic

    asked = max(1, lab.shape[0] * lab.shape[1] // (step * step))
    weight = COMPACTNESS / (float(np.ptp(lab)) or 1)  # it brings all values into 0 to 1 first
    found = slic(
        lab,
        asked,
        weight,
        max_num_iter=ITERATIONS,
        convert2lab=False,
        enforce_connectivity=False,
        start_label=0,
    )
    return np.asarray(found, np.int32)


def _numpy(lab: NDArray[np.float32], step: int) -> NDArray[np.int32]:
    """SLIC as written: a pixel goes to the nearest of the nine middles around it, by colour and place; then the means.

    All pixels are tried against one of the nine at a time, so a round is nine passes over the image.
    """
    height, width = lab.shape[:2]
    rows, columns = max(1, round(height / step)), max(1, round(width / step))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    home_row = np.minimum(np.arange(height) * rows // height, rows - 1)
    home_column = np.minimum(np.arange(width) * columns // width, columns - 1)
    weight = np.float32((COMPACTNESS / step) ** 2)
    points = np.concatenate([lab, y[..., None], x[..., None]], -1)
    cells = (home_row[:, None] * columns + home_column).astype(np.int32)
    for _ in range(ITERATIONS):
        count = np.maximum(np.bincount(cells.ravel(), minlength=rows * columns), 1)
        sums = [np.bincount(cells.ravel(), points[..., c].ravel(), rows * columns) for c in range(5)]
        middles = (np.stack(sums, 1) / count[:, None]).astype(np.float32)
        best = np.full((height, width), np.inf, np.float32)
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                row = np.clip(home_row + down, 0, rows - 1)
                column = np.clip(home_column + right, 0, columns - 1)
                tried = (row[:, None] * columns + column).astype(np.int32)
                apart = (points - middles[tried]) ** 2
                far = apart[..., :3].sum(-1) + weight * apart[..., 3:].sum(-1)
                nearer = far < best
                best[nearer], cells[nearer] = far[nearer], tried[nearer]
    return cells
