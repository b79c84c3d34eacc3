"""Counts and times of a server, as Prometheus reads them: text, one line a series.

Values are added from any thread. Labels come from us alone (routes, models we serve), so their number is bounded.
"""

import os
import threading
from bisect import bisect_left
from collections.abc import Callable

from terrazzo import __version__

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
IMAGES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)

COUNTERS = {
    "terrazzo_requests_total": "Requests answered, by route, model and status.",
    "terrazzo_pixels_total": "Pixels predicted, by model.",
    "terrazzo_gone_total": "Requests whose client left before the answer.",
}
HISTOGRAMS = {
    "terrazzo_request_seconds": ("From the head of a request to the end of its answer, by route.", SECONDS),
    "terrazzo_stage_seconds": ("Seconds of an image in each stage, by model and stage.", SECONDS),
    "terrazzo_batch_images": ("Images that shared a pass of the network, by model.", IMAGES),
}
GAUGES = {
    "terrazzo_line_images": "Images that wait or are worked on.",
    "terrazzo_line_limit": "How many of them there may be.",
    "terrazzo_held_bytes": "Of uploads that arrive or wait.",
    "terrazzo_ready": "1 while requests are taken.",
}

Labels = tuple[tuple[str, str], ...]


class Tally:
    """Everything that is counted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, dict[Labels, float]] = {name: {} for name in COUNTERS}
        self._times: dict[str, dict[Labels, list[float]]] = {name: {} for name in HISTOGRAMS}
        self._gauges: dict[str, Callable[[], float]] = {}

    def add(self, name: str, amount: float = 1, /, **labels: str) -> None:
        """Add to a counter."""
        key = tuple(sorted(labels.items()))
        with self._lock:
            series = self._counts[name]
            series[key] = series.get(key, 0) + amount

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Put a value into a histogram."""
        key = tuple(sorted(labels.items()))
        bounds = HISTOGRAMS[name][1]
        with self._lock:
            cells = self._times[name].setdefault(key, [0.0] * (len(bounds) + 2))  # buckets, +Inf, sum
            cells[bisect_left(bounds, value)] += 1
            cells[-1] += value

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Read a gauge by `read` from now on."""
        self._gauges[name] = read

    def total(self, name: str, /, **labels: str) -> float:
        """Return the sum of a counter over all series that have these labels."""
        with self._lock:
            return sum(
                count for key, count in self._counts[name].items() if labels.items() <= dict(key).items()
            )

    def text(self) -> str:
        """Return all series in Prometheus' text format 0.0.4."""
        lines = [
            "# HELP terrazzo_info Version.",
            "# TYPE terrazzo_info gauge",
            f'terrazzo_info{{version="{__version__}"}} 1',
        ]
        with self._lock:
            for name, help_text in COUNTERS.items():
                lines += [f"# HELP {name} {help_text}", f"# TYPE {name} counter"]
                lines += [
                    f"{name}{_braces(key)} {count:g}" for key, count in sorted(self._counts[name].items())
                ]
            for name, (help_text, bounds) in HISTOGRAMS.items():
                lines += [f"# HELP {name} {help_text}", f"# TYPE {name} histogram"]
                for key, cells in sorted(self._times[name].items()):
                    running = 0.0
                    for bound, count in zip((*map(str, bounds), "+Inf"), cells, strict=False):
                        running += count
                        lines.append(f"{name}_bucket{_braces((*key, ('le', bound)))} {running:g}")
                    lines.append(f"{name}_sum{_braces(key)} {cells[-1]:.6f}")
                    lines.append(f"{name}_count{_braces(key)} {running:g}")
        for name, read in self._gauges.items():
            lines += [f"# HELP {name} {GAUGES[name]}", f"# TYPE {name} gauge", f"{name} {read():g}"]
        resident = resident_bytes()
        if resident is not None:
            what = "process_resident_memory_bytes"
            lines += [f"# HELP {what} Memory of this process.", f"# TYPE {what} gauge", f"{what} {resident}"]
        return "\n".join(lines) + "\n"


def resident_bytes() -> int | None:
    """Return the memory this process has in RAM, where the system says so (Linux)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    inner = ",".join(
        '{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        for name, value in labels
    )
    return f"{{{inner}}}"
