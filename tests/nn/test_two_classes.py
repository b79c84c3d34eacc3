"""One number for two classes is the same model in other words: torch's sigmoid and binary cross-entropy say so."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrazzo import checkpoint
from terrazzo.classes import Classes
from terrazzo.ema import MovingAverage
from terrazzo.errors import RecipeError, UsageError
from terrazzo.inference import Predictor
from terrazzo.nn import MODELS, ModelConfig, build
from terrazzo.nn.losses import LossConfig, SegmentationLoss
from terrazzo.nn.outputs import Output, as_output
from terrazzo.nn.segformer import SegFormer, Size
from terrazzo.nn.segmenter import assemble
from terrazzo.nn.specs import SPECS
from terrazzo.nn.starting import load_pretrained
from terrazzo.nn.two_classes import as_two_classes, narrowed, widened
from terrazzo.nn.weights import load_tensors, read_model, read_tensors, save_model

CLASSES = Classes(("background", "crack"))
IGNORE = 255


class Score(nn.Module):
    """One number per pixel, with an auxiliary head of the same kind."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.score, self.other = nn.Conv2d(3, 1, 3, padding=1), nn.Conv2d(3, 1, 1, stride=2)

    def forward(self, image_BCHW: Tensor) -> Output:
        image_BCHW = 8.0 * (image_BCHW - 0.5)
        auxiliary = {"other": self.other(image_BCHW)} if self.training else {}
        return Output(self.score(image_BCHW), auxiliary)


def test_the_loss_of_one_number_is_torchs_binary_cross_entropy() -> None:
    image = torch.rand(2, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    mask = torch.randint(0, 2, (2, 8, 10), generator=torch.Generator().manual_seed(1))
    mask[0, :3] = IGNORE
    plain, network = Score(), as_two_classes(Score())
    loss = SegmentationLoss(LossConfig(auxiliary=0.4), torch.tensor([1.0, 3.0]), IGNORE)

    output = network.train()(image)
    terms = loss(output, mask, weight=loss.pixel_weight(mask))
    sum(terms.values()).backward()  # type: ignore[union-attr]

    truth = plain.train()(image)
    known = mask != IGNORE
    weight = torch.where(mask == 1, 3.0, 1.0)[known]
    resized = F.interpolate(truth.auxiliary["other"], (8, 10), mode="bilinear", align_corners=False)
    entropies = [
        F.binary_cross_entropy_with_logits(
            z[:, 0][known], mask[known].float(), weight=weight, reduction="sum"
        )
        / weight.sum()
        for z in (truth.logits, resized)
    ]
    (entropies[0] + 0.4 * entropies[1]).backward()
    assert terms["cross_entropy"].item() == pytest.approx(entropies[0].item(), rel=1e-6)
    assert terms["auxiliary"].item() == pytest.approx(0.4 * entropies[1].item(), rel=1e-6)
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-5, atol=1e-8)


def test_the_mask_of_one_number_is_where_it_is_positive_and_the_confidence_its_sigmoid() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    found = Predictor(as_two_classes(Score()), CLASSES, channels=3, device="cpu")(image, confidence=True)
    with torch.no_grad():
        z = Score().eval()(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255).logits[0, 0].numpy()
    probs = 1 / (1 + np.exp(-z.astype(np.float64)))
    assert 0.1 < (z > 0).mean() < 0.9
    np.testing.assert_array_equal(found.mask, z > 0)
    assert found.confidence is not None
    np.testing.assert_allclose(found.confidence, 255 * np.maximum(probs, 1 - probs), atol=1.01)


def test_parameters_keep_their_names_and_a_copy_behaves_alike() -> None:
    network = as_two_classes(as_two_classes(Score()))  # asking twice is asking once
    assert network.state_dict().keys() == Score().state_dict().keys()
    image = torch.rand(1, 3, 4, 4)
    for one in (network, copy.deepcopy(network)):
        logits = as_output(one.eval()(image)).logits
        assert logits.shape == (1, 2, 4, 4)
        assert not logits[:, 0].any()


def test_a_network_with_a_channel_for_each_class_is_refused() -> None:
    network = as_two_classes(nn.Conv2d(3, 2, 1))
    with pytest.raises(UsageError, match="more than one number for each pixel") as error:
        network(torch.rand(1, 3, 4, 4))
    assert "found: 2 channels\n  expected: 1, the score of the second of two classes" in str(error.value)


def narrow(name: str, num_classes: int) -> nn.Module:
    """A SegFormer or FCN with few channels, from random weights."""
    torch.manual_seed(num_classes)
    if name == "segformer":
        size = Size((1, 1, 1, 1), (8, 8, 16, 16), 16, num_heads=(1, 1, 2, 2))
        return SegFormer(size, num_classes, mean=(0.5,) * 3, std=(0.25,) * 3)
    spec = SPECS["fcn"](ModelConfig("fcn", backbone="resnet18_v1c"))
    spec["backbone"] |= {"stem_channels": 8, "base_channels": 8}
    return assemble(spec | {"head": {**spec["head"], "channels": 16}}, num_classes=num_classes)


@pytest.mark.parametrize("name", ["segformer", "fcn"])
def test_a_saved_model_of_one_number_is_the_model_of_two_classes_that_it_equals(
    name: str, tmp_path: Path
) -> None:
    network = as_two_classes(narrow(name, 1))
    save_model(tmp_path, network, classes=CLASSES, preprocessing={})
    found = read_model(tmp_path)
    assert found.classes == CLASSES
    assert found.network.num_classes == network.num_classes == 2
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ours, theirs = network.eval()(image).logits, found.network(image).logits
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert ours[:, 1].any() and not theirs[:, 0].any()

    other = as_two_classes(narrow(name, 1))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    said = load_pretrained(other, tmp_path, classes=CLASSES)
    assert said.startswith(f"{tmp_path}: loaded")
    for mine, theirs in zip(other.parameters(), network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_two_classes_become_one_number_by_their_difference() -> None:
    two, one = narrow("fcn", 2).eval(), as_two_classes(narrow("fcn", 1)).eval()
    load_tensors(one, two.state_dict(), where="two")
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        probs = [network(image).logits.softmax(1) for network in (one, two)]
    assert torch.allclose(probs[0], probs[1], atol=1e-6)
    tensors = one.state_dict()
    again = narrowed(one, widened(one, tensors))
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


def test_one_number_is_for_two_classes() -> None:
    with pytest.raises(RecipeError) as error:
        build(ModelConfig(one_logit=True), num_classes=3)
    assert str(error.value) == (
        "One number per pixel is for two classes.\n"
        "  found: model.one_logit=true and 3 classes\n"
        "  expected: a data set of two classes, or model.one_logit=false"
    )


@pytest.mark.parametrize(
    "name", sorted(set(MODELS) - {"huggingface", *(f"segformer-b{n}" for n in range(1, 6))})
)
def test_every_architecture_is_saved_as_two_classes(name: str) -> None:
    with torch.device("meta"):
        one = build(ModelConfig(name, one_logit=True), num_classes=2)
        two = build(ModelConfig(name), num_classes=2)
        saved = widened(one, one.state_dict())
    assert {key: tensor.shape for key, tensor in saved.items()} == {
        key: tensor.shape for key, tensor in two.state_dict().items()
    }


@pytest.mark.parametrize("averaged", [False, True])
def test_a_checkpoint_of_one_number_is_gone_on_from_to_the_last_bit(averaged: bool, tmp_path: Path) -> None:
    def begun() -> tuple[nn.Module, torch.optim.Optimizer, MovingAverage | None]:
        network = as_two_classes(narrow("segformer", 1)).train()
        average = MovingAverage(network, 0.9) if averaged else None
        return network, torch.optim.AdamW(network.parameters(), lr=0.1), average

    def step(network: nn.Module, optimizer: torch.optim.Optimizer, average: MovingAverage | None) -> None:
        torch.manual_seed(3)
        image, mask = torch.rand(2, 3, 32, 32), torch.randint(0, 2, (2, 32, 32))
        SegmentationLoss(LossConfig(), None, IGNORE)(as_output(network(image)), mask, weight=2048.0)[
            "cross_entropy"
        ].backward()
        optimizer.step()
        optimizer.zero_grad()
        if average is not None:
            average.update(network)

    network, optimizer, average = begun()
    step(network, optimizer, average)
    snapshot = checkpoint.snapshot(network, optimizer, average, is_kept=True)
    save_model(tmp_path, network, classes=CLASSES, preprocessing={}, tensors=snapshot.model)
    snapshot.write_training_state(tmp_path)
    step(network, optimizer, average)

    again, its_optimizer, its_average = begun()
    tensors = read_tensors(tmp_path / "model.safetensors")
    checkpoint.read_training_state(tmp_path, again, its_optimizer, its_average, tensors)
    if its_average is not None:
        its_average.updates = 1
    step(again, its_optimizer, its_average)
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    if average is not None and its_average is not None:
        assert all(torch.equal(its_average.tensors[name], tensor) for name, tensor in average.tensors.items())
