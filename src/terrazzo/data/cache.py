"""Keep decoded samples in memory, so that a small data set is decoded once and not once per epoch.

A sample that came first stays; once the budget is full the others are read anew each time, so a cache never makes a
training slower and a half-sized cache saves half of the decoding. Held by threads of one process together. On the disk
they are kept by `decoded.py`.
"""

import os
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from numpy.typing import NDArray

from terrazzo.reduced import Reduced
from terrazzo.sample import Sample

LARGEST = 2 << 30  # bytes "auto" takes at most; a machine is rarely there for training alone
UNKNOWN = 4 << 30  # bytes taken to be free where the system does not tell


class Samples(Protocol):
    """What is read from: `data.dataset.Split`, or anything of its shape."""

    @property
    def names(self) -> Any:
        """The samples' names, a list of str."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...

    def size_hw(self, index: int, /) -> tuple[int, int]:
        """(height, width) of the sample's image."""
        ...


@runtime_checkable
class MaskFirst(Samples, Protocol):
    """Samples of which the mask can be read before it is known how fine the image has to be."""

    def mask_first(self, index: int, /) -> tuple[NDArray[Any], Callable[[int], Reduced]]:
        """Return the mask, and what reads the image at 1 / divisor of its sides."""
        ...

    def read_reduced(self, index: int, divisor: int, /) -> Reduced:
        """Return the image alone."""
        ...


class SampleCache:
    """Reads samples of a split, keeping as many decoded as `budget` bytes hold; safe to use from several threads."""

    def __init__(self, samples: Samples, budget: float) -> None:
        self._samples = samples
        self._budget = budget
        self._kept: dict[int, Sample] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> Sample:
        """Return a sample, which must not be written to; raises what reading it raises."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        sample = self._samples[index]
        size = sample.image.nbytes + (sample.mask.nbytes if sample.mask is not None else 0)
        with self._lock:
            if index not in self._kept and self._bytes + size <= self._budget:
                self._kept[index] = sample
                self._bytes += size
        return sample

    @property
    def bytes(self) -> int:
        """How many bytes of pixels are kept."""
        return self._bytes


def cache_budget(kind: Literal["auto", "memory", "none"], *, sharers: int = 1) -> float:
    """Return how many bytes of decoded samples a process keeps, `sharers` processes being on this machine.

    auto: a quarter of what is free and at most 2 GiB, over all processes. memory: whatever it takes. none: 0.
    """
    if kind == "memory":
        return float("inf")
    return 0 if kind == "none" else min(LARGEST, free_memory() // 4) // sharers


def free_memory() -> int:
    """Return the bytes a new allocation may take without swapping, inside this container's limit; 4 GiB if unknown."""
    found = [free for free in (_free_here(), _free_in_cgroup()) if free is not None]
    return min(found, default=UNKNOWN)


def _free_here() -> int | None:
    try:
        if platform.system() == "Linux":
            lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        if platform.system() == "Windows":
            return _free_on_windows()
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # macOS counts caches as taken
    except (OSError, ValueError, StopIteration):
        return None


def _free_in_cgroup(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the container has left of its limit (cgroup v2, then v1); caches of files count as free."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most = int((root / limit).read_text())  # "max" where there is none
            taken = int((root / used).read_text())
            statistics = (root / limit).with_name("memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        freeable = next((int(line.split()[1]) for line in statistics if line.startswith(cached + " ")), 0)
        return max(0, most - taken + freeable)
    return None


def _free_on_windows() -> int:
    import ctypes

    class Status(ctypes.Structure):  # MEMORYSTATUSEX
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (name, ctypes.c_ulonglong)
            for name in ("physical", "free", "page", "free_page", "virtual", "free_virtual", "free_extended")
        ]

    status = Status(length=ctypes.sizeof(Status))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.free)
