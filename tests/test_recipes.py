"""Each recipe of the catalogue: it loads, is called as its file, and has the promise and the numbers it should."""

import inspect
import json
import re
from importlib import import_module

import pytest

from terrazzo.nn import MODELS
from terrazzo.recipe import Recipe, describe, load, names, promise

NAMES = names()
PAPER_SIZES = ["b0", "b1", "b2", "b3", "b4", "b5"]


def test_the_catalogue() -> None:
    expected = {
        *(f"segformer-{size}" for size in PAPER_SIZES),
        "segformer-b0-scratch",
        "camvid-small",
        "camvid-small-cpu",
        "quickstart",
        "sidewalk",
        "sidewalk-post",
    }
    assert expected <= set(NAMES)
    assert sorted(NAMES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_loads_checks_and_comes_back_from_json(name: str) -> None:
    recipe = load(name)
    assert recipe.name == name
    assert recipe.check() is recipe
    assert recipe.summary.endswith(".")
    assert "\n" not in recipe.summary
    assert recipe.model.name in MODELS
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert describe(recipe).startswith(f"{name}: ")
    assert load(name, ["train.seed=1"]) != recipe


@pytest.mark.parametrize("name", NAMES)
def test_each_promise_says_command_hardware_score_and_weights(name: str) -> None:
    said = promise(name)
    for part in ("Command: terrazzo ", "Hardware, hours: ", "Expected mIoU: ", "Weights: "):
        assert part in said, part
    command = re.search(r"terrazzo (train \S+|quickstart)", said)
    assert command is not None
    assert command[0].split()[-1] == name
    if "nvidia/" in str(load(name).model.pretrained):
        assert f"Weights: {load(name).model.pretrained}, NVIDIA Source Code License: non-commercial" in said


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_is_one_flat_function(name: str) -> None:
    module = import_module(f"terrazzo.recipes.{name.replace('-', '_')}")
    own = [
        one for _, one in inspect.getmembers(module, inspect.isfunction) if one.__module__ == module.__name__
    ]
    assert own == [module.recipe]
    assert promise(name) == inspect.getdoc(module)


@pytest.mark.parametrize("size", PAPER_SIZES)
def test_the_papers_recipes_have_the_papers_numbers(size: str) -> None:
    recipe = load(f"segformer-{size}")
    assert recipe.model.name == f"segformer-{size}"
    assert recipe.model.pretrained == f"nvidia/mit-{size}"
    optim, data, train = recipe.optim, recipe.data, recipe.train
    assert (optim.kind, optim.lr, optim.head_lr_factor, optim.weight_decay) == ("adamw", 6e-5, 10.0, 0.01)
    assert (optim.schedule, optim.poly_power, optim.warmup_steps, optim.warmup_factor) == (
        "poly",
        1.0,
        1500,
        1e-6,
    )
    assert (data.crop_hw, data.scale, data.flip, data.max_one_class) == ((512, 512), (0.5, 2.0), 0.5, 0.75)
    assert train.batch_size == 16


def test_a_larger_sibling_differs_in_its_network_alone() -> None:
    small, large = load("segformer-b0").to_json(), load("segformer-b5").to_json()
    differing = {key for key in small if small[key] != large[key]}
    assert differing == {"name", "summary", "model"}
    assert {key for key in small["model"] if small["model"][key] != large["model"][key]} == {
        "name",
        "pretrained",
    }


def test_from_scratch_means_no_weights_of_others() -> None:
    for name in ("segformer-b0-scratch", "camvid-small", "camvid-small-cpu", "quickstart"):
        recipe = load(name)
        assert recipe.model.pretrained is None
        assert recipe.model.init is None
        assert recipe.optim.head_lr_factor == 1.0  # nothing is pretrained, so nothing is faster
        assert promise(name).find("Weights: none") > 0


def test_the_small_recipes_tell_val_from_test_and_share_one_network() -> None:
    small, cpu = load("camvid-small"), load("camvid-small-cpu")
    assert small.model.name == cpu.model.name == "nearfar"
    assert "no test score" in promise("camvid-small")
    assert small.num_steps(367) * small.train.batch_size / 367 > 400  # passes over CamVid's train split
    assert small.eval.split == "val"


def test_the_posts_recipe_is_the_posts() -> None:
    recipe = load("sidewalk-post")
    assert recipe.default_data == "segments/sidewalk-semantic"
    assert (recipe.train.epochs, recipe.train.steps, recipe.train.batch_size) == (5.0, None, 2)
    assert recipe.num_steps(800) == 2000  # 800 of the 1,000 images, in pairs, five times
    optim = recipe.optim
    assert (optim.kind, optim.lr, optim.schedule, optim.warmup_steps) == ("adamw", 6e-5, "constant", 0)
    assert optim.head_lr_factor == 1.0
    data = recipe.data
    assert (data.resize, data.resize_hw, data.crop_hw) == ("exact", (512, 512), (512, 512))
    assert (data.scale, data.flip, data.max_one_class, data.color_probability) == ((1.0, 1.0), 0.0, 1.0, 1.0)
    assert (data.contrast, data.saturation, data.hue) == (0.25, 0.25, 0.1)
    assert data.brightness == 0.25 * 0.5  # of the range: what a factor of 1.25 adds to a middle grey
    assert data.keep_void
    assert recipe.train.precision == "f32"


def test_the_walk_done_right_ignores_void_and_keeps_proportions() -> None:
    recipe = load("sidewalk")
    assert recipe.default_data == "segments/sidewalk-semantic"
    assert recipe.model.pretrained == "nvidia/mit-b0"
    assert not recipe.data.keep_void
    assert recipe.data.resize != "exact"
