"""Training steps on a GPU, terrazzo's beside those of transformers and of MMSegmentation's form, in bf16.

    python bench/step_gpu.py [--models b0 b2] [--batch 16] [--size 512] [--classes 150] [--steps 30] [--blocks 5]

A step begins with a batch in pinned host memory, float32 images and masks, and ends with the optimiser's: copy,
forward, loss, backward, clipping at 1, fused AdamW. One side runs at a time, with the memory of the device to itself:
the median of `--blocks` blocks of `--steps` steps that are waited for together, and the most memory that torch's
allocator took.

- terrazzo: the network, loss, optimiser and recorded micro-batch of `terrazzo train`.
- transformers: SegformerForSemanticSegmentation with its loss, in a plain loop under autocast.
- transformers.Trainer: the same in its Trainer, bf16=True, with eight workers that hand out samples from memory.
- MMSegmentation's form: transformers' encoder and the head as MMSegmentation has it (a convolution, batch norm and ReLU
  for each stage, maps resized and concatenated), logits resized to the masks; eager, as their loop runs it.

The last line is JSON. Exit code 1 where a target is missed: 3 times the images of the Trainer, 2 of the form of
MMSegmentation, and half of the memory of transformers' plain loop.
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

import terrazzo
from terrazzo.classes import Classes
from terrazzo.environment import model_of
from terrazzo.meter import hits
from terrazzo.nn import ModelConfig, build
from terrazzo.nn.losses import LossConfig, SegmentationLoss
from terrazzo.nn.segformer import SegFormer
from terrazzo.nn.segformer_files import model_config
from terrazzo.optim import OptimConfig, build_optimizer
from terrazzo.recorded import Recorded

IGNORE, CLIP, WARM_UP = 255, 1.0, 8
DEVICE = torch.device("cuda")
TARGETS = {"transformers.Trainer": 3.0, "MMSegmentation's form": 2.0}  # times its images a second
MEMORY = 0.5  # of transformers'
Step = Callable[[], object]


def main() -> int:
    """Measure, print, and return the exit code."""
    args = arguments()
    if not torch.cuda.is_available():
        print(json.dumps({"bench": "step_gpu", "skipped": "no CUDA device"}))
        return 0
    results, missed = [], []
    for model in args.models:
        one = {"model": model, **measured(args, model)}
        results.append(one)
        missed += told(args, one)
    print(
        json.dumps(
            {
                "bench": "step_gpu", "device": model_of("cuda"), "batch": args.batch, "classes": args.classes,
                "size_hw": [args.size, args.size], "precision": "bf16", "results": results, "targets": TARGETS,
                "torch": torch.__version__, "transformers": transformers.__version__,
                "terrazzo": terrazzo.__version__, "missed": missed,
            }
        )
    )  # fmt: skip
    return int(bool(missed))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["b0", "b2"])
    for name, default in (("batch", 16), ("size", 512), ("classes", 150), ("steps", 30), ("blocks", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def measured(args: argparse.Namespace, model: str) -> dict[str, Any]:
    """Return images a second and MiB of each side."""
    image_BCHW, mask_BHW = batch(args)
    network = build(ModelConfig(f"segformer-{model}"), num_classes=args.classes)
    assert isinstance(network, SegFormer)
    config = transformers.SegformerConfig(
        **model_config(network, Classes(tuple(f"class {i}" for i in range(args.classes))))
    )
    normalised = ((image_BCHW - network.mean) / network.std).pin_memory()
    sides: dict[str, Callable[[], Iterator[float]]] = {
        "terrazzo": lambda: timed(args, ours(network, image_BCHW, mask_BHW.to(torch.uint8).pin_memory())),
        "transformers": lambda: timed(args, theirs(config, normalised, mask_BHW)),
        "MMSegmentation's form": lambda: timed(args, mmseg_form(config, args, normalised, mask_BHW)),
        "transformers.Trainer": lambda: trainer(args, config, normalised, mask_BHW),
    }
    images: dict[str, float] = {}
    ranges: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    for name, side in sides.items():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        rates = [args.batch / seconds for seconds in side()]
        memory[name] = round(torch.cuda.max_memory_reserved() / 2**20)
        images[name] = round(statistics.median(rates), 1)
        ranges[name] = [round(min(rates), 1), round(max(rates), 1)]
        gc.collect()
    return {"images_per_second": images, "range": ranges, "memory_mib": memory}


def told(args: argparse.Namespace, one: dict[str, Any]) -> list[str]:
    """Print a side a line; return the targets that were missed."""
    rates, memory = one["images_per_second"], one["memory_mib"]
    print(
        f"SegFormer-{one['model'].upper()}, {args.classes} classes, {args.batch} x {args.size}x{args.size}, bf16, "
        f"{model_of('cuda')}"
    )
    missed = []
    for name, rate in rates.items():
        ratio = rates["terrazzo"] / rate
        low, high = one["range"][name]
        target = f", target {TARGETS[name]:.0f}x" if name in TARGETS else ""
        print(
            f"  {name:22} {rate:8.1f} images/s ({low:.0f} to {high:.0f}), {1000 * args.batch / rate:6.2f} ms a step, "
            f"{memory[name]:6,} MiB; {ratio:.2f}x{target}"
        )
        if ratio < TARGETS.get(name, 0):
            missed.append(f"{one['model']}: {ratio:.2f} of {TARGETS[name]} x {name}")
    share = memory["terrazzo"] / memory["transformers"]
    print(f"  memory {share:.2f} of transformers', target {MEMORY}")
    return missed + ([f"{one['model']}: memory {share:.2f}"] if share > MEMORY else [])


def batch(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] and int64 masks of blobs of classes, a tenth of the pixels ignored, in pinned memory."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(args.batch, 3, args.size, args.size, generator=generator)
    cells = torch.randint(0, args.classes, (args.batch, 1, 16, 16), generator=generator).float()
    mask = F.interpolate(cells, (args.size, args.size), mode="nearest")[:, 0].long()
    mask[torch.rand(mask.shape, generator=generator) < 0.1] = IGNORE
    return image.pin_memory(), mask.pin_memory()


def timed(args: argparse.Namespace, step: Step) -> Iterator[float]:
    """Yield the seconds a step takes, block by block."""
    for _ in range(WARM_UP):
        step()
    for _ in range(args.blocks):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(args.steps):
            step()
        torch.cuda.synchronize()
        yield (time.perf_counter() - began) / args.steps


def ours(network: SegFormer, image_BCHW: Tensor, mask_BHW: Tensor) -> Step:
    network = network.to(DEVICE).train()
    parameters = list(network.parameters())
    optimizer = build_optimizer(network, OptimConfig(lr=6e-5))
    loss_fn = SegmentationLoss(LossConfig(), None, IGNORE)
    weight = loss_fn.pixel_weight(mask_BHW)

    def one_pass(
        image_BCHW: Tensor, mask_BHW: Tensor, weight: Tensor | float
    ) -> tuple[dict[str, Tensor], Tensor]:
        with torch.autocast("cuda", torch.bfloat16):
            output = network(image_BCHW)
        parts = loss_fn(output, mask_BHW, weight=weight)
        torch.stack(list(parts.values())).sum().backward()
        right = hits(output.logits, mask_BHW, ignore=IGNORE)
        return {name: part.detach() for name, part in parts.items()}, right

    recorded = Recorded(one_pass, parameters, DEVICE, micro_batches=1)

    def step() -> None:
        recorded(image_BCHW, mask_BHW, weight)
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        recorded.clear(optimizer)

    return step


def theirs(config: "transformers.SegformerConfig", image_BCHW: Tensor, mask_BHW: Tensor) -> Step:
    model = transformers.SegformerForSemanticSegmentation(config).to(DEVICE).train()
    return eager(model, lambda image, mask: model(pixel_values=image, labels=mask).loss, image_BCHW, mask_BHW)


def eager(
    model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor], image_BCHW: Tensor, mask_BHW: Tensor
) -> Step:
    """A plain loop's step."""
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=6e-5, fused=True)

    def step() -> None:
        image, mask = (one.to(DEVICE, non_blocking=True) for one in (image_BCHW, mask_BHW))
        with torch.autocast("cuda", torch.bfloat16):
            loss = loss_of(image, mask)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad()

    return step


class MMSegHead(nn.Module):
    """SegFormer's head as MMSegmentation has it, in its order of operations."""

    def __init__(self, widths: list[int], channels: int, num_classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv_norm_relu(width, channels) for width in widths)
        self.fusion = _conv_norm_relu(channels * len(widths), channels)
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        size_hw = maps[0].shape[2:]
        each = [
            F.interpolate(conv(x), size=size_hw, mode="bilinear", align_corners=False)
            for conv, x in zip(self.convs, maps, strict=True)
        ]
        logits: Tensor = self.classifier(self.dropout(self.fusion(torch.cat(each, dim=1))))
        return logits


def _conv_norm_relu(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def mmseg_form(
    config: "transformers.SegformerConfig", args: argparse.Namespace, image_BCHW: Tensor, mask_BHW: Tensor
) -> Step:
    encoder = transformers.SegformerModel(config)
    head = MMSegHead(list(config.hidden_sizes), 256, args.classes)  # 256: theirs for every size
    model = nn.ModuleDict({"encoder": encoder, "head": head}).to(DEVICE).train()

    def loss_of(image: Tensor, mask: Tensor) -> Tensor:
        maps = encoder(pixel_values=image, output_hidden_states=True).hidden_states
        logits = F.interpolate(head(list(maps)), size=mask.shape[1:], mode="bilinear", align_corners=False)
        return F.cross_entropy(logits, mask, ignore_index=IGNORE)

    return eager(model, loss_of, image_BCHW, mask_BHW)


class Samples(torch.utils.data.Dataset[dict[str, Tensor]]):
    """The batch's samples, again and again."""

    def __init__(self, image_BCHW: Tensor, mask_BHW: Tensor) -> None:
        self.image_BCHW, self.mask_BHW = image_BCHW.clone(), mask_BHW.clone()  # workers want no pinned memory

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        place %= len(self.image_BCHW)
        return {"pixel_values": self.image_BCHW[place], "labels": self.mask_BHW[place]}


class Clock(transformers.TrainerCallback):
    """Notes when every so-manieth step is done."""

    def __init__(self, every: int) -> None:
        self.every, self.times = every, list[float]()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.every == 0:
            torch.cuda.synchronize()
            self.times.append(time.perf_counter())


def trainer(
    args: argparse.Namespace, config: "transformers.SegformerConfig", image_BCHW: Tensor, mask_BHW: Tensor
) -> Iterator[float]:
    """Yield the seconds a step of the Trainer takes, block by block."""
    model = transformers.SegformerForSemanticSegmentation(config)
    clock = Clock(args.steps)
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            output_dir=folder, per_device_train_batch_size=args.batch, bf16=True, report_to=[],
            max_steps=args.steps * (args.blocks + 1), save_strategy="no", logging_steps=args.steps,
            dataloader_num_workers=8, disable_tqdm=True, remove_unused_columns=False, learning_rate=6e-5,
            max_grad_norm=CLIP, optim="adamw_torch_fused",
        )  # fmt: skip
        transformers.Trainer(
            model=model, args=settings, train_dataset=Samples(image_BCHW, mask_BHW), callbacks=[clock]
        ).train()
    for began, ended in zip(clock.times, clock.times[1:], strict=False):
        yield (ended - began) / args.steps


if __name__ == "__main__":
    sys.exit(main())
