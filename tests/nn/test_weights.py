"""Models on disk: what is saved is what is read; what does not fit is told; what would run code is not opened."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from terrazzo.classes import Classes
from terrazzo.errors import (
    MissingPathError,
    TerrazzoError,
    UnreadableFileError,
    UnsafeFileError,
    UsageError,
    WeightsError,
)
from terrazzo.nn import ModelConfig, build
from terrazzo.nn.segformer import SegFormer, Size
from terrazzo.nn.segformer_files import model_config, preprocessing_of, stored_name
from terrazzo.nn.starting import NVIDIA_LICENSE, inflate, license_of, load_pretrained
from terrazzo.nn.weights import model_folder, read_model, read_tensors, save_model

TINY = Size((1, 1, 1, 1), (8, 16, 24, 32), 24, num_heads=(1, 2, 3, 4))
ROAD = Classes(("road", "sky", "Person"), ((128, 64, 128), (70, 130, 180), (220, 20, 60)))
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def tiny(num_classes: int = 3, *, channels: int = 3, seed: int = 0, **settings: Any) -> SegFormer:
    torch.manual_seed(seed)
    normalisation = IMAGENET if channels == 3 else {"mean": (0.5,) * channels, "std": (0.2,) * channels}
    network = SegFormer(TINY, num_classes, channels=channels, **(normalisation | settings)).eval()
    network.decode_head.batch_norm.running_mean.normal_()
    return network


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A three-class model in a folder of ours."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_model(folder, tiny(), classes=ROAD, preprocessing={"resize": "exact", "resize_hw": (48, 64)})
    return folder


def as_transformers_saves_it(folder: Path) -> Path:
    """What a transformers folder holds and no more."""
    (folder / "terrazzo.json").unlink()
    return folder


def rewrite(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; None removes one."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: entry for key, entry in value.items() if entry is not None}))


def agree(one: nn.Module, other: nn.Module, channels: int = 3) -> bool:
    image = torch.rand(1, channels, 40, 36)
    return torch.equal(one(image).logits, other(image).logits)


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


def test_names_of_transformers_5_in_memory_become_those_of_its_files():
    theirs = "segformer.stages.2.blocks.1.attention.sequence_reduction.sequence_reduction.weight"
    assert stored_name(theirs) == "segformer.encoder.block.2.1.attention.self.sr.weight"
    assert (
        stored_name("stages.0.patch_embeddings.proj.bias") == "segformer.encoder.patch_embeddings.0.proj.bias"
    )
    assert stored_name("encoder.layer_norm.3.weight") == "segformer.encoder.layer_norm.3.weight"
    assert stored_name("decode_head.linear_projections.1.proj.bias") == "decode_head.linear_c.1.proj.bias"
    for name in tiny().state_dict():
        assert stored_name(name) == name


# what transformers saved --------------------------------------------------------------------------------


def test_a_transformers_folder_brings_its_sizes_and_names(saved: Path):
    loaded = read_model(as_transformers_saves_it(saved))
    assert isinstance(loaded.network, SegFormer)
    assert loaded.network.size == TINY
    assert loaded.classes.names == ("road", "sky", "Person")
    assert loaded.preprocessing == {"resize": "exact", "resize_hw": (48, 64)}
    assert loaded.terrazzo == {}
    assert agree(loaded.network, tiny())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"do_resize": False}, {"resize": "original"}),
        ({"size": {"height": 30, "width": 40}}, {"resize": "exact", "resize_hw": (30, 40)}),
        ({"size": {"shortest_edge": 30}}, {"resize": "short", "resize_hw": (30, 30)}),
        ({"size": 512}, {"resize": "exact", "resize_hw": (512, 512)}),  # configs of 2022
        ({}, {"resize": "original"}),
    ],
)
def test_resizing_is_read_from_the_processor(config: dict[str, Any], expected: dict[str, Any]):
    assert preprocessing_of(config, 3)[2] == expected


@pytest.mark.parametrize(
    "config",
    [
        {"image_mean": [0.3, 0.4, 0.5], "image_std": [0.2, 0.3, 0.4]},
        {"image_mean": [90.0, 100.0, 110.0], "image_std": [50.0, 60.0, 70.0], "do_rescale": False},
        {"image_mean": [0.1, 0.1, 0.2], "image_std": [0.5, 0.5, 0.5], "rescale_factor": 1 / 127.5},
        {"do_normalize": False},
    ],
)
def test_normalisation_is_what_the_processor_computes(config: dict[str, Any]):
    grey = 117.0
    value = grey * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else grey
    if config.get("do_normalize", True):
        means, deviations = config["image_mean"], config["image_std"]
        expected = [(value - m) / s for m, s in zip(means, deviations, strict=True)]
    else:
        expected = [value] * 3
    mean, std, _ = preprocessing_of(config, 3)
    ours = [(grey / 255 - m) / s for m, s in zip(mean, std, strict=True)]
    assert ours == pytest.approx(expected)


def test_a_model_that_does_not_say_something_is_read_aloud(saved: Path):
    as_transformers_saves_it(saved)
    (saved / "preprocessor_config.json").unlink()
    rewrite(saved / "config.json", id2label=None, label2id=None)
    loaded = read_model(saved)
    assert loaded.classes.names == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert loaded.said == (
        f"{saved} has no preprocessor_config.json: ImageNet's mean and deviation, images at their own size",
        f"{saved} does not name its classes: they are LABEL_0 to LABEL_2",
    )


def test_a_class_name_that_stands_twice_gets_a_number_and_blanks_go(saved: Path):
    rewrite(
        as_transformers_saves_it(saved) / "config.json", id2label={"0": "crane", "1": "sky", "2": "crane"}
    )
    assert read_model(saved).classes.names == ("crane", "sky", "crane (2)")
    rewrite(
        saved / "config.json", id2label={"0": "wall", "1": "bed ", "2": "flag"}
    )  # as of ADE20K's networks
    assert read_model(saved).classes.names == ("wall", "bed", "flag")


def test_more_names_than_rows_are_refused(saved: Path):
    names = {str(i): f"class {i}" for i in range(5)}
    rewrite(as_transformers_saves_it(saved) / "config.json", id2label=names)
    with pytest.raises(
        WeightsError, match=r"id2label in config\.json of .* does not fit its weights"
    ) as caught:
        read_model(saved)
    assert "found: 5 names, ids 0 to 4" in str(caught.value)
    assert "expected: 3 names, ids 0 to 2" in str(caught.value)


def test_an_encoder_alone_is_no_model_to_predict_with(saved: Path):
    tensors = load_file(saved / "model.safetensors")
    encoder = {n: t.clone() for n, t in tensors.items() if n.startswith("segformer.")}
    save_file(encoder, saved / "model.safetensors")
    rewrite(
        as_transformers_saves_it(saved) / "config.json", architectures=["SegformerForImageClassification"]
    )
    with pytest.raises(WeightsError, match="holds an encoder alone") as caught:
        read_model(saved)
    assert str(caught.value).endswith(f"terrazzo train segformer-b0 --data DATA model.pretrained={saved}")


def test_another_architecture_is_named(saved: Path):
    pytest.importorskip("transformers")
    rewrite(as_transformers_saves_it(saved) / "config.json", model_type="bert")
    with pytest.raises(
        WeightsError, match="holds no segmentation network that terrazzo and transformers"
    ) as caught:
        read_model(saved)
    assert "found: model_type 'bert' in config.json" in str(caught.value)


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


# files --------------------------------------------------------------------------------------------------


class Payload:
    """Unpickling it runs a shell command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["torch", "plain pickle", "beside tensors"])
def test_a_pickle_with_code_is_refused_and_nothing_runs(form: str, tmp_path: Path):
    witness = tmp_path / "it-ran"
    payload = Payload(f"touch {witness}")
    path = tmp_path / "pytorch_model.bin"
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload if form == "torch" else {"weight": torch.ones(2), "meta": payload}, path)
    with pytest.raises(UnsafeFileError, match="is not opened: it holds more than tensors") as caught:
        read_tensors(path)
    assert not witness.exists()
    assert f"found: a reference to {os.system.__module__}.system" in str(caught.value)
    assert "Nothing in it was run." in str(caught.value)
    assert caught.value.exit_code == 1
    # the payload is real: whoever opens it carelessly runs it
    if form == "plain pickle":
        pickle.loads(path.read_bytes())
        assert witness.exists()


def test_a_folder_with_an_unsafe_pickle_is_refused_by_every_door(saved: Path):
    witness = saved / "it-ran"
    torch.save(Payload(f"touch {witness}"), saved / "pytorch_model.bin")
    (saved / "model.safetensors").unlink()
    for door in (lambda: read_model(saved), lambda: load_pretrained(tiny(), saved, classes=ROAD)):
        with pytest.raises(UnsafeFileError):
            door()
    assert not witness.exists()


def test_a_pickle_of_tensors_is_read_and_goes_after_safetensors(saved: Path):
    tensors = load_file(saved / "model.safetensors")
    changed = {name: tensor + 1 for name, tensor in tensors.items()}
    torch.save(changed, saved / "pytorch_model.bin")
    assert torch.equal(
        read_tensors(saved)["decode_head.classifier.bias"], tensors["decode_head.classifier.bias"]
    )
    (saved / "model.safetensors").unlink()
    assert read_tensors(saved).keys() == tensors.keys()
    assert torch.equal(
        read_tensors(saved)["decode_head.classifier.bias"], changed["decode_head.classifier.bias"]
    )


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_state_dict_inside_a_checkpoint_is_found(key: str, tmp_path: Path):
    torch.save({key: {"weight": torch.ones(2)}, "epoch": 3}, tmp_path / "last.pth")
    assert read_tensors(tmp_path / "last.pth").keys() == {"weight"}


def test_a_file_without_tensors_says_so(tmp_path: Path):
    torch.save({"epoch": 3}, tmp_path / "last.pth")
    with pytest.raises(WeightsError, match="holds no named tensors"):
        read_tensors(tmp_path / "last.pth")


def test_shards_are_put_together(saved: Path):
    tensors = load_file(saved / "model.safetensors")
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name].clone() for name in held}, saved / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (saved / "model.safetensors").unlink()
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert agree(read_model(saved).network, tiny())
    (saved / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(MissingPathError, match="There is no weights file .*model-00002-of-00002"):
        read_model(saved)


def test_an_index_must_not_lead_out_of_its_folder(saved: Path):
    (saved / "model.safetensors").rename(saved.parent / "elsewhere.safetensors")
    index = {"weight_map": {"x": "../elsewhere.safetensors"}}
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnsafeFileError, match="points outside its folder"):
        read_tensors(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_files_are_named(name: str, damage: str, saved: Path):
    tensors = load_file(saved / "model.safetensors")
    torch.save(tensors, saved / "pytorch_model.bin")
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(
        {"cut": data[: len(data) // 2], "empty": b"", "text": b"<html>404</html>"}[damage]
    )
    with pytest.raises(TerrazzoError, match=name) as caught:
        read_tensors(saved / name)
    assert isinstance(caught.value, UnreadableFileError | UnsafeFileError)
    if name == "model.safetensors" or damage != "text":
        assert f"It has {(saved / name).stat().st_size:,} bytes" in str(caught.value)


def test_a_git_lfs_pointer_is_recognised(saved: Path):
    (saved / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    with pytest.raises(UnreadableFileError, match="is a Git LFS pointer") as caught:
        read_model(saved)
    assert str(caught.value).endswith("git lfs pull")


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


# starting from others -----------------------------------------------------------------------------------


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


def test_a_network_of_ones_own_takes_tensors_one_to_one(tmp_path: Path):
    source, network = Own(), Own()
    save_model(tmp_path, source, classes=ROAD, preprocessing={})
    assert load_pretrained(network, tmp_path, classes=ROAD) == f"{tmp_path}: loaded all 4 tensors"
    assert torch.equal(network.conv.weight, source.conv.weight)


def test_the_config_names_every_size():
    config = model_config(tiny(), ROAD)
    assert config["semantic_loss_ignore_index"] == 255
    assert config["label2id"] == {"road": 0, "sky": 1, "Person": 2}


def test_wrong_arguments_are_refused(saved: Path):
    with pytest.raises(UsageError, match="is a file, and a model is a folder"):
        model_folder(saved / "config.json")


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


def test_an_index_of_nothing_is_told(saved: Path):
    (saved / "model.safetensors").unlink()
    for text in ("[]", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}'):
        (saved / "model.safetensors.index.json").write_text(text)
        with pytest.raises(WeightsError):
            read_tensors(saved)
