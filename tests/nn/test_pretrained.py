"""A training that starts from a model: which rows are taken by name, which start anew, and what the line about it says.

Weights by name, from other places, are in test_starting.py.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from terrazzo.classes import Classes
from terrazzo.errors import WeightsError
from terrazzo.nn import ModelConfig, build
from terrazzo.nn.segformer import SegFormer
from terrazzo.nn.starting import NVIDIA_LICENSE, inflate, license_of, load_pretrained
from terrazzo.nn.weights import save_model
from tiny_segformer import ROAD, agree, as_transformers_saves_it, rewrite, tiny


def rows(network: SegFormer) -> Tensor:
    head = network.decode_head.classifier
    assert head.bias is not None
    return torch.cat([head.weight.flatten(1), head.bias[:, None]], dim=1).detach()


def test_rows_of_classes_of_the_same_name_are_reused(saved: Path):
    network, source = tiny(4, seed=1), tiny()
    fresh = rows(network).clone()
    report = load_pretrained(network, saved, classes=Classes(("person", "lake", "Road", "tree")))
    trained = rows(source)
    expected = torch.stack([trained[2], fresh[1], trained[0], fresh[3]])
    assert torch.equal(rows(network), expected)
    assert report == (
        f"{saved}: loaded the encoder and head; "
        "2 of 4 classes reused by name (person, Road), from random weights: lake, tree"
    )
    for name, tensor in source.state_dict().items():
        if "classifier" not in name:
            assert torch.equal(network.state_dict()[name], tensor), name


def test_the_same_classes_in_another_order_follow_their_names(saved: Path):
    network = tiny(seed=1)
    report = load_pretrained(network, saved, classes=Classes(("Person", "road", "sky")))
    assert torch.equal(rows(network), rows(tiny())[[2, 0, 1]])
    assert report == f"{saved}: loaded the encoder and head; all 3 classes reused by name"


def test_classes_without_names_are_never_matched_by_their_number(saved: Path):
    rewrite(as_transformers_saves_it(saved) / "config.json", id2label=None)
    network = tiny(seed=1)
    fresh = rows(network).clone()
    report = load_pretrained(network, saved, classes=Classes(("LABEL_0", "LABEL_1", "LABEL_2")))
    assert torch.equal(rows(network), fresh)
    assert report.endswith(
        "all 3 rows of the classifier start from random weights, for the source does not name its classes"
    )


def test_an_encoder_alone_leaves_the_head_as_it_was(saved: Path):
    """As nvidia/mit-b0 lies on the Hub: an ImageNet classifier beside the encoder."""
    tensors = {
        n: t.clone() for n, t in load_file(saved / "model.safetensors").items() if n.startswith("segformer.")
    }
    tensors |= {"classifier.weight": torch.zeros(1000, 32), "classifier.bias": torch.zeros(1000)}
    (saved / "model.safetensors").unlink()
    torch.save(tensors, saved / "pytorch_model.bin")
    rewrite(
        as_transformers_saves_it(saved) / "config.json", architectures=["SegformerForImageClassification"]
    )
    network = tiny(5, seed=1)
    head = {name: tensor.clone() for name, tensor in network.head.state_dict().items()}
    report = load_pretrained(network, saved, classes=Classes(tuple("abcde")))
    assert report == f"{saved}: loaded the encoder; the head starts from random weights"
    assert all(torch.equal(tensor, head[name]) for name, tensor in network.head.state_dict().items())
    source = tiny().backbone.state_dict()
    assert all(torch.equal(tensor, source[name]) for name, tensor in network.backbone.state_dict().items())


def test_bare_encoder_names_are_understood(saved: Path):
    """As SegformerModel.save_pretrained writes them, without "segformer."."""
    tensors = load_file(saved / "model.safetensors")
    bare = {n.removeprefix("segformer."): t.clone() for n, t in tensors.items() if n.startswith("segformer.")}
    save_file(bare, saved / "model.safetensors")
    network = tiny(seed=1)
    assert "loaded the encoder;" in load_pretrained(network, saved, classes=ROAD)
    assert agree_on_features(network, tiny())


def agree_on_features(one: SegFormer, other: SegFormer) -> bool:
    image = torch.rand(1, 3, 32, 32)
    pairs = zip(one.backbone.encoder(image), other.backbone.encoder(image), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_another_size_is_told_by_its_name(tmp_path: Path):
    torch.manual_seed(0)
    b0 = build(ModelConfig("segformer-b0"), num_classes=3)
    save_model(tmp_path, b0, classes=ROAD, preprocessing={})
    with torch.device("meta"):
        b1 = build(ModelConfig("segformer-b1"), num_classes=3)
    with pytest.raises(WeightsError, match="do not fit the network SegFormer") as caught:
        load_pretrained(b1, tmp_path, classes=ROAD)
    said = str(caught.value)
    assert "patch_embeddings.0.proj.weight: found (32, 3, 7, 7), expected (64, 3, 7, 7)" in said
    assert "… and" in said
    assert said.endswith("They are those of a segformer-b0. To build that one:\n  model.name=segformer-b0")


def test_a_failed_start_leaves_the_network_as_it_was(saved: Path):
    tensors = load_file(saved / "model.safetensors")
    tensors["decode_head.linear_fuse.weight"] = torch.zeros(24, 90, 1, 1)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, saved / "model.safetensors")
    network = tiny(seed=1)
    with pytest.raises(WeightsError, match=r"linear_fuse\.weight: found \(24, 90, 1, 1\)"):
        load_pretrained(network, saved, classes=ROAD)
    assert agree(network, tiny(seed=1))


def test_more_channels_spread_the_first_convolution(saved: Path):
    network = tiny(channels=4, seed=1)
    report = load_pretrained(network, saved, classes=ROAD)
    assert "first convolution spread from 3 to 4 channels" in report
    stem, source = (
        n.get_parameter("segformer.encoder.patch_embeddings.0.proj.weight") for n in (network, tiny())
    )
    assert torch.equal(stem, inflate(source, 4))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 13])
def test_inflation_keeps_what_an_even_image_gives(channels: int):
    weight = torch.randn(5, 3, 7, 7, dtype=torch.float64)
    even = torch.randn(1, 1, 20, 20, dtype=torch.float64)
    before = nn.functional.conv2d(even.expand(1, 3, 20, 20), weight)
    after = nn.functional.conv2d(even.expand(1, channels, 20, 20), inflate(weight, channels))
    assert torch.allclose(after, before, atol=1e-12)
    if channels == 3:
        assert torch.equal(inflate(weight, 3), weight)
    if channels == 6:  # twice RGB at half the strength
        assert torch.allclose(inflate(weight, 6), weight.repeat(1, 2, 1, 1) / 2)


def test_another_normalisation_is_told(saved: Path):
    network = tiny(mean=(0.1, 0.2, 0.3), seed=1)
    report = load_pretrained(network, saved, classes=ROAD)
    assert report.endswith(
        "images are normalised by this data set's mean and deviation, not those of the source "
        "(mean 0.485, 0.456, 0.406)"
    )


def test_the_licence_of_published_weights_is_known():
    assert license_of("nvidia/mit-b0") == NVIDIA_LICENSE
    assert license_of("nvidia/segformer-b5-finetuned-ade-640-640") == NVIDIA_LICENSE
    assert license_of("someone/else") is None
    assert "non-commercial" in NVIDIA_LICENSE
