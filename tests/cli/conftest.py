"""The command line, to be called."""

import pytest

from command_line import Terrazzo, caught


@pytest.fixture
def terrazzo(capsys: pytest.CaptureFixture[str]) -> Terrazzo:
    """Run a command line; return exit code, standard output, standard error."""
    return caught(capsys)
