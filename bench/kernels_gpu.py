"""The kernels on a GPU, each beside what torch or torchmetrics does with the same tensors.

    python bench/kernels_gpu.py

Times are medians of device events after warm-up (triton.testing.do_bench); memory is the most that a call takes beyond
its inputs. Results are compared first. The last line is JSON; exit code 1 where one differs.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from terrazzo.environment import model_of
from terrazzo.kernels.confusion import confusion
from terrazzo.kernels.resize_argmax import resize_argmax
from terrazzo.kernels.resize_cross_entropy import resize_cross_entropy

IGNORE = 255
DEVICE = "cuda"


def main() -> int:
    """Measure, print, and return the exit code."""
    if not torch.cuda.is_available():
        print(json.dumps({"bench": "kernels_gpu", "skipped": "no CUDA device"}))
        return 0
    torch.manual_seed(0)
    results = [*losses(), *masks(), *counts()]
    print(f"{model_of(DEVICE)}, torch {torch.__version__}")
    for one in results:
        peers = "; ".join(
            f"{name} {ms:.3f} ms ({ms / one['ms']:.1f}x), {one['peer_mib'][name]:,} MiB"
            for name, ms in one["peers_ms"].items()
        )
        print(f"  {one['what']}: {one['ms']:.3f} ms, {one['mib']:,} MiB; {peers}; {one['same']}")
    is_same = all(one["is_same"] for one in results)
    print(json.dumps({"bench": "kernels_gpu", "device": model_of(DEVICE), "torch": torch.__version__,
                      "results": results, "same": is_same}))  # fmt: skip
    return int(not is_same)


def row(
    what: str, ours: Callable[[], object], peers: dict[str, Callable[[], object]], same: str, is_same: bool
) -> dict[str, Any]:
    """Time one kernel and its peers."""
    measured = {name: (milliseconds(call), mib(call)) for name, call in {"": ours, **peers}.items()}
    ms, memory = measured.pop("")
    return {
        "what": what, "ms": round(ms, 4), "mib": memory, "same": same, "is_same": is_same,
        "peers_ms": {name: round(one, 4) for name, (one, _) in measured.items()},
        "peer_mib": {name: one for name, (_, one) in measured.items()},
    }  # fmt: skip


def milliseconds(call: Callable[[], object]) -> float:
    from triton.testing import do_bench

    found: float = do_bench(call, warmup=20, rep=80, return_mode="median")
    return found


def mib(call: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return round((torch.cuda.max_memory_allocated() - before) / 2**20)


def losses() -> list[dict[str, Any]]:
    """Cross-entropy at the masks' size, with its gradient."""
    rows = []
    for num_classes in (19, 150):
        logits = torch.randn(16, num_classes, 128, 128, device=DEVICE, dtype=torch.bfloat16).requires_grad_()
        target = blobs((16, 512, 512), num_classes)
        wide = target.long()

        def ours(logits: Tensor = logits, target: Tensor = target) -> tuple[Tensor, Tensor]:
            loss = resize_cross_entropy(logits, target, ignore=IGNORE)
            return loss, torch.autograd.grad(loss, logits)[0]

        def theirs(logits: Tensor = logits, target: Tensor = wide) -> tuple[Tensor, Tensor]:
            full = F.interpolate(logits.float(), target.shape[1:], mode="bilinear", align_corners=False)
            loss = F.cross_entropy(full, target, ignore_index=IGNORE, reduction="sum")
            return loss, torch.autograd.grad(loss, logits)[0]

        (loss, grad), (wanted, wanted_grad) = ours(), theirs()
        off = float((loss - wanted).abs() / wanted)
        grad_off = float((grad.float() - wanted_grad.float()).norm() / wanted_grad.float().norm())
        rows.append(
            row(
                f"loss and gradient, 16 x 512x512, {num_classes} classes, bf16 logits at stride 4",
                ours, {"torch": theirs},
                f"loss off by {off:.1e}, gradient by {grad_off:.1e} (bf16 rounds at 3.9e-03)",
                off < 1e-6 and grad_off < 4e-3,
            )
        )  # fmt: skip
    return rows


def masks() -> list[dict[str, Any]]:
    """Logits to the mask."""
    rows = []
    for num_classes in (19, 150):
        logits = torch.randn(num_classes, 128, 128, device=DEVICE)

        def ours(logits: Tensor = logits) -> Tensor:
            return resize_argmax(logits, (1080, 1920))[0]

        def theirs(logits: Tensor = logits) -> Tensor:
            full = F.interpolate(logits[None], (1080, 1920), mode="bilinear", align_corners=False)
            return full.argmax(1)[0]

        equal = float((ours() == theirs()).float().mean())
        rows.append(
            row(f"logits 128x128 to a mask 1080x1920, {num_classes} classes", ours, {"torch": theirs},
                f"{equal:.4%} of the pixels equal", equal > 0.9999)
        )  # fmt: skip
    return rows


def counts() -> list[dict[str, Any]]:
    """Confusion counts, until they are on the CPU."""
    from torchmetrics.classification import MulticlassConfusionMatrix

    rows = []
    for num_classes, shape in ((19, (8, 1024, 2048)), (150, (16, 512, 512))):
        mask = blobs(shape, num_classes)
        pred = mask.roll(3, 2)
        pred[pred == IGNORE] = 0
        wide_mask, wide_pred = mask.long(), pred.long()
        metric = MulticlassConfusionMatrix(num_classes, ignore_index=IGNORE, validate_args=False).to(DEVICE)

        def ours(pred: Tensor = pred, mask: Tensor = mask, num_classes: int = num_classes) -> Any:
            return confusion(pred, mask, num_classes, IGNORE)

        def theirs(
            pred: Tensor = wide_pred, mask: Tensor = wide_mask, metric: MulticlassConfusionMatrix = metric
        ) -> Any:
            metric.reset()
            metric.update(pred, mask)
            return metric.compute().cpu().numpy()

        def counted(
            pred: Tensor = wide_pred, mask: Tensor = wide_mask, num_classes: int = num_classes
        ) -> Any:
            kept = mask != IGNORE
            cells = torch.bincount(mask[kept] * num_classes + pred[kept], minlength=num_classes**2)
            return cells.view(num_classes, num_classes).cpu().numpy()

        is_same = bool((ours() == theirs()).all() and (ours() == counted()).all())
        rows.append(
            row(f"counts of {shape[0]} x {shape[1]}x{shape[2]}, {num_classes} classes", ours,
                {"torchmetrics": theirs, "torch.bincount": counted}, "equal counts" if is_same else "NOT EQUAL",
                is_same)
        )  # fmt: skip
    return rows


def blobs(shape: tuple[int, int, int], num_classes: int) -> Tensor:
    """Masks of areas 32 pixels wide, a few of them ignored; uint8."""
    small = (shape[0], shape[1] // 32, shape[2] // 32)
    mask = torch.randint(0, num_classes, small, device=DEVICE)
    mask[torch.rand(small, device=DEVICE) < 0.05] = IGNORE
    return mask.repeat_interleave(32, 1).repeat_interleave(32, 2).to(torch.uint8).contiguous()


if __name__ == "__main__":
    sys.exit(main())
