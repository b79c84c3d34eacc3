"""A graph of OpenVINO in stages: between them, its widest 3x3 convolutions with a quarter of the multiplications.

OpenVINO convolves plainly on x86. Where a network convolves many channels to many, as the heads of PSPNet, FCN, UPerNet
and DeepLab do, Winograd's way (`kernels/winograd.py`) needs less than half of the time, so the graph is cut there: what
comes before the convolution is one network, what comes after another, and the map between them passes through memory.
A convolution is cut out where it saves more than that costs.

Only in float32 and at a fixed size. OpenVINO's own network stays whole where nothing is worth a cut, where numba is
absent, and where weights are not float32.

Shapes: B batch, C D channels in and out, H W height and width of the map, K classes, h w of the logits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terrazzo.kernels import winograd
from terrazzo.kernels.compile import is_available
from terrazzo.kernels.winograd import Filter

LEAST_SAVED = 300  # multiplications for each byte of the maps that then pass through memory
TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


class Stages:
    """A compiled network: (B, C, H, W) float32 in [0, 1] in, logits (B, K, h, w) out."""

    def __init__(self, core: Any, model: Any, options: Mapping[str, Any], *, cuts: bool) -> None:
        """model: an openvino.Model, which is not changed. cuts: take convolutions out; its size is fixed then."""
        stages = list(_stages(model)) if cuts and is_available() else [_Stage(model)]
        self.filters = [filter for stage in stages for filter in stage.filters]
        self.networks = [(core.compile_model(stage.model, "CPU", options), stage.filters) for stage in stages]

    def request(self) -> "Request":
        """Return what runs the network, for one thread at a time."""
        return Request([(one.create_infer_request(), filters) for one, filters in self.networks])


class Request:
    """One pass through the network at a time, in memory of its own."""

    def __init__(self, stages: Sequence[tuple[Any, Sequence[Filter]]]) -> None:
        self._stages = stages
        self._rooms: dict[int, torch.Tensor] = {}

    def __call__(self, image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits; the memory is the request's, and used again by the next call."""
        values: list[NDArray[np.float32]] = [image_BCHW]
        for request, filters in self._stages:
            results = request.infer(values, share_inputs=True, share_outputs=True)
            values = [results[index] for index in range(len(results))]
            values[: len(filters)] = map(self._convolved, filters, values)
        return values[0]

    def _convolved(self, filter: Filter, x_BHWC: NDArray[np.float32]) -> NDArray[np.float32]:
        if id(filter) not in self._rooms:
            self._rooms[id(filter)] = filter.room((x_BHWC.shape[1], x_BHWC.shape[2]))
        return filter.convolve(x_BHWC, room=self._rooms[id(filter)])


@dataclass(frozen=True)
class _Stage:
    """A part of a network; `filters` belong to its first outputs (B, H, W, C), and make the next one's first inputs."""

    model: Any
    filters: tuple[Filter, ...] = ()


def _stages(model: Any) -> Iterator[_Stage]:
    """Cut a model of fixed size at each convolution that is worth it, in the order of the graph."""
    rest, seen, is_cut = _simplified(model), set[str](), False
    while (found := _first_worth(rest, seen)) is not None:
        before, filter, rest = _cut(rest, *found)
        is_cut = True
        yield _Stage(before, (filter,))
    yield _Stage(rest if is_cut else model)


def _simplified(model: Any) -> Any:
    """The model with sizes and weights worked out, where it has a convolution that might be cut out."""
    least = winograd.FEWEST_CHANNELS
    if not any(_is_3x3(op) and op.input(0).get_partial_shape()[1].get_max_length() >= least
               for op in model.get_ops()):  # fmt: skip
        return model
    try:
        from openvino._offline_transformations import apply_moc_transformations
    except ImportError:  # an OpenVINO that has it elsewhere: weights that are not plain are not cut out
        return model
    model = model.clone()
    apply_moc_transformations(model, cf=True, smart_reshape=False)
    return model


def _first_worth(model: Any, seen: set[str]) -> tuple[Any, list[Any]] | None:
    """The first convolution, not looked at before, that saves more than the maps cost which cross the cut at it."""
    for op in model.get_ordered_ops():
        if op.get_name() in seen or not _is_3x3(op) or not _is_plain(op):
            continue
        seen.add(op.get_name())
        batch, channels, height, width = op.input(0).get_shape()
        outputs = op.output(0).get_shape()[1]
        dilation = op.get_attributes()["dilations"][0]
        if not winograd.is_worth((height, width), (outputs, channels), dilation=dilation, batch=batch):
            continue
        crossing = _crossing(model, op)
        if any(one.get_partial_shape().is_dynamic for one in crossing):
            continue
        saved = batch * height * width * channels * outputs * 9 * 3 / 4
        passing = batch * height * width * (channels + outputs) + sum(
            int(np.prod(list(one.get_shape()))) for one in crossing
        )
        if saved >= LEAST_SAVED * 4 * passing:
            return op, crossing
    return None


def _is_3x3(op: Any) -> bool:
    """A convolution of maps with 3x3 kernels, stride 1 and as much padding as dilation."""
    if op.get_type_name() != "Convolution" or str(op.input(0).get_partial_shape().rank) != "4":
        return False
    shape, told = op.input(1).get_partial_shape(), op.get_attributes()
    d = list(told["dilations"])
    return (
        [str(side) for side in shape][2:] == ["3", "3"]
        and list(told["strides"]) == [1, 1]
        and d[0] == d[1]
        and list(told["pads_begin"]) == list(told["pads_end"]) == d
    )


def _is_plain(op: Any) -> bool:
    """Everything is known, and in float32."""
    weight = op.input(1).get_source_output()
    return (
        weight.get_node().get_type_name() == "Constant"
        and weight.get_element_type().get_type_name() == "f32"
        and op.input(0).get_element_type().get_type_name() == "f32"
        and not op.input(0).get_partial_shape().is_dynamic
    )


def _after(model: Any, convolution: Any) -> set[str]:
    """The names of all operations that depend on a convolution, without it."""
    names = {convolution.get_name()}
    for op in model.get_ordered_ops():
        if any(_maker(one) in names for one in op.inputs()):
            names.add(op.get_name())
    return names - {convolution.get_name()}


def _crossing(model: Any, convolution: Any) -> list[Any]:
    """The outputs that what comes after a convolution also takes from what comes before it."""
    after = _after(model, convolution)
    crossing: dict[tuple[str, int], Any] = {}
    for op in model.get_ordered_ops():
        for one in op.inputs() if op.get_name() in after else ():
            source = one.get_source_output()
            is_before = _maker(one) not in after | {convolution.get_name()}
            if is_before and source.get_node().get_type_name() != "Constant":
                crossing[_maker(one), source.get_index()] = source
    return list(crossing.values())


def _cut(model: Any, convolution: Any, crossing: Sequence[Any]) -> tuple[Any, Filter, Any]:
    """Return the model before the convolution, its filter, and the model after it; the given one is used up."""
    import openvino
    from openvino import opset13 as ops

    after = _after(model, convolution)
    source, weight = (one.get_source_output() for one in convolution.inputs())
    results = [ops.result(ops.transpose(source, np.array(TO_NHWC))), *map(ops.result, crossing)]
    before = openvino.Model(results, model.get_parameters()).clone()
    filter = Filter.of(
        torch.from_numpy(weight.get_node().get_data().copy()),
        dilation=convolution.get_attributes()["dilations"][0],
    )
    batch, outputs, height, width = convolution.output(0).get_shape()
    made = ops.parameter([batch, height, width, outputs], np.float32)
    parameters = [made, *(ops.parameter(list(one.get_shape()), one.get_element_type()) for one in crossing)]
    replaced = [ops.transpose(made, np.array(TO_NCHW)), *parameters[1:]]
    for old, new in zip([convolution.output(0), *crossing], replaced, strict=True):
        for target in old.get_target_inputs():
            if target.get_node().get_name() in after:
                target.replace_source_output(new.output(0))
    return before, filter, openvino.Model(model.get_results(), parameters)


def _maker(one: Any) -> str:
    """The name of the operation that an input comes from."""
    name: str = one.get_source_output().get_node().get_name()
    return name
