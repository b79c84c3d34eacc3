"""Confusion counts: how often each true class was seen as each predicted class, over any number of pixels.

One pass over both masks. Two uint8 masks, the usual case, go the fast way: eight pixels are read at once, a block of
one colour that repeats (most of a real mask) is one addition, and the rest is spread over several tables, since adding
twice to one cell in a row waits for the store before it. Refuses ids outside the classes; nothing is clipped.
"""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import ignore_value
from terrazzo.errors import MaskSizeError, MaskValueError
from terrazzo.kernels.compile import is_available, kernel, read_only
from terrazzo.kernels.threads import spread

if TYPE_CHECKING:
    from torch import Tensor

Counts = NDArray[np.int64]

PIECE = 1 << 17  # pixels; below about 0.1 ms of work a second thread costs more than it brings
LONGEST = 1 << 30  # pixels of one piece, so that int32 cells cannot overflow


def confusion(
    pred: "NDArray[Any] | Tensor",
    mask: "NDArray[Any] | Tensor",
    num_classes: int,
    ignore: int | None = None,
    *,
    threads: int | None = None,
) -> Counts:
    """Count pixels by (true class, predicted class).

    pred, mask: class ids of any one shape, numpy arrays or torch tensors of any integer dtype (uint8 is fastest; CUDA
    tensors are counted where they are). Pixels whose *true* id is `ignore` (None: 255 while num_classes <= 255, else
    65535) are not counted, whatever was predicted there. On any other pixel an id outside 0 … num_classes - 1 is a
    MaskValueError, for truth and prediction alike: an error, not a miss.
    Returns (K, K) int64, rows truth, columns prediction; counts add over batches and processes.
    """
    ignore = ignore_value(num_classes) if ignore is None else ignore
    if tuple(pred.shape) != tuple(mask.shape):
        raise MaskSizeError(
            "Prediction and truth differ in size.",
            found=f"prediction {'x'.join(map(str, pred.shape))}",
            expected=f"{'x'.join(map(str, mask.shape))}, as the truth",
        )
    if _is_on_device(pred) or _is_on_device(mask):
        return _confusion_on_device(pred, mask, num_classes, ignore)
    pred_N, mask_N = _flat(pred, "prediction"), _flat(mask, "truth")
    if not is_available():
        return confusion_reference(pred_N, mask_N, num_classes, ignore)
    one_byte = pred_N.dtype == mask_N.dtype == np.uint8 and num_classes <= 256
    count = _count_bytes if one_byte else _count_any

    def piece(bounds: tuple[int, int]) -> Counts | None:
        start, stop = bounds
        return count(pred_N[start:stop], mask_N[start:stop], num_classes, ignore)

    length = max(PIECE, min(LONGEST, -(-len(mask_N) // 16)) // 64 * 64)
    parts = spread(
        piece, [(i, min(i + length, len(mask_N))) for i in range(0, len(mask_N), length)], threads=threads
    )
    counts = np.zeros((num_classes, num_classes), np.int64)
    for part in parts:
        if part is None:  # ids outside the classes: say which
            return confusion_reference(pred_N, mask_N, num_classes, ignore)
        counts += part
    return counts


def confusion_reference(
    pred: NDArray[Any], mask: NDArray[Any], num_classes: int, ignore: int | None = None
) -> Counts:
    """The same in plain numpy: about 4 ns per pixel."""
    ignore = ignore_value(num_classes) if ignore is None else ignore
    counted = mask != ignore
    truth, seen = mask[counted].astype(np.int64), pred[counted].astype(np.int64)
    _check(truth, num_classes, "The truth", f"0-{num_classes - 1}, and {ignore} where a pixel is not scored")
    _check(seen, num_classes, "The prediction", f"0-{num_classes - 1} wherever the truth is not {ignore}")
    cells = np.bincount(truth * num_classes + seen, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes).astype(np.int64)


def _check(ids: NDArray[np.int64], num_classes: int, who: str, expected: str) -> None:
    bad = ids[(ids < 0) | (ids >= num_classes)]
    if len(bad) == 0:
        return
    values, counts = np.unique(bad, return_counts=True)
    listed = ", ".join(
        f"{i} ({n:,} pixels)" for i, n in zip(values[:8].tolist(), counts[:8].tolist(), strict=True)
    )
    raise MaskValueError(
        f"{who} has class id {values[0]}; there are {num_classes} classes.",
        found=listed + (f", … {len(values)} such ids" if len(values) > 8 else ""),
        expected=expected,
        hint="Ids are remapped once, where data enters; an id outside the classes would make every score false.",
    )


def _flat(ids: "NDArray[Any] | Tensor", who: str) -> NDArray[Any]:
    """Return ids as a flat, contiguous array of uint8, uint16 or int64, without a copy where it is one already."""
    array = ids if isinstance(ids, np.ndarray) else ids.detach().numpy()
    if array.dtype.kind not in "biu":
        raise MaskValueError(
            f"The {who} is not a map of class ids.", found=str(array.dtype), expected="integers"
        )
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    elif array.dtype not in (np.uint8, np.uint16):
        array = array.astype(np.int64, copy=False)
    flat = read_only(array).reshape(-1)
    return flat if flat.ctypes.data % 8 == 0 else read_only(flat.copy())  # eight bytes are read at once


def _count_any(pred: NDArray[Any], mask: NDArray[Any], num_classes: int, ignore: int) -> Counts | None:
    """Counts of one piece, or None where an id is outside the classes."""
    cells = np.zeros(num_classes**2 + 1, np.int64)
    if _count_ids(pred, mask, num_classes, ignore, cells):
        return None
    return cells[:-1].reshape(num_classes, num_classes)


def _count_bytes(pred: NDArray[Any], mask: NDArray[Any], num_classes: int, ignore: int) -> Counts | None:
    """Counts of one piece of uint8, or None where an id is outside the classes.

    A table has one more row for ignored and one for wrong truths, one more column for wrong predictions: no pixel
    needs a branch.
    """
    rows, columns = num_classes + 2, num_classes + 1
    row_of = np.full(256, num_classes + 1, np.int32)
    row_of[:num_classes] = np.arange(num_classes, dtype=np.int32)
    if 0 <= ignore < 256:
        row_of[ignore] = num_classes
    column_of = np.full(256, num_classes, np.int32)
    column_of[:num_classes] = np.arange(num_classes, dtype=np.int32)
    num_tables = 4 if num_classes <= 64 else 1  # all must stay in the first cache
    tables = np.zeros((num_tables, rows * columns), np.int32)
    blocks = len(mask) // 8
    pred_8, mask_8 = pred[: blocks * 8].view(np.uint64), mask[: blocks * 8].view(np.uint64)
    _count_blocks(pred_8, mask_8, row_of * columns, column_of, tables.reshape(-1), len(tables))
    table = tables.sum(0, dtype=np.int64).reshape(rows, columns)
    np.add.at(table, (row_of[mask[blocks * 8 :]], column_of[pred[blocks * 8 :]]), 1)  # the last few pixels
    counts = table[:num_classes, :num_classes]
    wrong = table[num_classes + 1].sum() + table[:num_classes, num_classes].sum()
    return None if wrong else np.ascontiguousarray(counts)


@kernel()
def _count_blocks(
    pred_8: NDArray[np.uint64],
    mask_8: NDArray[np.uint64],
    row_of: NDArray[np.int32],
    column_of: NDArray[np.int32],
    cells: NDArray[np.int32],
    tables: int,
) -> None:
    byte, turn, rest = np.uint64(255), np.uint64(8), np.uint64(56)
    size = len(cells) // tables
    second, third, fourth = (size, 2 * size, 3 * size) if tables == 4 else (0, 0, 0)
    last_pred, last_mask, run = np.uint64(0), np.uint64(0), 0
    for i in range(len(mask_8)):
        p, m = pred_8[i], mask_8[i]
        if p == last_pred and m == last_mask:
            run += 8
            continue
        if (p >> turn) | (p << rest) == p and (m >> turn) | (m << rest) == m:  # one colour each: a run begins
            cells[row_of[last_mask & byte] + column_of[last_pred & byte]] += run
            last_pred, last_mask, run = p, m, 8
            continue
        cells[row_of[m & byte] + column_of[p & byte]] += 1
        cells[second + row_of[(m >> np.uint64(8)) & byte] + column_of[(p >> np.uint64(8)) & byte]] += 1
        cells[third + row_of[(m >> np.uint64(16)) & byte] + column_of[(p >> np.uint64(16)) & byte]] += 1
        cells[fourth + row_of[(m >> np.uint64(24)) & byte] + column_of[(p >> np.uint64(24)) & byte]] += 1
        cells[row_of[(m >> np.uint64(32)) & byte] + column_of[(p >> np.uint64(32)) & byte]] += 1
        cells[second + row_of[(m >> np.uint64(40)) & byte] + column_of[(p >> np.uint64(40)) & byte]] += 1
        cells[third + row_of[(m >> np.uint64(48)) & byte] + column_of[(p >> np.uint64(48)) & byte]] += 1
        cells[fourth + row_of[m >> rest] + column_of[p >> rest]] += 1
    cells[row_of[last_mask & byte] + column_of[last_pred & byte]] += run


@kernel()
def _count_ids(
    pred: NDArray[Any], mask: NDArray[Any], num_classes: int, ignore: int, cells: NDArray[np.int64]
) -> bool:
    """Add to cells (K x K, and one more for ignored pixels); True when an id is outside the classes.

    A run of equal pixels is one addition: 0.8 ns a pixel on masks as they are, 3.6 on noise.
    """
    nowhere, size, wrong = np.int64(num_classes * num_classes), np.uint64(num_classes), False
    last_true, last_seen, last_cell, run = np.int64(ignore), np.int64(0), nowhere, 0
    for i in range(len(mask)):
        true_id, seen_id = np.int64(mask[i]), np.int64(pred[i])
        if true_id == last_true and seen_id == last_seen:
            run += 1
            continue
        cells[last_cell] += run
        last_true, last_seen, run = true_id, seen_id, 1
        last_cell = nowhere
        if true_id == ignore:
            continue
        if np.uint64(true_id) >= size or np.uint64(seen_id) >= size:  # a negative id is a large one
            wrong = True
            continue
        last_cell = true_id * num_classes + seen_id
    cells[last_cell] += run
    return wrong


def _is_on_device(ids: "NDArray[Any] | Tensor") -> bool:
    return "torch" in sys.modules and not isinstance(ids, np.ndarray) and ids.device.type != "cpu"


def _confusion_on_device(pred: Any, mask: Any, num_classes: int, ignore: int) -> Counts:
    """Counted where the tensors are; the masks themselves come to the CPU only to name wrong ids."""
    import torch

    from terrazzo.kernels import gpu

    device = torch.device(pred.device if _is_on_device(pred) else mask.device)
    wide = (
        ids.astype(np.int32) if isinstance(ids, np.ndarray) and ids.dtype == np.uint16 else ids
        for ids in (pred, mask)
    )
    pred_N, mask_N = (torch.as_tensor(ids, device=device).reshape(-1) for ids in wide)
    if device.type == "cuda" and gpu.is_installed() and torch.bool not in (pred_N.dtype, mask_N.dtype):
        from terrazzo.kernels.gpu.confusion import confusion as on_gpu

        cells, wrong = on_gpu(pred_N, mask_N, num_classes, ignore)
    else:
        cells, wrong = _count_by_torch(pred_N, mask_N, num_classes, ignore)
    found = torch.cat([cells.reshape(-1), wrong.reshape(1)]).cpu().numpy()  # one wait for both
    if found[-1]:
        return confusion_reference(pred_N.cpu().numpy(), mask_N.cpu().numpy(), num_classes, ignore)
    return found[:-1].reshape(num_classes, num_classes)


def _count_by_torch(
    pred_N: "Tensor", mask_N: "Tensor", num_classes: int, ignore: int
) -> "tuple[Tensor, Tensor]":
    import torch

    counted = mask_N != ignore
    truth, seen = mask_N[counted].long(), pred_N[counted].long()
    is_known = (truth >= 0) & (truth < num_classes) & (seen >= 0) & (seen < num_classes)
    cells = torch.bincount((truth * num_classes + seen)[is_known], minlength=num_classes**2)
    return cells, (~is_known).sum()
