"""A command line that is run in this process: its exit code, what it printed, what it complained of."""

from collections.abc import Callable

import pytest

from terrazzo.cli import main

Terrazzo = Callable[..., tuple[int, str, str]]


def caught(capsys: pytest.CaptureFixture[str]) -> Terrazzo:
    """What runs a command line and returns exit code, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run
