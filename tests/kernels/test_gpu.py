"""The Triton kernels beside torch and the CPU's kernels: interpreted by Triton without a GPU, and as they are with one.

Interpreted they are the same source, run block by block with numpy: indices, masks and sums are tested on any machine;
what a compiler and a GPU make of them is left to the tests marked gpu. Triton decides when it is imported which of the
two it does, so the interpreted tests run in a process of their own.
"""

import importlib
import math
import os
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from terrazzo.classes import IGNORE_8BIT as IGNORE
from terrazzo.kernels.confusion import confusion_reference
from terrazzo.kernels.resize_argmax import resize_argmax_reference
from terrazzo.kernels.resize_cross_entropy import Hardest, resize_cross_entropy_reference
from terrazzo.nn.blocks import upsampled_sum_reference

pytest.importorskip("triton", reason="the GPU kernels are written in Triton")

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
WHERE = ["cpu"] if IS_INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)]
SHAPES = [  # classes, logits, target, corners meet
    (5, (2, 3), (8, 12), False),
    (19, (2, 3), (7, 5), True),
    (3, (5, 7), (4, 3), False),
    (40, (1, 2), (3, 13), False),
    (2, (1, 1), (3, 3), True),
]


class Kernels:
    """The modules of `kernels.gpu` for one device."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __getattr__(self, name: str) -> ModuleType:
        return importlib.import_module(f"terrazzo.kernels.gpu.{name}")


@pytest.fixture(params=WHERE)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return Kernels(request.param)


@pytest.mark.skipif(IS_INTERPRETED, reason="this is the process of its own")
def test_interpreted_by_triton_all_of_these_hold() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n0",
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::RuntimeWarning",
    ]
    done = subprocess.run(
        [*command, __file__],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


def random_target(shape: tuple[int, ...], num_classes: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, num_classes, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.2] = IGNORE
    return target


def loss_and_grad(
    kernels: Kernels,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    limit: Tensor | None = None,
    *,
    smooth: float = 0.0,
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    to = kernels.device
    module, leaf = kernels.resize_cross_entropy, logits.detach().to(to).requires_grad_()
    weight, pixel_weight, limit = (
        None if one is None else one.to(to) for one in (weight, pixel_weight, limit)
    )
    options = module.Options(IGNORE, smooth, align_corners, wants_grad=True)
    loss = module.ResizeCrossEntropy.apply(leaf, target.to(to), weight, pixel_weight, limit, options)
    (grad,) = torch.autograd.grad(loss, leaf)
    return loss.detach().cpu(), grad.cpu()


def assert_equal(found: tuple[Tensor, Tensor], loss: Tensor, logits: Tensor) -> None:
    (grad,) = torch.autograd.grad(loss, logits)
    assert found[0].item() == pytest.approx(loss.item(), rel=1e-6)
    assert (found[1] - grad).norm() <= 1e-5 * grad.norm()


@pytest.mark.parametrize(("num_classes", "logits_hw", "target_hw", "corners_meet"), SHAPES)
def test_loss_and_gradient_are_torchs(
    kernels: Kernels,
    num_classes: int,
    logits_hw: tuple[int, int],
    target_hw: tuple[int, int],
    corners_meet: bool,
) -> None:
    logits = (torch.randn(2, num_classes, *logits_hw) * 3).double().requires_grad_()
    target, weight, pixel_weight = (
        random_target((2, *target_hw), num_classes),
        torch.rand(num_classes),
        torch.rand(2, *target_hw),
    )
    for options in ({}, {"weight": weight, "smooth": 0.1}, {"pixel_weight": pixel_weight, "smooth": 0.2}):
        wanted = resize_cross_entropy_reference(
            logits, target, weight_K=options.get("weight"), ignore=IGNORE, align_corners=corners_meet,
            label_smoothing=options.get("smooth", 0.0), pixel_weight_BHW=options.get("pixel_weight"),
        )  # fmt: skip
        found = loss_and_grad(kernels, logits.float(), target, **options, align_corners=corners_meet)
        assert_equal(found, wanted, logits)


def test_groups_of_images_and_other_layouts_and_dtypes_change_nothing(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, target = torch.randn(3, 6, 2, 2), random_target((3, 4, 4), 6)
    loss, grad = loss_and_grad(kernels, logits, target)
    monkeypatch.setattr(kernels.resize_cross_entropy, "GROUP_BYTES", 2 * 16 * 6 * 2 * 2)
    again, same = loss_and_grad(kernels, logits, target.to(torch.uint8))
    assert again == loss and torch.equal(same, grad)
    again, same = loss_and_grad(kernels, logits.contiguous(memory_format=torch.channels_last), target)
    assert torch.allclose(again, loss, rtol=1e-6) and torch.allclose(same, grad, rtol=1e-5, atol=1e-7)
    for dtype in (torch.bfloat16, torch.float16):
        half = logits.to(dtype)
        rounded, rounded_grad = loss_and_grad(kernels, half.float(), target)
        found, found_grad = loss_and_grad(kernels, half, target)
        assert found == rounded and found_grad.dtype == dtype
        assert torch.equal(found_grad, rounded_grad.to(dtype))


def test_the_hardest_are_those_above_their_images_limit(kernels: Kernels) -> None:
    logits, target = torch.randn(2, 4, 3, 3), random_target((2, 7, 7), 4)
    module = kernels.resize_cross_entropy
    plain = module.Options(IGNORE, 0.0, False, wants_grad=False)
    where = logits.to(kernels.device), target.to(kernels.device)
    total, grad, losses = module.loss_and_grad(*where, None, None, None, plain, notes_losses=True)
    is_labelled = target != IGNORE
    assert grad is None
    assert losses.cpu()[is_labelled].double().sum().item() == pytest.approx(total.item(), rel=1e-6)
    hardest = Hardest(0.3, 0)
    double = logits.double().requires_grad_()
    wanted = resize_cross_entropy_reference(double, target, ignore=IGNORE, hardest=hardest)
    assert_equal(
        loss_and_grad(kernels, logits, target, limit=torch.full((2,), -math.log(0.3))), wanted, double
    )


def test_what_diverges_and_ids_outside_the_classes_are_seen(kernels: Kernels) -> None:
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    for bad in (math.nan, math.inf):
        logits = torch.zeros(1, 3, 2, 2)
        logits[0, 2, 1, 1] = bad
        assert loss_and_grad(kernels, logits, target)[0].isnan()
        hidden = torch.full_like(target, IGNORE)
        assert loss_and_grad(kernels, logits, hidden)[0] == 0
    target[0, 3, 3] = 7
    assert loss_and_grad(kernels, torch.zeros(1, 3, 2, 2), target)[0].isnan()


def test_far_apart_logits_neither_overflow_nor_underflow(kernels: Kernels) -> None:
    logits = (
        torch.tensor([300.0, -300.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2).double().requires_grad_()
    )
    target = torch.tensor([0, 1, 2, 1] * 4, dtype=torch.uint8).reshape(1, 4, 4)
    wanted = resize_cross_entropy_reference(logits, target, ignore=IGNORE)
    assert_equal(loss_and_grad(kernels, logits.float(), target), wanted, logits)


@pytest.mark.parametrize(
    ("num_classes", "logits_hw", "mask_hw", "corners_meet"), [*SHAPES, (300, (2, 2), (2, 3), False)]
)
def test_masks_and_confidence_are_the_cpus(
    kernels: Kernels,
    num_classes: int,
    logits_hw: tuple[int, int],
    mask_hw: tuple[int, int],
    corners_meet: bool,
) -> None:
    logits = torch.randn(2, num_classes, *logits_hw) * 2
    logits[0, 1, 0, 0] = math.nan  # never wins
    masks, sures = kernels.resize_argmax.resize_argmax(
        logits.to(kernels.device), mask_hw, align_corners=corners_meet, confidence=True
    )
    for one, mask, sure in zip(logits.numpy(), masks.cpu().numpy(), sures.cpu().numpy(), strict=True):
        with np.errstate(invalid="ignore"):  # the confidence of NaN
            wanted, certain = resize_argmax_reference(
                one, mask_hw, align_corners=corners_meet, confidence=True
            )
        assert certain is not None
        assert (mask == wanted).mean() >= 0.999
        is_number = ~np.isnan(one).any()
        assert not is_number or np.abs(sure.astype(int) - certain).max() <= 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize(("num_classes", "count"), [(5, 1003), (150, 2000), (2, 7)])
def test_counts_are_exact(kernels: Kernels, num_classes: int, count: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    mask = torch.randint(0, num_classes, (count,), generator=generator).repeat_interleave(11)[:count]
    pred = mask.clone()
    pred[::7] = torch.randint(0, num_classes, pred[::7].shape, generator=generator)
    mask[5:40] = IGNORE
    wanted = confusion_reference(pred.numpy(), mask.numpy(), num_classes, IGNORE)
    on = [ids.to(dtype).contiguous().to(kernels.device) for ids in (pred, mask)]
    counts, wrong = kernels.confusion.confusion(*on, num_classes, IGNORE)
    assert (counts.cpu().numpy() == wanted).all() and wrong == 0
    on[0][:3] = num_classes  # where the truth is scored
    assert kernels.confusion.confusion(*on, num_classes, IGNORE)[1] == min(3, count)


def rows(shape: tuple[int, ...]) -> list[Tensor]:
    """Rows, weights, biases and a gradient of the rows."""
    generator = torch.Generator().manual_seed(4)
    sizes = (shape, shape[-1:], shape[-1:], shape)
    return [torch.randn(size, generator=generator) for size in sizes]


def assert_same_gradients(found: list[Tensor], wanted: list[Tensor], far: float = 1e-5) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert (one.cpu() - other).norm() <= far * other.norm().clamp_min(1e-3)


@pytest.mark.parametrize("shape", [(2, 3, 32), (5, 160), (70, 8)])
def test_layer_norm_is_torchs(kernels: Kernels, shape: tuple[int, ...]) -> None:
    x, weight, bias, grad = rows(shape)
    leaves = [one.double().requires_grad_() for one in (x, weight, bias)]
    wanted = F.layer_norm(leaves[0], shape[-1:], *leaves[1:], 1e-5)
    ours = [one.to(kernels.device).requires_grad_() for one in (x, weight, bias)]
    norm = kernels.layer_norm.LayerNorm.apply
    found = norm(*ours, 1e-5, torch.float32)
    assert (found.cpu() - wanted).abs().max() <= 5e-6
    assert_same_gradients(
        torch.autograd.grad(found, ours, grad.to(kernels.device)),
        torch.autograd.grad(wanted, leaves, grad.double()),
    )
    half = norm(*ours, 1e-5, torch.bfloat16)  # rounded once, at the end
    assert half.dtype == torch.bfloat16 and (half.float() - found).abs().max() <= 2**-7 * found.abs().max()


@pytest.mark.parametrize("shape", [(2, 3, 5, 16), (1, 2, 3, 70), (1, 1, 1, 8)])
def test_depthwise_convolution_and_gelu_are_torchs(kernels: Kernels, shape: tuple[int, ...]) -> None:
    x, _, bias, grad = rows(shape)
    channels = shape[-1]
    weight = torch.randn(channels, 1, 3, 3, generator=torch.Generator().manual_seed(5))
    leaves = [one.double().requires_grad_() for one in (x, weight, bias)]
    conv = F.conv2d(leaves[0].permute(0, 3, 1, 2), *leaves[1:], padding=1, groups=channels)
    wanted = F.gelu(conv.permute(0, 2, 3, 1))
    ours = [one.to(kernels.device).requires_grad_() for one in (x, weight, bias)]
    found = kernels.depthwise_gelu.DepthwiseGelu.apply(*ours)
    assert (found.cpu() - wanted).abs().max() <= 5e-6
    assert_same_gradients(
        torch.autograd.grad(found, ours, grad.to(kernels.device)),
        torch.autograd.grad(wanted, leaves, grad.double()),
    )


@pytest.mark.parametrize(("height", "width", "channels"), [(8, 8, 8), (5, 7, 20)])
def test_the_sum_of_upsampled_maps_and_its_gradient_are_torchs(
    kernels: Kernels, height: int, width: int, channels: int
) -> None:
    base, _, _, grad = rows((2, height, width, channels))
    maps = [torch.randn(2, -(-height // s), -(-width // s), channels, requires_grad=True) for s in (2, 4, 8)]
    wanted = upsampled_sum_reference(base, maps)
    found = base.to(kernels.device)
    kernels.upsampled_sum.add_upsampled(found, [one.detach().to(kernels.device) for one in maps])
    assert (found.cpu() - wanted).abs().max() <= 5e-6
    on = grad.to(kernels.device)
    assert_same_gradients(
        [kernels.upsampled_sum.upsampled_gradient(on, tuple(one.shape[1:3])) for one in maps],
        torch.autograd.grad(wanted, maps, grad),
    )


@pytest.mark.parametrize("shape", [(7, 5), (40, 70), (1100, 3)])
def test_columns_are_added_up(kernels: Kernels, shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(6)).bfloat16()
    found = kernels.column_sum.column_sum(matrix.to(kernels.device)).cpu()
    assert torch.allclose(found.double(), matrix.double().sum(0), rtol=1e-5, atol=1e-4)
