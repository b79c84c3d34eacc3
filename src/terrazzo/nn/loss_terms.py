"""The losses beside plain cross-entropy, each a function of probabilities and target, in torch's words.

What these take is already at the target's size. Terms over pixels are sums, terms over images come one number an image:
`losses.py` says what they are divided by. Ignored pixels add nothing anywhere, and have no gradient.
"""

# B batch, K classes, H W height and width, N labelled pixels of an image, P classes present in it

import math

import torch
from torch import Tensor

FAR = 3.0  # deviations from a border at which nearness is cut to 0; it would be 0.011


def focal(
    log_probs_BKHW: Tensor, target_BHW: Tensor, *, gamma: float, weight_K: Tensor | None, ignore: int
) -> Tensor:
    """Sum (1 - p) ** gamma * -log p over the labelled pixels, p being the true class's probability; a scalar.

    Lin et al. 2017 (arXiv 1708.02002), for one class of several: softmax where the paper has K sigmoids, and the class
    weight where it has alpha. gamma 0 is cross-entropy.
    """
    is_labelled = target_BHW != ignore
    class_BHW = target_BHW.masked_fill(~is_labelled, 0)
    log_p_BHW = log_probs_BKHW.gather(1, class_BHW[:, None])[:, 0]
    miss_BHW = -torch.expm1(log_p_BHW)  # 1 - p without losing the small ones
    # at p = 1 the slope of a power below 1 is infinite, and the product with log p, which is 0, is not a number
    damped_BHW = miss_BHW.clamp_min(1e-12) ** gamma
    loss_BHW = -damped_BHW * log_p_BHW
    loss_BHW = loss_BHW if weight_K is None else loss_BHW * weight_K[class_BHW]
    return loss_BHW.masked_fill(~is_labelled, 0.0).sum()


def tversky(
    probs_BKHW: Tensor,
    target_BHW: Tensor,
    *,
    false_positives: float,
    false_negatives: float,
    weight_K: Tensor | None,
    ignore: int,
) -> Tensor:
    """Return 1 - Tversky index of each image (B,), the mean over the classes that its target holds.

    Salehi et al. 2017 (arXiv 1706.05721): TP / (TP + a FP + b FN) with soft counts, TP = sum of p where the class is
    true, FP = sum of p where it is not, FN = sum of 1 - p where it is. a = b = 0.5 is the Dice score
    2 TP / (2 TP + FP + FN), with plain sums in the divisor (Milletari et al. 2016 square them).
    weight_K: weighs the classes in the mean. Nothing is added to the divisor: a class that is there makes it positive.
    An image without labelled pixels has loss 0.
    """
    is_labelled_B1HW = (target_BHW != ignore)[:, None]
    truth_BKHW = one_hot(target_BHW, probs_BKHW.shape[1], ignore=ignore).to(probs_BKHW.dtype)
    hits_BK = (probs_BKHW * truth_BKHW).sum((2, 3))
    claimed_BK = (probs_BKHW * is_labelled_B1HW).sum((2, 3))
    count_BK = truth_BKHW.sum((2, 3))
    misses_BK = count_BK - hits_BK
    divisor_BK = hits_BK + false_positives * (claimed_BK - hits_BK) + false_negatives * misses_BK
    is_present_BK = count_BK > 0
    index_BK = hits_BK / torch.where(is_present_BK, divisor_BK, 1.0)
    share_BK = is_present_BK.to(index_BK) if weight_K is None else is_present_BK * weight_K
    return _mean_of_classes(1.0 - index_BK, share_BK)


def lovasz_softmax(probs_BKHW: Tensor, target_BHW: Tensor, *, weight_K: Tensor | None, ignore: int) -> Tensor:
    """Return the Lovász-Softmax loss of each image (B,), the mean over the classes that its target holds.

    Berman et al. 2018 (arXiv 1705.08790): the Lovász extension of 1 - IoU, of errors |truth - p|. Their code takes the
    batch as one image unless told otherwise; an image at a time, as here, does not depend on how the batch is cut.
    weight_K: weighs the classes in the mean. Sorts every present class's N errors.
    """
    losses = []
    for probs_KHW, target_HW in zip(probs_BKHW, target_BHW, strict=True):
        is_labelled_HW = target_HW != ignore
        probs_KN, target_N = probs_KHW[:, is_labelled_HW], target_HW[is_labelled_HW]
        present_P = target_N.unique().long()
        if not len(present_P):
            losses.append(probs_KN.sum())  # 0, and part of the graph
            continue
        loss_P = torch.stack([_lovasz(probs_KN[k], (target_N == k).to(probs_KN)) for k in present_P.tolist()])
        share_P = torch.ones_like(loss_P) if weight_K is None else weight_K[present_P]
        losses.append(_mean_of_classes(loss_P[None], share_P[None])[0])
    return torch.stack(losses)


def nearness(target_BHW: Tensor, *, deviation: float, ignore: int) -> Tensor:
    """Return exp(-d² / 2 deviation²), (B, H, W) float32, d being the distance in pixels to the nearest class border.

    After the weight map of U-Net (Ronneberger et al. 2015, arXiv 1505.04597, equation 2), which adds the distances to
    the two nearest cells where this has one border. A border is a labelled pixel beside a labelled pixel of another
    class (above, below, left or right); where labels end in ignore there is none. Beyond three deviations it is 0.
    """
    is_border = _borders(target_BHW, ignore)
    reach = math.ceil(FAR * deviation)
    far = float(reach + 1)
    across = _steps_to(is_border).clamp_max(far) ** 2  # to the nearest border of the same row
    squared = across.clone()
    for step in range(1, min(reach, target_BHW.shape[1] - 1) + 1):  # the nearest of all rows within reach
        torch.minimum(squared[:, step:], across[:, :-step] + step**2, out=squared[:, step:])
        torch.minimum(squared[:, :-step], across[:, step:] + step**2, out=squared[:, :-step])
    near = torch.exp(squared / (-2.0 * deviation**2))
    return near.masked_fill_(squared > (FAR * deviation) ** 2, 0.0)


def one_hot(target_BHW: Tensor, num_classes: int, *, ignore: int) -> Tensor:
    """Return (B, K, H, W) bool, True at each labelled pixel's class; ids outside the classes are False everywhere."""
    ids_K = torch.arange(num_classes, device=target_BHW.device)[:, None, None]
    return (target_BHW[:, None] == ids_K) & (target_BHW != ignore)[:, None]


def _mean_of_classes(loss_BP: Tensor, share_BP: Tensor) -> Tensor:
    """The mean by shares; 0 where all shares are."""
    total_B = share_BP.sum(1)
    return (loss_BP * share_BP).sum(1) / torch.where(total_B > 0, total_B, 1.0)


def _lovasz(prob_N: Tensor, truth_N: Tensor) -> Tensor:
    """The Lovász extension of one class's Jaccard loss, at errors |truth - p|.

    Its slope for the i-th largest error is by how much 1 - intersection / union grows when that pixel turns wrong.
    Written out, so that nothing cancels: 1 / union for a pixel of the class, which leaves the intersection;
    intersection / (union before * union after) for another, which joins the union.
    """
    error_N, order_N = (truth_N - prob_N).abs().sort(descending=True)
    with torch.no_grad():
        truth_N = truth_N[order_N]
        count = truth_N.sum()
        left_N = count - truth_N.cumsum(0)  # the intersection, after each pixel
        union_N = count + (1.0 - truth_N).cumsum(0)
        slope_N = torch.where(truth_N > 0, 1.0 / union_N, left_N / (union_N * (union_N - 1.0).clamp_min(1.0)))
    return (error_N * slope_N).sum()  # added in pairs: a dot product would lose digits over a million pixels


def _borders(target_BHW: Tensor, ignore: int) -> Tensor:
    """True at both sides of a change of class, (B, H, W)."""
    is_labelled = target_BHW != ignore
    is_border = torch.zeros_like(is_labelled)
    for axis in (1, 2):
        before, after = slice(None, -1), slice(1, None)
        one = (slice(None), before) if axis == 1 else (slice(None), slice(None), before)
        other = (slice(None), after) if axis == 1 else (slice(None), slice(None), after)
        changes = (target_BHW[one] != target_BHW[other]) & is_labelled[one] & is_labelled[other]
        is_border[one] |= changes
        is_border[other] |= changes
    return is_border


def _steps_to(is_true_BHW: Tensor) -> Tensor:
    """How many columns away the nearest True of the same row is, float32; infinite in a row without any."""
    width = is_true_BHW.shape[2]
    columns = torch.arange(width, device=is_true_BHW.device, dtype=torch.float32).expand(is_true_BHW.shape)
    last = torch.where(is_true_BHW, columns, -math.inf).cummax(2).values
    following = torch.where(is_true_BHW, columns, math.inf).flip(2).cummin(2).values.flip(2)
    return torch.minimum(columns - last, following - columns)
