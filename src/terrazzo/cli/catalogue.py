"""recipes, models, env: what there is, here and on this machine."""

import json
from argparse import Namespace
from typing import Any

from terrazzo.cli.parsing import Command, Parser


def _recipes_arguments(parser: Parser) -> None:
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="print this recipe's promise and every field of it"
    )
    parser.add_argument(
        "--like",
        metavar="TEXT",
        help="list only recipes whose name or promise holds TEXT, and the configs of MMSegmentation whose names hold "
        "its words, with their published scores",
    )
    parser.add_argument(
        "--json", action="store_true", help="print NAME as JSON, which any command takes as a recipe"
    )


def _recipes(arguments: Namespace) -> None:
    from terrazzo import recipe
    from terrazzo.recipes import openmmlab

    if arguments.name is not None:
        chosen = recipe.load(arguments.name)
        if arguments.json:
            print(json.dumps(chosen.to_json(), indent=1))
            return
        is_known = arguments.name in recipe.names() or openmmlab.is_name(arguments.name)
        promise = recipe.promise(arguments.name) if is_known else ""
        print(f"{promise}\n\n{recipe.describe(chosen)}".lstrip())
        return
    rows = {name: recipe.promise(name).splitlines()[0] for name in recipe.names()}
    if arguments.like is not None:
        wanted = arguments.like.lower()
        rows = {n: row for n, row in rows.items() if wanted in n or wanted in recipe.promise(n).lower()}
        rows |= {n: f"{told}; not reproduced here" for n, told in openmmlab.like(arguments.like).items()}
        if not rows:
            print(f"No recipe is like {arguments.like!r}; all of them: terrazzo recipes")
            return
    width = max(map(len, rows)) + 2
    for name, row in rows.items():
        print(f"{name:<{width}}{row}")
    print("\nA recipe's whole promise and every field of it: terrazzo recipes NAME")
    if arguments.like is None:
        print("Names of MMSegmentation's configs are recipes too: terrazzo recipes --like pspnet")


def _models_arguments(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _models(arguments: Namespace) -> None:
    from terrazzo import recipe
    from terrazzo.nn import MODELS
    from terrazzo.nn.starting import license_of

    recipes = [recipe.load(name) for name in recipe.names()]
    rows: list[dict[str, Any]] = []
    for name in MODELS:
        sources = sorted({r.model.pretrained for r in recipes if r.model.name == name and r.model.pretrained})
        weights = [{"source": source, "license": license_of(source) or "unknown"} for source in sources]
        rows.append(
            {"name": name, "parameters": _num_parameters(name), "code": "Apache-2.0", "weights": weights}
        )
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    width = max(map(len, MODELS)) + 2
    print(f"{'model':<{width}}{'parameters':>12}  {'code':<12}published weights and their licence")
    for row in rows:
        published = "; ".join(f"{one['source']} ({one['license']})" for one in row["weights"]) or "none"
        print(f"{row['name']:<{width}}{row['parameters'] / 1e6:>10.1f} M  {row['code']:<12}{published}")
    print("\nParameters are counted with 19 classes. What is fine-tuned from weights inherits their licence.")


def _num_parameters(name: str) -> int:
    """Count a network's parameters without allocating them."""
    import torch

    from terrazzo.nn import ModelConfig, build

    with torch.device("meta"):
        network = build(ModelConfig(name), num_classes=19)  # the classes of Cityscapes
    return sum(parameter.numel() for parameter in network.parameters())


def _env_arguments(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")


def _env(arguments: Namespace) -> None:
    from terrazzo import environment

    description = environment.describe()
    print(json.dumps(description, indent=1) if arguments.json else environment.to_text(description))


COMMANDS = (
    Command(
        "recipes",
        "[NAME] [--like TEXT] [--json]",
        "List the recipes and what each promises; with NAME, every field of it.",
        "",
        _recipes_arguments,
        _recipes,
    ),
    Command(
        "models",
        "[--json]",
        "List the architectures, their parameters, and the licences of code and weights.",
        "",
        _models_arguments,
        _models,
    ),
    Command(
        "env",
        "[--json]",
        "Print versions, processor, memory and devices for a bug report.",
        "",
        _env_arguments,
        _env,
    ),
)
