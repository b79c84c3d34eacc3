"""The command line: how a command is found, what help and mistakes say, where, and with which exit code."""

import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable

import pytest

from command_line import Terrazzo
from terrazzo import __version__, cli
from terrazzo.cli import COMMANDS, parsing
from terrazzo.cli.parsing import Command, Parser
from terrazzo.errors import MaskValueError, UsageError

# finding the command -------------------------------------------------------------------------------------------------


def test_help_lists_every_command_with_its_summary(terrazzo: Terrazzo) -> None:
    code, out, err = terrazzo("--help")
    assert (code, err) == (0, "")
    for command in COMMANDS:
        assert f"  {command.name} " in out
        assert command.summary in out


def test_no_words_are_a_misuse_that_shows_the_help(terrazzo: Terrazzo) -> None:
    code, out, err = terrazzo()
    assert (code, out) == (2, "")
    assert err.startswith("usage: terrazzo COMMAND")


def test_version_is_the_packages(terrazzo: Terrazzo) -> None:
    assert terrazzo("--version") == (0, f"terrazzo {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_each_command_has_help_that_says_how_it_is_called(terrazzo: Terrazzo, command: Command) -> None:
    code, out, err = terrazzo(command.name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: terrazzo {command.name} {command.usage}".rstrip())
    assert command.summary in out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["tarin"], "UnknownNameError: There is no command 'tarin'.|Did you mean 'train'?|terrazzo train --help"),
        (["--verbose"], "UnknownNameError: There is no option '--verbose'.|terrazzo --help"),
        (["evaluate", "m", "--dta", "x"], "There is no option '--dta'.|Did you mean '--data'|terrazzo evaluate --help"),
        (["evaluate", "m"], "UsageError: terrazzo evaluate: the following arguments are required: --data.|expected: "),
        (["evaluate", "--data", "x"], "the following arguments are required: MODEL."),
        (["evaluate", "m", "n", "--data", "x"], "terrazzo evaluate: too many words: n."),
        (["evaluate", "m", "--data"], "terrazzo evaluate: --data: expected one argument."),
        (["predict", "m", "--out", "o"], "the following arguments are required: SOURCE."),
        (["predict", "m", "s", "--out", "o", "--ids", "clas"], "no kind of ids 'clas'.|expected: one of class, raw"),
        (["predict", "m", "s", "--out", "o", "--precision", "fp16"], "no precision 'fp16'.|Did you mean 'f16'"),
        (["predict", "m", "s", "--out", "o", "--batch", "0"], "--batch: '0' is not a whole number from 1 on."),
        (["predict", "m", "s", "--out", "o", "--whole", "--windows"], "not allowed with argument"),
        (["train", "a", "--seed", "x"], "--seed: 'x' is not a whole number from 0 on."),
        (["train", "a", "b"], "UsageError: A training has one recipe.|found: a, b"),
        (["train"], "UsageError: Training needs a recipe.|terrazzo recipes"),
        (["train", "segformer-b9", "--data", "d"], "There is no recipe 'segformer-b9'.|Did you mean 'segformer-b"),
        (["train", "a", "--steps", "9"], "no option '--steps'.|without dashes: train.steps=…|terrazzo train --help"),
        (["train", "a", "--optim.lr=1"], "There is no option '--optim.lr'.|without dashes: optim.lr=…"),
        (["train", "a", "--batch-size=2"], "without dashes: train.batch_size=… or eval.batch_size=…"),
        (["evaluate", "m", "--steps", "9"], "There is no option '--steps'.|expected: one of -h"),
        (["recipes", "sidewlak"], "There is no recipe 'sidewlak'.|Did you mean 'sidewalk'"),
        (["import", "camvd", "s", "--out", "o"], "There is no format 'camvd'.|Did you mean 'camvid'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_misuse_exits_with_2_and_names_the_nearest(
    terrazzo: Terrazzo, words: list[str], error: str
) -> None:
    code, out, err = terrazzo(*words)
    assert (code, out) == (2, "")
    for part in error.split("|"):
        assert part in err
    assert "Traceback" not in err


def test_options_and_words_come_in_any_order() -> None:
    by_name = {command.name: command.parser() for command in COMMANDS}
    trained = by_name["train"].read(
        ["a", "train.steps=1", "--data", "d", "data.flip=0", "--out", "o", "eval.every=2"]
    )
    assert (trained.words, trained.data, trained.out) == (
        ["a", "train.steps=1", "data.flip=0", "eval.every=2"],
        "d",
        "o",
    )
    predicted = by_name["predict"].read(["m", "--out", "o", "a.png", "--confidence", "b.png"])
    assert (predicted.model, predicted.sources) == ("m", ["a.png", "b.png"])
    assert by_name["train"].read(["--resume", "r"]).words == []


def test_options_are_not_abbreviated(terrazzo: Terrazzo) -> None:
    code, _, err = terrazzo("train", "a", "--dat", "x")
    assert code == 2
    assert "There is no option '--dat'" in err


# what goes wrong -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command_that(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Put a command `act` in the place of all others."""

    def install(act: Callable[[], None]) -> None:
        def run(_: Namespace) -> None:
            act()

        command = Command("act", "", "Act.", "", lambda parser: None, run)
        monkeypatch.setattr(cli, "COMMANDS", (command,))

    return install


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MaskValueError("a.png has id 7.", found="7", command="terrazzo check d"), 1,
         "MaskValueError: a.png has id 7.\n  found: 7\n  terrazzo check d\n"),
        (UsageError("Not so."), 2, "UsageError: Not so.\n"),
        (KeyboardInterrupt(), 130, "\nStopped.\n"),
        (PermissionError(13, "Permission denied", "/data/x"), 1, "StorageError: Permission denied: /data/x\n"),
        (MemoryError(), 1, "TerrazzoError: This machine ran out of memory.\n  A smaller micro-batch"),
    ],
    ids=["failed", "misused", "stopped", "system", "memory"],
)  # fmt: skip
def test_what_went_wrong_is_told_on_standard_error(
    terrazzo: Terrazzo, command_that: Callable, error: BaseException, code: int, said: str
) -> None:
    command_that(raises(error))
    got, out, err = terrazzo("act")
    assert (got, out) == (code, "")
    assert err.startswith(said)
    assert "Traceback" not in err


def test_a_device_out_of_memory_is_told_without_a_traceback(
    terrazzo: Terrazzo, command_that: Callable
) -> None:
    import torch

    command_that(raises(torch.OutOfMemoryError("CUDA out of memory")))
    code, _, err = terrazzo("act")
    assert code == 1
    assert err.startswith("TerrazzoError: The device ran out of memory.")
    assert "terrazzo train … train.micro_batch=1" in err


def test_a_bug_of_ours_shows_where_and_asks_for_a_report(terrazzo: Terrazzo, command_that: Callable) -> None:
    command_that(raises(KeyError("here")))
    code, out, err = terrazzo("act")
    assert (code, out) == (1, "")
    assert "KeyError: 'here'" in err
    assert "Traceback" in err
    assert err.endswith("command you typed, and what this prints:\n  terrazzo env\n")


def test_a_traceback_of_a_mistake_is_there_for_who_asks(
    terrazzo: Terrazzo, command_that: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERRAZZO_TRACEBACK", "1")
    command_that(raises(UsageError("Not so.")))
    code, _, err = terrazzo("act")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("UsageError: Not so.\n")


@pytest.mark.skipif(os.name == "nt", reason="pipes close otherwise on Windows")
def test_a_reader_who_left_is_not_an_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "terrazzo", "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_console_that_knows_only_ascii_is_no_error() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-m", "terrazzo", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: terrazzo COMMAND ?\n")


def test_readers_of_numbers_refuse_what_is_none() -> None:
    assert [parsing.count("12"), parsing.whole_number("0")] == [12, 0]
    for text in ("0", "-1", "1.5", "x", "", "²"):
        with pytest.raises(Exception, match="is not a whole number from 1 on"):
            parsing.count(text)


def test_a_parser_is_fresh_for_each_call() -> None:
    command = COMMANDS[0]
    assert isinstance(command.parser(), Parser)
    assert command.parser() is not command.parser()
