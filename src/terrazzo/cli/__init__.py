"""The command line: `terrazzo COMMAND …`, one thin function per verb, each importing its verb inside.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done; 1 failed; 2 misused; 128 + N
stopped by signal N (130 for Ctrl-C). A user's mistake never shows a traceback unless TERRAZZO_TRACEBACK=1.

    __init__.py    main: finds the command, tells errors
    parsing.py     what a command is, and how its words are read
    datasets.py    import, check, fix, browse
    models.py      quickstart, train, evaluate, predict, convert
    share.py       push, pull
    serving.py     serve
    labels.py      label, release
    deploy.py      export, profile
    catalogue.py   recipes, models, env
"""

import io
import os
import sys
from collections.abc import Sequence

from terrazzo import __version__
from terrazzo.cli import catalogue, datasets, deploy, labels, models, serving, share
from terrazzo.cli.parsing import Command, find_command
from terrazzo.errors import StorageError, TerrazzoError

COMMANDS: tuple[Command, ...] = (
    *models.COMMANDS[:1],
    *datasets.COMMANDS,
    *labels.COMMANDS,
    *models.COMMANDS[1:],
    *share.COMMANDS,
    *serving.COMMANDS,
    *deploy.COMMANDS,
    *catalogue.COMMANDS,
)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that `words` (the command line by default) spell; return the exit code."""
    words = list(sys.argv[1:] if words is None else words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # a console that knows no "…" prints "?", and the work goes on
    try:
        code = _run(words)
        sys.stdout.flush()  # a closed pipe is noticed here, not at the interpreter's end
        return code
    except TerrazzoError as error:
        return _tell(error)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # whoever read us has left (terrazzo recipes | head); nothing more may be written, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.filename is None or not error.strerror:
            return _tell_bug(error)
        return _tell(StorageError(f"{error.strerror}: {error.filename}"), error)
    except MemoryError as error:
        return _tell(_out_of_memory("This machine"), error)
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch to ask
            return _tell(_out_of_memory("The device"), error)
        return _tell_bug(error)


def overview() -> str:
    """Return what `terrazzo --help` prints."""
    width = max(len(command.name) for command in COMMANDS) + 2
    lines = [f"  {command.name:<{width}}{command.summary}" for command in COMMANDS]
    return "\n".join(
        [
            "usage: terrazzo COMMAND …",
            "",
            "Semantic segmentation, the whole loop: data in, a network trained, honest scores and masks out.",
            "",
            *lines,
            "",
            "terrazzo COMMAND --help says more; terrazzo --version says which this is.",
        ]
    )


def _run(words: list[str]) -> int:
    if not words:
        print(overview(), file=sys.stderr)
        return 2
    if words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"terrazzo {__version__}")
        return 0
    command = find_command(words[0], COMMANDS)
    try:
        arguments = command.parser().read(words[1:])
    except SystemExit as left:  # argparse has printed the help
        return int(left.code or 0)
    return command.run(arguments) or 0


def _tell(error: TerrazzoError, cause: BaseException | None = None) -> int:
    if os.environ.get("TERRAZZO_TRACEBACK") == "1":
        _print_traceback(cause or error)
    if not error.is_told:
        print(f"{type(error).__name__}: {error}", *notes_of(error), sep="\n", file=sys.stderr)
    return error.exit_code


def notes_of(error: BaseException) -> list[str]:
    """Return what was added to an error on its way: `error.add_note`."""
    return [f"  {note}" for note in getattr(error, "__notes__", ())]


def _tell_bug(error: BaseException) -> int:
    _print_traceback(error)
    print(
        f"This is a bug in terrazzo {__version__}, not a mistake of yours. Please report it with the lines above, the\n"
        "command you typed, and what this prints:\n"
        "  terrazzo env",
        file=sys.stderr,
    )
    return 1


def _print_traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error)


def _out_of_memory(where: str) -> TerrazzoError:
    return TerrazzoError(
        f"{where} ran out of memory.",
        hint="A smaller micro-batch trains the same network in less memory; windows look at large images in less.",
        command="terrazzo train … train.micro_batch=1\nterrazzo predict … --windows --batch 1",
    )
