"""Docs that cannot rot: pages made from the source equal it, links lead somewhere, commands exist and parse."""

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from terrazzo.cli import COMMANDS
from terrazzo.cli.parsing import find_command

PROJECT = Path(__file__).parent.parent
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md"), *(PROJECT / "bench").rglob("*.md")])
GENERATED = ("cli.md", "recipe.md", "openmmlab-names.md", "architectures.md")
NAMES = {command.name for command in COMMANDS}


def name_of(page: Path) -> str:
    return page.relative_to(PROJECT).as_posix()


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", PROJECT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", GENERATED)
def test_the_reference_is_what_the_source_says(reference: ModuleType, name: str) -> None:
    written = (PROJECT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert written == reference.pages()[name], "scripts/check --fix writes docs/reference anew"


def test_every_command_says_what_it_and_each_of_its_words_do() -> None:
    for command in COMMANDS:
        assert command.summary.endswith("."), command.name
        for action in command.parser()._actions:
            assert action.help, f"terrazzo {command.name}: {action.option_strings or action.dest} has no help"


def test_every_field_of_a_recipe_has_its_sentence() -> None:
    from terrazzo import recipe

    assert [leaf.name for leaf in recipe.fields() if not leaf.doc.strip()] == []


def test_every_format_has_a_page_that_imports_it() -> None:
    from terrazzo.cli.datasets import FORMATS

    pages = [page.read_text(encoding="utf-8") for page in (PROJECT / "docs" / "how-to").glob("*.md")]
    shown = {line.split()[2] for page in pages for line in command_lines(page) if line.split()[1] == "import"}
    assert set(FORMATS) <= shown


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for text, target in links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue  # another site
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"[{text}]({target}) leads to no file"
        if anchor:
            assert anchor in anchors(there), f"[{text}]({target}) leads to no heading of {name_of(there)}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_docs_are_spelled_as_the_command_line_reads_them(page: Path) -> None:
    if page.name in GENERATED:
        return  # usage lines, made from the parsers themselves
    for line in command_lines(page.read_text(encoding="utf-8")):
        words = shlex.split(line, comments=True)[1:]
        if words and words[0] not in ("--help", "--version"):
            read = find_command(words[0], COMMANDS).parser().read
            if "--help" not in words:
                read([word for word in words[1:] if word not in ("…", "...")])


def test_commands_that_errors_and_docstrings_tell_people_to_type_exist() -> None:
    lost = []
    for path in sorted((PROJECT / "src").rglob("*.py")):
        for line, name in told_commands(path.read_text(encoding="utf-8")):
            if name not in NAMES:
                lost.append(f"{name_of(path)}:{line} terrazzo {name}")
    assert not lost, "\n".join(["", *lost])


def told_commands(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, command) of `terrazzo …` in backticks of any string, and of the `command=` parts of errors."""
    tree = ast.parse(source)
    parts = [node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "command"]
    inside = {id(inner) for part in parts for inner in ast.walk(part)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            before = r"(?:^ *|`)" if id(node) in inside else "`"
            for name in re.findall(before + r"terrazzo ([a-z]+)\b", node.value, re.MULTILINE):
                yield node.lineno, name
        if isinstance(node, ast.List) and len(node.elts) > 1:  # shlex.join(["terrazzo", "check", …])
            words = [one.value for one in node.elts if isinstance(one, ast.Constant)]
            if words[:1] == ["terrazzo"]:
                yield node.lineno, str(words[1])


def links(text: str) -> Iterator[tuple[str, str]]:
    """Yield (text, target) of the Markdown links outside code."""
    plain = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    yield from re.findall(r"!?\[([^\]]*)\]\(([^)\s]+)\)", plain)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, spelled as GitHub does."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def command_lines(text: str) -> Iterator[str]:
    """Yield the lines in code blocks that call terrazzo, continued lines joined, redirections left out."""
    for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            call = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
            if re.match(r"terrazzo [-a-z]", call):  # and no line of measurements
                yield call.partition(" > ")[0]


def test_the_walk_over_docs_sees_what_it_should() -> None:
    text = (
        "See [there](docs/x.md#a-b) and `[no](code)`.\n"
        "```sh\n$ terrazzo env --json > env.json # now\nls\nterrazzo predict m \\\n  a\n```\n"
    )
    assert list(links(text)) == [("there", "docs/x.md#a-b")]
    assert [shlex.split(line, comments=True) for line in command_lines(text)] == [
        ["terrazzo", "env", "--json"],
        ["terrazzo", "predict", "m", "a"],
    ]


def test_the_walk_over_errors_sees_what_it_should() -> None:
    source = (
        'raise E("terrazzo is kind", command=f"terrazzo check {x}\\nterrazzo fix")\n'
        'def f():\n    """What `terrazzo env` says."""\n'
        'seed = "terrazzo scenes 1"\n'
        'words = ["terrazzo", "train", x]\n'
    )
    assert sorted(told_commands(source)) == [(1, "check"), (1, "fix"), (3, "env"), (5, "train")]
