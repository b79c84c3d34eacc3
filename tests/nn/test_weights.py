"""Models on disk: what is saved is what is read, wherever it comes from; what does not fit is told."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from terrazzo.errors import MissingPathError, UsageError, WeightsError
from terrazzo.nn.segformer import SegFormer
from terrazzo.nn.segformer_files import model_config
from terrazzo.nn.starting import license_of, load_pretrained
from terrazzo.nn.weights import model_folder, read_model, save_model
from tiny_segformer import ROAD, agree, rewrite, tiny

# saved and read -----------------------------------------------------------------------------------------


def test_no_random_weights_are_drawn_for_those_that_are_read(saved: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*words: Any, **more: Any) -> None:
        raise AssertionError("drawing on torch's meta device imports its compiler, seconds of every start")

    monkeypatch.setattr(nn.init, "normal_", refuse)
    read_model(saved)


def test_what_is_saved_is_what_is_read(tmp_path: Path):
    network = tiny(
        channels=4, mean=(0.1, 0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7, 0.8), dropout=0.2, drop_path=0.3
    )
    card = {"recipe": {"name": "mine"}, "licenses": {"weights": "CC0-1.0"}}
    preprocessing = {"resize": "short", "resize_hw": (320, 480), "dtype": "uint16"}
    save_model(tmp_path, network, classes=ROAD, preprocessing=preprocessing, terrazzo=card)
    loaded = read_model(tmp_path)
    assert isinstance(loaded.network, SegFormer)
    assert agree(loaded.network, network, channels=4)
    assert torch.equal(loaded.network.mean, network.mean)
    assert torch.equal(loaded.network.std, network.std)
    assert (loaded.network.dropout, loaded.network.drop_path) == (0.2, 0.3)
    assert loaded.classes == ROAD
    assert loaded.preprocessing == {"resize": "short", "resize_hw": [320, 480], "dtype": "uint16"}
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert processor["do_resize"] is False  # it has no word for "short"
    assert processor["rescale_factor"] == 1 / 65535
    assert loaded.terrazzo["recipe"] == {"name": "mine"}
    assert loaded.said == ()
    assert license_of(tmp_path) == "CC0-1.0"


def test_reading_lets_go_of_the_file(saved: Path):
    network = read_model(saved).network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    data = bytearray((saved / "model.safetensors").read_bytes())
    data[-4000:] = bytes(4000)
    (saved / "model.safetensors").write_bytes(data)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_reading_a_segformer_imports_neither_transformers_nor_timm(saved: Path):
    program = (
        "import sys; from terrazzo.nn.weights import read_model; import torch;"
        f"read_model({str(saved)!r}).network(torch.rand(1, 3, 32, 32));"
        "print(sorted({'transformers', 'timm', 'accelerate', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_draws_no_random_numbers(saved: Path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    read_model(saved)
    assert torch.equal(torch.rand(3), expected)


def test_half_precision_weights_become_float32(saved: Path):
    tensors = load_file(saved / "model.safetensors")
    halves = {n: t.half() if t.is_floating_point() else t.clone() for n, t in tensors.items()}
    save_file(halves, saved / "model.safetensors")
    network = read_model(saved).network
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    name = "decode_head.linear_fuse.weight"
    assert torch.equal(network.get_parameter(name), halves[name].float())


def test_the_config_names_every_size():
    config = model_config(tiny(), ROAD)
    assert config["semantic_loss_ignore_index"] == 255
    assert config["label2id"] == {"road": 0, "sky": 1, "Person": 2}


# networks of one's own ----------------------------------------------------------------------------------


class Own(nn.Module):
    """One convolution, its weight under two names."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 3, padding=1)
        self.tied = self.conv

    def forward(self, image_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.conv(image_BCHW)
        return logits


def test_a_network_of_ones_own_is_saved_and_read_back_with_it(tmp_path: Path):
    network = Own()
    save_model(tmp_path, network, classes=ROAD, preprocessing={"resize": "fit", "resize_hw": (64, 64)})
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "terrazzo.json"}
    loaded = read_model(tmp_path, network=Own())
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(loaded.network(image), network(image))
    assert loaded.classes == ROAD
    assert loaded.preprocessing["resize"] == "fit"


def test_a_network_of_ones_own_is_not_guessed(tmp_path: Path):
    save_model(tmp_path, Own(), classes=ROAD, preprocessing={})
    with pytest.raises(WeightsError, match=r"holds a network of your own, .*test_weights\.Own") as caught:
        read_model(tmp_path)
    assert str(caught.value).endswith(f"terrazzo.load({str(tmp_path)!r}, network=Own(...))")


def test_a_network_of_ones_own_that_has_changed_is_refused(tmp_path: Path):
    save_model(tmp_path, Own(), classes=ROAD, preprocessing={})
    with pytest.raises(WeightsError, match="do not fit the network Own: 4 tensors") as caught:
        read_model(tmp_path, network=Own(num_classes=5))
    assert "conv.weight: found (3, 3, 3, 3), expected (5, 3, 3, 3)" in str(caught.value)


def test_a_network_of_ones_own_takes_tensors_one_to_one(tmp_path: Path):
    source, network = Own(), Own()
    save_model(tmp_path, source, classes=ROAD, preprocessing={})
    assert load_pretrained(network, tmp_path, classes=ROAD) == f"{tmp_path}: loaded all 4 tensors"
    assert torch.equal(network.conv.weight, source.conv.weight)


# what does not fit --------------------------------------------------------------------------------------


def test_a_newer_terrazzo_is_not_guessed_at(saved: Path):
    rewrite(saved / "terrazzo.json", format_version=99)
    with pytest.raises(WeightsError, match="was saved by a newer terrazzo") as caught:
        read_model(saved)
    assert "found: format_version 99 in terrazzo.json" in str(caught.value)


def test_wrong_shapes_are_listed_all_at_once(saved: Path):
    tensors = load_file(saved / "model.safetensors")
    tensors["decode_head.classifier.weight"] = torch.zeros(7, 24, 1, 1)
    tensors["decode_head.batch_norm.weight"] = torch.zeros(25)
    del tensors["decode_head.linear_fuse.weight"]
    tensors["decode_head.extra"] = torch.zeros(1)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, saved / "model.safetensors")
    with pytest.raises(WeightsError) as caught:
        read_model(saved)
    assert str(caught.value).splitlines() == [
        f"The weights in {saved} do not fit the network SegFormer: 4 tensors.",
        "  found: ",
        "    decode_head.linear_fuse.weight: missing",
        "    decode_head.batch_norm.weight: found (25,), expected (24,)",
        "    decode_head.classifier.weight: found (7, 24, 1, 1), expected (3, 24, 1, 1)",
        "    decode_head.extra: not part of this network",
    ]
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("config.json", {"depths": [1, 1, 1, 10**9]}),
        ("config.json", {"hidden_sizes": [8, 16, 24, 10**12]}),
        ("config.json", {"decoder_hidden_size": 30_000}),
        ("config.json", {"strides": [0, 2, 2, 2]}),
        ("config.json", {"patch_sizes": [-7, 3, 3, 3]}),
        ("config.json", {"mlp_ratios": "4444"}),
        ("config.json", {"num_attention_heads": [1, 2, None, 4]}),
        ("config.json", {"num_channels": "three"}),
        ("preprocessor_config.json", {"rescale_factor": [1]}),
        ("preprocessor_config.json", {"size": {"width": 3}}),
        ("terrazzo.json", {"format_version": "new"}),
        ("terrazzo.json", {"network": {"mean": [0.5] * 3, "std": [0.0] * 3}}),
        ("terrazzo.json", {"network": {"mean": [float("nan")] * 3, "std": [1.0] * 3}}),
        ("terrazzo.json", {"network": []}),
        ("terrazzo.json", {"preprocessing": 7}),
    ],
)
def test_a_description_of_no_model_is_told_before_memory_is_taken(
    name: str, changes: dict[str, Any], saved: Path
):
    rewrite(saved / name, **changes)
    with pytest.raises(WeightsError, match=str(saved)):
        read_model(saved)


# where models come from ---------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_gets_its_nearest_names(saved: Path):
    with pytest.raises(MissingPathError, match="There is no model folder") as caught:
        read_model(saved.parent / "modell")
    assert f"Did you mean {saved}?" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_folder_without_a_model_says_what_is_due(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(MissingPathError, match="There are no weights in") as caught:
        read_model(tmp_path)
    assert "found: notes.txt" in str(caught.value)
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="is no model folder"):
        read_model(tmp_path)


def test_a_weights_file_is_no_model_but_starts_a_training(saved: Path):
    tensors = load_file(saved / "model.safetensors")
    torch.save({"state_dict": tensors}, saved / "last.pth")
    for name in ("model.safetensors", "last.pth"):
        report = load_pretrained(tiny(seed=9), saved / name, classes=ROAD)
        assert report.startswith(f"{saved / name}: loaded the encoder and head;")
    with pytest.raises(WeightsError, match="holds no segmentation network"):
        read_model(saved / "last.pth")


def test_without_a_connection_the_next_step_is_told():
    with pytest.raises(WeightsError, match="the Hub could not be asked for a model of that name") as caught:
        read_model("nvidia/mit-b0@v1")
    assert str(caught.value).endswith("hf download nvidia/mit-b0 --revision v1")


def test_a_hub_id_nobody_has_is_no_such_model(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    def refuse(*_: object, **__: object) -> str:
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(
        MissingPathError, match="There is no folder someone/nothing here, and no such model on the Hub"
    ):
        read_model("someone/nothing")


def test_a_model_fetched_once_is_found_without_a_connection(saved: Path):
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = Path(constants.HF_HUB_CACHE) / "models--someone--streets"
    (cache / "snapshots").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    saved.rename(cache / "snapshots" / commit)
    loaded = read_model("someone/streets")
    assert loaded.classes == ROAD
    assert agree(loaded.network, tiny())


def test_wrong_arguments_are_refused(saved: Path):
    with pytest.raises(UsageError, match="is a file, and a model is a folder"):
        model_folder(saved / "config.json")
