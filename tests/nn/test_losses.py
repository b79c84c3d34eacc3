"""The loss against torch's weighted mean, formulas worked by hand, and laws of sums over a global weight."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from terrazzo.errors import RecipeError, TrainingError, UnknownNameError
from terrazzo.nn.losses import LossConfig, SegmentationLoss, chosen_weights, class_weights
from terrazzo.nn.outputs import Output

IGNORE = 255


def batch(num_classes: int = 4, *, images: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, num_classes, 5, 6, generator=generator)
    mask = torch.randint(0, num_classes, (images, 20, 24), generator=generator, dtype=torch.uint8)
    mask[torch.rand(mask.shape, generator=generator) < 0.3] = IGNORE
    return logits, mask


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0, 0.0])])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_the_loss_of_one_batch_is_torchs_weighted_mean(weights: Tensor | None, dtype: torch.dtype) -> None:
    logits, mask = batch()
    loss = SegmentationLoss(LossConfig(), weights, IGNORE)
    terms = loss(Output(logits), mask.to(dtype), weight=loss.pixel_weight(mask))
    full = F.interpolate(logits, mask.shape[1:], mode="bilinear", align_corners=False)
    truth = F.cross_entropy(full, mask.long(), weight=weights, ignore_index=IGNORE)
    assert list(terms) == ["cross_entropy"]
    assert terms["cross_entropy"].item() == pytest.approx(truth.item(), rel=1e-6)


def test_label_smoothing_is_torchs() -> None:
    logits, mask = batch()
    loss = SegmentationLoss(LossConfig(label_smoothing=0.2), None, IGNORE)
    full = F.interpolate(logits, mask.shape[1:], mode="bilinear", align_corners=False)
    truth = F.cross_entropy(full, mask.long(), ignore_index=IGNORE, label_smoothing=0.2)
    found = loss(Output(logits), mask, weight=loss.pixel_weight(mask))["cross_entropy"]
    assert found.item() == pytest.approx(truth.item(), rel=1e-6)


def test_micro_batches_add_up_to_the_batch_however_it_is_split() -> None:
    logits, mask = batch()
    mask[1, 4:] = IGNORE  # images of unequal weight
    loss = SegmentationLoss(LossConfig(), torch.tensor([1.0, 3.0, 0.5, 2.0]), IGNORE)
    weight = sum(loss.pixel_weight(one) for one in mask)
    assert weight == pytest.approx(loss.pixel_weight(mask))

    def gradient(parts: list[slice]) -> Tensor:
        mine = logits.clone().requires_grad_()
        for part in parts:
            loss(Output(mine[part]), mask[part], weight=weight)["cross_entropy"].backward()
        assert mine.grad is not None
        return mine.grad

    whole = gradient([slice(0, 3)])
    assert torch.allclose(gradient([slice(0, 1), slice(1, 3)]), whole, atol=1e-8)
    assert torch.allclose(gradient([slice(i, i + 1) for i in range(3)]), whole, atol=1e-8)


def test_the_weight_of_a_mask_is_that_of_its_labelled_pixels() -> None:
    mask = torch.tensor([[0, 0, 1], [2, IGNORE, IGNORE]], dtype=torch.uint8)
    assert SegmentationLoss(LossConfig(), None, IGNORE).pixel_weight(mask) == 4.0
    weighted = SegmentationLoss(LossConfig(), torch.tensor([0.5, 2.0, 4.0]), IGNORE)
    assert weighted.pixel_weight(mask) == weighted.pixel_weight(mask.long()) == 7.0
    assert weighted.pixel_weight(torch.full((2, 2), IGNORE)) == 0.0


@pytest.mark.parametrize("zero", [0, 0.0, torch.tensor(0.0), torch.tensor(0.0, dtype=torch.float64)])
def test_a_batch_without_labels_has_no_loss_and_no_gradient(zero: Tensor | float) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = SegmentationLoss(LossConfig(label_smoothing=0.1), torch.tensor([1.0, 2.0, 3.0]), IGNORE)
    term = loss(Output(logits), torch.full((1, 8, 8), IGNORE), weight=zero)["cross_entropy"]
    term.backward()
    assert term.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()


def test_auxiliary_heads_add_their_share_at_their_own_size() -> None:
    logits, mask = batch()
    coarse, other = torch.randn(3, 4, 3, 3), torch.randn(3, 4, 10, 12)
    loss = SegmentationLoss(LossConfig(auxiliary=0.25), None, IGNORE)
    weight = torch.tensor(loss.pixel_weight(mask), dtype=torch.float64)
    terms = loss(Output(logits, {"coarse": coarse, "other": other}), mask, weight=weight)
    alone = [
        loss(Output(one), mask, weight=weight)["cross_entropy"].item() for one in (logits, coarse, other)
    ]
    assert list(terms) == ["cross_entropy", "auxiliary"]
    assert terms["cross_entropy"].item() == pytest.approx(alone[0])
    assert terms["auxiliary"].item() == pytest.approx(0.25 * (alone[1] + alone[2]), rel=1e-6)
    assert all(term.dtype == torch.float32 and term.ndim == 0 for term in terms.values())


def test_one_class_is_refused_in_words() -> None:
    loss = SegmentationLoss(LossConfig(), None, IGNORE)
    with pytest.raises(TrainingError) as error:
        loss(Output(torch.zeros(1, 1, 4, 4)), torch.zeros(1, 8, 8, dtype=torch.uint8), weight=64.0)
    assert str(error.value) == (
        "A network of one class has nothing to learn: every labelled pixel is of that class.\n"
        "  found: 1 class\n"
        "  expected: at least 2\n"
        '  Name what surrounds the class, such as "background", a class of its own and label it.'
    )


def test_class_weights_by_hand() -> None:
    counts = [10, 30, 0, 60]  # shares 0.1, 0.3, none, 0.6

    def by_hand(*raw: float) -> list[float]:
        mean = sum(raw) / 3
        return [raw[0] / mean, raw[1] / mean, 0.0, raw[2] / mean]

    formulas = {
        "none": by_hand(1, 1, 1),
        "inverse": by_hand(10, 10 / 3, 10 / 6),
        "sqrt_inverse": by_hand(0.1**-0.5, 0.3**-0.5, 0.6**-0.5),
        "enet": by_hand(*(1 / math.log(1.02 + share) for share in (0.1, 0.3, 0.6))),
        "median_frequency": by_hand(10, 10 / 3, 10 / 6),  # without image pixels: as inverse
    }
    for formula, weights in formulas.items():
        assert class_weights(counts, formula).tolist() == pytest.approx(weights), formula


def test_median_frequency_divides_by_the_images_a_class_occurs_in() -> None:
    # class 0 fills 10 of the 20 labelled pixels of its images, class 1 30 of 100, class 3 60 of 80
    weights = class_weights([10, 30, 0, 60], "median_frequency", image_pixels_K=[20, 100, 0, 80])
    raw = np.array([0.5 / 0.5, 0.5 / 0.3, 0.0, 0.5 / 0.75])  # the median of 0.5, 0.3, 0.75 is 0.5
    assert weights == pytest.approx(raw / (raw.sum() / 3))


def test_rarer_classes_never_weigh_less_and_the_mean_is_one() -> None:
    counts = np.array([5, 100, 2000, 40000, 0])
    for formula in ("inverse", "sqrt_inverse", "enet", "median_frequency"):
        weights = class_weights(counts, formula)
        assert (
            (np.diff(weights[:4]) < 0).all()
            and weights[:4].mean() == pytest.approx(1.0)
            and weights[4] == 0.0
        )
        assert class_weights(counts * 1000, formula) == pytest.approx(weights)  # shares matter, not sizes


def test_unknown_formulas_and_unlabelled_splits_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'inverse'"):
        class_weights([1, 2], "invers")
    with pytest.raises(TrainingError, match="No pixel of the training split is labelled."):
        class_weights([0, 0], "inverse")


def test_weights_are_chosen_by_hand_by_formula_or_not_at_all() -> None:
    def never() -> tuple[list[int], None]:
        raise AssertionError("pixels are counted only for a formula")

    assert chosen_weights(LossConfig(), 3, never) is None
    by_hand = chosen_weights(LossConfig(weights=(0.5, 2.0, 0.0)), 3, never)
    assert by_hand is not None and by_hand.tolist() == [0.5, 2.0, 0.0]
    by_formula = chosen_weights(LossConfig(class_weights="inverse"), 2, lambda: ([1, 3], None))
    assert by_formula is not None and by_formula.dtype == torch.float32
    assert by_formula.tolist() == pytest.approx([1.5, 0.5])


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"Class weights are given twice.\n  found: loss.weights of 2 numbers and loss"
    ):
        chosen_weights(LossConfig(weights=(1.0, 2.0), class_weights="enet"), 2, lambda: ([1, 1], None))
    with pytest.raises(
        RecipeError, match=r"found: 2 numbers\n  expected: 3 numbers, one per class in id order"
    ):
        chosen_weights(LossConfig(weights=(1.0, 2.0)), 3, lambda: ([1, 1, 1], None))
    with pytest.raises(RecipeError, match="found: 2 numbers, all 0"):
        chosen_weights(LossConfig(weights=(0.0, 0.0)), 2, lambda: ([1, 1], None))
