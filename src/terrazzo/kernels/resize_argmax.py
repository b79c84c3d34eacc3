"""From logits to the mask in one pass: bilinear resize and argmax, and how sure the winner is.

torch's way writes and reads K x H x W floats, 157 MB for 19 classes at 1080p. Here two source rows at a time are
stretched to the full width, tile by tile, and every pixel between them keeps only its running best: what is held is
2 K floats per column of a tile, what is written is one id per pixel. Where one class wins at all four corners of a cell
it wins inside, for blending keeps order: such cells, nearly all in a trained network's map, are filled without a look
at their pixels. The loops are in `resized_rows.py`.
"""

# K classes, h w height and width of the logits, H W of the mask, T columns of a tile

import itertools
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import IGNORE_8BIT, Mask
from terrazzo.kernels.bilinear import Taps, taps
from terrazzo.kernels.compile import is_available, read_only
from terrazzo.kernels.resized_rows import argmax_rows
from terrazzo.kernels.threads import default_threads, spread

if TYPE_CHECKING:
    from torch import Tensor

Logits = NDArray[np.float32]

TILE_FLOATS = 1 << 14  # K x T of one of the two stretched rows; 64 KiB was fastest, 2026-11, EPYC 9004
PIECE_FLOATS = 1 << 20  # K x H x W of a piece: below 0.2 ms a second thread costs more than it brings


@overload
def resize_argmax(
    logits_KHW: Logits,
    size_hw: tuple[int, int],
    *,
    align_corners: bool = False,
    confidence: bool = False,
    threads: int | None = None,
) -> tuple[Mask, NDArray[np.uint8] | None]: ...


@overload
def resize_argmax(
    logits_KHW: "Tensor",
    size_hw: tuple[int, int],
    *,
    align_corners: bool = False,
    confidence: bool = False,
    threads: int | None = None,
) -> "tuple[Tensor, Tensor | None]": ...


def resize_argmax(
    logits_KHW: "Logits | Tensor",
    size_hw: tuple[int, int],
    *,
    align_corners: bool = False,
    confidence: bool = False,
    threads: int | None = None,
) -> "tuple[Mask, NDArray[np.uint8] | None] | tuple[Tensor, Tensor | None]":
    """Return the mask (H, W) of the largest of K bilinearly resized logits, and its confidence or None.

    logits_KHW: (K, h, w) float32 (others are converted). size_hw: the mask's (H, W), larger or smaller.
    The mask is uint8 while K <= 255, else uint16, and equals that of torch.nn.functional.interpolate followed by argmax
    except where two classes are within rounding of each other; exact ties go to the lowest id. A NaN never wins.
    confidence: uint8, 255 x the softmax of the winner among the resized logits, rounded; 255 is certain.
    Of a torch tensor both are tensors where it lies (of more than 255 classes int32): nothing comes to the CPU.
    """
    assert logits_KHW.ndim == 3, f"logits (K, h, w), not {logits_KHW.shape}"
    assert min(*logits_KHW.shape, *size_hw) > 0, f"nothing to resize: {logits_KHW.shape} to {size_hw}"
    if not isinstance(logits_KHW, np.ndarray):
        return _of_tensor(logits_KHW, size_hw, align_corners=align_corners, confidence=confidence)
    if not is_available():
        return resize_argmax_reference(
            logits_KHW, size_hw, align_corners=align_corners, confidence=confidence
        )
    logits = read_only(logits_KHW, np.float32)
    num_classes, (height, width) = len(logits), size_hw
    mask = np.empty(size_hw, np.uint8 if num_classes <= IGNORE_8BIT else np.uint16)
    sure = np.empty(size_hw if confidence else (0, 0), np.uint8)
    rows = taps(logits.shape[1], height, align_corners=align_corners)
    columns = taps(logits.shape[2], width, align_corners=align_corners)
    tile = min(width, max(64, TILE_FLOATS // num_classes // 16 * 16))

    def piece(bounds: tuple[int, int]) -> None:
        argmax_rows(logits, *rows, *columns, *bounds, tile, mask, sure)

    threads = default_threads() if threads is None else threads
    pieces = max(1, min(4 * threads, height, mask.size * num_classes // PIECE_FLOATS)) if threads > 1 else 1
    cuts = [height * i // pieces for i in range(pieces + 1)]
    spread(piece, itertools.pairwise(cuts), threads=threads)
    return mask, sure if confidence else None


def _of_tensor(
    logits_KHW: "Tensor", size_hw: tuple[int, int], *, align_corners: bool, confidence: bool
) -> "tuple[Tensor, Tensor | None]":
    import torch
    from torch.nn import functional as F

    from terrazzo.kernels import gpu

    if gpu.takes(logits_KHW):
        from terrazzo.kernels.gpu.resize_argmax import resize_argmax as on_gpu

        masks, sures = on_gpu(logits_KHW[None], size_hw, align_corners=align_corners, confidence=confidence)
        return masks[0], None if sures is None else sures[0]
    full_KHW = F.interpolate(logits_KHW[None].float(), size_hw, mode="bilinear", align_corners=align_corners)[
        0
    ]
    mask = full_KHW.nan_to_num(nan=-torch.inf).argmax(0)
    sure = (255 * full_KHW.softmax(0).amax(0) + 0.5).to(torch.uint8) if confidence else None
    return mask.to(torch.uint8 if len(logits_KHW) <= IGNORE_8BIT else torch.int32), sure


def resize_argmax_reference(
    logits_KHW: Logits, size_hw: tuple[int, int], *, align_corners: bool = False, confidence: bool = False
) -> tuple[Mask, NDArray[np.uint8] | None]:
    """The same in plain numpy, holding the resized logits (K, H, W)."""
    logits = np.asarray(logits_KHW, dtype=np.float32)
    columns = taps(logits.shape[2], size_hw[1], align_corners=align_corners)
    rows = taps(logits.shape[1], size_hw[0], align_corners=align_corners)
    wide = _blend(logits, columns, axis=2)
    full_KHW = _blend(wide, rows, axis=1)
    mask = np.argmax(np.where(np.isnan(full_KHW), -np.inf, full_KHW), axis=0)
    mask = mask.astype(np.uint8 if len(logits) <= IGNORE_8BIT else np.uint16)
    if not confidence:
        return mask, None
    probs = 1.0 / np.exp(full_KHW - full_KHW.max(0)).sum(0)
    return mask, (255 * probs + 0.5).astype(np.uint8)


def _blend(values: Logits, axis_taps: Taps, *, axis: int) -> Logits:
    first, second, share = axis_taps
    shape = [1, 1, 1]
    shape[axis] = len(share)
    share = share.reshape(shape)
    return values.take(first, axis) * (1 - share) + values.take(second, axis) * share
