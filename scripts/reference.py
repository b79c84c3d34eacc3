"""Writes docs/reference/cli.md and docs/reference/recipe.md from the source, so that they cannot go stale.

python scripts/reference.py            compare; exit code 1 when a page differs
python scripts/reference.py --write    write the pages
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import MISSING
from itertools import groupby
from pathlib import Path

from terrazzo import fields, ranges, recipe
from terrazzo.cli import COMMANDS
from terrazzo.cli.parsing import Command

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
NOTE = "<!-- written by scripts/reference.py; change the source, then: scripts/check --fix -->"


def pages() -> dict[str, str]:
    """Return the generated pages by file name."""
    return {"cli.md": cli_page(), "recipe.md": recipe_page()}


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
