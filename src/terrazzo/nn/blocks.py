"""Two steps of a folded head, for training: adding up upsampled maps, and batch norm to logits without a map between.

A head's maps at stride 4 are the largest tensors of a training step (33 MB for B0 at 2 x 512x512), and on a CPU a fresh
one costs more than the arithmetic on it: its pages have to be mapped first. Plain autograd makes about a dozen of them;
these two functions make three. Each stands beside the plain expression it equals, which its test compares it with and
which other devices use. Neither can be differentiated twice.

Shapes: B batch, K classes, D channels, H W height and width, N = H W tokens, C of a chunk of tokens.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from terrazzo.kernels import gpu

CHUNK = 1024  # tokens worked on at a time: 1 MB at 256 channels, which stays in a core's cache


def upsampled_sum(base_BHWD: Tensor, maps_BhwD: list[Tensor]) -> Tensor:
    """Return base + the smaller maps, each resized to its size (bilinear, half-pixel centres).

    base_BHWD is overwritten: pass a tensor that nobody else needs, such as the output of a linear layer.
    """
    is_plain = torch.jit.is_tracing() or torch.compiler.is_compiling()  # exporters want plain operations
    if is_plain or base_BHWD.device.type == "mps":  # which has been seen to misread strides of `out=`
        return upsampled_sum_reference(base_BHWD, maps_BhwD)
    total: Tensor = _UpsampledSum.apply(base_BHWD, *maps_BhwD)
    return total


def upsampled_sum_reference(base_BHWD: Tensor, maps_BhwD: list[Tensor]) -> Tensor:
    """The same as separate steps, for tests and for tracing; base stays as it is."""
    total_BDHW = base_BHWD.permute(0, 3, 1, 2)
    for x_BhwD in maps_BhwD:
        x_BDhw = x_BhwD.permute(0, 3, 1, 2)
        resized = F.interpolate(x_BDhw, total_BDHW.shape[2:], mode="bilinear", align_corners=False)
        total_BDHW = total_BDHW + resized
    return total_BDHW.permute(0, 2, 3, 1)


def normalised_logits(x_BHWD: Tensor, norm: nn.BatchNorm2d, weight_BKD: Tensor, bias_K: Tensor) -> Tensor:
    """Return logits (B, K, H, W): `weight` times relu(batch norm of x), batch statistics, running ones updated.

    weight_BKD: the classifier for each image, its columns of dropped channels being zero. On a CPU the normalised map
    is never written: it is made chunk by chunk, in forward and again in backward, which then needs x alone.
    """
    if x_BHWD.device.type != "cpu" or type(norm) is not nn.BatchNorm2d:  # a replaced norm is called as it is
        return normalised_logits_reference(x_BHWD, norm, weight_BKD, bias_K)
    x_BND = x_BHWD.flatten(1, 2).contiguous()
    logits_BKN, mean_D, var_D = _NormalisedLogits.apply(
        x_BND, norm.weight, norm.bias, weight_BKD, bias_K, norm.eps
    )
    assert norm.momentum is not None
    with torch.no_grad():
        count = x_BND.shape[0] * x_BND.shape[1]
        norm.get_buffer("running_mean").lerp_(mean_D, norm.momentum)
        # the running variance is the unbiased one
        norm.get_buffer("running_var").lerp_(var_D * (count / max(count - 1, 1)), norm.momentum)
        norm.get_buffer("num_batches_tracked").add_(1)
    logits_BKHW: Tensor = logits_BKN.unflatten(2, x_BHWD.shape[1:3])
    return logits_BKHW


def normalised_logits_reference(
    x_BHWD: Tensor, norm: nn.Module, weight_BKD: Tensor, bias_K: Tensor
) -> Tensor:
    """The same as separate steps, for tests, for other devices and for a norm of another kind."""
    hidden_BHWD = F.relu(norm(x_BHWD.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    return classified(hidden_BHWD, weight_BKD, bias_K)


def still(parameter: Tensor) -> Tensor:
    """Return `parameter` with a gradient of exactly 0, where a batch norm takes away again whatever it adds.

    Its gradient is 0 there but for rounding. AdamW divides a gradient by its own size and makes full steps of that
    rounding, other ones with every number of processes.
    """
    return parameter.detach() + 0.0 * parameter


def classified(x_BHWD: Tensor, weight_BKD: Tensor, bias_K: Tensor) -> Tensor:
    """Return weight times x plus bias, (B, K, H, W) contiguous."""
    if x_BHWD.is_cuda and torch.is_grad_enabled() and gpu.takes(x_BHWD):
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x_BHWD.dtype
        parts = (part.to(dtype) for part in (x_BHWD.flatten(1, 2), weight_BKD, bias_K))
        logits_BKN: Tensor = _Classified.apply(*parts)
        return logits_BKN.unflatten(2, x_BHWD.shape[1:3])
    logits_BKN = torch.baddbmm(bias_K[:, None], weight_BKD, x_BHWD.flatten(1, 2).transpose(1, 2))
    return logits_BKN.unflatten(2, x_BHWD.shape[1:3])


class _Classified(torch.autograd.Function):
    """torch's gradient of x would lie channels first, and each step before would be slow to read it on a GPU."""

    @staticmethod
    def forward(ctx: Any, x_BND: Tensor, weight_BKD: Tensor, bias_K: Tensor) -> Tensor:
        ctx.save_for_backward(x_BND, weight_BKD)
        with torch.autocast("cuda", enabled=False):
            return torch.baddbmm(bias_K[:, None], weight_BKD, x_BND.transpose(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BKN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_BND, weight_BKD = ctx.saved_tensors
        return grad_BKN.transpose(1, 2) @ weight_BKD, grad_BKN @ x_BND, grad_BKN.sum((0, 2))


class _UpsampledSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, base_BHWD: Tensor, *maps_BhwD: Tensor) -> Tensor:
        ctx.mark_dirty(base_BHWD)
        ctx.sizes = [x_BhwD.permute(0, 3, 1, 2).shape for x_BhwD in maps_BhwD]
        if _is_fused(base_BHWD, len(maps_BhwD)):
            from terrazzo.kernels.gpu.upsampled_sum import add_upsampled

            add_upsampled(base_BHWD, list(maps_BhwD))
            return base_BHWD
        target = base_BHWD.permute(0, 3, 1, 2)
        # on a CPU one image at a time, in one small space that serves all
        images = 1 if target.device.type == "cpu" else len(target)
        resized = torch.empty_like(target[:images])
        for x_BhwD in maps_BhwD:
            parts = zip(x_BhwD.permute(0, 3, 1, 2).split(images), target.split(images), strict=True)
            for x_BDhw, total_BDHW in parts:
                torch.ops.aten.upsample_bilinear2d.out(x_BDhw, target.shape[2:], False, out=resized)
                total_BDHW.add_(resized)
        return base_BHWD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHWD: Tensor) -> tuple[Tensor, ...]:
        if _is_fused(grad_BHWD, len(ctx.sizes)):
            from terrazzo.kernels.gpu.upsampled_sum import upsampled_gradient

            return grad_BHWD, *(upsampled_gradient(grad_BHWD, tuple(size[2:])) for size in ctx.sizes)
        grad = grad_BHWD.permute(0, 3, 1, 2)
        smaller = (
            torch.ops.aten.upsample_bilinear2d_backward(grad, grad.shape[2:], list(size), False)
            for size in ctx.sizes
        )
        return grad_BHWD, *(g_BDhw.permute(0, 2, 3, 1) for g_BDhw in smaller)


def _is_fused(base_BHWD: Tensor, num_maps: int) -> bool:
    return num_maps == 3 and base_BHWD.is_contiguous() and gpu.takes(base_BHWD)


class _NormalisedLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BND: Tensor,
        gamma_D: Tensor,
        beta_D: Tensor,
        weight_BKD: Tensor,
        bias_K: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean_D, var_D = _mean_and_variance(x_BND)
        inverse_D = torch.rsqrt(var_D + eps)
        scale_D = gamma_D * inverse_D
        shift_D = beta_D - mean_D * scale_D
        weight_BKD, bias_K = weight_BKD.to(x_BND.dtype), bias_K.to(x_BND.dtype)
        logits_BKN = x_BND.new_empty(x_BND.shape[0], weight_BKD.shape[1], x_BND.shape[1])
        for image, tokens in _chunks(x_BND):
            hidden_CD = _normalised(x_BND[image, tokens], scale_D, shift_D)
            out_KC = logits_BKN[image, :, tokens]
            torch.addmm(bias_K[:, None], weight_BKD[image], hidden_CD.T, out=out_KC)
        ctx.save_for_backward(x_BND, weight_BKD, mean_D, inverse_D, scale_D, shift_D)
        ctx.mark_non_differentiable(mean_D, var_D)
        return logits_BKN, mean_D, var_D

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BKN: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        x_BND, weight_BKD, mean_D, inverse_D, scale_D, shift_D = ctx.saved_tensors
        grad_BKN = grad_BKN.to(x_BND.dtype)
        grad_BND = torch.empty_like(x_BND)
        grad_weight_BKD = mean_D.new_zeros(weight_BKD.shape)
        grad_beta_D, grad_times_x_D = torch.zeros_like(mean_D), torch.zeros_like(mean_D)
        for image, tokens in _chunks(x_BND):
            x_CD, grad_KC = x_BND[image, tokens], grad_BKN[image, :, tokens]
            hidden_CD = _normalised(x_CD, scale_D, shift_D)
            grad_weight_BKD[image] += grad_KC @ hidden_CD
            grad_CD = torch.mm(grad_KC.T, weight_BKD[image], out=grad_BND[image, tokens])
            torch.ops.aten.threshold_backward.grad_input(grad_CD, hidden_CD, 0, grad_input=grad_CD)
            grad_beta_D += grad_CD.sum(0, dtype=mean_D.dtype)
            grad_times_x_D += (grad_CD * (x_CD - mean_D)).sum(0)
        grad_gamma_D = grad_times_x_D * inverse_D
        # batch norm backward: scale * (grad - mean(grad) - normalised * mean(grad * normalised))
        count = x_BND.shape[0] * x_BND.shape[1]
        slope_D = -scale_D * inverse_D * grad_gamma_D / count
        constant_D = -scale_D * grad_beta_D / count - slope_D * mean_D
        for image, tokens in _chunks(x_BND):
            grad_CD = grad_BND[image, tokens]
            grad_CD.copy_(torch.addcmul(constant_D, x_BND[image, tokens], slope_D).addcmul_(grad_CD, scale_D))
        grad_bias_K = grad_BKN.sum((0, 2), dtype=mean_D.dtype)
        return grad_BND, grad_gamma_D, grad_beta_D, grad_weight_BKD, grad_bias_K, None


def _chunks(x_BND: Tensor) -> Iterator[tuple[int, slice]]:
    for image in range(x_BND.shape[0]):
        for start in range(0, x_BND.shape[1], CHUNK):
            yield image, slice(start, start + CHUNK)


def _normalised(x_CD: Tensor, scale_D: Tensor, shift_D: Tensor) -> Tensor:
    return torch.addcmul(shift_D, x_CD, scale_D).relu_().to(x_CD.dtype)


def _mean_and_variance(x_BND: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance over all tokens, at least float32; summed around one token's value."""
    origin_D = x_BND[0, 0].to(
        torch.promote_types(x_BND.dtype, torch.float32)
    )  # a mean far from 0 costs no digits
    total_D, squares_D = torch.zeros_like(origin_D), torch.zeros_like(origin_D)
    for image, tokens in _chunks(x_BND):
        away_CD = x_BND[image, tokens] - origin_D
        total_D += away_CD.sum(0)
        squares_D += away_CD.square_().sum(0)
    count = x_BND.shape[0] * x_BND.shape[1]
    mean_D = total_D / count
    return mean_D + origin_D, squares_D / count - mean_D.square()
