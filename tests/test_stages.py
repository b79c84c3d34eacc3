"""Graphs in stages: the function of the whole graph, cut only where that is worth it."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

openvino = pytest.importorskip("openvino", reason="OpenVINO, of the extra deploy, is not installed")
pytest.importorskip("numba", reason="numba is not installed")

from openvino import opset13 as ops  # noqa: E402

from terrazzo import stages  # noqa: E402
from terrazzo.graphs import openvino_core  # noqa: E402
from terrazzo.runtimes import GraphInfo, OpenVINOBackend  # noqa: E402
from terrazzo.stages import Stages  # noqa: E402

C, HW = 320, (40, 44)
OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": 2}


def weights(seed: int, *shape: int) -> np.ndarray:
    fan = np.prod(shape[1:])
    return (np.random.default_rng(seed).standard_normal(shape) / np.sqrt(fan)).astype(np.float32)


WIDEN, WIDE, NEXT, LAST = (
    weights(0, C, 3, 1, 1),
    weights(1, C, C, 3, 3),
    weights(2, C, C, 3, 3),
    weights(3, 5, C, 1, 1),
)


def conv(x: Any, weight: np.ndarray, dilation: int = 1) -> Any:
    pad = [dilation * (weight.shape[2] // 2)] * 2
    return ops.convolution(x, ops.constant(weight), [1, 1], pad, pad, [dilation, dilation])


def graph(*, batch: int = 1, dilation: int = 1, hw: tuple[int, int] = HW, dtype: type = np.float32) -> Any:
    """Two wide convolutions, and values that pass by both."""
    image = ops.parameter([batch, 3, *hw], np.float32)
    widened = conv(image, WIDEN)
    if dtype is np.float16:
        weight = ops.convert(ops.constant(WIDE.astype(np.float16)), np.float32)
        wide = ops.relu(ops.convolution(widened, weight, [1, 1], [1, 1], [1, 1], [1, 1]))
    else:
        wide = ops.relu(conv(widened, WIDE, dilation))
    again = ops.relu(conv(wide, NEXT))
    mean = ops.reduce_mean(widened, np.array([2, 3]), keep_dims=True)
    return openvino.Model([ops.result(conv(ops.add(ops.add(wide, again), mean), LAST))], [image])


def truth(image: np.ndarray, *, dilation: int = 1) -> np.ndarray:
    """The same in float64, by torch."""
    x, *of = (torch.from_numpy(one).double() for one in (image, WIDEN, WIDE, NEXT, LAST))
    widened = F.conv2d(x, of[0])
    wide = F.conv2d(widened, of[1], padding=dilation, dilation=dilation).relu()
    again = F.conv2d(wide, of[2], padding=1).relu()
    return F.conv2d(wide + again + widened.mean((2, 3), keepdim=True), of[3]).numpy()


def image(batch: int = 1, hw: tuple[int, int] = HW) -> np.ndarray:
    return np.random.default_rng(9).random((batch, 3, *hw), np.float32)


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps are worth a cut too."""
    monkeypatch.setattr(stages, "LEAST_SAVED", 100)


@pytest.mark.parametrize(("batch", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_a_graph_in_stages_is_the_whole_graph(batch: int, dilation: int) -> None:
    model, seen = graph(batch=batch, dilation=dilation), image(batch)
    found = Stages(openvino_core(), model, OPTIONS, cuts=True)
    assert [one.dilation for one in found.filters] == [dilation, 1]
    run, expected = found.request(), truth(seen, dilation=dilation)
    for _ in range(2):  # memory is used again
        assert np.abs(run(seen) - expected).max() < 1e-4 * expected.std()
    whole = Stages(openvino_core(), model, OPTIONS, cuts=False)  # the given model is as it was
    assert whole.filters == []
    assert np.abs(whole.request()(seen) - expected).max() < 1e-4 * expected.std()


def test_requests_run_beside_each_other() -> None:
    found = Stages(openvino_core(), graph(), OPTIONS, cuts=True)
    images = [image() * share for share in (1, 0.5, 0.25)]
    expected = [np.array(found.request()(one)) for one in images]
    answers: dict[int, list[np.ndarray]] = {}

    def ask(number: int) -> None:
        run = found.request()
        answers[number] = [np.array(run(images[number])) for _ in range(4)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for number, same in answers.items():  # torch computes a product otherwise where a thread has one core
        assert len(same) == 4
        assert all(np.abs(one - expected[number]).max() < 1e-4 * expected[number].std() for one in same)


def test_it_is_cut_where_that_is_worth_it_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def filters(model: Any) -> int:
        return len(Stages(openvino_core(), model, OPTIONS, cuts=True).filters)

    assert filters(graph()) == 2
    assert filters(graph(hw=(8, 8))) == 0  # too few tiles
    assert filters(graph(dilation=30)) == 1  # tiles that are mostly padding
    assert filters(graph(dtype=np.float16)) == 2  # stored in half the bytes, computed in float32
    monkeypatch.setattr(stages, "LEAST_SAVED", 10_000)
    assert filters(graph()) == 0
    monkeypatch.setattr(stages, "LEAST_SAVED", 100)
    monkeypatch.setattr(stages, "is_available", lambda: False)  # no numba
    assert filters(graph()) == 0


def test_the_backend_cuts_in_float32_at_a_size_and_not_in_bf16() -> None:
    seen, expected = image(), truth(image())
    exact = OpenVINOBackend(graph(), GraphInfo(3, size_hw=HW))
    assert np.abs(exact(seen) - expected).max() < 1e-4 * expected.std()
    rough = OpenVINOBackend(graph(), GraphInfo(3, size_hw=HW), precision="bf16")
    assert np.abs(rough(seen) - expected).max() < 0.2 * expected.std()
    counts = [[len(one.stages.filters) for one in each._compiled.values()] for each in (exact, rough)]
    assert counts == [[2], [0]]
