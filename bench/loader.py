"""Large images to training crops: pairs per second on one core, terrazzo beside MMSegmentation and the walk-through.

    python bench/loader.py [--images 8] [--repeats 5] [--size 1024x2048] [--peers mmseg hf] [--peer-python PATH]

Synthetic street scenes, PNG images and PNG masks, become samples as each side makes them for training:

    terrazzo    scale 0.5-2, crop, flip, the four colour changes; from decoded images kept on the disk, data.cache=disk,
                and, printed beside it, decoding each image anew
    mmseg       its Cityscapes training pipeline: load, RandomResize 0.5-2, RandomCrop 512x1024, flip, photometric
    hf          the walk-through's transform: ColorJitter on the whole image, SegformerImageProcessor to 512x512

Each side runs in one thread, the peers in processes of their own, in turn; medians over passes. terrazzo makes crops of
512x1024 for the first comparison and 512x512 for the second, float32 in [0, 1], masks int64, ready for the network.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from peers.child import Child
from peers.environments import environment_of
from peers.openmmlab import openmmlab_environment
from peers.turns import in_a_row
from terrazzo import environment
from terrazzo.data import open_dataset, scenes
from terrazzo.data.decoded import key_of
from terrazzo.data.loader import Loader
from terrazzo.data.transforms import DataConfig, TrainTransform

TARGETS = {"mmseg": 10.0, "hf": 20.0}
LEAST = 0.3  # seconds of a turn of ours, in which epochs follow each other; a peer takes longer for one
CROPS = {"mmseg": (512, 1024), "hf": (512, 512)}
HERE = Path(__file__).parent / "peers"
HF_PACKAGES = ["transformers", "torchvision", "accelerate", "pillow"]


def main() -> int:
    """Measure, print, and return the exit code."""
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="terrazzo-loader-") as scratch:
        os.environ["TERRAZZO_CACHE"] = f"{scratch}/cache"
        print(f"drawing {args.images} scenes of {args.size[0]}x{args.size[1]}", file=sys.stderr)
        folder = scenes.write_scenes(
            Path(scratch) / "scenes", train=args.images, val=1, size_hw=args.size, seed=0
        )
        peers = {name: peer(name, folder / "train", args.peer_python) for name in args.peers}
        ours = {
            (crop, cache): passes(folder, crop, cache)
            for crop in {CROPS[name] for name in args.peers}
            for cache in ("disk", "none")
        }
        seconds: dict[str, list[float]] = {}
        for turn in range(args.repeats + 1):  # the first warms up, and fills the cache
            for (crop, cache), run in ours.items():
                kept = seconds.setdefault(f"terrazzo {crop[0]}x{crop[1]} {cache}", [])
                took = in_a_row(run, least=LEAST)[0] / args.images
                kept.extend([took] if turn else [])
            for name, child in peers.items():
                took = child.ask() / args.images
                seconds.setdefault(name, []).extend([took] if turn else [])
        for child in peers.values():
            child.close()
    return report(args, seconds, {name: child.versions for name, child in peers.items()})


def report(
    args: argparse.Namespace, seconds: dict[str, list[float]], versions: dict[str, dict[str, str]]
) -> int:
    """Print what was measured; return the exit code."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    processor = environment.model_of("cpu")
    height, width = args.size
    print(f"{width}x{height} PNG pairs to training samples, one thread of {processor}")
    results, is_reached = {}, True
    for name in args.peers:
        crop = "{}x{}".format(*CROPS[name])
        kept, anew = medians[f"terrazzo {crop} disk"], medians[f"terrazzo {crop} none"]
        ratio = medians[name] / kept
        is_reached &= ratio >= TARGETS[name]
        said = "reached" if ratio >= TARGETS[name] else "missed"
        print(f"  {name:<9} {1000 * medians[name]:7.1f} ms a pair, {1 / medians[name]:6.1f} pairs/s")
        print(
            f"  terrazzo  {1000 * kept:7.1f} ms a pair, {1 / kept:6.1f} pairs/s, crops {crop}: {ratio:.1f}x "
            f"(target {TARGETS[name]:.0f}): {said}"
        )
        print(
            f"            {1000 * anew:7.1f} ms where each image is decoded anew: {medians[name] / anew:.1f}x"
        )
        results[name] = {
            "peer_ms": round(1000 * medians[name], 2),
            "terrazzo_ms": round(1000 * kept, 2),
            "decoding_ms": round(1000 * anew, 2),
            "ratio": round(ratio, 2),
            "ratio_decoding": round(medians[name] / anew, 2),
            "target": TARGETS[name],
        }
    card = {
        "bench": "loader", "size_hw": list(args.size), "images": args.images, "repeats": args.repeats, "threads": 1,
        "processor": processor, "results": results, "peers": versions, "reached": is_reached,
    }  # fmt: skip
    print(json.dumps(card))
    return 0 if is_reached else 1


def passes(folder: Path, crop_hw: tuple[int, int], cache: Literal["disk", "none"]) -> Callable[[], None]:
    """Return what goes over the samples once, another epoch each time."""
    data = open_dataset(folder)
    split = data["train"]
    config = DataConfig(crop_hw=crop_hw, color_probability=0.5)
    loader = Loader(
        split,
        transform=TrainTransform(config, ignore=data.classes.ignore, mean=data.mean, odds_K=None),
        batch_size=1,
        workers=0,
        cache=cache,
        cache_key=lambda: key_of(split.names, split.hashes(location=data.location), data.remap),
        pixel_weight=lambda mask: 1.0,
    )

    epochs = itertools.count()

    def run() -> None:
        first = next(epochs) * len(split)
        for step in range(first, first + len(split)):
            for image_BCHW, mask_BHW in loader.micro_batches(step):
                assert image_BCHW.shape[2:] == mask_BHW.shape[1:] == crop_hw

    return run


def peer(name: str, folder: Path, python: Path | None) -> Child:
    """Return a peer in a child process, which goes over the folder once when asked and tells the seconds."""
    python = python or (openmmlab_environment() if name == "mmseg" else environment_of("hf", HF_PACKAGES))
    return Child(name, [python, HERE / f"{name}_pairs.py", "--folder", folder], threads=1)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=size_hw, default=(1024, 2048), help="height x width")
    parser.add_argument("--peers", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--peer-python", type=Path, help="the Python of an environment that has the peers")
    return parser.parse_args()


def size_hw(text: str) -> tuple[int, int]:
    """Read "1024x2048"."""
    height, width = text.split("x")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())
