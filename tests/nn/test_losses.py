"""The loss against torch's weighted mean, formulas worked by hand, and laws of sums over a global weight."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

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
        '  Name what surrounds the class, such as "background", a class of its own and label it.\n'
        "  One number for two classes is model.one_logit=true; for a network of your own:\n"
        "  network = terrazzo.nn.two_classes.as_two_classes(network)"
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


ALL_TERMS = LossConfig(
    cross_entropy=1.0,
    ohem=0.5,
    focal=0.7,
    boundary=2.0,
    dice=0.4,
    tversky=0.3,
    lovasz=0.6,
    ohem_threshold=0.2,
    ohem_min_kept=150,
    boundary_deviation=1.5,
)


@pytest.mark.parametrize("average", ["labelled", "all"])
def test_every_term_adds_up_over_micro_batches_to_the_loss_of_the_batch(average: Any) -> None:
    logits, mask = batch()
    mask[1, 4:] = IGNORE  # images of unequal weight, one of them without a class
    mask[2][mask[2] == 3] = 0
    config = replace(ALL_TERMS, average=average)
    loss = SegmentationLoss(config, torch.tensor([1.0, 3.0, 0.5, 2.0]), IGNORE)
    weight = sum(loss.pixel_weight(one) for one in mask)

    def sums_and_gradient(parts: list[slice]) -> tuple[dict[str, float], Tensor]:
        mine, sums = logits.clone().requires_grad_(), Counter[str]()
        for part in parts:
            terms = loss(Output(mine[part]), mask[part], weight=weight)
            torch.stack(list(terms.values())).sum().backward()
            sums.update({name: term.item() for name, term in terms.items()})
        assert mine.grad is not None
        return dict(sums), mine.grad

    whole, gradient = sums_and_gradient([slice(0, 3)])
    assert set(whole) == {"cross_entropy", "ohem", "focal", "boundary", "dice", "tversky", "lovasz"}
    assert all(value > 0 for value in whole.values())
    for parts in ([slice(0, 1), slice(1, 3)], [slice(i, i + 1) for i in range(3)]):
        again, regrouped = sums_and_gradient(parts)
        assert again == pytest.approx(whole, rel=1e-6)
        assert torch.allclose(regrouped, gradient, rtol=1e-5, atol=1e-8)


def test_terms_over_images_are_means_weighed_by_what_is_labelled() -> None:
    logits, mask = batch()
    mask[0] = torch.where(torch.arange(20)[:, None] < 5, mask[0], IGNORE)
    loss = SegmentationLoss(LossConfig(cross_entropy=0.0, dice=1.0), None, IGNORE)
    found = loss(Output(logits), mask, weight=loss.pixel_weight(mask))
    probs = F.interpolate(logits, mask.shape[1:], mode="bilinear", align_corners=False).softmax(1)
    total = shares = 0.0
    for p, m in zip(probs, mask, strict=True):
        p, ids = p[:, m != IGNORE], m[m != IGNORE]
        dice = [2 * p[k][ids == k].sum() / (p[k].sum() + (ids == k).sum()) for k in range(4)]
        total += (1 - torch.stack(dice).mean()).item() * len(ids)
        shares += len(ids)
    assert list(found) == ["dice"]
    assert found["dice"].item() == pytest.approx(total / shares, rel=1e-6)


@pytest.mark.parametrize("term", ["cross_entropy", "ohem", "focal", "boundary", "dice", "tversky", "lovasz"])
def test_ignored_pixels_change_no_term_and_have_no_gradient(term: str) -> None:
    _, mask = batch()
    logits = torch.randn(3, 4, 20, 24, generator=torch.Generator().manual_seed(1))  # the mask's size
    chosen: Any = {"cross_entropy": 0.0, term: 1.0}
    config = LossConfig(ohem_min_kept=50, **chosen)
    loss = SegmentationLoss(config, torch.tensor([1.0, 2.0, 0.5, 1.5]), IGNORE)
    others = torch.where((mask == IGNORE)[:, None], 9.0 * torch.randn_like(logits), logits)

    def value_and_gradient(given: Tensor) -> tuple[float, Tensor]:
        mine = given.clone().requires_grad_()
        value = loss(Output(mine), mask, weight=loss.pixel_weight(mask))[term]
        (gradient,) = torch.autograd.grad(value, mine)
        return value.item(), gradient

    (value, gradient), (again, _) = value_and_gradient(logits), value_and_gradient(others)
    assert value == pytest.approx(again, rel=1e-6)
    assert gradient.any()
    assert not gradient.movedim(1, -1)[mask == IGNORE].any()


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0, 0.25])])
def test_the_average_over_all_pixels_is_mmsegmentations(weights: Tensor | None) -> None:
    logits, mask = batch()
    loss = SegmentationLoss(LossConfig(average="all"), weights, IGNORE)
    full = F.interpolate(logits, mask.shape[1:], mode="bilinear", align_corners=False)
    truth = F.cross_entropy(full, mask.long(), weight=weights, ignore_index=IGNORE, reduction="none").mean()
    assert loss.pixel_weight(mask) == mask.numel()
    found = loss(Output(logits), mask, weight=loss.pixel_weight(mask))["cross_entropy"]
    assert found.item() == pytest.approx(truth.item(), rel=1e-6)


def test_ohem_is_the_loss_of_the_pixels_below_the_threshold_and_of_the_hardest() -> None:
    logits, mask = batch()
    config = LossConfig(cross_entropy=0.0, ohem=1.0, ohem_threshold=0.1, ohem_min_kept=100)
    loss = SegmentationLoss(config, None, IGNORE)
    full = F.interpolate(logits, mask.shape[1:], mode="bilinear", align_corners=False)
    total, kept = 0.0, []
    for scores, ids in zip(full, mask, strict=True):
        known = ids != IGNORE
        probs = scores.softmax(0)[:, known].gather(0, ids[known].long()[None])[0].sort().values
        chosen = probs[probs < max(0.1, probs[100].item())]  # as MMSegmentation's sampler says it
        kept.append(len(chosen))
        total -= chosen.log().sum().item()
    assert min(kept) == 100
    found = loss(Output(logits), mask, weight=loss.pixel_weight(mask))["ohem"]
    assert found.item() == pytest.approx(total / (mask != IGNORE).sum().item(), rel=1e-5)


def test_corners_meet_where_the_network_says_so() -> None:
    logits, mask = batch()
    loss = SegmentationLoss(LossConfig(dice=1.0), None, IGNORE, align_corners=True)
    full = F.interpolate(logits, mask.shape[1:], mode="bilinear", align_corners=True)
    truth = loss(Output(full), mask, weight=100.0)  # nothing is left to resize
    found = loss(Output(logits), mask, weight=100.0)
    assert {name: term.item() for name, term in found.items()} == pytest.approx(
        {name: term.item() for name, term in truth.items()}, rel=1e-6
    )


def test_two_classes_of_which_one_scores_0_are_the_sigmoid_of_the_other() -> None:
    score = torch.randn(2, 1, 20, 24, generator=torch.Generator().manual_seed(2), requires_grad=True)
    mask = torch.randint(0, 2, (2, 20, 24), generator=torch.Generator().manual_seed(3))
    loss = SegmentationLoss(LossConfig(), None, IGNORE)
    logits = torch.cat([torch.zeros_like(score), score], 1)
    found = loss(Output(logits), mask, weight=loss.pixel_weight(mask))["cross_entropy"]
    truth = F.binary_cross_entropy_with_logits(score[:, 0], mask.float())
    assert found.item() == pytest.approx(truth.item(), rel=1e-6)
    ours, theirs = torch.autograd.grad(found, score)[0], torch.autograd.grad(truth, score)[0]
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-8)


def test_auxiliary_heads_have_every_term() -> None:
    logits, mask = batch()
    coarse = torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(4))
    loss = SegmentationLoss(replace(ALL_TERMS, auxiliary=0.25), None, IGNORE)
    terms = loss(Output(logits, {"coarse": coarse}), mask, weight=100.0)
    alone = sum(term.item() for term in loss(Output(coarse), mask, weight=100.0).values())
    assert terms["auxiliary"].item() == pytest.approx(0.25 * alone, rel=1e-6)
