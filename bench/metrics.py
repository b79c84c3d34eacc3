"""Confusion counts beside torchmetrics, evaluate's formula, torch and numpy, in one process with equal threads.

    python bench/metrics.py [--threads 2] [--repeats 7] [--classes 19 150] [--mean-iou PATH]

Two contents: "street" are areas with uneven borders, the prediction a few pixels off, as masks are; "noise" is another
class at every pixel, the worst case for our kernel. The sides take turns of 50 ms and more, and medians are printed as
nanoseconds a pixel; all must give the same IoU to 1e-12, and our counts must be the reference's. A network's argmax is
int64 and a mask file uint8: the other sides get whichever they are faster with, ours is also measured with int64.

evaluate's `mean_iou` downloads its script when it is loaded; --mean-iou names a copy of it, huggingface/evaluate
`metrics/mean_iou/mean_iou.py` (and needs `pip install evaluate`). Its `compute` stores every mask as a PNG first. Its
formula alone, three histograms an image, is measured without it, written in numpy from its definition.

The last line is JSON. Exit code 1 where a target is missed or a result differs.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.classification import MulticlassConfusionMatrix

from peers.turns import in_a_row
from terrazzo import environment
from terrazzo.kernels.confusion import confusion, confusion_reference
from terrazzo.metrics import ConfusionMatrix

SHAPES = {19: (8, 1024, 2048), 150: (16, 512, 512)}  # Cityscapes; ADE20K
OTHER_SHAPE = (8, 512, 512)
TARGETS = {
    (19, "torchmetrics"): 60,
    (19, "evaluate's formula"): 100,
    (150, "evaluate's formula"): 40,
    (19, "evaluate mean_iou"): 100,
    (150, "evaluate mean_iou"): 40,
}  # times faster
IGNORE = 255
LEAST = 0.05  # seconds of a side's turn

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
Side = Callable[[], NDArray[Any]]  # one measured call; returns the IoU per class


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2, help="for every side")
    parser.add_argument("--repeats", type=int, default=7, help="of each side, after one for warm-up")
    parser.add_argument("--classes", type=int, nargs="+", default=[19, 150])
    parser.add_argument("--mean-iou", metavar="PATH", help="a copy of evaluate's mean_iou.py")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine = environment.describe()
    print(f"confusion counts, {args.threads} threads, medians of {args.repeats}, nanoseconds a pixel")
    print(f"{machine['processor']['model']}, torch {torch.__version__}, numpy {np.__version__}\n")

    mean_iou = load_mean_iou(args.mean_iou)
    results, are_met, are_equal = [], True, True
    for num_classes in args.classes:
        for content, (pred, mask) in contents(num_classes).items():
            seconds, ious = measure(sides(pred, mask, num_classes, args.threads, mean_iou), args.repeats)
            nanoseconds = {name: value / mask.size * 1e9 for name, value in seconds.items()}
            ratios = {n: value / seconds["terrazzo"] for n, value in seconds.items() if "terrazzo" not in n}
            difference = max(float(np.nanmax(np.abs(iou - ious["terrazzo"]))) for iou in ious.values())
            plain = confusion_reference(pred, mask, num_classes)
            are_equal &= bool((confusion(pred, mask, num_classes) == plain).all()) and difference <= 1e-12
            shape = "x".join(map(str, mask.shape))
            print(f"{num_classes} classes, {shape}, {content}: IoU equal to {difference:.0e}")
            for name, value in nanoseconds.items():
                ratio, target = ratios.get(name), TARGETS.get((num_classes, name))
                said = "" if ratio is None else f"{ratio:6.1f}x"
                if target is not None and ratio is not None:
                    said += f"   target {target}x: {'met' if ratio >= target else 'MISSED'}"
                    are_met &= ratio >= target
                print(f"  {name:<28}{value:9.3f}   {said}".rstrip())
            print()
            results.append(
                {
                    "classes": num_classes,
                    "content": content,
                    "ns_per_pixel": {name: round(value, 4) for name, value in nanoseconds.items()},
                    "times_faster": {name: round(value, 1) for name, value in ratios.items()},
                    "iou_difference": difference,
                }
            )
    summary = {
        "bench": "metrics",
        "threads": args.threads,
        "results": results,
        "met": are_met,
        "equal": are_equal,
    }
    print(json.dumps({**summary, "processor": machine["processor"]["model"], "python": machine["python"]}))
    return 0 if are_met and are_equal else 1


def contents(num_classes: int) -> dict[str, Pair]:
    """Return predictions and masks (N, H, W) uint8 of each content, a tenth of the masks ignored."""
    shape = SHAPES.get(num_classes, OTHER_SHAPE)
    rng = np.random.default_rng(0)
    noise, other = (rng.integers(0, num_classes, shape, dtype=np.uint8) for _ in range(2))
    noise_pred = np.where(rng.random(shape) < 0.5, noise, other)
    noise[rng.random(shape) < 0.1] = IGNORE

    side = 96 if shape[1] > 512 else 48  # of an area, in pixels
    cells_shape = shape[0], shape[1] // side + 2, shape[2] // side + 2
    all_ids = rng.permutation(np.arange(np.prod(cells_shape)) % num_classes)
    cells = all_ids.astype(np.uint8).reshape(cells_shape)
    cells[rng.random(cells.shape) < 0.1] = IGNORE
    by_column, by_row = (np.cumsum(rng.integers(-1, 2, size)) % 20 for size in (shape[2], shape[1]))
    rows = (np.arange(shape[1])[:, None] + by_column) // side  # uneven borders
    columns = (np.arange(shape[2]) + by_row[:, None]) // side
    street = np.ascontiguousarray(cells[:, rows, columns])
    guessed = np.roll(street, (3, 2), (1, 2))
    return {
        "street": (np.where(guessed == IGNORE, 0, guessed).astype(np.uint8), street),
        "noise": (noise_pred, noise),
    }


def sides(
    pred: NDArray[np.uint8], mask: NDArray[np.uint8], num_classes: int, threads: int, mean_iou: Any
) -> dict[str, Side]:
    """Return what is measured, by name: every call takes the two masks from memory to the IoU of each class."""
    pred_tensor, mask_tensor = (
        torch.from_numpy(pred.astype(np.int64)),
        torch.from_numpy(mask.astype(np.int64)),
    )

    def ours(pred: NDArray[Any], mask: NDArray[Any]) -> Side:
        def side() -> NDArray[Any]:
            counts = confusion(pred, mask, num_classes, IGNORE, threads=threads)
            return ConfusionMatrix(num_classes, IGNORE, counts=counts).iou

        return side

    def torchmetrics(validate: bool) -> Side:
        metric = MulticlassConfusionMatrix(num_classes, ignore_index=IGNORE, validate_args=validate)

        def side() -> NDArray[Any]:
            metric.reset()
            metric.update(pred_tensor, mask_tensor)
            return iou_of(metric.compute().numpy())

        return side

    def bincount() -> NDArray[Any]:
        counted = mask_tensor != IGNORE
        cells = mask_tensor[counted] * num_classes + pred_tensor[counted]
        return iou_of(
            torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes).numpy()
        )

    found: dict[str, Side] = {
        "terrazzo": ours(pred, mask),
        "terrazzo, int64": ours(pred_tensor.numpy(), mask_tensor.numpy()),
        "torchmetrics": torchmetrics(validate=True),
        "torchmetrics, no checks": torchmetrics(validate=False),
        "evaluate's formula": lambda: by_histograms(pred, mask, num_classes),
        "torch.bincount": bincount,
        "numpy": lambda: iou_of(confusion_reference(pred, mask, num_classes, IGNORE)),
    }
    if mean_iou is not None:
        settings = {"num_labels": num_classes, "ignore_index": IGNORE}
        found["evaluate mean_iou"] = lambda: np.asarray(
            mean_iou.compute(predictions=list(pred), references=list(mask), **settings)["per_category_iou"]
        )
    return found


def load_mean_iou(path: str | None) -> Any:
    """Return evaluate's metric from a copy of its script, or None, having said why."""
    try:
        if path is None:
            raise ValueError("no --mean-iou PATH")
        import evaluate  # type: ignore[import-not-found]  # a peer; not among our dependencies

        return evaluate.load(path)
    except Exception as error:  # whatever it is, the other sides are worth measuring
        print(f"evaluate's mean_iou is left out: {error}\n")
        return None


def by_histograms(pred: NDArray[np.uint8], mask: NDArray[np.uint8], num_classes: int) -> NDArray[Any]:
    """The IoU as evaluate's mean_iou defines it: areas of intersection, prediction and truth from histograms."""
    areas = np.zeros((3, num_classes))
    for pred_HW, mask_HW in zip(pred, mask, strict=True):
        counted = mask_HW != IGNORE
        seen, truth = pred_HW[counted], mask_HW[counted]
        for area, ids in zip(areas, (seen[seen == truth], seen, truth), strict=True):
            area += np.histogram(ids, bins=num_classes, range=(0, num_classes - 1))[0]
    intersection, pred_area, true_area = areas
    return intersection / (pred_area + true_area - intersection)


def iou_of(counts: NDArray[Any]) -> NDArray[Any]:
    """IoU per class from counts, rows truth."""
    hits = np.diagonal(counts).astype(np.float64)
    return hits / (counts.sum(0) + counts.sum(1) - hits)


def measure(by_name: dict[str, Side], repeats: int) -> tuple[dict[str, float], dict[str, NDArray[Any]]]:
    """Return median seconds and the IoU of every side; the sides take turns, so that all are disturbed alike.

    In its turn a side is called until LEAST seconds are over, and the mean of a call counts.
    """
    times: dict[str, list[float]] = {name: [] for name in by_name}
    ious = {}
    for turn in range(repeats + 1):
        for name, side in by_name.items():
            took, ious[name] = in_a_row(side, least=LEAST)
            if turn > 0:  # the first warms up
                times[name].append(took)
    return {name: statistics.median(values) for name, values in times.items()}, ious


if __name__ == "__main__":
    sys.exit(main())
