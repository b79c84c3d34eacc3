"""Graphs of networks in ONNX Runtime and OpenVINO: the function of the torch module, at any size, in any thread."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from terrazzo import graphs, runtimes
from terrazzo.errors import ImageFormatError, MissingExtraError, UsageError, WeightsError
from terrazzo.graphs import folded, onnx_graph
from terrazzo.inference import load
from terrazzo.nn import MODELS, ModelConfig, build
from terrazzo.nn.outputs import Output
from terrazzo.nn.segformer import SegFormer
from terrazzo.nn.segformer_graph import graph_form
from terrazzo.nn.segmenter import HEADS, assemble
from terrazzo.nn.specs import SPECS
from terrazzo.runtimes import GraphInfo, OnnxBackend, OpenVINOBackend

RUNTIMES = [OnnxBackend, OpenVINOBackend]
SIZES = [(48, 64), (33, 57), (97, 131)]


@pytest.fixture(scope="module")
def network(tiny_model: Path) -> nn.Module:
    return load(tiny_model).network


@pytest.fixture(scope="module")
def graph(tiny_graph: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("graph") / "tiny.onnx"
    file.write_bytes(tiny_graph.SerializeToString())
    return file


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def torch_logits(network: nn.Module, image: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        logits: NDArray[np.float32] = network(torch.from_numpy(image)).logits.numpy()
    return logits


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_graph_gives_the_networks_logits_at_any_size_and_batch(
    runtime: type[OnnxBackend | OpenVINOBackend], graph: Path, network: nn.Module
) -> None:
    backend = runtime(graph, GraphInfo(3))
    for number, (height, width) in enumerate(SIZES):
        image = noise(1 + number % 2, 3, height, width, seed=number)
        expected, got = torch_logits(network, image), backend(image)
        assert got.shape == expected.shape
        assert got.dtype == np.float32
        assert np.abs(got - expected).max() < 1e-4 * expected.std()


def test_further_sizes_share_one_compiled_network(
    graph: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "SIZES", 1)
    backend = OpenVINOBackend(graph, GraphInfo(3))
    for height in (40, 41, 42, 40):
        image = noise(1, 3, height, 50)
        assert np.abs(backend(image) - torch_logits(network, image)).max() < 1e-4
    assert {shape for shape, _ in backend._compiled} == {(1, 3, 40, 50), None}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_do_not_mix_their_images(
    runtime: type[OnnxBackend | OpenVINOBackend], graph: Path, network: nn.Module
) -> None:
    backend = runtime(graph, GraphInfo(3))
    images = [noise(1, 3, 40, 48, seed=seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(backend, images))
    for image, got in zip(images, together, strict=True):
        assert np.abs(got - torch_logits(network, image)).max() < 1e-4


def test_passes_beside_each_other_get_streams_of_their_own(
    graph: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as share the threads, and the answers stay those of the network."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    backend = OpenVINOBackend(graph, GraphInfo(3))
    image = noise(1, 3, 48, 64)
    alone = backend(image)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with ThreadPoolExecutor(2) as pool:
        beside = list(pool.map(backend, [image] * 6))
    assert sorted(streams for _, streams in backend._compiled) == [1, 2]
    for logits in beside:
        assert np.abs(logits - alone).max() < 1e-4 * alone.std()
    told = [one.stages.networks[0][0].get_property("NUM_STREAMS") for one in backend._compiled.values()]
    assert sorted(map(int, told)) == [1, 2]


def test_bf16_is_taken_only_where_it_is_asked_for(graph: Path, network: nn.Module) -> None:
    image = noise(1, 3, 64, 64)
    expected = torch_logits(network, image)
    exact = np.abs(OpenVINOBackend(graph, GraphInfo(3))(image) - expected).max() / expected.std()
    rough = np.abs(OpenVINOBackend(graph, GraphInfo(3), precision="bf16")(image) - expected).max()
    assert exact < 1e-4
    assert rough / expected.std() < 0.1
    if "BF16" in graphs.openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert rough > 10 * exact * expected.std()


def test_images_that_do_not_fit_a_graph_are_told_in_words(graph: Path) -> None:
    backend = OnnxBackend(graph, GraphInfo(3, size_hw=(48, 64)))
    assert len(backend(noise(2, 3, 48, 64))) == 2
    with pytest.raises(ImageFormatError, match="images of one size.\n.*found: 64x48 .*\n.*expected: 48x64"):
        backend(noise(1, 3, 64, 48))
    with pytest.raises(ImageFormatError, match="does not have the channels that the graph takes"):
        backend(noise(1, 4, 48, 64))
    with pytest.raises(ImageFormatError, match="too small for the graph.\n.*found: 31x40"):
        OnnxBackend(graph, GraphInfo(3))(noise(1, 3, 31, 40))
    with pytest.raises(UsageError, match="holds a graph, and no torch module"):
        _ = backend.network


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_images_too_small_for_a_graph_go_through_its_network(
    runtime: type[OnnxBackend | OpenVINOBackend], graph: Path, network: nn.Module
) -> None:
    backend = runtime(graph, GraphInfo(3, network=network))
    image = noise(1, 3, 20, 300)
    assert np.array_equal(backend(image), torch_logits(network, image))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_damaged_graph_is_an_error_with_its_name(
    runtime: type[OnnxBackend | OpenVINOBackend], graph: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(graph.read_bytes()[:500])
    with pytest.raises(WeightsError, match=r"broken.onnx cannot be opened"):
        runtime(broken, GraphInfo(3))


def test_a_runtime_that_is_not_installed_is_told_with_what_brings_it(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="needs openvino, which is not installed") as caught:
        OpenVINOBackend(graph, GraphInfo(3))
    assert 'pip install "terrazzo[deploy]"' in str(caught.value)


def test_a_network_that_cannot_be_followed_is_told_and_left_as_it_was() -> None:
    class Fickle(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image if float(image.sum()) > 0 else -image

    network = Fickle().train()
    with pytest.raises(WeightsError, match="cannot be written as a graph"):
        onnx_graph(network, channels=3)
    assert network.training


# every architecture -----------------------------------------------------------------------------------------------


class Together(nn.Module):
    """All heads on one backbone, their logits stacked as classes at one size: one graph instead of seven."""

    def __init__(self) -> None:
        super().__init__()
        spec = narrow(SPECS["pspnet"](ModelConfig("pspnet")))
        common = {"num_classes": 3, "mean": (0.5,) * 3, "std": (0.2,) * 3}
        torch.manual_seed(0)
        self.first = assemble(spec, **common)
        heads = [
            name
            for name in HEADS
            if name in SPECS and SPECS[name](ModelConfig(name))["backbone"]["kind"] == "resnet"
        ]
        self.names = heads
        self.others = nn.ModuleList(
            assemble({**narrow(SPECS[name](ModelConfig(name))), "backbone": spec["backbone"]}, **common).head
            for name in heads
        )

    def forward(self, image: Tensor) -> Output:
        maps = self.first.backbone((image - self.first.mean) / self.first.std)
        logits = [head(maps) for head in self.others]
        return Output(torch.cat([one[:, :, ::4, ::4][:, :, :3, :3] for one in logits], dim=1))


def narrow(spec: dict) -> dict:
    backbone, head = dict(spec["backbone"]), {**spec["head"], "channels": 8}
    if backbone["kind"] == "resnet":
        backbone |= {"depth": 18, "stem_channels": 4, "base_channels": 4}
    elif backbone["kind"] == "mit":
        backbone |= {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32], "num_heads": [1, 2, 3, 4]}
    elif backbone["kind"] == "unet":
        backbone["base_channels"] = 4
    elif backbone["kind"] == "nearfar":
        backbone |= {"widths": [8, 8, 16, 16], "depths": [1, 1, 2], "dilations": [1, 2], "group_channels": 4}
        head["channels"] = [8, 8, 8]
    if "c1_channels" in head:
        head["c1_channels"] = 4
    return {**spec, "backbone": backbone, "head": head, "auxiliary": None}


def shallow(name: str) -> nn.Module:
    """A SegFormer of this name's widths, with two blocks a stage at most."""
    network = build(ModelConfig(name), num_classes=3)
    assert isinstance(network, SegFormer)
    size = replace(network.size, depths=tuple(min(2, depth) for depth in network.size.depths))
    return SegFormer(size, 3, mean=network.mean.flatten().tolist(), std=network.std.flatten().tolist())


def agree(network: nn.Module, size_hw: tuple[int, int] | None, sizes: list[tuple[int, int]]) -> None:
    """Both runtimes, each with the graph it gets, give the network's logits at these sizes."""
    form = graph_form(network.eval())
    file = folded(onnx_graph(network, channels=3, size_hw=size_hw)).SerializeToString()
    other = (
        file if form is network else folded(onnx_graph(form, channels=3, size_hw=size_hw)).SerializeToString()
    )
    backends = [
        OnnxBackend(file, GraphInfo(3)),
        OpenVINOBackend(graphs.openvino_core().read_model(other, b""), GraphInfo(3)),
    ]
    for size in sizes:
        image = noise(1, 3, *size)
        expected = torch_logits(network, image)
        for backend in backends:
            assert np.abs(backend(image) - expected).max() < 1e-3 * expected.std(), (backend.says, size)


def test_all_heads_on_a_resnet_are_the_same_functions_as_graphs() -> None:
    network = Together()
    assert {"fcn", "pspnet", "deeplabv3", "deeplabv3plus", "upernet"} <= set(network.names)
    agree(network, (73, 101), [(73, 101)])


@pytest.mark.parametrize("name", ["unet", "segformer-conv", "nearfar"])
def test_other_encoders_are_the_same_functions_as_graphs(name: str) -> None:
    torch.manual_seed(0)
    agree(assemble(narrow(SPECS[name](ModelConfig(name))), num_classes=3), (73, 101), [(73, 101)])


def test_image_pooling_is_the_same_function_in_a_graph_of_free_size() -> None:
    """OpenVINO once rewrote the resize of its one cell without end."""
    torch.manual_seed(0)
    agree(assemble(narrow(SPECS["deeplabv3"](ModelConfig("deeplabv3"))), num_classes=3), None, [(72, 104)])


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"huggingface"}))
def test_every_architecture_is_the_same_function_at_any_size(name: str) -> None:
    torch.manual_seed(0)
    network = (
        assemble(narrow(SPECS[name](ModelConfig(name))), num_classes=3) if name in SPECS else shallow(name)
    )
    agree(network, None, [(72, 104), (45, 39), (97, 131), (64, 33)])
