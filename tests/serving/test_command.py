"""`terrazzo serve` as it is typed: what is wrong is told before a model is loaded."""

import socket
from pathlib import Path

import pytest

from terrazzo.cli import main


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the following arguments are required"),
        (["runs/none", "--host", "0.0.0.0"], "On 0.0.0.0 others can reach the server, and it has no token."),
        (
            ["runs/none", "--host", "no.such.host.invalid", "--token-file", "token"],
            "There is no address no.such.host",
        ),
        (["runs/none", "--port", "99999"], "There is no port 99999."),
        (["runs/none", "--token-file", "nowhere"], "There is no file nowhere."),
        (["runs/none", "--token-file", "short"], "The token can be guessed"),
        (["runs/none", "--queue", "0"], "'0' is not a whole number from 1 on"),
        (["a=runs/none", "a=runs/other", "--port", "0"], "Two models cannot have one name."),
        (["runs/none", "--hsot", "x"], "Did you mean '--host'"),
    ],
)
def test_mistakes_are_told_in_words(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TERRAZZO_TOKEN", raising=False)
    (tmp_path / "token").write_text("0123456789abcdef\n")
    (tmp_path / "short").write_text("hunter2\n")
    if "no.such.host.invalid" in words:  # no name server is asked in tests
        monkeypatch.setattr(
            "socket.getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(socket.gaierror(-2, "unknown"))
        )
    assert main(["serve", *words]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert "hunter2" not in told


def test_a_model_that_is_not_there_is_told_as_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "runs/none", "--port", "0"]) == 1
    assert "There is no folder runs/none here" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told_with_the_way_round(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert main(["serve", "runs/none", "--port", str(other.getsockname()[1])]) == 2
    assert "terrazzo serve MODEL --port 0" in capsys.readouterr().err
