"""What a computation runs on and in which precision: named by the user, checked against this machine."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from terrazzo.errors import UsageError, unknown_name

Precision = Literal["f32", "bf16", "f16"]


def choose_device(name: str = "auto", *, local_rank: int = 0) -> torch.device:
    """Return the device called `name`: "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises UnknownNameError for a name that is no device and UsageError for one this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank % torch.cuda.device_count())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise unknown_name("device", name, ("auto", "cpu", "cuda", "cuda:0", "mps"))
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        # srun may show each process its own GPU alone
        number = int(index) if index else local_rank % max(count, 1)
        if number >= count:
            raise UsageError(
                f"There is no device {name!r} here.",
                found=f"{count} CUDA device{'' if count == 1 else 's'}",
                hint="--device auto takes the best there is. What this machine has:",
                command="terrazzo env",
            )
        return torch.device("cuda", number)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("There is no device 'mps' here.", found="no Apple GPU", command="terrazzo env")
    return torch.device(kind)


def choose_precision(name: str, device: torch.device) -> Precision:
    """Return the precision called `name` on `device`; "auto" takes bf16 where the hardware has it.

    auto: CUDA from compute capability 8.0 bf16, older f16; a CPU with AVX-512 BF16 or AMX bf16; else f32.
    Raises UsageError for f16 on a CPU, whose kernels torch lacks.
    """
    if name not in ("auto", "f32", "bf16", "f16"):
        raise unknown_name("precision", name, ("auto", "f32", "bf16", "f16"))
    if name == "f16" and device.type == "cpu":
        raise UsageError(
            "Precision f16 needs a GPU.",
            found="device cpu",
            expected="f32, or bf16 on CPUs that have it",
            command="terrazzo env",
        )
    if name != "auto":
        return name  # type: ignore[return-value]
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "f16"
    return "bf16" if device.type == "cpu" and has_fast_bf16_cpu() else "f32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Return the context in which a network computes in `precision`; nothing for f32."""
    if precision == "f32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype)


def loss_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Return what keeps gradients in f16 from vanishing; it does nothing in other precisions.

    Raises UsageError on an Apple GPU where torch's scaler computes in float64, which those lack.
    """
    is_old = torch.__version__ < torch.torch_version.TorchVersion("2.8")
    if precision == "f16" and device.type == "mps" and is_old:
        raise UsageError(
            "Training in f16 on an Apple GPU needs a newer torch.",
            found=f"torch {torch.__version__}",
            expected="2.8 or newer",
            hint="In float32, the default there, it works with any:",
            command="terrazzo train … train.precision=f32",
        )
    return torch.amp.GradScaler(device.type, enabled=precision == "f16")


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return `tensor` on `device`; a CUDA device is not waited for, any other is."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def has_fast_bf16_cpu() -> bool:
    """True where matrix products in bf16 have instructions of their own (AVX-512 BF16, AMX)."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return capabilities.startswith("AVX512") and bool(known())


def peak_memory(device: torch.device) -> int:
    """Return the peak bytes this process took on `device`: allocated on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import sys

    try:
        import resource
    except ImportError:  # Windows has no resource module
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)  # bytes on macOS, KiB elsewhere
