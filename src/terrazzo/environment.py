"""What this machine is, for a bug report and for a run's env.json: versions, processor, memory, devices, folders.

It says nothing about the user: no names, no environment beyond the variables that change what is computed. Nothing is
set or changed. Anything a system does not tell is None, and is left out of the printed form.
"""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

from terrazzo import __version__

PACKAGES = (
    "torch",
    "numpy",
    "numba",
    "pillow",
    "tifffile",
    "safetensors",
    "huggingface_hub",
    "datasets",
    "pyarrow",
    "tensorboard",
    # never needed, but they change what a report means when they are there
    "transformers",
    "accelerate",
    "timm",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
)
VARIABLES = (  # they change threads, devices, folders or what is read
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMBA_CACHE_DIR",
    "NUMBA_DISABLE_JIT",
    "CUDA_VISIBLE_DEVICES",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "TERRAZZO_BACKEND",
    "TERRAZZO_MAX_PIXELS",
)
GIB = 1024**3


def model_of(device: str) -> str:
    """Return what the maker calls a device, such as "NVIDIA H200"; of "cpu" and "mps", the processor."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor() or "unknown"


def describe() -> dict[str, Any]:
    """Return versions, machine and devices as plain JSON values; sizes in GiB. Imports torch (about two seconds)."""
    import torch

    return {
        "terrazzo": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "processor": {
            "model": _processor(),
            "capability": torch.backends.cpu.get_cpu_capability(),  # the widest vectors torch uses here
            "cores": os.cpu_count(),
            "usable_cores": _usable_cores(),
            "torch_threads": torch.get_num_threads(),
        },
        "memory": {"total_gib": _gib(_total_memory()), "limit_gib": _gib(_memory_limit())},
        "devices": _devices(),
        "folders": {"hugging_face": _shown(_hugging_face_home()), "terrazzo": _shown(Path(__file__).parent)},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def to_text(description: dict[str, Any]) -> str:
    """Return `describe()` as aligned lines to paste into a bug report."""
    processor, memory = description["processor"], description["memory"]
    cores = f"{processor['cores']} cores, {processor['usable_cores']} usable, {processor['torch_threads']} threads"
    size = "unknown" if memory["total_gib"] is None else f"{memory['total_gib']:.1f} GiB"
    if memory["limit_gib"] is not None:
        size += f", limited to {memory['limit_gib']:.1f} GiB"
    lines = [
        ("terrazzo", description["terrazzo"]),
        ("python", description["python"]),
        ("system", description["system"]),
        ("processor", f"{processor['model'] or 'unknown'} ({processor['capability']})"),
        ("", cores),
        ("memory", size),
    ]
    named = [f"{device['name']}: {_device_text(device)}" for device in description["devices"]] or ["no GPU"]
    lines += [("devices" if number == 0 else "", text) for number, text in enumerate(named)]
    lines += list(description["packages"].items())
    lines += [(f"{name.replace('_', ' ')} folder", folder) for name, folder in description["folders"].items()]
    lines += list(description["variables"].items())
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(f"{name:<{width}}{text}" for name, text in lines)


def _device_text(device: dict[str, Any]) -> str:
    parts = [device["model"]]
    if device.get("memory_gib") is not None:
        parts.append(f"{device['memory_gib']:.1f} GiB")
    parts += [
        f"{name.replace('_', ' ')} {device[name]}"
        for name in ("capability", "cuda", "cudnn")
        if name in device
    ]
    return ", ".join(parts)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    """Return one entry a GPU, CUDA (or ROCm, which torch calls the same) first."""
    import torch

    found: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            {
                "name": f"cuda:{index}",
                "model": properties.name,
                "memory_gib": _gib(properties.total_memory),
                "capability": f"{properties.major}.{properties.minor}",
                "cuda": torch.version.cuda or torch.version.hip,
                "cudnn": torch.backends.cudnn.version(),
            }
        )
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "model": _processor() or "Apple GPU"})
    return found


def _processor() -> str | None:
    """Return the processor's model name; each system keeps it elsewhere."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.processor() or None
    if sys.platform == "win32":
        return os.environ.get("PROCESSOR_IDENTIFIER") or platform.processor() or None
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.processor() or platform.machine() or None


def _usable_cores() -> int | None:
    """Return the cores this process may run on: containers and job managers give fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _total_memory() -> int | None:
    """Return the machine's memory in bytes."""
    if sys.platform == "win32":
        return _windows_memory()
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _memory_limit() -> int | None:
    """Return the bytes a container may use, or None where nothing limits it below the machine's memory."""
    total = _total_memory()
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):  # version 2, 1
        for line in _lines(path):
            if line.strip().isdigit() and (total is None or int(line) < total):
                return int(line)
    return None


def _windows_memory() -> int | None:
    import ctypes

    class MemoryStatus(ctypes.Structure):  # MEMORYSTATUSEX of sysinfoapi.h
        _fields_ = [
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            ("total", ctypes.c_ulonglong),
            ("others", ctypes.c_ulonglong * 6),
        ]

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    kernel: Any = getattr(ctypes, "windll", None)
    return (
        int(status.total) if kernel and kernel.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None
    )


def _hugging_face_home() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME)


def _shown(path: Path) -> str:
    """Return the path with ~ for the home folder, which bears the user's name."""
    return f"~{os.sep}{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def _sysctl(name: str) -> str | None:
    import subprocess

    asked = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _gib(size: int | None) -> float | None:
    return None if size is None else round(size / GIB, 2)
