"""Change the colours of a crop and lay it out for a network, in one pass: grey levels (H, W, C) -> float32 (C, H, W).

Brightness, contrast, saturation and hue rotation are affine in RGB, so however many of them are drawn they are one
3x4 matrix per image (`transforms.colour_matrix` composes it) and one walk over the pixels.

`recolour` takes one image on the CPU, `recolour_batch` a batch of 8-bit crops where they lie: a GPU gets bytes, a
quarter of what floats are, and does the rest itself.
"""

# B batch, C channels, H W height width

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.kernels.compile import ELEMENTWISE, is_available, kernel, read_only

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]


def recolour(
    image_HWC: Array,
    matrix: NDArray[np.float32],
    *,
    white: float,
    low: float = 0.0,
    high: float = 1.0,
    out_CHW: NDArray[np.float32],
) -> None:
    """Write `clip(matrix @ (pixel / white, 1), low, high)` of every pixel to the top left of `out_CHW`.

    image_HWC: uint8, uint16 or float32. matrix: (C, C + 1) float32. white: 255 for uint8, 65535 for uint16, 1 for
    float32. out_CHW: float32, at least as high and wide as the image; what lies beyond it is left alone.
    """
    height, width, channels = image_HWC.shape
    assert matrix.shape == (channels, channels + 1)
    assert out_CHW.shape[0] == channels
    assert min(out_CHW.shape[1] - height, out_CHW.shape[2] - width) >= 0
    if not is_available():
        recolour_reference(image_HWC, matrix, white=white, low=low, high=high, out_CHW=out_CHW)
        return
    view = read_only(image_HWC)
    limits = np.float32(low), np.float32(high)
    if channels == 3:
        _recolour_rgb(view, np.float32(white), matrix, *limits, out_CHW[0], out_CHW[1], out_CHW[2])
        return
    for channel in range(channels):
        _recolour_channel(view, np.float32(white), matrix[channel], *limits, out_CHW[channel])


def recolour_reference(
    image_HWC: Array,
    matrix: NDArray[np.float32],
    *,
    white: float,
    low: float = 0.0,
    high: float = 1.0,
    out_CHW: NDArray[np.float32],
) -> None:
    """Do what `recolour` does, in plain numpy: the sum channel by channel in the same order."""
    unit = image_HWC.astype(np.float32) / np.float32(white)
    for channel, row in enumerate(matrix):
        total = np.full(image_HWC.shape[:2], row[-1], np.float32)
        for source, factor in enumerate(row[:-1]):
            total += factor * unit[..., source]
        np.clip(total, np.float32(low), np.float32(high), out=out_CHW[channel, : len(unit), : unit.shape[1]])


def recolour_batch(
    image_BHWC: "Tensor", matrix_BCM: "Tensor", *, inside_B2: "Tensor | None" = None, beyond_C: "Tensor"
) -> "Tensor":
    """Return (B, C, H, W) float32, every image as `recolour` would write it with white 255, clipped to [0, 1].

    image_BHWC: uint8. matrix_BCM: (B, C, C + 1) float32. inside_B2: (height, width) of the part of each image, from its
    top left, that holds pixels; None for all. beyond_C: float32, the colour that stands where it holds none. All on one
    device, and nothing waits for it. Results differ from `recolour`'s by the rounding of float32.
    Memory beside the result: B C H W floats.
    """
    import torch

    device, (_, height, width, channels) = image_BHWC.device, image_BHWC.shape
    assert image_BHWC.dtype == torch.uint8
    assert matrix_BCM.shape[1:] == (channels, channels + 1)
    unit = image_BHWC.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    unit /= torch.full((), 255.0, device=device)  # by a plain number a GPU would multiply with its inverse
    factors = matrix_BCM[..., None, None]
    total = torch.addcmul(factors[:, :, -1], factors[:, :, 0], unit[:, :1])
    for source in range(1, channels):
        total.addcmul_(factors[:, :, source], unit[:, source : source + 1])
    total.clamp_(0, 1)
    if inside_B2 is None:
        return total
    rows_BH = torch.arange(height, device=device) < inside_B2[:, :1]
    columns_BW = torch.arange(width, device=device) < inside_B2[:, 1:]
    return torch.where(rows_BH[:, None, :, None] & columns_BW[:, None, None], total, beyond_C[:, None, None])


@kernel(fastmath=ELEMENTWISE)
def _recolour_rgb(
    image: Array,
    white: np.float32,
    matrix: NDArray[np.float32],
    low: np.float32,
    high: np.float32,
    out_red: NDArray[np.float32],
    out_green: NDArray[np.float32],
    out_blue: NDArray[np.float32],
) -> None:
    height, width, _ = image.shape
    for y in range(height):
        for x in range(width):
            red = np.float32(image[y, x, 0]) / white
            green = np.float32(image[y, x, 1]) / white
            blue = np.float32(image[y, x, 2]) / white
            r = matrix[0, 3] + matrix[0, 0] * red + matrix[0, 1] * green + matrix[0, 2] * blue
            g = matrix[1, 3] + matrix[1, 0] * red + matrix[1, 1] * green + matrix[1, 2] * blue
            b = matrix[2, 3] + matrix[2, 0] * red + matrix[2, 1] * green + matrix[2, 2] * blue
            out_red[y, x] = low if r < low else (high if r > high else r)  # NaN stays NaN
            out_green[y, x] = low if g < low else (high if g > high else g)
            out_blue[y, x] = low if b < low else (high if b > high else b)


@kernel(fastmath=ELEMENTWISE)
def _recolour_channel(
    image: Array,
    white: np.float32,
    row: NDArray[np.float32],
    low: np.float32,
    high: np.float32,
    out: NDArray[np.float32],
) -> None:
    height, width, channels = image.shape
    for y in range(height):
        for x in range(width):
            total = row[channels]
            for channel in range(channels):
                total += row[channel] * (np.float32(image[y, x, channel]) / white)
            out[y, x] = low if total < low else (high if total > high else total)
