"""Each loss beside cross-entropy against its definition: sets, counts, distances and numbers worked by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from terrazzo.nn import loss_terms

IGNORE = 255


def batch(num_classes: int = 4, *, images: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (B, K, H, W) in double precision, and a target that lacks a class here and there, ignored in part."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, num_classes, 5, 6, generator=generator, dtype=torch.float64)
    target = torch.randint(0, num_classes, (images, 5, 6), generator=generator)
    target[0][target[0] == 2] = 1
    target[torch.rand(target.shape, generator=generator) < 0.3] = IGNORE
    return logits, target


def labelled(probs_BKHW: Tensor, target_BHW: Tensor, image: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (K, N) and classes (N,) of an image's labelled pixels, as numpy has them."""
    known = (target_BHW[image] != IGNORE).numpy()
    return probs_BKHW[image].detach().numpy()[:, known], target_BHW[image].numpy()[known]


def test_dice_by_hand() -> None:
    # four pixels, the last ignored; class 0 is certain of its pixel, class 1 is believed half and wholly
    probs = torch.tensor([[1.0, 0.5, 0.0, 0.7], [0.0, 0.5, 1.0, 0.3]]).reshape(1, 2, 2, 2)
    target = torch.tensor([0, 1, 1, IGNORE]).reshape(1, 2, 2)
    dice = loss_terms.tversky(
        probs, target, false_positives=0.5, false_negatives=0.5, weight_K=None, ignore=IGNORE
    )
    first, second = 2 * 1.0 / (1.5 + 1), 2 * 1.5 / (1.5 + 2)  # twice the shared, by the sums of both
    assert dice.tolist() == pytest.approx([1 - (first + second) / 2], rel=1e-6)
    weighted = loss_terms.tversky(
        probs,
        target,
        false_positives=0.5,
        false_negatives=0.5,
        weight_K=torch.tensor([3.0, 1.0]),
        ignore=IGNORE,
    )
    assert weighted.tolist() == pytest.approx([1 - (3 * first + second) / 4], rel=1e-6)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.3, 0.7), (1.0, 0.1)])
def test_tversky_counts_what_is_shared_claimed_and_missed_of_the_classes_that_are_there(
    alpha: float, beta: float
) -> None:
    logits, target = batch()
    probs = logits.softmax(1)
    found = loss_terms.tversky(
        probs, target, false_positives=alpha, false_negatives=beta, weight_K=None, ignore=IGNORE
    )
    for image in range(2):
        p, classes = labelled(probs, target, image)
        each = []
        for k in np.unique(classes):
            shared, claimed, missed = (
                p[k][classes == k].sum(),
                p[k][classes != k].sum(),
                (1 - p[k])[classes == k].sum(),
            )
            each.append(1 - shared / (shared + alpha * claimed + beta * missed))
        assert len(each) == (3 if image == 0 else 4)
        assert found[image].item() == pytest.approx(np.mean(each), rel=1e-12)


def test_lovasz_is_the_extension_of_the_jaccard_loss_from_sets_to_errors() -> None:
    logits, target = batch(3)
    probs = logits.softmax(1)
    found = loss_terms.lovasz_softmax(probs, target, weight_K=None, ignore=IGNORE)

    def jaccard_loss(truth: set[int], wrong: set[int]) -> float:
        return len(wrong) / len(truth | wrong)

    for image in range(2):
        p, classes = labelled(probs, target, image)
        each = []
        for k in np.unique(classes):
            truth = set(np.flatnonzero(classes == k).tolist())
            errors = np.abs((classes == k) - p[k])
            order = np.argsort(-errors).tolist()
            chain = [jaccard_loss(truth, set(order[:n])) for n in range(len(order) + 1)]
            each.append(
                sum(errors[i] * (b - a) for i, (a, b) in zip(order, itertools.pairwise(chain), strict=True))
            )
        assert found[image].item() == pytest.approx(np.mean(each), rel=1e-12)


def test_lovasz_of_a_certain_prediction_is_one_minus_iou() -> None:
    truth, pred = torch.tensor([[[0, 0, 1, 1, 2, 2]]]), torch.tensor([[[0, 1, 1, 1, 2, 0]]])
    loss = loss_terms.lovasz_softmax(
        F.one_hot(pred, 3).movedim(-1, 1).double(), truth, weight_K=None, ignore=IGNORE
    )
    assert loss.tolist() == pytest.approx([1 - (1 / 3 + 2 / 3 + 1 / 2) / 3], rel=1e-12)
    weighted = loss_terms.lovasz_softmax(
        F.one_hot(pred, 3).movedim(-1, 1).double(),
        truth,
        weight_K=torch.tensor([1.0, 0.0, 3.0]),
        ignore=IGNORE,
    )
    assert weighted.tolist() == pytest.approx([1 - (1 / 3 + 3 / 2) / 4], rel=1e-12)


def test_lovasz_slopes_do_not_drown_in_rounding() -> None:
    """In single precision the differences of neighbouring Jaccard values are off by 0.3 % here."""
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(1, 2, 400, 400, generator=generator, dtype=torch.float64).softmax(1).requires_grad_()
    target = (torch.rand(1, 400, 400, generator=generator) < 0.2).long()
    single = exact.detach().float().requires_grad_()
    losses = [
        loss_terms.lovasz_softmax(probs, target, weight_K=None, ignore=IGNORE)[0] for probs in (exact, single)
    ]
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-6)
    true_grad, grad = torch.autograd.grad(losses[0], exact)[0], torch.autograd.grad(losses[1], single)[0]
    assert (grad - true_grad).abs().mean() < 1e-5 * true_grad.abs().mean()


def test_focal_by_hand_and_its_weights() -> None:
    log_probs = torch.tensor([[0.25, 0.9, 0.5], [0.75, 0.1, 0.5]]).log().reshape(1, 2, 1, 3)
    target = torch.tensor([0, 0, IGNORE]).reshape(1, 1, 3)
    by_hand = 0.75**2 * math.log(4) + 0.1**2 * -math.log(0.9)
    assert loss_terms.focal(
        log_probs, target, gamma=2.0, weight_K=None, ignore=IGNORE
    ).item() == pytest.approx(by_hand, rel=1e-6)
    weight_K = torch.tensor([0.25, 1.0])
    assert loss_terms.focal(
        log_probs, target, gamma=2.0, weight_K=weight_K, ignore=IGNORE
    ).item() == pytest.approx(by_hand / 4, rel=1e-6)


def test_focal_without_focus_is_cross_entropy() -> None:
    logits, target = batch()
    weight_K = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    found = loss_terms.focal(logits.log_softmax(1), target, gamma=0.0, weight_K=weight_K, ignore=IGNORE)
    truth = F.cross_entropy(logits, target, weight=weight_K, ignore_index=IGNORE, reduction="sum")
    assert found.item() == pytest.approx(truth.item(), rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_has_a_gradient_where_a_pixel_is_certain(gamma: float) -> None:
    logits = torch.tensor([200.0, 0.0, 0.0, 200.0]).reshape(1, 2, 1, 2).requires_grad_()
    target = torch.zeros(1, 1, 2, dtype=torch.int64)  # right, then wrong
    loss_terms.focal(logits.log_softmax(1), target, gamma=gamma, weight_K=None, ignore=IGNORE).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert logits.grad[0, :, 0, 1].tolist() == pytest.approx([-1.0, 1.0])


def test_gradients_are_those_of_the_values() -> None:
    logits, target = (part[..., :3, :4].contiguous() for part in batch())
    logits.requires_grad_()
    weight_K = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)

    def terms(x: Tensor) -> tuple[Tensor, ...]:
        probs = x.softmax(1)
        return (
            loss_terms.focal(x.log_softmax(1), target, gamma=1.5, weight_K=weight_K, ignore=IGNORE),
            loss_terms.tversky(
                probs, target, false_positives=0.3, false_negatives=0.7, weight_K=weight_K, ignore=IGNORE
            ),
            loss_terms.lovasz_softmax(probs, target, weight_K=weight_K, ignore=IGNORE),
        )

    assert torch.autograd.gradcheck(terms, (logits,), eps=1e-6, atol=1e-6)  # by finite differences


def test_an_image_without_labels_costs_nothing() -> None:
    logits, target = batch()
    target[1] = IGNORE
    logits.requires_grad_()
    probs = logits.softmax(1)
    dice = loss_terms.tversky(
        probs, target, false_positives=0.5, false_negatives=0.5, weight_K=None, ignore=IGNORE
    )
    lovasz = loss_terms.lovasz_softmax(probs, target, weight_K=None, ignore=IGNORE)
    assert dice[1] == lovasz[1] == 0.0
    (dice.sum() + lovasz.sum()).backward()
    assert logits.grad is not None and logits.grad[0].any() and not logits.grad[1].any()


@pytest.mark.parametrize("deviation", [0.7, 2.0, 5.0])
def test_nearness_follows_the_distance_to_the_nearest_border(deviation: float) -> None:
    target = torch.zeros(2, 40, 50, dtype=torch.uint8)
    target[0, 10:20, 5:25] = 1
    target[0, 30:, 40:] = 2
    target[0, :12, 20:30] = IGNORE  # over a corner of the square: no border there
    target[1] = 3  # nothing but one class
    found = loss_terms.nearness(target, deviation=deviation, ignore=IGNORE)
    assert found.dtype == torch.float32
    ids = target[0].numpy()
    is_border = np.zeros(ids.shape, bool)
    for y, x in np.ndindex(ids.shape):
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < 40 and 0 <= u < 50 and IGNORE not in (ids[y, x], ids[v, u]):
                is_border[y, x] |= ids[y, x] != ids[v, u]
    distance = ndimage.distance_transform_edt(~is_border)
    truth = np.where(distance <= 3 * deviation, np.exp(-(distance**2) / (2 * deviation**2)), 0.0)
    np.testing.assert_allclose(found[0].numpy(), truth, atol=1e-6)
    assert found[0].max() == 1.0
    assert not found[1].any()


def test_nearness_of_tiny_targets() -> None:
    row = torch.tensor([[[0, 0, 1, 1, 1]]])
    by_hand = [math.exp(-d * d / 2) for d in (1, 0, 0, 1, 2)]
    assert loss_terms.nearness(row, deviation=1.0, ignore=IGNORE).flatten().tolist() == pytest.approx(by_hand)
    column = loss_terms.nearness(row.transpose(1, 2), deviation=1.0, ignore=IGNORE)
    assert column.flatten().tolist() == pytest.approx(by_hand)
    assert not loss_terms.nearness(
        torch.zeros(1, 1, 1, dtype=torch.int64), deviation=5.0, ignore=IGNORE
    ).any()
