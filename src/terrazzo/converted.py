"""Which backend runs a network, and its graph, kept: written once, found again, made anew where it was damaged.

    auto    on a CPU, OpenVINO, else ONNX Runtime, where they and what writes graphs are installed; PyTorch on
            everything else, and for networks that cannot be written as a graph. Never another precision.

A graph is kept in the user's cache folder under a name made of what it depends on: every weight, what the network is
built from, the code that it is, the versions of what writes graphs, for which backend, and that its size is free.
Networks that are not of this package (one's own, transformers') are written anew each time, because nobody can see what
their code became.
"""

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch
from filelock import FileLock
from torch import nn

from terrazzo import __version__
from terrazzo.backends import Backend, TorchBackend
from terrazzo.devices import Precision, choose_device, choose_precision
from terrazzo.errors import TerrazzoError, UsageError, WeightsError, unknown_name
from terrazzo.graphs import can_write, onnx_graph
from terrazzo.nn.segformer import SegFormer
from terrazzo.nn.segformer_graph import graph_form
from terrazzo.nn.segmenter import Segmenter
from terrazzo.runtimes import GraphInfo, OnnxBackend, OpenVINOBackend
from terrazzo.storage import cache_folder, replacing

BACKENDS = ("auto", "torch", "openvino", "onnx")
VARIABLE = "TERRAZZO_BACKEND"  # what auto means on this machine
WRITERS = ("torch", "onnx", "onnxscript", "onnx_ir", "timm")
KEPT_BYTES = 2 << 30  # of graphs; beyond, those go that were not used for longest
POLICY = "free size"


def choose_backend(
    network: nn.Module,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "f32",
    channels: int | None = None,
    quiet: bool = False,
) -> tuple[Backend, tuple[str, ...]]:
    """Return what runs `network`, and what a user should hear about that, one line each.

    channels: of the images, where the network does not say. quiet: no line on standard error before a graph is written,
    which takes seconds. Raises UnknownNameError, UsageError for a runtime that cannot do what was asked,
    MissingExtraError for one that is not installed.
    """
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    asked = backend
    if backend == "auto":
        backend = os.environ.get(VARIABLE, "auto")
        if backend not in BACKENDS:
            raise unknown_name(f"backend (${VARIABLE})", backend, BACKENDS)
    on = choose_device(device)
    exact = choose_precision(precision, on)
    channels = getattr(network, "channels", None) or channels
    if backend == "auto":
        backend = _usual(network, on, exact)
        if backend != "torch":
            try:
                made = converted(network, backend, precision=exact, channels=channels, quiet=quiet)
            except WeightsError as error:
                return TorchBackend(network, on, exact), (f"PyTorch runs the network: {_in_short(error)}",)
            return made, (f"{made.says} runs the network.",)
    if backend == "torch":
        return TorchBackend(network, on, exact), ()
    if on.type != "cpu" and device != "auto":
        raise UsageError(
            f"The backend {backend!r} computes on the CPU.",
            found=f"device {on}",
            hint="On a GPU PyTorch runs the network: --backend torch.",
        )
    made = converted(network, backend, precision=exact, channels=channels, quiet=quiet)
    return made, () if asked == backend else (f"{made.says} runs the network.",)


def _usual(network: nn.Module, device: torch.device, precision: Precision) -> str:
    """The fastest backend here, such as "openvino"."""
    if device.type != "cpu" or not can_write() or not is_ours(network):
        return "torch"
    if find_spec("openvino") is not None:
        return "openvino"
    return "onnx" if find_spec("onnxruntime") is not None and precision == "f32" else "torch"


def converted(
    network: nn.Module, backend: str, *, precision: Precision, channels: int | None, quiet: bool = True
) -> OnnxBackend | OpenVINOBackend:
    """Return `network` running as a graph in "openvino" or "onnx", from the cache where it is there."""
    if backend == "onnx" and precision != "f32":
        raise UsageError(
            "ONNX Runtime computes in the precision in which a graph is written.",
            found=f"precision {precision}",
            expected="f32; bf16 with OpenVINO",
            hint="Other precisions are exported:",
            command="terrazzo export MODEL --format onnx --precision f16 --out DIR",
        )
    if channels is None:
        raise UsageError(
            "A graph needs to know the channels of the images.",
            found="a network that does not say",
            expected="an attribute `channels` on it",
        )
    about = GraphInfo(channels, bool(getattr(network, "align_corners", False)), None, network)
    with graph_file(network, backend, channels=channels, quiet=quiet) as file:
        if backend == "onnx":
            return OnnxBackend(file, about, precision=precision)
        return OpenVINOBackend(file, about, precision=precision)


def is_ours(network: nn.Module) -> bool:
    """Whether all that the network does stands in this package or timm, whose versions are known."""
    return type(network) in (SegFormer, Segmenter)


@contextlib.contextmanager
def graph_file(network: nn.Module, backend: str, *, channels: int, quiet: bool = True) -> Iterator[Path]:
    """Yield an ONNX file of the network at free size, as `backend` likes it: the kept one where whole, else a new one.

    Where nothing can be kept, the file is gone afterwards.
    """
    folder = cache_folder() / "graphs"
    file = folder / f"{_name(network, backend)}.onnx"
    with contextlib.ExitStack() as held:
        if is_ours(network):
            with contextlib.suppress(OSError):  # a cache is a convenience
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(f"{file}.lock"))
                if _is_whole(file):
                    os.utime(file)
                    yield file
                    return
        if not quiet:
            print("Writing the network as a graph, once; this takes some seconds.", file=sys.stderr)
        form = graph_form(network) if backend == "openvino" else network
        data = onnx_graph(form, channels=channels).SerializeToString()
        if is_ours(network):
            try:
                _keep(file, data)
            except (OSError, TerrazzoError):
                pass
            else:
                yield file
                return
        import tempfile

        scratch = Path(held.enter_context(tempfile.TemporaryDirectory()), "graph.onnx")
        scratch.write_bytes(data)
        yield scratch


def _keep(file: Path, data: bytes) -> None:
    """Write a graph and its hash into the cache, and let the oldest go."""
    with replacing(file, durable=False) as beside:
        beside.write_bytes(data)
    with replacing(file.with_suffix(".sha256"), durable=False) as beside:
        beside.write_text(hashlib.sha256(data).hexdigest(), encoding="ascii")
    graphs = sorted(file.parent.glob("*.onnx"), key=lambda one: one.stat().st_mtime, reverse=True)
    room = KEPT_BYTES
    for one in graphs:
        room -= one.stat().st_size
        if room < 0 and one != file and time.time() - one.stat().st_mtime > 3600:  # not one just being read
            for suffix in (".onnx", ".sha256", ".onnx.lock"):
                one.with_suffix("").with_suffix(suffix).unlink(missing_ok=True)


def _is_whole(file: Path) -> bool:
    try:
        told = file.with_suffix(".sha256").read_text(encoding="ascii")
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == told
    except (OSError, UnicodeDecodeError):
        return False


def _name(network: nn.Module, backend: str) -> str:
    """A hash of all that the graph of a network for a backend depends on."""
    digest = hashlib.sha256()
    built = getattr(network, "spec", None) or repr(getattr(network, "size", type(network).__qualname__))
    versions = {name: _version(name) for name in WRITERS}
    about = [__version__, _code(), versions, POLICY, backend, type(network).__qualname__, built]
    about.append(bool(getattr(network, "one_logit", False)))
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    buffers = {name: tensor for name, tensor in network.named_buffers() if name in ("mean", "std")}
    for name, tensor in sorted({**network.state_dict(), **buffers}.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


@cache
def _code() -> str:
    """A hash of the code that networks of ours are."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for file in (here / "graphs.py", *sorted((here / "nn").glob("*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _in_short(error: TerrazzoError) -> str:
    return f"{error.what} {error.found or ''}".strip()
