"""What a checkpoint holds beside the model, so that a resumed training is bit for bit the one never stopped.

    optimizer.safetensors   NAME/exp_avg, NAME/exp_avg_sq, NAME/step … for every trained tensor NAME
    training.safetensors    with EMA only: the weights training goes on from; model.safetensors holds the average
    state.json              step, schedule, loss scale, number of EMA updates, the score of this step, world size

Random numbers need no state: every stream is keyed by (seed, epoch, sample) or (seed, step, position). No pickle.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from terrazzo.ema import MovingAverage
from terrazzo.errors import CheckpointError
from terrazzo.nn.two_classes import narrowed

OPTIMIZER = "optimizer.safetensors"
TRAINING = "training.safetensors"


def write_training_state(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, average: MovingAverage | None
) -> None:
    """Write optimiser tensors, and under EMA the network's own weights, into `folder`.

    Call while `network` holds its own weights, not the average.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in network.named_parameters()}
    tensors = {
        f"{names[parameter]}/{key}": torch.as_tensor(value).detach().contiguous().clone()
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if value is not None
    }
    save_file(tensors, folder / OPTIMIZER)
    if average is not None:
        own = {name: tensor.detach().contiguous().clone() for name, tensor in network.state_dict().items()}
        save_file(own, folder / TRAINING)


def read_training_state(
    folder: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: MovingAverage | None,
    model_tensors: Mapping[str, Tensor],
) -> None:
    """Put `network`, `optimizer` and `average` back to where the checkpoint `folder` left them, in place.

    model_tensors: the tensors of the folder's model, named as in `network.state_dict()`, or its equal of two classes.
    Raises CheckpointError when names or shapes do not fit.
    """
    model_tensors = narrowed(network, model_tensors)
    own = load_file(folder / TRAINING) if average is not None else dict(model_tensors)
    _load(network, own, where=folder)
    if average is not None:
        for name, tensor in average.tensors.items():
            tensor.copy_(model_tensors[name])
    parameters = dict(network.named_parameters())
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / OPTIMIZER).items():
        name, _, part = key.rpartition("/")
        states.setdefault(name, {})[part] = tensor
    unknown = sorted(set(states) - set(parameters))
    if unknown:
        raise CheckpointError(
            f"The optimiser state in {folder} is of another network.",
            found=f"tensors for {', '.join(unknown[:5])}",
        )
    for name, state in states.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            part: tensor if part == "step" and not _step_on_device(optimizer) else tensor.to(parameter.device)
            for part, tensor in state.items()
        }


def _load(network: nn.Module, tensors: Mapping[str, Tensor], *, where: Path) -> None:
    wanted = network.state_dict()
    wrong = sorted(
        name
        for name in wanted.keys() | tensors.keys()
        if name not in wanted or name not in tensors or wanted[name].shape != tensors[name].shape
    )
    if wrong:
        raise CheckpointError(
            f"The checkpoint {where} is of another network.",
            found=f"{len(wrong)} tensors that do not fit, such as {', '.join(wrong[:5])}",
        )
    network.load_state_dict(dict(tensors))


def _step_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Fused and capturable optimisers keep their step counters beside the weights; the others on the CPU."""
    group: dict[str, Any] = optimizer.param_groups[0]
    return bool(group.get("fused") or group.get("capturable"))
