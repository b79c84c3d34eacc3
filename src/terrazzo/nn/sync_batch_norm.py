"""Batch norm over the batches of all processes: one all-reduce forward, one backward, on CPUs (gloo) and GPUs.

torch's own SyncBatchNorm works on GPUs alone. This one makes N processes compute what one process with the whole batch
computes: statistics, output, gradients and running statistics, however unevenly the images lie among the processes.
Ioffe and Szegedy 2015; its gradient there, with the two sums taken over every process.

Each process reduces its own pixels in float32 and the sums cross in float64, 2 C + 1 numbers, so that a mean far from 0
costs no digits. Where no processes have been joined it is batch norm as torch has it.

Shapes: B batch, C channels, S whatever follows (H W of a map, nothing of a vector).
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(_BatchNorm):
    """BatchNorm1d, 2d or 3d with the statistics of all processes; the same parameters, buffers and state dict.

    In evaluation, and in training of a single process, it is plain batch norm. Every process has to call it as often
    as the others, as it has to call backward.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised x (B, C, S), of the same dtype."""
        self._check_input_dim(input)
        uses_batch = self.training or self.running_mean is None
        if not uses_batch or not (dist.is_initialized() and dist.get_world_size() > 1):
            return self._alone(input, uses_batch)
        output, mean_C, var_C, count = _Normalised.apply(input, self.weight, self.bias, self.eps)
        if self.training and self.running_mean is not None and self.running_var is not None:
            momentum = self._momentum()
            with torch.no_grad():
                unbiased_C = var_C * (count / (count - 1).clamp(min=1))
                self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), momentum)
                self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), momentum)
        return output

    def _alone(self, x_BCS: Tensor, uses_batch: bool) -> Tensor:
        keeps = self.training and self.running_mean is not None
        return F.batch_norm(
            x_BCS,
            self.running_mean if keeps or not uses_batch else None,
            self.running_var if keeps or not uses_batch else None,
            self.weight,
            self.bias,
            uses_batch,
            self._momentum() if keeps else 0.0,
            self.eps,
        )

    def _momentum(self) -> float:
        """Count this batch and return the share it gets in the running statistics; None means a plain mean of all."""
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        return 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2 or input.shape[1] != self.num_features:
            raise ValueError(f"expected (B, {self.num_features}, …), got {tuple(input.shape)}")


def synchronise(network: nn.Module) -> nn.Module:
    """Replace every BatchNorm1d, 2d and 3d inside `network` by a SyncBatchNorm of the same tensors; return it.

    In place, except that a network that is itself a batch norm comes back as another module. Optimisers, and whoever
    else holds the parameters, notice nothing: they are the same objects.
    """
    if isinstance(network, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        return _synchronised(network)
    for name, child in network.named_children():
        setattr(network, name, synchronise(child))
    return network


def _synchronised(norm: _BatchNorm) -> SyncBatchNorm:
    made = SyncBatchNorm(
        norm.num_features,
        eps=norm.eps,
        momentum=norm.momentum,
        affine=norm.affine,
        track_running_stats=norm.track_running_stats,
        device="meta",  # its own tensors are dropped for those of `norm`
    )
    made._parameters, made._buffers = norm._parameters, norm._buffers
    made.training = norm.training
    return made


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BCS: Tensor, gamma_C: Tensor | None, beta_C: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean_C, var_C, count = _global_statistics(x_BCS)
        inverse_C = torch.rsqrt(var_C + eps)
        scale_C = inverse_C if gamma_C is None else gamma_C.double() * inverse_C
        shift_C = -mean_C * scale_C if beta_C is None else beta_C.double() - mean_C * scale_C
        wide = torch.promote_types(x_BCS.dtype, torch.float32)
        output = torch.addcmul(_across(shift_C, x_BCS, wide), x_BCS, _across(scale_C, x_BCS, wide))
        ctx.save_for_backward(x_BCS, mean_C, inverse_C, scale_C, count)
        ctx.dtypes = [None if one is None else one.dtype for one in (gamma_C, beta_C)]
        ctx.mark_non_differentiable(mean_C, var_C, count)
        return output.to(x_BCS.dtype), mean_C, var_C, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BCS: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        x_BCS, mean_C, inverse_C, scale_C, count = ctx.saved_tensors
        wide = torch.promote_types(x_BCS.dtype, torch.float32)
        axes = _all_but_channels(x_BCS)
        grad_wide, away_BCS = grad_BCS.to(wide), x_BCS.to(wide) - _across(mean_C, x_BCS, wide)
        beta_C = grad_wide.sum(axes).double()
        gamma_C = (grad_wide * away_BCS).sum(axes).double() * inverse_C
        sums_2C = torch.stack([beta_C, gamma_C])
        dist.all_reduce(
            sums_2C
        )  # over all processes for x; gamma and beta keep their own part, summed with the rest
        mean_grad_C, mean_along_C = sums_2C / count
        along = away_BCS.mul_(_across(mean_along_C * inverse_C, x_BCS, wide)).add_(
            _across(mean_grad_C, x_BCS, wide)
        )
        grad_x = (grad_wide - along).mul_(_across(scale_C, x_BCS, wide)).to(x_BCS.dtype)
        gamma_dtype, beta_dtype = ctx.dtypes
        return (
            grad_x,
            gamma_C.to(gamma_dtype) if gamma_dtype is not None else None,
            beta_C.to(beta_dtype) if beta_dtype is not None else None,
            None,
        )


def _global_statistics(x_BCS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and biased variance of every channel over all processes, and the count per channel, float64."""
    wide = x_BCS.to(torch.promote_types(x_BCS.dtype, torch.float32))
    own = wide.numel() // x_BCS.shape[1]
    sums = x_BCS.new_zeros(2 * x_BCS.shape[1] + 1, dtype=torch.float64)
    total_C, squares_C = sums[1:].chunk(2)
    if own:  # a process without images counts nothing, and still takes part
        var_C, mean_C = torch.var_mean(wide, dim=_all_but_channels(x_BCS), correction=0)
        total_C.copy_(mean_C).mul_(own)
        squares_C.copy_(mean_C).square_().add_(var_C).mul_(own)
        sums[0] = own
    dist.all_reduce(sums)
    count = sums[0]
    mean_C = total_C / count
    return mean_C, (squares_C / count - mean_C.square()).clamp_(min=0), count


def _across(value_C: Tensor, x_BCS: Tensor, dtype: torch.dtype) -> Tensor:
    return value_C.to(dtype).view(1, -1, *(1,) * (x_BCS.ndim - 2))


def _all_but_channels(x_BCS: Tensor) -> list[int]:
    return [axis for axis in range(x_BCS.ndim) if axis != 1]
