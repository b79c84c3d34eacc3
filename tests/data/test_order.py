"""Where a sample stands depends on seed and position alone; a stream's order needs few shards at a time, each once."""

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from terrazzo.data.order import Shuffled, Streamed


def shards_of(sizes: list[int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(sizes)), sizes)


def by_hand(
    sizes: list[int], *, seed: int, batch_size: int, lanes: int, window: int, epochs: int
) -> list[tuple[int, int]]:
    """The same order, told as a story: lists are laid, cut and shuffled, and places of batches take from them."""
    starts = list(accumulate([0, *sizes]))
    count, taken = starts[-1], []
    for epoch in range(epochs):
        line = [
            index
            for shard in np.random.default_rng([seed, epoch]).permutation(len(sizes))
            for index in range(starts[shard], starts[shard + 1])
        ]
        wants = [
            position % batch_size // (batch_size // lanes)
            for position in range(epoch * count, (epoch + 1) * count)
        ]
        queues = []
        for lane in range(lanes):
            mine, line = line[: wants.count(lane)], line[wants.count(lane) :]
            shuffled = []
            for number, start in enumerate(range(0, len(mine), window)):
                part = mine[start : start + window]
                drawn = np.random.default_rng([seed, epoch, 1 + lane, number]).permutation(len(part))
                shuffled += [part[place] for place in drawn]
            queues.append(shuffled)
        taken += [(epoch, queues[lane].pop(0)) for lane in wants]
    return taken


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    batch_size=st.sampled_from([1, 2, 3, 4, 6, 8]),
    buffer=st.integers(1, 60),
    seed=st.integers(0, 3),
)
def test_the_order_of_a_stream_is_the_one_told_by_hand(
    sizes: list[int], batch_size: int, buffer: int, seed: int
) -> None:
    order = Streamed(shards_of(sizes), seed=seed, batch_size=batch_size, shuffle_buffer=buffer)
    found = [order(position) for position in range(3 * sum(sizes))]
    told = by_hand(sizes, seed=seed, batch_size=batch_size, lanes=order.lanes, window=order.window, epochs=3)
    assert found == told
    for epoch in range(3):
        of_epoch = found[epoch * sum(sizes) : (epoch + 1) * sum(sizes)]
        assert sorted(of_epoch) == [(epoch, index) for index in range(sum(sizes))]
    assert batch_size % order.lanes == 0
    assert order.lanes * order.window >= buffer


def test_a_sample_is_no_farther_from_its_place_in_the_line_than_a_window() -> None:
    order = Streamed(shards_of([10] * 30), seed=1, batch_size=1, shuffle_buffer=40)
    line = np.concatenate(
        [np.arange(10) + 10 * shard for shard in np.random.default_rng([1, 0]).permutation(30)]
    ).tolist()
    moved = [abs(line.index(order(position)[1]) - position) for position in range(300)]
    assert max(moved) < 40
    assert np.mean(moved) > 8  # two uniform draws of 40 lie 13 apart on average


@pytest.mark.parametrize("world", [2, 4])
def test_processes_read_shards_of_their_own_and_few_at_a_time(world: int) -> None:
    sizes, batch, buffer = [10] * 64, 8, 160
    shard_of = shards_of(sizes)
    order = Streamed(shard_of, seed=0, batch_size=batch, shuffle_buffer=buffer)
    assert order.lanes == 8
    share, read = batch // world, []
    for rank in range(world):
        mine = [
            int(shard_of[order(position)[1]])
            for position in range(640)
            if rank * share <= position % batch < (rank + 1) * share
        ]
        held = [
            set(mine[start : start + buffer // world]) for start in range(0, len(mine) - buffer // world, 4)
        ]
        assert max(map(len, held)) <= 2 * buffer // world // 10 + 2 * order.lanes // world
        read.append(set(mine))
    assert sum(map(len, read)) <= 64 + world  # every shard once, but for those on a border
    assert set().union(*read) == set(range(64))


def test_the_order_of_data_that_lie_here_is_a_permutation_per_epoch() -> None:
    order = Shuffled(7, 3)
    assert [order(position) for position in range(14, 21)] == [
        (2, index) for index in np.random.default_rng([3, 2]).permutation(7).tolist()
    ]
