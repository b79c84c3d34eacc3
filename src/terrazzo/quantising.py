"""A graph in 8-bit integers, after training: which images it is calibrated on, and who turns it.

Weights become int8 per channel; the range of every activation is what the calibration images show. So these have to
show what the model will meet: every class occurs among them, or the user hears which do not. Attention's softmax and
layer norms stay in float32. NNCF (Apache-2.0) quantises for OpenVINO, ONNX Runtime's own tool (MIT) for ONNX.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.data import Split
from terrazzo.data.counts import image_class_pixels
from terrazzo.errors import DatasetFormatError, UsageError
from terrazzo.graphs import IMAGE, needs

Input = NDArray[np.float32]
IMAGES = 64  # calibrated on; more change little, fewer miss rare classes
OPERATIONS = ["Conv", "MatMul", "Gemm"]  # nearly all arithmetic


def calibration_places(
    split: Split, *, location: str, images: int = IMAGES, quiet: bool = True
) -> tuple[list[int], tuple[str, ...]]:
    """Return which samples of a split to calibrate on, so that every class occurs, and the classes that do not.

    `images` are spread over the split; then, for each class that these lack, the sample with most of it is added.
    Raises DatasetFormatError for a split without masks or samples.
    """
    if not len(split) or not split.has_masks:
        raise DatasetFormatError(
            f"The split {split.name!r} cannot calibrate.",
            found="no images" if not len(split) else "no masks, so nobody knows which classes it shows",
            expected="a split with masks, such as train",
            command="terrazzo export MODEL … --calibration-split train",
        )
    classes = split.classes
    counts = image_class_pixels(split, len(classes), ignore=classes.ignore, location=location, quiet=quiet)
    places = sorted(
        {round(place) for place in np.linspace(0, len(split) - 1, min(images, len(split))).tolist()}
    )
    for class_id in range(len(classes)):
        if not counts[places, class_id].any() and counts[:, class_id].any():
            places.append(int(counts[:, class_id].argmax()))
    lacking = tuple(name for class_id, name in enumerate(classes.names) if not counts[:, class_id].any())
    return sorted(set(places)), lacking


def refuse_lacking(lacking: Sequence[str], split: Split, others: Sequence[Split], *, location: str) -> None:
    """Raise UsageError where another split has the classes that this one lacks: it would calibrate better."""
    for other in others:
        if not lacking or not other.has_masks:
            continue
        classes = other.classes
        counts = image_class_pixels(
            other, len(classes), ignore=classes.ignore, location=location, quiet=True
        ).sum(0)
        there = [name for name in lacking if counts[classes.names.index(name)]]
        if there:
            raise UsageError(
                f"The split {split.name!r} cannot calibrate: it lacks classes.",
                found=f"no pixel of {', '.join(there)}",
                expected="images of every class, or the integers will be too small for what they never saw",
                hint=f"The split {other.name!r} has them:",
                command=f"terrazzo export MODEL … --precision int8 --calibration-split {other.name}",
            )


def quantised_openvino(model: Any, inputs: Sequence[Input], *, is_transformer: bool) -> Any:
    """Return an openvino.Model in int8, calibrated on `inputs`, each as the network gets it."""
    needs("nncf", what="int8 for OpenVINO")
    with _quietly():
        import nncf

        return nncf.quantize(
            model,
            nncf.Dataset(list(inputs)),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
            subset_size=len(inputs),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # off: it puts a multiplication before every linear, which costs more than int8 saves (B0 at 512x512 on
                # two cores of an EPYC: 28.5 ms with, 22.8 without, 30.2 in f32; 2026-11), and here loses more
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
                # NNCF takes the second axis for channels; tokens (B, H, W, C) have the image's rows there
                activations_quantization_params=nncf.quantization.advanced_parameters.QuantizationParameters(
                    per_channel=False
                ),
            ),
        )


def quantised_onnx(proto: Any, inputs: Sequence[Input]) -> Any:
    """Return an onnx.ModelProto in int8, calibrated on `inputs`, each as the network gets it."""
    needs("onnx", "onnxruntime", what="int8 for ONNX")
    with _quietly(), tempfile.TemporaryDirectory() as scratch:
        import onnx
        from onnxruntime import quantization

        class Reader(quantization.CalibrationDataReader):
            def __init__(self) -> None:
                self.rest = iter(inputs)

            def get_next(self) -> dict[str, Input] | None:
                one = next(self.rest, None)
                return None if one is None else {IMAGE: one}

        known = {one.name for one in proto.graph.initializer}
        products = [node for node in proto.graph.node if node.op_type in OPERATIONS]
        source, target = Path(scratch, "f32.onnx"), Path(scratch, "int8.onnx")
        onnx.save(proto, source)
        quantization.quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=OPERATIONS,
            # attention multiplies activations with each other: no weights, and ranges too wide for 8 bits
            nodes_to_exclude=[node.name for node in products if node.input[1] not in known],
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
        )
        return onnx.load(target)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the progress bars and remarks of the tools."""
    roots = [logging.getLogger(), logging.getLogger("nncf")]
    levels = [one.level for one in roots]
    for one in roots:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), _silent_output():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(roots, levels, strict=True):
            one.setLevel(level)


@contextmanager
def _silent_output() -> Iterator[None]:
    """NNCF draws its progress on standard output, where our results go."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
