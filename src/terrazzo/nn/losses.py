"""The loss of a training: a weighted sum of named terms at the target's size, and what auxiliary heads add.

Every term is divided by one number, the weight of the *global* batch: micro-batches and processes add up to the same
gradient however the batch is split. The weight of a pixel is its class's weight, 0 where the target is ignore.

- Terms over pixels (cross_entropy, ohem, focal, boundary) are sums over pixels. OHEM chooses the pixels of an image
  from that image alone; those left out add nothing, and count in the weight as before.
- Terms over images (dice, tversky, lovasz) have one value per image, which counts as much as the image weighs: their
  sum of value times weight, divided by the weight of the batch, is a mean over its images. Over a batch they would be
  other losses, that depend on how the batch is cut.

Resize and cross-entropy are one kernel (`kernels/resize_cross_entropy.py`), its reference where the average is over all
pixels, so that sums are rounded as in MMSegmentation; the other terms hold the resized logits. Their formulas are in
`loss_terms.py`. torch is imported where it is needed, so that a recipe can be read without it.

Shapes: B batch, K classes, h w height and width of the logits, H W of the target.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from terrazzo.errors import TrainingError
from terrazzo.nn.class_weights import Formula, chosen_weights, class_weights

if TYPE_CHECKING:
    from torch import Tensor

    from terrazzo.nn.outputs import Output

__all__ = ["TERMS", "LossConfig", "SegmentationLoss", "chosen_weights", "class_weights"]

TERMS = (
    "cross_entropy",
    "ohem",
    "focal",
    "boundary",
    "dice",
    "tversky",
    "lovasz",
)  # their weights in LossConfig


@dataclass(frozen=True)
class LossConfig:
    """What is minimised: `recipe.loss`. The terms' weights come first; a term of weight 0 is not computed."""

    cross_entropy: float = 1.0
    """Weight of the cross-entropy."""
    ohem: float = 0.0
    """Weight of the cross-entropy of the hardest pixels of each image (online hard example mining)."""
    focal: float = 0.0
    """Weight of the focal loss: cross-entropy in which sure pixels count less."""
    boundary: float = 0.0
    """Weight of the cross-entropy near class borders, added to that of all pixels."""
    dice: float = 0.0
    """Weight of the Dice loss, of each image over the classes in it."""
    tversky: float = 0.0
    """Weight of the Tversky loss: Dice with a price of its own for false and for missed pixels."""
    lovasz: float = 0.0
    """Weight of the Lovász-Softmax loss, which stands for IoU, of each image over the classes in it."""
    class_weights: Formula = "none"
    """Weigh rare classes more, by a formula over the training split's pixel counts; none weighs all the same."""
    weights: tuple[float, ...] = ()
    """Class weights given by hand, one per class in id order, used as they are; they need class_weights=none."""
    average: Literal["labelled", "all"] = "labelled"
    """What sums are divided by: the weight of labelled pixels, or, as in MMSegmentation, the number of all pixels."""
    label_smoothing: float = 0.0
    """The share of each pixel's target that is spread over all classes, in the cross-entropies."""
    ohem_threshold: float = 0.7
    """OHEM keeps pixels whose true class has at most this probability."""
    ohem_min_kept: int = 100_000
    """OHEM keeps at least so many pixels of each image, the hardest first."""
    focal_gamma: float = 2.0
    """How fast sure pixels lose weight in the focal loss: (1 - probability) to this power."""
    boundary_deviation: float = 5.0
    """Pixels: how far from a class border `boundary` reaches, as the deviation of a bell curve."""
    tversky_alpha: float = 0.3
    """Price of falsely claimed pixels in the Tversky loss; 0.5 and 0.5 are Dice."""
    tversky_beta: float = 0.7
    """Price of missed pixels in the Tversky loss."""
    auxiliary: float = 0.4
    """Weight of each auxiliary head's loss, for networks that have such heads."""


class SegmentationLoss:
    """The loss of a network's output against class ids, as named terms that are summed in the training loop.

    weights_K: (K,) class weights as `chosen_weights` returns them, or None for 1 everywhere. align_corners: logits are
    resized with corners that meet, as the network resizes its own maps.
    """

    def __init__(
        self,
        config: LossConfig,
        class_weights_K: "Tensor | None",
        ignore: int,
        *,
        align_corners: bool = False,
    ) -> None:
        self.config = config
        self.class_weights_K = None if class_weights_K is None else class_weights_K.detach().float().cpu()
        self.ignore = ignore
        self.align_corners = align_corners
        self._on_device: dict[Any, Tensor] = {}

    def __call__(
        self, output: "Output", mask_BHW: "Tensor", *, weight: "Tensor | float"
    ) -> "dict[str, Tensor]":
        """Return the config's terms by name, and "auxiliary" where the network has such heads; float32 scalars.

        mask_BHW: uint8 or int64 class ids and ignore, at the size the loss is taken at: logits are resized to it.
        weight: the weight of the global batch, the sum of `pixel_weight` over all its masks. Where that is 0, nothing
        in the batch is labelled, and every term is exactly 0 with zero gradients.
        """
        terms = self._terms(output.logits, mask_BHW)
        if output.auxiliary:
            each = [
                part
                for logits in output.auxiliary.values()
                for part in self._terms(logits, mask_BHW).values()
            ]
            terms["auxiliary"] = sum(each[1:], start=each[0])
        divided = {name: _divided(term, weight) for name, term in terms.items()}
        if output.auxiliary:
            divided["auxiliary"] = self.config.auxiliary * divided["auxiliary"]
        return divided

    @property
    def waits(self) -> bool:
        """Whether computing it on a GPU waits for the GPU: the Lovász loss asks which classes an image holds."""
        return self.config.lovasz > 0

    def pixel_weight(self, mask: "Tensor") -> float:
        """Return what `mask` (any shape) adds to the weight of its batch.

        The sum of class weights over the pixels that are not ignore; with average="all" the number of pixels.
        """
        if self.config.average == "all":
            return float(mask.numel())
        ids = mask.detach().cpu().numpy()
        if self.class_weights_K is None:
            return float(np.count_nonzero(ids != self.ignore))
        counts = np.bincount(ids.ravel(), minlength=self.ignore + 1)  # leaving ignore out first takes longer
        counts[self.ignore] = 0
        return float(counts[: len(self.class_weights_K)] @ self.class_weights_K.double().numpy())

    def _terms(self, logits_BKhw: "Tensor", mask_BHW: "Tensor") -> "dict[str, Tensor]":
        """The terms, weighted and not yet divided."""
        from terrazzo.kernels import resize_cross_entropy as kernel
        from terrazzo.nn import loss_terms

        config, weight_K = self.config, self._weights_for(logits_BKhw)
        is_theirs = config.average == "all"  # then the rounding is MMSegmentation's as well
        entropy = partial(
            kernel.resize_cross_entropy_reference if is_theirs else kernel.resize_cross_entropy,
            logits_BKhw,
            mask_BHW,
            weight_K=weight_K,
            ignore=self.ignore,
            label_smoothing=config.label_smoothing,
            align_corners=self.align_corners,
        )
        terms: dict[str, Tensor] = {}
        if config.cross_entropy:
            terms["cross_entropy"] = config.cross_entropy * entropy()
        if config.ohem:
            hardest = kernel.Hardest(config.ohem_threshold, config.ohem_min_kept)
            terms["ohem"] = config.ohem * entropy(hardest=hardest)
        if config.boundary:
            near_BHW = loss_terms.nearness(mask_BHW, deviation=config.boundary_deviation, ignore=self.ignore)
            terms["boundary"] = config.boundary * entropy(pixel_weight_BHW=near_BHW)
        if not (config.focal or config.dice or config.tversky or config.lovasz):
            return terms

        log_probs_BKHW = self._log_probs(logits_BKhw, mask_BHW)
        about: dict[str, Any] = {"weight_K": weight_K, "ignore": self.ignore}
        if config.focal:
            sum_of_focal = loss_terms.focal(
                log_probs_BKHW, mask_BHW.long(), gamma=config.focal_gamma, **about
            )
            terms["focal"] = config.focal * sum_of_focal
        if not (config.dice or config.tversky or config.lovasz):
            return terms

        probs_BKHW, image_weight_B = log_probs_BKHW.exp(), self._image_weights(mask_BHW, weight_K)
        tversky = partial(loss_terms.tversky, probs_BKHW, mask_BHW, **about)
        if config.dice:
            dice_B = tversky(false_positives=0.5, false_negatives=0.5)
            terms["dice"] = config.dice * (dice_B @ image_weight_B)
        if config.tversky:
            tversky_B = tversky(false_positives=config.tversky_alpha, false_negatives=config.tversky_beta)
            terms["tversky"] = config.tversky * (tversky_B @ image_weight_B)
        if config.lovasz:
            lovasz_B = loss_terms.lovasz_softmax(probs_BKHW, mask_BHW, **about)
            terms["lovasz"] = config.lovasz * (lovasz_B @ image_weight_B)
        return terms

    def _log_probs(self, logits_BKhw: "Tensor", mask_BHW: "Tensor") -> "Tensor":
        """(B, K, H, W) float32 at the target's size, whatever autocast says."""
        import torch
        from torch.nn import functional as F

        with torch.autocast(logits_BKhw.device.type, enabled=False):
            full_BKHW = F.interpolate(
                logits_BKhw.float(), mask_BHW.shape[-2:], mode="bilinear", align_corners=self.align_corners
            )
            return full_BKHW.log_softmax(1)

    def _image_weights(self, mask_BHW: "Tensor", weight_K: "Tensor | None") -> "Tensor":
        """What each image weighs (B,): `pixel_weight` of its mask, where the mask lies."""
        import torch

        is_labelled = mask_BHW != self.ignore
        if self.config.average == "all":
            return torch.full((len(mask_BHW),), float(mask_BHW[0].numel()), device=mask_BHW.device)
        if weight_K is None:
            return is_labelled.sum((1, 2)).float()
        return (weight_K[mask_BHW.long().masked_fill(~is_labelled, 0)] * is_labelled).sum((1, 2))

    def _weights_for(self, logits_BKhw: "Tensor") -> "Tensor | None":
        """The class weights where the logits lie."""
        num_classes, device = logits_BKhw.shape[1], logits_BKhw.device
        if num_classes == 1:
            raise TrainingError(
                "A network of one class has nothing to learn: every labelled pixel is of that class.",
                found="1 class",
                expected="at least 2",
                hint='Name what surrounds the class, such as "background", a class of its own and label it.\n'
                "One number for two classes is model.one_logit=true; for a network of your own:",
                command="network = terrazzo.nn.two_classes.as_two_classes(network)",
            )
        if self.class_weights_K is None:
            return None
        assert len(self.class_weights_K) == num_classes, (
            f"{len(self.class_weights_K)} weights, {num_classes} classes"
        )
        if device not in self._on_device:
            self._on_device[device] = self.class_weights_K.to(device)
        return self._on_device[device]


def _divided(total: "Tensor", weight: "Tensor | float") -> "Tensor":
    """Return total / weight, and exactly 0 with zero gradients where the weight is 0."""
    import torch

    if not isinstance(weight, torch.Tensor):
        return total / weight if weight else total * 0.0
    weight = weight.double()  # where it lies: an Apple GPU has no float64
    scale = torch.where(weight > 0, 1.0 / torch.where(weight > 0, weight, 1.0), 0.0)
    return total * scale.to(total.device, total.dtype)
