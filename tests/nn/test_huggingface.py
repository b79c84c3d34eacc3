"""Networks of transformers: tiny ones with random weights, which transformers saved, compared with its own answers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import terrazzo as tz
from terrazzo.classes import Classes
from terrazzo.errors import MissingExtraError, UnsafeFileError, UsageError, WeightsError
from terrazzo.nn import ModelConfig, build
from terrazzo.nn.huggingface import HuggingFaceNetwork, semantic_logits
from terrazzo.nn.starting import load_pretrained
from terrazzo.nn.weights import read_model, save_model

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install transformers"
)

NAMES = {0: "field", 1: "box", 2: "sky"}  # those of the boxes
CLASSES = Classes(tuple(NAMES.values()))
PROCESSOR = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": False,
    "image_mean": [0.5, 0.4, 0.3],
    "image_processor_type": "SegformerImageProcessor",
    "image_std": [0.2, 0.25, 0.3],
    "rescale_factor": 1 / 255,
}


def labelled() -> dict[str, Any]:
    return {"id2label": NAMES, "label2id": {name: number for number, name in NAMES.items()}}


def upernet() -> Any:
    backbone = transformers.ConvNextConfig(
        hidden_sizes=[8, 12, 16, 20],
        depths=[1, 1, 1, 1],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return transformers.UperNetConfig(
        backbone_config=backbone,
        hidden_size=8,
        pool_scales=[1, 2],
        auxiliary_in_channels=16,
        auxiliary_channels=8,
        **labelled(),
    )


def mobilevit() -> Any:
    return transformers.MobileViTConfig(
        hidden_sizes=[8, 12, 16], neck_hidden_sizes=[8, 8, 8, 12, 16, 20, 24], num_attention_heads=2,
        aspp_out_channels=8, atrous_rates=[1, 2, 3], image_size=64, **labelled(),
    )  # fmt: skip


def beit() -> Any:
    return transformers.BeitConfig(
        hidden_size=12, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16,
        out_indices=[1, 2, 3, 4], pool_scales=[1, 2], use_relative_position_bias=True, auxiliary_channels=8,
        **labelled(),
    )  # fmt: skip


def dpt() -> Any:
    return transformers.DPTConfig(
        hidden_size=12, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, is_hybrid=False,
        **labelled(),
    )  # fmt: skip


SEMANTIC = {
    "upernet": (upernet, "UperNetForSemanticSegmentation"),
    "mobilevit": (mobilevit, "MobileViTForSemanticSegmentation"),
    "beit": (beit, "BeitForSemanticSegmentation"),
    "dpt": (dpt, "DPTForSemanticSegmentation"),
}


def swin() -> Any:
    return transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, image_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip


def mask2former() -> Any:
    return transformers.Mask2FormerConfig(
        backbone_config=swin(), feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        dim_feedforward=16, encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=6, **labelled(),
    )  # fmt: skip


def maskformer() -> Any:
    decoder = transformers.DetrConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=6,
    )  # fmt: skip
    return transformers.MaskFormerConfig(
        backbone_config=swin(),
        decoder_config=decoder,
        fpn_feature_size=32,
        mask_feature_size=32,
        **labelled(),
    )


def oneformer() -> Any:
    return transformers.OneFormerConfig(
        backbone_config=swin(), num_queries=6, task_seq_len=20, conv_dim=32, mask_dim=32, hidden_dim=32,
        encoder_feedforward_dim=16, dim_feedforward=16, encoder_layers=1, decoder_layers=2, query_dec_layers=1,
        num_attention_heads=2, text_encoder_width=16, text_encoder_num_layers=1, text_encoder_vocab_size=300,
        text_encoder_context_length=20, text_encoder_n_ctx=4, **labelled(),
    )  # fmt: skip


def eomt() -> Any:
    return transformers.EomtConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, mlp_ratio=1, image_size=64, patch_size=16,
        num_blocks=1, num_queries=6, num_register_tokens=1, **labelled(),
    )  # fmt: skip


BY_QUERIES = {
    "mask2former": (mask2former, "Mask2FormerForUniversalSegmentation"),
    "maskformer": (maskformer, "MaskFormerForInstanceSegmentation"),
    "oneformer": (oneformer, "OneFormerForUniversalSegmentation"),
    "eomt": (eomt, "EomtForUniversalSegmentation"),
}


def saved(folder: Path, kind: str) -> Any:
    """A folder of transformers' with random weights that are not trivial; returns the model."""
    config, name = {**SEMANTIC, **BY_QUERIES}[kind]
    torch.manual_seed(0)
    model = getattr(transformers, name)(config()).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    if kind == "oneformer":
        write_tokenizer(folder)
    return model


def write_tokenizer(folder: Path) -> None:
    """CLIP's, of letters alone."""
    letters = sorted(set("thetaskissemantic"))
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "th", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\n")
    transformers.CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)


@pytest.fixture(scope="module", params=sorted(SEMANTIC))
def semantic(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp(request.param)
    return folder, saved(folder, request.param)


@pytest.fixture(scope="module", params=sorted(BY_QUERIES))
def by_queries(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp(request.param)
    return folder, saved(folder, request.param)


def normalised(image: Tensor) -> Tensor:
    mean, std = (torch.tensor(PROCESSOR[name]).view(1, 3, 1, 1) for name in ("image_mean", "image_std"))
    return (image - mean) / std


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


def test_queries_become_the_class_scores_that_transformers_counts(by_queries: tuple[Path, Any]) -> None:
    """The scores before any resizing: exp of our logits are the sums over queries, class by class."""
    folder, model = by_queries
    found = read_model(folder)
    image = torch.rand(2, 3, 64, 64)
    given = {}
    if found.network.task is not None:
        given["task_inputs"] = task_of(folder).expand(2, -1)
    with torch.no_grad():
        output = model(pixel_values=normalised(image), **given)
        classes = output.class_queries_logits.softmax(-1)[..., :-1]
        expected = torch.einsum("bqc,bqhw->bchw", classes, output.masks_queries_logits.sigmoid())
        logits = found.network(image).logits
    assert torch.allclose(logits.exp(), expected, rtol=1e-4)
    assert found.classes.names == CLASSES.names


def task_of(folder: Path) -> Tensor:
    processor = transformers.OneFormerProcessor(
        image_processor=transformers.OneFormerImageProcessor(class_info_file=None),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(folder), task_seq_length=20,
    )  # fmt: skip
    tokens: Tensor = processor._preprocess_text(["the task is semantic"], max_length=20)
    return tokens


@pytest.mark.parametrize(
    "name", ["Mask2FormerImageProcessor", "MaskFormerImageProcessor", "EomtImageProcessor"]
)
def test_the_class_of_every_pixel_is_transformers_own(name: str) -> None:
    """At the size to which they resize masks first, so that nothing but the scores is compared."""
    torch.manual_seed(0)
    output = transformers.models.mask2former.modeling_mask2former.Mask2FormerForUniversalSegmentationOutput(
        class_queries_logits=3 * torch.randn(2, 20, 8), masks_queries_logits=3 * torch.randn(2, 20, 384, 384)
    )
    output.patch_offsets = None
    processor = getattr(transformers, name)()
    sized = {"target_sizes": [(384, 384)] * 2} | (
        {"size": {"shortest_edge": 384, "longest_edge": 384}} if "Eomt" in name else {}
    )
    expected = torch.stack(processor.post_process_semantic_segmentation(output, **sized))
    logits = semantic_logits(output.class_queries_logits, output.masks_queries_logits)
    assert (logits.argmax(1) == expected).float().mean() >= 0.99999


def test_scores_too_small_for_a_float_keep_their_order() -> None:
    classes = torch.tensor([[[0.0, -200.0, -400.0, -600.0], [-300.0, -500.0, -100.0, 0.0]]])
    masks = torch.tensor([[[[-150.0, 90.0]], [[-160.0, -90.0]]]])
    logits = semantic_logits(classes, masks)
    reference = torch.logsumexp(
        classes.double().log_softmax(-1)[..., :-1, None, None]
        + torch.nn.functional.logsigmoid(masks.double())[:, :, None],
        dim=1,
    )
    assert torch.isfinite(logits).all()
    assert torch.equal(logits.argmax(1), reference.argmax(1))
    assert torch.allclose(logits[0, :, 0, 0].double(), reference[0, :, 0, 0], rtol=1e-5)


def test_masks_by_queries_are_predicted_for_files(by_queries: tuple[Path, Any], boxes: Path) -> None:
    folder, _ = by_queries
    report = tz.evaluate(folder, data=boxes, limit=1)
    assert 0 <= report.miou <= 1


def test_one_of_one_size_looks_at_larger_images_in_windows(tmp_path: Path) -> None:
    saved(tmp_path, "eomt")
    split = PROCESSOR | {"image_processor_type": "EomtImageProcessor", "do_split_image": True, "do_resize": True,
                         "size": {"shortest_edge": 64, "longest_edge": None}}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(split))
    predictor = tz.load(tmp_path)
    assert (predictor.eval.inference, predictor.eval.window_hw) == ("windows", (64, 64))
    assert predictor(np.zeros((70, 150, 3), np.uint8)).mask.shape == (70, 150)
    with pytest.raises(UsageError, match="sees images of 64x64 pixels, and smaller ones padded"):
        predictor.network(torch.rand(1, 3, 64, 65))


# training -----------------------------------------------------------------------------------------------------------


def built(folder: Path, **other: Any) -> HuggingFaceNetwork:
    settings = {"num_classes": 2, "channels": 3, "mean": (0.5,) * 3, "std": (0.25,) * 3} | other
    network = build(ModelConfig("huggingface", pretrained=str(folder)), **settings)
    assert isinstance(network, HuggingFaceNetwork)
    return network


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


def test_queries_are_not_trained_here(by_queries: tuple[Path, Any]) -> None:
    with pytest.raises(UsageError, match="predicts masks by queries, and is not trained here"):
        built(by_queries[0])


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
