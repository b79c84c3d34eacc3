"""The head's two fused functions against the plain expressions they equal."""

import pytest
import torch
from torch import Tensor, nn

from terrazzo.nn import blocks


def inputs(dtype: torch.dtype) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """A map of 2 x 37 x 41 tokens (more than one chunk), three smaller ones, and a classifier per image."""
    torch.manual_seed(0)
    x_BHWD = torch.randn(2, 37, 41, 24, dtype=dtype) * 3 + 5  # a mean that is far from zero
    maps = [torch.randn(2, size, size + 1, 24, dtype=dtype) for size in (19, 10, 1)]
    return x_BHWD, maps, torch.randn(2, 7, 24, dtype=dtype), torch.randn(7, dtype=dtype)


def outcome(fused: bool, dtype: torch.dtype) -> dict[str, Tensor]:
    """Logits, gradients and running statistics of one training step."""
    x, maps, weight, bias = inputs(dtype)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias, *maps)]
    norm = nn.BatchNorm2d(24, dtype=dtype)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.weight.data[3] = 0.0  # a scale of zero must not divide
    add = blocks.upsampled_sum if fused else blocks.upsampled_sum_reference
    classify = blocks.normalised_logits if fused else blocks.normalised_logits_reference
    logits = classify(add(x * 1.0, maps), norm, weight, bias)
    logits.backward(torch.randn(logits.shape, dtype=dtype))
    names = ("x", "weight", "bias", "map 0", "map 1", "map 2")
    gradients = {name: leaf.grad for name, leaf in zip(names, leaves, strict=True)}
    buffers = {name: buffer.to(dtype) for name, buffer in norm.named_buffers()}
    return {"logits": logits, "gamma": norm.weight.grad, "beta": norm.bias.grad, **gradients, **buffers}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_fused_head_equals_the_separate_steps(dtype: torch.dtype, tolerance: float):
    fused, separate = outcome(True, dtype), outcome(False, dtype)
    for name, expected in separate.items():
        difference = (fused[name] - expected).abs().max()
        assert difference <= tolerance * expected.abs().max(), f"{name} differs by {difference}"


def test_fused_head_takes_bfloat16_maps_and_is_no_worse_than_the_separate_steps():
    x, maps, weight, bias = inputs(torch.float32)
    norm = nn.BatchNorm2d(24)
    truth = blocks.normalised_logits_reference(blocks.upsampled_sum_reference(x, maps), norm, weight, bias)
    half, halves = x.bfloat16(), [each.bfloat16() for each in maps]
    weight16, bias16 = weight.bfloat16(), bias.bfloat16()
    separate = blocks.normalised_logits_reference(
        blocks.upsampled_sum_reference(half, halves), norm, weight16, bias16
    )
    fused = blocks.normalised_logits(blocks.upsampled_sum(half.clone(), halves), norm, weight, bias)
    assert fused.dtype == torch.bfloat16
    errors = [(each.float() - truth).square().mean().sqrt() for each in (fused, separate)]
    assert errors[0] <= 1.1 * errors[1]
    assert errors[0] <= 0.02 * truth.std()


def test_gradients_of_the_sum_reach_every_map():
    """The sum of the outputs grows by 1 where an input's pixel is copied, so gradients count the copies."""
    base, small = torch.zeros(1, 4, 4, 1, requires_grad=True), torch.zeros(1, 2, 2, 1, requires_grad=True)
    blocks.upsampled_sum(base * 1.0, [small]).sum().backward()
    assert base.grad is not None and torch.equal(base.grad, torch.ones(1, 4, 4, 1))
    assert small.grad is not None and torch.allclose(small.grad, torch.full((1, 2, 2, 1), 4.0))


def test_a_replaced_norm_is_called_as_it_is():
    class Recording(nn.BatchNorm2d):
        calls = 0

        def forward(self, input: Tensor) -> Tensor:
            Recording.calls += 1
            return super().forward(input)

    x, _, weight, bias = inputs(torch.float32)
    blocks.normalised_logits(x, Recording(24), weight, bias)
    assert Recording.calls == 1
