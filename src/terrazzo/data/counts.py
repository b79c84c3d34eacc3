"""How many pixels each class has in a split: what class weights are made from."""

import numpy as np
from numpy.typing import NDArray

from terrazzo.data.dataset import Split
from terrazzo.kernels.confusion import confusion

MOST = 2000  # masks that are read; of more, every n-th: shares are what counts, and the wait stays short


def class_pixels(
    split: Split, num_classes: int, *, ignore: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for each class (K,), its pixels, and the labelled pixels of the images it occurs in."""
    pixels = np.zeros(num_classes, dtype=np.int64)
    image_pixels = np.zeros(num_classes, dtype=np.int64)
    for index in _spread(split):
        mask = split.read_mask(index)
        here = confusion(mask, mask, num_classes, ignore=ignore).diagonal()
        pixels += here
        image_pixels[here > 0] += here.sum()
    return pixels, image_pixels


def _spread(split: Split) -> list[int]:
    """Which masks to read, spread over the split; of a stream, all those of every n-th row group."""
    shards = split.shard_of
    if shards is None or len(split) <= MOST:
        return list(range(0, len(split), max(1, -(-len(split) // MOST))))
    each = -(-len(split) // MOST)
    known = list(dict.fromkeys(shards.tolist()))
    return np.flatnonzero(np.isin(shards, known[::each])).tolist()
