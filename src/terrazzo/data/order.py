"""Which sample stands where in the endless line of a training: position -> (epoch, index in the split).

Epochs follow each other without end, and step s takes the positions [s * batch_size, (s + 1) * batch_size). An order is
a function of seed and position alone, so every process and every resumed run finds the same sample at a position, and
there is no state to save. `Shuffled` is the order of data that lie here; `Streamed` that of data fetched in shards.
"""

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Order = Callable[[int], tuple[int, int]]
"""position -> (epoch, index); cheap, and safe to ask in any sequence."""


class Shuffled:
    """Each epoch a permutation of all samples, drawn from (seed, epoch)."""

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._permutation = functools.lru_cache(maxsize=4)(
            lambda epoch: np.random.default_rng([seed, epoch]).permutation(count)
        )

    def __call__(self, position: int) -> tuple[int, int]:
        """Return (epoch, index) at a position."""
        epoch, place = divmod(position, self._count)
        return epoch, int(self._permutation(epoch)[place])


class Streamed:
    """Each epoch all samples once, in an order in which a process needs few shards at a time and reads each once.

    The shards (row groups) of an epoch are laid one after the other in an order drawn from (seed, epoch). This line is
    cut into `lanes` stretches of nearly one length; each lane is always read by the same places of a batch, and so by
    one process. In each lane, windows of shuffle_buffer / lanes neighbours are shuffled by a draw from (seed, epoch,
    lane, window): what a shuffle buffer does, except that it needs no replay to find out who comes when.

    Nothing depends on the number of processes: with 1, 2 or 4 of them a batch holds the same samples. Processes read
    disjoint shards, but for those that lie across the border of two lanes. A process needs the shards of two windows of
    its lanes at most: about 2 * shuffle_buffer / processes samples.
    """

    def __init__(
        self, shard_of: NDArray[np.int64], *, seed: int, batch_size: int, shuffle_buffer: int
    ) -> None:
        """shard_of: (N,), the shard of every sample. shuffle_buffer: how many samples all lanes shuffle together.

        There are as many lanes as divide the batch while a window still has the size of a shard; at least one.
        """
        self._seed, self._batch_size, self._count = seed, batch_size, len(shard_of)
        by_shard = np.argsort(shard_of, kind="stable")
        first = np.flatnonzero(np.diff(shard_of[by_shard], prepend=-1))
        self._shards = np.split(by_shard, first[1:])
        windows = max(1, shuffle_buffer * len(self._shards) // self._count)
        self.lanes = max(n for n in range(1, batch_size + 1) if batch_size % n == 0 and n <= windows)
        self.window = -(-shuffle_buffer // self.lanes)
        self._line = functools.lru_cache(maxsize=3)(self._lay)
        self._stretch = functools.lru_cache(maxsize=4 * self.lanes)(self._measure)
        self._draw = functools.lru_cache(maxsize=4 * self.lanes)(self._shuffle)

    def __call__(self, position: int) -> tuple[int, int]:
        """Return (epoch, index) at a position."""
        epoch = position // self._count
        lane = position % self._batch_size * self.lanes // self._batch_size
        start, before, size = self._stretch(epoch, lane)
        window, inner = divmod(self._seen(lane, position) - before, self.window)
        length = min(self.window, size - window * self.window)
        place = start + window * self.window + self._draw(epoch, lane, window, length)[inner]
        return epoch, int(self._line(epoch)[place])

    @property
    def num_shards(self) -> int:
        """How many shards there are."""
        return len(self._shards)

    def _seen(self, lane: int, position: int) -> int:
        """How many of the positions before this one belong to a lane."""
        share = self._batch_size // self.lanes
        batches, inside = divmod(position, self._batch_size)
        return batches * share + min(max(inside - lane * share, 0), share)

    def _measure(self, epoch: int, lane: int) -> tuple[int, int, int]:
        """Where a lane begins in the line of an epoch, how many positions it had before, and its length there."""
        first, last = epoch * self._count, (epoch + 1) * self._count
        sizes = [self._seen(one, last) - self._seen(one, first) for one in range(lane + 1)]
        return sum(sizes[:-1]), self._seen(lane, first), sizes[-1]

    def _lay(self, epoch: int) -> NDArray[np.int64]:
        drawn = np.random.default_rng([self._seed, epoch]).permutation(len(self._shards))
        return np.concatenate([self._shards[shard] for shard in drawn])

    def _shuffle(self, epoch: int, lane: int, window: int, length: int) -> list[int]:
        generator = np.random.default_rng([self._seed, epoch, 1 + lane, window])
        return list(generator.permutation(length).tolist())
