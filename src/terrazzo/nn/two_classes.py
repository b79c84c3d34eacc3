"""Two classes from one number: a network whose last layer gives z answers with the scores (0, z).

The softmax of (0, z) is (1 - sigmoid(z), sigmoid(z)). So cross-entropy is binary cross-entropy with logits, the mask is
where z > 0, the confidence the larger of the two, and all that comes after a network (loss, windows, scores, export) is
the same for one number and for two. On disk such a network is the network of two classes that it equals.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import UsageError
from terrazzo.nn.outputs import Output, as_output

CLASSIFIERS = ("classifier.weight", "classifier.bias")  # how the tensors of our networks' last layers end


def as_two_classes(network: nn.Module) -> nn.Module:
    """Let a network that gives one number per pixel, the score of the second class, give scores of two; returns it.

    Parameters and their names stay. Auxiliary outputs are treated alike. Asked a second time, it does nothing more.
    Raises UsageError at the first image where the network gives more than one number.
    """
    if not is_one_logit(network):
        network.register_forward_hook(_with_zeros)
        setattr(network, "one_logit", True)  # noqa: B010  (nn.Module types it as a tensor)
        if hasattr(network, "num_classes"):
            setattr(network, "num_classes", 2)  # noqa: B010
    return network


def is_one_logit(network: nn.Module) -> bool:
    """True for what `as_two_classes` returned."""
    return bool(getattr(network, "one_logit", False))


def widened(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the equal network of two classes: classifiers get a row of zeros before their one row."""
    if not is_one_logit(network):
        return dict(tensors)
    return {
        name: torch.cat([torch.zeros_like(tensor), tensor]) if _is_row(name, tensor) else tensor
        for name, tensor in tensors.items()
    }


def narrowed(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that `network` holds, where those of two classes are given: z is the second minus the first.

    The inverse of `widened`, to the last bit, and right for any two classes: their softmax knows the difference alone.
    """
    if not is_one_logit(network):
        return dict(tensors)
    mine = network.state_dict()
    return {
        name: tensor[1:] - tensor[:1]
        if name in mine and _is_row(name, mine[name]) and len(tensor) == 2
        else tensor
        for name, tensor in tensors.items()
    }


def _is_row(name: str, tensor: Tensor) -> bool:
    return name.endswith(CLASSIFIERS) and len(tensor) == 1


def _with_zeros(network: nn.Module, given: Any, value: Any) -> Output:
    output = as_output(value)
    return Output(
        _two_scores(output.logits),
        {name: _two_scores(logits) for name, logits in output.auxiliary.items()},
    )


def _two_scores(logits_B1hw: Tensor) -> Tensor:
    """(B, 2, h, w), the first 0."""
    if logits_B1hw.shape[1] != 1:
        raise UsageError(
            "The network gives more than one number for each pixel.",
            found=f"{logits_B1hw.shape[1]} channels",
            expected="1, the score of the second of two classes",
            hint="A network with a channel for each class is used as it is, without as_two_classes.",
        )
    return torch.cat([torch.zeros_like(logits_B1hw), logits_B1hw], dim=1)
