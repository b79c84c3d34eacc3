"""What a checkpoint holds beside the model, so that a resumed training is bit for bit the one never stopped.

    optimizer.safetensors   NAME/exp_avg, NAME/exp_avg_sq, NAME/step … for every trained tensor NAME
    training.safetensors    with EMA only: the weights training goes on from; model.safetensors holds the average
    state.json              step, schedule, loss scale, number of EMA updates, the score of this step, world size

Random numbers need no state: every stream is keyed by (seed, epoch, sample) or (seed, step, position). No pickle.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from terrazzo.ema import MovingAverage
from terrazzo.errors import CheckpointError
from terrazzo.nn.two_classes import narrowed
from terrazzo.sharding import local, part_of, whole

OPTIMIZER = "optimizer.safetensors"
TRAINING = "training.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """Copies of every tensor of a training, whole and on the CPU; all empty where another process writes them."""

    model: Mapping[str, Tensor]
    """What is validated: the average where there is one, as `network.state_dict()` names it."""
    training: Mapping[str, Tensor] | None
    """With an average: the weights that training goes on from."""
    optimizer: Mapping[str, Tensor]
    """NAME/exp_avg … for every trained tensor NAME."""

    def write_training_state(self, folder: Path) -> None:
        """Write all but the model into `folder`."""
        save_file(dict(self.optimizer), folder / OPTIMIZER)
        if self.training is not None:
            save_file(dict(self.training), folder / TRAINING)


def snapshot(
    network: nn.Module, optimizer: torch.optim.Optimizer, average: MovingAverage | None, *, is_kept: bool
) -> Snapshot:
    """Copy what a checkpoint holds; of a spread network an exchange, in which `is_kept` says who gets a copy.

    Call while `network` holds its own weights, not the average.
    """

    def copied(tensor: Tensor) -> Tensor | None:
        full = whole(tensor.detach())
        # a copy, since safetensors refuses tensors that share memory
        return full.to("cpu", copy=True, memory_format=torch.contiguous_format) if is_kept else None

    def kept(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        copies = ((name, copied(tensor)) for name, tensor in tensors.items())
        return {name: copy for name, copy in copies if copy is not None}

    names: dict[Tensor, str] = {parameter: name for name, parameter in network.named_parameters()}
    states = {
        f"{names[parameter]}/{key}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if value is not None
    }
    with average.applied(network) if average is not None else nullcontext():
        model = kept(network.state_dict())
    training = kept(network.state_dict()) if average is not None else None
    return Snapshot(model, training, kept(states))


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
    own = _read(folder / TRAINING) if average is not None else dict(model_tensors)
    _load(network, own, where=folder)
    if average is not None:
        like = network.state_dict()
        for name, tensor in average.tensors.items():
            tensor.copy_(part_of(model_tensors[name], like[name]))
    parameters = dict(network.named_parameters())
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in _read(folder / OPTIMIZER).items():
        name, _, part = key.rpartition("/")
        states.setdefault(name, {})[part] = tensor
    unknown = sorted(set(states) - set(parameters))
    if unknown:
        raise CheckpointError(
            f"The optimiser state in {folder} is of another network.",
            found=f"tensors for {', '.join(unknown[:5])}",
        )
    wrong = [
        f"{name}/{part}"
        for name, state in states.items()
        for part, tensor in state.items()
        if tensor.ndim and tensor.shape != parameters[name].shape
    ]
    if wrong:
        raise CheckpointError(
            f"The optimiser state in {folder} does not fit its network.", found=", ".join(wrong[:5])
        )
    for name, state in states.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            part: _placed(tensor, parameter, optimizer) for part, tensor in state.items()
        }


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read.", found=str(error).partition("\n")[0]) from error


def _placed(tensor: Tensor, parameter: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """A tensor of an optimiser's state, where and as that of `parameter` is to be."""
    if tensor.ndim == 0:
        return tensor.to(parameter.device) if _step_on_device(optimizer) else tensor
    placed = torch.zeros_like(parameter, dtype=tensor.dtype)
    local(placed).copy_(part_of(tensor, parameter))
    return placed.detach()


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
    with torch.no_grad():
        for name, tensor in wanted.items():
            local(tensor).copy_(part_of(tensors[name], tensor))


def _step_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Fused and capturable optimisers keep their step counters beside the weights; the others on the CPU."""
    group: dict[str, Any] = optimizer.param_groups[0]
    return bool(group.get("fused") or group.get("capturable"))
