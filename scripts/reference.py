"""Writes the pages of docs/reference, and what networks cost, from the source, so that they cannot go stale.

python scripts/reference.py            compare; exit code 1 when a page differs
python scripts/reference.py --write    write the pages
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import MISSING
from itertools import groupby
from pathlib import Path

from terrazzo import architectures, fields, ranges, recipe
from terrazzo.cli import COMMANDS
from terrazzo.cli.parsing import Command
from terrazzo.recipes.openmmlab import names
from terrazzo.recipes.openmmlab.published import PUBLISHED, told
from terrazzo.storage import write_json

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
NOTE = "<!-- written by scripts/reference.py; change the source, then: scripts/check --fix -->"


def pages() -> dict[str, str]:
    """Return the generated pages by file name."""
    return {
        "cli.md": cli_page(),
        "recipe.md": recipe_page(),
        "openmmlab-names.md": names_page(),
        "architectures.md": architectures_page(),
    }


def cli_page() -> str:
    """Return the page of every command, its words and its options."""
    listed = "\n".join(f"- [`terrazzo {c.name}`](#terrazzo-{c.name}): {c.summary}" for c in COMMANDS)
    head = f"""# The command line

{NOTE}

Every command is a thin shell over the library function of the same name; results go to standard output, progress and
errors to standard error.

{listed}

Exit codes: 0 done, 1 failed, 2 misused, 128 + N stopped by signal N (130 for Ctrl-C). An error says what is wrong,
where, what was expected, and what to type next; `TERRAZZO_TRACEBACK=1` adds the traceback.
"""
    return "\n".join([head, *map(_command, COMMANDS)])


def recipe_page() -> str:
    """Return the page of every field a recipe has."""
    leaves = sorted(recipe.fields(), key=lambda leaf: "." in leaf.name)  # the recipe's own fields first
    head = f"""# Every field of a recipe

{NOTE}

`terrazzo recipes` lists the recipes, `terrazzo recipes NAME` prints one with all its values. Override a field when
training: `terrazzo train NAME --data DATA train.steps=2000 data.crop_hw=256x320`. Numbers may be written 2000, 2_000 or
2e3; sizes are height x width; `null` means none. A wrong name gets its nearest neighbour, and all mistakes are listed
at once.
"""
    sections = [
        f"## {name or 'The recipe itself'}\n\n"
        + _table(("field", "type", "default", "meaning"), map(_field, group))
        for name, group in groupby(leaves, key=lambda leaf: leaf.name.rpartition(".")[0])
    ]
    return "\n".join([head, *sections])


def names_page() -> str:
    """Return the page of the parts of MMSegmentation's config names, and of what is published under them."""
    head = f"""# MMSegmentation's config names

{NOTE}

A config name of MMSegmentation is a recipe here and means what it means there:

```sh
terrazzo recipes pspnet_r101-d8_4xb2-80k_cityscapes-512x1024
terrazzo recipes --like pspnet
```

    {{algorithm}}_{{backbone}}-{{stride}}_{{GPUs}}xb{{images per GPU}}[-options]-{{steps}}_{{data set}}-{{crop}}

Names of 0.x (`pspnet_r101-d8_512x1024_80k_cityscapes`), of its files of weights, and paths to configs are read as well;
no config file is opened. Where a name of 0.x leaves out the GPUs, they are 4 with 2 images for Cityscapes and 4 for the
others; 8 with half as many for SegFormer. On fewer GPUs the batch stays, cut into micro-batches, and training says so.
"""
    return "\n".join(
        [
            head,
            "## Algorithms\n",
            _table(
                ("part", "meaning", "backbones"),
                [
                    (f"`{n}`", f"{a.title}, {a.paper}", ", ".join(a.backbones))
                    for n, a in names.ALGORITHMS.items()
                ],
            ),
            "## Backbones\n",
            _table(
                ("part", "meaning", "`model.backbone`", "`model.pretrained`"),
                [(f"`{n}`", b.title, f"`{b.name}`", _code(b.pretrained)) for n, b in names.BACKBONES.items()],
            ),
            "`d8`, `d16`, `d32`: how many times smaller than the image the last map is (`model.output_stride`). "
            "`mg124`: the blocks\nof the last stage are dilated by 1, 2 and 4, and the loss is taken of the hardest "
            "100,000 pixels.\n\n## Data sets\n",
            _table(
                ("part", "data set", "classes", "limits of the sides", "scaled by", "evaluated"),
                [_data_set(n, one) for n, one in names.DATA_SETS.items()],
            ),
            "With crops of 769x769 corners meet where maps are resized (`model.align_corners`), Cityscapes has a "
            "pixel more\non each side, and evaluation is in windows 513 apart. SegFormer looks at Cityscapes in "
            "windows of 1024, 768\napart.\n\n## Steps, crops, options\n",
            f"Steps: {', '.join(f'`{one}`' for one in names.STEPS)}; other lengths: `train.steps=…`. "
            f"Crops, height x width:\n{', '.join(f'`{one}`' for one in names.CROPS)}; others: `data.crop_hw=…`.\n",
            _table(("option", "meaning"), [(f"`{n}`", text) for n, text in names.OPTIONS.items()]),
            "`fp16` is the old word for `amp`. Not here: "
            + "; ".join(f"`{n}` ({why})" for n, why in names.NOT_HERE.items())
            + ".\n\n## Published scores\n\nOf MMSegmentation's own trainings, in percent; none is reproduced here.\n",
            _table(
                ("config", "published"), [(f"`{n}`", told(n).replace(" published", "")) for n in PUBLISHED]
            ),
        ]
    )


def _code(text: str | None) -> str:
    return f"`{text}`" if text else "–"


def _data_set(name: str, one: names.DataSet) -> tuple[str, ...]:
    limits = "x".join(map(str, one.resize_hw))
    look = "whole" if one.stride_hw is None else f"windows of the crop, {one.stride_hw[0]} apart"
    return f"`{name}`", one.title, str(one.num_classes), limits, f"{one.scale[0]}–{one.scale[1]}", look


def architectures_page() -> str:
    """Return the page of every architecture: size, work, licences, published scores."""
    rows = []
    for one in architectures.table():
        published = ", ".join(f"{name} {score:.2f}" for name, score in one.published.items())
        weights = "; ".join(f"`{source}`: {terms}" for source, terms in one.weights.items())
        size = "" if one.parameters is None else f"{one.parameters / 1e6:.1f} M"
        work = "" if one.multiply_adds is None else f"{one.multiply_adds / 1e9:.1f} G"
        backbone = f"`{one.backbone}`" if one.backbone else ""
        rows.append((f"`{one.name}`", backbone, size, work, one.code, published, one.commercial, weights))
    columns = (
        "`model.name`",
        "`model.backbone`",
        "parameters",
        "multiply-adds",
        "code",
        "published mIoU",
        "commercial use",
        "weights",
    )
    return f"""# Architectures

{NOTE}

`terrazzo models` prints this table. Parameters are counted with 19 classes, auxiliary heads included. Multiply-adds are
those of one image of 512x1024 outside training, as computed here (half of what FLOPs often means). Published is the
best mIoU that MMSegmentation tells for this network at one scale, without flip, on the validation split; none of it was
reproduced here. Weights are what `model.pretrained` takes; what is fine-tuned from them inherits their licence.
Commercial use is what the licences of code and weights allow together; those of the data come on top
([licences](../how-to/licences.md)).

Any other backbone of timm that gives four maps: `model.backbone=timm/NAME` with `pip install "terrazzo[timm]"`. Any
other network of transformers: `model.name=huggingface model.pretrained=FOLDER_OR_ID`.

{_table(columns, rows)}"""


def _command(command: Command) -> str:
    parser = command.parser()
    rows = [_argument(action) for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    parts = [
        f"## terrazzo {command.name}",
        command.summary,
        " ".join(command.details.split("\n")),
        f"```\n{parser.usage}\n```",
        _table(("", "meaning"), rows),
    ]
    return "\n\n".join(part for part in parts if part)


def _argument(action: argparse.Action) -> tuple[str, str]:
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    name = f"{action.option_strings[-1]} {metavar}".rstrip() if action.option_strings else metavar
    return f"`{name}`", (action.help or "") + (
        " (required)" if action.option_strings and action.required else ""
    )


def _field(leaf: fields.Leaf) -> tuple[str, str, str, str]:
    default = "" if leaf.default is MISSING else f"`{fields.to_text(leaf.default)}`"
    within = ranges.RANGES[leaf.name].text if leaf.name in ranges.RANGES else ""
    return f"`{leaf.name}`", f"`{leaf.type_text}`", default, leaf.doc + (f" ({within})" if within else "")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        + "\n"
    )


def main() -> int:
    """Write or compare the pages; return the exit code."""
    stale = []
    if "--write" in sys.argv[1:]:
        write_json(architectures.COUNTS, architectures.count())
    for name, text in pages().items():
        path = FOLDER / name
        if "--write" in sys.argv[1:]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        print(
            f"docs/reference: {', '.join(stale)} not as the source says; scripts/check --fix writes them",
            file=sys.stderr,
        )
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
