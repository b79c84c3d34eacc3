"""In which order one labels: five ways to say which image is worth most next, as plain functions on numbers.

Each gives a score per sample, and `placed` makes a queue of them. One in ten is drawn at random, by a hash of seed and
name, whatever the scores: what a model finds hard says nothing about all images, these do. Their places are every tenth
one. No project, no model and no file is known here.

uncertainty   where the model doubts most: the mean of 1 - confidence over the least certain tenth of the pixels
rare          whose pixels are scarce: how much of each category's labelled pixels the image would bring
disagreement  where the label and the model, or two models, say different things
diversity     what is unlike everything that is labelled: greedy k-center (Gonzalez 1985; for active learning, Sener &
              Savarese 2018, arXiv 1708.00489) on pooled features, from the labelled ones
random        by the hash alone
"""

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Order = Literal["uncertainty", "rare", "disagreement", "diversity", "random"]
ORDERS: tuple[Order, ...] = get_args(Order)
DOUBTFUL = 0.1  # share of an image's pixels that its uncertainty is the mean of
RANDOM_SHARE = 0.1  # of the samples, drawn whatever their score
STRAY = (
    0.01  # of an image: as many pixels of each category count as labelled, so that a few stray ones are none
)
CHOSEN = 1000  # samples that k-center puts in order one by one; the rest follow by their distance


def uncertainty(confidence: NDArray[np.uint8]) -> float:
    """Return the mean of 1 - confidence / 255 over the tenth of the pixels of which a model is least certain.

    Of (H, W) uint8; a tenth is rounded up. 0: certain everywhere, 1: of no idea. The tenth, not all: an image of one
    wide certain road and one strange vehicle is worth more than one that is a little blurred.
    """
    counts = np.bincount(confidence.ravel(), minlength=256)
    wanted = -(-confidence.size // round(1 / DOUBTFUL))
    before = np.concatenate([[0], np.cumsum(counts)[:-1]])  # pixels less certain than each level
    taken = np.clip(wanted - before, 0, counts)
    return float((taken * (255 - np.arange(256))).sum() / (255 * wanted))


def rare_gain(
    pixels: Mapping[int, int], labelled: Mapping[int, int], *, size: int
) -> tuple[float, int | None]:
    """Return (score, the category that counts most) of an image in which a model sees {category: pixels}.

    labelled: pixels that are labelled of each category. size: the image's pixels. The score is the mean, over the
    categories of `labelled`, of p / (l + p + size / 100): which share of all that one would then have of a category
    this image brings. A category nobody labelled counts most; a stray pixel of it does not.
    """
    shares = {
        one: pixels.get(one, 0) / (count + pixels.get(one, 0) + STRAY * size)
        for one, count in labelled.items()
    }
    if not shares:
        return 0.0, None
    most = max(shares, key=lambda one: (shares[one], -one))
    return sum(shares.values()) / len(shares), most if shares[most] > 0 else None


def disagreement(pairs: Mapping[tuple[int, int], int]) -> tuple[float | None, tuple[int, int] | None]:
    """Return (share of the pixels that two say differently, the pair of categories that makes most of it).

    pairs: {(one says, the other says): pixels}, of pixels on which both say something. None where there are none.
    """
    total = sum(pairs.values())
    if not total:
        return None, None
    wrong = {pair: count for pair, count in pairs.items() if pair[0] != pair[1] and count}
    if not wrong:
        return 0.0, None
    return sum(wrong.values()) / total, max(wrong, key=lambda pair: (wrong[pair], pair))


def k_center(
    features: NDArray[Any], is_covered: NDArray[np.bool_], *, most: int = CHOSEN
) -> list[tuple[int, float, int]]:
    """Return (sample, distance, nearest) of the samples that are not covered, the most unlike first.

    features: (N, D), one row a sample; compared as directions, by the cosine: distances are from 0 to 2. The next
    one is always the farthest from all that are covered or were taken; distance and nearest (a row, or -1) are those
    at that moment. Where nothing is covered, the first is the farthest from the mean. After `most`, the rest follow
    by their distance. O(most x N x D).
    """
    rows = np.asarray(features, np.float32)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    waiting = ~np.asarray(is_covered, bool)
    distance, nearest = np.full(len(rows), np.inf, np.float32), np.full(len(rows), -1)
    for covered in np.flatnonzero(~waiting):
        _cover(rows, int(covered), distance, nearest)
    if not (~waiting).any() and len(rows):
        distance = 1 - rows @ rows.mean(axis=0) / max(float(np.linalg.norm(rows.mean(axis=0))), 1e-12)
    order: list[tuple[int, float, int]] = []
    while waiting.any() and len(order) < most:
        one = int(np.argmax(np.where(waiting, distance, -np.inf)))
        order.append((one, float(max(distance[one], 0)), int(nearest[one])))
        if len(order) == 1 and not is_covered.any():
            distance = np.full(len(rows), np.inf, np.float32)  # from here on the first one is what is covered
        waiting[one] = False
        _cover(rows, one, distance, nearest)
    rest = np.flatnonzero(waiting)
    rest = rest[np.argsort(-distance[rest], kind="stable")]
    order += [(int(one), float(max(distance[one], 0)), int(nearest[one])) for one in rest]
    return order


def drawn(name: str, seed: int) -> float:
    """Return the number in [0, 1) that a sample draws; the same on every machine, for ever."""
    digest = hashlib.sha256(f"queue\0{seed}\0{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def placed(scores: Sequence[float | None], names: Sequence[str], *, seed: int = 0) -> list[tuple[int, bool]]:
    """Return (sample, was it drawn at random) in the order in which to label; samples without a score are left out.

    Highest score first, by name where equal; every tenth place is for the next of those that were drawn, lowest number
    first. Whether one is drawn does not depend on any score, so those labelled of them are a fair sample of all.
    """
    known = [index for index, score in enumerate(scores) if score is not None]
    numbers = {index: drawn(names[index], seed) for index in known}
    lucky = deque(
        sorted((i for i in known if numbers[i] < RANDOM_SHARE), key=lambda i: (numbers[i], names[i]))
    )
    others = deque(
        sorted((i for i in known if numbers[i] >= RANDOM_SHARE), key=lambda i: (-(scores[i] or 0), names[i]))
    )
    every = round(1 / RANDOM_SHARE)
    queue: list[tuple[int, bool]] = []
    while lucky or others:
        is_random = bool(lucky) and (len(queue) % every == every - 1 or not others)
        queue.append((lucky.popleft() if is_random else others.popleft(), is_random))
    return queue


def _cover(
    rows: NDArray[np.float32], one: int, distance: NDArray[np.float32], nearest: NDArray[np.int64]
) -> None:
    """Note who is nearer to `one` than to what was covered before."""
    to_it = 1 - rows @ rows[one]
    is_nearer = to_it < distance
    distance[is_nearer], nearest[is_nearer] = to_it[is_nearer], one
