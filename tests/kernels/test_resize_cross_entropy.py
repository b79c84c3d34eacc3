"""The fused loss against torch's interpolate and cross_entropy in float64, and examples worked by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from terrazzo.errors import MaskValueError
from terrazzo.kernels import resize_cross_entropy as module
from terrazzo.kernels.resize_cross_entropy import (
    Hardest,
    hardest_pixels,
    resize_cross_entropy,
    resize_cross_entropy_reference,
)

IGNORE = 255


def both(
    logits_BKhw: Tensor, target_BHW: Tensor, **settings: object
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Our loss and gradient, and those of the reference in float64."""
    ours = logits_BKhw.detach().clone().requires_grad_()
    loss = resize_cross_entropy(ours, target_BHW, ignore=IGNORE, **settings)  # type: ignore[arg-type]
    loss.backward()
    exact = logits_BKhw.detach().double().requires_grad_()
    truth = resize_cross_entropy_reference(exact, target_BHW, ignore=IGNORE, **settings)  # type: ignore[arg-type]
    truth.backward()
    assert ours.grad is not None and exact.grad is not None
    return loss.detach(), ours.grad, truth.detach(), exact.grad


def assert_equal(logits_BKhw: Tensor, target_BHW: Tensor, **settings: object) -> None:
    loss, grad, true_loss, true_grad = both(logits_BKhw, target_BHW, **settings)
    assert loss.dtype == torch.float32 and grad.dtype == logits_BKhw.dtype
    assert abs(loss - true_loss) <= 1e-6 * abs(true_loss) + 1e-6
    assert (grad - true_grad).abs().max() <= 1e-5 * max(1.0, true_grad.abs().max().item())


def random_target(shape: tuple[int, ...], num_classes: int, *, ignored: float = 0.2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, num_classes, shape, generator=generator, dtype=torch.uint8)
    target[torch.rand(shape, generator=generator) < ignored] = IGNORE
    return target


def test_logits_that_say_nothing_cost_log_k_a_pixel() -> None:
    logits = torch.zeros(1, 4, 2, 2, requires_grad=True)
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    target[0, 0] = IGNORE  # 12 pixels are left
    loss = resize_cross_entropy(logits, target, ignore=IGNORE)
    loss.backward()
    assert loss.item() == pytest.approx(12 * math.log(4), rel=1e-6)
    assert logits.grad is not None
    # a resized pixel's weights sum to 1, so each class gets its share of 12 pixels: 1/4 each, minus 1 for the true one
    assert logits.grad.sum((0, 2, 3)).tolist() == pytest.approx([-9.0, 3.0, 3.0, 3.0], rel=1e-6)


def test_one_pixel_by_hand_with_weight_and_smoothing() -> None:
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1).requires_grad_()  # softmax 1/4, 3/4
    target, weight = torch.zeros(1, 1, 1, dtype=torch.uint8), torch.tensor([2.0, 1.0])
    loss = resize_cross_entropy(logits, target, weight_K=weight, ignore=IGNORE, label_smoothing=0.1)
    loss.backward()
    by_hand = 0.9 * 2 * math.log(4) + 0.05 * (2 * math.log(4) + math.log(4 / 3))
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)
    assert logits.grad is not None
    # softmax x (0.9 x 2 + 0.05 x 3) - 0.9 x 2 x [class 0] - 0.05 x weight
    assert logits.grad.flatten().tolist() == pytest.approx([0.25 * 1.95 - 1.9, 0.75 * 1.95 - 0.05], rel=1e-6)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_loss_and_gradient_equal_torchs_for_any_sizes(data: st.DataObject) -> None:
    batch, num_classes = data.draw(st.integers(1, 2), "B"), data.draw(st.integers(2, 20), "K")
    logits_hw = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)), "h, w")
    if data.draw(st.booleans(), "whole multiple"):
        target_hw = tuple(size * data.draw(st.sampled_from([1, 2, 3, 4, 8])) for size in logits_hw)
    else:
        target_hw = data.draw(st.tuples(st.integers(1, 50), st.integers(1, 50)), "H, W")
    seed = data.draw(st.integers(0, 999), "seed")
    generator = torch.Generator().manual_seed(seed)
    scale = data.draw(st.sampled_from([0.1, 1.0, 8.0]), "scale")
    logits = torch.randn(batch, num_classes, *logits_hw, generator=generator) * scale
    weight = torch.rand(num_classes, generator=generator) * 3 if data.draw(st.booleans(), "weights") else None
    target = random_target((batch, *target_hw), num_classes, seed=seed)
    smoothing = data.draw(st.sampled_from([0.0, 0.1]), "smoothing")
    corners_meet = data.draw(st.booleans(), "align_corners")
    pixel_weight = (
        torch.rand(target.shape, generator=generator) if data.draw(st.booleans(), "pixel weights") else None
    )
    assert_equal(
        logits,
        target,
        weight_K=weight,
        label_smoothing=smoothing,
        align_corners=corners_meet,
        pixel_weight_BHW=pixel_weight,
    )


@pytest.mark.parametrize(
    ("logits_hw", "target_hw"), [((16, 20), (64, 80)), ((9, 13), (65, 97)), ((20, 30), (7, 11))]
)
def test_the_result_is_bit_equal_for_any_number_of_threads(
    logits_hw: tuple[int, int], target_hw: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_FLOATS", 2000)
    monkeypatch.setattr(module, "TILE_FLOATS", 200)
    module._plan.cache_clear()
    target = random_target((2, *target_hw), 7)
    logits = torch.randn(2, 7, *logits_hw, generator=torch.Generator().manual_seed(1))
    assert len(module._plan(logits_hw, target_hw, 7).cuts) > 3 or target_hw[0] < 10
    found = []
    for threads in (1, 2, 5):
        mine = logits.clone().requires_grad_()
        loss = resize_cross_entropy(mine, target, ignore=IGNORE, threads=threads)
        loss.backward()
        found.append((loss.item(), mine.grad))
    assert_equal(logits, target)  # strips and tiles cost no exactness
    module._plan.cache_clear()
    assert all(loss == found[0][0] and torch.equal(grad, found[0][1]) for loss, grad in found[1:])


def test_a_confident_network_is_not_rounded_away() -> None:
    target = random_target((1, 64, 64), 5, ignored=0.0)[:, ::8, ::8]
    logits = 9.0 * torch.nn.functional.one_hot(target.long(), 5).permute(0, 3, 1, 2)  # loss about 5e-4
    loss, grad, true_loss, true_grad = both(logits + 100.0, target)
    assert true_loss / target.numel() < 1e-3
    in_float32 = resize_cross_entropy_reference(logits + 100.0, target, ignore=IGNORE)
    assert abs(loss - true_loss) <= 2 * abs(in_float32 - true_loss)  # both have but float32 for 1 + 5e-4
    assert (grad - true_grad).abs().max() < 1e-6


def test_half_precision_and_channels_last_logits_are_computed_in_float32() -> None:
    target = random_target((2, 32, 32), 6)
    logits = torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(2))
    for half in (torch.bfloat16, torch.float16):
        loss, grad, true_loss, true_grad = both(logits.to(half), target)
        assert grad.dtype == half
        assert abs(loss / true_loss - 1) < 1e-6
        assert (
            grad.double() - true_grad
        ).abs().max() < 2e-2 * true_grad.abs().max()  # the gradient is rounded once
    assert_equal(logits.to(memory_format=torch.channels_last), target)
    assert_equal(logits[:, :, ::2].expand(2, 6, 4, 8), target)


def test_targets_of_any_integer_dtype_are_the_same_targets() -> None:
    target, logits = random_target((1, 24, 24), 3), torch.randn(1, 3, 6, 6)
    losses = {
        resize_cross_entropy(logits, target.to(t), ignore=IGNORE).item() for t in (torch.uint8, torch.int64)
    }
    signed = torch.where(target == IGNORE, -100, target.long())
    assert losses == {resize_cross_entropy(logits, signed, ignore=-100).item()}


def test_nothing_labelled_is_no_loss_and_no_gradient() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = resize_cross_entropy(logits, torch.full((2, 16, 16), IGNORE), ignore=IGNORE)
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverging_network_is_seen(bad: float) -> None:
    logits = torch.randn(1, 4, 8, 8)
    logits[0, 2, 3, 3] = bad  # not the true class
    logits.requires_grad_()
    loss = resize_cross_entropy(logits, torch.zeros(1, 32, 32, dtype=torch.uint8), ignore=IGNORE)
    loss.backward()
    assert loss.isnan()
    assert logits.grad is not None and logits.grad.isnan().any()


def test_far_apart_logits_neither_overflow_nor_underflow() -> None:
    logits = torch.tensor([300.0, -300.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    target = torch.tensor([0, 1, 2, 1] * 4, dtype=torch.uint8).reshape(1, 4, 4)
    assert_equal(logits, target)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_an_id_outside_the_classes_is_an_error_that_names_it(dtype: torch.dtype) -> None:
    target = torch.zeros(1, 8, 8, dtype=dtype)
    target[0, 2, :3] = 33
    with pytest.raises(MaskValueError) as error:
        resize_cross_entropy(torch.zeros(1, 19, 2, 2), target, ignore=IGNORE)
    assert str(error.value) == (
        "A training mask has class id 33; the network has 19 classes.\n"
        "  found: 33 (3 pixels)\n"
        "  expected: 0-18 and 255 (ignore)\n"
        "  Ids are remapped once, where data enters. To see every file with such ids:\n"
        "  terrazzo check DATA"
    )


def test_an_id_beyond_32_bits_is_wrong_too() -> None:
    with pytest.raises(MaskValueError, match="A training mask has class id"):
        resize_cross_entropy(torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2), 2**32 + 1), ignore=IGNORE)


def test_the_gradient_is_scaled_by_what_follows_and_can_be_asked_for_twice() -> None:
    logits, target = torch.randn(1, 3, 4, 4, requires_grad=True), random_target((1, 16, 16), 3)
    loss = resize_cross_entropy(logits, target, ignore=IGNORE)
    (once,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (thrice,) = torch.autograd.grad(3 * loss, logits)
    assert torch.allclose(3 * once, thrice, rtol=1e-6)


def test_no_gradient_is_computed_when_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = torch.randn(1, 3, 4, 4, requires_grad=True), random_target((1, 16, 16), 3)
    sizes = []
    inner = module._loss_and_grad

    def watched(*args: object) -> tuple[float, np.ndarray]:
        loss, grad = inner(*args)  # type: ignore[arg-type]
        sizes.append(grad.size)
        return loss, grad

    monkeypatch.setattr(module, "_loss_and_grad", watched)
    with torch.no_grad():
        alone = resize_cross_entropy(logits, target, ignore=IGNORE)
    resize_cross_entropy(logits.detach(), target, ignore=IGNORE)
    with_grad = resize_cross_entropy(logits, target, ignore=IGNORE)
    assert sizes == [0, 0, logits.numel()]
    assert alone.item() == with_grad.item()


def test_float64_and_a_missing_numba_take_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = torch.randn(1, 3, 4, 4), random_target((1, 16, 16), 3)
    fused = resize_cross_entropy(logits, target, ignore=IGNORE)
    assert resize_cross_entropy(logits.double(), target, ignore=IGNORE).dtype == torch.float64
    monkeypatch.setattr(module, "is_available", lambda: False)
    assert resize_cross_entropy(logits, target, ignore=IGNORE).item() == pytest.approx(fused.item(), rel=1e-6)


def test_fifty_steps_of_training_follow_the_reference_path() -> None:
    """The same linear network, trained by either loss: curves that cannot be told apart."""
    image_BCHW = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    target = (image_BCHW.mean(1) > 0).to(torch.uint8).repeat_interleave(4, 1).repeat_interleave(4, 2)
    curves = []
    for loss_of in (resize_cross_entropy, resize_cross_entropy_reference):
        weight_KC, curve = torch.zeros(2, 3, requires_grad=True), []
        for _ in range(50):
            loss = (
                loss_of(torch.einsum("kc,bchw->bkhw", weight_KC, image_BCHW), target, ignore=IGNORE)
                / target.numel()
            )
            (grad_KC,) = torch.autograd.grad(loss, weight_KC)
            weight_KC = (weight_KC - grad_KC).detach().requires_grad_()
            curve.append(loss.item())
        curves.append(curve)
    assert curves[0] == pytest.approx(curves[1], rel=1e-6)
    assert curves[0][-1] < 0.7 * curves[0][0]


@pytest.mark.parametrize("logits_hw", [(4, 6), (5, 7)])
@pytest.mark.parametrize("corners_meet", [False, True])
def test_the_hardest_pixels_are_chosen_image_by_image_as_the_reference_does(
    logits_hw: tuple[int, int], corners_meet: bool
) -> None:
    target = random_target((3, 16, 24), 5)
    target[1, 2:] = IGNORE
    logits = torch.randn(3, 5, *logits_hw, generator=torch.Generator().manual_seed(3)) * 2
    weight = torch.tensor([1.0, 0.5, 2.0, 0.0, 3.0])
    for hardest in (Hardest(0.7, 0), Hardest(0.1, 100), Hardest(0.0, 17), Hardest(0.3, 10**6)):
        assert_equal(logits, target, hardest=hardest, align_corners=corners_meet)
        assert_equal(
            logits,
            target,
            hardest=hardest,
            weight_K=weight,
            label_smoothing=0.1,
            align_corners=corners_meet,
        )


def test_the_hardest_pixels_by_hand() -> None:
    probs = torch.tensor([[0.9, 0.2, 0.6, 0.8], [0.95, 0.99, 0.5, 0.97]])
    is_labelled = torch.tensor([[True, True, True, False], [True, True, True, True]])

    def kept(threshold: float, min_kept: int) -> list[list[int]]:
        chosen = hardest_pixels(-probs.log()[:, None], is_labelled[:, None], Hardest(threshold, min_kept))
        return chosen[:, 0].int().tolist()

    assert kept(0.7, 0) == [[0, 1, 1, 0], [0, 0, 1, 0]]
    assert kept(0.7, 2) == [[0, 1, 1, 0], [1, 0, 1, 0]]  # the second image has one below, and gets its next
    assert kept(0.0, 1) == [[0, 1, 0, 0], [0, 0, 1, 0]]
    assert kept(0.1, 9) == [[1, 1, 1, 0], [1, 1, 1, 1]]  # fewer than that are labelled
    assert kept(1.0, 0) == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_equally_hard_pixels_all_count() -> None:
    logits = torch.zeros(1, 4, 2, 2, requires_grad=True)
    target = torch.zeros(1, 8, 8, dtype=torch.uint8)
    loss = resize_cross_entropy(logits, target, ignore=IGNORE, hardest=Hardest(0.0, 5))
    assert loss.item() == pytest.approx(64 * math.log(4), rel=1e-6)


def test_a_diverging_network_is_seen_among_the_hardest_too() -> None:
    logits = torch.randn(1, 4, 8, 8)
    logits[0, 0, 3, 3] = math.nan
    target = torch.zeros(1, 32, 32, dtype=torch.uint8)
    for loss_of in (resize_cross_entropy, resize_cross_entropy_reference):
        assert loss_of(logits, target, ignore=IGNORE, hardest=Hardest(0.1, 3)).isnan()


def test_the_hardest_are_the_same_for_any_number_of_threads() -> None:
    target = random_target((2, 96, 128), 7)
    logits = torch.randn(2, 7, 24, 32, generator=torch.Generator().manual_seed(1))
    found = {
        resize_cross_entropy(
            logits, target, ignore=IGNORE, hardest=Hardest(0.2, 3000), threads=threads
        ).item()
        for threads in (1, 2, 5)
    }
    assert len(found) == 1
