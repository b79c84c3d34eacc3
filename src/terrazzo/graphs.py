"""A network as a graph: what ONNX Runtime, OpenVINO and TensorRT run, written from the torch module.

torch.export follows the module once, and what it saw becomes an ONNX graph; `folded` multiplies out what no image
changes, so that batch norms and the folded heads of `nn` are plain weights. OpenVINO reads the same graph: both formats
have one origin.
Image (B, C, H, W) float32 in [0, 1] in, logits (B, K, h, w) out, normalised inside, not resized: the form of every
backend. The batch and both sides are free, or one image of one size where that is asked for.

Needs the extra `deploy`. Nothing here runs a graph (`runtimes.py`) or keeps one (`converted.py`, `exporting.py`).
"""

import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import MissingExtraError, WeightsError
from terrazzo.nn.outputs import as_output

IMAGE, LOGITS = "image", "logits"  # what goes in and comes out is called so in every graph
LEAST_SIDE = 32  # pixels: graphs of free size are made for images from here on
EXAMPLE_HW = (72, 104)  # a size that 32 does not divide; any would do
OPSET = 20  # GELU and layer norm are operations of their own; read by every runtime of the last years
WRITERS = ("onnx", "onnxscript")  # what writing a graph needs
_one_at_a_time = threading.Lock()  # torch's exporter keeps state of its own


class Logits(nn.Module):
    """A network of any form as a plain function from image to logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K, h, w)."""
        return as_output(self.network(image)).logits


def can_write() -> bool:
    """Whether what writes graphs is installed."""
    return all(find_spec(name) is not None for name in WRITERS)


def needs(*packages: str, what: str) -> None:
    """Raise MissingExtraError where one of `packages` is not installed; `what` needs them."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{what} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            hint="All that exporting and the fast runtimes need comes with:",
            command='pip install "terrazzo[deploy]"',
        )


def onnx_graph(
    network: nn.Module, *, channels: int, size_hw: tuple[int, int] | None = None, name: str = "terrazzo"
) -> Any:
    """Return `network` as an onnx.ModelProto, float32.

    size_hw: one image of this size at a time; None leaves the batch and both sides (from LEAST_SIDE on) free. The
    network is looked at in evaluation mode, where it lies, and is left as it was. Raises MissingExtraError, and
    WeightsError for a network that torch cannot follow.
    """
    needs(*WRITERS, what="Writing a graph")
    free = None if size_hw else ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC,
                                  3: torch.export.Dim.DYNAMIC},)  # fmt: skip
    example = torch.zeros(2 if free else 1, channels, *(size_hw or EXAMPLE_HW))
    return written(Logits(network), (example,), free, inputs=[IMAGE], outputs=[LOGITS], name=name)


def written(
    module: nn.Module,
    example: tuple[Tensor, ...],
    free: tuple[dict[int, Any], ...] | None,
    *,
    inputs: list[str],
    outputs: list[str],
    name: str,
) -> Any:
    """Return a module as an onnx.ModelProto."""
    from onnxscript import optimizer

    was_training = [(one, one.training) for one in module.modules()]
    lies = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    example = tuple(tensor.to(lies) for tensor in example)
    try:
        with _one_at_a_time, _quietly(), torch.no_grad():
            module.eval()
            program = torch.export.export(module, example, dynamic_shapes=free, strict=False)
            graph = torch.onnx.export(
                program,
                dynamo=True,
                input_names=inputs,
                output_names=outputs,
                opset_version=OPSET,
                optimize=False,
                verbose=False,
            )
            assert graph is not None
            optimizer.optimize_ir(graph.model, num_iterations=1)
            proto = graph.model_proto
    except Exception as error:
        raise WeightsError(
            "The network cannot be written as a graph.",
            found=f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}",
            hint="It does what torch.export cannot follow. In PyTorch it runs as before: --backend torch.",
        ) from error
    finally:
        for one, mode in was_training:
            one.training = mode
    proto.graph.name = name
    proto.producer_name = "terrazzo"
    for value, dims in ((proto.graph.input[0], ("batch", "", "height", "width")),
                        (proto.graph.output[0], ("batch", "", "rows", "columns"))):  # fmt: skip
        for dim, said in zip(value.type.tensor_type.shape.dim, dims, strict=False):
            if dim.HasField("dim_param") and said:
                dim.dim_param = said
    del proto.graph.value_info[:]  # they name sizes by torch's symbols
    return proto


def folded(proto: Any) -> Any:
    """Return the graph with everything multiplied out that depends on no image, by ONNX Runtime; still plain ONNX."""
    import onnx

    needs("onnxruntime", what="Folding a graph")
    import onnxruntime

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "folded.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(file)
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        onnxruntime.InferenceSession(
            proto.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["TransposeOptimizer"],  # it moves them to where OpenVINO has to copy
        )
        plain = onnx.load(file)
    plain.producer_name = proto.producer_name
    return plain


def openvino_graph(proto: Any, *, size_hw: tuple[int, int] | None = None) -> Any:
    """Return an onnx.ModelProto as an openvino.Model; size_hw fixes one image of this size."""
    needs("openvino", what="OpenVINO")
    core = openvino_core()
    model = core.read_model(proto.SerializeToString(), b"")
    if size_hw is not None:
        channels = model.inputs[0].partial_shape[1].get_length()
        model.reshape([1, channels, *size_hw])
    return model


def openvino_core() -> Any:
    """Return a Core of OpenVINO, which is asked for no telemetry."""
    os.environ.setdefault("OPENVINO_TELEMETRY_DISABLED", "1")
    import openvino

    return openvino.Core()


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the remarks of exporters about their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
