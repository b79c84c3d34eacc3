"""Any backbone of timm that gives feature maps, at the strides that it supports.

timm (Wightman, Apache-2.0) is asked through its public `features_only=True` alone; nothing of it is copied or patched,
and it is imported only when a backbone of its is built. Images are padded inside to what it needs, and its maps cut
back and turned to channels first. The last four maps are taken; a plain vision transformer gives four of one stride.
Weights are the Hub's safetensors, whose licences are their own (`timm_weights`).

Our ResNets are `resnet.py`: they dilate as OpenMMLab does, timm's otherwise.

Shapes: B batch, C channels of a map, H W height and width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import MissingExtraError, UsageError, WeightsError, unknown_name
from terrazzo.nn.backbone import Backbone, numbered_layers
from terrazzo.nn.files import CONFIG, listed, model_folder, read_tensors
from terrazzo.nn.unet import cut, padded
from terrazzo.storage import read_json

NUM_MAPS = 4  # what the heads read: strides 4, 8, 16, 32 where the backbone is a pyramid


class TimmBackbone(Backbone):
    """Normalised image (B, C, H, W) -> the last four maps of a backbone of timm."""

    def __init__(
        self, *, name: str, channels: int = 3, output_stride: int = 0, drop_path: float = 0.0
    ) -> None:
        """name: as timm calls it, such as "convnext_tiny"; output_stride: of the last map, 0 for its own.

        Raises MissingExtraError without timm, UnknownNameError with the nearest names, and UsageError where the
        backbone gives no maps, too few of them, or none of that stride.
        """
        super().__init__()
        self.body = _body(name, channels=channels, output_stride=output_stride, drop_path=drop_path)
        self.is_channels_last = str(getattr(self.body, "output_fmt", "NCHW")).rpartition(".")[2] == "NHWC"
        self.out_channels = tuple(_info(self.body).channels()[-NUM_MAPS:])
        self.strides = tuple(_info(self.body).reduction()[-NUM_MAPS:])
        self.multiple = math.lcm(*_info(self.body).reduction())
        self._recomputes = False

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the maps."""
        height, width = image_BCHW.shape[2:]
        maps = self.body(padded(image_BCHW, self.multiple))[-NUM_MAPS:]
        if self.is_channels_last:
            maps = [x_BHWC.permute(0, 3, 1, 2) for x_BHWC in maps]
        return [cut(x, height, width, stride) for x, stride in zip(maps, self.strides, strict=True)]

    @property
    def gradient_checkpointing(self) -> bool:
        """timm's own switch. Its batch norms, where it has any, then count each batch twice."""
        return self._recomputes

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, is_on: bool) -> None:
        for module in (self.body, getattr(self.body, "model", None)):
            switch = getattr(module, "set_grad_checkpointing", None)
            if callable(switch):
                switch(is_on)
        self._recomputes = is_on

    def stage_parameter_names(self) -> list[set[str]]:
        """Return the names of all parameters as layers, as far as their numbers tell."""
        return numbered_layers(self)


@dataclass(frozen=True)
class TimmWeights:
    """Weights of timm as they lie on the Hub, and what is said of them there."""

    where: str
    """Hub id or folder."""
    tensors: Mapping[str, Tensor]
    """Under timm's names, classifier included."""
    license: str | None
    """Such as "apache-2.0"; None where it is not said."""
    mean: tuple[float, ...]
    std: tuple[float, ...]


def timm_weights(source: str | PathLike[str]) -> TimmWeights:
    """Read weights of timm: "timm/resnet50.a1_in1k" on the Hub, "timm/resnet50" for timm's choice, or a folder of one.

    timm itself is needed only to choose. Raises the errors of `files.read_tensors` and `files.model_folder`.
    """
    where = str(source)
    folder = model_folder(tagged(where) if where.startswith("timm/") else source)
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    about = config.get("pretrained_cfg", config)
    return TimmWeights(
        where,
        read_tensors(folder),
        about.get("license"),
        tuple(about.get("mean", (0.485, 0.456, 0.406))),
        tuple(about.get("std", (0.229, 0.224, 0.225))),
    )


def backbone_tensors(name: str, weights: TimmWeights, *, output_stride: int = 0) -> dict[str, Tensor]:
    """Return the state dict of a TimmBackbone `name` for RGB images, made by timm from weights under its own names.

    timm leaves what weights lack as it is, so it is asked twice, with other random numbers: what then differs was
    lacking. Raises WeightsError for weights of another network.
    """
    states, said = [], ""
    for seed in (0, 1):
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            try:
                body = _body(
                    name,
                    channels=3,
                    output_stride=output_stride,
                    drop_path=0.0,
                    tensors=dict(weights.tensors),
                )
            except (RuntimeError, KeyError, AttributeError, IndexError, ValueError) as error:
                said = next(iter(str(error).splitlines()), type(error).__name__)
                break
        states.append(body.state_dict())
    if len(states) == 2:
        lacking = [key for key, tensor in states[0].items() if not torch.equal(tensor, states[1][key])]
        if not lacking:
            return {f"body.{key}": tensor for key, tensor in states[0].items()}
        said = f"no {listed(lacking)}"
    raise WeightsError(
        f"The weights in {weights.where} do not fit timm's {name}.",
        found=said,
        expected=f"weights of {name}, such as timm/{name} on the Hub",
    )


def _body(
    name: str,
    *,
    channels: int,
    output_stride: int,
    drop_path: float,
    tensors: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Return timm's feature network: at least NUM_MAPS maps, the last of them at `output_stride`."""
    timm = _timm()
    known, _, _ = name.partition(".")
    if not timm.is_model(known):
        raise unknown_name(
            "backbone of timm",
            name,
            timm.list_models(),
            command='python -c "import timm; print(timm.list_models())"',
        )
    given: dict[str, Any] = {"in_chans": channels, "features_only": True}
    if drop_path:
        given["drop_path_rate"] = drop_path
    about = timm.get_pretrained_cfg(known)
    if about is not None and about.fixed_input_size:
        given["dynamic_img_size"] = True
    if tensors is not None:
        given |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": tensors}}
    body = _made(timm, name, given)
    count = len(_info(body).info)
    if count < NUM_MAPS:
        raise UsageError(
            f"timm's {name} gives {count} feature maps, and the heads here read {NUM_MAPS}.",
            expected="a backbone such as timm/convnext_tiny or timm/swin_tiny_patch4_window7_224",
        )
    if len(_info(body).channels()) < NUM_MAPS:  # a transformer, of whose blocks it gives the last few
        given["out_indices"] = tuple(count * (i + 1) // NUM_MAPS - 1 for i in range(NUM_MAPS))
        body = _made(timm, name, given)
    if output_stride not in (0, _info(body).reduction()[-1]):
        given["output_stride"] = output_stride
        body = _made(timm, name, given)
    return body


def _made(timm: ModuleType, name: str, given: Mapping[str, Any]) -> nn.Module:
    """Return timm.create_model(name, **given), or say what it cannot be asked."""
    given = dict(given)
    try:
        try:
            body: nn.Module = timm.create_model(name, **given)
        except TypeError as error:
            if "drop_path_rate" not in str(error):
                raise
            given.pop("drop_path_rate")  # this one has no blocks to drop
            body = timm.create_model(name, **given)
    except (
        TypeError,
        AssertionError,
        RuntimeError,
        AttributeError,
        ValueError,
    ) as error:
        if "pretrained_cfg_overlay" in given and not isinstance(error, TypeError):
            raise  # the weights are to blame
        raise _refused(name, given, error) from error
    stride = given.get("output_stride", 0)
    if stride not in (0, _info(body).reduction()[-1]):
        raise _refused(name, given, None)
    return body


def _refused(name: str, given: Mapping[str, Any], error: Exception | None) -> UsageError:
    said = (next(iter(str(error).splitlines()), "") or type(error).__name__) if error is not None else None
    if "output_stride" in given:
        return UsageError(
            f"timm's {name} cannot be dilated to stride {given['output_stride']}.",
            found=said,
            hint="At its own stride it may serve:",
            command="model.output_stride=32",
        )
    if "dynamic_img_size" in given:
        return UsageError(
            f"timm's {name} takes images of one size alone.",
            found=said,
            expected="a backbone for images of any size, such as timm/convnext_tiny",
        )
    return UsageError(
        f"timm's {name} gives no feature maps.",
        found=said,
        expected="a backbone that does, such as timm/convnext_tiny",
    )


def _info(body: nn.Module) -> Any:
    return body.feature_info


def tagged(source: str) -> str:
    """Return the Hub id of "timm/NAME": timm's first choice of weights for NAME. With a tag it is one already."""
    name = source.removeprefix("timm/")
    if "." in name:
        return source
    timm = _timm()
    if not timm.is_model(name):
        raise unknown_name("backbone of timm", name, timm.list_models())
    about = timm.get_pretrained_cfg(name)
    if about is None or not about.hf_hub_id:
        raise WeightsError(
            f"timm publishes no weights for {name}.",
            expected="a backbone with weights",
            command='python -c "import timm; print(timm.list_pretrained())"',
        )
    return str(about.hf_hub_id)


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(
            "Backbones of timm need timm, which is not installed.",
            hint="Install it, or choose a backbone of ours such as resnet50_v1c:",
            command='pip install "terrazzo[timm]"',
        ) from error
    return timm
