"""What an examined data set holds, split by split: sizes, brightness, labelled share, and pixels of every class."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from terrazzo.data import symptoms
from terrazzo.data.chart import Case, Chart

MOST_SIZES = 5  # told of a split; the rest are counted


@dataclass(frozen=True)
class ClassCount:
    """How often a class occurs in a split."""

    name: str
    split: str
    pixels: int
    share: float
    """Of the split's pixels that are not ignored."""
    images: int


@dataclass(frozen=True)
class SplitStatistics:
    """What a split holds."""

    split: str
    images: int
    masks: int
    """Those that could be read as ids."""
    sizes: tuple[tuple[int, int, int], ...]
    """(height, width, images), the most frequent first, five at most."""
    other_sizes: int
    """Images of other sizes than these."""
    channels: tuple[int, ...]
    """Every count of channels that occurs."""
    dtypes: tuple[str, ...]
    """Every dtype that occurs."""
    mean: tuple[float, ...]
    """Per channel, over all pixels of images of the usual channels; in the unit range for whole numbers."""
    std: tuple[float, ...]
    """Likewise."""
    labelled: float | None
    """Share of the masks' pixels that is not ignored; None where nothing says what ids mean."""


def split_statistics(chart: Chart) -> tuple[SplitStatistics, ...]:
    """Return the statistics of every split."""
    return tuple(
        _statistics(split, [case for case in chart.cases if case.split == split], chart)
        for split in chart.splits
    )


def class_counts(chart: Chart) -> tuple[tuple[ClassCount, ...], dict[str, float]]:
    """Return the pixels and images of every class by split, and the share of each split that is ignored.

    Empty where nothing says what ids mean, and for splits without masks.
    """
    table = symptoms.raw_table(chart)
    counts: list[ClassCount] = []
    ignored: dict[str, float] = {}
    if table is None or chart.space is None:
        return (), ignored
    names = chart.space.classes.names
    for split in chart.splits:
        masks = [symptoms.labels(case).ids for case in chart.cases if case.split == split]
        if not any(masks):
            continue
        pixels, images, left_out = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64), 0
        for ids in masks:
            here = np.zeros(len(names), np.int64)
            for raw, count in ids.items():
                class_id = table.get(raw)
                if class_id is not None:
                    here[class_id] += count
                elif raw in table:
                    left_out += count
            pixels, images = pixels + here, images + (here > 0)
        labelled = int(pixels.sum())
        ignored[split] = left_out / max(labelled + left_out, 1)
        for name, count, in_images in zip(names, pixels.tolist(), images.tolist(), strict=True):
            counts.append(ClassCount(name, split, count, count / max(labelled, 1), in_images))
    return tuple(counts), ignored


def _statistics(split: str, cases: Sequence[Case], chart: Chart) -> SplitStatistics:
    seen = [case.seen for case in cases if case.seen.channels]
    sizes = Counter(one.size_hw for one in seen).most_common()
    usual = Counter(one.channels for one in seen).most_common(1)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    if usual:
        here = [one for one in seen if one.channels == usual[0][0]]
        weights = np.array([one.size_hw[0] * one.size_hw[1] for one in here], np.float64)
        average = weights @ np.array([one.mean for one in here]) / weights.sum()
        square = weights @ np.array([one.square for one in here]) / weights.sum()
        mean = tuple(average.tolist())
        std = tuple(np.sqrt(np.maximum(square - average**2, 0)).tolist())
    return SplitStatistics(
        split=split,
        images=sum(case.image is not None for case in cases),
        masks=sum(bool(symptoms.labels(case).ids) for case in cases),
        sizes=tuple((size[0], size[1], count) for size, count in sizes[:MOST_SIZES]),
        other_sizes=sum(count for _, count in sizes[MOST_SIZES:]),
        channels=tuple(sorted({one.channels for one in seen})),
        dtypes=tuple(sorted({one.dtype for one in seen})),
        mean=mean,
        std=std,
        labelled=_labelled(cases, chart),
    )


def _labelled(cases: Sequence[Case], chart: Chart) -> float | None:
    table = symptoms.raw_table(chart)
    pixels = [item for case in cases for item in symptoms.labels(case).ids.items()]
    if table is None or not pixels:
        return None
    return sum(count for raw, count in pixels if table.get(raw) is not None) / sum(
        count for _, count in pixels
    )
