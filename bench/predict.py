"""A decoded 1080p image to its class map, SegFormer-B0, 19 classes, on a CPU: terrazzo beside the Hugging Face post.

    python bench/predict.py [--model RUN] [--camvid ../shared/camvid] [--threads 2] [--repeats 9] [--train-steps 250]
                            [--work FOLDER [--prepare]]

The network is trained on CamVid first, briefly (or taken from --model), so that its maps are those of a trained one; to
19 classes it comes by eight rows of its head that are changed copies of others, so that they compete. Both sides hold
the same weights, the same size (512x512, as the post's processor squashes images) and two threads, in processes of
their own, and take turns; the images are frames of CamVid, enlarged to 1920x1080. Peer: processor, model, interpolate,
argmax. Ours: tz.load(..., backend="auto") in f32 and bf16; int8 is an export of the network of 11 classes, timed beside
its own f32. A turn lasts 0.3 seconds at least, in which predictions follow each other. Beside it stands the way from a
JPEG file to a PNG file. mIoU is that of the 11 classes on CamVid val. Prints a card and one line of JSON; exit code 1
below one of the targets.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import terrazzo as tz
from peers.turns import in_a_row
from terrazzo import environment
from terrazzo.classes import Classes
from terrazzo.data.importers import run as import_dataset
from terrazzo.images import read_image, write_mask
from terrazzo.kernels.crop_resize import crop_resize
from terrazzo.nn.segformer import CLASSIFIER, SIZES, SegFormer
from terrazzo.nn.weights import save_model

TARGETS = {"f32": 15.0, "bf16": 20.0}  # times faster than the peer
EQUAL = 0.9999  # of the pixels, at f32
HERE = Path(__file__).parent
REST = 0.1  # seconds before each turn, in which the threads of the one before stop spinning
LEAST = 0.3  # seconds of a turn; the peer takes longer for one prediction
NUM_CLASSES, IMAGE_HW, WARM_UP = 19, (1080, 1920), 3


def main() -> int:
    """Measure, print, and return the exit code."""
    args = arguments()
    if not args.camvid.is_dir():
        print(json.dumps({"bench": "predict", "skipped": f"no CamVid at {args.camvid}"}))
        return 0
    torch.set_num_threads(args.threads)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    os.environ.pop("TERRAZZO_BACKEND", None)
    with contextlib.ExitStack() as held:
        folder = args.work or Path(held.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / "proofs.json").is_file():
            prepare(args, folder)
        if args.prepare:
            return 0
        proofs = json.loads((folder / "proofs.json").read_text())
        images = frames(folder / "camvid")
        sides = {
            "f32": tz.load(folder / "wide"),
            "bf16": tz.load(folder / "wide", precision="bf16"),
            "f32, 11 classes": tz.load(folder / "f32"),
            "int8, 11 classes": tz.load(folder / "int8"),
        }
        with Peer(folder / "wide", images, args.threads, folder) as peer:
            equal = {name: agreement(sides[name], images, peer.masks) for name in TARGETS}
            times, theirs = measure(sides, images, peer, args.repeats)
            files_ms = measure_files(sides, peer, folder, args.repeats)
        files = {
            name: sum(file.stat().st_size for file in (folder / name).glob("network.*")) for name in proofs
        }
    return told(args, sides, equal, times, theirs, files_ms, proofs, files, peer.versions)


def prepare(args: argparse.Namespace, folder: Path) -> None:
    """Write the models of 11 and 19 classes, and the exports with their mIoU, into `folder`."""
    data = folder / "camvid"
    if not data.exists():
        import_dataset("camvid", args.camvid, data)
    trained = tz.load(args.model or train(data, folder / "run", args.train_steps), backend="torch")
    assert isinstance(trained.network, SegFormer)
    saved(trained.network, trained.classes, folder / "narrow")
    saved(widened(trained.network), Classes(tuple(f"class {i}" for i in range(NUM_CLASSES))), folder / "wide")
    (folder / "proofs.json").write_text(json.dumps(exports(folder / "narrow", folder, data, args.limit)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a run of segformer-b0 on CamVid, instead of training one")
    parser.add_argument("--camvid", type=Path, default=HERE.parent.parent / "shared" / "camvid")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--train-steps", type=int, default=250)
    parser.add_argument("--limit", type=int, help="score so many images of val; all by default")
    parser.add_argument(
        "--work", type=Path, help="an empty folder to keep what is prepared, for another measurement"
    )
    parser.add_argument("--prepare", action="store_true", help="prepare --work, and measure nothing")
    return parser.parse_args()


def train(data: Path, out: Path, steps: int) -> Path:
    overrides = [f"train.steps={steps}", "train.batch_size=2", "optim.warmup_steps=20", "train.pictures=0",
                 "eval.every=1000000", "train.save_every=1000000"]  # fmt: skip
    tz.train("segformer-b0-scratch", data=data, out=out, overrides=overrides, quiet=True)
    return out


def saved(network: SegFormer, classes: Classes, folder: Path) -> None:
    """A model folder that transformers opens too, and that squashes images as the post's processor does."""
    folder.mkdir()
    save_model(folder, network, classes=classes, preprocessing={"resize": "exact", "resize_hw": (512, 512)})


def widened(network: SegFormer) -> SegFormer:
    """The network with NUM_CLASSES classes: further ones are changed copies of those it has, a little less likely."""
    mean, std = network.mean.flatten().tolist(), network.std.flatten().tolist()
    wide = SegFormer(SIZES["b0"], NUM_CLASSES, mean=mean, std=std)
    state, generator = dict(network.state_dict()), torch.Generator().manual_seed(0)
    rows = torch.arange(NUM_CLASSES) % network.num_classes
    changed = (torch.arange(NUM_CLASSES) >= network.num_classes).float()
    weight = state[CLASSIFIER[0]][rows]
    noise = torch.randn(weight.shape, generator=generator) * weight.std() * changed.view(-1, 1, 1, 1)
    state[CLASSIFIER[0]] = weight + 0.5 * noise
    state[CLASSIFIER[1]] = state[CLASSIFIER[1]][rows] - 0.5 * changed
    wide.load_state_dict(state)
    return wide.eval()


def frames(data: Path) -> np.ndarray:
    """Some frames of CamVid val, enlarged to 1080p."""
    files = sorted((data / "val" / "images").iterdir())[::25]
    read = [read_image(file) for file in files]
    return np.stack([crop_resize(one, (0, 0, *one.shape[:2]), IMAGE_HW) for one in read])


def exports(model: Path, folder: Path, data: Path, limit: int | None) -> dict[str, dict[str, float]]:
    """mIoU on CamVid val of the model in PyTorch and of its graphs, by precision."""
    scored = {}
    for precision in ("f32", "bf16", "int8"):
        done = tz.export(
            model, folder / precision, format="openvino", precision=precision, data=data, limit=limit,
            agreement=0.0, quiet=True,
        )  # fmt: skip
        assert done.proof.miou is not None
        assert done.proof.miou_exported is not None
        scored[precision] = {"torch": done.proof.miou, "exported": done.proof.miou_exported}
    return scored


def agreement(model: tz.Predictor, images: np.ndarray, masks: np.ndarray) -> float:
    """Share of pixels that have the peer's class."""
    return float(
        np.mean([(model(image).mask == mask).mean() for image, mask in zip(images, masks, strict=True)])
    )


def measure(
    sides: dict[str, tz.Predictor], images: np.ndarray, peer: "Peer", repeats: int
) -> tuple[dict[str, list[float]], list[list[float]]]:
    """Return the milliseconds of each prediction of ours, and of the peer's parts; all take turns."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    theirs = []
    for number in range(WARM_UP + repeats):
        place = number % len(images)
        time.sleep(REST)
        theirs.append(peer.ms(place))
        for name, model in sides.items():
            time.sleep(REST)
            took, mask = in_a_row(partial(mask_of, model, images[place]), least=LEAST)
            times[name].append(1000 * took)
            assert mask.shape == IMAGE_HW
    return {name: one[WARM_UP:] for name, one in times.items()}, theirs[WARM_UP:]


def mask_of(model: tz.Predictor, image: np.ndarray) -> np.ndarray:
    return model(image).mask


def measure_files(
    sides: dict[str, tz.Predictor], peer: "Peer", folder: Path, repeats: int
) -> dict[str, float]:
    """Return the median milliseconds from a JPEG file to the PNG file of its mask, the peer's as "transformers"."""
    times: dict[str, list[float]] = {"transformers": [], **{name: [] for name in TARGETS}}
    photos = sorted(folder.glob("frame*.jpg"))

    def predicted(model: tz.Predictor, photo: Path) -> None:
        write_mask(folder / "ours.png", model(read_image(photo)).mask, durable=False)

    for number in range(WARM_UP + repeats):
        place = number % len(photos)
        time.sleep(REST)
        times["transformers"].append(peer.file_ms(place))
        for name in TARGETS:
            time.sleep(REST)
            took, _ = in_a_row(partial(predicted, sides[name], photos[place]), least=LEAST)
            times[name].append(1000 * took)
    return {name: statistics.median(one[WARM_UP:]) for name, one in times.items()}


def told(
    args: argparse.Namespace,
    sides: dict[str, tz.Predictor],
    equal: dict[str, float],
    times: dict[str, list[float]],
    theirs: list[list[float]],
    files_ms: dict[str, float],
    proofs: dict[str, dict[str, float]],
    files: dict[str, int],
    versions: dict[str, str],
) -> int:
    """Print the card and the line of JSON; return the exit code."""
    processor = environment.model_of("cpu")
    whole = [sum(parts) for parts in theirs]
    median = {name: statistics.median(one) for name, one in times.items()}
    ratio = {name: statistics.median(whole) / median[name] for name in TARGETS}
    lost = {name: 100 * (one["torch"] - one["exported"]) for name, one in proofs.items()}
    int8_speed = median["f32, 11 classes"] / median["int8, 11 classes"]
    misses = [name for name, target in TARGETS.items() if ratio[name] < target]
    misses += ["equal pixels"] * (equal["f32"] < EQUAL) + ["int8 mIoU"] * (lost["int8"] > 1.0)
    misses += ["int8 file"] * (files["int8"] * 3 > files["f32"]) + ["int8 speed"] * (int8_speed < 1.0)
    print(
        f"1080p RGB to class map, SegFormer-B0, {NUM_CLASSES} classes, {args.threads} threads of {processor}"
    )
    parts = " + ".join(f"{statistics.median(one):.0f}" for one in zip(*theirs, strict=True))
    print(
        f"  transformers      {statistics.median(whole):7.1f} ms ({parts}: processor, model, interpolate and argmax)"
    )
    for name in TARGETS:
        print(f"  {f'{name}, terrazzo':17} {median[name]:7.1f} ms ({min(times[name]):.1f} to {max(times[name]):.1f}), "
              f"{ratio[name]:.1f}x (target {TARGETS[name]:.0f}), {equal[name]:.4%} equal pixels, "
              f"{sides[name].backend}")  # fmt: skip
    said = (
        f"{name} {files_ms[name]:.1f} ms, {files_ms['transformers'] / files_ms[name]:.1f}x"
        for name in TARGETS
    )
    print(f"  JPEG to PNG       transformers {files_ms['transformers']:.1f} ms; {'; '.join(said)}")
    for name in ("bf16", "int8"):
        of = f"of {100 * proofs[name]['torch']:.2f}"
        print(f"  mIoU {name:12} {100 * proofs[name]['exported']:.2f}, {lost[name]:+.2f} lost {of}")
    print(f"  int8 file         {files['int8'] / files['f32']:.2f} of f32's; {int8_speed:.2f}x as fast")
    print(f"  {'all reached' if not misses else 'missed: ' + ', '.join(misses)}")
    card: dict[str, Any] = {
        "bench": "predict", "device": processor, "threads": args.threads, "classes": NUM_CLASSES,
        "image_hw": list(IMAGE_HW), "peer_ms": round(statistics.median(whole), 1),
        "terrazzo_ms": {name: round(one, 1) for name, one in median.items()},
        "range_ms": {name: [round(min(one), 1), round(max(one), 1)] for name, one in times.items()},
        "ratio": {name: round(one, 2) for name, one in ratio.items()}, "target": TARGETS, "equal_pixels": equal,
        "jpeg_to_png_ms": {name: round(one, 1) for name, one in files_ms.items()},
        "miou": proofs, "miou_lost": {name: round(one, 3) for name, one in lost.items()},
        "int8_file": round(files["int8"] / files["f32"], 3), "int8_speed": round(int8_speed, 2),
        "backend": {name: model.backend for name, model in sides.items()}, "peer": versions,
        "reached": not misses,
    }  # fmt: skip
    print(json.dumps(card))
    return 0 if not misses else 1


class Peer:
    """The post's code in a child process, with our weights."""

    def __init__(self, model: Path, images: np.ndarray, threads: int, scratch: Path) -> None:
        np.save(scratch / "images.npy", images)
        for place, image in enumerate(images):
            Image.fromarray(image).save(scratch / f"frame{place:03}.jpg", quality=92)
        command = [sys.executable, HERE / "peers" / "hf_predict.py", "--model", model, "--threads", threads,
                   "--images", scratch / "images.npy", "--masks", scratch / "masks.npy"]  # fmt: skip
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.versions: dict[str, str] = json.loads(self._line())
        self.masks = np.load(scratch / "masks.npy")

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def ms(self, place: int) -> list[float]:
        """Let it predict one image; returns the milliseconds of its parts."""
        return self._asked(str(place))

    def file_ms(self, place: int) -> float:
        """Let it go from one JPEG file to a PNG file; returns the milliseconds."""
        return sum(self._asked(f"file {place}"))

    def _asked(self, line: str) -> list[float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        times: list[float] = json.loads(self._line())
        return times

    def _line(self) -> str:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line[0] in "{[":
                return line
        raise SystemExit(f"The peer ended with exit code {self.process.wait()}.")


if __name__ == "__main__":
    sys.exit(main())
