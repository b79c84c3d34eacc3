"""A recipe keeps its word: what is written is read back, what is wrong is told at once, with what to type instead."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from recipe_at_hand import MINE, refused
from terrazzo import recipe as recipes
from terrazzo.errors import MissingPathError, UnknownNameError
from terrazzo.fields import leaves
from terrazzo.nn.losses import LossConfig
from terrazzo.optim import OptimConfig
from terrazzo.ranges import RANGES
from terrazzo.recipe import EvalConfig, Recipe, TrainConfig, describe, load

FILE = """
from terrazzo import Recipe
from terrazzo.recipe import TrainConfig

def recipe():
    return Recipe(name="own", summary="Mine.", train=TrainConfig(steps=7))
"""


# --- checks ---------------------------------------------------------------------------------------------------------


def test_every_number_of_a_recipe_has_a_range_and_every_field_its_sentence() -> None:
    numeric = {
        path for path, leaf in leaves(Recipe).items() if "int" in leaf.type_text or "float" in leaf.type_text
    }
    assert numeric - set(RANGES) == set(), "give each a range in ranges.py"
    assert set(RANGES) - numeric == set(), "these fields are gone"
    silent = [path for path, leaf in leaves(Recipe).items() if not leaf.doc.endswith(".")]
    assert not silent, "write a sentence under each in the source"


@pytest.mark.parametrize("path", sorted(RANGES))
def test_each_range_holds_its_default_and_has_an_end(path: str) -> None:
    default = leaves(Recipe)[path].default
    numbers = default if isinstance(default, tuple) else (default,)
    assert all(number is None or RANGES[path].holds(number) for number in numbers)
    assert not RANGES[path].holds(-2), RANGES[path].text


@pytest.mark.parametrize(
    ("path", "inside", "outside"),
    [
        ("train.steps", 1, 0),
        ("train.ema", 0.999, 1.0),
        ("optim.lr", 1e-12, 0.0),
        ("optim.layer_decay", 1.0, 0.0),
        ("optim.layer_decay", 0.5, 1.01),
        ("optim.min_lr_factor", 1.0, 1.01),
        ("optim.betas", 0.0, 1.0),
        ("data.hue", 0.5, 0.51),
        ("data.workers", -1, -2),
        ("data.crop_hw", 32, 31),
        ("loss.label_smoothing", 0.0, 1.0),
        ("train.micro_batch", 0, -1),
    ],
)
def test_the_borders_of_ranges(path: str, inside: float, outside: float) -> None:
    assert RANGES[path].holds(inside)
    assert not RANGES[path].holds(outside)


def test_a_recipe_built_with_wrong_types_is_told_all_of_them() -> None:
    wrong = replace(
        MINE,
        train=TrainConfig(steps="2000", seed=1.5),  # type: ignore[arg-type]
        data=replace(MINE.data, crop_hw=[256, 320]),  # type: ignore[arg-type]
        loss=LossConfig(class_weights="rare"),  # type: ignore[arg-type]
    )
    assert refused(wrong.check).splitlines() == [
        "4 problems in recipe 'mine'.",
        "  data.crop_hw cannot be [256, 320].",
        "    expected: two whole numbers, such as (256, 320)",
        "  loss.class_weights cannot be 'rare'.",
        "    expected: one of none, inverse, sqrt_inverse, enet, median_frequency, such as 'none'",
        "  train.steps cannot be '2000'.",
        "    expected: a whole number or null, such as 2000",
        "  train.seed cannot be 1.5.",
        "    expected: a whole number, such as 2000",
    ]


def test_a_section_of_another_kind_is_told() -> None:
    wrong = replace(MINE, train={"steps": 5})  # type: ignore[arg-type]
    assert refused(wrong.check) == "train is {'steps': 5}.\n  expected: a TrainConfig"


def test_facts_that_disagree_are_told_all_at_once() -> None:
    wrong = replace(
        MINE,
        optim=OptimConfig(warmup_steps=100),
        train=TrainConfig(steps=100, epochs=5.0, batch_size=12, micro_batch=5),
        eval=EvalConfig(window_hw=(64, 64), stride_hw=(48, 65), every=0),
    )
    assert refused(wrong.check).splitlines() == [
        "5 problems in recipe 'mine'.",
        "  eval.every is 0.",
        "    expected: at least 1",
        "  train.steps and train.epochs both say how long to train.",
        "    found: train.steps=100 and train.epochs=5.0",
        "    expected: one of them, the other null",
        "  optim.warmup_steps is 100, and the training ends after 100 steps.",
        "    expected: a warm-up that is shorter than the training; a tenth of it is plenty, so",
        "    optim.warmup_steps=10",
        "  train.micro_batch is 5, which does not divide train.batch_size 12.",
        "    expected: 0 or one of 1, 2, 3, 4, 6, 12",
        "  eval.stride_hw is 48x65; pixels between two windows would never be seen.",
        "    expected: at most eval.window_hw, 64x64",
    ]


def test_one_of_steps_and_epochs_is_needed() -> None:
    said = refused(lambda: MINE.with_overrides(["train.steps=null"]))
    assert "found: train.steps=null and train.epochs=null" in said
    both = ["train.steps=5", "train.epochs=5"]
    assert "found: train.steps=5 and train.epochs=5.0" in refused(lambda: MINE.with_overrides(both))


@pytest.mark.parametrize(
    ("epochs", "batch_size", "samples", "steps"),
    [
        (5.0, 2, 800, 2000),
        (1.0, 16, 33, 3),
        (0.5, 4, 10, 2),
        (0.01, 16, 10, 1),
        (3.0, 5, 5, 3),
        (0.1, 3, 30, 1),
    ],
)
def test_steps_follow_from_epochs(epochs: float, batch_size: int, samples: int, steps: int) -> None:
    told = replace(MINE, train=TrainConfig(steps=None, epochs=epochs, batch_size=batch_size))
    assert told.num_steps(samples) == steps
    assert MINE.num_steps(samples) == 100


def test_a_short_training_has_a_short_warm_up_unless_it_is_asked_for() -> None:
    assert load("segformer-b0", ["train.steps=2000"]).optim.warmup_steps == 1500  # it fits
    assert load("segformer-b0", ["train.steps=1500"]).optim.warmup_steps == 150
    assert load("segformer-b0", ["train.steps=4"]).optim.warmup_steps == 0
    said = refused(lambda: load("segformer-b0", ["train.steps=200", "optim.warmup_steps=1500"])).splitlines()
    assert said[0] == "optim.warmup_steps is 1500, and the training ends after 200 steps."
    assert said[-1] == "  optim.warmup_steps=20"


def test_where_the_learning_rate_ends_is_said_once_and_below_its_peak() -> None:
    twice = ["optim.min_lr=1e-6", "optim.min_lr_factor=0.1"]
    said = refused(lambda: MINE.with_overrides(twice)).splitlines()
    assert said[0] == "optim.min_lr and optim.min_lr_factor both say where the learning rate ends."
    assert "found: optim.min_lr=1e-06 and optim.min_lr_factor=0.1" in said[1]
    said = refused(lambda: MINE.with_overrides(["optim.min_lr=1e-4"])).splitlines()
    assert said == [
        "optim.min_lr is 0.0001, above the peak it falls from.",
        "  expected: at most optim.lr, 6e-05",
    ]


# --- JSON -----------------------------------------------------------------------------------------------------------


def test_json_comes_back_exactly() -> None:
    odd = MINE.with_overrides(
        [
            "optim.lr=0.1234567890123456789",
            "optim.betas=0.1,0.30000000000000004",
            "loss.weights=0.1,3",
            "train.epochs=2.5",
            "model.init='none'",
            "default_data=user/name",
        ]
    )
    for one in (MINE, odd):
        text = json.dumps(one.to_json(), allow_nan=False)
        assert Recipe.from_json(json.loads(text)) == one
        assert json.dumps(Recipe.from_json(json.loads(text)).to_json()) == text
    assert MINE.to_json()["format_version"] == 1
    assert MINE.to_json()["data"]["crop_hw"] == [64, 96]


def test_a_field_that_came_later_takes_its_default() -> None:
    older = MINE.to_json()
    del older["train"]["patience"], older["default_data"]
    assert Recipe.from_json(older) == MINE


def test_wrong_json_is_told_all_at_once() -> None:
    value = MINE.to_json()
    value["train"]["stepz"] = value["train"].pop("steps")
    value["optim"]["lr"] = "fast"
    value["data"]["flip"] = 2
    value["eval"] = 5
    value["zzz"] = "red"
    del value["name"]
    assert refused(lambda: Recipe.from_json(value, where="r.json")).splitlines() == [
        "6 problems in r.json.",
        "  name is missing.",
        "  data.flip is 2.0.",
        "    expected: from 0 to 1",
        "  optim.lr cannot be 'fast'.",
        "    expected: a number",
        "  There is no recipe field 'train.stepz'.",
        "    Did you mean train.steps?",
        "  eval is a section of the recipe, not a field.",
        "    expected: an object with its fields",
        "    Its fields: eval.every, eval.inference, eval.window_hw, eval.stride_hw, eval.blend, eval.scales, "
        "eval.batch_size, eval.flip, eval.split.",
        "  There is no recipe field 'zzz'.",
    ]


def test_json_of_a_newer_terrazzo_or_of_none_is_refused() -> None:
    assert refused(
        lambda: Recipe.from_json({**MINE.to_json(), "format_version": 2}, where="r.json")
    ).splitlines() == [
        "r.json is no recipe that this version of terrazzo reads.",
        "  found: format_version 2",
        "  expected: format_version 1",
        "  It was written by a newer terrazzo:",
        "  pip install --upgrade terrazzo",
    ]
    for other in ([], {"name": "x"}, None):
        assert "found: no format_version" in refused(lambda other=other: Recipe.from_json(other))


# --- where a recipe is found ----------------------------------------------------------------------------------------


def test_a_recipe_is_loaded_by_name_by_path_and_as_it_is(tmp_path: Path) -> None:
    assert load("segformer-b0", ["train.steps=2000"]).train.steps == 2000
    own = tmp_path / "own.py"
    own.write_text(FILE)
    assert load(own).num_steps(1) == 7
    assert load(str(own), ["train.steps=8"]).name == "own"
    stored = tmp_path / "recipe.json"
    stored.write_text(json.dumps(load(own).to_json()))
    assert load(stored) == load(own)
    assert load(MINE, ["train.steps=5"]).train.steps == 5


def test_no_bytecode_is_left_beside_a_users_recipe(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(FILE)
    load(own)
    assert [path.name for path in tmp_path.iterdir()] == ["own.py"]


def test_an_unknown_name_gets_its_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        load("segfromer-b0")
    lines = str(caught.value).splitlines()
    assert lines[0] == "There is no recipe 'segfromer-b0'."
    assert lines[2].startswith("  Did you mean 'segformer-b0'")
    assert lines[-1] == "  terrazzo recipes"
    assert caught.value.exit_code == 2
    with pytest.raises(UnknownNameError):
        recipes.promise("segfromer-b0")


def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "own.py", tmp_path / "own.json", Path("own.py")):
        with pytest.raises(MissingPathError) as caught:
            load(path)
        assert str(caught.value).splitlines()[0] == f"There is no file {path}."
        assert caught.value.exit_code == 2


def test_a_run_folder_says_where_its_recipe_is(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    assert refused(lambda: load(tmp_path)).splitlines()[-1] == f"  {tmp_path / 'recipe.json'}"
    assert "found: a path ending in .yaml" in refused(lambda: load(tmp_path / "x.yaml"))


def test_only_a_typed_path_runs_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text("raise SystemExit('it ran')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError):
        load("own")


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("x = 1\n", ["PATH gives no recipe.", "  found: no function recipe()"]),
        ("def recipe(): return {}\n", ["PATH gives no recipe.", "  found: recipe() returns dict"]),
        (
            "\ndef recipe():\n    return lr\n",
            ["PATH, line 3: the recipe cannot be built.", "  found: NameError: name 'lr' is not defined"],
        ),
        (
            "x = (\n",
            ["PATH, line 1: the recipe cannot be built.", "  found: SyntaxError: '(' was never closed"],
        ),
        (
            FILE.replace("steps=7", "stepz=7"),
            ["PATH, line 6: the recipe cannot be built.", "  found: TypeError: "],
        ),
        (
            FILE.replace("return Recipe", "import terrazzo; return terrazzo.recipe.load('nobody') or Recipe"),
            ["PATH, line 6: the recipe cannot be built.", "  found: There is no recipe 'nobody'."],
        ),
    ],
)
def test_a_file_that_gives_no_recipe_is_told_with_its_line(
    tmp_path: Path, text: str, sentences: list[str]
) -> None:
    own = tmp_path / "own.py"
    own.write_text(text)
    said = refused(lambda: load(own)).splitlines()
    assert said[0] == sentences[0].replace("PATH", str(own))
    assert said[1].startswith(sentences[1])


def test_a_file_with_wrong_values_is_checked(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(FILE.replace("steps=7", "steps=0"))
    assert refused(lambda: load(own)) == "train.steps is 0.\n  expected: at least 1"


# --- told to people -------------------------------------------------------------------------------------------------


def test_a_description_has_every_field_its_value_and_its_sentence() -> None:
    lines = describe(MINE, width=110).splitlines()
    assert lines[0] == "mine: For tests."
    rows = {line.split()[0]: line for line in lines[1:] if line}
    assert list(rows) == [path for path in leaves(Recipe) if path not in ("name", "summary")]
    assert rows["data.crop_hw"].split()[1:] == [
        "64x96",
        "Height",
        "and",
        "width",
        "of",
        "a",
        "training",
        "crop.",
    ]
    assert rows["train.keep"].endswith("  Newest checkpoints that stay, beside the best; 0: all.")
    assert all(len(line) <= 110 for line in lines)
    assert rows["train.precision"].endswith(
        "Arithmetic of the forward pass…"
    )  # a whole clause, and the sign of more
    assert all(len(line) <= 70 for line in describe(MINE, width=70).splitlines())


def test_fields_are_those_of_a_recipe_in_order() -> None:
    assert [leaf.name for leaf in recipes.fields()][:3] == ["name", "summary", "model.name"]
    assert {leaf.name for leaf in recipes.fields()} == set(leaves(Recipe))


def test_the_catalogue_is_read_without_torch() -> None:
    script = (
        "import sys; from terrazzo import recipe; "
        "print([recipe.load(name).name for name in recipe.names()] and "
        "sorted({'torch', 'numba', 'datasets', 'PIL', 'transformers'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout.strip() == "[]"
