"""Cross-entropy of logits that are resized to the target's size on the way, and its gradient, in one pass.

torch's way holds the resized logits, their log-softmax and the gradient of both: 4 x B x K x H x W floats. Here two
source rows at a time are stretched to the target's width; for every target row between them softmax, loss and gradient
live in a few K x T floats, and the gradient flows back into the two rows (the adjoint of the resize) before they are
left. Where the target's width is a whole multiple of the logits', columns are visited phase by phase, so that
stretching needs neither gather nor scatter. The loops are in `cross_entropy_rows.py`.

The same loops note the loss of every pixel, H x W floats, where only the hardest are to count. Those above a threshold
are known on the spot; where an image has too few of them, a second pass takes the limit that the first one found.

The work is cut by shapes alone and partial sums are added in order: the result does not depend on the thread count.
"""

# B batch, K classes, h w height and width of the logits, H W of the target, T columns of a tile

import itertools
import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from terrazzo.errors import MaskValueError
from terrazzo.kernels import gpu
from terrazzo.kernels.bilinear import Taps, taps
from terrazzo.kernels.compile import is_available
from terrazzo.kernels.cross_entropy_rows import Floats, Places, loss_of_rows
from terrazzo.kernels.threads import spread

TILE_FLOATS = 1 << 12  # K x T of one of the five buffers of a tile
PIECE_FLOATS = 1 << 19  # K x H x W of one piece of work, about 0.4 ms


class Hardest(NamedTuple):
    """Which pixels of an image count: those the network is least sure of."""

    threshold: float
    """Pixels whose true class has at most this probability, 0-1, count."""
    min_kept: int
    """At least so many of an image's labelled pixels count, the hardest first; all where there are fewer."""


def resize_cross_entropy(
    logits_BKhw: Tensor,
    target_BHW: Tensor,
    *,
    weight_K: Tensor | None = None,
    ignore: int,
    label_smoothing: float = 0.0,
    align_corners: bool = False,
    pixel_weight_BHW: Tensor | None = None,
    hardest: Hardest | None = None,
    threads: int | None = None,
) -> Tensor:
    """Sum the weighted cross-entropy over the pixels of the target that are not `ignore`; a float32 scalar.

    logits_BKhw: (B, K, h, w) float32, bfloat16 or float16, resized bilinearly to the target's size, with or without
    corners that meet, and computed in float32. target_BHW: class ids and ignore, of any integer dtype.
    weight_K, label_smoothing: as in torch.nn.functional.cross_entropy with reduction="sum".
    pixel_weight_BHW: float32, at least 0, by which each pixel's loss is multiplied as well.
    hardest: leave out the easy pixels of each image, chosen by the loss before class weights and smoothing;
    not together with pixel weights.
    On the CPU the gradient is computed on the way, when one is wanted, and held at the logits' size; the loss is within
    1e-6 and gradients within 1e-5 of torch's. Ids outside the classes are a MaskValueError there. The same holds on a
    CUDA device (`gpu/resize_cross_entropy.py`), where such ids make the loss NaN instead, since nothing waits there.
    Elsewhere, for float64, and without numba or Triton, the reference answers.
    """
    assert logits_BKhw.ndim == 4, f"logits (B, K, h, w), not {tuple(logits_BKhw.shape)}"
    assert target_BHW.ndim == 3, f"target (B, H, W), not {tuple(target_BHW.shape)}"
    assert len(logits_BKhw) == len(target_BHW), f"{len(logits_BKhw)} logits for {len(target_BHW)} targets"
    assert pixel_weight_BHW is None or pixel_weight_BHW.shape == target_BHW.shape, "a weight for every pixel"
    assert pixel_weight_BHW is None or hardest is None, "of weighted pixels none are chosen"
    if gpu.takes(logits_BKhw) and logits_BKhw.shape[1] <= gpu.MOST_CLASSES:
        return _on_gpu(
            logits_BKhw,
            target_BHW,
            weight_K,
            pixel_weight_BHW,
            hardest,
            (ignore, label_smoothing, align_corners),
        )
    on_cpu = logits_BKhw.device.type == "cpu" and logits_BKhw.dtype in (
        torch.float32,
        torch.bfloat16,
        torch.float16,
    )
    if not (on_cpu and is_available()):
        return resize_cross_entropy_reference(
            logits_BKhw,
            target_BHW,
            weight_K=weight_K,
            ignore=ignore,
            label_smoothing=label_smoothing,
            align_corners=align_corners,
            pixel_weight_BHW=pixel_weight_BHW,
            hardest=hardest,
        )
    wants_grad = torch.is_grad_enabled() and logits_BKhw.requires_grad
    settings = _Settings(ignore, label_smoothing, align_corners, hardest, wants_grad, threads)
    return _ResizeCrossEntropy.apply(logits_BKhw, target_BHW, weight_K, pixel_weight_BHW, settings)


def _on_gpu(
    logits_BKhw: Tensor,
    target_BHW: Tensor,
    weight_K: Tensor | None,
    pixel_weight_BHW: Tensor | None,
    hardest: Hardest | None,
    settings: tuple[int, float, bool],
) -> Tensor:
    """By Triton. A look at all losses finds the limit of the hardest: to ask whether it is needed would be a wait."""
    from terrazzo.kernels.gpu.resize_cross_entropy import Options, ResizeCrossEntropy, loss_and_grad

    wants_grad = torch.is_grad_enabled() and logits_BKhw.requires_grad
    limit_B: Tensor | None = None
    if hardest is not None:
        about, plain = logits_BKhw.detach(), Options(*settings, wants_grad=False)
        _, _, loss_BHW = loss_and_grad(about, target_BHW, None, None, None, plain, notes_losses=True)
        assert loss_BHW is not None
        limit_B = _limits(loss_BHW, target_BHW != settings[0], hardest)
    options = Options(*settings, wants_grad=wants_grad)
    loss: Tensor = ResizeCrossEntropy.apply(
        logits_BKhw, target_BHW, weight_K, pixel_weight_BHW, limit_B, options
    )
    return loss


def resize_cross_entropy_reference(
    logits_BKhw: Tensor,
    target_BHW: Tensor,
    *,
    weight_K: Tensor | None = None,
    ignore: int,
    label_smoothing: float = 0.0,
    align_corners: bool = False,
    pixel_weight_BHW: Tensor | None = None,
    hardest: Hardest | None = None,
) -> Tensor:
    """The same in torch's words, holding the resized logits (B, K, H, W); float64 stays float64."""
    with torch.autocast(logits_BKhw.device.type, enabled=False):
        logits, size_hw, target = logits_BKhw, target_BHW.shape[-2:], target_BHW.long()
        logits = logits if logits.dtype == torch.float64 else logits.float()
        full_BKHW = F.interpolate(logits, size=size_hw, mode="bilinear", align_corners=align_corners)
        loss_BHW = F.cross_entropy(
            full_BKHW,
            target,
            weight=None if weight_K is None else weight_K.to(logits),
            ignore_index=ignore,
            reduction="none",
            label_smoothing=label_smoothing,
        )
        if pixel_weight_BHW is not None:
            loss_BHW = loss_BHW * pixel_weight_BHW
        if hardest is not None:
            plain_BHW = F.cross_entropy(full_BKHW.detach(), target, ignore_index=ignore, reduction="none")
            loss_BHW = loss_BHW * hardest_pixels(plain_BHW, target != ignore, hardest)
        return loss_BHW.sum()


def refuse_wrong_ids(target_BHW: Tensor, num_classes: int, ignore: int) -> None:
    """Raise MaskValueError where a target on the CPU holds ids that are neither classes nor `ignore`."""
    wrong = ((target_BHW < 0) | (target_BHW >= num_classes)) & (target_BHW != ignore)
    if wrong.any():
        raise _wrong_ids(target_BHW.numpy(), num_classes, ignore)


def hardest_pixels(loss_BHW: Tensor, is_labelled_BHW: Tensor, hardest: Hardest) -> Tensor:
    """Return which labelled pixels count, (B, H, W) bool, chosen for each image alone.

    loss_BHW: minus the log of the true class's probability; what stands at other pixels is no matter. Of equal losses
    all or none count, so that there may be more than `min_kept`. A loss that is NaN counts: it must be seen.
    """
    return is_labelled_BHW & ~(loss_BHW < _limits(loss_BHW, is_labelled_BHW, hardest)[:, None, None])


def _limits(loss_BHW: Tensor, is_labelled_BHW: Tensor, hardest: Hardest) -> Tensor:
    """The least loss that counts in each image (B,): the threshold's, or lower where too few pixels reach that."""
    loss_BN = loss_BHW.masked_fill(~is_labelled_BHW, -math.inf).flatten(1)
    limit_B = loss_BN.new_full((len(loss_BN),), _loss_at(hardest.threshold))
    kept = min(hardest.min_kept, loss_BN.shape[1])
    if not kept:
        return limit_B
    return torch.minimum(limit_B, loss_BN.kthvalue(loss_BN.shape[1] - kept + 1, dim=1).values)


def _loss_at(probability: float) -> float:
    return -math.log(probability) if probability else math.inf


class _Settings(NamedTuple):
    ignore: int
    label_smoothing: float
    align_corners: bool
    hardest: Hardest | None
    wants_grad: bool
    threads: int | None


class _ResizeCrossEntropy(torch.autograd.Function):
    """The loss, with its gradient computed in the forward pass and scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        logits_BKhw: Tensor,
        target_BHW: Tensor,
        weight_K: Tensor | None,
        pixel_weight_BHW: Tensor | None,
        settings: _Settings,
    ) -> Tensor:
        logits = logits_BKhw.detach().float().contiguous().numpy()
        wide = target_BHW.dtype == torch.int64
        target_BHW = (
            target_BHW.clamp(-(2**31), 2**31 - 1) if wide else target_BHW
        )  # a wrong id must stay wrong
        target = (
            target_BHW.to(torch.int32).contiguous().numpy()
        )  # one type, so that the loops are compiled once
        batch, num_classes = logits.shape[:2]
        weights = (
            np.ones(num_classes, np.float32) if weight_K is None else weight_K.detach().float().cpu().numpy()
        )
        assert weights.shape == (num_classes,), f"{weights.shape} weights for {num_classes} classes"
        everywhere = np.empty((batch, 0, target.shape[2]), np.float32)
        pixel_weights = (
            everywhere if pixel_weight_BHW is None else pixel_weight_BHW.detach().float().contiguous().numpy()
        )
        work = _Work(logits, target, pixel_weights, weights)
        if settings.hardest is None:
            total, grad = _loss_and_grad(work, settings)
        else:
            total, grad = _hardest_loss_and_grad(work, settings, settings.hardest)
        if settings.wants_grad:
            ctx.save_for_backward(torch.from_numpy(grad))
            ctx.dtype = logits_BKhw.dtype
        return torch.tensor(total, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad_BKhw,) = ctx.saved_tensors
        return (grad_BKhw * grad_output).to(ctx.dtype), None, None, None, None


class _Work(NamedTuple):
    """What the loops read."""

    logits: Floats
    """(B, K, h, w)"""
    target: NDArray[np.int32]
    """(B, H, W)"""
    pixel_weights: Floats
    """(B, H, W), or (B, 0, W) where every pixel weighs 1."""
    weights: Floats
    """(K,)"""


def _hardest_loss_and_grad(work: _Work, settings: _Settings, hardest: Hardest) -> tuple[float, Floats]:
    """The same for the hardest pixels alone: in one pass where each image has enough above the threshold."""
    losses = np.zeros(work.target.shape, np.float32)
    limits = np.full(len(losses), _loss_at(hardest.threshold), np.float32)
    found = _loss_and_grad(work, settings, losses, limits)
    is_labelled = work.target != settings.ignore
    kept = (is_labelled & ~(losses < limits[:, None, None])).sum((1, 2))
    if (kept >= np.minimum(is_labelled.sum((1, 2)), hardest.min_kept)).all():
        return found
    limits = _limits(torch.from_numpy(losses), torch.from_numpy(is_labelled), hardest).numpy()
    return _loss_and_grad(work, settings, losses, limits)


def _loss_and_grad(
    work: _Work, settings: _Settings, losses: Floats | None = None, limits: Floats | None = None
) -> tuple[float, Floats]:
    """Return the loss and its gradient (B, K, h, w), the latter empty when it is not wanted.

    losses (B, H, W): filled with the loss of each labelled pixel, before weights and smoothing. limits (B,): the pixels
    whose loss is below are left out.
    """
    logits, target, pixel_weights, weights = work
    batch, num_classes, height, width = logits.shape
    plan = _plan((height, width), (target.shape[1], target.shape[2]), num_classes, settings.align_corners)
    wants_grad, strips = settings.wants_grad, list(itertools.pairwise(plan.cuts))
    grad = np.zeros(logits.shape if wants_grad else (batch, 0, 0, 0), np.float32)
    edges = np.zeros((batch, len(strips), num_classes if wants_grad else 0, 1, width), np.float32)
    losses = np.empty((batch, 0, target.shape[2]), np.float32) if losses is None else losses
    limits = np.zeros(batch, np.float32) if limits is None else limits
    smooth = np.float32(settings.label_smoothing)

    def piece(at: tuple[int, int]) -> tuple[float, bool]:
        image, strip = at
        return loss_of_rows(
            logits[image],
            target[image],
            pixel_weights[image],
            weights,
            smooth,
            settings.ignore,
            *plan.rows,
            *plan.columns,
            plan.column_of,
            plan.is_phased,
            *strips[strip],
            plan.tile,
            limits[image],
            losses[image],
            grad[image],
            edges[image, strip],
        )

    pieces = list(itertools.product(range(batch), range(len(strips))))
    parts = spread(piece, pieces, threads=settings.threads)
    if any(wrong for _, wrong in parts):
        raise _wrong_ids(target, num_classes, settings.ignore)
    if wants_grad:  # the row that two strips share: in order, whatever the threads did
        for strip, (_, stop) in enumerate(strips):
            grad[:, :, plan.rows.second[stop - 1]] += edges[:, strip, :, 0]
    return float(sum(loss for loss, _ in parts)), grad


class _Plan(NamedTuple):
    """What depends on the shapes alone."""

    rows: Taps
    columns: Taps
    """In the order the columns are visited."""
    column_of: Places
    """(W,) the target's column at each place of that order."""
    is_phased: bool
    """Columns are visited phase by phase; a tile is then one phase or a few whole ones."""
    tile: int
    """T"""
    cuts: list[int]
    """The first target row of each strip, and H; a new pair of source rows begins there."""


@lru_cache(maxsize=64)
def _plan(
    logits_hw: tuple[int, int], target_hw: tuple[int, int], num_classes: int, align_corners: bool = False
) -> _Plan:
    rows = taps(logits_hw[0], target_hw[0], align_corners=align_corners)
    columns = taps(logits_hw[1], target_hw[1], align_corners=align_corners)
    column_of = np.arange(target_hw[1], dtype=np.uint32)
    tile = max(64, TILE_FLOATS // num_classes // 16 * 16)
    width, phases = logits_hw[1], target_hw[1] // logits_hw[1]
    # with corners that meet the places drift from one period to the next, and the first column reads two
    is_phased = not align_corners and _is_periodic(columns, width, target_hw[1])
    if is_phased:
        column_of = np.ascontiguousarray(column_of.reshape(width, phases).T).reshape(-1)
        columns = Taps(columns.first[column_of], columns.second[column_of], columns.share[column_of])
        tile = width * max(1, min(phases, round(tile / width)))
    begins = np.flatnonzero(
        np.diff(rows.first, prepend=-1)
    ).tolist()  # target rows where a pair of source rows begins
    strips = max(1, min(16, num_classes * target_hw[0] * target_hw[1] // PIECE_FLOATS))
    chosen = sorted({begins[len(begins) * i // strips] for i in range(strips)})
    return _Plan(rows, columns, column_of, is_phased, min(tile, target_hw[1]), [*chosen, target_hw[0]])


def _is_periodic(columns: Taps, width: int, target_width: int) -> bool:
    """True when column phases * j + p reads at j - 1 and j, or at j and j + 1, for all j alike but at the borders."""
    if target_width % width or width < 2:
        return False
    shift = columns.first.astype(np.int64).reshape(width, -1) - np.arange(width)[:, None]
    return bool((shift[1:] == shift[1]).all() and (shift[0] == 0).all() and np.isin(shift, (-1, 0)).all())


def _wrong_ids(target: NDArray[Any], num_classes: int, ignore: int) -> MaskValueError:
    bad = target[((target < 0) | (target >= num_classes)) & (target != ignore)]
    values, counts = np.unique(bad, return_counts=True)
    listed = ", ".join(
        f"{i} ({n:,} pixels)" for i, n in zip(values[:8].tolist(), counts[:8].tolist(), strict=True)
    )
    return MaskValueError(
        f"A training mask has class id {values[0]}; the network has {num_classes} classes.",
        found=listed + (f", … {len(values)} such ids" if len(values) > 8 else ""),
        expected=f"0-{num_classes - 1} and {ignore} (ignore)",
        hint="Ids are remapped once, where data enters. To see every file with such ids:",
        command="terrazzo check DATA",
    )
