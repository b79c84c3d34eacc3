"""Layer norm over the last dimension: torch's, and on a CUDA device a kernel that is quick for short rows."""

import torch
from torch import Tensor
from torch.nn import functional as F

from terrazzo.kernels import gpu

MOST_CHANNELS = 4096  # of a row that a program of `gpu/layer_norm.py` holds


def layer_norm(x: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, *, feeds_product: bool) -> Tensor:
    """Return rows (…, C) with mean 0 and variance 1, times weight, plus bias; statistics in float32.

    feeds_product: only matrix products and convolutions read the result. Under autocast they would round it first, so
    a GPU writes it rounded; elsewhere it is float32 there, as torch has it.
    """
    if not gpu.takes(x) or x.shape[-1] > MOST_CHANNELS:
        return F.layer_norm(x, weight_C.shape, weight_C, bias_C, eps)
    from terrazzo.kernels.gpu.layer_norm import LayerNorm

    dtype = x.dtype
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda") if feeds_product else torch.float32
    rows: Tensor = LayerNorm.apply(x, weight_C, bias_C, eps, dtype)
    return rows
