"""What is said when training cannot go on, from what was measured: which step, which images, where it began."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from terrazzo.data.loader import Loader
from terrazzo.errors import NonFiniteLossError, TrainingError
from terrazzo.meter import Meter
from terrazzo.optim import Schedule
from terrazzo.preparation import Job
from terrazzo.processes import Processes


def stop_if_not_finite(
    meter: Meter, job: Job, processes: Processes, loader: Loader, schedule: Schedule
) -> None:
    """Raise NonFiniteLossError if a loss since the last call was NaN or infinite; every process raises together.

    Names the step (within the interval of steps that were looked at together), its images, the learning rate,
    the loss parts and the first layer whose result is not finite.
    """
    every = meter.num_unchecked
    bad = meter.first_bad_step(processes)
    if bad is None:
        return
    step, losses = bad
    network = job.network

    def forward() -> None:
        for image_BCHW, _ in loader.micro_batches(step):
            network(image_BCHW.to(processes.device))

    layer = first_bad_layer(network, forward)
    names = loader.names(step)
    parts = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    shown = ", ".join(names[:8]) + (f", … {len(names)} in all" if len(names) > 8 else "")
    first = f"; first layer with such a result: {layer}" if layer else ""
    saved, lr = job.run.step, schedule.get_last_lr()[0]
    raise NonFiniteLossError(
        f"The loss is no longer a number at step {step + 1}, seen within {every} step{'' if every == 1 else 's'} "
        f"(learning rate {lr:.3g}).",
        found=f"{', '.join(parts) or 'not finite in another process'}{first}\nbatch: {shown}",
        hint=f"The run keeps {f'its checkpoint of step {saved}' if saved else 'no checkpoint; none was due yet'}. "
        "The usual cause is a learning rate that is\ntoo high; then NaN in an image of that batch, or f16 where f32 is "
        "needed. To try a third of the rate:",
        command=f"terrazzo train {job.recipe.name} --data {job.run.data['source']} optim.lr={lr / 3:.1g}",
    )


def first_bad_layer(network: nn.Module, forward: Callable[[], object]) -> str | None:
    """Return the name of the first module whose output is not finite when `forward()` runs, or None.

    Weights that are not finite themselves are named before any output.
    """
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"{name} (its weights)"
    found: list[str] = []

    def hook_for(name: str) -> Callable[[nn.Module, object, object], None]:
        def look(module: nn.Module, inputs: object, output: object) -> None:
            if not found and isinstance(output, Tensor) and not torch.isfinite(output).all():
                found.append(name)

        return look

    handles = [
        module.register_forward_hook(hook_for(name))
        for name, module in network.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def did_not_overfit(*, images: int, steps: int, miou: float, loss: float, target: float) -> TrainingError:
    """Build the error for a network that cannot memorise a handful of images."""
    return TrainingError(
        f"Something is wrong: {images} image{'' if images == 1 else 's'} could not be memorised in {steps} steps.",
        found=f"mIoU {miou:.3f} on the very images it was trained on, loss {loss:.4f}",
        expected=f"mIoU of at least {target}",
        hint="Do the masks belong to their images (look at pictures/ in the run)? Is the loss one that falls when the\n"
        "prediction gets better? Is the learning rate far off? The data set can be checked with:",
        command="terrazzo check DATA",
    )
