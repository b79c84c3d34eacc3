"""Probabilities of resized logits, added up: what averages several looks at one image.

torch's way holds the resized logits, their softmax and the sum, K x H x W floats each and all passed over several
times. Here two source rows at a time are stretched to a tile's width, and every row between them is blended,
exponentiated and added while it is still in the cache: what is held is 3 K floats per column of a tile. The loops are
in `resized_rows.py`. Tensors are added up by torch where they lie.
"""

# K classes, h w height and width of the logits, n W rows and columns of the sum, T columns of a tile

import itertools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from terrazzo.kernels.bilinear import Taps, TapsThere
from terrazzo.kernels.compile import is_available, read_only
from terrazzo.kernels.resized_rows import add_rows
from terrazzo.kernels.threads import default_threads, spread

if TYPE_CHECKING:
    from torch import Tensor

Logits = NDArray[np.float32]

TILE_FLOATS = 1 << 13  # K x T of one of the three rows at work: 32 KiB each
PIECE_FLOATS = 1 << 18  # K x n x W of a piece: below, a second thread costs more than it brings


def add_probs(
    logits_Khw: Logits,
    rows: Taps,
    columns: Taps,
    total_KnW: Logits,
    *,
    is_mirrored: bool = False,
    threads: int | None = None,
) -> None:
    """Add to `total_KnW` the softmax over K of the logits, resized bilinearly by `rows` and `columns`.

    logits_Khw: (K, h, w) float32. rows: n taps into h, never decreasing; columns: W taps into w (`bilinear.taps`, or a
    cut of its result). is_mirrored: the logits belong to the mirrored image; what is added is turned back.
    Equal to interpolate, softmax and + of torch to a few 1e-6. Pixels that read a NaN become NaN.
    """
    num_classes, num_rows, width = total_KnW.shape
    assert (len(rows.first), len(columns.first)) == (num_rows, width), "a tap for each row and column"
    if not is_available():
        add_probs_reference(logits_Khw, rows, columns, total_KnW, is_mirrored=is_mirrored)
        return
    logits = read_only(logits_Khw, np.float32)
    tile = min(width, max(64, TILE_FLOATS // num_classes // 16 * 16))

    def piece(bounds: tuple[int, int]) -> None:
        add_rows(logits, *rows, *columns, *bounds, tile, is_mirrored, total_KnW)

    threads = default_threads() if threads is None else threads
    pieces = max(1, min(4 * threads, num_rows, total_KnW.size // PIECE_FLOATS)) if threads > 1 else 1
    cuts = [num_rows * i // pieces for i in range(pieces + 1)]
    spread(piece, itertools.pairwise(cuts), threads=threads)


def add_probs_there(
    logits_Khw: "Tensor",
    rows: TapsThere,
    columns: TapsThere,
    total_KnW: "Tensor",
    *,
    is_mirrored: bool = False,
) -> None:
    """The same of tensors, on the device where all of them lie, holding the resized logits (K, n, W)."""
    wide = logits_Khw[:, :, columns.first] * (1 - columns.share)
    wide += logits_Khw[:, :, columns.second] * columns.share
    down = rows.share[:, None]
    full = wide[:, rows.first] * (1 - down) + wide[:, rows.second] * down
    probs = full.softmax(0)
    total_KnW += probs.flip(2) if is_mirrored else probs


def add_probs_reference(
    logits_Khw: Logits, rows: Taps, columns: Taps, total_KnW: Logits, *, is_mirrored: bool = False
) -> None:
    """The same in plain numpy, holding the resized logits (K, n, W)."""
    one = np.float32(1)
    wide = (
        logits_Khw[:, :, columns.first] * (one - columns.share)
        + logits_Khw[:, :, columns.second] * columns.share
    )
    down = rows.share[:, None]
    full = wide[:, rows.first] * (one - down) + wide[:, rows.second] * down
    full -= full.max(axis=0)
    np.exp(full, out=full)
    full /= full.sum(axis=0)
    total_KnW += full[:, :, ::-1] if is_mirrored else full
