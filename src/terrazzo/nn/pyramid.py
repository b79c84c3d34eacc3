"""Pyramid pooling as matrix products: averages over cells, and a 3x3 convolution over maps upsampled from few cells.

A pyramid head pools a map to s x s cells, resizes the cells back to the map's size and convolves 3x3 over the result.
Pooling, bilinear resizing and convolution are linear, so the last two become one. With A_y (H x s) and A_x (W x s) the
matrices of the resize,

    conv3x3(up(P)) = AY Q AX^T      for each output channel

where Q (3s x 3s) holds the nine products of a tap's weights with the cells, and AY (H x 3s), AX (W x 3s) stack A_y and
A_x shifted by -1, 0 and +1 rows, zeros shifted in: the convolution's own zero padding, so borders are exact too. For
PSPNet at 512x1024 that makes 77 billion multiplications half a billion. It holds for values and gradients alike, so it
serves training as well: batch norm follows the convolution. As matrix products all this can be exported; ONNX has no
adaptive pooling whose cells differ in size.

Training on a CPU takes the plain way instead, operation by operation as published code does: its rounding is theirs
then, and a training can be compared with one of theirs to the last bit.

Each function stands beside the plain expression that its test compares it with.

Shapes: B batch, C D channels in and out, H W height and width of the map, p q its cells, S rows of cells in all.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrazzo.kernels import winograd
from terrazzo.nn.conv import folded, normalised
from terrazzo.nn.precision import without_autocast


def is_plain(x_BCHW: Tensor, *, training: bool) -> bool:
    """Return whether to compute as published code does: in training on a CPU."""
    return training and x_BCHW.device.type == "cpu"


def pooled(x_BCHW: Tensor, scales: Sequence[int], *, training: bool = False) -> list[Tensor]:
    """Return x averaged to s x s cells for each s of `scales`: maps (B, C, s, s).

    Cell i covers the pixels from floor(i H / s) to ceil((i + 1) H / s), as torch's adaptive_avg_pool2d has it.
    """
    if is_plain(x_BCHW, training=training):
        return [F.adaptive_avg_pool2d(x_BCHW, scale) for scale in scales]
    if list(scales) == [1]:
        return [x_BCHW.mean((2, 3), keepdim=True)]
    height, width = x_BCHW.shape[2:]
    x_BHWC = x_BCHW.permute(0, 2, 3, 1)
    rows_SH = torch.cat([averaging_matrix(height, scale, x_BCHW) for scale in scales])
    means_BSX = rows_SH @ x_BHWC.flatten(2)
    maps = []
    for scale, part_BpX in zip(scales, means_BSX.split(list(scales), dim=1), strict=True):
        part_BpWC = part_BpX.unflatten(2, (width, -1))
        cells_BpqC = averaging_matrix(width, scale, x_BCHW) @ part_BpWC
        maps.append(cells_BpqC.permute(0, 3, 1, 2))
    return maps


def pyramid_conv3x3(
    features_BCHW: Tensor,
    maps: Sequence[Tensor],
    weight: Tensor,
    bias_D: Tensor | None = None,
    *,
    align_corners: bool,
    maps_first: bool = False,
) -> Tensor:
    """Return conv3x3(concat(features, up(maps[0]), up(maps[1]), …)) with zero padding 1: (B, D, H, W).

    maps: each (B, C_k, p, q), as if resized to H x W by bilinear interpolation. weight: (D, C + sum C_k, 3, 3).
    maps_first: the maps come before the features in the concatenation.
    """
    sizes = [one.shape[1] for one in maps]
    if maps_first:
        *of_maps, own = weight.split([*sizes, features_BCHW.shape[1]], dim=1)
    else:
        own, *of_maps = weight.split([features_BCHW.shape[1], *sizes], dim=1)
    is_quicker = winograd.pays(features_BCHW, own, dilation=1)
    conv3x3 = winograd.conv3x3 if is_quicker else partial(F.conv2d, padding=1)
    y_BDHW = conv3x3(features_BCHW, own, bias_D)
    size_hw = (features_BCHW.shape[2], features_BCHW.shape[3])
    return y_BDHW.add_(upsampled_conv3x3(maps, of_maps, size_hw, align_corners=align_corners))


def pyramid_conv_norm(
    features_BCHW: Tensor,
    maps: Sequence[Tensor],
    conv: nn.Conv2d,
    norm: nn.Module,
    *,
    align_corners: bool,
    maps_first: bool = False,
) -> Tensor:
    """Return norm(conv(concat(features, up(maps[0]), …))) for a 3x3 `conv` without bias; see `pyramid_conv3x3`.

    Outside training the norm is folded into the weights. Nobody else holds the result.
    """
    if is_plain(features_BCHW, training=norm.training):
        up = [
            F.interpolate(one, features_BCHW.shape[2:], mode="bilinear", align_corners=align_corners)
            for one in maps
        ]
        return normalised(
            conv(torch.cat([*up, features_BCHW] if maps_first else [features_BCHW, *up], dim=1)), norm
        )
    weight, bias_D = (conv.weight, None) if norm.training else folded(conv.weight, norm)
    y_BDHW = pyramid_conv3x3(
        features_BCHW, maps, weight, bias_D, align_corners=align_corners, maps_first=maps_first
    )
    return normalised(y_BDHW, norm) if norm.training else y_BDHW


def upsampled_conv3x3(
    maps: Sequence[Tensor], weights: Sequence[Tensor], size_hw: tuple[int, int], *, align_corners: bool
) -> Tensor:
    """Return the sum of conv3x3(up(maps[k]), weights[k]) at `size_hw`, zero padding 1: (B, D, H, W), channels last.

    maps: (B, C_k, p, q); weights: (D, C_k, 3, 3). At least float32 inside, whatever autocast says: it is small.
    """
    dtype = torch.promote_types(maps[0].dtype, torch.float32)
    height, width = size_hw
    rows, parts = [], []
    with without_autocast(maps[0].device):
        for x_BCpq, weight_DC33 in zip(maps, weights, strict=True):
            x_BpqC = x_BCpq.to(dtype).permute(0, 2, 3, 1)
            batch, p, q, _ = x_BpqC.shape
            taps = x_BpqC @ weight_DC33.to(dtype).permute(1, 2, 3, 0).flatten(1)  # (B, p, q, 3 3 D)
            taps = taps.view(batch, p, q, 3, 3, -1).permute(0, 3, 1, 4, 2, 5)  # B 3 p, 3 q, D: rows, columns
            across = _shifted(resizing_matrix(q, width, taps, align_corners=align_corners))
            wide = across @ taps.reshape(batch, 3 * p, 3 * q, -1)  # (B, 3 p, W, D)
            parts.append(wide.flatten(2))
            rows.append(_shifted(resizing_matrix(p, height, taps, align_corners=align_corners)))
        y_BHX = torch.cat(rows, dim=1) @ torch.cat(parts, dim=1)
    return y_BHX.unflatten(2, (width, -1)).permute(0, 3, 1, 2)


def averaging_matrix(size: int, cells: int, like: Tensor) -> Tensor:
    """Return (cells, size): row i averages the pixels of cell i; dtype and device of `like`."""
    pixel = torch.arange(size, device=like.device)
    cell = torch.arange(cells, device=like.device)[:, None]
    first, end = cell * size // cells, ((cell + 1) * size + cells - 1) // cells
    inside = (pixel >= first) & (pixel < end)
    return (inside.double() / (end - first)).to(like.dtype)


def resizing_matrix(cells: int, size: int, like: Tensor, *, align_corners: bool) -> Tensor:
    """Return (size, cells): bilinear interpolation along one side, as F.interpolate has it; dtype of `like`."""
    if cells == 1:  # the general way makes OpenVINO 2026.4 rewrite a graph of free size for ever
        return torch.ones(size, 1, device=like.device, dtype=like.dtype)
    pixel = torch.arange(size, device=like.device, dtype=torch.float64)
    if align_corners:
        source = pixel * ((cells - 1) / max(size - 1, 1))
    else:
        source = ((pixel + 0.5) * (cells / size) - 0.5).clamp(min=0)
    low = source.floor().clamp(max=cells - 1)
    share = (source - low)[:, None]
    cell = torch.arange(cells, device=like.device)
    below, above = cell == low[:, None], cell == (low + 1).clamp(max=cells - 1)[:, None]
    return (below * (1 - share) + above * share).to(like.dtype)


def _shifted(matrix_Hp: Tensor) -> Tensor:
    """Return (H, 3 p): the matrix as each row of a 3x3 kernel reads it, from the row above to the row below."""
    size = matrix_Hp.shape[0]
    padded = F.pad(matrix_Hp, (0, 0, 1, 1))
    return torch.cat([padded[tap : tap + size] for tap in range(3)], dim=1)
