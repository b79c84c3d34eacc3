"""Networks of transformers that score every pixel: tiny ones, compared with transformers' own answers, and trained.

Those that answer queries are in test_huggingface_queries.py.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import terrazzo as tz
from huggingface_folders import CLASSES, PROCESSOR, SEMANTIC, built, normalised, saved
from terrazzo.classes import Classes
from terrazzo.errors import MissingExtraError, UnsafeFileError, UsageError, WeightsError
from terrazzo.nn import ModelConfig, build
from terrazzo.nn.starting import load_pretrained
from terrazzo.nn.weights import read_model, save_model

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install transformers"
)


@pytest.fixture(scope="module", params=sorted(SEMANTIC))
def semantic(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp(request.param)
    return folder, saved(folder, request.param)


# prediction ---------------------------------------------------------------------------------------------------------


def test_logits_are_transformers_own_of_the_normalised_image(semantic: tuple[Path, Any]) -> None:
    folder, model = semantic
    found = read_model(folder)
    image = torch.rand(1, 3, 64, width_for(model))
    with torch.no_grad():
        expected = model(pixel_values=normalised(image), **interpolating(model)).logits
        assert torch.allclose(found.network(image).logits, expected, atol=1e-5)
    assert found.classes.names == CLASSES.names


def width_for(model: Any) -> int:
    """DPT sees squares alone in transformers; here others are padded to one."""
    return 64 if "DPT" in type(model).__name__ else 96


def interpolating(model: Any) -> dict[str, bool]:
    return {"interpolate_pos_encoding": True} if "Beit" in type(model).__name__ else {}


@pytest.mark.parametrize("semantic", ["upernet"], indirect=True)
def test_masks_are_those_of_transformers_own_pipeline(semantic: tuple[Path, Any]) -> None:
    folder, model = semantic
    size_hw = (64, width_for(model))
    pixels = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        output = model(**processor(pixels, return_tensors="pt"), **interpolating(model))
    expected = processor.post_process_semantic_segmentation(output, target_sizes=[size_hw])[0].numpy()
    assert (tz.load(folder)(pixels).mask == expected).mean() >= 0.999


def test_images_of_any_size_are_padded_inside(semantic: tuple[Path, Any]) -> None:
    folder, _ = semantic
    predictor = tz.load(folder)
    for height, width in ((45, 38), (33, 65), (1, 3)):
        mask = predictor(np.zeros((height, width, 3), np.uint8)).mask
        assert mask.shape == (height, width)


# training -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("semantic", ["beit", "upernet"], indirect=True)
def test_its_parts_are_told_apart(semantic: tuple[Path, Any]) -> None:
    with torch.device("meta"):
        network = built(semantic[0], num_classes=7)
    names = {name for name, _ in network.named_parameters()}
    head, layers = network.head_parameter_names(), network.stage_parameter_names()
    backbone = {name for layer in layers for name in layer}
    assert head | backbone == names and not head & backbone
    assert sum(map(len, layers)) == len(backbone)
    assert {id(p) for p in network.head.parameters()} == {id(network.get_parameter(n)) for n in head}
    assert {id(p) for p in network.backbone.parameters()} == {id(network.get_parameter(n)) for n in backbone}
    assert network.num_classes == 7 and not network.gradient_checkpointing


@pytest.mark.parametrize("semantic", ["dpt", "upernet"], indirect=True)
def test_what_learns_is_what_learns_in_transformers_auxiliary_head_included(
    semantic: tuple[Path, Any],
) -> None:
    network = built(semantic[0], num_classes=3).train()
    output = network(torch.rand(2, 3, 32, 32))
    assert output.logits.shape[:2] == (2, 3)
    assert bool(output.auxiliary) == (getattr(network.model, "auxiliary_head", None) is not None)
    sum(x.square().mean() for x in (output.logits, *output.auxiliary.values())).backward()
    learning = {name for name, p in network.model.named_parameters() if p.grad is not None}
    theirs = type(network.model)(network.model.config).train()
    mask = torch.randint(0, 3, (2, 32, 32))
    theirs(pixel_values=torch.rand(2, 3, 32, 32), labels=mask).loss.backward()
    assert learning == {name for name, p in theirs.named_parameters() if p.grad is not None}
    assert network.eval()(torch.rand(1, 3, 32, 32)).auxiliary == {}


@pytest.mark.parametrize("semantic", ["mobilevit", "dpt"], indirect=True)
def test_gradients_are_the_same_with_checkpointing(semantic: tuple[Path, Any]) -> None:
    network = built(semantic[0]).eval()  # without dropout
    image, grads = torch.rand(1, 3, 32, 32), []
    if not network.model.supports_gradient_checkpointing:
        with pytest.raises(UsageError, match="cannot compute its activations twice"):
            network.gradient_checkpointing = True
        return
    for is_on in (False, True):
        network.zero_grad()
        network.gradient_checkpointing = is_on
        for (
            module
        ) in network.modules():  # checkpointing asks for training mode, dropout and batch norm do without
            module.training = (
                "dropout" not in type(module).__name__.lower() and "Norm" not in type(module).__name__
            )
        network(image).logits.square().mean().backward()
        grads.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        assert torch.allclose(grad, grads[1][name], atol=1e-5), name


@pytest.mark.parametrize("semantic", ["mobilevit", "upernet"], indirect=True)
def test_rows_of_the_head_are_taken_by_class_name(semantic: tuple[Path, Any]) -> None:
    folder, model = semantic
    network = built(folder, num_classes=4)
    before = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
    said = load_pretrained(network, folder, classes=Classes(("Sky", "tree", "field", "car")))
    assert "2 of 4 classes reused by name (Sky, field)" in said
    given, after = model.state_dict(), network.model.state_dict()
    by_class = [name for name in given if given[name].shape != after[name].shape]
    assert by_class
    for name, tensor in after.items():
        if name not in by_class:
            assert torch.equal(tensor, given[name]), name
        else:
            axis = next(
                i for i, (a, b) in enumerate(zip(tensor.shape, given[name].shape, strict=True)) if a != b
            )
            rows, theirs = tensor.movedim(axis, 0), given[name].movedim(axis, 0)
            assert torch.equal(rows[0], theirs[2]) and torch.equal(rows[2], theirs[0])
            assert torch.equal(rows[1], before[name].movedim(axis, 0)[1])


@pytest.mark.parametrize("semantic", ["upernet"], indirect=True)
def test_the_image_is_normalised_as_its_processor_says_not_as_the_data_set(
    semantic: tuple[Path, Any],
) -> None:
    network = built(semantic[0])
    assert network.mean.flatten().tolist() == pytest.approx(PROCESSOR["image_mean"])
    assert network.std.flatten().tolist() == pytest.approx(PROCESSOR["image_std"])


@pytest.mark.parametrize("channels", [4])
def test_other_channels_spread_its_first_convolution(tmp_path: Path, channels: int) -> None:
    model = saved(tmp_path, "upernet")
    network = built(tmp_path, channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels)
    said = load_pretrained(network, tmp_path, classes=Classes(("field", "sky")))
    assert f"first convolution spread from 3 to {channels} channels" in said
    name = next(n for n, p in model.named_parameters() if p.ndim == 4)
    ours, theirs = network.model.get_parameter(name), model.get_parameter(name)
    assert torch.allclose(ours.sum(1), theirs.sum(1), atol=1e-5)


@pytest.mark.parametrize("semantic", ["beit", "upernet"], indirect=True)
def test_saved_it_opens_here_and_in_transformers(semantic: tuple[Path, Any], tmp_path: Path) -> None:
    network = built(semantic[0], num_classes=4)
    classes = Classes(("road", "sky", "tree", "car"))
    save_model(tmp_path, network, classes=classes, preprocessing={"resize": "exact", "resize_hw": (64, 64)})
    image = torch.rand(1, 3, 64, 64)
    again = read_model(tmp_path)
    theirs = transformers.AutoModelForSemanticSegmentation.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = network.eval()(image).logits
        assert torch.equal(again.network(image).logits, expected)
        assert torch.allclose(theirs(normalised(image), **interpolating(theirs)).logits, expected, atol=1e-5)
    assert again.classes == classes
    assert list(theirs.config.id2label.values()) == list(classes.names)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    seen = processor(pixels, return_tensors="pt")["pixel_values"]
    assert torch.allclose(seen, normalised(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255), atol=1e-4)


def test_a_training_goes_through_its_run_is_evaluated_and_resumed_without_its_source(
    tmp_path: Path, boxes: Path
) -> None:
    saved(tmp_path / "source", "upernet")
    overrides = [
        "model.name=huggingface", f"model.pretrained={tmp_path / 'source'}", "train.steps=2", "train.batch_size=2",
        "data.crop_hw=32x32", "eval.every=1", "train.save_every=1", "data.workers=0", "train.pictures=0",
        "train.loggers=", "optim.warmup_steps=0",
    ]  # fmt: skip
    run = tz.train("segformer-b0-scratch", data=boxes, overrides=overrides, out=tmp_path / "run")
    report = tz.evaluate(run.path, data=boxes)
    assert report.miou == pytest.approx(run.best["miou"], abs=1e-6)
    assert tz.load(run.path).classes.names == ("field", "box", "sky")
    again = build(ModelConfig("huggingface", init=str(run.best_folder())), num_classes=2)
    said = load_pretrained(again, run.best_folder(), classes=Classes(("sky", "field")))
    assert "all 2 classes reused by name" in said
    (tmp_path / "source").rename(tmp_path / "gone")
    last = run.checkpoints[-1]
    before = (last / "model.safetensors").read_bytes()
    shutil.rmtree(last)
    tz.train(resume=run.path)
    assert (last / "model.safetensors").read_bytes() == before


# what is refused ----------------------------------------------------------------------------------------------------


def test_a_pickle_alone_is_refused(tmp_path: Path) -> None:
    model = saved(tmp_path, "mobilevit")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UnsafeFileError, match="has its weights as a pickle alone"):
        tz.load(tmp_path)


def test_code_that_a_config_names_is_not_asked_for(tmp_path: Path) -> None:
    saved(tmp_path, "mobilevit")
    config = json.loads((tmp_path / "config.json").read_text())
    trap = tmp_path / "trap.py"
    trap.write_text("raise SystemExit('it ran')")
    config["auto_map"] = dict.fromkeys(("AutoConfig", "AutoModelForSemanticSegmentation"), "trap.Trap")
    config["_attn_implementation"] = "kernels-community/trap"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert tz.load(tmp_path).classes.names == CLASSES.names


def test_other_networks_and_missing_tensors_are_told(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    save_file({"x": torch.zeros(1)}, tmp_path / "bert" / "model.safetensors")
    with pytest.raises(WeightsError, match="model_type 'bert' in config.json"):
        tz.load(tmp_path / "bert")

    saved(tmp_path / "half", "upernet")
    file = tmp_path / "half" / "model.safetensors"
    save_file(
        {k: v for k, v in load_file(file).items() if "decode_head" not in k}, file, metadata={"format": "pt"}
    )
    with pytest.raises(WeightsError, match="do not make a whole UperNetForSemanticSegmentation"):
        tz.load(tmp_path / "half")
    network = built(tmp_path / "half")
    assert "the head starts from random weights" in load_pretrained(
        network, tmp_path / "half", classes=Classes(("a", "b"))
    )


def test_without_a_source_the_word_that_is_missing_is_told() -> None:
    with pytest.raises(UsageError, match=r"model\.pretrained"):
        build(ModelConfig("huggingface"), num_classes=2)


def test_without_transformers_the_command_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    saved(tmp_path, "mobilevit")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r'pip install "terrazzo\[transformers\]"'):
        tz.load(tmp_path)
