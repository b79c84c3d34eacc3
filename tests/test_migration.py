"""Coming from MMSegmentation: whatever the page calls terrazzo's exists, and values it shows can be typed."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import terrazzo as tz
from terrazzo import fields as leaf
from terrazzo import recipe
from terrazzo.cli import COMMANDS
from terrazzo.cli.parsing import find_command, recipe_and_overrides

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "from-mmsegmentation.md"
FIELD = re.compile(r"(model|data|loss|optim|train|eval)\.\w+(=\S+)?")


def ours() -> Iterator[tuple[int, str]]:
    """Yield (line, code) of what stands in backticks in the right columns and in the prose below the tables."""
    in_tables = True
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines(), start=1):
        in_tables &= not line.startswith("## What is counted")
        cell = (
            line.split(" | ", 1)[1] if line.startswith("|") and " | " in line else ("" if in_tables else line)
        )
        for code in re.findall(r"`([^`]+)`", cell):
            yield number, code


def test_the_walk_over_the_page_finds_commands_and_fields() -> None:
    found = [code for _, code in ours()]
    assert sum(code.startswith("terrazzo ") for code in found) > 12
    assert sum(FIELD.fullmatch(code) is not None for code in found) > 45
    assert len({code.partition("=")[0] for code in found}) > 60


@pytest.mark.parametrize(("line", "code"), [pair for pair in ours() if pair[1].startswith("terrazzo ")])
def test_commands_of_the_page_are_read_by_the_command_line(line: int, code: str) -> None:
    words = shlex.split(code)[1:]
    read = find_command(words[0], COMMANDS).parser().read(words[1:])
    name, overrides = recipe_and_overrides(getattr(read, "words", []))
    for source in (name, getattr(read, "name", None)):
        if source is not None:
            recipe.load(source, overrides)


@pytest.mark.parametrize(("line", "code"), [pair for pair in ours() if FIELD.fullmatch(pair[1])])
def test_fields_of_the_page_exist_and_take_the_values_shown(line: int, code: str) -> None:
    name, equals, text = code.partition("=")
    field = {one.name: one for one in recipe.fields()}[name]
    if equals:
        value = leaf.parse(text, field.annotation)
        assert recipe.out_of_range(name, value) is None
    assert len(re.findall(r"\.", name)) == 1


def test_options_and_python_names_of_the_page_exist() -> None:
    options = {
        option
        for command in COMMANDS
        for action in command.parser()._actions
        for option in action.option_strings
    }
    for _, code in ours():
        if code.startswith("--"):
            assert code.split()[0] in options, code
        for name in re.findall(r"\btz\.(\w+)", code):
            assert hasattr(tz, name), code
