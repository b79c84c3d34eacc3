"""One micro-batch, forward to backward, recorded once on a GPU and then replayed.

A small network is thousands of kernels of a few microseconds, and Python takes longer to launch them than the GPU to
run them. A CUDA graph holds the launches: tensors lie where they lay when it was recorded, so images, masks and the
weight of the batch are copied to a fixed place before each replay. Random numbers follow the seed that is set before a
replay, as without a graph. What a graph can hold is what waits for nothing and has one size: `can_record` knows.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from terrazzo.devices import sent
from terrazzo.nn.losses import SegmentationLoss

if TYPE_CHECKING:
    from terrazzo.preparation import Job
    from terrazzo.processes import Processes

Parts = dict[str, Tensor]
Pass = Callable[[Tensor, Tensor, float], tuple[Parts, Tensor]]  # image, mask, weight -> losses, hits


def can_record(job: "Job", processes: "Processes") -> bool:
    """Whether every micro-batch of this training does the same on the GPU, and nothing on the way waits for it."""
    recipe = job.recipe
    return (
        recipe.train.cuda_graph
        and not recipe.train.compile  # it launches kernels of its own, some of them made while it runs
        and processes.device.type == "cuda"
        and processes.world == 1
        and recipe.data.augment  # crops have one size
        and not recipe.train.gradient_checkpointing  # it saves the state of random numbers
        and getattr(job.network, "waits_for_nothing", False)
        and isinstance(job.loss, SegmentationLoss)
        and not job.loss.waits
    )


class Recorded:
    """`one_pass`, run as it is the first time, which warms it up, and from its second time on as a graph.

    Gradients lie in the graph's memory: `clear` keeps them there. Where `micro_batches` are several, they add up.
    """

    def __init__(
        self,
        one_pass: Callable[[Tensor, Tensor, Tensor], tuple[Parts, Tensor]],
        parameters: Iterable[Tensor],
        device: torch.device,
        *,
        micro_batches: int,
    ) -> None:
        """one_pass: image, mask and weight, all on the device -> losses and hits; gradients are added to."""
        self.one_pass, self.device, self.adds_up = one_pass, device, micro_batches > 1
        self.parameters = [one for one in parameters if one.requires_grad]
        self.weight = torch.zeros((), dtype=torch.float64, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.is_warm = False

    def __call__(self, image_BCHW: Tensor, mask_BHW: Tensor, weight: float) -> tuple[Parts, Tensor]:
        """Return the losses and hits of a micro-batch, gradients added to those of the step; inputs lie anywhere."""
        self.weight.fill_(weight)
        if not self.is_warm:
            parts, hits = self.one_pass(
                sent(image_BCHW, self.device), sent(mask_BHW, self.device), self.weight
            )
            return parts, hits
        if self.graph is None:
            self.image, self.mask = sent(image_BCHW, self.device), sent(mask_BHW, self.device)
            self._record()
        assert self.graph is not None
        self.image.copy_(image_BCHW, non_blocking=True)
        self.mask.copy_(mask_BHW, non_blocking=True)
        self.graph.replay()
        parts, hits = self.results
        return {name: part.clone() for name, part in parts.items()}, hits.clone()

    def clear(self, optimizer: torch.optim.Optimizer) -> None:
        """Prepare the gradients for the next step."""
        if self.graph is None:
            optimizer.zero_grad()
            self.is_warm = True
        elif self.adds_up:
            torch._foreach_zero_([one.grad for one in self.parameters if one.grad is not None])

    def _record(self) -> None:
        """Nothing of the pass happens while it is recorded; without gradients before it, each replay writes its own."""
        for one in self.parameters:
            one.grad = torch.zeros_like(one) if self.adds_up else None
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.results = self.one_pass(self.image, self.mask, self.weight)
