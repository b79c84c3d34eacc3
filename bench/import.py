"""Importing with all checks: pairs a second on 2 cores, and the memory of it, beside a hand-written loop.

    python bench/import.py [--camvid ../shared/camvid] [--pairs 1000] [--few 250] [--workers 2] [--repeats 3]

The raw data are CamVid's own files under new names; where there is no CamVid, smooth noise of its size (480x360). Every
side runs in a fresh process, writes to the same disk and is timed from its first file on:
  terrazzo   `importers.run`: every file decoded, sizes and ids compared with the table, all of it forced to the disk
  loop       what one writes oneself: Pillow opens both, sizes and ids are compared, shutil copies; nothing is forced
  copy       shutil.copytree, no checks: what the disk allows
Peak memory is that of the process, for few pairs and for all: it must not grow. Prints a card and one line of JSON;
exit code 1 below a target.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

TARGET = 200  # pairs a second
GROWTH_MIB = 16  # of peak memory from few pairs to all
HERE = Path(__file__).parent
SIZE_HW = (360, 480)


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--camvid", type=Path, default=HERE.parent.parent / "shared" / "camvid")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--few", type=int, default=250, help="pairs whose peak memory is compared")
    parser.add_argument("--workers", type=int, default=2, help="threads of terrazzo")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", nargs=3, metavar=("SIDE", "RAW", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(one_side(*args.side, workers=args.workers)))
        return 0

    from terrazzo import environment  # not in the processes that are measured: it brings torch

    machine = environment.describe()
    source = "CamVid" if args.camvid.is_dir() else "noise"
    print(f"{args.pairs:,} pairs of {SIZE_HW[0]}x{SIZE_HW[1]} ({source}), {args.workers} threads")
    print(f"{machine['processor']['model']}, {machine['processor']['usable_cores']} cores\n")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        folder = Path(scratch)
        for count in (args.pairs, args.few):
            write_raw(folder / f"{count}", args.camvid, count)
        rates: dict[str, list[float]] = {"terrazzo": [], "loop": [], "copy": []}
        for _ in range(args.repeats):  # in turns, so that what disturbs the machine disturbs all alike
            for side, measured in rates.items():
                seconds, all_mib = measure(side, folder, args.pairs, args.workers)
                measured.append(args.pairs / seconds)
                if side == "terrazzo":
                    many_mib = all_mib
        few_mib = measure("terrazzo", folder, args.few, args.workers)[1]
    medians = {side: statistics.median(measured) for side, measured in rates.items()}
    is_met = medians["terrazzo"] >= TARGET
    is_constant = many_mib - few_mib <= GROWTH_MIB
    for side, rate in medians.items():
        said = f"   target {TARGET}: {'met' if is_met else 'MISSED'}" if side == "terrazzo" else ""
        print(f"  {side:<10}{rate:8.0f} pairs/s{said}")
    print(
        f"\n  peak memory  {few_mib:.1f} MiB for {args.few:,} pairs, {many_mib:.1f} MiB for {args.pairs:,}: "
        f"{'constant' if is_constant else 'GROWS'}\n"
    )
    summary = {
        "bench": "import",
        "pairs": args.pairs,
        "source": source,
        "workers": args.workers,
        "pairs_per_s": {side: round(rate, 1) for side, rate in medians.items()},
        "peak_mib": {str(args.few): round(few_mib, 1), str(args.pairs): round(many_mib, 1)},
        "target": TARGET,
        "met": is_met and is_constant,
        "processor": machine["processor"]["model"],
    }
    print(json.dumps(summary))
    return 0 if is_met and is_constant else 1


def write_raw(root: Path, camvid: Path, count: int) -> None:
    """Write `count` pairs in CamVid's layout, a fifth of them in val."""
    if camvid.is_dir():
        found = [
            (path, camvid / "trainannot" / path.name) for path in sorted((camvid / "train").glob("*.png"))
        ]
        content = [(image.read_bytes(), mask.read_bytes()) for image, mask in found]
    else:
        content = [noise(number) for number in range(16)]
    for number, pair in enumerate(islice(cycle(content), count)):
        split = "val" if number % 5 == 0 else "train"
        for part, data in zip((split, f"{split}annot"), pair, strict=True):
            (root / part).mkdir(parents=True, exist_ok=True)
            (root / part / f"{number:05d}_{number:05d}.png").write_bytes(data)


def noise(seed: int) -> tuple[bytes, bytes]:
    """A PNG of smooth noise, about as large as a frame of CamVid, and a mask of 12 ids in blocks."""
    import io

    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(SIZE_HW[::-1])
    grain = rng.normal(0, 4, (*SIZE_HW, 3))
    image = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
    mask = np.kron(rng.integers(0, 12, (9, 12)), np.ones((40, 40))).astype(np.uint8)
    files = io.BytesIO(), io.BytesIO()
    for array, file in zip((image, mask), files, strict=True):
        Image.fromarray(array).save(file, "PNG")
    return files[0].getvalue(), files[1].getvalue()


def measure(side: str, folder: Path, count: int, workers: int) -> tuple[float, float]:
    """Return (seconds, peak MiB) of a side on `count` pairs, in a process of its own."""
    out = folder / "out"
    words = [
        sys.executable,
        __file__,
        "--workers",
        str(workers),
        "--side",
        side,
        str(folder / f"{count}"),
        str(out),
    ]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    shutil.rmtree(out)
    said = json.loads(done.stdout.splitlines()[-1])
    return said["seconds"], said["peak_mib"]


def one_side(side: str, raw: str, out: str, *, workers: int) -> dict[str, float]:
    """Run one side; what it needs is imported before the clock starts."""
    sides: dict[str, Callable[[Path, Path, int], None]] = {"terrazzo": ours, "loop": loop, "copy": copy}
    from terrazzo.data import importers  # noqa: F401

    start = time.perf_counter()
    sides[side](Path(raw), Path(out), workers)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_mib": peak_mib()}


def peak_mib() -> float:
    """Most memory this process ever held; getrusage, without /proc, also counts what it was forked from."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(raw: Path, out: Path, workers: int) -> None:
    """`terrazzo import camvid RAW --out OUT`."""
    from terrazzo.data import importers

    importers.run("camvid", raw, out, workers=workers)


def loop(raw: Path, out: Path, workers: int) -> None:
    """What one writes oneself, on one thread."""
    known = set(range(12))
    for split in ("train", "val"):
        for part in ("images", "masks"):
            (out / split / part).mkdir(parents=True)
        for path in sorted((raw / split).iterdir()):
            mask_path = raw / f"{split}annot" / path.name
            image, mask = np.asarray(Image.open(path).convert("RGB")), np.asarray(Image.open(mask_path))
            assert image.shape[:2] == mask.shape
            assert set(np.unique(mask).tolist()) <= known
            shutil.copy2(path, out / split / "images")
            shutil.copy2(mask_path, out / split / "masks")


def copy(raw: Path, out: Path, workers: int) -> None:
    """What the disk allows."""
    shutil.copytree(raw, out)


if __name__ == "__main__":
    sys.exit(main())
