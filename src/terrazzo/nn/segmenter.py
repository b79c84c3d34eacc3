"""A network put together in plain sight: a backbone, a head, and while training an auxiliary head.

`assemble` builds one from its *spec*, a JSON-able dict that says every width, so that a model on disk, a checkpoint of
others and a recipe lead to the same builder; `specs.py` has the specs of full-width networks. To add a head or a
backbone, write its file and one line in `HEADS` or `BACKBONES`.

    {"architecture": "pspnet",
     "backbone": {"kind": "resnet", "depth": 50, "variant": "v1c", …the keyword arguments of its class},
     "head": {"channels": 512, …the keyword arguments of its class},
     "auxiliary": {"channels": 256, "in_index": 2, "num_convs": 1, "concat_input": false} or null,
     "dropout": 0.1, "align_corners": false}

A head is built as Head(channels of the backbone's maps, num_classes, dropout=, align_corners=, **spec["head"]) and
takes the maps, the finest first. State-dict names are OpenMMLab's, but for `head.`, `auxiliary.` and `classifier`.

Shapes: B batch, K classes, C channels, H W height and width, h w size of the logits.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import UsageError, nearest, unknown_name
from terrazzo.nn import IMAGENET_MEAN, IMAGENET_STD
from terrazzo.nn.backbone import Backbone
from terrazzo.nn.deeplab import DeepLabV3Head, DeepLabV3PlusHead
from terrazzo.nn.fcn import FCNHead
from terrazzo.nn.nearfar import NearFar, NearFarHead
from terrazzo.nn.outputs import Output
from terrazzo.nn.pspnet import PSPHead
from terrazzo.nn.pyramid import is_plain
from terrazzo.nn.resnet import ResNet
from terrazzo.nn.segformer_conv import MiT, SegFormerConvHead
from terrazzo.nn.timm_backbone import TimmBackbone
from terrazzo.nn.unet import UNet
from terrazzo.nn.upernet import UPerHead

BACKBONES: Mapping[str, type[Backbone]] = {
    "resnet": ResNet,
    "mit": MiT,
    "unet": UNet,
    "timm": TimmBackbone,
    "nearfar": NearFar,
}
HEADS: Mapping[str, type[nn.Module]] = {
    "fcn": FCNHead,
    "pspnet": PSPHead,
    "deeplabv3": DeepLabV3Head,
    "deeplabv3plus": DeepLabV3PlusHead,
    "upernet": UPerHead,
    "unet": FCNHead,
    "segformer-conv": SegFormerConvHead,
    "nearfar": NearFarHead,
}
WIDEST = 1 << 14  # of the numbers in a spec: channels, strides, depths; a file may hold any
MOST = {"num_convs": 64, "num_stages": 8, "depths": 256}
KEYS = ("architecture", "backbone", "head", "auxiliary", "dropout", "align_corners")  # of a spec


class Segmenter(nn.Module):
    """Image (B, C, H, W) float in [0, 1] -> logits (B, K, h, w), not resized; in training also "auxiliary" ones."""

    uses_all_parameters = True  # logits depend on each of them
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        auxiliary: nn.Module | None,
        *,
        num_classes: int,
        channels: int,
        mean: Sequence[float],
        std: Sequence[float],
        align_corners: bool,
        spec: Mapping[str, Any],
    ) -> None:
        super().__init__()
        assert len(mean) == len(std) == channels, f"{channels} channels need as many means and deviations"
        self.num_classes, self.channels = num_classes, channels
        self.align_corners = align_corners  # how logits are to be resized, in loss and prediction too
        self.spec: dict[str, Any] = json.loads(json.dumps(spec))
        self.set_normalisation(mean, std)
        self.backbone, self.head, self.auxiliary = backbone, head, auxiliary

    def forward(self, image_BCHW: Tensor) -> Output:
        """Normalise, see, classify."""
        image = (image_BCHW - self.mean) / self.std
        if not is_plain(image, training=self.training):
            image = image.contiguous(memory_format=torch.channels_last)
        maps = self.backbone(image)
        logits_BKhw = self.head(maps)
        if not self.training or self.auxiliary is None:
            return Output(logits_BKhw)
        return Output(logits_BKhw, {"auxiliary": self.auxiliary(maps)})

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set what is subtracted from, and what then divides, each channel of an image in [0, 1]."""
        for name, values in (("mean", mean), ("std", std)):
            buffer = torch.tensor(list(values), dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    @property
    def waits_for_nothing(self) -> bool:
        """Whether a pass on a GPU can be recorded (`recorded.py`), as far as that was tried: each part says so."""
        parts = (self.backbone, self.head, *([] if self.auxiliary is None else [self.auxiliary]))
        return all(getattr(part, "waits_for_nothing", False) for part in parts)

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether training keeps one map per block of the backbone, and computes the rest again in backward."""
        return self.backbone.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, is_on: bool) -> None:
        self.backbone.gradient_checkpointing = is_on

    def head_parameter_names(self) -> set[str]:
        """Return the names of the parameters that no backbone's checkpoint holds."""
        return {name for name, _ in self.named_parameters() if not name.startswith("backbone.")}

    def stage_parameter_names(self) -> list[set[str]]:
        """Return the backbone's parameter names as layers, first the one nearest the image."""
        return [{f"backbone.{name}" for name in layer} for layer in self.backbone.stage_parameter_names()]


def assemble(
    spec: Mapping[str, Any],
    *,
    num_classes: int,
    channels: int = 3,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Segmenter:
    """Build the network that `spec` describes, with random weights; its `.spec` equals `spec`.

    Under `with torch.device("meta")` nothing is allocated. Raises UsageError in words for a spec that names no
    architecture or backbone of ours, or that gives them what they do not take.
    """
    _check_keys("The network", spec, KEYS)
    architecture = spec["architecture"]
    if architecture not in HEADS:
        raise unknown_name("architecture", str(architecture), HEADS, command="terrazzo models")
    given = dict(spec["backbone"])
    kind = given.pop("kind", None)
    if kind not in BACKBONES:
        raise unknown_name("kind of backbone", str(kind), BACKBONES)
    backbone = _made(BACKBONES[kind], f"The backbone ({kind})", given, channels=channels)
    assert isinstance(backbone, Backbone)
    common = {
        "in_channels": backbone.out_channels,
        "num_classes": num_classes,
        "dropout": spec["dropout"],
        "align_corners": spec["align_corners"],
    }
    head = _made(HEADS[architecture], f"The head of {architecture}", spec["head"], **common)
    auxiliary = None
    if spec["auxiliary"] is not None:
        auxiliary = _made(FCNHead, "The auxiliary head", spec["auxiliary"], **common)
    return Segmenter(
        backbone,
        head,
        auxiliary,
        num_classes=num_classes,
        channels=channels,
        mean=mean,
        std=std,
        align_corners=bool(spec["align_corners"]),
        spec=spec,
    )


def _made(kind: type[nn.Module], what: str, given: Mapping[str, Any], **common: Any) -> nn.Module:
    """Return kind(**common, **given), or say which of `given` it does not take."""
    parameters = {name: one for name, one in inspect.signature(kind).parameters.items() if name not in common}
    required = [name for name, one in parameters.items() if one.default is inspect.Parameter.empty]
    _check_keys(what, given, required, list(parameters))
    large = {
        name: most
        for name, value in given.items()
        if isinstance(most := _largest(value), int) and most > MOST.get(name, WIDEST)
    }
    if large:
        raise UsageError(
            f"{what} cannot be built.",
            found=", ".join(f"{name}={most:,}" for name, most in large.items()),
            expected=", ".join(f"{name} up to {MOST.get(name, WIDEST):,}" for name in large),
        )
    try:
        return kind(**common, **given)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"{what} cannot be built.",
            found=", ".join(f"{name}={value!r}" for name, value in given.items()),
            hint=f"{type(error).__name__}: {error}",
        ) from error


def _largest(value: Any) -> Any:
    """The largest number of a list; anything else is itself."""
    return (
        max((one for one in value if isinstance(one, int)), default=None)
        if isinstance(value, list)
        else value
    )


def _check_keys(
    what: str, given: Mapping[str, Any], required: Sequence[str], known: Sequence[str] | None = None
) -> None:
    known = required if known is None else known
    missing = [name for name in required if name not in given]
    unknown = [name for name in given if name not in known]
    near = [f"{name!r}: did you mean {close[0]!r}?" for name in unknown if (close := nearest(name, known))]
    if missing or unknown:
        raise UsageError(
            f"{what} cannot be built from its spec.",
            found="; ".join(
                [f"no {name!r}" for name in missing] + [f"{name!r}, unknown" for name in unknown]
            ),
            expected=", ".join(known),
            hint=" ".join(near) if near else None,
        )
