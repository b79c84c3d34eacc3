"""A segmentation network of transformers behind our types: any that gives logits, and those that give masks by queries.

The module inside is transformers' own, built from its classes and never from code that a repository brings; around it
stand the normalisation, the padding that it needs, and `Output`. Files are the matter of `huggingface_files.py`.

Mask2Former, MaskFormer, OneFormer and EoMT answer with Q queries, each a class and a mask. Their score of a class at a
pixel is sum_q p(class | q) sigmoid(mask_q) (Cheng et al. 2021, arXiv 2107.06278, "no object" left out); its logarithm
serves as our logits, whose softmax is that score divided by the sum over classes. They predict and are evaluated here;
they are not trained, since their loss matches queries to regions.

Shapes: B batch, Q queries, K classes, C channels, H W height and width of the image, h w of logits and masks.
"""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrazzo.errors import UsageError
from terrazzo.nn.backbone import numbered_layers
from terrazzo.nn.outputs import Output
from terrazzo.nn.precision import without_autocast
from terrazzo.nn.unet import padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BY_QUERIES = ("mask2former", "maskformer", "oneformer", "eomt", "eomt_dinov3")  # model_type in config.json
OF_ONE_SIZE = ("eomt", "eomt_dinov3")  # whose positions are learned for config.image_size
SQUARE = ("dpt",)  # which takes its tokens for a square
SMALLEST = 32  # sides: below that the deepest maps of some have no pixel
HIERARCHICAL_STRIDE = 32  # of the deepest maps behind queries; processors pad to multiples of it


class HuggingFaceNetwork(nn.Module):
    """Image (B, C, H, W) float in [0, 1] -> logits (B, K, h, w); in training also "auxiliary" ones, where there are."""

    mean: Tensor
    std: Tensor
    task: Tensor | None

    def __init__(
        self,
        model: "PreTrainedModel",
        *,
        channels: int,
        mean: Sequence[float],
        std: Sequence[float],
        processor: dict[str, Any] | None = None,
        task: Sequence[int] | None = None,
    ) -> None:
        """processor: the preprocessor_config.json it came with; task: for OneFormer, the tokens of its task."""
        super().__init__()
        assert len(mean) == len(std) == channels, f"{channels} channels need as many means and deviations"
        self.model = model
        self._recomputes = False
        self.kind = str(model.config.model_type)
        self.num_classes, self.channels = int(model.config.num_labels), channels
        self.processor = dict(processor or {})
        self.is_bgr = bool(self.processor.get("do_flip_channel_order", False))
        self.is_by_queries = self.kind in BY_QUERIES
        self.set_normalisation(mean, std)
        self.register_buffer("task", None if task is None else torch.tensor([list(task)]), persistent=False)
        self.interpolates = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters

    def forward(self, image_BCHW: Tensor) -> Output:
        """Normalise, pad, ask, cut."""
        image = (image_BCHW - self.mean) / self.std
        height, width = image.shape[2:]
        image = self._fitted(image.flip(1) if self.is_bgr else image)
        given: dict[str, Any] = {"interpolate_pos_encoding": True} if self.interpolates else {}
        if self.task is not None:
            given["task_inputs"] = self.task.expand(len(image), -1)
        auxiliary: list[Tensor] = []
        head = getattr(self.model, "auxiliary_head", None)
        handle = None
        if self.training and isinstance(head, nn.Module):
            handle = head.register_forward_hook(lambda *call: auxiliary.append(call[-1]))
        try:
            answer = self.model(pixel_values=image, **given)
        finally:
            if handle is not None:
                handle.remove()
        if self.is_by_queries:
            logits = semantic_logits(answer.class_queries_logits, answer.masks_queries_logits)
        else:
            logits = answer.logits
        seen = image.shape[2:]
        others = {"auxiliary": _cut(auxiliary[0], height, width, seen)} if auxiliary else {}
        return Output(_cut(logits, height, width, seen), others)

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set what is subtracted from, and what then divides, each channel of an image in [0, 1]."""
        for name, values in (("mean", mean), ("std", std)):
            buffer = torch.tensor(list(values), dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether training computes activations twice; UsageError on setting it where transformers cannot."""
        return self._recomputes

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, is_on: bool) -> None:
        if not is_on:
            if self._recomputes:
                self.model.activation_checkpointing_disable()
            self._recomputes = False
            return
        if not self.model.supports_gradient_checkpointing:
            raise UsageError(
                f"transformers' {type(self.model).__name__} cannot compute its activations twice.",
                found="train.gradient_checkpointing=true",
                hint="To save memory otherwise:",
                command="train.micro_batch=1",
            )
        self.model.activation_checkpointing_enable()
        self._recomputes = True

    @property
    def backbone(self) -> nn.Module:
        """What encodes the image, as a module; a list of several where transformers does not keep it as one."""
        names = _backbone_names(self.model, self.kind)
        parts = [self.model.get_submodule(name) for name in names]
        return parts[0] if len(parts) == 1 else nn.ModuleList(parts)

    @property
    def head(self) -> nn.Module:
        """Everything else, as a list of modules."""
        names = _backbone_names(self.model, self.kind)
        return nn.ModuleList(_without(self.model, names))

    def head_parameter_names(self) -> set[str]:
        """Return the names of the parameters outside the backbone."""
        names = (name for name, _ in self.model.named_parameters())
        return {f"model.{name}" for name in names if not self.is_backbones(name)}

    def is_backbones(self, name: str) -> bool:
        """True for the name of a tensor, inside `model`, that belongs to the backbone."""
        return name.startswith(tuple(f"{part}." for part in _backbone_names(self.model, self.kind)))

    def stage_parameter_names(self) -> list[set[str]]:
        """Return the backbone's parameter names as layers, as far as their numbers tell."""
        head = self.head_parameter_names()
        return [names for layer in numbered_layers(self) if (names := layer - head)]

    def _fitted(self, image: Tensor) -> Tensor:
        """The normalised image, padded at the right and the bottom as far as the network needs it."""
        config, backbone = self.model.config, getattr(self.model.config, "backbone_config", None)
        if self.kind in OF_ONE_SIZE:
            return self._of_one_size(image, _largest(config.image_size))
        if self.is_by_queries:
            return padded(image, HIERARCHICAL_STRIDE)
        height, width = image.shape[2:]
        image = F.pad(image, (0, max(SMALLEST - width, 0), 0, max(SMALLEST - height, 0)))
        patch = _largest(getattr(config, "patch_size", None) or getattr(backbone, "patch_size", None) or 1)
        if self.kind in SQUARE:
            height, width = image.shape[2:]
            side = max(height, width)
            image = F.pad(image, (0, side - width, 0, side - height))
        return padded(image, patch)

    def _of_one_size(self, image: Tensor, side: int) -> Tensor:
        height, width = image.shape[2:]
        if max(height, width) > side:
            raise UsageError(
                f"{type(self.model).__name__} sees images of {side}x{side} pixels, and smaller ones padded.",
                found=f"{height}x{width}",
                hint="Larger ones are looked at in windows:",
                command=f"eval.inference=windows eval.window_hw={side}x{side}",
            )
        black = -self.mean / self.std  # what its processor pads with
        return F.pad(image - black, (0, side - width, 0, side - height)) + black


def semantic_logits(class_logits_BQK: Tensor, mask_logits_BQhw: Tensor) -> Tensor:
    """Return log sum_q p(class | q) sigmoid(mask_q), (B, K, h, w) float32.

    class_logits_BQK: (B, Q, K + 1), the last one "no object", which is left out after the softmax. Both factors are
    divided by their largest value over the queries before they are multiplied, and it is added again as a logarithm:
    what underflows is 1e-38 of that. A class that no query offers is finite, and far below the others.
    """
    with without_autocast(class_logits_BQK.device):
        log_class_BQK = class_logits_BQK.float().log_softmax(-1)[..., :-1]
        log_mask_BQhw = F.logsigmoid(mask_logits_BQhw.float())
        class_1 = log_class_BQK.amax(1, keepdim=True)
        mask_1 = log_mask_BQhw.amax(1, keepdim=True)
        shares = ((log_class_BQK - class_1).exp(), (log_mask_BQhw - mask_1).exp())
        total_BKhw = torch.einsum("bqk,bqhw->bkhw", *shares)
        smallest = torch.finfo(torch.float32).tiny
        return total_BKhw.clamp_min(smallest).log() + class_1.mT[..., None] + mask_1


def _cut(logits: Tensor, height: int, width: int, seen_hw: Sequence[int]) -> Tensor:
    """The part of the logits of an image of seen_hw that its first height x width pixels are in."""
    rows, columns = -(-height * logits.shape[2] // seen_hw[0]), -(-width * logits.shape[3] // seen_hw[1])
    return logits[:, :, :rows, :columns]


def _largest(size: Any) -> int:
    return int(max(size)) if isinstance(size, Sequence) else int(size)


def _backbone_names(model: "PreTrainedModel", kind: str) -> tuple[str, ...]:
    """The names of the modules that encode the image."""
    if kind in OF_ONE_SIZE:  # one transformer, whose last layers also see the queries
        names = ("embeddings", "layers", "layernorm", "norm", "rope_embeddings")
        return tuple(name for name in names if hasattr(model, name))
    if kind in BY_QUERIES:
        return ("model.pixel_level_module.encoder",)
    children = dict(model.named_children())
    return tuple(name for name in (model.base_model_prefix, "backbone") if name in children)[:1]


def _without(module: nn.Module, names: Sequence[str], prefix: str = "") -> list[nn.Module]:
    """The largest modules inside `module` that hold nothing of those called `names`."""
    rest: list[nn.Module] = []
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if path in names:
            continue
        inside = any(one.startswith(f"{path}.") for one in names)
        rest += _without(child, names, f"{path}.") if inside else [child]
    return rest
