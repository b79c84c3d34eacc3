"""Samples in memory, for tests of what reads them."""

import time
from collections import Counter

import numpy as np

from terrazzo.sample import Sample


class Shelf:
    """Samples in memory that count how often they are read; some cannot be, some take their time."""

    def __init__(
        self, count: int, *, sizes: tuple[tuple[int, int], ...] = ((32, 40),), seconds: float = 0.0
    ) -> None:
        rng = np.random.default_rng(count)
        self.names = [f"street/{index:03d}" for index in range(count)]
        self.seconds = seconds
        self.reads: Counter[int] = Counter()
        self.broken: dict[int, Exception] = {}
        self.samples = []
        for index in range(count):
            hw = sizes[index % len(sizes)]
            mask = rng.choice(np.array([0, 1, 2, 255], np.uint8), hw)
            self.samples.append(Sample(rng.integers(0, 256, (*hw, 3), np.uint8), mask, self.names[index]))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        self.reads[index] += 1
        time.sleep(self.seconds)
        if index in self.broken:
            raise self.broken[index]
        return self.samples[index]

    def size_hw(self, index: int) -> tuple[int, int]:
        return self.samples[index].size_hw
