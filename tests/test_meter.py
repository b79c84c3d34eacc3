"""The log line: means over steps and processes, accuracy counted by hand, and words as a person reads them."""

import math

import pytest
import torch

from terrazzo.meter import Meter, Reading, hits
from terrazzo.processes import Processes, joined


@pytest.fixture
def alone() -> "Processes":
    with joined("cpu") as processes:
        yield processes


def read(meter: Meter, processes: Processes) -> Reading:
    meter.add(0, {"cross_entropy": torch.tensor(1.0), "auxiliary": torch.tensor(0.5)}, waited=0.25)
    return meter.read(processes)


def test_accuracy_is_that_of_the_pixels_at_the_centres_of_the_logits(alone: Processes) -> None:
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, [0, 1, 2, 1], [0, 0, 1, 1], [0, 1, 0, 1]] = 1.0  # the argmax: 0 1 / 2 1
    mask = torch.full((1, 6, 6), 2)
    mask[0, 1, 1], mask[0, 1, 4], mask[0, 4, 1], mask[0, 4, 4] = 0, 1, 255, 0  # right, right, ignored, wrong
    meter = Meter()
    meter.see(hits(logits, mask, ignore=255))
    assert read(meter, alone).accuracy == pytest.approx(2 / 3)


def test_accuracy_pools_the_pixels_of_all_micro_batches(alone: Processes) -> None:
    meter = Meter()
    sky = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    meter.see(hits(sky.expand(1, 2, 1, 1), torch.zeros(1, 4, 4, dtype=torch.long), ignore=255))  # 1 of 1
    meter.see(hits(sky.expand(1, 2, 1, 3), torch.ones(1, 4, 12, dtype=torch.long), ignore=255))  # 0 of 3
    assert read(meter, alone).accuracy == 0.25
    assert math.isnan(read(meter, alone).accuracy)  # begun anew


def test_looking_leaves_the_gradient_alone() -> None:
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    meter = Meter()
    meter.see(hits(logits, torch.zeros(1, 8, 8, dtype=torch.long), ignore=255))
    assert logits.grad is None
    (logits * 3).sum().backward()
    assert (logits.grad == 3).all()


def test_a_line_says_where_training_is_what_it_costs_and_how_long_it_takes() -> None:
    reading = Reading(
        {"loss": 1.5, "auxiliary": 0.5, "cross_entropy": 1.0}, accuracy=0.7125, seconds=0.5, waited=0.05
    )
    assert reading.line(50, 2000, lr=0.01, grad_norm=3.25, memory=3 << 29) == (
        "step 50/2000  loss 1.5000 (auxiliary 0.5000, cross_entropy 1.0000)  accuracy 71.2 %  lr 1.00e-02  grad 3.25  "
        "0.500 s/step  data 0.050 s (10 %)  memory 1.50 GiB  eta 16:15"
    )
