"""Confusion counts: how often each true class was seen as each predicted class, over any number of pixels.

One pass over both masks. Two uint8 masks, the usual case, go the fast way: eight pixels are read at once, a block of
one colour that repeats (most of a real mask) is one addition, and the rest is spread over four tables. Refuses ids
outside the classes; nothing is clipped.
"""

import contextlib
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
LONGEST = 1 << 30  # pixels counted at once, so that int32 cells cannot overflow
TABLES = 4  # of counts of bytes: adding twice to one cell in a row waits for the store before it
TABLE = (1 << 16) + 64  # cells; the same cell of two tables lies in different sets of the cache

_empty: list[NDArray[np.int32]] = []  # tables of bytes, 1 MiB each, as many as ever counted at once


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
    counts = np.zeros((num_classes, num_classes), np.int64)
    for start in range(0, len(mask_N), LONGEST):
        part = slice(start, start + LONGEST)
        found = count(pred_N[part], mask_N[part], num_classes, ignore, threads)
        if found is None:  # ids outside the classes: say which
            return confusion_reference(pred_N, mask_N, num_classes, ignore)
        counts += found
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


def _count_any(
    pred: NDArray[Any], mask: NDArray[Any], num_classes: int, ignore: int, threads: int | None
) -> Counts | None:
    """Counts of ids of any dtype, or None where one is outside the classes."""

    def count(piece: slice) -> Counts | None:
        cells = np.zeros(num_classes**2 + 1, np.int64)
        is_wrong = _count_ids(pred[piece], mask[piece], num_classes, ignore, cells)
        return None if is_wrong else cells[:-1]

    counts = np.zeros(num_classes**2, np.int64)
    for part in spread(count, _pieces(len(mask)), threads=threads):
        if part is None:
            return None
        counts += part
    return counts.reshape(num_classes, num_classes)


def _count_bytes(
    pred: NDArray[Any], mask: NDArray[Any], num_classes: int, ignore: int, threads: int | None
) -> Counts | None:
    """Counts of uint8, or None where an id is outside the classes.

    A pair of bytes is the number of its cell, so no pixel is looked up or tested: what was counted outside the classes
    is missing from the sum at the end. A table is 256 KiB, of which only the lines of classes that occur are touched.
    """
    used: list[NDArray[np.int32]] = []  # tables of this call into which no thread counts just now

    def count(piece: slice) -> None:
        tables = _any_of(used, _empty)
        pred_N, mask_N = pred[piece], mask[piece]
        end = len(mask_N) // 8 * 8
        _count_blocks(pred_N[:end].view(np.uint64), mask_N[:end].view(np.uint64), tables.reshape(-1), TABLE)
        np.add.at(tables[0], mask_N[end:].astype(np.intp) << 8 | pred_N[end:], 1)  # the last few pixels
        used.append(tables)

    spread(count, _pieces(len(mask)), threads=threads)
    counts, ignored = np.zeros((num_classes, num_classes), np.int64), 0
    for tables in used:
        cells = tables[:, : 1 << 16].reshape(TABLES, 256, 256)
        if 0 <= ignore < 256:
            ignored += int(cells[:, ignore].sum(dtype=np.int64))
            cells[:, ignore] = 0
        counts += cells[:, :num_classes, :num_classes].sum(0, dtype=np.int64)
        cells[:, :num_classes, :num_classes] = 0
    if counts.sum() + ignored != len(mask):
        return None  # and the tables, which hold more, are dropped
    _empty.extend(used)
    return counts


def _any_of(*stores: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Take tables that somebody left, or make some; other threads may take from the same lists."""
    for store in stores:
        with contextlib.suppress(IndexError):
            return store.pop()
    return np.zeros((TABLES, TABLE), np.int32)


def _pieces(pixels: int) -> list[slice]:
    length = max(PIECE, -(-pixels // 16) // 64 * 64)
    return [slice(start, start + length) for start in range(0, pixels, length)]


@kernel()
def _count_blocks(
    pred_8: NDArray[np.uint64], mask_8: NDArray[np.uint64], cells: NDArray[np.int32], size: int
) -> None:
    """Add eight pixels at a time to four tables of `size` cells, that of a pair at 256 * truth + prediction."""
    even, cell = np.uint64(0x00FF00FF00FF00FF), np.uint64(0xFFFF)
    one, two, four, six = np.uint64(8), np.uint64(16), np.uint64(32), np.uint64(48)  # bytes, in bits
    second, third, fourth = np.uint64(size), np.uint64(2 * size), np.uint64(3 * size)
    last_pred, last_mask, last_cell, run = np.uint64(0), np.uint64(0), np.uint64(0), np.int32(0)
    single = np.int32(1)
    for i in range(len(mask_8)):
        p, m = pred_8[i], mask_8[i]
        if p == last_pred and m == last_mask:
            run += np.int32(8)
            continue
        a = ((m & even) << one) | (p & even)  # the cells of pixels 0, 2, 4, 6, two bytes each
        b = (m & ~even) | ((p >> one) & even)  # of 1, 3, 5, 7
        if a == b and ((a >> two) | (a << six)) == a:  # one colour each: a run begins
            cells[last_cell] += run
            last_pred, last_mask, last_cell, run = p, m, a & cell, np.int32(8)
            continue
        cells[a & cell] += single
        cells[second + (b & cell)] += single
        cells[third + ((a >> two) & cell)] += single
        cells[fourth + ((b >> two) & cell)] += single
        cells[(a >> four) & cell] += single
        cells[second + ((b >> four) & cell)] += single
        cells[third + (a >> six)] += single
        cells[fourth + (b >> six)] += single
    cells[last_cell] += run


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
