"""A folder of images, files in, files out: `terrazzo predict` beside `transformers.pipeline("image-segmentation")`.

    python bench/predict_folder.py [--camvid ../shared/camvid] [--count 500] [--model DIR] [--precisions f32 bf16]

Both sides read the same SegFormer-B0 from the same folder, see each image at 512x512 as its preprocessor_config.json
says, and write a PNG of class ids at the image's own size. The network is trained for `--train-seconds` first, so that
its masks are those of a network and not of noise. The peer runs in an environment of its own, with as many threads; it
computes in f32, and both of our precisions are compared with it. Files lie on the same disk; neither side's start, nor
its first three images, count. The last line is JSON; exit code 1 below 6x at f32 or 9x at bf16.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import terrazzo as tz
from peers.environments import environment_of
from terrazzo import environment
from terrazzo.data.importers import run as import_dataset
from terrazzo.images import read_mask
from terrazzo.predicting import predict

TARGETS = {"f32": 6.0, "bf16": 9.0}
HERE = Path(__file__).parent
ROUNDS = 3  # of ours; the median counts
STEP_SECONDS = 0.25  # of a training step here, to choose their number


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--camvid", type=Path, default=HERE.parent.parent / "shared" / "camvid")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--model", type=Path, help="a SegFormer's folder, instead of training one")
    parser.add_argument("--precisions", nargs="+", default=["f32", "bf16"])
    parser.add_argument("--train-seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if not args.camvid.is_dir():
        print(json.dumps({"bench": "predict_folder", "skipped": f"no CamVid at {args.camvid}"}))
        return 0
    torch.set_num_threads(args.threads)
    processor = environment.model_of("cpu")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = import_dataset("camvid", args.camvid, folder / "camvid")
        images = gathered(data, folder / "images", args.count)
        model = args.model or trained(data, folder / "run", args.train_seconds)
        print(
            f"{len(images)} images of CamVid, SegFormer-B0 at 512x512, {args.threads} threads of {processor}"
        )
        theirs = peer(model, folder / "images", folder / "theirs", args.threads)
        print(f"  {'f32, pipeline':16} {theirs['images'] / theirs['seconds']:7.2f} images/s")
        results, is_reached = {}, True
        for precision in args.precisions:
            seconds = ours(model, images, folder / precision, precision)
            ratio = theirs["seconds"] / seconds
            results[precision] = {
                "images_per_second": len(images) / seconds,
                "ratio": ratio,
                "target": TARGETS[precision],
                "equal_pixels": equal(folder / "theirs", folder / precision / "masks"),
            }
            is_reached &= ratio >= TARGETS[precision]
            print(
                f"  {precision + ', terrazzo':16} {len(images) / seconds:7.2f} images/s, {ratio:.1f}x, target "
                f"{TARGETS[precision]:.0f}x; {100 * results[precision]['equal_pixels']:.3f} % of the pixels equal"
            )
    card: dict[str, Any] = {
        "bench": "predict_folder", "images": len(images),
        "pipeline_images_per_second": theirs["images"] / theirs["seconds"],
        "results": results, "reached": is_reached, "threads": args.threads, "device": processor,
        "torch": torch.__version__, "torch_of_the_peer": theirs["torch"], "terrazzo": tz.__version__,
    }  # fmt: skip
    print(json.dumps(card))
    return 0 if is_reached else 1


def gathered(data: Path, out: Path, count: int) -> list[Path]:
    """Copy `count` images into one folder; where there are fewer, some twice, under another name."""
    out.mkdir()
    files = sorted(data.glob("*/images/*"))
    chosen = enumerate(islice(cycle(files), count))
    return [Path(shutil.copy(file, out / f"{number:04d}-{file.name}")) for number, file in chosen]


def trained(data: Path, out: Path, seconds: float) -> Path:
    """Train for about `seconds` and return the model's folder."""
    overrides = [
        f"train.steps={max(20, int(seconds / STEP_SECONDS))}", "optim.warmup_steps=5", "data.resize=exact",
        "data.resize_hw=512x512", "data.crop_hw=256x256", "train.batch_size=4", "eval.every=1000000",
        "train.pictures=0",
    ]  # fmt: skip
    return tz.train("segformer-b0-scratch", data=data, out=out, overrides=overrides, quiet=True).best_folder()


def peer(model: Path, images: Path, out: Path, threads: int) -> dict[str, Any]:
    """Let the pipeline answer the folder in its own process."""
    python = environment_of("hf", ["transformers", "torchvision", "accelerate", "pillow"])
    command = [python, HERE / "peers" / "hf_pipeline.py", "--model", model, "--images", images, "--out", out]
    command += ["--threads", threads]
    said = subprocess.run(
        [str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    result: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return result


def ours(model: Path, images: list[Path], out: Path, precision: str) -> float:
    """Seconds from the first file read to the last one written, the median of some rounds."""
    predictor = tz.load(model, device="cpu", precision=precision)
    predict(predictor, images[:3], out=out, parts=["masks"], quiet=True)
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        predict(predictor, images, out=out, parts=["masks"], overwrite=True, quiet=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def equal(theirs: Path, ours: Path) -> float:
    """The share of pixels that both masks give the same class."""
    same = total = 0
    for path in sorted(theirs.iterdir()):
        one, other = read_mask(path), read_mask(ours / path.name)
        same, total = same + int(np.count_nonzero(one == other)), total + one.size
    return same / total


if __name__ == "__main__":
    sys.exit(main())
