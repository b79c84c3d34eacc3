"""Config names of MMSegmentation: read part by part, told with their nearest known part, and what they mean."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from terrazzo.errors import RecipeError, TerrazzoError, UnknownNameError
from terrazzo.recipe import Recipe, TrainConfig, load, promise
from terrazzo.recipes import openmmlab
from terrazzo.recipes.openmmlab.names import (
    CROPS,
    DATA_SETS,
    OPTIONS,
    STEPS,
    ConfigName,
    looks_like_a_name,
    parse,
)
from terrazzo.recipes.openmmlab.published import PUBLISHED, told

WALK = "pspnet_r101-d8_4xb2-80k_cityscapes-512x1024"


def refused(name: str) -> str:
    with pytest.raises(TerrazzoError) as caught:
        load(name)
    assert caught.value.exit_code == 2
    return str(caught.value)


# --- spelling ---------------------------------------------------------------------------------------------------------


def test_a_name_is_its_parts() -> None:
    assert parse(WALK) == ConfigName(
        algorithm="pspnet",
        backbone="r101",
        stride=8,
        is_multi_grid=False,
        gpus=4,
        per_gpu=2,
        options=(),
        steps=80_000,
        data_set="cityscapes",
        crop_hw=(512, 1024),
    )
    odd = parse("deeplabv3plus_r101-d16-mg124_8xb1-amp-40k_ade20k-512x512")
    assert (odd.stride, odd.is_multi_grid, odd.gpus, odd.per_gpu, odd.options) == (16, True, 8, 1, ("amp",))


@pytest.mark.parametrize(
    ("spelled", "canonical"),
    [
        ("pspnet_r101-d8_512x1024_80k_cityscapes", WALK),
        ("pspnet_r101-d8_512x1024_80k_cityscapes_20200606_112211-e1e1100f.pth", WALK),
        ("work/pspnet_r101-d8_512x1024_80k_cityscapes_20200606_112211-e1e1100f.pth", WALK),
        (f"configs/pspnet/{WALK}.py", WALK),
        (f"configs\\pspnet\\{WALK}.py", WALK),
        ("pspnet_r101-d8_fp16_512x1024_80k_cityscapes", "pspnet_r101-d8_4xb2-amp-80k_cityscapes-512x1024"),
        ("pspnet_r50-d8_4x4_512x512_80k_potsdam", "pspnet_r50-d8_4xb4-80k_potsdam-512x512"),
        (
            "pspnet_r50-d8_512x512_4x4_20k_coco-stuff10k_20210820_203258-b88df27f",
            "pspnet_r50-d8_4xb4-20k_coco-stuff10k-512x512",
        ),
        (
            "fcn_r101-d8_480x480_80k_pascal_context_59_20210416_110804-9a6f2c94.pth",
            "fcn_r101-d8_4xb4-80k_pascal-context-59-480x480",
        ),
        (
            "fcn_r101-d8_480x480_80k_pascal_context_20210421_163310-4711813f.pth",
            "fcn_r101-d8_4xb4-80k_pascal-context-480x480",
        ),
        ("fcn_unet_s5-d16_64x64_40k_drive", "unet-s5-d16_fcn_4xb4-40k_drive-64x64"),
        (
            "fcn_unet_s5-d16_ce-1.0-dice-3.0_128x128_40k_chase-db1_20211210_201821-1c4eb7cf.pth",
            "unet-s5-d16_fcn_4xb4-ce-1.0-dice-3.0-40k_chase-db1-128x128",
        ),
        ("fcn_unet_s5-d16_128x128_40k_chase_db1", "unet-s5-d16_fcn_4xb4-40k_chase-db1-128x128"),
        ("fcn_unet_s5-d16_4x4_512x1024_160k_cityscapes", "unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024"),
        ("upernet_r50_512x1024_40k_cityscapes", "upernet_r50_4xb2-40k_cityscapes-512x1024"),
        (
            "segformer_mit-b0_8x1_1024x1024_160k_cityscapes_20211208_101857-e7f88502.pth",
            "segformer_mit-b0_8xb1-160k_cityscapes-1024x1024",
        ),
        ("segformer_mit-b5_512x512_160k_ade20k", "segformer_mit-b5_8xb2-160k_ade20k-512x512"),
        (
            "deeplabv3_r101-d16-mg124_512x1024_40k_cityscapes",
            "deeplabv3_r101-d16-mg124_4xb2-40k_cityscapes-512x1024",
        ),
    ],
)
def test_both_spellings_files_of_weights_and_paths_say_the_same(spelled: str, canonical: str) -> None:
    assert openmmlab.is_name(spelled)
    assert str(parse(spelled)) == canonical
    assert load(spelled) == load(canonical)
    assert load(spelled).name == canonical


@pytest.mark.parametrize(
    "other",
    [
        "segformer-b0",
        "my_recipe.py",
        "runs/demo",
        "my_40k.py",
        "recipe.json",
        f"runs/{WALK}",
        f"runs/{WALK}/recipe.json",
    ],
)
def test_what_is_no_config_name_is_left_alone(other: str) -> None:
    assert not openmmlab.is_name(other)


def test_a_recipe_of_ones_own_runs_whatever_it_is_called(tmp_path: Path) -> None:
    own = tmp_path / f"{WALK}.py"
    own.write_text("_base_ = ['../_base_/x.py']\nraise SystemExit('it ran')\n")
    assert load(str(own)).name == WALK  # theirs: taken by its name, not run
    own.write_text(
        "from terrazzo import Recipe\n\ndef recipe():\n    return Recipe(name='own', summary='Mine.')\n"
    )
    assert load(str(own)).name == "own"


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentences"),
    [
        (
            "pspnt_r101-d8_4xb2-80k_cityscapes-512x1024",
            ["There is no algorithm 'pspnt'.", "Did you mean 'pspnet'"],
        ),
        (
            "pspnet_r1O1-d8_4xb2-80k_cityscapes-512x1024",
            ["There is no backbone 'r1o1'.", "Did you mean 'r101'"],
        ),
        ("pspnet_r101-d8_4xb2-80k_cityscape-512x1024", ["There is no data set 'cityscape'.", "'cityscapes'"]),
        ("pspnet_r101-d8_4xb2-90k_cityscapes-512x1024", ["There is no number of iterations '90k'.", "80k"]),
        ("pspnet_r101-d8_4xb2-80k_cityscapes-512x1023", ["There is no crop size '512x1023'.", "'512x1024'"]),
        ("pspnet_r101-d8_4xb2-omeh-80k_cityscapes-512x1024", ["There is no option 'omeh'.", "'ohem'"]),
        ("pspnet_r101-d9_4xb2-80k_cityscapes-512x1024", ["There is no stride 'd9'.", "Did you mean 'd8'"]),
        ("pspnet_r101-d8_4xb2-80k_512x1024", ["The data set is missing.", "cityscapes, ade20k"]),
        ("pspnet_r101_4xb2-80k_cityscapes-512x1024", ["The stride of the backbone is missing.", "r101-d8"]),
        ("upernet_r50-d8_4xb2-80k_cityscapes-512x1024", ["upernet leaves its backbone undilated."]),
        (
            "segformer_r50_8xb2-160k_ade20k-512x512",
            ["segformer has no config with the backbone r50.", "mit-b0"],
        ),
        (
            "pspnet_r50-d8-rsb_4xb2-adamw-80k_cityscapes-512x1024",
            ["'rsb' is a part that terrazzo does not have."],
        ),
        ("fcn-d6_r50-d16_4xb2-40k_cityscapes-512x1024", ["A head that is dilated by 6 is not here."]),
        ("fcn_pspnet_r50-d8_4xb2-40k_cityscapes-512x1024", ["The algorithm is said twice: fcn and pspnet."]),
    ],
)
def test_a_part_that_is_not_known_is_told_with_the_nearest(name: str, sentences: list[str]) -> None:
    said = refused(name)
    assert said.startswith("A part of the config name") or "2 parts" in said
    for sentence in sentences:
        assert sentence in said, said
    assert said.splitlines()[-1] == "  terrazzo recipes --like pspnet"


def test_all_unknown_parts_are_told_at_once() -> None:
    said = refused("pspnt_r999-d8_4xb2-80k_citiscapes-512x1024")
    assert said.startswith(
        "3 parts of the config name 'pspnt_r999-d8_4xb2-80k_citiscapes-512x1024' cannot be read."
    )
    for kind in ("algorithm 'pspnt'", "backbone 'r999'", "data set 'citiscapes'"):
        assert f"There is no {kind}." in said


# --- what a name means ------------------------------------------------------------------------------------------------


def test_the_walk_throughs_name_means_what_it_means_there() -> None:
    recipe = load(WALK)
    model, data, optim, train, look = recipe.model, recipe.data, recipe.optim, recipe.train, recipe.eval
    assert (model.name, model.backbone, model.output_stride) == ("pspnet", "resnet101_v1c", 8)
    assert (model.align_corners, model.dropout) == (False, 0.1)
    assert model.pretrained == "openmmlab/resnet101_v1c"
    assert (data.resize, data.resize_hw, data.scale) == ("sides", (1024, 2048), (0.5, 2.0))
    assert (data.crop_hw, data.max_one_class, data.flip) == ((512, 1024), 0.75, 0.5)
    assert data.brightness * 255 == pytest.approx(32)
    assert data.hue * 180 == pytest.approx(18)
    assert (data.contrast, data.saturation, data.color_probability) == (0.5, 0.5, 0.5)
    assert (optim.kind, optim.lr, optim.momentum, optim.weight_decay) == ("sgd", 0.01, 0.9, 5e-4)
    assert (optim.schedule, optim.poly_power, optim.min_lr, optim.min_lr_factor) == ("poly", 0.9, 1e-4, 0.0)
    assert (optim.no_decay, optim.head_lr_factor, optim.warmup_steps, optim.arrives) == (
        "nothing",
        1.0,
        0,
        "at",
    )
    assert (train.steps, train.batch_size, train.micro_batch) == (80_000, 8, 2)
    assert (train.max_grad_norm, train.sync_batch_norm, train.precision) == (None, True, "f32")
    assert (train.save_every, look.every, look.inference) == (8000, 8000, "whole")
    assert (recipe.loss.average, recipe.loss.auxiliary, recipe.loss.cross_entropy) == ("all", 0.4, 1.0)
    assert recipe.made_for == "cityscapes"
    assert load(WALK, ["model.pretrained=null", "train.keep=0"]).model.pretrained is None


def test_segformer_has_an_optimiser_of_its_own() -> None:
    recipe = load("segformer_mit-b2_8xb1-160k_cityscapes-1024x1024")
    optim = recipe.optim
    assert (recipe.model.name, recipe.model.pretrained) == ("segformer-conv", "nvidia/mit-b2")
    assert (optim.kind, optim.lr, optim.head_lr_factor, optim.weight_decay) == ("adamw", 6e-5, 10.0, 0.01)
    assert (optim.warmup_steps, optim.warmup_factor, optim.poly_power, optim.min_lr) == (1500, 1e-6, 1.0, 0.0)
    assert optim.no_decay == "layer_norms"
    assert (recipe.train.batch_size, recipe.train.micro_batch) == (8, 1)
    look = recipe.eval
    assert (look.inference, look.window_hw, look.stride_hw) == ("windows", (1024, 1024), (768, 768))


@pytest.mark.parametrize(
    ("name", "window", "stride"),
    [
        ("pspnet_r50-d8_4xb2-80k_cityscapes-769x769", (769, 769), (513, 513)),
        ("fcn_r101-d8_4xb4-40k_pascal-context-59-480x480", (480, 480), (320, 320)),
        ("unet-s5-d16_fcn_4xb4-40k_drive-64x64", (64, 64), (42, 42)),
        ("unet-s5-d16_fcn_4xb4-40k_hrf-256x256", (256, 256), (170, 170)),
        ("segformer_mit-b0_8xb2-160k_ade20k-512x512", None, None),
        ("unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024", None, None),
    ],
)
def test_evaluation_is_whole_or_in_windows_as_there(
    name: str, window: tuple[int, int] | None, stride: tuple[int, int] | None
) -> None:
    look = load(name).eval
    assert look.inference == ("whole" if window is None else "windows")
    if window is not None:
        assert (look.window_hw, look.stride_hw) == (window, stride)


def test_odd_crops_meet_in_their_corners() -> None:
    odd = load("pspnet_r50-d8_4xb2-80k_cityscapes-769x769")
    assert odd.model.align_corners
    assert odd.data.resize_hw == (1025, 2049)
    assert not load("pspnet_r50-d8_4xb4-80k_ade20k-512x512").model.align_corners


def test_options_are_what_they_say() -> None:
    base = load(WALK)
    amp = load("pspnet_r101-d8_4xb2-amp-80k_cityscapes-512x1024")
    assert (
        replace(amp, name=base.name, summary=base.summary, train=replace(amp.train, precision="f32")) == base
    )
    assert amp.train.precision == "f16"
    ohem = load("pspnet_r101-d8_4xb2-ohem-80k_cityscapes-512x1024").loss
    assert (ohem.cross_entropy, ohem.ohem, ohem.ohem_threshold, ohem.ohem_min_kept) == (
        0.0,
        1.0,
        0.7,
        100_000,
    )
    dice = load("unet-s5-d16_fcn_4xb4-ce-1.0-dice-3.0-40k_drive-64x64").loss
    assert (dice.cross_entropy, dice.dice) == (1.0, 3.0)
    context = load("pspnet_r101-d8_4xb4-40k_pascal-context-480x480").optim
    assert (context.lr, context.weight_decay) == (0.004, 1e-4)
    grid = load("deeplabv3_r101-d16-mg124_4xb2-40k_cityscapes-512x1024")
    assert (grid.loss.ohem, grid.loss.ohem_threshold) == (1.0, 0.0)
    assert (grid.model.output_stride, grid.model.multi_grid) == (16, (1, 2, 4))


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_published_name_is_a_recipe_and_writes_itself(name: str) -> None:
    recipe = load(name)
    assert recipe.name == name == str(parse(name))
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert recipe.train.batch_size in (8, 16)  # the reference batches
    said = " ".join(promise(name).split())
    assert "not reproduced here; " + told(name) in said
    for part in ("Command: terrazzo train ", "Hardware, hours: not measured", "Expected mIoU: ", "Weights: "):
        assert part in said


def test_every_published_name_builds_its_network(request: pytest.FixtureRequest) -> None:
    import torch

    from terrazzo.nn import build

    models = {}
    for name in PUBLISHED:
        model = load(name).model
        models[replace(model, align_corners=False)] = DATA_SETS[parse(name).data_set].num_classes
    assert len(models) > 30
    deep = ("resnet50", "resnet101", "mit_b2", "mit_b3", "mit_b4", "mit_b5")  # the same, with more blocks
    for model, num_classes in models.items():
        is_deep = str(model.backbone).startswith(deep) and not model.multi_grid
        if is_deep and not request.config.getoption("--long"):
            continue
        with torch.device("meta"):
            network = build(model, num_classes=num_classes)
        assert network.num_classes == num_classes


def test_a_multi_grid_dilates_the_blocks_of_a_resnets_last_stage() -> None:
    import torch

    from terrazzo.nn import ModelConfig, build

    with torch.device("meta"):
        network = build(load("deeplabv3_r101-d16-mg124_4xb2-40k_cityscapes-512x1024").model, num_classes=19)
    backbone = network.backbone
    assert isinstance(backbone, torch.nn.Module)
    assert [block.conv2.dilation[0] for block in backbone.layer4] == [1, 2, 4]  # type: ignore[union-attr]
    assert network.spec["head"]["dilations"] == [1, 6, 12, 18]  # type: ignore[index]
    for name, backbone_name in (("segformer-b0", None), ("segformer-conv", None), ("fcn", "unet")):
        with pytest.raises(RecipeError, match="multi_grid"):
            build(ModelConfig(name=name, backbone=backbone_name, multi_grid=(1, 2, 4)), num_classes=19)


def test_names_made_of_known_parts_are_known() -> None:
    for data_set in DATA_SETS:
        for steps in STEPS:
            for crop in CROPS:
                for option in ("", *(f"-{one}" for one in OPTIONS)):
                    name = f"fcn_r50-d8_4xb2{option}-{steps}_{data_set}-{crop}"
                    assert str(parse(name)) == name
                    assert looks_like_a_name(name)


# --- what is said -----------------------------------------------------------------------------------------------------


def test_how_the_batch_is_cut_is_said_where_it_is_not_theirs() -> None:
    recipe = load(WALK)
    assert openmmlab.notes(recipe, processes=4) == []
    assert openmmlab.notes(recipe, processes=1) == [
        "8 images per step as 4 GPUs x 2; here 1 process x 8 in micro-batches of 2",
        "batch norm sees 2 images at a time, there 8; train.micro_batch=0 shows it 8, and takes more memory",
    ]
    assert openmmlab.notes(recipe, processes=2) == [
        "8 images per step as 4 GPUs x 2; here 2 processes x 4 in micro-batches of 2",
        "batch norm sees 4 images at a time, there 8; train.micro_batch=0 shows it 8, and takes more memory",
    ]
    whole = load(WALK, ["train.micro_batch=0"])
    assert openmmlab.notes(whole, processes=1) == ["8 images per step as 4 GPUs x 2; here 1 process x 8"]
    more = load(WALK, ["train.batch_size=16", "train.micro_batch=4"])
    assert openmmlab.notes(more, processes=4) == [
        "16 images per step, where 4 GPUs x 2 had 8; here 4 processes x 4"
    ]
    assert openmmlab.notes(load("segformer-b0"), processes=1) == []
    own = Recipe(name="mine_40k_512x512", summary="Mine.", train=TrainConfig(steps=5))
    assert openmmlab.notes(own, processes=1) == []


def test_another_data_set_is_said_and_one_that_has_its_own_names_is_refused() -> None:
    recipe = load(WALK)
    assert openmmlab.fits(recipe, data_name="cityscapes", num_classes=19) == []
    assert openmmlab.fits(recipe, data_name="Cityscapes", num_classes=19) == []
    assert openmmlab.fits(recipe, data_name="my-streets", num_classes=19) == [
        "made for Cityscapes; my-streets has as many classes, 19, and is taken as it is"
    ]
    assert openmmlab.fits(recipe, data_name="camvid", num_classes=11) == [
        "made for Cityscapes with 19 classes; here are the 11 of camvid, and scores cannot be compared with those "
        "published"
    ]
    with pytest.raises(RecipeError) as caught:
        openmmlab.fits(recipe, data_name="ADE20K", num_classes=150)
    assert str(caught.value).splitlines() == [
        f"{WALK} is the config for Cityscapes, and the data set is ADE20K.",
        "  found: ADE20K, 150 classes",
        "  expected: cityscapes, 19 classes",
        "  Its configs: terrazzo recipes --like ade20k. To train on it with this one nevertheless:",
        f"  terrazzo train {WALK} --data DATA made_for=null",
    ]
    assert openmmlab.fits(load(WALK, ["made_for=null"]), data_name="ADE20K", num_classes=150) == []
    assert openmmlab.fits(load("segformer-b0"), data_name="ADE20K", num_classes=150) == []


def test_published_scores_are_told_and_none_is_invented() -> None:
    assert told(WALK) == "79.76 mIoU published (81.01 with scales and flip, 77.94 in the walk-through's log)"
    assert told("pspnet_r101-d8_4xb2-amp-80k_cityscapes-512x1024") == "79.46 mIoU published"
    assert told("unet-s5-d16_fcn_4xb4-40k_drive-64x64") == "78.67 Dice published"
    assert told("pspnet_r101-d8_4xb2-ohem-80k_cityscapes-512x1024") == "nothing published under this name"
    found = openmmlab.like("pspnet cityscapes 769x769")
    assert len(found) == 8
    assert all("pspnet" in name and "769x769" in name for name in found)
    assert openmmlab.like("zzz") == {}


def test_unknown_names_have_no_promise() -> None:
    with pytest.raises(UnknownNameError):
        promise("pspnt_r101-d8_4xb2-80k_cityscapes-512x1024")
