"""Confusion counts on a GPU: exact, in integers, without a wait.

Every program counts its own part of the pixels into a table of its own, since many programs that add to one cell wait
for each other, and the cell of the commonest class gets most of the pixels. Eight pixels of one byte are read at once;
where all eight are of one colour in both masks, as nearly everywhere in a real one, they are one addition.
"""

# K classes, N pixels

import torch
import triton
import triton.language as tl
from torch import Tensor

TABLE_BYTES = 32 << 20  # of all programs' tables
MOST_PROGRAMS = 1056  # eight for each multiprocessor of the largest GPUs
BLOCK = 512  # words or pixels that a program looks at together


def confusion(pred_N: Tensor, mask_N: Tensor, num_classes: int, ignore: int) -> tuple[Tensor, Tensor]:
    """Return counts (K, K) int64, rows truth, and how many scored pixels had an id outside the classes (those are in
    no cell). pred_N, mask_N: contiguous, of any integer dtype."""
    device, cells = pred_N.device, num_classes * num_classes
    programs = max(1, min(MOST_PROGRAMS, TABLE_BYTES // (4 * cells), triton.cdiv(len(mask_N), BLOCK)))
    tables = torch.zeros((programs, cells + 1), dtype=torch.int32, device=device)
    is_bytes = (
        pred_N.dtype == mask_N.dtype == torch.uint8 and (pred_N.data_ptr() | mask_N.data_ptr()) % 8 == 0
    )
    words = len(mask_N) // 8 if is_bytes else 0
    if words:
        part = triton.cdiv(triton.cdiv(words, programs), BLOCK) * BLOCK
        _count_words[(programs,)](
            pred_N[: words * 8].view(torch.int64), mask_N[: words * 8].view(torch.int64), tables,
            words, part, num_classes, ignore, BLOCK=BLOCK,
        )  # fmt: skip
    rest = len(mask_N) - 8 * words
    if rest:
        part = triton.cdiv(triton.cdiv(rest, programs), BLOCK) * BLOCK
        _count_ids[(programs,)](
            pred_N[words * 8 :], mask_N[words * 8 :], tables, rest, part, num_classes, ignore, BLOCK=BLOCK
        )
    total = tables.sum(0, dtype=torch.int64)
    return total[:cells].view(num_classes, num_classes), total[cells]


@triton.jit
def _add(table, true_id, seen_id, times, is_here, num_classes, ignore):
    is_scored = is_here & (true_id != ignore)
    is_known = (true_id >= 0) & (true_id < num_classes) & (seen_id >= 0) & (seen_id < num_classes)
    cell = tl.where(is_known, true_id * num_classes + seen_id, num_classes * num_classes)
    tl.atomic_add(table + cell, times, mask=is_scored, sem="relaxed")


@triton.jit
def _count_words(pred, mask, tables, words, part, num_classes, ignore, BLOCK: tl.constexpr):
    """One part of the words, eight pixels each."""
    first = tl.program_id(0) * part
    table = tables + tl.program_id(0).to(tl.int64) * (num_classes * num_classes + 1)
    for start in range(first, tl.minimum(first + part, words), BLOCK):
        i = start + tl.arange(0, BLOCK)
        is_here = i < words
        p, m = tl.load(pred + i, mask=is_here, other=0), tl.load(mask + i, mask=is_here, other=0)
        p0, m0 = (p & 255).to(tl.int32), (m & 255).to(tl.int32)
        # shifting by a pixel brings every pixel over its neighbour: no bit differs where all eight are equal
        is_even = (((p ^ (p >> 8)) | (m ^ (m >> 8))) & 0x00FFFFFFFFFFFFFF) == 0
        _add(table, m0, p0, tl.where(is_even, 8, 1), is_here, num_classes, ignore)
        is_mixed = is_here & (is_even == 0)
        for pixel in tl.static_range(1, 8):
            true_id, seen_id = (m >> (8 * pixel)) & 255, (p >> (8 * pixel)) & 255
            _add(table, true_id.to(tl.int32), seen_id.to(tl.int32), 1, is_mixed, num_classes, ignore)


@triton.jit
def _count_ids(pred, mask, tables, count, part, num_classes, ignore, BLOCK: tl.constexpr):
    """One part of pixels of any integer dtype."""
    first = tl.program_id(0) * part
    table = tables + tl.program_id(0).to(tl.int64) * (num_classes * num_classes + 1)
    for start in range(first, tl.minimum(first + part, count), BLOCK):
        i = start + tl.arange(0, BLOCK)
        is_here = i < count
        true_id = tl.load(mask + i, mask=is_here, other=0).to(tl.int64)
        seen_id = tl.load(pred + i, mask=is_here, other=0).to(tl.int64)
        _add(table, true_id, seen_id, 1, is_here, num_classes, ignore)
