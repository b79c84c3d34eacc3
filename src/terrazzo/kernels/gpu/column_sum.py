"""The sum of each column of a tall matrix on a GPU, as the gradient of a bias is one: in float32, in a fixed order."""

# N rows, D columns, R rows of a tile

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, ACROSS = 32, 64  # of a tile
FEW_ROWS = 1024  # which one program for each stretch of columns adds up alone
MOST_PROGRAMS = 528


def column_sum(matrix_ND: Tensor) -> Tensor:
    """Return the (D,) float32 sums of a contiguous matrix of any float dtype."""
    rows, columns = matrix_ND.shape
    parts = triton.cdiv(columns, ACROSS)
    programs = 1 if rows <= FEW_ROWS else max(1, min(MOST_PROGRAMS // parts, triton.cdiv(rows, 4 * ROWS)))
    sums = torch.empty((programs, columns), dtype=torch.float32, device=matrix_ND.device)
    _add_rows[(programs, parts)](matrix_ND, sums, rows, columns, R=ROWS, ACROSS=ACROSS, num_warps=4)
    return sums[0] if programs == 1 else column_sum(sums)


@triton.jit
def _add_rows(matrix, sums, rows, columns, R: tl.constexpr, ACROSS: tl.constexpr):
    """Every program adds each so-manieth tile of its columns."""
    d = tl.program_id(1) * ACROSS + tl.arange(0, ACROSS)
    is_column = d < columns
    total = tl.zeros([R, ACROSS], tl.float32)
    for first in range(tl.program_id(0) * R, rows, tl.num_programs(0) * R):
        row = first + tl.arange(0, R)
        is_inside = (row < rows)[:, None] & is_column[None, :]
        at = matrix + row[:, None].to(tl.int64) * columns + d[None, :]
        total += tl.load(at, mask=is_inside, other=0.0).to(tl.float32)
    tl.store(sums + tl.program_id(0) * columns + d, tl.sum(total, 0), mask=is_column)
