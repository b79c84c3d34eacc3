"""Which room may know which: values <- kernels <- parts <- engine <- verbs <- shells.

Imports are read from the source with `ast`, those inside functions and under TYPE_CHECKING too, so an import that
climbs a stair is found whether or not a test runs it. A module that stands on no stair fails with advice.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "terrazzo"

STAIRS: dict[str, set[str]] = {  # from the ground up; a folder is one room
    "values": {
        "balance",
        "classes",
        "decoding",
        "errors",
        "fields",
        "images",
        "licences",
        "metadata",
        "outlines",
        "progress",
        "ranges",
        "reduced",
        "region_ids",
        "regions",
        "remote",
        "sample",
        "stopping",
        "storage",
        "video",
    },
    "kernels": {"kernels"},
    "parts": {
        "board",
        "data",
        "devices",
        "metrics",
        "nn",
        "optim",
        "project",
        "rendering",
        "sources",
        "web",
    },
    "engine": {
        "architectures",
        "backends",
        "checkpoint",
        "doctor_page",
        "doctor_pictures",
        "converted",
        "ema",
        "environment",
        "exported",
        "graphs",
        "inference",
        "launcher",
        "memory",
        "meter",
        "prediction",
        "processes",
        "pulse",
        "overrides",
        "recipe",
        "recipes",
        "report",
        "run",
        "runtimes",
        "stages",
        "sharding",
        "views",
        "windows",
    },
    "verbs": {
        "browsing",
        "converting",
        "evaluation",
        "exchange",
        "exporting",
        "hub",
        "predicting",
        "prelabelling",
        "previewing",
        "quickstart",
        "reporting",
        "training",
    },
    "shells": {"__init__", "__main__", "cli", "labelling", "serving"},
}
ORDER = list(STAIRS)
BESIDE = {  # pages of a larger room
    "hub_client": "hub",
    "staging": "hub",
    "cards": "hub",
    "provenance": "training",
    "diagnosis": "training",
    "keeping": "training",
    "asking": "training",
    "preparation": "training",
    "planning": "training",
    "planned_reads": "training",
    "probing": "training",
    "recorded": "training",
    "compiled": "training",
    "filming": "predicting",
    "proof": "exporting",
    "quantising": "exporting",
    "endtoend": "exporting",
    "profiling": "exporting",
}

ALLOWED: dict[tuple[str, str], str] = {  # (who, whom) beyond the rule, and why
    ("data.open", "project"): "a labelling release opens as a data set; project/ needs no torch",
    ("quickstart", "data"): "the loop draws its own scenes",
    ("quickstart", "training"): "the loop is its verbs, one after the other",
    ("quickstart", "evaluation"): "the loop is its verbs, one after the other",
    ("quickstart", "predicting"): "the loop is its verbs, one after the other",
    ("training", "evaluation"): "validation is evaluation",
    ("exporting", "evaluation"): "parity is measured by evaluating",
    ("__main__", "cli"): "python -m terrazzo",
    ("__init__", "labelling"): "tz.label; public names may come from any stair",
    ("__init__", "serving"): "tz.serve; public names may come from any stair",
    ("cli", "labelling"): "label is a word of the command line, and the page's server a shell of its own",
    ("cli", "serving"): "serve is a word of the command line, and the server a shell of its own",
}

THIRD_PARTIES: dict[str, set[str]] = {
    "values": {"numpy", "PIL", "tifffile", "IPython", "fsspec", "cv2"}
}  # elsewhere: anything
LATE = {  # imported inside the functions of others, so their own imports may stand on top
    "decoding",  # of images.py
    *(
        f"labelling.{name}"  # of labelling/app.py, by way of assist_routes
        for name in ("assist", "grabcut", "merging", "prompts", "sam", "scissors", "slic", "superpixels")
    ),
}
AT_TOP: dict[str, set[str]] = {"values": {"numpy"}, "shells": set()}  # outside functions


@dataclass(frozen=True)
class Import:
    """One import statement of `importer`, as far as it matters here."""

    importer: str  # "data.open", "cli", "__init__"
    imported: str  # "errors", "nn.segformer"; with is_ours False "numpy"
    line: int
    is_ours: bool
    is_top: bool  # runs when the module is imported


def imports_of(path: Path, source: Path = SOURCE) -> Iterator[Import]:
    """Yield the imports of one file, however deep they stand."""
    importer = module_name(path, source)
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    left: list[tuple[ast.AST, bool]] = [(tree, True)]
    while left:
        node, is_top = left.pop()
        for name in imported_names(node, source):
            ours, _, rest = name.partition(".")
            is_ours = ours == "terrazzo"
            yield Import(importer, rest if is_ours else ours, node.lineno, is_ours, is_top)  # type: ignore[attr-defined]
        is_later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_type_checking(node)
        left += [(child, is_top and not is_later) for child in ast.iter_child_nodes(node)]


def imported_names(node: ast.AST, source: Path) -> list[str]:
    """Return the modules that a statement or an `import_module("...")` call brings in, by their full names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        parent = source.joinpath(*node.module.split(".")[1:])
        is_ours = node.module.split(".")[0] == "terrazzo"
        return [
            f"{node.module}.{alias.name}" if is_ours and _is_module(parent / alias.name) else node.module
            for alias in node.names
            if not (node.module == "terrazzo" and alias.name == "__version__")  # a word, not a room
        ]
    if (
        isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module"
    ):
        first = node.args[0] if node.args else None
        return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
    return []


def module_name(path: Path, source: Path = SOURCE) -> str:
    """Return "data.open" for data/open.py and "data" for data/__init__.py; "__init__" for the package's own."""
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def room(module: str) -> str:
    """Return the room of a module: "data" for "data.importers.camvid"."""
    name = module.partition(".")[0] or "__init__"
    return BESIDE.get(name, name)


def stair(module: str) -> str | None:
    """Return the stair a module stands on, or None."""
    return next((name for name, rooms in STAIRS.items() if room(module) in rooms), None)


def climbs(one: Import) -> str | None:
    """Return what is wrong with an import of ours, or None."""
    mine, theirs = room(one.importer), room(one.imported)
    if mine == theirs or not ALLOWED.keys().isdisjoint([(one.importer, theirs), (mine, theirs)]):
        return None
    low, high = stair(one.importer), stair(one.imported)
    if low is None or high is None:
        return None  # test_every_module_stands_on_a_stair says so
    where = f"{one.importer} (line {one.line}) imports {one.imported}"
    if ORDER.index(high) > ORDER.index(low):
        return f"{where}: {low} may not know {high}"
    if high == low and low in ("parts", "verbs", "shells"):
        return f"{where}: {low} do not know each other"
    return None


def _is_module(path: Path) -> bool:
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    """Every import of ours and of others."""
    return [one for path in FILES for one in imports_of(path)]


def test_no_import_climbs_a_stair(imports: list[Import]) -> None:
    problems = [problem for one in imports if one.is_ours and (problem := climbs(one))]
    assert not problems, "\n".join(["", *problems])


def test_every_module_stands_on_a_stair() -> None:
    homeless = sorted({module_name(path) for path in FILES if stair(module_name(path)) is None})
    advice = "give each a place in STAIRS of tests/test_layers.py and in docs/explanation/architecture.md"
    assert not homeless, f"on no stair: {', '.join(homeless)}; {advice}"


def test_the_architecture_page_names_every_room() -> None:
    page = (SOURCE.parent.parent / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    files = {module_name(path).partition(".")[0] for path in FILES}
    missing = [name for name in sorted(files) if not any(f"`{name}{end}" in page for end in "`/.")]
    assert not missing, (
        f"docs/explanation/architecture.md does not say where these live: {', '.join(missing)}"
    )


def test_every_import_of_ours_leads_to_a_file(imports: list[Import]) -> None:
    modules = {module_name(path) for path in FILES}
    lost = [f"{one.importer}:{one.line} {one.imported}" for one in imports if one.is_ours and one.imported]
    assert not [line for line in lost if line.split(" ")[1] not in modules]


def test_values_need_numpy_only_until_they_read_a_file(imports: list[Import]) -> None:
    known = {
        "numpy",
        "PIL",
        "tifffile",
        "torch",
        "numba",
        "datasets",
        "pyarrow",
        "safetensors",
        "huggingface_hub",
        "fsspec",
    }
    for one in imports:
        name = stair(one.importer)
        if one.is_ours or name is None or one.imported not in known:
            continue
        where = f"{one.importer} (line {one.line}) imports {one.imported}"
        assert one.imported in THIRD_PARTIES.get(name, known), f"{where}: {name} live without it"
        is_top = one.is_top and one.importer not in LATE
        assert not is_top or one.imported in AT_TOP.get(name, known), (
            f"{where}: inside the function that needs it"
        )


def test_the_labelling_store_needs_no_torch(imports: list[Import]) -> None:
    assert not [
        one for one in imports if room(one.importer) == "project" and one.imported in ("torch", "numba")
    ]


def test_other_houses_models_are_imported_only_where_they_are_built(imports: list[Import]) -> None:
    early = [one for one in imports if one.is_top and one.imported in ("timm", "transformers", "torchvision")]
    assert not early, [f"{one.importer}:{one.line} {one.imported}" for one in early]


def test_each_exception_is_still_used(imports: list[Import]) -> None:
    modules = {module_name(path) for path in FILES}
    for who, whom in ALLOWED:
        if who in modules and whom in {room(module) for module in modules}:
            ours = [one for one in imports if one.is_ours and room(one.imported) == whom]
            used = any(who in (one.importer, room(one.importer)) for one in ours)
            assert used, f"{who} no longer imports {whom}: take it from ALLOWED"


# The walk itself, on a house made for the purpose -----------------------------------------------------------------


@pytest.fixture
def house(tmp_path: Path) -> Path:
    for name in (
        "errors",
        "metrics",
        "optim",
        "recipe",
        "training",
        "evaluation",
        "hub",
        "cli",
        "data/open",
        "nn/net",
    ):
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.touch()
        if file.parent != tmp_path:
            (file.parent / "__init__.py").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("file", "code", "sentence"),
    [
        ("errors", "from terrazzo.metrics import x", "1 imports metrics: values may not know parts"),
        ("errors", "def f():\n    import terrazzo.recipe", "2 imports recipe: values may not know engine"),
        ("metrics", "from terrazzo import optim", "1 imports optim: parts do not know each other"),
        ("data/open", "from terrazzo.nn import net", "1 imports nn.net: parts do not know each other"),
        ("nn/net", "from terrazzo.data.open import x", "1 imports data.open: parts do not know each other"),
        ("recipe", "import_module('terrazzo.training')", "1 imports training: engine may not know verbs"),
        ("evaluation", "from terrazzo.training import t", "1 imports training: verbs do not know each other"),
        ("hub", "from terrazzo.cli import main", "1 imports cli: verbs may not know shells"),
        ("training", "from terrazzo.evaluation import e", None),
        ("nn/net", "from terrazzo.nn import x\nfrom terrazzo.errors import y", None),
        ("recipe", "from terrazzo import __version__\nfrom terrazzo.data import open", None),
        ("data/open", "from terrazzo.project import Release", None),
        ("nn/net", "from terrazzo.project import Release", "1 imports project: parts do not know each other"),
    ],
)
def test_the_walk_names_who_climbs_which_stair(
    house: Path, file: str, code: str, sentence: str | None
) -> None:
    path = house / f"{file}.py"
    path.write_text(code, encoding="utf-8")
    found = [problem for one in imports_of(path, house) if one.is_ours and (problem := climbs(one))]
    who = file.replace("/", ".")
    assert found == ([] if sentence is None else [f"{who} (line {sentence[0]}){sentence[1:]}"])
