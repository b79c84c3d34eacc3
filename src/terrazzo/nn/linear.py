"""A linear layer over many tokens: torch's, but for the gradient of its bias on a GPU, a sum over all of them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from terrazzo.kernels import gpu


class Linear(nn.Linear):
    """Same parameters, same function as torch.nn.Linear."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) -> (…, D)."""
        if not (torch.is_grad_enabled() and gpu.takes(x)):
            return super().forward(x)
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
        out: Tensor = _Linear.apply(x.to(dtype), self.weight.to(dtype), self.bias.to(dtype))
        return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_DC: Tensor, bias_D: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight_DC)
        with torch.autocast("cuda", enabled=False):
            return F.linear(x, weight_DC, bias_D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from terrazzo.kernels.gpu.column_sum import column_sum

        x, weight_DC = ctx.saved_tensors
        grad_ND, x_NC = grad.reshape(-1, grad.shape[-1]).contiguous(), x.reshape(-1, x.shape[-1])
        return (grad_ND @ weight_DC).view_as(x), grad_ND.t() @ x_NC, column_sum(grad_ND).to(grad.dtype)
