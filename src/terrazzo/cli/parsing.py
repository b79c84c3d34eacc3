"""Reading a command line: argparse, with our words for what is wrong with it.

Differences from plain argparse: words and options may come in any order (`train NAME --data D train.steps=9`), options
are never abbreviated (an abbreviation breaks when an option is added), and every misuse is a UsageError that names the
nearest option or value.
"""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from terrazzo.errors import UsageError, nearest, unknown_name

OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")  # train.steps=2000


@dataclass(frozen=True)
class Command:
    """One verb of the command line: a thin shell over the library function of the same name."""

    name: str
    """What is typed after `terrazzo`."""
    usage: str
    """What follows the name, as a person would write it."""
    summary: str
    """One line for the list of commands."""
    details: str
    """What the summary leaves open; shown by --help and in docs/reference/cli.md."""
    add_arguments: Callable[["Parser"], None]
    run: Callable[[argparse.Namespace], int | None]
    """Does the work, prints to standard output, returns the exit code where it is not 0."""

    def parser(self) -> "Parser":
        """Return the parser of this command."""
        parser = Parser(
            prog=f"terrazzo {self.name}",
            usage=f"terrazzo {self.name} {self.usage}".rstrip(),
            description=f"{self.summary}\n\n{self.details}".rstrip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_arguments(parser)
        return parser


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UsageErrors."""

    elsewhere: Callable[[str], str | None] | None = None
    """Where a command takes what is no option of its own, such as fields of recipes: what to type for "--steps"."""

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the arguments in `words`; raises UsageError or UnknownNameError."""
        options = [option for action in self._actions for option in action.option_strings]
        for word in words:  # before argparse, which would complain of what is missing first
            name = word.partition("=")[0]
            if word.startswith("--") and name not in options:
                error = unknown_name("option", name, options, command=f"{self.prog} --help")
                instead = None if self.elsewhere is None else self.elsewhere(name)
                raise (
                    error if instead is None else UsageError(error.what, hint=instead, command=error.command)
                )
        arguments, left = self.parse_known_intermixed_args(list(words))
        if left:
            self.error(f"too many words: {' '.join(left)}")
        return arguments

    def error(self, message: str) -> NoReturn:
        """Raise argparse's complaint as ours."""
        message = message.removeprefix("argument ")
        raise UsageError(f"{self.prog}: {message}.", expected=self.usage, command=f"{self.prog} --help")


def recipe_and_overrides(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the recipe in `words`, or None, and overrides such as train.steps=2000; two recipes are a UsageError."""
    overrides = [word for word in words if OVERRIDE.match(word)]
    recipes = [word for word in words if not OVERRIDE.match(word)]
    if len(recipes) > 1:
        raise UsageError(
            "A training has one recipe.",
            found=", ".join(recipes),
            hint="Fields are overridden as section.field=value, without spaces.",
            command=f"terrazzo recipes {recipes[0]}",
        )
    return (recipes[0] if recipes else None), overrides


def field_instead(option: str) -> str | None:
    """Say how the field of a recipe is written that was taken for an option: train.steps=… for "--steps"."""
    from terrazzo.fields import leaves
    from terrazzo.recipe import Recipe

    name = option.lstrip("-").replace("-", "_")
    near = [path for path in leaves(Recipe) if name in (path, path.rpartition(".")[2])]
    return (
        f"It is a field of the recipe, without dashes: {' or '.join(f'{path}=…' for path in near)}"
        if near
        else None
    )


def one_of(kind: str, *choices: str) -> Callable[[str], str]:
    """Return a reader of one of `choices`; the nearest is named when it is another."""

    def read(text: str) -> str:
        if text not in choices:
            raise unknown_name(kind, text, choices)
        return text

    return read


def count(text: str) -> int:
    """Read a whole number from 1 on."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def duration(text: str) -> float:
    """Read seconds, more than none: "90" or "1.5"."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def time_span(text: str) -> float:
    """Read a span of time, more than none, as seconds: "2h", "90m", "1h30m", "45s"; a bare number is seconds."""
    found = re.fullmatch(
        r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s?)?", text.strip()
    )
    seconds = 0.0
    if found is not None:
        seconds = sum(
            float(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True)
        )
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no span of time, such as 2h, 90m or 1h30m")
    return seconds


def whole_number(text: str) -> int:
    """Read a whole number from 0 on."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def fold(text: str) -> tuple[int, int]:
    """Read 2/5, the second fold of five; whether there is such a fold is the data's to say."""
    number, slash, of = text.partition("/")
    if not slash:
        raise argparse.ArgumentTypeError(f"{text!r} is no fold such as 2/5")
    return whole_number(number.strip()), whole_number(of.strip())


def whole_numbers(text: str) -> tuple[int, ...]:
    """Read whole numbers from 0 on with commas between them."""
    return tuple(whole_number(part.strip()) for part in text.split(","))


def words(text: str) -> tuple[str, ...]:
    """Read "A,B" as its parts, without the empty ones."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def find_command(name: str, commands: Sequence[Command]) -> Command:
    """Return the command called `name`; raises UnknownNameError with the nearest."""
    by_name = {command.name: command for command in commands}
    if name in by_name:
        return by_name[name]
    if name.startswith("-"):
        raise unknown_name("option", name, ["--help", "--version"], command="terrazzo --help")
    raise unknown_name("command", name, by_name, command=_suggested(name, by_name))


def _suggested(name: str, names: Sequence[str] | dict[str, Command]) -> str:
    near = nearest(name, names)
    return f"terrazzo {near[0]} --help" if near else "terrazzo --help"
