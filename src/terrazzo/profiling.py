"""Where the time of a prediction goes: stage by stage, for every backend that is installed, in numbers and a picture.

    decode    a JPEG of that size to pixels
    resize    to the size at which the network sees it, as float32 in [0, 1]
    network   image to logits
    argmax    logits to the mask at the image's size
    write     the mask to a PNG

What comes before and after the network is the same for every backend; it is measured with each of them, because caches
and threads are shared. A model that looks in windows, or several times, has resizing and blending in "network".
"""

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from terrazzo.converted import BACKENDS, choose_backend
from terrazzo.devices import peak_memory
from terrazzo.errors import MissingExtraError, UsageError
from terrazzo.images import decode_image, write_image, write_mask
from terrazzo.inference import Predictor, load
from terrazzo.kernels.resize_argmax import resize_argmax
from terrazzo.proof import made_up
from terrazzo.views import PLAIN

T = TypeVar("T")
STAGES = ("decode", "resize", "network", "argmax", "write")
COLORS = {
    "decode": "#8fb8de",
    "resize": "#5b8e7d",
    "network": "#bc4b51",
    "argmax": "#f4a259",
    "write": "#7d70ba",
}
PERCENTILES = (50, 90, 99)
WARM_UP = 2


@dataclass(frozen=True)
class Stages:
    """What one backend took."""

    backend: str
    """Such as "OpenVINO 2026.4.1, f32"."""
    ms: dict[str, list[float]]
    """Milliseconds of each stage, one number for each repetition."""
    memory_bytes: int
    """The most that the process has held so far."""

    def total(self) -> list[float]:
        """Milliseconds of all stages together."""
        return [sum(parts) for parts in zip(*self.ms.values(), strict=True)]


@dataclass(frozen=True)
class Profile:
    """The times of every backend for images of one size."""

    model: str
    size_hw: tuple[int, int]
    threads: int
    measured: tuple[Stages, ...]
    left_out: tuple[str, ...]
    """Backends that did not run, and why."""

    def table(self) -> str:
        """Return the numbers as text."""
        height, width = self.size_hw
        lines = [f"{self.model}, images of {width}x{height}, {self.threads} threads; milliseconds"]
        for one in self.measured:
            lines += ["", f"{one.backend}", f"{'':10}" + "".join(f"{f'p{p}':>9}" for p in PERCENTILES)]
            for name, ms in [*one.ms.items(), ("together", one.total())]:
                numbers = "".join(f"{value:9.1f}" for value in np.percentile(ms, PERCENTILES))
                lines.append(f"{name:10}{numbers}")
            rate = 1000 / statistics.median(one.total())
            lines.append(
                f"{rate:.1f} images/s one after the other; at most {one.memory_bytes / 2**20:,.0f} MiB held"
            )
        return "\n".join([*lines, *([""] if self.left_out else []), *self.left_out])

    def to_json(self) -> dict[str, Any]:
        """Return the medians as plain values."""
        return {
            "model": self.model,
            "size_hw": list(self.size_hw),
            "threads": self.threads,
            "backends": {
                one.backend: {
                    name: {f"p{p}": round(float(np.percentile(ms, p)), 3) for p in PERCENTILES}
                    for name, ms in [*one.ms.items(), ("together", one.total())]
                }
                for one in self.measured
            },
        }

    def picture(self) -> Image.Image:
        """Return bars of the medians, one for each backend, on one scale."""
        return _drawn(self)


def profile(
    model: "str | os.PathLike[str]",
    *,
    size_hw: tuple[int, int] = (1080, 1920),
    precision: str = "f32",
    device: str = "auto",
    repeats: int = 20,
    config: "str | os.PathLike[str] | None" = None,
    out: "str | os.PathLike[str] | None" = None,
) -> Profile:
    """Measure where a prediction's time goes, in each backend that is installed; `out` gets the picture (.png).

    An exported model is measured in its own runtime alone. Raises the errors of `load`, and UsageError for another
    picture than a .png.
    """
    if out is not None and Path(out).suffix.lower() != ".png":
        raise UsageError(
            "The picture of a profile is a PNG.", found=str(out), expected="a name that ends in .png"
        )
    first = load(model, backend="auto", precision=precision, device=device, config=config)
    dtype = str(first.about.get("preprocessing", {}).get("dtype", "uint8"))
    (image,) = made_up([size_hw], channels=first.channels or 3, dtype=dtype)
    left_out: list[str] = []
    measured = [_measured(one, image, repeats) for one in _backends(first, precision, device, left_out)]
    made = Profile(str(model), size_hw, torch.get_num_threads(), tuple(measured), tuple(left_out))
    if out is not None:
        write_image(Path(out), np.asarray(made.picture()))
    return made


def _backends(first: Predictor, precision: str, device: str, left_out: list[str]) -> Iterator[Predictor]:
    """The model in every backend that runs it; `left_out` hears of the others."""
    if "export" in first.about:
        yield first
        return
    network = first.network
    for name in BACKENDS[1:]:
        try:
            runs, _ = choose_backend(
                network, backend=name, device=device, precision=precision, channels=first.channels
            )
        except (MissingExtraError, UsageError) as error:
            left_out.append(f"{name} left out: {error.what} {error.found or ''}".rstrip())
            continue
        yield Predictor(runs, first.classes, data=first.data, eval=first.eval, channels=first.channels)


def _measured(predictor: Predictor, image: Any, repeats: int) -> Stages:
    """Run all stages `repeats` times."""
    times: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[..., T], *given: Any) -> T:
        start = time.perf_counter()
        result = work(*given)
        times.setdefault(name, []).append(1000 * (time.perf_counter() - start))
        return result

    eye, size_hw = predictor.eye, image.shape[:2]
    is_photo = image.dtype == np.uint8 and image.shape[2] == 3
    file = _jpeg(image) if is_photo else b""
    decode = partial(decode_image, file, where="the JPEG", channels=3)
    best = partial(resize_argmax, align_corners=eye.align_corners)
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(WARM_UP + repeats):
            if number == WARM_UP:
                times.clear()
            if is_photo:
                timed("decode", decode)
            if eye.looks == [PLAIN] and eye.eval.inference == "whole":
                seen = timed("resize", eye.input, image)
                logits = timed("network", eye.backend, seen)
                mask, _ = timed("argmax", best, logits[0], size_hw)
            else:
                bands = timed("network", lambda: list(next(iter(eye.bands([image])))))
                mask, _ = timed("argmax", predictor.assemble, bands, size_hw)
            timed("write", write_mask, Path(scratch, "mask.png"), mask)
    order = {name: times[name] for name in STAGES if name in times}
    return Stages(predictor.backend, order, peak_memory(torch.device("cpu")))


def _jpeg(image: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return file.getvalue()


def _drawn(made: Profile) -> Image.Image:
    """Bars, their numbers, and a legend; 960 pixels wide."""
    width, bar, left, top = 960, 34, 24, 84
    picture = Image.new("RGB", (width, top + len(made.measured) * (bar + 44) + 40), "white")
    draw = ImageDraw.Draw(picture)
    big, small = ImageFont.load_default(20), ImageFont.load_default(15)
    height, wide = made.size_hw
    draw.text((left, 16), f"{made.model}: {wide}x{height}, {made.threads} threads", "#222222", big)
    x = left
    for name in STAGES:
        draw.rectangle((x, 52, x + 14, 66), COLORS[name])
        draw.text((x + 20, 50), name, "#444444", small)
        x += 40 + int(draw.textlength(name, small))
    medians = [{name: statistics.median(ms) for name, ms in one.ms.items()} for one in made.measured]
    longest = max((sum(one.values()) for one in medians), default=1.0)
    scale = (width - 2 * left) / max(longest, 1e-6)
    for number, (one, parts) in enumerate(zip(made.measured, medians, strict=True)):
        y = top + number * (bar + 44)
        draw.text((left, y), f"{one.backend}: {sum(parts.values()):.1f} ms", "#222222", small)
        x_at = float(left)
        for name, ms in parts.items():
            end = x_at + ms * scale
            draw.rectangle((x_at, y + 24, max(end, x_at + 1), y + 24 + bar), COLORS[name])
            text = f"{ms:.1f}"
            if end - x_at > draw.textlength(text, small) + 8:
                draw.text(((x_at + end) / 2, y + 24 + bar / 2), text, "white", small, anchor="mm")
            x_at = end
    return picture
