"""Peak memory of scoring 100 and 1,000 images: the same, since one K x K matrix is all that is kept.

    python bench/evaluate_memory.py [--counts 100 1000] [--size 256x320] [--threads 2]

Each count is scored in a process of its own, by `terrazzo.evaluate` with a SegFormer-B0 of random weights on synthetic
street scenes, from PNG files. Beside it stands what a trainer that keeps all logits, and resizes them all at the end,
would hold for as many images of these classes: computed, not measured. The target is a difference of 5 % at most.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET = 0.05
WARM_UP = 8  # images


def main() -> int:
    """Measure, print, and return the exit code."""
    args = arguments()
    if args.child is not None:
        return score(args)
    from terrazzo import environment
    from terrazzo.data import scenes

    with tempfile.TemporaryDirectory(prefix="terrazzo-memory-") as scratch:
        print(f"drawing {max(args.counts):,} scenes", file=sys.stderr)
        folder = scenes.write_scenes(
            Path(scratch) / "scenes", train=1, val=max(args.counts), size_hw=args.size, seed=0
        )
        found = {}
        for count in (WARM_UP, *args.counts):  # the first compiles kernels, and writes the network as a graph
            size = "{}x{}".format(*args.size)
            words = [sys.executable, __file__, "--child", str(count), "--data", str(folder), "--size", size,
                     "--threads", str(args.threads)]  # fmt: skip
            done = subprocess.run(
                words,
                env=os.environ | {"TERRAZZO_CACHE": scratch},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found[count] = json.loads(done.stdout.splitlines()[-1])
    del found[WARM_UP]
    few, many = min(found), max(found)
    difference = found[many]["peak_mib"] / found[few]["peak_mib"] - 1
    kept = {count: kept_mib(count, args.size, one["classes"]) for count, one in found.items()}
    is_reached = abs(difference) <= TARGET
    processor = environment.model_of("cpu")
    print("Peak memory of scoring images of {}x{}, {} classes".format(*args.size, found[few]["classes"]))
    for count, one in found.items():
        print(
            f"  {count:6,} images  {one['peak_mib']:8,.0f} MiB, {one['images_per_s']:.1f} images/s; all logits kept "
            f"and resized: {kept[count]:,.0f} MiB more"
        )
    print(f"  difference {100 * difference:+.1f} %, target 5 %: {'reached' if is_reached else 'missed'}")
    card = {
        "bench": "evaluate_memory", "size_hw": list(args.size), "threads": args.threads, "processor": processor,
        "peak_mib": {str(count): round(one["peak_mib"], 1) for count, one in found.items()},
        "images_per_s": {str(count): round(one["images_per_s"], 2) for count, one in found.items()},
        "kept_logits_mib": {str(count): round(mib) for count, mib in kept.items()},
        "classes": found[few]["classes"], "difference": round(difference, 4), "target": TARGET, "reached": is_reached,
    }  # fmt: skip
    print(json.dumps(card))
    return 0 if is_reached else 1


def kept_mib(count: int, size_hw: tuple[int, int], classes: int) -> float:
    """What float32 logits at a quarter of the size, and resized to the whole, take for so many images."""
    height, width = size_hw
    return count * classes * 4 * (height * width / 16 + height * width) / 2**20


def score(args: argparse.Namespace) -> int:
    """In a process of its own: score so many images and print the peak."""
    import resource
    import time

    import torch

    from terrazzo.data import open_dataset
    from terrazzo.evaluation import evaluate
    from terrazzo.inference import Predictor
    from terrazzo.nn import ModelConfig, build

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    data = open_dataset(args.data)
    network = build(ModelConfig("segformer-b0"), num_classes=len(data.classes), mean=data.mean, std=data.std)
    predictor = Predictor(network.eval(), data.classes)
    began = time.perf_counter()
    report = evaluate(predictor, data=data, limit=args.child, quiet=True)
    seconds = time.perf_counter() - began
    assert report.num_images == args.child, report.num_images
    peak = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**20
    )
    print(json.dumps({"peak_mib": peak, "images_per_s": args.child / seconds, "classes": len(data.classes)}))
    return 0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--size", type=size_hw, default=(256, 320), help="height x width")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def size_hw(text: str) -> tuple[int, int]:
    """Read "256x320"."""
    height, width = text.split("x")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())
