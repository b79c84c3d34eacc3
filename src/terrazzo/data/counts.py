"""How many pixels each class has in a split: what class weights and the sampling of rare classes are made from."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from terrazzo.data.dataset import Split
from terrazzo.errors import TerrazzoError
from terrazzo.kernels.confusion import confusion
from terrazzo.kernels.threads import default_threads
from terrazzo.progress import track
from terrazzo.storage import cache_folder, replacing

MOST = 2000  # masks that are read; of more, every n-th: shares are what counts, and the wait stays short


def class_pixels(
    split: Split, num_classes: int, *, ignore: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for each class (K,), its pixels, and the labelled pixels of the images it occurs in."""
    pixels = np.zeros(num_classes, dtype=np.int64)
    image_pixels = np.zeros(num_classes, dtype=np.int64)
    for index in _spread(split):
        here = _counts(split, index, num_classes, ignore)
        pixels += here
        image_pixels[here > 0] += here.sum()
    return pixels, image_pixels


def spread(count: int) -> list[int]:
    """Which of `count` masks are read: all, or every n-th."""
    return list(range(0, count, max(1, -(-count // MOST))))


def _spread(split: Split) -> list[int]:
    """Which masks to read, spread over the split; of a stream, all those of every n-th row group."""
    shards = split.shard_of
    if shards is None or len(split) <= MOST:
        return spread(len(split))
    each = -(-len(split) // MOST)
    known = list(dict.fromkeys(shards.tolist()))
    return np.flatnonzero(np.isin(shards, known[::each])).tolist()


def image_class_pixels(
    split: Split, num_classes: int, *, ignore: int, location: str, quiet: bool = False
) -> NDArray[np.int64]:
    """Return the pixels of each class in every image (N, K), labelled or not: an ignored pixel counts nowhere.

    Every mask is read, once: the counts are kept in the user's cache folder, by the images' hashes and the table of
    ids. location: where the data set was opened, for those hashes.
    """
    about = [split.hashes(location=location), split.remap.to_json(), num_classes, ignore]
    name = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
    file = cache_folder() / "counts" / f"{name}.npy"
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # a cache is a convenience; without one, each process counts
            file.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(f"{file}.lock"))
        if (kept := _kept(file, (len(split), num_classes))) is not None:
            return kept
        counted = _all_counts(split, num_classes, ignore)
        rows = list(track(counted, total=len(split), what="count classes", quiet=quiet))
        counts = np.array(rows, np.int64).reshape(len(split), num_classes)
        with contextlib.suppress(OSError, TerrazzoError), replacing(file, durable=False) as beside:
            np.save(beside, counts)
        return counts


def _kept(file: Path, shape: tuple[int, int]) -> NDArray[np.int64] | None:
    try:
        counts: NDArray[np.int64] = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return counts if counts.shape == shape else None


def _all_counts(split: Split, num_classes: int, ignore: int) -> Iterator[NDArray[np.int64]]:
    with ThreadPoolExecutor(default_threads()) as pool:  # decoding lets go of the interpreter
        yield from pool.map(lambda index: _counts(split, index, num_classes, ignore), range(len(split)))


def _counts(split: Split, index: int, num_classes: int, ignore: int) -> NDArray[np.int64]:
    mask = split.read_mask(index)
    return confusion(mask, mask, num_classes, ignore=ignore).diagonal()
