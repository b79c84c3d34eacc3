"""Which backend a model gets, and that a kept graph is the graph of these weights and whole."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from terrazzo import converted
from terrazzo.converted import choose_backend
from terrazzo.errors import MissingExtraError, UnknownNameError, UsageError, WeightsError
from terrazzo.inference import Predictor, load
from terrazzo.runtimes import OnnxBackend, OpenVINOBackend


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TERRAZZO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TERRAZZO_BACKEND")
    return tmp_path / "cache" / "graphs"


class Written:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.of: list[str] = []

    def __call__(self, network: torch.nn.Module, *, channels: int) -> "Written":
        self.of.append(type(network).__name__)
        return self

    @property
    def count(self) -> int:
        return len(self.of)

    def SerializeToString(self) -> bytes:
        return self.data


@pytest.fixture
def writing(tiny_graph: Any, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Writing a graph costs nothing here, and is counted."""
    written = Written(tiny_graph.SerializeToString())
    monkeypatch.setattr(converted, "onnx_graph", written)
    return written


def mask(model: Predictor) -> np.ndarray:
    image = np.random.default_rng(3).integers(0, 255, (50, 66, 3), np.uint8)
    return model(image).mask


def test_auto_takes_openvino_on_a_cpu_says_so_and_predicts_the_same(
    tiny_model: Path, cache: Path, writing: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    fast, plain = load(tiny_model, device="cpu"), load(tiny_model, device="cpu", backend="torch")
    assert isinstance(fast.eye.backend, OpenVINOBackend)
    assert fast.backend.startswith("OpenVINO 2")
    assert fast.backend.endswith(", f32")
    assert plain.backend == f"PyTorch {torch.__version__}, f32"
    assert fast.notes == (f"{fast.backend} runs the network.",)
    assert plain.notes == ()
    assert "Writing the network as a graph, once" in capsys.readouterr().err
    assert np.array_equal(mask(fast), mask(plain))
    assert fast.network is fast.eye.backend.network  # the torch module is still there


def test_a_kept_graph_is_found_again_and_a_damaged_one_made_anew(
    tiny_model: Path, cache: Path, writing: Written
) -> None:
    expected = mask(load(tiny_model, backend="openvino"))
    load(tiny_model, backend="openvino", precision="bf16")  # the same graph
    assert writing.of == ["SegFormerGraph"]
    (file,) = cache.glob("*.onnx")
    file.write_bytes(file.read_bytes()[:-100])
    assert np.array_equal(mask(load(tiny_model, backend="openvino")), expected)
    assert writing.count == 2
    assert file.read_bytes() == writing.data
    file.with_suffix(".sha256").unlink()
    load(tiny_model, backend="openvino")
    assert writing.count == 3


def test_each_runtime_keeps_the_graph_it_likes(tiny_model: Path, cache: Path, writing: Written) -> None:
    for backend in ("openvino", "onnx", "openvino", "onnx"):
        load(tiny_model, backend=backend)
    assert writing.of == ["SegFormerGraph", "SegFormer"]
    assert len(list(cache.glob("*.onnx"))) == 2


def test_other_weights_have_another_graph(tiny_model: Path, cache: Path, writing: Written) -> None:
    network = load(tiny_model, backend="torch").network
    choose_backend(network, backend="onnx")
    with torch.no_grad():
        network.decode_head.classifier.bias[0] += 1e-6
    choose_backend(network, backend="onnx")
    network.set_normalisation((0.1,) * 3, (0.2,) * 3)
    choose_backend(network, backend="onnx")
    assert writing.count == 3
    assert len(list(cache.glob("*.onnx"))) == 3


def test_where_nothing_can_be_kept_it_works_all_the_same(
    tiny_model: Path, tmp_path: Path, writing: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TERRAZZO_CACHE", str(tmp_path / "file"))
    assert isinstance(load(tiny_model, backend="onnx").eye.backend, OnnxBackend)
    assert writing.count == 1


def test_the_oldest_graphs_go_when_they_are_too_many(
    tiny_model: Path, cache: Path, writing: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    cache.mkdir(parents=True)
    old, young = cache / "old.onnx", cache / "young.onnx"
    for file, seconds in ((old, 1_000_000), (young, 1_700_000_000)):
        file.write_bytes(b"x" * len(writing.data))
        os.utime(file, (seconds, seconds))
    monkeypatch.setattr(converted, "KEPT_BYTES", int(2.5 * len(writing.data)))
    load(tiny_model, backend="onnx")
    assert not old.exists()
    assert young.exists()


def test_a_machine_may_say_what_auto_means(
    tiny_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERRAZZO_BACKEND", "torch")
    assert load(tiny_model).backend.startswith("PyTorch")
    monkeypatch.setenv("TERRAZZO_BACKEND", "tortch")
    with pytest.raises(UnknownNameError, match=r"no backend \(\$TERRAZZO_BACKEND\) 'tortch'"):
        load(tiny_model)


def test_without_the_runtimes_auto_is_pytorch_and_naming_one_says_what_brings_it(
    tiny_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converted, "find_spec", lambda name: None)
    assert load(tiny_model).backend.startswith("PyTorch")
    monkeypatch.setattr("terrazzo.graphs.find_spec", lambda name: None)
    assert load(tiny_model).backend.startswith("PyTorch")
    with pytest.raises(MissingExtraError, match="onnx"):
        load(tiny_model, backend="onnx")


def test_auto_falls_back_to_pytorch_aloud_where_a_network_cannot_be_written(
    tiny_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(network: torch.nn.Module, *, channels: int) -> None:
        raise WeightsError("The network cannot be written as a graph.", found="a loop")

    monkeypatch.setattr(converted, "onnx_graph", refuse)
    model = load(tiny_model)
    assert model.backend.startswith("PyTorch")
    assert model.notes == ("PyTorch runs the network: The network cannot be written as a graph. a loop",)


def test_a_precision_is_never_changed_in_silence(tiny_model: Path, cache: Path, writing: Written) -> None:
    with pytest.raises(UsageError, match="computes in the precision in which a graph is written"):
        load(tiny_model, backend="onnx", precision="bf16")
    assert load(tiny_model, precision="bf16").backend.endswith(", bf16")


def test_ones_own_network_is_never_taken_from_the_cache(cache: Path) -> None:
    class Own(torch.nn.Module):
        channels = 3

        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * self.factor

    image = np.ones((1, 3, 40, 40), np.float32)
    for factor in (2.0, 3.0):  # no weight tells them apart
        backend, _ = choose_backend(Own(factor), backend="onnx")
        assert backend(image).max() == factor
    assert not list(cache.glob("*.onnx"))
    assert choose_backend(Own(2.0))[0].says.startswith("PyTorch")


def test_a_model_that_was_copied_finds_its_graph(
    tiny_model: Path, tmp_path: Path, cache: Path, writing: Written
) -> None:
    shutil.copytree(tiny_model, tmp_path / "copy")
    load(tiny_model, backend="onnx")
    load(tmp_path / "copy", backend="onnx")
    assert writing.count == 1
