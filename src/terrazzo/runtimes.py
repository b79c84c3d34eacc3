"""ONNX Runtime and OpenVINO as backends: the graph of a network runs, all around it stays the Predictor's.

Both take and give what `backends.Backend` says, compute on as many threads as torch would, and may be called from
several threads at once. What a graph needs to be known (its channels, whether its size is fixed) comes with it.

Precisions: ONNX Runtime computes as the graph is written. OpenVINO is told: float32 stays float32, also on processors
where it would choose bf16 by itself; bf16 is taken where it was asked for.

Shapes: B batch, C channels, H W height and width of the image, K classes, h w of the logits.
"""

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from terrazzo.backends import TorchBackend
from terrazzo.devices import Precision, choose_precision
from terrazzo.errors import ImageFormatError, UsageError, WeightsError
from terrazzo.graphs import IMAGE, LEAST_SIDE, LOGITS, needs, openvino_core
from terrazzo.stages import Request, Stages

SIZES = 4  # shapes of images that get a compiled network of their own; further ones share one of free size


@dataclass(frozen=True)
class GraphInfo:
    """What a backend has to know of a graph beside the graph."""

    channels: int
    """Of the images it takes."""
    align_corners: bool = False
    """How its logits are to be resized."""
    size_hw: tuple[int, int] | None = None
    """The one size it takes, one image at a time; None for any from LEAST_SIDE on."""
    network: nn.Module | None = None
    """The torch module it was made from, where that is here."""


class GraphBackend(ABC):
    """What the two runtimes share: which images fit the graph, one at a time where it takes no more."""

    title: str
    """The runtime with its version."""
    device = torch.device("cpu")

    def __init__(self, info: GraphInfo, precision: str) -> None:
        self.info, self.precision = info, precision
        self.threads = torch.get_num_threads()

    @property
    def network(self) -> nn.Module:
        """The torch module that the graph was made from; UsageError for an exported model, which has none."""
        if self.info.network is None:
            raise UsageError(
                "An exported model holds a graph, and no torch module.",
                hint="The model it was exported from has one:",
                command='terrazzo.load(MODEL, backend="torch").network',
            )
        return self.info.network

    @property
    def channels(self) -> int:
        """Of the images that the graph takes."""
        return self.info.channels

    @property
    def align_corners(self) -> bool:
        """Whether corners meet where the logits are resized."""
        return self.info.align_corners

    @property
    def says(self) -> str:
        """The runtime and its precision, such as "OpenVINO 2026.4.1, f32"."""
        return f"{self.title}, {self.precision}"

    def __call__(self, image_BCHW: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Return logits (B, K, h, w) float32 for images (B, C, H, W) in [0, 1].

        Images below LEAST_SIDE go through the torch module that the graph was made from, where it is here.
        """
        if (
            min(image_BCHW.shape[2:]) < LEAST_SIDE
            and self.info.size_hw is None
            and self.info.network is not None
        ):
            precision = choose_precision(self.precision, self.device)
            return TorchBackend(self.info.network, self.device, precision)(image_BCHW)
        self._check(image_BCHW.shape)
        if self.info.size_hw is not None and len(image_BCHW) > 1:
            return np.concatenate([self._run(image_BCHW[i : i + 1]) for i in range(len(image_BCHW))])
        return self._run(image_BCHW)

    @abstractmethod
    def _run(self, image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits (B, K, h, w) float32 for images that fit."""

    def _check(self, shape: tuple[int, ...]) -> None:
        _, channels, height, width = shape
        if channels != self.channels:
            raise ImageFormatError(
                "The image does not have the channels that the graph takes.",
                found=f"{channels}",
                expected=f"{self.channels}",
            )
        fixed = self.info.size_hw
        if fixed is not None and (height, width) != fixed:
            raise ImageFormatError(
                "The graph was exported for images of one size.",
                found=f"{height}x{width} (height x width) after the model's own resize",
                expected=f"{fixed[0]}x{fixed[1]}",
                hint="Without --size an export takes any size:",
                command="terrazzo export MODEL --format onnx|openvino --out DIR",
            )
        if min(height, width) < LEAST_SIDE:
            raise ImageFormatError(
                "The image is too small for the graph.",
                found=f"{height}x{width} (height x width)",
                expected=f"at least {LEAST_SIDE} pixels a side",
                hint="The model it was exported from takes any size.",
            )


class OnnxBackend(GraphBackend):
    """A graph in ONNX Runtime, on the CPU."""

    def __init__(self, graph: Path | bytes, info: GraphInfo, *, precision: str = "f32") -> None:
        needs("onnxruntime", what="The ONNX backend")
        import onnxruntime

        super().__init__(info, precision)
        self.title = f"ONNX Runtime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self.threads, 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others compute here too
        source = graph if isinstance(graph, bytes) else str(graph)
        with _readable(graph):
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    def metadata(self) -> dict[str, str]:
        """Return what the file tells of itself."""
        told: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return told

    def _run(self, image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._session.run([LOGITS], {IMAGE: image_BCHW})[0]
        return logits


class OpenVINOBackend(GraphBackend):
    """A graph in OpenVINO, on the CPU. The first SIZES shapes of images are compiled for, which makes them fast.

    Where torch's threads were divided since this was made (`kernels.threads.shared_by`), passes run beside each other.
    """

    def __init__(self, graph: Path | Any, info: GraphInfo, *, precision: Precision | str = "f32") -> None:
        """graph: an .xml or .onnx file, or an openvino.Model. precision: "bf16" computes so, all else in f32."""
        needs("openvino", what="The OpenVINO backend")
        super().__init__(info, precision)
        self.title = f"OpenVINO {version('openvino')}"
        self._core = openvino_core()
        with _readable(graph):
            self._model = self._core.read_model(str(graph)) if isinstance(graph, Path) else graph
        self._compiled: dict[tuple[tuple[int, ...] | None, int], _Requests] = {}
        self._lock = threading.Lock()

    def _run(self, image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._requests(image_BCHW.shape).one() as request:
            return np.array(request(image_BCHW), np.float32)  # the request's own memory is used again

    def _requests(self, shape: tuple[int, ...]) -> "_Requests":
        fixed = shape if self.info.size_hw is None else None
        streams = max(
            1, self.threads // torch.get_num_threads()
        )  # callers beside each other share the threads
        with self._lock:
            known = {size for size, _ in self._compiled}
            if fixed not in known and len(known) >= SIZES:
                fixed = None
            key = fixed, streams
            if key not in self._compiled:
                self._compiled[key] = _Requests(self._compile(*key))
            return self._compiled[key]

    def _compile(self, shape: tuple[int, ...] | None, streams: int) -> Stages:
        model = self._model
        if shape is not None:
            model = self._model.clone()
            model.reshape(list(shape))
        options = {
            "NUM_STREAMS": str(streams),  # 1 for the least time of one image
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": self.threads,
            "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same cores
        }
        is_fixed = shape is not None or self.info.size_hw is not None
        return Stages(self._core, model, options, cuts=is_fixed and self.precision != "bf16")


class _Requests:
    """The inference requests of a compiled network: one for each thread that runs it at a time."""

    def __init__(self, compiled: Stages) -> None:
        self.stages = compiled
        self._idle: queue.SimpleQueue[Request] = queue.SimpleQueue()

    @contextmanager
    def one(self) -> Iterator[Request]:
        """Lend an idle request, or a new one."""
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self.stages.request()
        try:
            yield request
        finally:
            self._idle.put(request)


@contextmanager
def _readable(graph: Any) -> Iterator[None]:
    """Tell a graph that a runtime refuses as an error of ours."""
    try:
        yield
    except Exception as error:
        where = str(graph) if isinstance(graph, Path) else "The graph"
        raise WeightsError(
            f"{where} cannot be opened.",
            found=next(iter(str(error).strip().splitlines()), type(error).__name__),
            hint="It is damaged, or was written for a newer runtime. Exporting it again makes it whole.",
        ) from error
