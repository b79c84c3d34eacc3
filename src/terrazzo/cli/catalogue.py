"""recipes, models, env: what there is, here and on this machine."""

import json
from argparse import Namespace

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
    from dataclasses import asdict

    from terrazzo import licences
    from terrazzo.architectures import Architecture, table

    rows = table()
    if arguments.json:
        as_json = [asdict(row) for row in rows]
        for one in as_json:
            one["weights"] = [
                {"source": source, "license": terms, "commercial": licences.read(terms).commercial}
                for source, terms in one["weights"].items()
            ]
        print(json.dumps(as_json, indent=1))
        return

    def cells(row: Architecture) -> tuple[str, ...]:
        published = ", ".join(f"{name} {score:.2f}" for name, score in row.published.items())
        weights = "; ".join(f"{source} ({terms})" for source, terms in row.weights.items())
        size = "" if row.parameters is None else f"{row.parameters / 1e6:.1f} M"
        work = "" if row.multiply_adds is None else f"{row.multiply_adds / 1e9:.1f} G"
        return (
            row.name,
            row.backbone or "",
            size,
            work,
            row.code,
            published,
            row.commercial,
            weights or "none",
        )

    head = (
        "model",
        "backbone",
        "parameters",
        "multiply-adds",
        "code",
        "published mIoU",
        "commercial use",
        "weights (their licence)",
    )
    lines = [head, *map(cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)).rstrip())
    print(
        "\nParameters with 19 classes; multiply-adds (half of what FLOPs often means) of one image of 512x1024."
        "\nPublished by MMSegmentation, the best at one scale; not reproduced here."
        "\nWhat is fine-tuned from weights inherits their licence; commercial use: of code and weights together."
        "\nAny backbone of timm: model.backbone=timm/NAME."
    )


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
        "List the architectures: size, work, licences of code and weights, published scores.",
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
