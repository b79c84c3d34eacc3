"""The flat namespace, its laziness, and the version."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import terrazzo as tz

PROJECT = Path(__file__).parent.parent

# the contract; a name joins the package when it works
CLASSES = {
    "Classes",
    "Dataset",
    "Sample",
    "Prediction",
    "Predictor",
    "Recipe",
    "Run",
    "Report",
    "Project",
    "TerrazzoError",
}
VERBS = {
    "open_dataset",
    "open_project",
    "train",
    "evaluate",
    "load",
    "export",
    "label",
    "serve",
    "push",
    "pull",
}
ROOMS = {"nn", "data", "metrics", "rendering"}

HEAVY = {
    "torch",
    "numba",
    "numpy",
    "datasets",
    "transformers",
    "timm",
    "accelerate",
    "PIL",
    "huggingface_hub",
    "rich",
}


@pytest.mark.parametrize("name", tz.__all__)
def test_every_public_name_is_there_and_at_home(name: str) -> None:
    value = getattr(tz, name)
    if name in ROOMS:
        assert value is importlib.import_module(f"terrazzo.{name}")
    else:
        assert value.__name__ == name
        assert value.__doc__, f"{name} has no docstring"


def test_the_namespace_is_flat_and_small() -> None:
    names = set(tz.__all__)
    assert names <= CLASSES | VERBS | ROOMS, "a name beyond the contract; is it really needed?"
    assert {"open_dataset", "train", "evaluate", "load", "Classes", "Dataset", "Prediction"} <= names
    assert list(tz.__all__) == sorted(tz.__all__)
    assert set(dir(tz)) == {*tz.__all__, "__version__"}


def test_type_checkers_see_what_is_fetched() -> None:
    tree = ast.parse(Path(tz.__file__).read_text(encoding="utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        a.name: n.module for g in guarded for n in g.body if isinstance(n, ast.ImportFrom) for a in n.names
    }
    assert seen == {**tz._HOMES, **dict.fromkeys(tz._ROOMS, "terrazzo")}
    assert set(seen) == set(tz.__all__)


def test_verbs_stay_callable_after_their_rooms_are_imported() -> None:
    importlib.import_module("terrazzo.training")
    importlib.import_module("terrazzo.evaluation")
    assert callable(tz.train)
    assert callable(tz.evaluate)


def test_a_name_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match=r"'terrazzo' has no attribute 'trian'; it has .*train"):
        _ = tz.trian  # type: ignore[attr-defined]


def test_importing_terrazzo_and_asking_for_help_import_nothing_heavy_and_set_nothing() -> None:
    code = (
        "import os, sys, warnings, logging\n"
        "before = dict(os.environ), list(warnings.filters), list(logging.root.handlers)\n"
        "import terrazzo, terrazzo.cli\n"
        "assert terrazzo.cli.main(['--help']) == 0\n"
        "assert terrazzo.cli.main(['train', '--help']) == 0\n"
        "assert before == (dict(os.environ), list(warnings.filters), list(logging.root.handlers))\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_the_changelogs_head() -> None:
    changelog = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (\S+)", changelog, re.MULTILINE)
    assert heads[0] == tz.__version__


def test_errors_can_be_caught_by_their_public_name() -> None:
    with pytest.raises(tz.TerrazzoError):
        tz.Classes(())


def test_what_deploy_installs_is_part_of_dev_so_that_the_tests_see_it() -> None:
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    deploy, dev = (set(extras["optional-dependencies"][name]) for name in ("deploy", "dev"))
    assert {name.partition(">=")[0] for name in deploy} >= {"onnx", "onnxruntime", "openvino", "nncf"}
    assert deploy <= dev


def test_the_extra_all_is_every_extra_that_people_use() -> None:
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (told,) = extras["optional-dependencies"]["all"]
    named = re.fullmatch(r"terrazzo\[([\w,]+)\]", told)
    assert named is not None
    assert set(named[1].split(",")) == set(extras["optional-dependencies"]) - {"all", "dev"}
    names = {one.partition(">=")[0] for one in extras["optional-dependencies"]["label"]}
    assert {"fastapi", "uvicorn", "defusedxml", "opencv-contrib-python-headless"} <= names
    assert set(extras["optional-dependencies"]["label"]) <= set(extras["optional-dependencies"]["dev"])
