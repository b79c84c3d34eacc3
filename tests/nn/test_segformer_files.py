"""Folders that transformers saved: their sizes, names, resizing and normalisation, and what we cannot read in them."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from terrazzo.errors import WeightsError
from terrazzo.nn.segformer import SegFormer
from terrazzo.nn.segformer_files import preprocessing_of, stored_name
from terrazzo.nn.weights import read_model, save_model
from tiny_segformer import ROAD, TINY, agree, as_transformers_saves_it, rewrite, tiny


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
        ({"size": 64, "resample": 2}, {"resize": "exact", "resize_hw": (64, 64)}),
        ({"size": 64, "resample": 3}, {"resize": "exact", "resize_hw": (64, 64), "interpolation": "bicubic"}),
        (
            {"size": 64, "image_processor_type": "BeitImageProcessor"},
            {"resize": "exact", "resize_hw": (64, 64)},
        ),
        (
            {"size": 64, "image_processor_type": "BeitImageProcessorFast"},
            {"resize": "exact", "resize_hw": (64, 64), "rounding": "torchvision"},
        ),
        ({"do_resize": False, "image_processor_type": "BeitImageProcessorFast"}, {"resize": "original"}),
        ({}, {"resize": "original"}),
    ],
)
def test_resizing_is_read_from_the_processor(config: dict[str, Any], expected: dict[str, Any]):
    assert preprocessing_of(config, 3)[2] == expected


@pytest.mark.parametrize("rounding", ["pillow", "torchvision"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_how_images_are_resized_is_kept_in_both_files(rounding: str, interpolation: str, tmp_path: Path):
    said = {"resize": "exact", "resize_hw": (48, 64), "interpolation": interpolation, "rounding": rounding}
    save_model(tmp_path, tiny(), classes=ROAD, preprocessing=said)
    assert read_model(tmp_path).preprocessing == said | {"resize_hw": [48, 64], "dtype": "uint8"}
    (tmp_path / "terrazzo.json").unlink()  # what is left is what transformers reads
    default = {"interpolation": "bilinear", "rounding": "pillow"}
    assert default | read_model(tmp_path).preprocessing == said


def test_a_model_saved_before_there_was_a_choice_is_read_as_before(saved: Path):
    rewrite(
        saved / "preprocessor_config.json", image_processor_type="SegformerImageProcessorFast", resample=3
    )
    assert read_model(saved).preprocessing == {"resize": "exact", "resize_hw": [48, 64], "dtype": "uint8"}


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
