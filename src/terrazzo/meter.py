"""What training says about itself between two log lines: mean losses, accuracy, seconds per step and for data.

Losses and counts stay on their device until they are read, so a GPU is not made to wait once per step.
"""

# B batch, K classes, H W of the mask, h w of the logits

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from terrazzo.processes import Processes
from terrazzo.progress import duration


@dataclass(frozen=True)
class Reading:
    """The means since the last reading."""

    losses: Mapping[str, float]
    """Mean of every loss part per step, over all processes; "loss" is their sum."""
    accuracy: float
    """Share of the pixels looked at, 0-1, that the network got right while it trained; nan where all were ignored."""
    seconds: float
    """Wall seconds per step."""
    waited: float
    """Seconds per step spent waiting for data, part of `seconds`."""

    def line(self, done: int, steps: int, *, lr: float, grad_norm: float, memory: int) -> str:
        """Return one log line: "step 50/2000  loss 1.2345  accuracy 71.2 %  lr 8.0e-04 …"."""
        parts = [f"{name} {value:.4f}" for name, value in self.losses.items() if name != "loss"]
        listed = f" ({', '.join(parts)})" if len(parts) > 1 else ""
        share = self.waited / max(self.seconds, 1e-9)
        return (
            f"step {done}/{steps}  loss {self.losses['loss']:.4f}{listed}  accuracy {100 * self.accuracy:.1f} %  "
            f"lr {lr:.2e}  grad {grad_norm:.2f}  {self.seconds:.3f} s/step  "
            f"data {self.waited:.3f} s ({100 * share:.0f} %)  "
            f"memory {memory / 2**30:.2f} GiB  eta {duration(self.seconds * (steps - done))}"
        )


def hits(logits_BKhw: Tensor, mask_BHW: Tensor, *, ignore: int) -> Tensor:
    """Count what a micro-batch got right, and how many pixels were looked at; (2,) int64 on its device.

    The argmax of its logits, before they are resized, beside the mask's pixel at the centre of each of theirs: a 16th
    of the pixels at stride 4, a 64th at stride 8.
    """
    h, w = logits_BKhw.shape[-2:]
    down = torch.arange(h, device=mask_BHW.device) * 2 + 1  # centres, in halves of a pixel of the logits
    across = torch.arange(w, device=mask_BHW.device) * 2 + 1
    mask = mask_BHW[:, (down * mask_BHW.shape[1] // (2 * h))[:, None], across * mask_BHW.shape[2] // (2 * w)]
    pred = logits_BKhw.detach().argmax(1)
    counted = mask != ignore
    return torch.stack([((pred == mask) & counted).sum(), counted.sum()])


class Meter:
    """Adds up losses, hits and times step by step."""

    def __init__(self) -> None:
        self._losses: list[dict[str, Tensor]] = []
        self._unchecked: list[tuple[int, dict[str, Tensor]]] = []
        self._hits: list[Tensor] = []
        self._waited = 0.0
        self._since = time.perf_counter()
        self._loss: float | None = None
        self._seconds = 0.0

    def add(self, step: int, losses: Mapping[str, Tensor], *, waited: float) -> None:
        """Note the losses of a whole step (this process's part of each sum) and the seconds it waited for data."""
        held = {name: value.detach().float() for name, value in losses.items()}
        self._losses.append(held)
        self._unchecked.append((step, held))
        self._waited += waited

    def see(self, right: Tensor) -> None:
        """Note the `hits` of a micro-batch."""
        self._hits.append(right)

    @property
    def num_unchecked(self) -> int:
        """How many steps the next `first_bad_step` looks at."""
        return len(self._unchecked)

    def first_bad_step(self, processes: Processes) -> tuple[int, dict[str, float]] | None:
        """Return (step, losses) of the first step since the last call with a NaN or infinite loss in any process."""
        if not self._unchecked:
            return None
        sums = processes.sum(
            torch.stack([torch.stack(list(held.values())).sum() for _, held in self._unchecked])
        )
        bad = torch.nonzero(~torch.isfinite(sums)).flatten().tolist()
        found = self._unchecked[bad[0]] if bad else None
        self._unchecked.clear()
        return None if found is None else (found[0], {name: float(value) for name, value in found[1].items()})

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time spent inside: validation and saving are not steps."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def brief(self, left: int) -> str:
        """Return where training stands, for a live line: nothing is read from the device for it."""
        steps = len(self._losses)
        seconds = (time.perf_counter() - self._since) / steps if steps else self._seconds
        loss = "" if self._loss is None else f"loss {self._loss:.4f}  "
        return f"{loss}{seconds:.2f} s/step  eta {duration(seconds * left)}"

    def read(self, processes: Processes) -> Reading:
        """Return the means since the last reading and begin anew."""
        assert self._losses, "read() follows at least one step"
        steps = len(self._losses)
        names = sorted(self._losses[0])
        means = processes.sum(
            torch.stack([torch.stack([held[n] for held in self._losses]).sum() / steps for n in names])
        )
        values = dict(zip(names, means.tolist(), strict=True))
        right, counted = processes.sum(torch.stack(self._hits).sum(0)).tolist() if self._hits else (0, 0)
        seconds = (time.perf_counter() - self._since) / steps
        reading = Reading(
            {"loss": sum(values.values()), **values},
            accuracy=right / counted if counted else float("nan"),
            seconds=seconds,
            waited=self._waited / steps,
        )
        self._loss, self._seconds = reading.losses["loss"], seconds
        self._losses, self._hits, self._waited, self._since = [], [], 0.0, time.perf_counter()
        return reading
