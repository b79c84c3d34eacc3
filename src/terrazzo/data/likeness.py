"""Images that look alike though their bytes differ: saved again, scaled, brightened, mirrored, or a moment later.

An image is shrunk to 16 x 16 cells of brightness, and the mean of the 3 x 3 cells around each is taken off: what stays
is the picture's drawing, without its light. Between two such drawings a correlation says how alike they are.
On CamVid (checked 2026-11) saving as JPEG of quality 30 and scaling by 0.5 to 1.3 cost 0.003 of it at most, a tenth
more light 0.01, a rim of 1 % cut off 0.05; frames a second apart differ by 0.5, others by 1.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.data.chart import Case, Chart

ALIKE = 0.97  # correlation of drawings from which two images are called alike
_SIDE = 16  # cells per side
_FAINTEST = 0.7  # grey levels of a drawing (root mean square); below, noise alone makes it
_AT_ONCE = 1024  # rows of a comparison, so that it takes some megabytes whatever the count


def drawing(grey: Any) -> bytes:
    """Return the drawing of a Pillow image of mode L: 256 int8; empty where there is too little to see."""
    from PIL import Image

    small = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX)).astype(np.float32)
    wide = np.pad(small, 1, mode="edge")
    around = sum(wide[y : y + _SIDE, x : x + _SIDE] for y in range(3) for x in range(3)) / np.float32(9)
    lines = small - around
    if float(np.sqrt((lines**2).mean())) < _FAINTEST:
        return b""
    return np.rint(lines * (127 / np.abs(lines).max())).astype(np.int8).tobytes()


def near_duplicates(chart: Chart) -> list[tuple[Case, Case]]:
    """Return pairs of images, one that scores, one that trains, that look alike or mirrored so, and are not equal."""
    trained = [case for case in chart.cases if case.seen.drawing and case.split == "train"]
    scored = [case for case in chart.cases if case.seen.drawing and case.split not in ("train", "")]
    if not trained or not scored:
        return []
    ours, theirs = _drawings(trained), _drawings(scored)
    mirrored = theirs.reshape(-1, _SIDE, _SIDE)[:, :, ::-1].reshape(len(scored), -1)
    found = []
    for start in range(0, len(trained), _AT_ONCE):
        rows = ours[start : start + _AT_ONCE]
        agree = np.maximum(rows @ theirs.T, rows @ mirrored.T)
        nearest = agree.argmax(axis=1)
        for row in np.flatnonzero(agree.max(axis=1) >= ALIKE).tolist():
            one, other = trained[start + row], scored[int(nearest[row])]
            if one.seen.content != other.seen.content:
                found.append((other, one))
    return found


def correlations(cases: list[Case], others: list[Case]) -> NDArray[np.float32]:
    """Return how alike two lists of images are, one by one (N,); all have drawings."""
    result: NDArray[np.float32] = (_drawings(cases) * _drawings(others)).sum(axis=1)
    return result


def _drawings(cases: list[Case]) -> NDArray[np.float32]:
    """The drawings of cases (N, 256), each of length 1."""
    packed = np.frombuffer(b"".join(case.seen.drawing for case in cases), dtype=np.int8)
    lines = packed.reshape(len(cases), -1).astype(np.float32)
    return lines / np.sqrt((lines**2).sum(axis=1, keepdims=True))
