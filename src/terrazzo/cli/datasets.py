"""import, check, fix: data in, and what is wrong with it."""

from terrazzo.cli.parsing import Command

COMMANDS: tuple[Command, ...] = ()
