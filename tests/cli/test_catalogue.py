"""What there is, on the command line: recipes, models, this machine."""

import json
from pathlib import Path

import pytest

from command_line import Terrazzo
from terrazzo import __version__


def test_recipes_lists_each_with_its_promise(terrazzo: Terrazzo) -> None:
    from terrazzo import recipe

    code, out, _ = terrazzo("recipes")
    assert code == 0
    for name in recipe.names():
        assert f"{name} " in out
        assert recipe.promise(name).splitlines()[0] in out


def test_recipes_like_lists_those_alone(terrazzo: Terrazzo) -> None:
    _, out, _ = terrazzo("recipes", "--like", "SCRATCH")
    listed = [line.split(" ")[0] for line in out.split("\n\n")[0].splitlines()]
    assert "segformer-b0-scratch" in listed
    assert "segformer-b5" not in listed
    _, out, _ = terrazzo("recipes", "--like", "zzz")
    assert out == "No recipe is like 'zzz'; all of them: terrazzo recipes\n"


def test_recipes_like_lists_config_names_with_their_published_scores(terrazzo: Terrazzo) -> None:
    name = "pspnet_r101-d8_4xb2-80k_cityscapes-512x1024"
    _, out, _ = terrazzo("recipes", "--like", "pspnet")
    [line] = [line for line in out.splitlines() if line.split(" ")[0] == name]
    published = "79.76 mIoU published (81.01 with scales and flip, 77.94 in the walk-through's log)"
    assert line.split(" ", 1)[1].strip() == f"{published}; not reproduced here"
    code, out, _ = terrazzo("recipes", "pspnet_r101-d8_512x1024_80k_cityscapes")  # as 0.x spelled it
    assert code == 0
    assert out.startswith(f"MMSegmentation's config {name}, by its name.")
    assert "averaged over all pixels, ignored ones included (loss.average=all)" in " ".join(out.split())
    assert f"\n{name}: PSPNet on ResNet-101 as in MMSegmentation; {published}, not reproduced here." in out
    code, _, error = terrazzo("recipes", "pspnet_r102-d8_512x1024_80k_cityscapes")
    assert code == 2
    assert "There is no backbone 'r102'." in error


def test_a_recipe_is_shown_whole_and_its_json_is_a_recipe(terrazzo: Terrazzo, tmp_path: Path) -> None:
    from terrazzo import recipe

    _, out, _ = terrazzo("recipes", "segformer-b0")
    assert out.startswith(recipe.promise("segformer-b0"))
    assert all(leaf.name in out for leaf in recipe.fields() if "." in leaf.name)
    _, out, _ = terrazzo("recipes", "segformer-b0", "--json")
    (tmp_path / "mine.json").write_text(out, encoding="utf-8")
    assert recipe.load(tmp_path / "mine.json") == recipe.load("segformer-b0")


def test_models_count_parameters_and_name_licences(terrazzo: Terrazzo) -> None:
    _, out, _ = terrazzo("models", "--json")
    models = {model["name"]: model for model in json.loads(out)}
    # transformers counts 3,752,694 with ADE20K's 150 classes; a class is 256 weights and a bias
    assert models["segformer-b0"]["parameters"] == 3_752_694 - (150 - 19) * 257
    assert models["segformer-b0"]["weights"][0]["source"] == "nvidia/mit-b0"
    assert "non-commercial" in models["segformer-b0"]["weights"][0]["license"]
    assert [models[name]["commercial"] for name in ("segformer-b0", "pspnet", "nearfar", "huggingface")] == [
        "no",
        "yes",
        "yes",
        "unknown",
    ]
    _, out, _ = terrazzo("models")
    assert "segformer-b5" in out
    assert "Apache-2.0" in out


def test_env_says_what_a_bug_report_needs(terrazzo: Terrazzo, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("MY_SECRET", "hunter2")
    _, out, _ = terrazzo("env", "--json")
    said = json.loads(out)
    assert said["terrazzo"] == __version__
    assert said["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert said["processor"]["usable_cores"] >= 1
    assert said["processor"]["torch_threads"] == torch.get_num_threads()
    assert 0.1 < said["memory"]["total_gib"] < 1e6
    assert said["variables"]["CUDA_VISIBLE_DEVICES"] == ""
    assert "hunter2" not in out
    assert str(Path.home()) not in out
    _, out, _ = terrazzo("env")
    assert out.split()[:2] == ["terrazzo", __version__]
    assert f"{torch.get_num_threads()} threads" in out
