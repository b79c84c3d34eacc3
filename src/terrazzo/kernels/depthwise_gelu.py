"""A depthwise 3x3 convolution and GELU over tokens: torch's, and on a CUDA device one kernel with nothing between."""

from torch import Tensor, nn
from torch.nn import functional as F

from terrazzo.kernels import gpu


def depthwise_gelu(x_BHWC: Tensor, conv: nn.Module) -> Tensor:
    """Return gelu(conv(x)), (B, H, W, C); conv: each channel with its own 3x3 weights and a bias, zeros around."""
    if gpu.takes(x_BHWC):
        from terrazzo.kernels.gpu.depthwise_gelu import DepthwiseGelu

        out: Tensor = DepthwiseGelu.apply(x_BHWC, conv.weight, conv.bias)
        return out
    return F.gelu(conv(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
