"""The table of architectures: counted by hand where that can be done, and whole."""

import pytest

from terrazzo.architectures import COUNTS, Architecture, cost, count, table
from terrazzo.nn import MODELS, ModelConfig
from terrazzo.storage import read_json


@pytest.fixture(scope="module")
def rows() -> tuple[Architecture, ...]:
    return table()


def test_every_architecture_has_its_row(rows: tuple[Architecture, ...]) -> None:
    assert {row.name for row in rows} == set(MODELS)
    assert all(row.code == "Apache-2.0" for row in rows)
    assert all(row.parameters and row.multiply_adds for row in rows if row.name != "huggingface")


@pytest.mark.parametrize(
    "key",
    [
        "segformer-b0",
        "unet",
        "pspnet resnet50_v1c",
        "upernet resnet50_v1c",
        "segformer-conv mit_b0",
        "nearfar",
    ],
)
def test_the_kept_counts_are_those_of_the_networks(key: str) -> None:
    name, _, backbone = key.partition(" ")
    kept = tuple(read_json(COUNTS)[key])
    assert kept == cost(ModelConfig(name, backbone=backbone or None)), "scripts/reference.py --write"


@pytest.mark.long
def test_all_kept_counts_are_those_of_the_networks() -> None:
    assert {key: tuple(kept) for key, kept in read_json(COUNTS).items()} == count()


def test_a_u_net_costs_what_its_convolutions_do() -> None:
    """By hand, at 32x64: multiply-adds of each convolution are its weights times the pixels it gives."""

    def twice(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + 9 * outputs * outputs

    pixels = 32 * 64
    widths = (64, 128, 256, 512, 1024)
    down = sum(
        twice(i, o) * pixels // 4**level
        for level, (i, o) in enumerate(zip((3, *widths[:-1]), widths, strict=True))
    )
    up = sum(twice(2 * o, o) * pixels // 4**level for level, o in enumerate(widths[:-1]))
    enlarged = sum(2 * o * o * pixels // 4 ** (level + 1) for level, o in enumerate(widths[:-1]))
    head = (9 * 64 * 64 + 64 * 5) * pixels
    _, multiply_adds = cost(ModelConfig("unet"), seen_hw=(32, 64), num_classes=5)
    assert multiply_adds == down + up + enlarged + head


def test_published_scores_and_licences_are_those_of_the_backbone(rows: tuple[Architecture, ...]) -> None:
    [psp] = [one for one in rows if (one.name, one.backbone) == ("pspnet", "resnet101_v1c")]
    assert psp.published == {"Cityscapes": 79.77, "ADE20K": 44.39}
    assert list(psp.weights) == ["openmmlab/resnet101_v1c"]
    [former] = [one for one in rows if (one.name, one.backbone) == ("segformer-conv", "mit_b5")]
    assert former.published["Cityscapes"] == 82.25
    assert "non-commercial" in former.weights["nvidia/mit-b5"]
    [plain] = [one for one in rows if one.name == "segformer-b0"]
    assert plain.published == {}  # theirs are scores of another head
