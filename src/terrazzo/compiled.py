"""The network of a training as torch.compile makes it: `train.compile`.

What is compiled is the call of a micro-batch alone. The network itself stays as it is, so checkpoints name its tensors
as ever, and validation runs it as everyone else does, at whatever size an image has. Random numbers are drawn as
without a compiler (`fallback_random`), so the curve is that of the plain network but for rounding.

Whether it pays is for a measurement to say: docs/explanation/speed.md. A compiler that is missing or fails ends the
training with what to type; nothing is run the plain way in silence.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from terrazzo.errors import TrainingError, quoted

if TYPE_CHECKING:
    from terrazzo.preparation import Job

OFF = "train.compile=false"


def compiled(model: nn.Module) -> Callable[[Tensor], Any]:
    """Return what calls `model` compiled, the first time for each size of image; `model` itself is left alone."""
    called: Callable[[Tensor], Any] = torch.compile(model, options={"fallback_random": True})
    return called


def check_compiler(device: torch.device) -> None:
    """Compile a few lines for `device`, forward and backward; raises TrainingError where that does not work."""
    try:
        x = torch.ones(64, device=device, requires_grad=True)
        torch.compile(_few_lines, options={"fallback_random": True})(x).backward()
    except Exception as error:  # whatever a compiler, its linker or its cache may say
        raise TrainingError(
            f"torch.compile does not work here on {device}.",
            found=_first_line(error),
            expected="a C++ compiler that torch finds: g++, clang++, or what CXX names"
            if device.type == "cpu"
            else "Triton, and a C compiler that it finds",
            hint="Install that, or train without it; the result is the same:",
            command=OFF,
        ) from error


def _few_lines(x: Tensor) -> Tensor:
    return (x.sin() * x).sum()


@contextmanager
def told_not_compiled(job: "Job") -> Iterator[None]:
    """Raise a TrainingError where the compiler fails on the network inside, with the command that does without."""
    if not job.recipe.train.compile:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException  # a compiler's worth of imports

    try:
        yield
    except TorchDynamoException as error:
        told = TrainingError(
            f"torch.compile cannot compile {type(job.network).__name__}.",
            found=_first_line(error),
            hint="The run goes on without it, from its last checkpoint or else from the beginning:",
            command=f"terrazzo train --resume {quoted(job.run.path)} {OFF}",
        )
        raise told from error


def _first_line(error: BaseException) -> str:
    inner = getattr(error, "inner_exception", error)  # torch's own first line names the compiler alone
    said = str(inner).strip() or type(inner).__name__
    return said.splitlines()[0]
