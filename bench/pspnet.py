"""PSPNet R50-d8 from image to logits, terrazzo's network beside MMSegmentation's own in a child process.

    python bench/pspnet.py [--size 512x1024] [--threads 2] [--repeats 9] [--device cpu|cuda]
                           [--precision f32|bf16] [--peer-precision f32|bf16] [--depth 50] [--backend auto]
                           [--peer-python PATH]

Both hold the same weights (random, batch norm statistics not trivial), see the same image, have equal threads
and take turns, so that whatever slows the machine slows both; medians after warm-up. MMSegmentation runs
in float32 unless told otherwise. Its environment is made on first use (bench/peers/environments.py); with --peer-python
one that is already there is used. Prints a card and one line of JSON; exit code 1 when the logits differ or the ratio
is below the target (on a CPU at 512x1024: 2.5 in f32, 5 in bf16). terrazzo's network runs in what `tz.load` takes by
itself, OpenVINO on a CPU where it is installed; --backend torch runs it eagerly, as MMSegmentation's is run.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peers.child import Child
from peers.openmmlab import openmmlab_environment
from terrazzo import environment
from terrazzo.converted import choose_backend
from terrazzo.devices import autocast
from terrazzo.nn import ModelConfig, build
from terrazzo.nn.segmenter import Segmenter

TARGETS = {("cpu", "f32"): 2.5, ("cpu", "bf16"): 5.0}  # at 512x1024
CLOSE = {"f32": 1e-4, "bf16": 0.1}  # largest difference of logits, in their standard deviations
WARM_UP = 2
CHILD = Path(__file__).parent / "peers" / "mmseg_network.py"


def main() -> int:
    """Measure, print, and return the exit code."""
    args = arguments()
    torch.set_num_threads(args.threads)
    network = lively(args.depth).eval()
    image = torch.randn(1, 3, *args.size, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as scratch:
        peer, logits = peer_of(args, network, image, Path(scratch))
        forward, says = forward_of(network, image, args)
        try:
            difference = largest_difference(forward(), logits)
            ours, theirs = measure(args, forward, peer)
        finally:
            peer.close()
    ratio = statistics.median(theirs) / statistics.median(ours)
    target = TARGETS.get((args.device, args.precision)) if args.size == (512, 1024) else None
    reached = (target is None or ratio >= target) and difference <= CLOSE[args.precision]
    processor = environment.model_of(args.device)
    print(f"PSPNet R{args.depth}-d8, {args.size[0]}x{args.size[1]}, {args.threads} threads of {processor}")
    for name, ms in (("mmseg", theirs), ("terrazzo", ours)):
        says_more = f", {says}" if name == "terrazzo" else ""
        print(f"  {name:9} {statistics.median(ms):9.1f} ms ({min(ms):.1f} to {max(ms):.1f}){says_more}")
    print(f"  ratio {ratio:.2f}" + (f", target {target}" if target else ""))
    print(f"  largest difference {difference:.1e} of the logits' deviation")
    card: dict[str, Any] = {
        "bench": "pspnet", "depth": args.depth, "size_hw": list(args.size), "device": processor,
        "threads": args.threads, "precision": args.precision, "peer_precision": args.peer_precision,
        "torch": torch.__version__, "peer": peer.versions, "backend": says,
        "terrazzo_ms": round(statistics.median(ours), 1), "terrazzo_range_ms": [round(f(ours), 1) for f in (min, max)],
        "mmseg_ms": round(statistics.median(theirs), 1), "mmseg_range_ms": [round(f(theirs), 1) for f in (min, max)],
        "largest_difference": difference, "ratio": round(ratio, 3), "target": target, "reached": reached,
    }  # fmt: skip
    print(json.dumps(card))
    return 0 if reached else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=size_hw, default=(512, 1024), help="height x width, such as 512x1024")
    parser.add_argument("--depth", type=int, default=50, choices=[50, 101])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--peer-precision", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--backend", default="auto", choices=["auto", "torch", "openvino", "onnx"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--peer-python", type=Path, help="the Python of an environment that has mmseg")
    return parser.parse_args()


def size_hw(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


def lively(depth: int) -> Segmenter:
    """A PSPNet with random weights, and norms away from their trivial start, so that no branch is idle."""
    torch.manual_seed(0)
    network = build(
        ModelConfig("pspnet", backbone=f"resnet{depth}_v1c"), num_classes=19, mean=(0,) * 3, std=(1,) * 3
    )
    assert isinstance(network, Segmenter)
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1 and name.endswith(("weight", "running_var")):
            tensor.uniform_(0.5, 1.0)
        elif tensor.ndim == 1 and name.endswith(("bias", "running_mean")):
            tensor.normal_(std=0.1)
    return network


def forward_of(
    network: Segmenter, image: Tensor, args: argparse.Namespace
) -> tuple[Callable[[], Tensor], str]:
    """Return what passes the image through the network, and what runs it."""
    if args.device == "cpu":
        backend, _ = choose_backend(network, backend=args.backend, device="cpu", precision=args.precision)
        array = image.numpy()
        return lambda: torch.from_numpy(backend(array)), backend.says
    network, image = network.to(args.device), image.to(args.device)

    def run() -> Tensor:
        with torch.no_grad(), autocast(args.precision, image.device):
            logits = network(image).logits
        torch.cuda.synchronize()
        return logits

    return run, f"PyTorch {torch.__version__}, {args.precision}"


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    return ((ours.float().cpu() - theirs).abs().max() / theirs.std()).item()


def measure(
    args: argparse.Namespace, forward: Callable[[], Tensor], peer: Child
) -> tuple[list[float], list[float]]:
    """Return the milliseconds of each forward pass, ours and theirs, taken in turn."""
    ours, theirs = [], []
    for _ in range(WARM_UP + args.repeats):
        start = time.perf_counter()
        forward()
        ours.append(1000 * (time.perf_counter() - start))
        theirs.append(peer.ask())
    return ours[WARM_UP:], theirs[WARM_UP:]


def peer_of(
    args: argparse.Namespace, network: Segmenter, image: Tensor, scratch: Path
) -> tuple[Child, Tensor]:
    """Return MMSegmentation in a child process, with our weights, and the logits it has for the image."""
    weights, image_file, logits = scratch / "weights.pt", scratch / "image.npy", scratch / "logits.npy"
    torch.save({their_name(name): tensor.cpu() for name, tensor in network.state_dict().items()}, weights)
    np.save(image_file, image.numpy())
    command = [args.peer_python or openmmlab_environment(), CHILD, "--weights", weights, "--image", image_file,
               "--logits", logits, "--depth", args.depth, "--threads", args.threads, "--device", args.device,
               "--precision", args.peer_precision]  # fmt: skip
    child = Child("MMSegmentation", command, threads=args.threads)
    return child, torch.from_numpy(np.load(logits))


def their_name(name: str) -> str:
    for ours, theirs in (
        ("head.", "decode_head."),
        ("auxiliary.", "auxiliary_head."),
    ):
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
    return name.replace(".classifier.", ".conv_seg.")


if __name__ == "__main__":
    sys.exit(main())
