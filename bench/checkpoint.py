"""What saving costs a training: seconds per checkpoint beside seconds per step, at a recipe's own interval.

    python bench/checkpoint.py [--recipe segformer-b0] [--device cpu|cuda] [--steps 5] [--saves 7] [--batch 2]
                               [--folder DIR] [--ema 0.999] [--threads 2]

Steps and checkpoints are terrazzo's own: `preparation.prepare` and `keeping.Keeper.save`, which writes weights, moving
average and optimiser, hashes every file, waits for the disk and prunes. Data are random images.
A CPU step of the whole batch takes minutes, so `--batch` images are timed and the share of saving is given for such
steps, which is more than for whole ones. The last line is JSON; exit code 1 when saving takes 5 % or more.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import terrazzo
from terrazzo.asking import Asked
from terrazzo.classes import Classes
from terrazzo.devices import autocast, choose_precision
from terrazzo.ema import MovingAverage
from terrazzo.environment import model_of
from terrazzo.images import write_image
from terrazzo.keeping import Keeper
from terrazzo.optim import build_optimizer, build_schedule
from terrazzo.preparation import Job, prepare
from terrazzo.processes import Processes, joined
from terrazzo.storage import write_json

TARGET = 0.05


def main() -> int:
    args = arguments()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(dir=args.folder) as name, joined(args.device) as processes:
        job = prepared(args, processes, Path(name))
        steps, saves, size = measured(args, job, processes)
    interval = min(job.recipe.train.save_every, job.recipe.eval.every)
    step, save = statistics.median(steps), statistics.median(saves)
    share = save / (interval * step + save)
    worst = max(saves) / (interval * min(steps) + max(saves))
    print(f"{model_of(str(processes.device))}; torch {torch.__version__}, terrazzo {terrazzo.__version__}")
    print(
        f"{args.recipe}, {args.batch} images a step, EMA {args.ema or 'off'}; {size / 2**20:.1f} MiB a checkpoint"
    )
    print(f"  step        {1000 * step:9.1f} ms  ({1000 * min(steps):.1f} to {1000 * max(steps):.1f})")
    print(f"  checkpoint  {1000 * save:9.1f} ms  ({1000 * min(saves):.1f} to {1000 * max(saves):.1f})")
    print(f"  one every {interval} steps is {100 * share:.3f} % of the time; at worst {100 * worst:.3f} %")
    result = {
        "bench": "checkpoint",
        "recipe": args.recipe,
        "device": model_of(str(processes.device)),
        "threads": args.threads,
        "batch": args.batch,
        "step_ms": round(1000 * step, 2),
        "save_ms": round(1000 * save, 2),
        "save_ms_all": [round(1000 * one, 1) for one in saves],
        "mib": round(size / 2**20, 1),
        "interval": interval,
        "share": round(share, 6),
        "worst_share": round(worst, 6),
        "target": TARGET,
        "torch": torch.__version__,
        "terrazzo": terrazzo.__version__,
    }
    print(json.dumps(result))
    return int(worst >= TARGET)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="segformer-b0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--saves", type=int, default=7)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", help="where to write; the disk that is measured")
    return parser.parse_args()


def prepared(args: argparse.Namespace, processes: Processes, folder: Path) -> Job:
    """A job of the recipe, without published weights, on 4 random images of 35 classes."""
    rng = np.random.default_rng(0)
    for number in range(4):
        image, mask = (
            rng.integers(0, 256, (600, 800, 3), np.uint8),
            rng.integers(0, 35, (600, 800, 1), np.uint8),
        )
        for kind, pixels in (("images", image), ("masks", mask)):
            file = folder / "data" / "train" / kind / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_image(file, pixels)
    (folder / "data" / "val").mkdir()
    for kind in ("images", "masks"):
        (folder / "data" / "val" / kind).mkdir()
        (folder / "data" / "train" / kind / "3.png").rename(folder / "data" / "val" / kind / "3.png")
    names = Classes(tuple(f"class {class_id}" for class_id in range(35)))
    write_json(
        folder / "data" / "dataset.json", {"format_version": 1, "name": "noise", "classes": names.to_json()}
    )
    overrides = [f"train.batch_size={args.batch}", f"train.ema={args.ema}", "model.pretrained=null",
                 "loss.class_weights=none"]  # fmt: skip
    asked = Asked(args.recipe, folder / "data", folder / "run", overrides)
    return prepare(processes, asked)


def measured(
    args: argparse.Namespace, job: Job, processes: Processes
) -> tuple[list[float], list[float], int]:
    """Seconds of each step and of each save, and the bytes of a checkpoint."""
    device, recipe = processes.device, job.recipe
    precision = choose_precision(recipe.train.precision, device)
    network = job.network.to(device)
    optimizer = build_optimizer(network, recipe.optim)
    schedule = build_schedule(optimizer, recipe.optim, job.steps)
    average = MovingAverage(network, args.ema) if args.ema else None
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    steps, saves = [], []
    with (
        job.loader(processes) as loader,
        Keeper(job, processes, network, optimizer, schedule, scaler, average, step=0) as keeper,
    ):
        job.set_training_mode()
        for step in range(args.steps + 2):
            (image_BCHW, mask_BHW), weight = (
                next(iter(loader.micro_batches(step))),
                float(loader.weight(step)),
            )
            started = time.perf_counter()
            with autocast(precision, device):
                output = network(image_BCHW.to(device))
            torch.stack(list(job.loss(output, mask_BHW.to(device), weight=weight).values())).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if average is not None:
                average.update(network)
            synchronise(device)
            steps.append(time.perf_counter() - started)
        for number in range(args.saves + 1):
            started = time.perf_counter()
            keeper.save(1000 * (number + 1))
            saves.append(time.perf_counter() - started)
        newest = job.run.checkpoints[-1]
        size = sum(file.stat().st_size for file in newest.iterdir())
    return steps[2:], saves[1:], size


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
