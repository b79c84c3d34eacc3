"""One training step, terrazzo's beside transformers', in one process.

    python bench/step.py [--model b0] [--batch 2] [--size 512] [--classes 35] [--threads 2]
                         [--device cpu|cuda] [--precision f32|bf16] [--peer-precision f32] [--repeats 9] [--steps 50]
                         [--compile]

A step is forward, loss, backward, AdamW and clearing the gradients, on the same random images and masks (blobs of
classes, a tenth ignored), with dropout and stochastic depth on as each side trains. The two take turns, so that
whatever slows the machine slows both; medians after warm-up. Afterwards both train `--steps` steps from the same
weights without dropout, to show that it is the same training: the largest relative difference of the loss is printed.
--compile: terrazzo's side as `train.compile` has it; it has no target.
The last line is JSON. Exit code 1 when the ratio is below the target: on a CPU 2.5 in f32, and 4 in bf16
beside transformers in f32.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

import terrazzo
from terrazzo.classes import Classes
from terrazzo.compiled import compiled
from terrazzo.devices import autocast
from terrazzo.environment import model_of
from terrazzo.nn import ModelConfig, build
from terrazzo.nn.losses import LossConfig, SegmentationLoss
from terrazzo.nn.segformer import SegFormer
from terrazzo.nn.segformer_files import model_config, stored_name
from terrazzo.optim import OptimConfig, build_optimizer

TARGETS = {("cpu", "f32", "f32"): 2.5, ("cpu", "bf16", "f32"): 4.0}  # device, ours, theirs
IGNORE = 255
WARM_UP = 3


def main() -> int:
    args = arguments()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    image_BCHW, mask_BHW = batch(args, device)
    ours, theirs = measure(args, device, image_BCHW, mask_BHW)
    ratio = theirs.median_ms / ours.median_ms
    sides = (device.type, args.precision, args.peer_precision or args.precision)
    target = None if args.compile else TARGETS.get(sides)
    result = {
        "bench": "step",
        "model": args.model,
        "batch": args.batch,
        "size_hw": [args.size, args.size],
        "classes": args.classes,
        "precision": args.precision,
        "peer_precision": args.peer_precision or args.precision,
        "device": model_of(str(device)),
        "threads": args.threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "terrazzo": terrazzo.__version__,
        "terrazzo_ms": round(ours.median_ms, 1),
        "terrazzo_range_ms": [round(min(ours.ms), 1), round(max(ours.ms), 1)],
        "transformers_ms": round(theirs.median_ms, 1),
        "transformers_range_ms": [round(min(theirs.ms), 1), round(max(theirs.ms), 1)],
        "peak_memory_mib": [ours.peak_mib, theirs.peak_mib],
        "ratio": round(ratio, 3),
        "target": target,
        "compile": args.compile,
    }
    print(f"{model_of(str(device))}, {args.threads} threads")
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, terrazzo {terrazzo.__version__}"
    )
    how = ", terrazzo compiled" if args.compile else ""
    print(
        f"SegFormer-{args.model.upper()}, {args.classes} classes, {args.batch} x {args.size}x{args.size}{how}"
    )
    for name, side in (("transformers", theirs), ("terrazzo", ours)):
        memory = f", peak {side.peak_mib} MiB" if side.peak_mib else ""
        print(
            f"  {name:13} {side.median_ms:9.1f} ms a step ({min(side.ms):.1f} to {max(side.ms):.1f}){memory}"
        )
    print(f"  ratio {ratio:.2f}" + (f", target {target}" if target else ""))
    if args.steps:
        losses = curves(args, device, image_BCHW, mask_BHW)
        difference = max(abs(our - their) / abs(their) for our, their in losses)
        (first, _), (last, _) = losses[0], losses[-1]
        result |= {"loss_steps": args.steps, "loss_first": first, "loss_last": last}
        result |= {"loss_largest_relative_difference": difference}
        print(
            f"  loss over {args.steps} steps from the same weights without dropout: {first:.4f} -> {last:.4f}"
        )
        print(f"  largest relative difference of the two losses: {difference:.1e}")
    print(json.dumps(result))
    return int(target is not None and ratio < target)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="b0", choices=["b0", "b1", "b2", "b3", "b4", "b5"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--classes", type=int, default=35)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--peer-precision", choices=["f32", "bf16"], help="the same by default")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--steps", type=int, default=50, help="steps of the loss comparison; 0 leaves it out")
    parser.add_argument("--compile", action="store_true", help="terrazzo's side under torch.compile")
    return parser.parse_args()


def batch(args: argparse.Namespace, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images float32 in [0, 1] and masks int64 of blobs of classes, a tenth of the pixels ignored."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(args.batch, 3, args.size, args.size, generator=generator)
    cells = torch.randint(0, args.classes, (args.batch, 1, 16, 16), generator=generator).float()
    mask = F.interpolate(cells, (args.size, args.size), mode="nearest")[:, 0].long()
    mask[torch.rand(mask.shape, generator=generator) < 0.1] = IGNORE
    return image.to(device), mask.to(device)


def pair(args: argparse.Namespace, device: torch.device, *, noise: float) -> tuple[SegFormer, nn.Module]:
    """Ours and transformers' model with the same weights; noise: dropout of the head and stochastic depth."""
    torch.manual_seed(0)
    ours = build(
        ModelConfig(f"segformer-{args.model}", dropout=noise, drop_path=noise), num_classes=args.classes
    )
    assert isinstance(ours, SegFormer)
    theirs = transformers.SegformerForSemanticSegmentation(peer_config(ours))
    copy_weights(ours, theirs)
    return ours.to(device).train(), theirs.to(device).train()


def peer_config(network: SegFormer) -> "transformers.SegformerConfig":
    classes = Classes(tuple(f"class {class_id}" for class_id in range(network.num_classes)))
    return transformers.SegformerConfig(**model_config(network, classes))


def copy_weights(ours: SegFormer, theirs: nn.Module) -> None:
    tensors = ours.state_dict()
    theirs.load_state_dict({name: tensors[stored_name(name)] for name in theirs.state_dict()})


def steppers(
    args: argparse.Namespace,
    device: torch.device,
    image_BCHW: Tensor,
    mask_BHW: Tensor,
    *,
    noise: float,
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Return two functions that do one training step each and return its loss."""
    ours, theirs = pair(args, device, noise=noise)
    optim = OptimConfig(lr=6e-4, head_lr_factor=1.0)
    our_optimizer = build_optimizer(ours, optim)
    names = {id(parameter): name for name, parameter in ours.named_parameters()}
    decayed = {
        names[id(p)] for group in our_optimizer.param_groups if group["weight_decay"] for p in group["params"]
    }
    their_optimizer = torch.optim.AdamW(peer_groups(theirs, decayed, optim), lr=optim.lr, fused=True)
    loss_fn = SegmentationLoss(LossConfig(), None, IGNORE)
    weight = loss_fn.pixel_weight(mask_BHW.cpu())
    normalised = (image_BCHW - ours.mean) / ours.std

    called = compiled(ours) if args.compile else ours

    def our_step() -> Tensor:
        with autocast(args.precision, device):
            output = called(image_BCHW)
        loss = sum(loss_fn(output, mask_BHW, weight=weight).values(), start=torch.zeros((), device=device))
        loss.backward()
        our_optimizer.step()
        our_optimizer.zero_grad()
        return loss.detach()

    def their_step() -> Tensor:
        with autocast(args.peer_precision or args.precision, device):
            loss = theirs(pixel_values=normalised, labels=mask_BHW).loss
        loss.backward()
        their_optimizer.step()
        their_optimizer.zero_grad()
        return loss.detach()

    return our_step, their_step


def peer_groups(theirs: nn.Module, decayed: set[str], optim: OptimConfig) -> list[dict[str, object]]:
    """Transformers' parameters with the same decay as ours."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in theirs.named_parameters():
        groups[stored_name(name) in decayed].append(parameter)
    return [
        {"params": parameters, "weight_decay": optim.weight_decay if is_decayed else 0.0}
        for is_decayed, parameters in groups.items()
    ]


@dataclass
class Side:
    """What one side took."""

    ms: list[float] = field(default_factory=list)
    peak_mib: int = 0

    @property
    def median_ms(self) -> float:
        return statistics.median(self.ms)


def measure(
    args: argparse.Namespace, device: torch.device, image_BCHW: Tensor, mask_BHW: Tensor
) -> tuple[Side, Side]:
    """Time steps of ours and of transformers in turn."""
    sides = (Side(), Side())
    steps = steppers(args, device, image_BCHW, mask_BHW, noise=0.1)
    for turn in range(WARM_UP + args.repeats):
        for side, step in zip(sides, steps, strict=True):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
                side.peak_mib = round(torch.cuda.max_memory_allocated() / 2**20)
            if turn >= WARM_UP:
                side.ms.append((time.perf_counter() - start) * 1000)
    return sides


def curves(
    args: argparse.Namespace, device: torch.device, image_BCHW: Tensor, mask_BHW: Tensor
) -> list[tuple[float, float]]:
    """Train both from the same weights without dropout; returns (our loss, their loss) of each step."""
    our_step, their_step = steppers(args, device, image_BCHW, mask_BHW, noise=0.0)
    return [(our_step().item(), their_step().item()) for _ in range(args.steps)]


if __name__ == "__main__":
    sys.exit(main())
